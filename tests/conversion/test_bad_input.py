"""Input that is wrong ends in a typed error or in flagged data, never in a hang or in silence."""

import numpy as np
import pytest

import stemstore
from stemstore.conversion.counting.noise import fit_noise_peak
from stemstore.conversion.counting.settings import CountOptions
from stemstore.conversion.plan import make_plan
from stemstore.errors import ChecksumError, CorruptDataError, InputError, ScanWarning, SectorMismatchError
from stemstore.store.open import open_store
from stemstore.testing import write_sectors
from stemstore.testing.arrays import ArrayFrames

LIMITS = {"count": True, "background_threshold": 40.0, "xray_threshold": 500.0}


def sectors(folder, **options):
    """A 4 x 3 scan of camera frames with 30 electrons each."""
    frames = np.rint(np.random.default_rng(0).normal(20, 1.8, (12, 576, 576))).astype(np.uint16)
    frames[:, 10:570:100, 20:560:120] = 90
    write_sectors(folder, iter([frames]), (4, 3), flyback_columns=0, **options)
    return frames


@pytest.mark.parametrize("name", ["dark", "gain", "bad_pixels"])
@pytest.mark.parametrize("shape", [(18, 20), (20, 18, 1), (20,)])
def test_images_of_another_shape(tmp_path, raw, name, shape):
    """Both shapes are named, and nothing is written."""
    with pytest.raises(InputError, match=rf"{name} \(array\) has shape .*expected shape \(20, 18\)"):
        stemstore.convert(raw, tmp_path / "a.zarr", **LIMITS, **{name: np.ones(shape)})
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"row_dark": "mode"}, "row_dark='mode' is not known; choose one of none, mean, median"),
        ({"dark": np.full((20, 18), "a")}, "dtype <U1"),
        ({"threshold": "module"}, "tells of no modules"),
        ({"threshold": "pixel"}, "choose one of global, module, half-row"),
        ({"background_threshold": [30, 40]}, "tells of no modules"),
        ({"background_threshold": [[30]]}, "2 dimensions"),
        ({"threshold": "half-row", "background_threshold": [30.0, 31, 32]}, "3 values for 2 regions"),
        ({"false_events_per_frame": 0}, "cannot be reached"),
        ({"false_events_per_frame": 0.1, "background_threshold": 3}, "exclude each other"),
    ],
)
def test_options_that_do_not_fit(tmp_path, raw, options, match):
    """What cannot be done is refused by its name."""
    with pytest.raises(InputError, match=match):
        stemstore.convert(raw, tmp_path / "a.zarr", count=True, **options)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("name", ["threshold", "false_events_per_frame"])
def test_options_of_counting_where_nothing_is_counted(tmp_path, raw, name):
    """They are not passed over in silence."""
    value = {"threshold": "module", "false_events_per_frame": 1}[name]
    with pytest.raises(InputError, match=f"{name} cannot be used: .*count=True"):
        stemstore.convert(raw, tmp_path / "a.zarr", **{name: value})


def test_damaged_reference_files(tmp_path, raw):
    """A file that is no array is refused and never unpickled."""
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("dark")
    for name in ("objects", "text"):
        with pytest.raises(CorruptDataError, match="cannot be read as a NumPy array"):
            stemstore.convert(raw, tmp_path / "a.zarr", dark=tmp_path / f"{name}.npy", **LIMITS)
    with pytest.raises(stemstore.errors.NotFoundError, match=r"gone\.npy"):
        stemstore.convert(raw, tmp_path / "a.zarr", dark=tmp_path / "gone.npy", **LIMITS)


def test_dead_pixels_of_references_are_told(tmp_path, raw):
    """Pixels that a reference takes away are counted in the warnings."""
    gain = np.ones((20, 18))
    gain[2, :3] = np.nan, 0, -2
    with pytest.warns(ScanWarning, match="3 pixels without a finite dark or a positive gain are dead"):
        stemstore.convert(raw, tmp_path / "a.zarr", gain=gain, **LIMITS)
    assert not stemstore.open(tmp_path / "a.zarr").intensity[:, :, 2, :3].values.any()


def test_module_that_is_missing_everywhere(tmp_path):
    """It is an error; asked for, the rows that exist are counted and every frame is partial."""
    frames = sectors(tmp_path / "raw")
    for path in (tmp_path / "raw").glob("*module1*"):
        path.unlink()
    with pytest.raises(SectorMismatchError, match="module 1 has no file"):
        stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", **LIMITS)
    options = {"allow_missing_modules": True, "scan_shape": (4, 3)}
    with pytest.raises(CorruptDataError, match=r"none of the 12 frames is complete.*give background_threshold="):
        stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", count=True, **options)
    report = stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", **LIMITS, **options)
    assert report.frames == {"valid": 0, "partial": 12, "missing": 0}
    frames[:, 144:288] = 0
    assert report.n_events == (frames > 40).sum()


def test_fewer_complete_frames_than_a_sample(tmp_path):
    """What is complete is sampled; lost sectors neither move the thresholds nor make events."""
    sectors(tmp_path / "raw", lost_sectors=[(number, number % 4) for number in range(11)])
    report = stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", count=True, scan_shape=(4, 3), threshold="module")
    assert report.thresholds["n_frames"] == 1
    assert report.thresholds["pedestal_mean"] == pytest.approx(20, abs=0.05)
    whole = open_store(tmp_path / "a.zarr").read_events(11, 12)
    assert len(whole.indices) == 6 * 5


def test_truncated_sector_file(tmp_path):
    """The record that was cut off is lost, its frame partial, and the file is named."""
    sectors(tmp_path / "raw", truncate_last=1000)
    report = stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", scan_shape=(4, 3), **LIMITS)
    assert report.frames == {"valid": 11, "partial": 1, "missing": 0}
    assert any("ends with 164904 bytes of a record" in text for text in report.warnings)


@pytest.mark.parametrize("level", [0, 30])
def test_frames_without_electrons(tmp_path, level):
    """All lists of events may be empty, or equally long: the store is a store like any other."""
    frames = np.zeros((6, 5, 12, 14), np.uint16)
    frames[..., ::4, 3] = level
    np.save(tmp_path / "scan.npy", frames)
    limits = {"count": True, "background_threshold": 10, "xray_threshold": 50}
    if level == 0:
        with pytest.warns(ScanWarning, match="frames with one value in all pixels.*: 30 "):
            report = stemstore.convert(tmp_path / "scan.npy", tmp_path / "a.zarr", **limits)
    else:
        report = stemstore.convert(tmp_path / "scan.npy", tmp_path / "a.zarr", **limits)
    assert report.n_events == (frames > 10).sum()
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr").intensity, frames > 10)


def test_frames_that_are_all_saturated(tmp_path):
    """They hold no electrons, and say so."""
    np.save(tmp_path / "scan.npy", np.full((4, 4, 12, 14), 65535, np.uint16))
    with pytest.warns(ScanWarning, match=r"frames with .*: 16 ") as caught:
        report = stemstore.convert(tmp_path / "scan.npy", tmp_path / "a.zarr", **LIMITS)
    assert report.n_events == 0
    assert len(caught) == 2, "one value in all pixels, and above the X-ray threshold"


def test_fit_that_goes_astray():
    """A histogram without a peak is refused with its quantiles, and so is a fit that does not end."""
    with pytest.raises(CorruptDataError, match=r"the fit went to|no noise peak.*quantiles"):
        fit_noise_peak(np.linspace(1, 400, 65536).astype(np.int64))


def test_fit_that_does_not_end(monkeypatch):
    """A search that is stopped is an error and no result."""
    monkeypatch.setattr("stemstore.conversion.counting.noise.FINE", {"maxiter": 3})
    peak = np.bincount(np.random.default_rng(0).normal(20, 2, 9999).round().astype(int), minlength=65536)
    with pytest.raises(CorruptDataError, match=r"does not converge.*give background_threshold="):
        fit_noise_peak(peak)


def test_module_without_a_usable_pixel():
    """Thresholds of a region need pixels."""
    frames = np.random.default_rng(1).normal(20, 2, (64, 10, 12)).round().astype(np.uint16)
    bad = np.zeros((10, 12), bool)
    bad[:, 6:] = True
    with pytest.raises(CorruptDataError, match="region 'detector/right' has no usable pixel"):
        CountOptions(threshold="half-row", bad_pixels=bad).counter(ArrayFrames(frames))


def test_references_that_leave_nothing():
    """With every pixel dead there is nothing to count."""
    frames = np.random.default_rng(1).normal(20, 2, (64, 10, 12)).round().astype(np.uint16)
    with pytest.raises(CorruptDataError, match="none of the sampled pixels is a number"):
        CountOptions(gain=np.zeros((10, 12))).counter(ArrayFrames(frames))


class Outside:
    """Counted events of which one lies beyond the detector."""

    scan_shape, frame_shape, validity, identity = (2, 2), (4, 4), None, "outside"

    def __init__(self):
        from stemstore_schemas import SourceMetadata

        self.metadata = SourceMetadata()

    def read_events(self, start, stop):
        """Give one event per frame; that of the last frame is outside."""
        from stemstore.sources.contract import Events

        numbers = np.array([3, 3, 3, 16], np.uint32)[start:stop]
        return Events(np.arange(stop - start + 1), numbers, self.frame_shape)


def test_indices_beyond_the_detector():
    """They are refused by frame and index before anything is stored."""
    with pytest.raises(CorruptDataError, match=r"event in pixel 16 of a detector of \(4, 4\)"):
        make_plan(Outside(), counted=True, counting=CountOptions(), profile="fast", workers=1, budget=2**28)


def test_damaged_block_of_events(tmp_path, raw):
    """A flipped bit in a block is found when it is read."""
    stemstore.convert(raw, tmp_path / "a.zarr", **LIMITS)
    shard = tmp_path / "a.zarr" / "events" / "gap" / "c" / "0" / "0"
    body = bytearray(shard.read_bytes())
    body[20] ^= 1
    shard.write_bytes(body)
    with pytest.raises(ChecksumError, match="events/gap"):
        stemstore.open(tmp_path / "a.zarr").intensity.sum().compute()
