"""Doubtful counting is warned of, noted in the report and in the history of the store."""

import numpy as np
import pytest

import stemstore
from stemstore.conversion.counting.watch import Watch
from stemstore.errors import ScanWarning
from stemstore.store.open import open_store
from stemstore.testing.arrays import ArrayFrames


def noise(shape=(16, 16, 40, 36), level=20.5):
    """Frames of read noise with one electron each."""
    frames = np.random.default_rng(8).normal(level, 1.8, shape)
    frames[..., 11, 13] += 90
    return np.rint(frames).astype(np.uint16)


def counted(tmp_path, frames, **options):
    """Convert frames; gives the report and the document of the store."""
    np.save(tmp_path / "scan.npy", frames)
    report = stemstore.convert(tmp_path / "scan.npy", tmp_path / "a.zarr", count=True, **options)
    return report, open_store(tmp_path / "a.zarr").document


def test_sound_scans_are_not_doubted(tmp_path):
    """An ordinary scan has no warning, and its drift is that of chance."""
    report, document = counted(tmp_path, noise())
    assert (report.warnings, document.history[0].warnings) == ([], [])
    assert 0 < document.counting.drift < 0.25 * 1.8
    assert document.counting.regions[0].drift == document.counting.drift


def with_frame(frames, number, value, columns):
    """Give the first columns of one frame a single value."""
    frames.reshape(-1, *frames.shape[2:])[number, :, :columns] = value
    return frames


def drifting(frames):
    """Raise the pedestal by 2 units in the second half of the scan."""
    frames[8:] += 2
    return frames


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (np.copy, {"background_sigma": 2.5}, r"noise alone is expected to make \d.* of about"),
        (np.copy, {"background_threshold": 25, "xray_threshold": 900}, "noise alone is expected"),
        (np.copy, {"xray_sigma": 10}, "X-ray threshold of 'detector'.* inside the distribution"),
        (lambda frames: with_frame(frames, 37, 20, 36), {}, r"frames with one value.*: 1 \(first: frame 37\)"),
        (
            lambda frames: with_frame(frames, 40, 65535, 9),
            {},
            r"frames with more than 0\.1 % .*: 1 \(first: frame 40\)",
        ),
        (drifting, {}, r"pedestal of 'detector' drifts by .* lines from \d+ and \d+ on"),
    ],
    ids=["low threshold", "low given threshold", "low x-ray", "dead", "saturated", "drift"],
)
def test_doubts(tmp_path, change, options, match):
    """The Python warning, the report and the store's history have the same line."""
    with pytest.warns(ScanWarning, match=match) as caught:
        report, document = counted(tmp_path, change(noise()), **options)
    texts = [str(warning.message) for warning in caught]
    assert report.warnings == texts == document.history[0].warnings


def test_drift_is_measured():
    """The range of the pedestal comes out, whatever the batches; what is lost does not count."""
    frames = drifting(noise()).reshape(-1, 40, 36)
    state = np.full(256, 2, np.uint8)
    state[:50] = 1
    frames[:50] = 0
    source = ArrayFrames(frames.reshape(16, 16, 40, 36), state)
    found = []
    for step in (256, 7):
        watch = Watch.over(source)
        for first in range(0, 256, step):
            some = frames[first : first + step]
            watch.look(some, first, state[first : first + step], np.zeros((len(some), 2), np.int64))
        found.append(watch.drifts())
    assert found[0] == found[1]
    assert found[0][0] == {"detector": pytest.approx(2, abs=0.25)}


def test_frames_that_are_no_integers_are_not_watched():
    """Drift is looked for in integers; a scan without a complete frame has no pedestal."""
    assert Watch.over(ArrayFrames(noise().astype(np.float32))) is None
    assert Watch.over(ArrayFrames(noise(), np.ones((16, 16)))) is None


def test_rows_of_another_level_are_no_drift():
    """A pedestal that differs from row to row is the same in every part of the scan."""
    frames = noise() + np.linspace(0, 6, 40).round().astype(np.uint16)[:, None]
    watch = Watch.over(ArrayFrames(frames))
    watch.look(frames.reshape(-1, 40, 36), 0, None, np.zeros((256, 2), np.int64))
    assert watch.drifts()[0]["detector"] < 0.5
