"""Predictions are what simulated measurements find."""

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.testing import (
    Optics,
    SyntheticScan,
    disk_limit,
    expected_sum,
    predict_centre_of_mass,
    predict_image,
)
from stemstore.testing.diffraction import disk_mask
from stemstore.testing.prediction import mean_inverse


@pytest.fixture(scope="module")
def scan():
    return SyntheticScan((16, 16), seed=5)


@pytest.fixture(scope="module")
def maps(scan):
    return predict_centre_of_mass(scan)


@pytest.fixture(scope="module")
def large():
    return SyntheticScan(seed=8)


@pytest.mark.parametrize("rate", [0.5, 3.0, 60.0, 3000.0])
def test_mean_inverse_of_poisson_numbers(rate):
    """The series agrees with drawn numbers."""
    numbers = np.random.default_rng(1).poisson(rate, 400_000)
    assert mean_inverse(np.array(rate)) == pytest.approx((1 / numbers[numbers > 0]).mean(), rel=5e-3)


def test_expected_centre_of_mass_is_the_deflection(scan, maps):
    """Noise-free maps follow the phase gradient: slope one over the whole detector, correlation in the small mask."""
    whole, bright = maps
    np.testing.assert_allclose(whole.expected, scan.deflection, atol=0.03)  # the border cuts the diffuse tail
    for axis in range(2):  # the diffuse background moves too little within the mask, more so where the mass is high
        assert np.corrcoef(bright.expected[..., axis].ravel(), scan.deflection[..., axis].ravel())[0, 1] > 0.99


def test_counted_electrons_scatter_as_predicted(scan, maps):
    """Deviations of measured from expected centre of mass, over their predicted noise, have unit variance."""
    for prediction in maps:
        deviation = np.empty((16, 16, 2))
        for number in range(256):
            place = np.stack(np.divmod(scan.electrons(number).astype(int), 576), axis=1) - 287.5
            place = place[np.linalg.norm(place, axis=1) < prediction.mask_radius]
            at = divmod(number, 16)
            deviation[at] = (place.mean(axis=0) - prediction.expected[at]) / prediction.noise[at]
        assert deviation.std() == pytest.approx(1, abs=4 / np.sqrt(2 * 512))
        assert abs(deviation.mean()) < 4 / np.sqrt(512)


def test_bright_field_correlation_is_higher(maps):
    """Leaving out the Bragg disks lowers the noise; without noise the correlation would be one."""
    whole, bright = maps
    assert (whole.correlation < bright.correlation).all()
    assert (bright.correlation < 1).all()


def test_correlation_is_measured_on_a_whole_scan(large):
    """The predicted correlation is what electrons of a 40 x 40 scan give, within four errors of Fisher's z."""
    bright = predict_centre_of_mass(large)[1]
    measured = np.empty((1600, 2))
    for number in range(1600):
        place = np.stack(np.divmod(large.electrons(number).astype(int), 576), axis=1) - 287.5
        measured[number] = place[np.linalg.norm(place, axis=1) < bright.mask_radius].mean(axis=0)
    for axis in range(2):
        found = np.corrcoef(measured[:, axis], large.deflection[..., axis].ravel())[0, 1]
        assert abs(np.arctanh(found) - np.arctanh(bright.correlation[axis])) < 4 / np.sqrt(1597)


@pytest.fixture(scope="module")
def images(large):
    """Mask, expected image and predicted correlation of bright field and annular dark field of a 40 x 40 scan."""
    bright, inner, outer = (disk_mask(large.frame_shape, large.optics.centre, n * 43.0) for n in (1.0, 1.5, 5.5))
    return {name: (mask, *predict_image(large, mask)) for name, mask in (("bf", bright), ("adf", outer & ~inner))}


@pytest.mark.parametrize("name", ["bf", "adf"])
def test_image_correlation_is_measured(large, images, name):
    """Drawn electrons correlate with the expected image as predicted, within four errors of Fisher's z."""
    mask, expected, predicted = images[name]
    drawn = np.array([mask.ravel()[large.electrons(number)].sum() for number in range(1600)])
    measured = np.corrcoef(drawn, expected.ravel())[0, 1]
    assert abs(np.arctanh(measured) - np.arctanh(predicted)) < 4 / np.sqrt(1597)
    assert abs(drawn.mean() - expected.mean()) < 4 * np.sqrt(expected.mean() / 1600)


def test_particles_are_dark_in_bright_field_and_bright_in_dark_field(large, images):
    """On the thickest particle bright field falls by 30 to 40 per cent and dark field rises by more than a tenth."""
    top = np.unravel_index(large.phase.argmax(), (40, 40))
    bright, dark = (images[name][1] for name in ("bf", "adf"))
    assert 0.6 < bright[top] / bright[30:].mean() < 0.7
    assert dark[top] / dark[30:].mean() > 1.1
    np.testing.assert_allclose(bright[36:].mean(), 51.7, atol=0.2)


def test_expected_image_is_the_masked_sum(scan):
    """Each pixel is the sum of the expected pattern over the mask; a mask without pixels has no correlation."""
    mask = np.zeros(scan.frame_shape, bool)
    mask[200:400, 250:300] = True
    expected = predict_image(scan, mask)[0]
    np.testing.assert_allclose(expected[3, 7], scan.expected(scan.frame_number(3, 7))[mask].sum())
    nothing, correlation = predict_image(scan, np.zeros(scan.frame_shape, bool))
    assert not nothing.any()
    assert np.isnan(correlation)


def test_foreign_mask_is_refused(scan):
    """A mask of another shape or dtype is named."""
    with pytest.raises(InputError, match=r"mask of shape \(4, 5\)"):
        predict_image(scan, np.ones((4, 5), bool))
    with pytest.raises(InputError, match="dtype float64"):
        predict_image(scan, np.ones(scan.frame_shape))


def test_disk_limit_is_near_the_closed_form():
    """The exact limit lies within 12 per cent above sqrt(r (w + 1/2) / (N ln(1 + A / b))) of a flat background."""
    scan = SyntheticScan((16, 16), seed=5, optics=Optics(disk_edge=4.0))
    numbers = [scan.frame_number(15, 1), scan.frame_number(15, 2)]
    pattern = scan.pattern(numbers[0])
    index = 1 + scan.sample.crystal.orders.tolist().index([1.0, 0.0])
    row, column = np.round(pattern.centres[index]).astype(int)
    background = 2 * scan.dose * pattern.diffuse(scan.frame_shape)[row, column]
    counts = 2 * scan.dose * pattern.shares[index]
    ratio = counts / pattern.disk_area / background
    closed = np.sqrt(pattern.radius * (pattern.edge + 0.5) / (counts * np.log1p(ratio)))
    ratio = disk_limit(scan, numbers, (1, 0)) / closed
    assert (ratio > 1).all()
    assert (ratio < 1.12).all()


def test_score_of_electrons_has_the_limit_as_its_scatter():
    """The efficient linear estimate of a disk's place, from drawn electrons, scatters by the limit and is unbiased."""
    scan = SyntheticScan((1, 1), dose=20_000.0, frames_per_position=150, seed=3)
    limit = disk_limit(scan, [0], (0, 0))[1]
    mean, sides = scan.expected(0), [np.zeros(scan.frame_shape) for _ in range(2)]
    for side, sign in zip(sides, (-0.25, 0.25), strict=True):
        scan.pattern(0).add_disk(side, 0, (0.0, sign))
    slope = scan.dose * (sides[1] - sides[0]) / 0.5
    weight = np.where(slope != 0, slope / mean, 0.0).ravel()
    score = np.array([weight[scan.electrons(i)].sum() for i in range(150)]) - slope.sum()
    estimate = score * limit**2
    assert estimate.std() == pytest.approx(limit, rel=4 / np.sqrt(300))
    assert abs(estimate.mean()) < 4 * limit / np.sqrt(150)


def test_disk_limit_falls_with_the_dose(scan):
    """Four equal patterns give half the limit of one."""
    one = disk_limit(scan, [255], (0, 1))
    np.testing.assert_allclose(disk_limit(scan, [255] * 4, (0, 1)), one / 2)


def test_expected_sum_adds_patterns(scan):
    """The sum of two frames is the sum of their expectations."""
    np.testing.assert_allclose(expected_sum(scan, [3, 9]), scan.expected(3) + scan.expected(9))


def test_unknown_disk_is_refused(scan):
    """The message lists the orders that exist."""
    with pytest.raises(InputError, match=r"no disk of order \(5, 5\)"):
        disk_limit(scan, [0], (5, 5))
