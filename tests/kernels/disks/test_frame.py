"""Frames loaded, filled, binned, and freed of their level."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.kernels.disks import frame as pixels


def test_loading_keeps_differences_of_large_counts() -> None:
    """Counts far above 2^24 lose nothing, because most of them is taken off before rounding."""
    frame = np.array([[2**31, 2**31 + 1], [2**31 + 3, 2**31 - 2]], np.uint32)
    image = np.zeros((4, 4), np.float32)
    offset = pixels.offset_of(frame)
    assert pixels.load(frame, np.zeros((2, 2), np.bool_), offset, image, 1) == 0
    assert np.diff(image[1:3, 1:3].ravel()).tolist() == [1, 2, -5]
    assert image[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("dtype", "offset"), [(np.uint8, 0.0), (np.uint16, 0.0), (np.uint32, 7.0), (np.float32, 7.0)])
def test_only_wide_types_need_an_offset(dtype: type, offset: float) -> None:
    """Few-bit integers are exact as they are."""
    frame = np.full((8, 8), 7, dtype)
    assert pixels.offset_of(frame) == offset


def test_missing_pixels_take_the_mean_of_their_neighbours() -> None:
    """A pixel that is not finite gets the mean of the good ones around it; a bad one stays zero and has no say."""
    frame = np.arange(25.0).reshape(5, 5)
    frame[2, 2] = np.nan
    bad = np.zeros((5, 5), np.bool_)
    bad[1, 1] = True
    image = np.zeros((9, 9), np.float32)
    assert pixels.load(frame, bad, 0.0, image, 2) == 1
    pixels.fill(frame, bad, image, 2)
    assert image[4, 4] == pytest.approx((7 + 8 + 11 + 13 + 16 + 17 + 18) / 7)
    assert image[3, 3] == 0


def test_large_holes_are_filled_from_further_away() -> None:
    """The middle of a missing patch takes its value from the nearest square with good pixels."""
    frame = np.full((15, 15), 4.0)
    frame[4:9, 4:9] = np.nan
    image, bad = np.zeros((15, 15), np.float32), np.zeros((15, 15), np.bool_)
    pixels.load(frame, bad, 0.0, image, 0)
    pixels.fill(frame, bad, image, 0)
    assert np.all(image == 4)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_bins_hold_the_sums_of_their_pixels(size: int) -> None:
    """Squares add up, smaller ones at the end as well; what lies beyond is untouched."""
    image = np.random.default_rng(0).integers(0, 9, (13, 19)).astype(np.float32)
    binned = np.full((16, 20), 7, np.float32)
    pixels.shrink(image, 1, size, (11, 17), binned)
    rows, columns = -(-11 // size), -(-17 // size)
    padded = np.zeros((rows * size, columns * size))
    padded[:11, :17] = image[1:-1, 1:-1]
    expected = padded.reshape(rows, size, columns, size).sum(axis=(1, 3))
    np.testing.assert_array_equal(binned[:rows, :columns], expected)
    assert np.all(binned[rows:] == 7)
    assert np.all(binned[:, columns:] == 7)


def test_the_level_is_taken_off_what_is_visible() -> None:
    """Half a bin loses half of the level; the norm is that of what is left."""
    binned = np.array([[5.0, 3.0], [7.0, 0.0]], np.float32)
    norm = pixels.subtract(binned, np.array([[1.0, 0.5], [1.0, 0.0]], np.float32), 4.0)
    assert binned.tolist() == [[1.0, 1.0], [3.0, 0.0]]
    assert norm == pytest.approx(np.sqrt(11))


def test_frames_become_loadable() -> None:
    """Half floats, booleans, foreign byte order and strided views come out native and contiguous."""
    for dtype in ("?", "<f2", ">u2", ">f4"):
        frame = pixels.loadable(np.ones((6, 6), dtype)[::2])
        assert frame.dtype.isnative
        assert frame.flags.c_contiguous
        assert frame.dtype.kind in "uf"
        assert frame.sum() == 18
