"""Background level, noise thresholds and loading of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from stemstore.kernels import background
from stemstore.kernels.disk_probe import disk

SHAPE = (128, 128)


def measure(
    frame: np.ndarray, size: int = 1, bad: np.ndarray | None = None, **options: Any
) -> tuple[background.Background, np.ndarray]:
    """Bin a frame and measure its background in tiles of 8 pixels; also the bins."""
    bad = np.zeros(frame.shape, np.bool_) if bad is None else bad
    image, bins = np.zeros(frame.shape, np.float32), np.zeros((-(-frame.shape[0] // size), -(-frame.shape[1] // size)))
    shares = bins.astype(np.float32)
    background.shrink((~bad).astype(np.float32), 0, size, frame.shape, shares)
    background.load(background.loadable(frame), bad, options.get("offset", 0.0), image, 0)
    binned = bins.astype(np.float32)
    background.shrink(image, 0, size, frame.shape, binned)
    return background.measure_background(binned, shares / np.float32(size**2), size, 8, **options), binned


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("mean", [0.003, 0.05, 1.0, 40.0])
def test_level_and_quantum_of_a_counted_frame_with_disks(mean: float, size: int) -> None:
    """Bright disks do not lift the level; one electron is one count, on pixels and on bins."""
    image = np.full(SHAPE, mean) + 500 * mean * disk(SHAPE, (60.0, 64.0), 8.0, 1.0)
    image += sum(50 * mean * disk(SHAPE, c, 8.0, 1.0) for c in ((30.0, 30.0), (90.0, 40.0), (40.0, 100.0)))
    frame = np.random.default_rng(3).poisson(image).astype(np.uint16)
    level, variance, quantum = measure(frame, size, counted=True)[0]
    tolerance = 0.05 + 4 / np.sqrt(mean * 128**2)
    assert level == pytest.approx(mean, rel=tolerance)
    assert variance == pytest.approx(mean, rel=2 * tolerance)
    assert quantum == pytest.approx(1.0, abs=0.15)


def test_quantum_follows_the_gain() -> None:
    """A frame in units of 0.02 electrons a count and its counted original agree up to the gain."""
    counted = np.random.default_rng(4).poisson(2.0, SHAPE)
    level, variance, quantum = measure(counted * 50.0)[0]
    assert level == pytest.approx(100.0, rel=0.02)
    assert variance == pytest.approx(5000.0, rel=0.05)
    assert quantum == pytest.approx(50.0, rel=0.05)


def test_what_was_taken_off_belongs_to_the_level() -> None:
    """Level, variance and quantum do not depend on the offset of the loaded frame."""
    counted = np.random.default_rng(4).poisson(900.0, SHAPE).astype(np.float64)
    plain, moved = (measure(counted, 2, offset=offset)[0] for offset in (0.0, 880.0))
    np.testing.assert_allclose(moved, plain, rtol=1e-3)


def test_bad_and_missing_pixels_do_not_count() -> None:
    """Masked pixels leave the level alone, those that are not finite become zero."""
    frame = np.full(SHAPE, 3.0)
    frame[9, 10] = 1e9
    bad = np.zeros(SHAPE, np.bool_)
    bad[9, 10] = True
    assert measure(frame, 1, bad)[0].level == 3.0
    assert measure(frame, 2, bad)[0].level == 3.0


def test_noise_limit_is_gaussian_for_many_electrons() -> None:
    """With a million electrons five standard deviations are five standard deviations."""
    assert background.noise_limits(np.array([1e6]), 1.0, 5.0)[0] == pytest.approx(5e3, rel=2e-3)


@pytest.mark.parametrize("mean", [1e-3, 0.03, 0.5, 5.0, 80.0])
def test_noise_limit_bounds_the_poisson_tail(mean: float) -> None:
    """The exact Poisson probability beyond the limit is below exp(-z^2 / 2), yet within reach of it."""
    limit = background.noise_limits(np.array([mean]), 1.0, 5.0)[0]
    assert stats.poisson.sf(np.ceil(mean + limit) - 1, mean) < np.exp(-12.5)
    assert stats.poisson.sf(np.floor(0.6 * (mean + limit)) - 1, mean) > np.exp(-12.5)


def test_noise_limit_scales_with_the_jump() -> None:
    """Counting in other units changes the limit by these units; without noise it is zero."""
    one, seven = background.noise_limits(np.array([2.0]), 1.0, 4.0), background.noise_limits(np.array([98.0]), 7.0, 4.0)
    assert seven[0] == pytest.approx(7 * one[0])
    assert background.noise_limits(np.zeros(2), 1.0, 5.0).tolist() == [0.0, 0.0]


def test_loading_keeps_differences_of_large_counts() -> None:
    """Counts far above 2^24 lose nothing, because most of them is taken off before rounding."""
    frame = np.array([[2**31, 2**31 + 1], [2**31 + 3, 2**31 - 2]], np.uint32)
    image = np.zeros((4, 4), np.float32)
    offset = background.offset_of(frame, counted=False)
    assert background.load(frame, np.zeros((2, 2), np.bool_), offset, image, 1) == 0
    assert np.diff(image[1:3, 1:3].ravel()).tolist() == [1, 2, -5]
    assert image[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("dtype", "offset"), [(np.uint8, 0.0), (np.uint16, 0.0), (np.uint32, 7.0), (np.float32, 7.0)])
def test_only_wide_types_need_an_offset(dtype: type, offset: float) -> None:
    """Few-bit integers are exact as they are; counted frames, too, whatever their type."""
    frame = np.full((8, 8), 7, dtype)
    assert background.offset_of(frame, counted=False) == offset
    assert background.offset_of(frame, counted=True) == 0.0


def test_missing_pixels_take_the_mean_of_their_neighbours() -> None:
    """A pixel that is not finite gets the mean of the good ones around it; a bad one stays zero and has no say."""
    frame = np.arange(25.0).reshape(5, 5)
    frame[2, 2] = np.nan
    bad = np.zeros((5, 5), np.bool_)
    bad[1, 1] = True
    image = np.zeros((9, 9), np.float32)
    assert background.load(frame, bad, 0.0, image, 2) == 1
    background.fill(frame, bad, image, 2)
    assert image[4, 4] == pytest.approx((7 + 8 + 11 + 13 + 16 + 17 + 18) / 7)
    assert image[3, 3] == 0


def test_large_holes_are_filled_from_further_away() -> None:
    """The middle of a missing patch takes its value from the nearest square with good pixels."""
    frame = np.full((15, 15), 4.0)
    frame[4:9, 4:9] = np.nan
    image, bad = np.zeros((15, 15), np.float32), np.zeros((15, 15), np.bool_)
    background.load(frame, bad, 0.0, image, 0)
    background.fill(frame, bad, image, 0)
    assert np.all(image == 4)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_bins_hold_the_sums_of_their_pixels(size: int) -> None:
    """Squares add up, smaller ones at the end as well; what lies beyond is untouched."""
    image = np.random.default_rng(0).integers(0, 9, (13, 19)).astype(np.float32)
    binned = np.full((16, 20), 7, np.float32)
    background.shrink(image, 1, size, (11, 17), binned)
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
    norm = background.subtract(binned, np.array([[1.0, 0.5], [1.0, 0.0]], np.float32), 4.0)
    assert binned.tolist() == [[1.0, 1.0], [3.0, 0.0]]
    assert norm == pytest.approx(np.sqrt(11))


def test_frames_become_loadable() -> None:
    """Half floats, booleans, foreign byte order and strided views come out native and contiguous."""
    for dtype in ("?", "<f2", ">u2", ">f4"):
        frame = background.loadable(np.ones((6, 6), dtype)[::2])
        assert frame.dtype.isnative
        assert frame.flags.c_contiguous
        assert frame.dtype.kind in "uf"
        assert frame.sum() == 18
