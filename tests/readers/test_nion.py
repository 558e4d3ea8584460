"""Data items of Nion Swift: archives and HDF5, axes divided by their JSON."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from encode_emd import some
from encode_nion import properties, write_ndata, write_nion_h5
from evidence import check_damaged, damaged, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError, UnknownFormatError
from stemstore.sources.contract import MISSING
from stemstore.testing import ReaderTests
from stemstore_readers.nion import Nion
from stemstore_readers.nion_item import parse_properties


class TestArchive(ReaderTests):
    """The shared tests on an archive."""

    reader_cls = Nion
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        return str(write_ndata(tmp_path / "a.ndata1", truth)), truth, {}

    def make_big_file(self, tmp_path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<u2", "fortran_order": False, "shape": (64, 64, 96, 96)}
        )
        size = len(header.getvalue()) + 64 * 64 * 96 * 96 * 2
        path = tmp_path / "big.ndata1"
        with zipfile.ZipFile(path, "w") as file:
            with file.open(zipfile.ZipInfo("data.npy"), "w", force_zip64=False) as member:
                member.write(header.getvalue())
                for _ in range(64):
                    member.write(bytes((size - len(header.getvalue())) // 64))
            file.writestr("metadata.json", json.dumps(properties(np.empty((64, 64, 96, 96), "<u2"))))
        return str(path), {}


class TestSeriesInFortranOrder(ReaderTests):
    """The shared tests on a series of scans in Fortran order, the JSON in front."""

    remote = False
    reader_cls = Nion
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((2, 3, 4, 5, 6), ">f4")
        path = tmp_path / "a.ndata"
        write_ndata(path, np.asfortranarray(truth), properties(truth, series=True), metadata_first=True)
        return str(path), truth.astype("f4"), {}


class TestHdf5(ReaderTests):
    """The shared tests on chunks of an HDF5 file, a stack that the user lays out."""

    reader_cls = Nion
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((6, 5, 4), "<i4")
        path = write_nion_h5(tmp_path / "a.h5", truth, chunks=(1, 5, 4))
        return str(path), truth.reshape(2, 3, 5, 4), {"scan_shape": (2, 3)}


@pytest.fixture(params=["archive", "hdf5"])
def write(request, tmp_path):
    """Write a data item in either layout."""

    def make(array, said=None):
        if request.param == "archive":
            return str(write_ndata(tmp_path / "a.ndata1", array, said))
        return str(write_nion_h5(tmp_path / "a.h5", array, said))

    return make


def test_axes_and_metadata(write):
    """Offset, scale and unit of every axis, beam energy, exposure, time and detector are read."""
    metadata = Nion()(write(some((3, 4, 5, 6)))).metadata
    assert {axis.name: (axis.unit, axis.step, axis.origin) for axis in metadata.axes} == {
        "y": ("nm", 0.5, -1.0),
        "x": ("nm", 0.25, -2.0),
        "ky": ("mrad", 2.0, -10.0),
        "kx": ("mrad", 3.0, -12.0),
    }
    acquisition = metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.exposure_time.value) == (60.0, 0.002)
    assert acquisition.start_time == "2024-05-17T09:30:00.250000"
    assert metadata.detector.name == "Dectris ELA"
    assert metadata.warnings == []
    assert metadata.vendor["properties"]["intensity_calibration"]["units"] == "counts"


@pytest.mark.parametrize(("series", "shape"), [(False, (3, 5, 6)), (True, (3, 5, 6)), (True, (2, 3, 4, 5, 6))])
def test_division_of_the_axes(write, series, shape):
    """A line of frames, a series of frames and a series of scans are told by the counts of the properties."""
    array = some(shape)
    source = Nion()(write(array, properties(array, series=series)))
    assert source.scan_shape == shape[:-2]
    np.testing.assert_array_equal(whole(source), array)


@pytest.mark.parametrize(
    ("shape", "datum", "match"),
    [
        ((3, 4, 50), 1, "2 of the scan and 1 of each datum"),
        ((5, 6), 2, "no stack of frames but /data"),
        ((50,), 1, "0 of the scan and 1 of each datum"),
    ],
)
def test_other_items_are_declined(write, shape, datum, match):
    """Spectrum images, single images and spectra are named and declined."""
    array = some(shape)
    with pytest.raises(InputError, match=match):
        Nion()(write(array, properties(array, datum=datum)))


def test_counts_that_do_not_fit_the_array(write):
    """Properties that divide other axes than the array has are refused; without any the last two are the detector's."""
    array = some((3, 4, 5, 6))
    with pytest.raises(InputError, match="1 of the scan and 2 of each datum"):
        Nion()(write(array, properties(array, collection_dimension_count=1)))
    source = Nion()(write(array, properties(array, collection_dimension_count=None)))
    assert source.scan_shape == (3, 4)
    assert any("do not divide the axes" in text for text in source.metadata.warnings)


@pytest.mark.parametrize("calibrations", [None, [], [1, 2, 3, 4], [{"scale": [1], "units": {}}] * 4, "text"])
def test_calibrations_that_are_none(write, calibrations):
    """Without usable calibrations the axes count indices."""
    array = some((3, 4, 5, 6))
    assert Nion()(write(array, properties(array, dimensional_calibrations=calibrations))).metadata.axes == []


@pytest.mark.parametrize("metadata", [None, [], {"instrument": None}, {"instrument": {"high_tension": [1]}}, "text"])
def test_metadata_that_say_nothing(write, metadata):
    """Parts that are missing or of another kind mean that nothing is known."""
    array = some((3, 4, 5, 6))
    source = Nion()(write(array, properties(array, metadata=metadata, created="yesterday")))
    assert source.metadata.acquisition.beam_energy is None
    assert source.metadata.acquisition.start_time is None


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"[" * 100_000])
def test_properties_that_are_no_object(tmp_path, content):
    """Broken JSON is damage, and named."""
    with pytest.raises(CorruptDataError, match="properties of here"):
        parse_properties(content, "here")
    path = write_ndata(tmp_path / "a.ndata1", some((3, 4, 5, 6)), content)
    with pytest.raises(CorruptDataError, match=r"properties of metadata\.json in"):
        Nion()(str(path))


def test_properties_in_latin_1():
    """Texts that are no UTF-8 are those of Latin 1."""
    assert parse_properties('{"units": "Å"}'.encode("latin-1"), "here") == {"units": "Å"}
    assert parse_properties('{"units": "Å"}'.encode(), "here") == {"units": "Å"}


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: json.dumps({"a": text}).encode("utf-8")))
def test_any_properties(content):
    """Whatever the bytes, the parser gives an object or an error of stemstore."""
    with contextlib.suppress(StemStoreError):
        assert isinstance(parse_properties(content, "here"), dict)


def test_archives_of_other_programs(tmp_path):
    """Other archives and HDF5 files are neither claimed nor read."""
    np.savez(tmp_path / "a.npz", data=some((3, 4, 5, 6)))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"] = some((3, 4, 5, 6))
    (tmp_path / "c.ndata").write_bytes(b"hello")
    for name, match in (("a.npz", "lacks metadata.json"), ("b.h5", "attribute properties"), ("c.ndata", "starts with")):
        path = tmp_path / name
        assert Nion.matches(str(path), path.read_bytes()[:4096]) == 0
        with pytest.raises(UnknownFormatError, match=match):
            Nion()(str(path))


@pytest.mark.parametrize("name", ["a.ndata1", "a.h5", "a.zip"])
def test_items_are_claimed_by_content(tmp_path, name):
    """The names of the members, or of the attribute, tell a data item, whatever the file is called."""
    path = tmp_path / name
    (write_nion_h5 if name.endswith("h5") else write_ndata)(path, some((3, 4, 5, 6)))
    assert Nion.matches(str(path), path.read_bytes()[:4096]) == 1


def test_compressed_archives_are_refused(tmp_path):
    """An array that zip compressed has no place in the file; the message says how to repack it."""
    path = write_ndata(tmp_path / "a.ndata1", some((3, 4, 5, 6)), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="repack the file with zip -0"):
        Nion()(str(path))


def test_arrays_larger_than_their_file(tmp_path):
    """A header that states more than the archive holds is damage; nothing is allocated for it."""
    path = write_ndata(tmp_path / "a.ndata1", some((3, 4, 5, 6)))
    path.write_bytes(path.read_bytes().replace(b"(3, 4, 5, 6)", b"(9, 4, 5, 6)"))
    with pytest.raises(TruncatedFileError, match="behind the file"):
        Nion()(str(path))


def test_objects_are_never_unpickled(tmp_path):
    """An array of objects is refused."""
    path = write_ndata(tmp_path / "a.ndata1", some((3, 4, 5, 6)))
    path.write_bytes(path.read_bytes().replace(b"'<u2'", b"'|O' "))
    with pytest.raises(InputError, match="cannot be a pixel"):
        Nion()(str(path))


def test_scan_larger_than_the_data(write):
    """A stated scan larger than the array ends in missing frames."""
    source = Nion(scan_shape=(4, 4))(write(some((3, 4, 5, 6))))
    assert source.validity.tolist().count(MISSING) == 4
    assert not source.read_frames(12, 16).any()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small archive and of a small HDF5 file."""
    folder = tmp_path_factory.mktemp("fuzz")
    array = some((2, 2, 3, 3))
    return write_ndata(folder / "a.ndata1", array).read_bytes(), write_nion_h5(folder / "a.h5", array).read_bytes()


@settings(max_examples=100, derandomize=True)  # the HDF5 library itself may loop over damaged texts
@given(data=st.data())
def test_damaged_files(tmp_path_factory, small, data):
    """A file cut anywhere, with changed bytes or garbage at its end gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "a.ndata1"
    check_damaged(Nion(), path, data.draw(damaged(data.draw(st.sampled_from(small)))))
