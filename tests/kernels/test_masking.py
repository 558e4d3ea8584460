"""Electrons outside a mask: left out of events and frames alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError
from stemstore.kernels import events
from stemstore.kernels.masking import mask_events, mask_frames

SHAPE = (300, 700)
"""A detector with distances that need escapes."""


@given(
    st.lists(st.lists(st.integers(0, SHAPE[0] * SHAPE[1] - 1), max_size=6), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
def test_the_electrons_inside_the_mask_stay(frames, seed):
    """Decoded, the block holds just the electrons inside the mask, in no more slots than before."""
    usable = np.random.default_rng(seed).random(SHAPE) < 0.5
    indptr = np.cumsum([0, *map(len, frames)])
    gap, slots = events.encode(indptr, np.array([p for frame in frames for p in frame], np.uint32))
    local = np.arange(len(frames))[::-1].copy()
    masked, ends = mask_events(gap, np.cumsum([0, *slots]), local, usable)
    assert len(masked) <= len(gap)
    dense = np.zeros((len(frames), usable.size), np.uint16)
    events.densify(masked, ends, np.arange(len(frames)), dense, np.arange(len(frames)))
    expected = np.zeros_like(dense)
    for row, number in enumerate(local):
        np.add.at(expected[row], [p for p in frames[number] if usable.reshape(-1)[p]], 1)
    np.testing.assert_array_equal(dense, expected)


def test_frames_keep_their_type():
    """Pixels outside are zero, even those that were NaN."""
    frames = np.array([[[1.5, np.nan]]], np.float32)
    masked = mask_frames(frames, np.array([0]), np.array([[True, False]]))
    assert masked.dtype == np.float32
    np.testing.assert_array_equal(masked, [[[1.5, 0]]])


def test_events_off_the_detector_are_refused():
    """A mask of a smaller detector reads no memory that is not its own."""
    gap, slots = events.encode(np.array([0, 1]), np.array([9], np.uint32))
    with pytest.raises(CorruptDataError, match="reach pixel 9 of 8"):
        mask_events(gap, np.array([0, slots[0]]), np.array([0]), np.ones((2, 4), bool))
