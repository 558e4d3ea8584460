"""Level and slope of the background around places, on small images with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemstore.kernels.disks.probe import disk
from stemstore.kernels.disks.surroundings import Rules, surroundings


def rules(**changes: Any) -> Rules:
    """Give rules that for these tests: no noise but for the changes."""
    free = Rules(40, 40, 1, 3.0, 1, 0.0, 0.0, 0.0, 0, 99, 5.0, 0.0, False, False, 0.0, 0.0, 0.0, 1.0, 1.0)
    return free._replace(**changes)


def test_surroundings_ignore_the_disk_and_the_outside() -> None:
    """The median is that of the ring alone, also at the corner; off the image and without whole bins it is 0."""
    image = (3 + 50 * disk((40, 40), (20.0, 20.0), 6.0, 1.0)).astype(np.float32)
    places = np.array([[20, 20], [0, 0], [-40, -40]])
    whole, rule = np.ones((40, 40), np.float32), rules(radius=6.0)
    assert surroundings(image, whole, places, rule)[0].tolist() == [3.0, 3.0, 0.0]
    assert surroundings(image, whole / 2, places, rule)[0].tolist() == [0.0, 0.0, 0.0]


def test_surroundings_of_bins_are_per_pixel() -> None:
    """On bins of 2 x 2 pixels the ring has the same radii in pixels, and the median is divided by four."""
    image = np.full((40, 40), 5.0, np.float32)
    image[15:26, 15:26] = 90.0
    rule = rules(radius=14.0, binning=2)
    assert surroundings(image, np.ones((40, 40), np.float32), np.array([[20, 20]]), rule)[0][0] == 5.0 / 4


@pytest.mark.parametrize("size", [1, 2])
def test_the_slope_of_the_surroundings_is_measured(size: int) -> None:
    """A gradient per pixel comes out on pixels and bins; a neighbour of 900 counts on even ground hardly makes one."""
    rows, columns = np.indices((60, 60)) * float(size)
    image = ((50 + 0.4 * rows - 0.7 * columns) * size**2).astype(np.float32)
    rule, place = rules(radius=6.0 * size, binning=size, variance=1.0), np.array([[30, 30]])
    slopes = surroundings(image, np.ones((60, 60), np.float32), place, rule)[1]
    np.testing.assert_allclose(slopes, [[0.4, -0.7]], rtol=0.05)
    level = np.random.default_rng(0).normal(50.0, size, image.shape).astype(np.float32)
    level[25:36, 38:] += 900
    limited = surroundings(level, np.ones((60, 60), np.float32), place, rule)[1]
    assert np.abs(limited).max() < 0.15


def test_noise_alone_has_no_slope() -> None:
    """Slopes that noise explains are zero, and where a part of the ring is hidden none is given."""
    rng, whole = np.random.default_rng(0), np.ones((60, 60), np.float32)
    rule = rules(radius=6.0, variance=9.0)
    places = np.array([[y, x] for y in (15, 30, 45) for x in (15, 30, 45)])
    flat = rng.poisson(9.0, (60, 60)).astype(np.float32)
    slopes = surroundings(flat, whole, places, rule)[1]
    assert (slopes == 0).mean() > 0.8
    steep = np.indices((60, 60))[0].astype(np.float32)
    whole[30, 40] = 0.5
    hidden = surroundings(steep, whole, np.array([[30, 30]]), rules(radius=6.0, variance=0.01))[1]
    assert hidden.tolist() == [[0.0, 0.0]]
