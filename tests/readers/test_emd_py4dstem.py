"""Datacubes of py4DSTEM: calibration before dims, any chunking, unknown nodes ignored, older layouts read."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
from encode_emd import some, write_legacy, write_py4dstem
from evidence import check_array, check_damaged, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import FormatVersionError, InputError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.emd_py4dstem import EmdPy4dstem

CALIBRATION = {
    "R_pixel_size": 5.0,
    "R_pixel_units": "A",
    "Q_pixel_size": 0.02,
    "Q_pixel_units": "A^-1",
    "QR_flip": True,
    "QR_rotation": math.radians(12.5),
    "QR_rotation_degrees": 12.5,
    "qx0_mean": 2.25,
    "qy0_mean": 3.5,
    "convergence_semiangle_mrad": 21.5,
}


class TestContiguous(ReaderTests):
    """The shared tests on a datacube as emdfile writes it; opening reads no pixel, where py4DSTEM reads all of them."""

    reader_cls = EmdPy4dstem
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6), "<f4")
        return str(write_py4dstem(tmp_path / "a.h5", truth, calibration=CALIBRATION)), truth, {}

    def make_big_file(self, tmp_path):
        path = write_py4dstem(tmp_path / "big.h5", some((1, 1, 2, 2)))
        with h5py.File(path, "a") as file:
            group = file["datacube_root/datacube"]
            del group["data"]
            group.create_dataset("data", (64, 64, 256, 256), "<u2", chunks=(1, 1, 256, 256))
        return str(path), {}


class TestLegacy(ReaderTests):
    """The shared tests on the layout of versions 0.5 to 0.13."""

    reader_cls = EmdPy4dstem
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((2, 3, 4, 5), ">u2")
        return str(write_legacy(tmp_path / "a.h5", truth)), truth.astype("u2"), {}


def axes_of(source):
    """Unit, step and origin by axis."""
    return {
        axis.name: (axis.unit, pytest.approx(axis.step), pytest.approx(axis.origin)) for axis in source.metadata.axes
    }


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": (1, 1, 4, 5), "compression": "gzip", "shuffle": True},
        {"chunks": (2, 3, 2, 2), "fletcher32": True},
    ],
)
def test_storage(tmp_path, storage):
    """Contiguous, compressed and checksummed datacubes are read alike."""
    truth = some((2, 3, 4, 5))
    np.testing.assert_array_equal(
        whole(EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", truth, storage=storage)))), truth
    )


def test_calibration_is_used_before_the_dims(tmp_path):
    """Pixel sizes and origin of the calibration become the axes; that the dims say other steps is reported."""
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), calibration=CALIBRATION)))
    assert axes_of(source) == {
        "y": ("angstrom", 5.0, 0.0),
        "x": ("angstrom", 5.0, 0.0),
        "ky": ("1/angstrom", 0.02, -0.045),
        "kx": ("1/angstrom", 0.02, -0.07),
    }
    assert sum("calibration says 5 A" in text for text in source.metadata.warnings) == 2
    assert not any("middle" in text for text in source.metadata.warnings)


def test_dims_count_without_a_calibration(tmp_path):
    """Without a calibration the two values of the dims are offset and step; Rx is y, Qx is ky."""
    dims = (("Rx", "nm", 0, 0.5), ("Ry", "nm", 0, 0.25), ("Qx", "A^-1", -1, 0.5), ("Qy", "A^-1", -2, 0.25))
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), dims=dims)))
    assert axes_of(source) == {
        "y": ("nm", 0.5, 0.0),
        "x": ("nm", 0.25, 0.0),
        "ky": ("1/angstrom", 0.5, -1.0),
        "kx": ("1/angstrom", 0.25, -2.0),
    }
    assert source.metadata.warnings == []


def test_uncalibrated_cubes_count_pixels(tmp_path):
    """Pixels as units are no calibration and no oddity."""
    dims = tuple((name, "pixels", 0, 1) for name in ("Rx", "Ry", "Qx", "Qy"))
    said = {"R_pixel_size": 1.0, "R_pixel_units": "pixels", "Q_pixel_size": 1.0, "Q_pixel_units": "pixels"}
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), dims=dims, calibration=said)))
    assert source.metadata.axes == []
    assert source.metadata.warnings == []


def test_rotation_flip_and_angle(tmp_path):
    """Rotation, transposition and semi-convergence angle reach the metadata with unit and source."""
    metadata = EmdPy4dstem()(
        str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), calibration=CALIBRATION))
    ).metadata
    assert metadata.acquisition.scan_rotation.value == pytest.approx(12.5)
    assert metadata.acquisition.scan_rotation.unit == "deg"
    assert metadata.acquisition.semi_convergence_angle.value == 21.5
    assert metadata.detector.transpose is True


def test_rotations_that_differ_are_reported(tmp_path):
    """Radians alone are converted; where degrees say something else, they count and both are told."""
    only = {"QR_rotation": math.radians(-30.0)}
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), calibration=only)))
    assert source.metadata.acquisition.scan_rotation.value == pytest.approx(-30.0)
    both = only | {"QR_rotation_degrees": 40.0}
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "b.h5", some((2, 3, 4, 5)), calibration=both)))
    assert source.metadata.acquisition.scan_rotation.value == 40.0
    assert any("is 40 and QR_rotation is -30 degrees" in text for text in source.metadata.warnings)


def test_origin_maps_are_averaged(tmp_path):
    """An origin per position gives its mean as the optic axis, which is reported; NaN positions do not count."""
    maps = {"qx0": np.array([[1.0, 2.0, math.nan], [1.0, 2.0, 1.5]]), "qy0": np.full((2, 3), 2.0)}
    said = {"Q_pixel_size": 0.5, "Q_pixel_units": "mrad"} | maps
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), calibration=said)))
    assert axes_of(source)["ky"] == ("mrad", 0.5, -0.75)
    assert axes_of(source)["kx"] == ("mrad", 0.5, -1.0)
    assert any("origin of every position" in text for text in source.metadata.warnings)


def test_ellipse_is_reported(tmp_path):
    """An ellipse is kept in the header and not applied."""
    said = {"a": 1.0, "b": 1.1, "theta": 0.3}
    metadata = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), calibration=said))).metadata
    assert any("ellipse" in text for text in metadata.warnings)
    assert metadata.vendor["datacube_root/metadatabundle/calibration/b"] == 1.1


def test_results_beside_the_cube_do_no_harm(tmp_path):
    """Virtual images, probes, Bragg vectors and nodes of unknown classes, at which emdfile fails, are passed over."""
    truth = some((9, 3, 4, 5))
    source = EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", truth, results=True)))
    np.testing.assert_array_equal(whole(source), truth)
    assert not any("chooses among" in text for text in source.metadata.warnings)


def test_results_without_a_cube_are_named(tmp_path):
    """A file with virtual images only is declined and says what it holds; without arrays its classes are named."""
    path = write_py4dstem(tmp_path / "a.h5", some((9, 3, 4, 5)), results=True)
    with h5py.File(path, "a") as file:
        del file["datacube_root/datacube/data"], file["datacube_root/datacube/probe"]
    with pytest.raises(InputError, match=r"no stack of frames but /datacube_root/datacube/ADF/data \(float64, 9 x 3\)"):
        EmdPy4dstem()(str(path))
    with h5py.File(path, "a") as file:
        del file["datacube_root/datacube/ADF"]
    with pytest.raises(UnknownFormatError, match=r"no array but BraggVectors, ClassThat.*stemstore\.open_disks"):
        EmdPy4dstem()(str(path))


def test_several_cubes(tmp_path):
    """Of several datacubes the largest is read, the others are named and can be asked for."""
    path = write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)))
    with h5py.File(path, "a") as file:
        file.copy("datacube_root/datacube", file["datacube_root"], "second")
        del file["datacube_root/second/data"]
        file["datacube_root/second"].create_dataset("data", data=some((3, 3, 4, 5)))
    source = EmdPy4dstem()(str(path))
    assert source.scan_shape == (3, 3)
    assert any("/datacube_root/datacube/data" in text for text in source.metadata.warnings)
    assert EmdPy4dstem(dataset="datacube_root/datacube")(str(path)).scan_shape == (2, 3)


@pytest.mark.parametrize("name", ["data", "datacube"])
@pytest.mark.parametrize("version", [(0, 5), (0, 12)])
def test_older_layouts(tmp_path, name, version):
    """Versions 0.5 to 0.13 count dims from 1 and call the array data or datacube."""
    truth = some((2, 3, 4, 5))
    source = EmdPy4dstem()(str(write_legacy(tmp_path / "a.h5", truth, version=version, name=name)))
    np.testing.assert_array_equal(whole(source), truth)
    assert axes_of(source)["x"] == ("nm", 0.5, 0.0)
    assert axes_of(source)["kx"] == ("1/angstrom", 0.02, -0.04)


def test_newer_versions_are_refused(tmp_path):
    """EMD 2 is told from EMD 1."""
    with pytest.raises(FormatVersionError, match="is EMD 2, known is EMD 1; update stemstore"):
        EmdPy4dstem()(str(write_py4dstem(tmp_path / "a.h5", some((2, 3, 4, 5)), version=2)))


def test_other_hdf5_files(tmp_path):
    """An HDF5 file of another program is not of py4DSTEM."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = some((2, 3, 4, 5))
    with pytest.raises(UnknownFormatError, match=r"expected 'file' or the group 4DSTEM_experiment"):
        EmdPy4dstem()(str(tmp_path / "a.h5"))


def test_a_sample_of_py4dstem(sample):
    """A measured datacube has the pixels that three other programs read, and its calibration."""
    source = EmdPy4dstem()(str(sample("emd/py4DSTEM_size2x3x4x5.h5")))
    check_array(whole(source), expected(sample, "emd/py4DSTEM_size2x3x4x5.h5"))
    steps = {axis.name: (axis.unit, axis.step) for axis in source.metadata.axes}
    assert steps["y"] == ("nm", 0.126796875)
    assert steps["kx"] == ("1/angstrom", 0.044251566616087125)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small file."""
    path = tmp_path_factory.mktemp("fuzz") / "a.h5"
    return write_py4dstem(path, some((2, 2, 3, 3)), calibration=CALIBRATION, results=True).read_bytes()


@settings(max_examples=60, derandomize=True)  # the HDF5 library itself may loop over damaged texts
@given(data=st.data())
def test_damaged_files(tmp_path_factory, small, data):
    """A file cut anywhere, with changed bytes or garbage at its end gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "a.h5"
    check_damaged(EmdPy4dstem(), path, data.draw(damaged(small)))
