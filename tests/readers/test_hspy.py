"""HyperSpy files in HDF5: axes that say which of them are the scan, metadata that are never evaluated."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
from encode_emd import some
from encode_hyperspy import AXES, METADATA, write_hspy
from evidence import check_array, check_damaged, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import FormatVersionError, InputError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.hspy import Hspy


class TestContiguous(ReaderTests):
    """The shared tests on an uncompressed signal."""

    reader_cls = Hspy
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        return str(write_hspy(tmp_path / "a.hspy", truth)), truth, {}

    def make_big_file(self, tmp_path):
        path = write_hspy(tmp_path / "big.hspy", some((1, 1, 2, 2)))
        with h5py.File(path, "a") as file:
            group = file["Experiments/__unnamed__"]
            del group["data"]
            group.create_dataset("data", (64, 64, 256, 256), "<u2", chunks=(1, 1, 256, 256))
            for index, size in enumerate((64, 64, 256, 256)):
                group[f"axis-{index}"].attrs["size"] = size
        return str(path), {}


class TestOneScanAxis(ReaderTests):
    """The shared tests on compressed chunks of a series that the user lays out."""

    reader_cls = Hspy
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((6, 5, 4), "<f4")
        storage = {"chunks": (4, 5, 4), "compression": "gzip"}
        path = write_hspy(tmp_path / "a.hspy", truth, axes=AXES[1:], storage=storage)
        return str(path), truth.reshape(2, 3, 5, 4), {"scan_shape": (2, 3)}


def axes_of(source):
    """Unit, step and origin by axis."""
    return {axis.name: (axis.unit, axis.step, axis.origin) for axis in source.metadata.axes}


def with_axis(index, **changes):
    """The axes with attributes of one changed; None takes one away."""
    axes = [dict(axis) for axis in AXES]
    axes[index] = {name: value for name, value in (axes[index] | changes).items() if value is not None}
    return axes


def test_axes(tmp_path):
    """Scale, offset and unit of every axis come in the order of the array."""
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)))))
    assert axes_of(source) == {
        "y": ("nm", 2.0, 200.0),
        "x": ("nm", 1.5, 100.0),
        "ky": ("1/angstrom", 0.01, -0.02),
        "kx": ("1/angstrom", 0.02, -0.06),
    }
    assert source.metadata.warnings == []


def test_metadata(tmp_path):
    """Beam energy, angle, camera length, exposure, time and names become the acquisition."""
    metadata = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6))))).metadata
    acquisition = metadata.acquisition
    names = ("beam_energy", "semi_convergence_angle", "camera_length", "exposure_time")
    assert [getattr(acquisition, name).value for name in names] == [200.0, 1.5, 510.0, 0.05]
    assert acquisition.magnification == 1300000.0
    assert acquisition.start_time == "2018-04-15T15:47:20+00:00"
    assert (acquisition.instrument, acquisition.operator, metadata.detector.name) == ("Titan", "somebody", "Merlin")
    assert metadata.vendor["Experiments/__unnamed__/metadata/General@time_zone"] == "UTC"


@pytest.mark.parametrize(
    ("time", "zone", "found"),
    [
        ("15:47:20", "CET", "2018-04-15T15:47:20"),
        ("15:47:20", "+02:00", "2018-04-15T15:47:20+02:00"),
        ("noon", "UTC", None),
        ("", "", None),
    ],
)
def test_times(tmp_path, time, zone, found):
    """A zone that is no offset is left out, a time that is none is no start."""
    metadata = {"General": {"date": "2018-04-15", "time": time, "time_zone": zone}}
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), metadata=metadata)))
    assert source.metadata.acquisition.start_time == found


@pytest.mark.parametrize("nothing", ["_None_", "<undefined>", None])
def test_axes_without_name_or_unit(tmp_path, nothing):
    """What HyperSpy writes for no name and no unit leaves an axis without a step to its indices."""
    axes = with_axis(0, name=nothing, units=nothing, scale=1.0, offset=0.0)
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), axes=axes)))
    assert "y" not in axes_of(source)
    assert source.metadata.warnings == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"units": "_None_"}, "has the step 2 but no unit"),
        ({"units": "furlong"}, "no known unit"),
        ({"scale": 0.0}, "cannot be"),
        ({"scale": math.nan}, "no scale"),
        ({"scale": 7.8e-20}, "hard to believe"),
        ({"size": 4}, "says it has 4 indices, the array has 3"),
        ({"axis": np.array([0.0, 1.0, 4.0])}, "not evenly spaced"),
        ({"scale": None, "_type": "FunctionalDataAxis"}, r"(FunctionalDataAxis) has no scale"),
    ],
)
def test_odd_axes_are_reported(tmp_path, changes, match):
    """Axes that cannot be used, or hardly be believed, say so."""
    path = write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), axes=with_axis(0, **changes))
    warnings = Hspy()(str(path)).metadata.warnings
    assert any(match in text for text in warnings), warnings


def test_even_coordinates_are_an_axis(tmp_path):
    """Coordinates that happen to be evenly spaced are an axis like others."""
    axes = with_axis(0, scale=None, offset=None, _type="DataAxis", axis=np.array([1.0, 3.0, 5.0]))
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), axes=axes)))
    assert axes_of(source)["y"] == ("nm", 2.0, 1.0)


def test_scan_axes_behind_the_detector(tmp_path):
    """The attribute navigate counts, wherever the axis stands."""
    stored = some((5, 6, 3, 4))
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", stored, axes=(*AXES[2:], *AXES[:2]))))
    np.testing.assert_array_equal(whole(source), stored.transpose(2, 3, 0, 1))
    assert axes_of(source)["kx"] == ("1/angstrom", 0.02, -0.06)
    assert any("scan axes first" in text for text in source.metadata.warnings)


@pytest.mark.parametrize("version", ["3.0", "3.3", 1.2, np.bytes_(b"2.2")])
def test_versions(tmp_path, version):
    """Versions are texts, numbers or bytes; files before navigate have the detector last."""
    axes = [{name: value for name, value in axis.items() if name != "navigate"} for axis in AXES]
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), axes=axes, version=version)))
    assert (source.scan_shape, source.frame_shape) == ((3, 4), (5, 6))


def test_layout_before_version_1_2(tmp_path):
    """The oldest files keep axes in one group and call the metadata mapped parameters."""
    path = write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), version="1.0")
    with h5py.File(path, "a") as file:
        group = file["Experiments/__unnamed__"]
        group.move("metadata", "mapped_parameters")
        del group["attributes"]
        for index in range(4):
            group.move(f"axis-{index}", f"_list_4_axes/{index}")
    source = Hspy()(str(path))
    assert axes_of(source)["x"] == ("nm", 1.5, 100.0)
    assert source.metadata.acquisition.beam_energy.value == 200.0


def test_newer_versions_and_other_programs_are_refused(tmp_path):
    """Version 4 is unknown; a NeXus file with the same attribute is not of HyperSpy."""
    with pytest.raises(FormatVersionError, match="file_format_version 4, known are those up to 3"):
        Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), version="4.0")))
    with h5py.File(tmp_path / "b.hspy", "w") as file:
        file.attrs["file_format"] = "nexus"
    with pytest.raises(UnknownFormatError, match="has file_format 'nexus', expected 'HyperSpy'"):
        Hspy()(str(tmp_path / "b.hspy"))


def test_several_signals(tmp_path):
    """The largest scan is read, spectra and images beside it do no harm; others can be asked for."""
    path = write_hspy(tmp_path / "a.hspy", some((2, 3, 5, 6)), title="small - part")
    write_hspy(path, some((3, 4, 5, 6)), title="large", mode="a")
    write_hspy(path, some((99, 50)), title="spectra", axes=AXES[1:3], mode="a")
    source = Hspy()(str(path))
    assert source.scan_shape == (3, 4)
    assert any("/Experiments/small - part/data" in text for text in source.metadata.warnings)
    assert Hspy(dataset="Experiments/small - part")(str(path)).scan_shape == (2, 3)
    with pytest.raises(InputError, match="dataset='Experiments/none' names no array"):
        Hspy(dataset="Experiments/none")(str(path))
    with pytest.raises(InputError, match="holds no stack of frames"):
        Hspy(dataset="Experiments/spectra")(str(path))


def test_other_signals_are_declined(tmp_path):
    """Spectra and images are named and declined."""
    with pytest.raises(InputError, match=r"__unnamed__/data \(uint16, 9 x 9 x 50\) with 1 signal axes"):
        Hspy()(str(write_hspy(tmp_path / "a.hspy", some((9, 9, 50)), axes=AXES[:3])))
    with pytest.raises(InputError, match=r"__unnamed__/data \(uint16, 9 x 9\) with 2 signal axes"):
        Hspy()(str(write_hspy(tmp_path / "b.hspy", some((9, 9)), axes=AXES[2:])))


def test_ragged_arrays_are_declined(tmp_path):
    """Arrays of variable length are no frames."""
    path = write_hspy(tmp_path / "a.hspy", some((2, 2)), axes=AXES[:2])
    with h5py.File(path, "a") as file:
        group = file["Experiments/__unnamed__"]
        del group["data"]
        group.create_dataset("data", (2, 2), dtype=h5py.vlen_dtype(np.float64))
    with pytest.raises(InputError, match=r"\(object, 2 x 2\) with a ragged array"):
        Hspy()(str(path))


def test_nothing_is_evaluated_or_unpickled(tmp_path):
    """Texts that HyperSpy evaluates and bytes that it unpickles are texts here."""
    metadata = METADATA | {
        "_datetime_date": "__import__('pytest').fail('evaluated')",
        "_bs_code": np.void(b"cpytest\nfail\n(S'unpickled'\ntR."),
    }
    source = Hspy()(str(write_hspy(tmp_path / "a.hspy", some((3, 4, 5, 6)), metadata=metadata)))
    assert "evaluated" in source.metadata.vendor["Experiments/__unnamed__/metadata@_datetime_date"]


def test_a_sample_of_precession_patterns(sample):
    """A measured scan has the pixels that two other programs read, and its axes."""
    truth = expected(sample, "hspy/subset_data.hspy")
    source = Hspy()(str(sample("pyxem_demos/subset_data.hspy")))
    check_array(whole(source), truth)
    units = {"nm": "nm", "$A^{-1}$": "1/angstrom"}
    for axis in truth["axes"]:
        assert axes_of(source)[axis["name"]] == (units[axis["units"]], axis["scale"], axis["offset"])


def test_a_sample_image_is_declined(sample):
    """A single pattern, whose calibration nobody can believe, is no scan."""
    with pytest.raises(InputError, match=r"\(int64, 512 x 512\) with 2 signal axes"):
        Hspy()(str(sample("pyxem_demos/Amorphous.hspy")))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small file."""
    return write_hspy(tmp_path_factory.mktemp("fuzz") / "a.hspy", some((2, 2, 3, 3))).read_bytes()


@settings(max_examples=60, derandomize=True)  # the HDF5 library itself may loop over damaged texts
@given(data=st.data())
def test_damaged_files(tmp_path_factory, small, data):
    """A file cut anywhere, with changed bytes or garbage at its end gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "a.hspy"
    check_damaged(Hspy(), path, data.draw(damaged(small)))
