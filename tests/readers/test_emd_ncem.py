"""Berkeley EMD and Prismatic files: any spelling of their labels, in the order of the file."""

from __future__ import annotations

import math
import pickle

import h5py
import numpy as np
import pytest
from encode_emd import DETECTOR_DIMS, SCAN_DIMS, some, write_ncem, write_prismatic, write_py4dstem, write_velox
from evidence import check_array, check_damaged, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import CorruptDataError, InputError, UnknownFormatError
from stemstore.sources.contract import MISSING
from stemstore.testing import ReaderTests
from stemstore_readers.emd_ncem import EmdNcem

DIMS = (*SCAN_DIMS, *DETECTOR_DIMS)


class TestContiguous(ReaderTests):
    """The shared tests on a scan as it lies in the file; opening reads no pixel, where RosettaSciIO reads all."""

    reader_cls = EmdNcem
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        return str(write_ncem(tmp_path / "a.emd", truth)), truth, {}

    def make_big_file(self, tmp_path):
        path = write_ncem(tmp_path / "big.emd", some((1, 1, 2, 2)), dims=None)
        with h5py.File(path, "a") as file:
            del file["data/scan/data"]
            file["data/scan"].create_dataset("data", (64, 64, 256, 256), "<u2", chunks=(1, 1, 256, 256))
        return str(path), {}


class TestChunked(ReaderTests):
    """The shared tests on big-endian, compressed chunks in a flat stack that the user lays out."""

    reader_cls = EmdNcem
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((6, 5, 7), ">i4")
        storage = {"chunks": (2, 5, 4), "compression": "gzip", "shuffle": True}
        path = write_ncem(tmp_path / "a.emd", truth, dims=None, storage=storage)
        return str(path), truth.astype("i4").reshape(2, 3, 5, 7), {"scan_shape": (2, 3)}


class TestPrismatic(ReaderTests):
    """The shared tests on two output depths of a simulation."""

    reader_cls = EmdNcem
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((2, 3, 4, 5, 6), "<f4")
        return str(write_prismatic(tmp_path / "a.emd", list(truth))), truth, {}


def axes_of(source):
    """Unit, step and origin by axis."""
    return {axis.name: (axis.unit, axis.step, axis.origin) for axis in source.metadata.axes}


AXES = {
    "y": ("nm", 0.5, 0.0),
    "x": ("nm", 0.25, 1.0),
    "ky": ("1/nm", 0.5, -1.0),
    "kx": ("1/nm", 0.5, -1.5),
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"two": True},
        {"as_bytes": True},
        {"version": ("0", "2"), "kind": "1"},
        {"version": (np.bytes_(b"0"), np.bytes_(b"2")), "kind": np.int64(1)},
        {"first": 0},
        {"group": "deep/inside/of/it"},
    ],
)
def test_spellings_of_the_labels(tmp_path, options):
    """Text or numbers, bytes or text, all coordinates or two, dims from 1 or 0: the axes are the same."""
    truth = some((3, 4, 5, 6))
    source = EmdNcem()(str(write_ncem(tmp_path / "a.emd", truth, **options)))
    assert axes_of(source) == AXES
    assert source.metadata.warnings == []
    np.testing.assert_array_equal(whole(source), truth)


def test_file_order_is_kept(tmp_path):
    """The first dim belongs to the first axis and is y; HyperSpy shows the transpose of such a file."""
    truth = some((2, 3, 4, 5))
    source = EmdNcem()(str(write_ncem(tmp_path / "a.emd", truth)))
    assert (source.scan_shape, source.frame_shape) == ((2, 3), (4, 5))


def test_detector_axes_in_front(tmp_path):
    """Where the units say that the first two axes are the detector's, the scan is read first."""
    stored = some((5, 6, 2, 3))
    path = write_ncem(tmp_path / "a.emd", stored, dims=(*DETECTOR_DIMS, *SCAN_DIMS))
    source = EmdNcem()(str(path))
    assert axes_of(source) == AXES
    np.testing.assert_array_equal(whole(source), stored.transpose(2, 3, 0, 1))
    assert any("detector axes first" in text for text in source.metadata.warnings)


def test_optics(tmp_path):
    """Attributes of microscope, sample and user become the acquisition, with unit and source."""
    acquisition = EmdNcem()(str(write_ncem(tmp_path / "a.emd", some((2, 3, 4, 5))))).metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.beam_energy.unit) == (200.0, "keV")
    assert math.isclose(acquisition.semi_convergence_angle.value, 21.5)
    assert math.isclose(acquisition.camera_length.value, 85.0)
    assert acquisition.beam_energy.source == "header"
    assert (acquisition.instrument, acquisition.sample) == ("TEAM 0.5", "gold on carbon")
    assert acquisition.operator == "somebody"


@pytest.mark.parametrize("value", [math.nan, math.inf, -200000.0, "", "high", b"\xff", np.arange(3)])
def test_senseless_optics_are_left_out(tmp_path, value):
    """A high tension that is no number above zero is not one; it stays in the original header."""
    path = write_ncem(tmp_path / "a.emd", some((2, 3, 4, 5)), microscope={"high tension": value})
    metadata = EmdNcem()(str(path)).metadata
    assert metadata.acquisition.beam_energy is None
    assert "microscope@high tension" in metadata.vendor


def test_missing_dims_are_reported(tmp_path):
    """Without dims the axes count indices, and each missing one is named."""
    source = EmdNcem()(str(write_ncem(tmp_path / "a.emd", some((2, 3, 4, 5)), dims=None)))
    assert source.metadata.axes == []
    assert [text.split(";")[0] for text in source.metadata.warnings] == [
        f"/data/scan has no dim{index}" for index in (1, 2, 3, 4)
    ]


def replace_dim(path, name, values, units="[n_m]"):
    """Put another dim in the place of one."""
    with h5py.File(path, "a") as file:
        group = file["data/scan"]
        del group[name]
        group.create_dataset(name, data=values).attrs.update({"name": "odd", "units": units})


@pytest.mark.parametrize(
    ("name", "values", "units", "match"),
    [
        ("dim1", np.arange(7.0), "[n_m]", "3 indices but 7 coordinates"),
        ("dim1", [0.0, 1.0, 5.0], "[n_m]", "not evenly spaced"),
        ("dim1", [0.0, 0.0, 0.0], "[n_m]", "cannot be"),
        ("dim1", [0.0, math.nan, 2.0], "[n_m]", "not evenly spaced"),
        ("dim1", [0.0, 1.0, 2.0], "[furlong]", "no known unit"),
        ("dim1", [0.0, 1.0, 2.0], "s", "expected a length"),
        ("dim1", [0.0, 2.0, 4.0], "[]", "no unit"),
        ("dim1", [0.0, 1e-9, 2e-9], "[n_m]", "hard to believe"),
        ("dim3", np.arange(5.0), "nm", "expected an angle or a reciprocal length"),
    ],
)
def test_odd_dims_are_reported(tmp_path, name, values, units, match):
    """Coordinates that cannot be those of the axis are left out, or at least doubted, with a warning."""
    path = write_ncem(tmp_path / "a.emd", some((3, 4, 5, 6)))
    replace_dim(path, name, values, units)
    source = EmdNcem()(str(path))
    assert any(match in text for text in source.metadata.warnings), source.metadata.warnings
    assert source.scan_shape == (3, 4)


@pytest.mark.parametrize("values", ["y", ["a", "b", "c"], []])
def test_labels_instead_of_coordinates(tmp_path, values):
    """A dim that is a text or a list of texts leaves the axis to its indices."""
    path = write_ncem(tmp_path / "a.emd", some((3, 4, 5, 6)))
    replace_dim(path, "dim1", values)
    assert "y" not in axes_of(EmdNcem()(str(path)))


def test_detector_axes_that_were_never_centred(tmp_path):
    """Detector axes from zero on have their zero put in the middle, which is reported."""
    dims = (*SCAN_DIMS, ("ky", "1/nm", 0.0, 0.5), ("kx", "1/nm", 0.0, 0.5))
    source = EmdNcem()(str(write_ncem(tmp_path / "a.emd", some((2, 3, 5, 6)), dims=dims)))
    assert axes_of(source)["ky"] == ("1/nm", 0.5, -1.0)
    assert axes_of(source)["kx"] == ("1/nm", 0.5, -1.25)
    assert any("middle of the frame" in text for text in source.metadata.warnings)


def test_largest_scan_is_chosen_and_others_are_named(tmp_path):
    """Of several arrays the largest one with most axes is read; the others are listed and can be asked for."""
    path = write_ncem(tmp_path / "a.emd", some((2, 3, 4, 5)), group="data/small")
    write_ncem(path, some((3, 3, 4, 5)), group="data/large", mode="a")
    write_ncem(path, some((99, 9, 9)), group="data/stack", dims=None, mode="a")
    source = EmdNcem()(str(path))
    assert source.scan_shape == (3, 3)
    assert any("/data/small/data (uint16, 2 x 3 x 4 x 5)" in text for text in source.metadata.warnings)
    for name in ("data/small", "/data/small/data"):
        assert EmdNcem(dataset=name)(str(path)).scan_shape == (2, 3)
    with pytest.raises(InputError, match=r"dataset='data/none' names no array of .*, which holds /data/stack/data"):
        EmdNcem(dataset="data/none")(str(path))


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8), "u2"), ((5,), "u2"), ((2, 3, 4, 5), "c8"), ((0, 3, 4, 5), "u2")])
def test_other_arrays_are_declined(tmp_path, shape, dtype):
    """Images, curves, complex and empty arrays are named and declined."""
    path = write_ncem(tmp_path / "a.emd", np.zeros(shape, dtype), dims=None)
    with pytest.raises(InputError, match=r"holds no stack of frames but /data/scan/data \("):
        EmdNcem()(str(path))


def test_files_of_other_layouts(tmp_path):
    """A file without a group of an EMD array, or that is no HDF5 file, is told apart."""
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file["data"] = some((2, 3, 4, 5))
    with pytest.raises(UnknownFormatError, match="no group with emd_group_type = 1"):
        EmdNcem()(str(tmp_path / "a.emd"))
    (tmp_path / "b.emd").write_bytes(b"hello")
    with pytest.raises(UnknownFormatError, match="no HDF5 file"):
        EmdNcem()(str(tmp_path / "b.emd"))


def test_who_claims_which_emd_file(tmp_path):
    """The layouts that share the extension are told apart by content."""
    frames = some((2, 3, 4, 5))
    made = {
        "emd_ncem": [
            write_ncem(tmp_path / "a.emd", frames),
            write_prismatic(tmp_path / "p.emd", [frames.astype("f4")]),
            write_ncem(tmp_path / "t.h5", frames, version=("0", "2")),
        ],
        "emd_py4dstem": [write_py4dstem(tmp_path / "b.emd", frames)],
        "emd_velox": [write_velox(tmp_path / "c.emd", frames[0], metadata={})],
    }
    for reader, paths in made.items():
        if reader in stemstore.readers():
            for path in paths:
                assert stemstore.sources.registry.find_reader(path).name == reader


def test_scan_larger_than_the_data(tmp_path):
    """A stated scan larger than the stack ends in missing frames, and the file's scan axes no longer hold."""
    path = write_ncem(tmp_path / "a.emd", some((2, 3, 4, 5)))
    source = EmdNcem(scan_shape=(2, 4))(str(path))
    assert source.validity.tolist().count(MISSING) == 2
    assert set(axes_of(source)) == {"ky", "kx"}
    assert source.metadata.acquisition.scan_shape_source == "user"


def test_absurd_extents_are_refused(tmp_path):
    """A header that states more frames than anybody can record is damaged; nothing is allocated for it."""
    path = write_ncem(tmp_path / "a.emd", some((1, 1, 2, 2)), dims=None)
    with h5py.File(path, "a") as file:
        del file["data/scan/data"]
        file["data/scan"].create_dataset("data", (2**20, 2**20, 4, 4), "<u2", chunks=(1, 1, 4, 4))
    with pytest.raises(CorruptDataError, match="more than 4294967296 frames"):
        EmdNcem()(str(path))


def test_prismatic_lengths_are_angstrom(tmp_path):
    """Prismatic labels angstrom as nm: they are read as angstrom, with a warning; depths become the first axis."""
    source = EmdNcem()(str(write_prismatic(tmp_path / "a.emd", list(some((2, 3, 4, 5, 6), "f4")))))
    assert axes_of(source) == {
        "frame": ("angstrom", 2.5, 2.5),
        "y": ("angstrom", 0.5, 0.0),
        "x": ("angstrom", 0.25, 1.0),
        "ky": ("1/angstrom", 0.5, -1.0),
        "kx": ("1/angstrom", 0.5, -1.5),
    }
    assert any("are in angstrom" in text for text in source.metadata.warnings)
    acquisition = source.metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.semi_convergence_angle.value) == (100.0, 30.0)


def test_one_depth_of_a_simulation(tmp_path):
    """A single depth is a plain scan; one of several can be asked for."""
    truth = some((2, 3, 4, 5, 6), "f4")
    single = EmdNcem()(str(write_prismatic(tmp_path / "a.emd", [truth[0]])))
    assert single.scan_shape == (3, 4)
    path = write_prismatic(tmp_path / "b.emd", list(truth))
    second = EmdNcem(dataset="4DSTEM_simulation/data/datacubes/CBED_array_depth0001")(str(path))
    np.testing.assert_array_equal(whole(second), truth[1])


def test_a_sample_of_prismatic(sample):
    """A published simulation has the pixels that HyperSpy reads, and the axes of its parameters."""
    source = EmdNcem()(str(sample("emd/Si100_4D.emd")))
    check_array(whole(source), expected(sample, "emd/Si100_4D.emd"))
    assert axes_of(source)["y"] == ("angstrom", 0.5, 0.0)  # rx, the probe step of the parameters, is 0.5 angstrom


def test_a_sample_in_file_order(sample):
    """A stack that HyperSpy shows transposed comes in the order of the file."""
    truth = expected(sample, "emd/example_signal.emd")
    check_array(whole(EmdNcem()(str(sample("emd/example_signal.emd")))).transpose(), truth)


def test_a_sample_image_is_declined(sample):
    """A STEM image is no scan of frames, and is named as what it is."""
    with pytest.raises(InputError, match=r"/data/single/data \(uint16, 1024 x 1024\)"):
        EmdNcem()(str(sample("ncem/Acquisition_18.emd")))


def test_sources_survive_pickling_after_lazy_opening(tmp_path):
    """A lazy scan pickles and stays lazy, where HyperSpy's readers of EMD read everything or do not pickle."""
    source = pickle.loads(pickle.dumps(EmdNcem()(str(write_ncem(tmp_path / "a.emd", some((2, 3, 4, 5)))))))
    assert source.parts[0].path == str(tmp_path / "a.emd")
    assert len(pickle.dumps(source)) < 20_000


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small file."""
    path = write_ncem(tmp_path_factory.mktemp("fuzz") / "a.emd", some((2, 2, 3, 3)), storage={"chunks": (1, 2, 3, 3)})
    return path.read_bytes()


@settings(max_examples=60, derandomize=True)  # the HDF5 library itself may loop over damaged texts
@given(data=st.data())
def test_damaged_files(tmp_path_factory, small, data):
    """A file cut anywhere, with changed bytes or garbage at its end gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "a.emd"
    check_damaged(EmdNcem(), path, data.draw(damaged(small)))
