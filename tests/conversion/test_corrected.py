"""Corrections of the detector in conversions: applied to frames when asked, handed on when not."""

import numpy as np
import pytest

import stemstore
from stemstore.conversion.counting.settings import CountOptions
from stemstore.conversion.job import prepare
from stemstore.conversion.steps import begin_writing, write_all
from stemstore.errors import InputError
from stemstore.progress import NoProgress
from stemstore.sources.references import KnownImage
from stemstore.testing.arrays import ArrayFrames

DETECTOR = (20, 18)
RANDOM = np.random.default_rng(8)
DARK, GAIN = RANDOM.normal(20, 1, DETECTOR), RANDOM.uniform(0.9, 1.1, DETECTOR)
MASK = RANDOM.random(DETECTOR) > 0.2
LIMITS = {"background_threshold": 40.0, "xray_threshold": np.inf}


class Knowing(ArrayFrames):
    """Frames whose files know their detector."""

    def __init__(self, frames):
        super().__init__(frames)
        self.references = {"dark": KnownImage(DARK), "gain": KnownImage(GAIN), "mask": KnownImage(MASK)}


@pytest.fixture
def knowing(monkeypatch, camera_frames):
    """A raw file that knows its detector."""
    source = Knowing(camera_frames)
    monkeypatch.setattr("stemstore.conversion.job.open_named", lambda *_, **__: (source, None))
    return source


def test_frames_are_stored_corrected(tmp_path, raw, camera_frames):
    """A dense store holds corrected floats, the images that made them, and their origin."""
    np.save(tmp_path / "dark.npy", DARK)
    stemstore.convert(raw, tmp_path / "a.zarr", dark=tmp_path / "dark.npy", gain=GAIN, mask=MASK)
    ds = stemstore.open(tmp_path / "a.zarr")
    assert ds.intensity.dtype == np.float32
    np.testing.assert_allclose(ds.intensity.values, (camera_frames - DARK) * GAIN * MASK, rtol=1e-5, atol=1e-5)
    assert set(ds.data_vars) == {"intensity"}
    scan = stemstore.store.open.open_store(str(tmp_path / "a.zarr"))
    said = scan.document.history[-1].parameters["corrections"]
    assert said["dark"]["origin"] == str(tmp_path / "dark.npy")
    assert {f"calibration/applied_{name}" for name in said} <= set(scan.head.arrays)


def test_a_mask_alone_keeps_the_type(tmp_path, raw, camera_frames):
    """Integers are stored as integers, zero outside."""
    stemstore.convert(raw, tmp_path / "a.zarr", mask=MASK)
    ds = stemstore.open(tmp_path / "a.zarr")
    assert ds.intensity.dtype == camera_frames.dtype
    np.testing.assert_array_equal(ds.intensity.values, camera_frames * MASK)


def test_what_the_files_know_is_handed_on(tmp_path, knowing):
    """Images that were not applied are in the calibration of the store, which opens with them and applies them."""
    job = prepare("a file")
    write_all(job, begin_writing(job, str(tmp_path / "a.zarr"), None), NoProgress())
    ds = stemstore.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.intensity.values, knowing.array)
    for name, image in (("dark", DARK), ("gain", GAIN), ("mask", MASK)):
        np.testing.assert_array_equal(ds[name].values, image)
    done = stemstore.open(tmp_path / "a.zarr", dark="detector", gain="detector")
    np.testing.assert_allclose(done.intensity.values, (knowing.array - DARK) * GAIN, rtol=1e-5, atol=1e-5)


def test_what_was_applied_is_not_offered_again(tmp_path, knowing):
    """Of images that were applied only the mask stays, which changes nothing twice."""
    job = prepare("a file", counting=CountOptions(dark="detector", mask="detector"))
    write_all(job, begin_writing(job, str(tmp_path / "a.zarr"), None), NoProgress())
    ds = stemstore.open(tmp_path / "a.zarr")
    np.testing.assert_allclose(ds.intensity.values, (knowing.array - DARK) * MASK, rtol=1e-5, atol=1e-5)
    assert set(ds.data_vars) == {"intensity", "gain", "mask"}


def test_no_events_outside_the_mask(tmp_path, raw, counts):
    """Counting looks for no electrons there, and the events elsewhere are those of bad pixels named by hand."""
    one = stemstore.convert(raw, tmp_path / "a.zarr", count=True, mask=MASK, **LIMITS)
    stemstore.convert(raw, tmp_path / "b.zarr", count=True, bad_pixels=~MASK, **LIMITS)
    events = stemstore.open(tmp_path / "a.zarr").intensity.values
    assert one.n_events > 0
    assert not events[..., ~MASK].any()
    np.testing.assert_array_equal(events, stemstore.open(tmp_path / "b.zarr").intensity.values)


def test_counting_uses_what_the_files_know(knowing):
    """Dark, gain and mask of the files count like the same arrays given by hand."""
    known = CountOptions(dark="detector", gain="detector", mask="detector", **LIMITS).counter(knowing)
    given = CountOptions(dark=DARK, gain=GAIN, bad_pixels=~MASK, **LIMITS).counter(knowing)
    one, other = (counter.read_events(0, 42) for counter in (known, given))
    assert len(one.indices)
    np.testing.assert_array_equal(one.indptr, other.indptr)
    np.testing.assert_array_equal(one.indices, other.indices)


def test_stores_apply_their_own_images(tmp_path, raw, camera_frames):
    """A store is converted with the dark that was saved in it; the new one does not offer it again."""
    stemstore.convert(raw, tmp_path / "a.zarr")
    stemstore.save_calibration({"dark": DARK, "mask": MASK}, tmp_path / "a.zarr")
    report = stemstore.convert(tmp_path / "a.zarr", tmp_path / "b.zarr", dark="detector")
    ds = stemstore.open(tmp_path / "b.zarr")
    np.testing.assert_allclose(ds.intensity.values, camera_frames - DARK, rtol=1e-5, atol=1e-4)
    assert set(ds.data_vars) == {"intensity", "mask"}
    assert any("the saved dark" in text for text in report.warnings)


def test_events_take_no_corrections(tmp_path, raw):
    """Electrons that are counted already cannot be corrected, and that is said."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, **LIMITS)
    with pytest.raises(InputError, match="dark, mask cannot be used: the source is counted already"):
        stemstore.convert(tmp_path / "a.zarr", tmp_path / "b.zarr", dark=DARK, mask=MASK)
    with pytest.raises(InputError, match="the data carry no gain"):
        stemstore.convert(raw, tmp_path / "b.zarr", gain="detector")
    with pytest.raises(InputError, match=r"dark .* NaN or infinite"):
        stemstore.convert(raw, tmp_path / "b.zarr", dark=np.full(DETECTOR, np.inf))
    assert not (tmp_path / "b.zarr").exists()
