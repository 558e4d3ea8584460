"""Two numbers in three bytes, put in place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import InputError
from stemstore.kernels.packed12 import place_blocks

START = np.zeros(1, np.int64)


def test_the_low_number_comes_first():
    """0xABC and 0xDEF are the bytes BC FA DE."""
    packed = np.frombuffer(bytes.fromhex("BCFADE"), np.uint8)[None]
    assert place_blocks(packed, START, START, (1, 2), np.empty((1, 2), np.uint16)).tolist() == [[0xABC, 0xDEF]]


@given(st.lists(st.integers(0, 4095), min_size=12, max_size=12))
def test_blocks_go_to_their_places(values):
    """Two blocks of 3 x 2 beside each other, the right one first, into a part of a frame; nothing else is touched."""
    block = np.array(values, np.uint16).reshape(2, 3, 2)
    low, high = block[..., 0], block[..., 1]
    packed = np.stack([low & 255, low >> 8 | (high & 15) << 4, high >> 4], axis=-1).astype(np.uint8).reshape(2, 9)
    frame = np.full((4, 9), 7, np.uint16)
    headed = np.concatenate([np.full((2, 5), 255, np.uint8), packed], axis=1)
    whole = place_blocks(headed, np.array([1, 1]), np.array([5, 3]), (3, 2), frame.copy(), skip=5)
    place_blocks(packed, np.array([1, 1]), np.array([2, 0]), (3, 2), frame[:, 3:7])
    np.testing.assert_array_equal(whole, frame)
    np.testing.assert_array_equal(frame[1:, 5:7], block[0])
    np.testing.assert_array_equal(frame[1:, 3:5], block[1])
    assert (frame[0] == 7).all()
    assert (frame[:, [0, 1, 2, 7, 8]] == 7).all()


def test_blocks_that_do_not_fit():
    """Blocks of another length, or outside the frame, are refused before anything is written."""
    packed, out = np.zeros((1, 3), np.uint8), np.zeros((1, 2), np.uint16)
    with pytest.raises(InputError, match="expected 3 bytes for 2 of 1 x 4 pixels"):
        place_blocks(packed, START, START, (1, 4), out)
    for tops, lefts in ((START + 1, START), (START, START - 1), (np.zeros(2, np.int64), START)):
        with pytest.raises(InputError, match=r"places outside \(1, 2\)|have places"):
            place_blocks(packed, tops, lefts, (1, 2), out)
