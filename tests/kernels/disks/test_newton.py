"""Newton steps on the trigonometric interpolant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from stemstore.kernels.disks.newton import newton


@pytest.mark.parametrize("shape", [(32, 40), (31, 40), (32, 39), (27, 35)])
def test_two_steps_reach_the_maximum_of_a_band_limited_map(shape: tuple[int, int]) -> None:
    """A Gaussian bump between pixels, which its samples determine, is found from half a pixel away."""
    centre, sigma = (12.3, 17.8), 2.5
    rows, columns = np.indices(shape)
    score = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * sigma**2)).astype(np.float32)
    product = fft.rfft2(score)
    found = newton(product, shape, np.array([[12.6, 17.4], [12.3, 17.8]]))
    np.testing.assert_allclose(found, [centre, centre], atol=2e-3)


def test_steps_are_limited_and_valleys_left_alone() -> None:
    """Where the map is not convex nothing moves; a far maximum is approached by 0.6 px a step."""
    rows, columns = np.indices((32, 32))
    valley = np.cos(2 * np.pi * rows / 32) + np.cos(2 * np.pi * columns / 32)
    product = fft.rfft2(valley.astype(np.float32))
    np.testing.assert_array_equal(newton(product, (32, 32), np.array([[16.2, 15.7]])), [[16.2, 15.7]])
    near = newton(product, (32, 32), np.array([[4.0, 3.0]]))
    np.testing.assert_allclose(near, [[2.8, 1.8]], atol=1e-6)


def test_no_positions_are_no_error() -> None:
    """An empty list stays empty."""
    assert newton(np.zeros((8, 5), np.complex64), (8, 8), np.empty((0, 2))).shape == (0, 2)
