"""Files of the fpd library: a colour picked, the header of the first frame read, axes in the order of the file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from encode_fpd import write_fpd
from evidence import check_array, expected, whole

import stemstore
from stemstore.errors import InputError, StemStoreError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.fpd import Fpd


def ramp(colours=1, shape=(3, 4), dtype=">u2"):
    """Distinct frames of 6 by 8 pixels."""
    full = (*shape, colours, 6, 8)
    return np.arange(np.prod(full)).reshape(full).astype(dtype)


class TestConformance(ReaderTests):
    """The shared tests on big-endian frames in chunks, as the library writes them."""

    reader_cls = Fpd
    truncation = "error"

    def make_file(self, tmp_path):
        truth = ramp()
        layout = {"steps": (0.25, 0.5), "units": ("nm", "nm"), "chunks": (1, 1, 1, 4, 4), "compression": "gzip"}
        path = write_fpd(tmp_path / "scan.hdf5", truth, **layout)
        return str(path), truth[:, :, 0].astype("u2"), {}

    def last_file(self, url):
        return Path(url)

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.hdf5"
        with h5py.File(path, "w") as file:
            file.create_dataset("fpd_expt/fpd_data/data", (32, 32, 1, 256, 256), ">u2", chunks=(1, 1, 1, 64, 64))
        return str(path), {}


class TestConformanceColour(TestConformance):
    """The shared tests on the second of three colours, contiguous."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = ramp(3, dtype="<u4")
        return str(write_fpd(tmp_path / "scan.hdf5", truth)), truth[:, :, 1], {"colour": 1}


def test_measured_scan(sample):
    """The scan of a microscope, pixels and times, on any Python; from 3.10 on fpd 0.2.5 cannot be imported."""
    source = Fpd()(str(sample("pyxem/fpd_file_test.hdf5")))
    check_array(whole(source)[:, :, None], expected(sample, "fpd/fpd_file_test.hdf5"))
    metadata = source.metadata
    assert metadata.acquisition.exposure_time.value == pytest.approx(0.007, rel=1e-12)
    assert metadata.acquisition.start_time.startswith("2017-02-24T15:58:36.018022")
    assert metadata.detector.counter_depth == 12
    assert metadata.vendor["mib_header"].startswith("MQ1,000001,00384,01,0256,0256,U16")
    assert not metadata.warnings


def test_header(tmp_path):
    """Exposure, thresholds and time come from the arrays beside the frames; unused thresholds are left out."""
    metadata = Fpd()(str(write_fpd(tmp_path / "a.hdf5", ramp(), stamp=None))).metadata
    assert metadata.acquisition.exposure_time.value == pytest.approx(0.007)
    assert [limit.value for limit in metadata.detector.thresholds] == [40]
    assert metadata.acquisition.start_time == "2017-02-24T15:58:36.018022"
    assert metadata.acquisition.scan_shape == (3, 4)
    assert metadata.detector.counter_depth is None


def test_unreadable_frame_header_is_reported(tmp_path):
    """A frame header that is none does not keep the file from opening."""
    metadata = Fpd()(str(write_fpd(tmp_path / "a.hdf5", ramp(), stamp="nonsense"))).metadata
    assert metadata.vendor["mib_header"] == "nonsense"
    assert any("not understood" in text for text in metadata.warnings)


def test_calibrated_scan_axes(tmp_path):
    """Coordinates with a unit give steps; texts and units of question marks give none."""
    path = write_fpd(tmp_path / "a.hdf5", ramp(), steps=(0.25, 0.5), units=("nm", "um"))
    axes = Fpd()(str(path)).metadata.axes
    assert [(axis.name, axis.step, axis.unit) for axis in axes] == [("y", 0.25, "nm"), ("x", 500.0, "nm")]
    assert not Fpd()(str(write_fpd(tmp_path / "b.hdf5", ramp()))).metadata.axes


def test_colours(tmp_path):
    """Of several colours the first is read and the others are told; one that is not there is an error."""
    path = write_fpd(tmp_path / "a.hdf5", ramp(2))
    source = Fpd()(str(path))
    np.testing.assert_array_equal(whole(source), ramp(2)[:, :, 0])
    assert any("colour 0 of 2" in text for text in source.metadata.warnings)
    with pytest.raises(InputError, match="which has 2; count from 0"):
        Fpd(colour=2)(str(path))
    with pytest.raises(InputError, match="colour=-1"):
        Fpd(colour=-1)


def test_four_axes_and_no_companions(tmp_path):
    """Frames without a colour axis and without anything beside them are read."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["fpd_expt/fpd_data/data"] = ramp()[:, :, 0]
    source = Fpd(scan_shape=(4, 3))(str(path))
    np.testing.assert_array_equal(whole(source), ramp()[:, :, 0].reshape(4, 3, 6, 8))
    assert source.metadata.acquisition.exposure_time is None


def test_other_files(tmp_path):
    """Files without the frames of fpd are refused by name."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["fpd_expt/DAC/data"] = np.zeros((2, 2))
    with pytest.raises(UnknownFormatError, match="no file of fpd"):
        Fpd()(str(path))
    with h5py.File(path, "w") as file:
        file["fpd_expt/fpd_data/data"] = np.zeros((8, 8))
    with pytest.raises(InputError, match="no stack of frames"):
        Fpd()(str(path))


def test_detection(tmp_path):
    """The file is found by content, although its groups are EMD groups."""
    path = write_fpd(tmp_path / "a.hdf5", ramp(), steps=(0.25, 0.5), units=("nm", "nm"))
    assert stemstore.open(path).intensity.shape == (3, 4, 6, 8)


def test_damaged_files(tmp_path):
    """Cut or changed anywhere, the file gives pixels or an error of ours, and detection never raises."""
    path = write_fpd(tmp_path / "a.hdf5", ramp(), chunks=(1, 1, 1, 4, 4), compression="gzip")
    content, rng, opened = path.read_bytes(), np.random.default_rng(7), 0
    for _ in range(120):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken if rng.random() < 0.7 else broken[: rng.integers(len(broken))])
        assert 0 <= Fpd.matches(str(path), path.read_bytes()[:4096]) <= 1
        with suppress(StemStoreError):
            source = Fpd()(str(path))
            opened += 1
            whole(source)
    assert 0 < opened < 120
