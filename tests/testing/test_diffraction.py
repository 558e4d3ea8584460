"""Patterns: the expected image and the drawn electrons are the same density."""

import numpy as np
import pytest

from stemstore.testing.diffraction import Pattern, disk_mask, moments

SHAPE = (64, 80)
PATTERN = Pattern(np.array([[30.3, 41.7], [14.0, 20.25]]), np.array([0.6, 0.25]), 8.0, 2.0, 9.0)


def disk(radius, edge=1.0, centre=(30.25, 40.5)):
    return Pattern(np.array([centre]), np.array([1.0]), radius, edge, 1.0)


@pytest.mark.parametrize(("radius", "edge"), [(8.0, 2.0), (20.0, 1.0), (3.0, 0.5)])
def test_disk_has_unit_sum_and_its_centre(radius, edge):
    """The image of one disk sums to one, and its centre of mass is the disk's centre, at any sub-pixel place."""
    found = moments(disk(radius, edge).image(SHAPE))
    assert found.share == pytest.approx(1, abs=2e-3)
    np.testing.assert_allclose(found.mean, (30.25, 40.5), atol=5e-3)


def test_variance_of_a_disk():
    """A disk of radius R has variance R^2 / 4 along an axis, plus 1/12 from the pixels."""
    found = moments(disk(20.0, 0.5).image(SHAPE))
    np.testing.assert_allclose(found.variance, 100 + 1 / 12, rtol=2e-3)


def test_interior_of_a_disk_is_flat():
    """Well inside, every pixel holds share over area."""
    image = disk(10.0, 2.0, (32.0, 40.0)).image(SHAPE)
    np.testing.assert_allclose(image[25:40, 38:43], 1 / (np.pi * (100 + 4 / 12)))
    assert image[32, 52] == 0


def test_edge_falls_linearly():
    """Half of the density is left at the radius, and none beyond half the width of the edge."""
    image = disk(10.0, 6.0, (32.0, 40.0)).image(SHAPE)
    np.testing.assert_allclose(image[32, 48:53] / image[32, 40], [5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6], atol=0.01)
    assert image[32, 54] == 0


def test_disk_beyond_the_border_is_cut():
    """What misses the detector is lost and does not come back on the other side."""
    image = disk(8.0, 1.0, (-0.5, 40.0)).image(SHAPE)
    assert image.sum() == pytest.approx(0.5, abs=1e-3)
    assert not image[20:].any()


def test_drawn_electrons_follow_the_image():
    """Half a million electrons fill blocks of pixels as the image predicts (chi-squared per block near one)."""
    n = 500_000
    positions = PATTERN.draw(n, np.random.default_rng(5))
    drawn = np.histogram2d(*positions.T, bins=[np.arange(s + 1) - 0.5 for s in SHAPE])[0]
    expected = n * PATTERN.image(SHAPE)
    drawn, expected = (a.reshape(16, 4, 20, 4).sum((1, 3)) for a in (drawn, expected))
    busy = expected > 20
    chi2 = ((drawn - expected)[busy] ** 2 / expected[busy]).mean()
    assert busy.sum() > 100
    assert chi2 == pytest.approx(1, abs=0.3)  # five standard deviations of the mean over 150 blocks


def test_drawn_mean_is_the_expected_mean():
    """The centre of mass of drawn electrons agrees with that of the image within its standard error."""
    n = 200_000
    wide = (400, 400)
    pattern = Pattern(PATTERN.centres + 150, PATTERN.shares, 8.0, 2.0, 9.0)
    found = moments(pattern.image(wide))
    error = np.sqrt(found.variance / n)
    assert (np.abs(pattern.draw(n, np.random.default_rng(6)).mean(0) - found.mean) < 4 * error).all()


def test_no_electrons():
    """Drawing none gives an empty list."""
    assert PATTERN.draw(0, np.random.default_rng(0)).shape == (0, 2)


def test_moments_within_a_mask():
    """Only masked pixels count."""
    image = np.zeros((5, 6))
    image[1, 2], image[3, 4], image[0, 5] = 1.0, 3.0, 9.0
    mask = np.ones((5, 6), bool)
    mask[0, 5] = False
    found = moments(image, mask)
    assert found.share == 4
    np.testing.assert_allclose(found.mean, [2.5, 3.5])
    np.testing.assert_allclose(found.variance, [0.75, 0.75])


def test_disk_mask_is_open():
    """A pixel exactly at the radius does not belong to the disk."""
    mask = disk_mask((5, 5), (2.0, 2.0), 2.0)
    assert mask.sum() == 9
    assert not mask[0, 2]
