"""Images of the detector that sources know."""

import pickle

import numpy as np
import pytest

from stemstore.errors import CorruptDataError
from stemstore.sources.references import KnownImage, MeanFrame, mean_frame, references_of
from stemstore.testing.arrays import ArrayFrames

FRAMES = np.random.default_rng(2).integers(0, 60000, (3, 4, 5, 6), np.uint16)


def test_the_mean_leaves_incomplete_frames_out():
    """Missing and partial frames have no part in the mean, which is exact."""
    state = np.full((3, 4), 2, np.uint8)
    state[0, 1], state[2, 3] = 0, 1
    expected = FRAMES[state == 2].mean(axis=0, dtype=np.float64)
    image = MeanFrame(ArrayFrames(FRAMES, state))
    assert (image.shape, image.dtype) == ((5, 6), np.float64)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).read(), expected)


def test_no_complete_frame(monkeypatch):
    """Nothing can be averaged; batches of one frame change nothing else."""
    monkeypatch.setattr("stemstore.sources.references.BATCH_BYTES", 1)
    np.testing.assert_array_equal(mean_frame(ArrayFrames(FRAMES)), FRAMES.mean(axis=(0, 1), dtype=np.float64))
    with pytest.raises(CorruptDataError, match="no complete frame"):
        mean_frame(ArrayFrames(FRAMES, np.zeros((3, 4))))


def test_sources_without_images():
    """Most sources know none, and an image in memory is not changed from outside."""
    assert references_of(ArrayFrames(FRAMES)) == {}
    values = np.ones((5, 6))
    image = KnownImage(values)
    image.read()[...] = 7
    assert (values == 1).all()
