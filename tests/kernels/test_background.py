"""Background level, noise thresholds and loading of frames."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stemstore.kernels import background
from stemstore.kernels.correlation import disk

GOOD = np.zeros((128, 128), np.bool_)


@pytest.mark.parametrize("mean", [0.003, 0.05, 1.0, 40.0])
def test_level_and_quantum_of_a_counted_frame_with_disks(mean: float) -> None:
    """Bright disks do not lift the level; one electron is one count."""
    image = np.full((128, 128), mean) + 500 * mean * disk((128, 128), (60.0, 64.0), 8.0, 1.0)
    image += sum(50 * mean * disk((128, 128), c, 8.0, 1.0) for c in ((30.0, 30.0), (90.0, 40.0), (40.0, 100.0)))
    frame = np.random.default_rng(3).poisson(image).astype(np.uint16)
    level, variance, quantum = background.measure_background(frame, GOOD, 8)
    tolerance = 0.05 + 4 / np.sqrt(mean * 128**2)
    assert level == pytest.approx(mean, rel=tolerance)
    assert variance == pytest.approx(mean, rel=2 * tolerance)
    assert quantum == pytest.approx(1.0, abs=0.15)


def test_quantum_follows_the_gain() -> None:
    """A frame in units of 0.02 electrons a count and its counted original agree up to the gain."""
    counted = np.random.default_rng(4).poisson(2.0, (128, 128))
    level, variance, quantum = background.measure_background(counted * 50.0, GOOD, 8)
    assert level == pytest.approx(100.0, rel=0.02)
    assert variance == pytest.approx(5000.0, rel=0.05)
    assert quantum == pytest.approx(50.0, rel=0.05)


def test_bad_and_missing_pixels_do_not_count() -> None:
    """Masked and not finite pixels leave the level alone."""
    frame = np.full((128, 128), 3.0)
    frame[5, 6], frame[7, 8], frame[9, 10] = np.nan, np.inf, 1e9
    bad = GOOD.copy()
    bad[9, 10] = True
    assert background.measure_background(frame, bad, 8)[0] == 3.0


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
    """Counts far above 2^24 lose nothing, because the level is taken off before rounding."""
    frame = np.array([[2**31, 2**31 + 1], [2**31 + 3, 2**31 - 2]], np.uint32)
    image = np.zeros((3, 3), np.float32)
    assert background.load(frame, np.zeros((2, 2), np.bool_), 2.0**31, image) == 0
    assert image.tolist() == [[0, 1, 0], [3, -2, 0], [0, 0, 0]]


def test_bad_pixels_take_the_mean_of_their_neighbours() -> None:
    """A missing and a masked pixel get the mean of the good ones around them."""
    frame = np.arange(25.0).reshape(5, 5)
    frame[2, 2] = np.nan
    bad = np.zeros((5, 5), np.bool_)
    bad[0, 0] = True
    image = np.zeros((5, 5), np.float32)
    assert background.load(frame, bad, 0.0, image) == 2
    background.fill(frame, bad, image)
    assert image[2, 2] == pytest.approx(12.0)
    assert image[0, 0] == pytest.approx((1 + 5 + 6) / 3)


def test_large_holes_are_filled_from_further_away() -> None:
    """The middle of a bad patch takes its value from the nearest square with good pixels."""
    frame, bad = np.full((15, 15), 4.0), np.zeros((15, 15), np.bool_)
    bad[4:9, 4:9] = True
    image = np.zeros((15, 15), np.float32)
    background.load(frame, bad, 0.0, image)
    background.fill(frame, bad, image)
    assert np.all(image == 4)


def test_frames_become_loadable() -> None:
    """Half floats, booleans, foreign byte order and strided views come out native and contiguous."""
    for dtype in ("?", "<f2", ">u2", ">f4"):
        frame = background.loadable(np.ones((6, 6), dtype)[::2])
        assert frame.dtype.isnative
        assert frame.flags.c_contiguous
        assert frame.dtype.kind in "uf"
        assert frame.sum() == 18
