"""Dectris detectors: files in the order of their numbers, 32 bits kept, masked pixels and gaps named."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from encode_dectris import bitshuffle, write_data, write_master, write_scan, write_sidecar
from evidence import check_array, damaged, expected, whole
from hypothesis import HealthCheck, given, settings

import stemstore
from stemstore.errors import (
    CorruptDataError,
    InputError,
    NotFoundError,
    StemStoreError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.dectris import Dectris

FRAME = (6, 8)
NEEDS_PLUGIN = pytest.mark.skipif(not bitshuffle(), reason="needs hdf5plugin")


def ramp(n, dtype=np.uint32):
    """Distinct frames with counts above 16 bits."""
    return (np.arange(n * 48).reshape(n, *FRAME) + 70_000 * (np.dtype(dtype).itemsize > 2)).astype(dtype)


class TestConformance(ReaderTests):
    """The shared tests on three data files, the last one shorter, and a sidecar."""

    reader_cls = Dectris
    truncation = "error"

    def make_file(self, tmp_path):
        truth = ramp(12)
        return str(write_scan(tmp_path, truth, 5, (3, 4))), truth.reshape(3, 4, *FRAME), {}

    def last_file(self, url):
        return Path(url).with_name("scan_data_000003.h5")

    def make_big_file(self, tmp_path):
        with h5py.File(tmp_path / "big_data_000001.h5", "w") as file:
            file.create_dataset("entry/data/data", (1024, 192, 192), "u4", chunks=(1, 192, 192))
        write_master(tmp_path / "big_master.h5", {1: "big_data_000001.h5"}, triggers=(1024, 1))
        return str(tmp_path / "big_master.h5"), {}


@NEEDS_PLUGIN
class TestConformanceCompressed(TestConformance):
    """The shared tests on frames compressed by bitshuffle and LZ4, 16 bits, laid out by the user."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = ramp(12, np.uint16)
        master = write_scan(tmp_path, truth, 5, compressed=True)
        return str(master), truth.reshape(4, 3, *FRAME), {"scan_shape": (4, 3)}


@NEEDS_PLUGIN
@pytest.mark.parametrize(
    ("name", "shape"), [("arina/test_00_master.h5", (4, 4)), ("arina_made/arinaA_06x05_master.h5", (6, 5))]
)
def test_samples(sample, name, shape):
    """32-bit pixels as h5py reads them; the scan of the sidecar, not a square as RosettaSciIO 0.15 assumes."""
    source = Dectris()(str(sample(name)))
    assert source.scan_shape == shape
    check_array(whole(source).reshape(-1, 192, 192), expected(sample, name))
    acquisition = source.metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.camera_length.value) == (300, 115)
    assert acquisition.start_time == "2025-05-03T01:51:00.302+02:00"
    assert [axis.step for axis in source.metadata.axes] == [0.13915206] * 2
    assert any("nominal" in text for text in source.metadata.warnings)


def test_counts_above_16_bits_stay_lazy(tmp_path):
    """Counts and masks of 32 bits stay what they are, unread: RosettaSciIO 0.15 and py4DSTEM 0.14 wrap them at once."""
    truth = ramp(12)
    truth[:, 2, 3] = 2**32 - 1
    intensity = stemstore.open(write_scan(tmp_path, truth, 5, (3, 4)), flyback=True).intensity
    assert intensity.chunks is not None
    assert (intensity.shape, intensity.dtype) == ((3, 4, *FRAME), np.uint32)
    np.testing.assert_array_equal(intensity.values.reshape(truth.shape), truth)


def test_header(tmp_path):
    """Numbers of master and sidecar carry their units; both headers are kept."""
    write_scan(tmp_path, ramp(6), 6, (2, 3))
    metadata = Dectris()(str(tmp_path / "scan_master.h5")).metadata
    acquisition, detector = metadata.acquisition, metadata.detector
    assert acquisition.beam_energy.value == 300
    assert acquisition.exposure_time.value == 9.9e-5
    assert acquisition.frame_period.value == 1e-4
    assert acquisition.dwell_time.value == 1e-4
    assert acquisition.magnification == 1.65e8
    assert acquisition.scan_shape_source == "header"
    assert detector.name == "Dectris ARINA CZT"
    assert detector.counter_depth == 8
    np.testing.assert_allclose([pitch.value for pitch in detector.pixel_size], [0.2, 0.1])
    assert detector.thresholds[0].value == 17.5
    assert [(axis.name, axis.step, axis.unit) for axis in metadata.axes] == [("y", 0.5, "nm"), ("x", 0.5, "nm")]
    assert metadata.vendor["instrument"]["detector/saturation_value"] == 8352
    assert metadata.vendor["sidecar"]["STEM Metadata@Rotation"] == 12
    assert metadata.vendor["sidecar"]["detector 1 [BF]/image"] == {"shape": [40, 40], "dtype": "uint16"}
    assert not metadata.warnings


def test_scalar_attributes_and_zeros(tmp_path):
    """Attributes may be scalars, and a zero means that nobody set it."""
    write_scan(tmp_path, ramp(6), 6)
    write_sidecar(tmp_path / "scan.h5", (2, 3), arrays=False, ScanDwellTime=0.0, **{"Camera Length": 0.0})
    source = Dectris()(str(tmp_path / "scan_master.h5"))
    assert source.scan_shape == (2, 3)
    assert source.metadata.acquisition.dwell_time is None
    assert source.metadata.acquisition.camera_length is None


def test_contradicting_energies_are_reported(tmp_path):
    """Of two beam energies the detector's is used, and the other one is told."""
    write_scan(tmp_path, ramp(6), 6)
    write_sidecar(tmp_path / "scan.h5", (2, 3), **{"High Tension": 200000.0})
    metadata = Dectris()(str(tmp_path / "scan_master.h5")).metadata
    assert metadata.acquisition.beam_energy.value == 300
    assert any("300 keV" in text and "200 keV" in text for text in metadata.warnings)


def test_more_than_nine_files(tmp_path):
    """Files follow their numbers, not their names: the order of keys in RosettaSciIO puts 10 before 2."""
    truth = ramp(12)
    source = Dectris()(str(write_scan(tmp_path, truth, 1)))
    np.testing.assert_array_equal(whole(source), truth)
    links = {number: f"scan_data_{number:06d}.h5" for number in range(1, 13)}
    with h5py.File(tmp_path / "short_master.h5", "w") as file:
        for number, name in links.items():
            file[f"entry/data/data_{number}"] = h5py.ExternalLink(name, "/entry/data/data")
    np.testing.assert_array_equal(whole(Dectris()(str(tmp_path / "short_master.h5"))), truth)


def test_masked_pixels_are_told(tmp_path):
    """A masked pixel keeps the largest value of its type; it is listed, and sums must leave it out."""
    frames, mask = ramp(6), np.zeros(FRAME)
    frames[:, 2, 3], mask[2, 3] = 2**32 - 1, 16
    source = Dectris()(str(write_scan(tmp_path, frames, 6, (2, 3), mask=mask)))
    assert whole(source)[1, 1, 2, 3] == 2**32 - 1
    assert source.metadata.vendor["masked_pixels"] == {"count": 1, "row_column_bits": [[2, 3, 16]]}
    assert any("1 pixels are masked" in text for text in source.metadata.warnings)
    np.testing.assert_array_equal(source.references["mask"].read(), mask == 0)


@pytest.mark.filterwarnings("ignore:.*pixels are masked:stemstore.errors.ScanWarning")
def test_the_mask_of_the_detector_goes_along(tmp_path):
    """It is offered, applied when asked for, and written into the store, which offers and applies it too."""
    frames, mask = ramp(6), np.zeros(FRAME)
    frames[:, 2, 3], mask[2, 3] = 2**32 - 1, 16
    path = write_scan(tmp_path, frames, 6, (2, 3), mask=mask)
    stemstore.convert(path, tmp_path / "a.zarr")
    for url in (path, tmp_path / "a.zarr"):
        ds = stemstore.open(url)
        np.testing.assert_array_equal(ds.mask.values, mask == 0)
        np.testing.assert_array_equal(ds.intensity.values.reshape(frames.shape), frames)
        masked = stemstore.open(url, mask="detector").intensity
        assert masked.dtype == frames.dtype
        np.testing.assert_array_equal(masked.values.reshape(frames.shape), frames * (mask == 0))


def test_data_file_alone(tmp_path):
    """A data file without its master is a flat stack."""
    write_scan(tmp_path, ramp(12), 6, (3, 4))
    source = Dectris()(str(tmp_path / "scan_data_000002.h5"))
    np.testing.assert_array_equal(whole(source), ramp(12)[6:])
    assert source.metadata.acquisition.scan_shape_alternatives == [(2, 3), (3, 2)]


def test_missing_data_file_in_the_middle(tmp_path):
    """Frame numbers of the other files tell which frames are missing; the file is named."""
    truth = ramp(12)
    master = write_scan(tmp_path, truth, 4, (3, 4))
    (tmp_path / "scan_data_000002.h5").unlink()
    source = Dectris()(str(master))
    assert source.validity.tolist() == [VALID] * 4 + [MISSING] * 4 + [VALID] * 4
    truth[4:8] = 0
    np.testing.assert_array_equal(whole(source), truth.reshape(3, 4, *FRAME))
    assert any("scan_data_000002.h5" in text and "marked missing" in text for text in source.metadata.warnings)


def test_missing_last_file(tmp_path):
    """The planned number of frames places the end of the scan."""
    master = write_scan(tmp_path, ramp(12), 4, (3, 4))
    (tmp_path / "scan_data_000003.h5").unlink()
    source = Dectris()(str(master))
    assert source.scan_shape == (3, 4)
    assert source.validity.tolist() == [VALID] * 8 + [MISSING] * 4


@pytest.mark.parametrize("numbered", [True, False])
def test_missing_files_that_cannot_be_placed(tmp_path, numbered):
    """Without frame numbers, and with no file at all, the missing file is an error that names it and its place."""
    master = write_scan(tmp_path, ramp(12), 6, (3, 4))
    (tmp_path / "scan_data_000001.h5").unlink()
    if numbered:
        (tmp_path / "scan_data_000002.h5").unlink()
    else:
        write_data(tmp_path / "scan_data_000002.h5", ramp(6), numbered=False)
    with pytest.raises(NotFoundError, match=rf"'scan_data_000001\.h5', which is missing .*{tmp_path}"):
        Dectris()(str(master))


def test_interrupted_scan(tmp_path):
    """Fewer frames than planned: the sidecar's scan ends in missing frames; without one it is a shorter stack."""
    master = write_scan(tmp_path, ramp(10), 5, triggers=(12, 1))
    source = Dectris()(str(master))
    assert source.scan_shape == (10,)
    assert any("10 frames were found, 12 were planned" in text for text in source.metadata.warnings)
    write_sidecar(tmp_path / "scan.h5", (3, 4))
    source = Dectris()(str(master))
    assert source.scan_shape == (3, 4)
    assert source.validity.tolist() == [VALID] * 10 + [MISSING] * 2


def test_sidecar_that_does_not_fit(tmp_path):
    """A scan size that is not the number of frames is told and not used; no square root is taken."""
    source = Dectris()(str(write_scan(tmp_path, ramp(16), 8, (3, 4))))
    assert source.scan_shape == (16,)
    assert (4, 4) in source.metadata.acquisition.scan_shape_alternatives
    assert any("3 rows and 4 columns, which does not fit 16 frames" in text for text in source.metadata.warnings)


def test_frames_beside_the_rows(tmp_path):
    """Rows longer than the scan by the stated number of frames are guessed to carry flyback, and that is told."""
    master = write_scan(tmp_path, ramp(15), 8)
    write_sidecar(tmp_path / "scan.h5", (3, 4), prescan=1)
    source = Dectris()(str(master))
    assert source.scan_shape == (3, 5)
    assert source.metadata.acquisition.flyback_columns == 1
    assert source.metadata.acquisition.scan_shape_source == "guessed"
    assert any("guessed to be flyback" in text for text in source.metadata.warnings)


def test_one_trigger_per_row_is_offered(tmp_path):
    """Triggers and frames per trigger suggest a scan shape, which is offered first and not chosen."""
    source = Dectris()(str(write_scan(tmp_path, ramp(12), 12, triggers=(2, 6))))
    assert source.scan_shape == (12,)
    assert source.metadata.acquisition.scan_shape_alternatives[0] == (2, 6)


def test_options(tmp_path):
    """The user's scan and flyback columns count; a larger scan ends in missing frames."""
    master = write_scan(tmp_path, ramp(12), 5, (3, 4))
    source = Dectris(scan_shape=(4, 3), flyback_columns=1)(str(master))
    assert source.scan_shape == (4, 3)
    assert source.metadata.acquisition.flyback_columns == 1
    assert source.metadata.acquisition.scan_shape_source == "user"
    larger = Dectris(scan_shape=(4, 4))(str(master))
    assert (larger.validity == MISSING).sum() == 4
    smaller = Dectris(scan_shape=(2, 3))(str(master))
    np.testing.assert_array_equal(whole(smaller), ramp(6).reshape(2, 3, *FRAME))
    stack = Dectris(scan_shape=(5,))(str(master))
    assert stack.metadata.warnings == [
        "12 frames were found, the scan (5,) has 5 positions; the last ones are ignored",
    ]
    with pytest.raises(InputError, match="one master file"):
        Dectris()([str(master), str(master)])
    with pytest.raises(InputError, match="scan_shape"):
        Dectris(scan_shape=(0, 3))


def test_files_of_different_scans(tmp_path):
    """Data files of another type do not belong to the scan."""
    master = write_scan(tmp_path, ramp(12), 6)
    write_data(tmp_path / "scan_data_000002.h5", ramp(6, np.uint16), 7)
    with pytest.raises(CorruptDataError, match="belong to several scans"):
        Dectris()(str(master))


def test_other_hdf5_files(tmp_path):
    """HDF5 files without Dectris frames are not claimed, and refused by name."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["entry/data/image"] = np.zeros((3, 3))
    path = tmp_path / "other.h5"
    assert Dectris.matches(str(path), path.read_bytes()[:4096]) == 0
    with pytest.raises(UnknownFormatError, match="no file of a Dectris detector"):
        Dectris()(str(path))


def test_detection(tmp_path):
    """Master and data files are found by content."""
    master = write_scan(tmp_path, ramp(6), 6, (2, 3))
    assert stemstore.open(master).intensity.shape == (2, 3, *FRAME)
    assert stemstore.open(tmp_path / "scan_data_000001.h5").intensity.shape == (6, *FRAME)


@NEEDS_PLUGIN
def test_without_the_plugin(tmp_path, monkeypatch):
    """Compressed frames are read where the package of their filter is not installed."""
    master = write_scan(tmp_path, ramp(6), 6, compressed=True)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    np.testing.assert_array_equal(Dectris()(str(master)).read_frames(0, 6), ramp(6))


@pytest.fixture(scope="module")
def small_scan(tmp_path_factory):
    """A scan whose files tests damage and put back."""
    folder = tmp_path_factory.mktemp("dectris")
    master = write_scan(folder, ramp(4), 2, (2, 2), compressed=True)
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}, master


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=damaged(b"\0" * 4))
def test_garbage_behind_the_signature(tmp_path_factory, data):
    """Random bytes behind the signature of HDF5 are an error of ours."""
    path = tmp_path_factory.mktemp("garbage") / "a_master.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + data)
    with pytest.raises(StemStoreError, match="a_master"):
        Dectris()(str(path))


def test_damaged_files(small_scan):
    """Cut or changed anywhere, the files give pixels or an error of ours, and detection never raises."""
    contents, master = small_scan
    rng = np.random.default_rng(11)
    opened = 0
    for _ in range(150):
        path = list(contents)[rng.integers(len(contents))]
        content = bytearray(contents[path])
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        path.write_bytes(content if rng.random() < 0.7 else content[: rng.integers(len(content))])
        assert 0 <= Dectris.matches(str(master), master.read_bytes()[:4096]) <= 1
        with suppress(StemStoreError):
            source = Dectris()(str(master))
            opened += 1
            whole(source)
        path.write_bytes(contents[path])
    assert 0 < opened < 150
