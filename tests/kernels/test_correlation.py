"""Correlation of frames with kernels in Fourier space, and the buffers for it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from stemstore.kernels import correlation


def test_correlation_equals_the_direct_sum() -> None:
    """The map is sum_p K(p - x) I(p) on a periodic frame of odd size."""
    shape, rng = (15, 21), np.random.default_rng(0)
    image, kernel = rng.poisson(3.0, shape).astype(np.float32), rng.normal(size=shape)
    transform = np.conj(fft.rfft2(kernel)).astype(np.complex64)
    found = correlation.correlate(correlation.transform(image), transform, shape)
    direct = [[(np.roll(kernel, (y, x), (0, 1)) * image).sum() for x in range(21)] for y in range(15)]
    np.testing.assert_allclose(found, direct, atol=2e-4)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_power_acts_on_the_modulus_of_the_product(power: float) -> None:
    """The product keeps its phase while its modulus is raised to the power; at power 0 all moduli are 1."""
    rng = np.random.default_rng(1)
    one, other = (fft.rfft2(rng.normal(size=(16, 16))).astype(np.complex64) for _ in range(2))
    product = one * other
    expected = np.abs(product) ** power * np.exp(1j * np.angle(product))
    np.testing.assert_allclose(correlation.weighted(one, other, power), expected, rtol=2e-4)


def test_phase_correlation_of_a_zero_stays_zero() -> None:
    """Where frame or kernel have nothing, rounding is not blown up to noise."""
    zero = np.zeros((4, 3), np.complex64)
    assert not correlation.weighted(zero, zero + 1, 0.0).any()


@pytest.mark.parametrize(("size", "fast"), [(128, 128), (135, 135), (121, 121), (127, 128), (131, 135), (578, 600)])
def test_only_sizes_with_large_primes_are_enlarged(size: int, fast: int) -> None:
    """A size with a prime factor above 11 grows to the next fast one; others stay, odd ones included."""
    assert correlation.transform_size(size) == fast


def test_buffers_are_lent_again_for_the_same_shapes() -> None:
    """A thread keeps one pair of buffers, zero at first, and makes new ones for other shapes."""
    image, binned = correlation.workspace((10, 12), 3, (8, 9))
    assert image.shape == (16, 18)
    assert binned.shape == (8, 9)
    assert not image.any()
    assert correlation.workspace((10, 12), 3, (8, 9))[0] is image
    assert correlation.workspace((10, 12), 4, (8, 9))[0] is not image
