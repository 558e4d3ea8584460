"""Background level and noise thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from stemstore.kernels import background
from stemstore.kernels.disks import frame as pixels
from stemstore.kernels.disks.probe import disk

SHAPE = (128, 128)


def measure(
    frame: np.ndarray, size: int = 1, bad: np.ndarray | None = None, **options: Any
) -> tuple[background.Background, np.ndarray]:
    """Bin a frame and measure its background in tiles of 8 pixels; also the bins."""
    bad = np.zeros(frame.shape, np.bool_) if bad is None else bad
    image, bins = np.zeros(frame.shape, np.float32), np.zeros((-(-frame.shape[0] // size), -(-frame.shape[1] // size)))
    shares = bins.astype(np.float32)
    pixels.shrink((~bad).astype(np.float32), 0, size, frame.shape, shares)
    pixels.load(pixels.loadable(frame), bad, options.get("offset", 0.0), image, 0)
    binned = bins.astype(np.float32)
    pixels.shrink(image, 0, size, frame.shape, binned)
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
