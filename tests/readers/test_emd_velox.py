"""Velox files: frames on the last axis, JSON per frame, several images; spectra are declined."""

from __future__ import annotations

import contextlib
import copy
import json

import h5py
import numpy as np
import pytest
from encode_emd import some, write_velox
from evidence import check_array, check_damaged, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import InputError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.emd_velox import EmdVelox, parse_metadata

METADATA = {
    "BinaryResult": {
        "Detector": "BM-Ceta",
        "DetectorIndex": "1",
        "PixelSize": {"width": "2e8", "height": "1e8"},
        "PixelUnitX": "1/m",
        "PixelUnitY": "1/m",
        "Offset": {"x": "-5e8", "y": "-2e8"},
    },
    "Scan": {"ScanSize": {"width": "0", "height": "0"}, "FrameTime": "0.66", "DwellTime": "1e-05"},
    "Optics": {
        "AccelerationVoltage": "300000",
        "CameraLength": "0.478",
        "BeamConvergence": "0.0215",
        "Defocus": "3e-8",
    },
    "Detectors": {
        "Detector-0": {"DetectorName": "HAADF"},
        "Detector-1": {"DetectorName": "BM-Ceta", "ExposureTime": "0.8", "Binning": {"width": "4", "height": "8"}},
    },
    "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1575540224"}},
    "Instrument": {"InstrumentModel": "Titan"},
    "Sample": "",
    "CustomProperties": {"StemMagnification": {"value": "Infinity"}},
}


def changed(path, value):
    """The metadata with one entry replaced."""
    found = copy.deepcopy(METADATA)
    place = found
    *parents, last = path.split(".")
    for name in parents:
        place = place[name]
    place[last] = value
    return found


class TestChunkedByFrame(ReaderTests):
    """The shared tests on frames in chunks of their own."""

    reader_cls = EmdVelox
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((6, 5, 4), "<i2")
        return str(write_velox(tmp_path / "a.emd", truth, metadata=METADATA)), truth, {}

    def make_big_file(self, tmp_path):
        path = write_velox(tmp_path / "big.emd", some((1, 2, 2)), metadata=METADATA)
        with h5py.File(path, "a") as file:
            group = next(iter(file["Data/Image"].values()))
            del group["Data"]
            group.create_dataset("Data", (512, 512, 512), "<u2", chunks=(512, 512, 1))
        return str(path), {}


class TestLaidOut(ReaderTests):
    """The shared tests on chunks that hold parts of several frames, laid out by the user."""

    reader_cls = EmdVelox
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((6, 5, 4), "<u2")
        path = write_velox(tmp_path / "a.emd", truth, metadata={}, chunks=(3, 3, 4), compression="gzip")
        return str(path), truth.reshape(2, 3, 5, 4), {"scan_shape": (2, 3)}


def test_axes(tmp_path):
    """Pixel sizes and offsets are those of rows and columns, in metres to the minus one; frames come by exposure."""
    source = EmdVelox()(str(write_velox(tmp_path / "a.emd", some((2, 5, 4)), metadata=METADATA)))
    axes = {
        axis.name: (axis.unit, pytest.approx(axis.step), pytest.approx(axis.origin)) for axis in source.metadata.axes
    }
    assert axes == {"frame": ("s", 0.8, 0.0), "ky": ("1/nm", 0.1, -0.2), "kx": ("1/nm", 0.2, -0.5)}
    assert source.metadata.warnings == []


def test_optics_and_detector(tmp_path):
    """Texts become numbers in our units; infinities are left out and stay texts in the original header."""
    metadata = EmdVelox()(str(write_velox(tmp_path / "a.emd", some((2, 5, 4)), metadata=METADATA))).metadata
    acquisition = metadata.acquisition
    found = {name: getattr(acquisition, name).value for name in ("beam_energy", "camera_length", "exposure_time")}
    assert found == {"beam_energy": 300.0, "camera_length": 478.0, "exposure_time": 0.8}
    assert acquisition.semi_convergence_angle.value == pytest.approx(21.5)
    assert acquisition.start_time == "2019-12-05T10:03:44+00:00"
    assert acquisition.instrument == "Titan"
    assert acquisition.magnification is None
    assert (metadata.detector.name, metadata.detector.binning) == ("BM-Ceta", (8, 4))
    assert (
        metadata.vendor["metadata of the first frame"]["CustomProperties"]["StemMagnification"]["value"] == "Infinity"
    )


@pytest.mark.parametrize(
    ("path", "value", "lost"),
    [
        ("Optics", "", "beam_energy"),
        ("Optics.BeamConvergence", "-0.0287", "semi_convergence_angle"),
        ("Optics.AccelerationVoltage", "Infinity", "beam_energy"),
        ("Detectors", "", "exposure_time"),
        ("Acquisition", [], "start_time"),
        ("Acquisition.AcquisitionStartDatetime.DateTime", "0", "start_time"),
        ("Acquisition.AcquisitionStartDatetime.DateTime", "1e30", "start_time"),
        ("Instrument.InstrumentModel", {}, "instrument"),
    ],
)
def test_parts_that_are_unset(tmp_path, path, value, lost):
    """Empty parts, negative convergence and times outside any microscope's life mean that nothing is known."""
    source = EmdVelox()(str(write_velox(tmp_path / "a.emd", some((2, 5, 4)), metadata=changed(path, value))))
    assert getattr(source.metadata.acquisition, lost) is None


def test_scan_size_that_fits_is_the_scan(tmp_path):
    """A stack with as many frames as the stated scan has positions is that scan; otherwise it stays a stack."""
    metadata = changed("Scan.ScanSize", {"width": "3", "height": "2"})
    path = write_velox(tmp_path / "a.emd", some((6, 5, 4)), metadata=metadata)
    source = EmdVelox()(str(path))
    assert source.scan_shape == (2, 3)
    assert source.metadata.acquisition.scan_shape_source == "header"
    assert EmdVelox(scan_shape=(3, 2))(str(path)).scan_shape == (3, 2)
    stack = EmdVelox()(str(write_velox(tmp_path / "b.emd", some((5, 5, 4)), metadata=metadata)))
    assert stack.scan_shape == (5,)


def test_images_of_the_specimen_keep_pixels(tmp_path):
    """A stack whose pixels are metres on the specimen has no detector axes, which is reported."""
    metadata = changed("BinaryResult.PixelUnitX", "m") | {}
    metadata["BinaryResult"]["PixelUnitY"] = "m"
    source = EmdVelox()(str(write_velox(tmp_path / "a.emd", some((2, 5, 4)), metadata=metadata)))
    assert [axis.name for axis in source.metadata.axes] == ["frame"]
    assert sum("expected an angle or a reciprocal length" in text for text in source.metadata.warnings) == 2


def test_several_images(tmp_path):
    """Of several images the largest stack is read; the others are named and chosen by identifier or detector."""
    path = write_velox(tmp_path / "a.emd", some((6, 5, 4)), metadata=METADATA, uuid="a" * 32)
    write_velox(path, some((1, 5, 4)), metadata=METADATA, uuid="b" * 32, mode="a")
    with h5py.File(path, "a") as file:
        del file["Operations/CameraInputOperation"]["b" * 32 + "op"]
        said = json.dumps({"dataPath": f"/Data/Image/{'b' * 32}", "detector": "HAADF"})
        file["Operations"].create_dataset(f"StemInputOperation/{'c' * 32}", data=[said], dtype=h5py.string_dtype())
    source = EmdVelox()(str(path))
    assert source.scan_shape == (6,)
    assert any("Ceta" in text and "HAADF" in text for text in source.metadata.warnings)
    for name in ("HAADF", "b" * 32, f"Data/Image/{'b' * 32}", f"/Data/Image/{'b' * 32}/Data"):
        assert EmdVelox(dataset=name)(str(path)).scan_shape == (1,)
    with pytest.raises(InputError, match="dataset='BF' names no array"):
        EmdVelox(dataset="BF")(str(path))


def test_spectra_are_declined(tmp_path):
    """A file with EDS or EELS only says that it holds these."""
    path = write_velox(tmp_path / "a.emd", some((1, 5, 4)), metadata=METADATA)
    with h5py.File(path, "a") as file:
        del file["Data/Image"]
        file.create_dataset(f"Data/SpectrumStream/{'a' * 32}/Data", data=np.full((9, 1), 65535, "<u2"))
        file.create_group("Data/EelsSpectrumImage")
    with pytest.raises(InputError, match=r"holds EELS \(EelsSpectrumImage\), EDS \(SpectrumStream\) and no frames"):
        EmdVelox()(str(path))


def test_complex_images_are_declined(tmp_path):
    """A Fourier transform, a pair of floats per pixel, is no frame."""
    pixels = np.zeros((1, 5, 4), [("realFloatHalfEven", "<f4"), ("imagFloatHalfEven", "<f4")])
    with pytest.raises(InputError, match="no stack of frames but /Data/Image/0"):
        EmdVelox()(str(write_velox(tmp_path / "a.emd", pixels, metadata=METADATA)))


def test_files_of_other_layouts(tmp_path):
    """An HDF5 file without the names of Velox is not one."""
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file["data"] = some((2, 3, 4, 5))
    with pytest.raises(UnknownFormatError, match="expected Data and Version among them"):
        EmdVelox()(str(tmp_path / "a.emd"))


@pytest.mark.parametrize("content", [b"", b"\0\0", b"[1]", b"{", b'{"a": 1}{', b'"text"', b"[" * 100_000, b"\xff\xfe"])
def test_metadata_that_are_no_object(tmp_path, content):
    """Broken JSON is a ValueError of the parser, and a warning of the reader."""
    with pytest.raises(ValueError, match=r"expected|Expecting|nested|Extra data"):
        parse_metadata(content)
    path = write_velox(tmp_path / "a.emd", some((2, 5, 4)), metadata={})
    with h5py.File(path, "a") as file:
        stored = file[f"Data/Image/{'0' * 32}/Metadata"]
        column = np.frombuffer(content[:60000].ljust(60000, b"\0"), np.uint8)
        stored[:, 0] = column
    assert any("cannot be read" in text for text in EmdVelox()(str(path)).metadata.warnings)


def test_metadata_behind_the_padding_do_not_count():
    """Only what lies before the first NUL is JSON."""
    assert parse_metadata(b'{"a": "1"}\0\0{"b": "2"}') == {"a": "1"}


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: json.dumps({"a": text}).encode()))
def test_any_metadata(content):
    """Whatever the bytes, the parser gives an object or a ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_metadata(content), dict)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("velox/Camera Ceta Diffraction Micro.emd", "ncem/Camera Ceta Diffraction Micro.emd"),
        ("velox/STEM HAADF Diffraction Micro.emd", "ncem/STEM HAADF Diffraction Micro.emd"),
        ("velox/fei_example_tem_stack.emd", "emd/fei_example_tem_stack.emd"),
    ],
)
def test_samples(sample, entry, name):
    """Files of Velox have the pixels that two other programs read, single images as a stack of one."""
    truth, source = expected(sample, entry), EmdVelox()(str(sample(name)))
    array = whole(source)
    check_array(array if len(truth["shape"]) == 3 else array[0], truth)
    axes = {axis.name: axis for axis in source.metadata.axes}
    for one in truth["axes"]:
        if one["units"] == "1 / nm":
            axis = axes[f"k{one['name']}"]
            assert (axis.unit, axis.step, axis.origin) == ("1/nm", one["scale"], one["offset"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small file."""
    return write_velox(tmp_path_factory.mktemp("fuzz") / "a.emd", some((2, 3, 4)), metadata=METADATA).read_bytes()


@settings(max_examples=60, derandomize=True)  # the HDF5 library itself may loop over damaged texts
@given(data=st.data())
def test_damaged_files(tmp_path_factory, small, data):
    """A file cut anywhere, with changed bytes or garbage at its end gives an error of stemstore or frames."""
    path = tmp_path_factory.mktemp("damaged") / "a.emd"
    check_damaged(EmdVelox(), path, data.draw(damaged(small)))
