"""The step of the detector follows from rings and from the convergence angle, with errors that hold."""

import math

import numpy as np
import pytest
import xarray as xr

from stemstore.errors import InputError
from stemstore.ops.calibration.beam import find_beam
from stemstore.ops.calibration.ring_peaks import find_rings
from stemstore.ops.calibration.spacings import detector_step_from_angle, detector_step_from_rings
from stemstore.testing.diffraction import Pattern
from stemstore_schemas import Quantity, wavelength

GOLD = 4.0782 / np.sqrt([3, 4, 8, 11, 12, 16, 19, 20, 24])  # angstrom, face-centred cubic reflections
STEP = 0.0117


def test_exact_radii_give_the_exact_step():
    """Radii of a known step give it back without residuals, in angstrom and in nm, in any order."""
    radii = 1 / GOLD[:4] / STEP
    for scale in (
        detector_step_from_rings(radii, GOLD[:4]),
        detector_step_from_rings(radii[::-1], GOLD[:4] / 10, unit="nm"),
    ):
        assert scale.step.value == pytest.approx(STEP, rel=1e-12)
        assert (scale.step.unit, scale.step.source) == ("1/angstrom", "measured")
        np.testing.assert_allclose(scale.residuals, 0, atol=1e-10)
        assert math.isinf(scale.runner_up)
    np.testing.assert_allclose(scale.spacings, GOLD[:4][::-1])


@pytest.mark.parametrize("known", [True, False], ids=["known errors", "errors from the scatter"])
def test_the_uncertainty_covers_the_truth(known):
    """In about 95 of 100 noise realisations the step lies within the errors (Student's t with unknown ones)."""
    rng = np.random.default_rng(10)
    true = 1 / GOLD[:6] / STEP
    sigma = np.linspace(0.05, 0.3, 6) if known else np.full(6, 0.2)
    inside = 0
    for _ in range(400):
        scale = detector_step_from_rings(rng.normal(true, sigma), GOLD[:6], uncertainties=sigma if known else None)
        inside += abs(scale.step.value - STEP) < (1.96 if known else 2.571) * scale.step.uncertainty
    assert 0.92 < inside / 400 < 0.98


def test_chi_square_decides_the_indexing():
    """Of nine possible reflections the measured ones are recognised, also where some are absent."""
    rng = np.random.default_rng(11)
    for chosen in ([0, 1, 2, 3], [1, 3, 6], [0, 2, 5, 8]):
        radii = rng.normal(1 / GOLD[chosen] / STEP, 0.05)
        scale = detector_step_from_rings(radii, GOLD, uncertainties=np.full(len(chosen), 0.05))
        np.testing.assert_allclose(scale.spacings, GOLD[chosen])
        assert scale.step.value == pytest.approx(STEP, abs=4 * scale.step.uncertainty)
        assert scale.runner_up > scale.chi_square + 4


def test_an_undecided_indexing_is_an_error():
    """One ring may be any of them; reflections of equal ratios cannot be told apart."""
    with pytest.raises(InputError, match="rings may be"):
        detector_step_from_rings([40.0], GOLD)
    with pytest.raises(InputError, match="rings may be"):
        detector_step_from_rings([10.0, 20.0], [4.0, 2.0, 1.0], uncertainties=[0.1, 0.1])
    assert detector_step_from_rings([40.0], GOLD[:1]).step.uncertainty is None


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([10.0, -1.0], [2.0, 1.0]), {}, "radii must be positive"),
        (([10.0], [math.inf]), {}, "spacings must be positive"),
        (([10.0, 20.0], [2.0]), {}, "only 1 spacings"),
        (([10.0], [2.0]), {"uncertainties": [0.1, 0.2]}, "1 radii have 2"),
        ((np.arange(1.0, 16.0), np.arange(1.0, 31.0)), {}, "can be assigned in"),
    ],
)
def test_wrong_rings_are_refused(arguments, options, message):
    """Numbers that cannot be lengths, or that do not belong together, are errors."""
    with pytest.raises(InputError, match=message):
        detector_step_from_rings(*arguments, **options)


def test_the_angle_gives_the_step():
    """The step is angle / (wavelength x radius); relative uncertainties add in squares."""
    step = detector_step_from_angle(20.0, 10.0, 300.0)
    assert step.value == pytest.approx(0.01 / wavelength(300.0) / 20.0)
    assert (step.unit, step.uncertainty) == ("1/angstrom", None)
    angle = Quantity(value=10.0, unit="mrad", source="header", uncertainty=0.3)
    step = detector_step_from_angle(20.0, angle, radius_uncertainty=0.8)
    assert (step.value, step.unit) == (0.5, "mrad")
    assert step.uncertainty == pytest.approx(0.5 * 0.05)
    assert detector_step_from_angle(20.0, "0.01 rad", "300 keV").value == pytest.approx(0.01 / wavelength(300) / 20)


def test_an_uncertain_energy_counts():
    """An energy with an uncertainty adds its share through the wavelength."""
    energy = Quantity(value=300.0, unit="keV", source="user", uncertainty=3.0)
    step = detector_step_from_angle(20.0, 10.0, energy, radius_uncertainty=1e-12)
    slope = (wavelength(299.5) - wavelength(300.5)) / wavelength(300.0)
    assert step.uncertainty == pytest.approx(step.value * 3 * slope, rel=1e-3)


def test_a_measured_beam_brings_its_uncertainty():
    """The result of find_beam is taken as it is."""
    image = 1e5 * Pattern(np.array([[20.2, 21.7]]), np.ones(1) * 0.8, 8.0, 1.0, 90.0).image((42, 44))
    beam = find_beam(xr.DataArray(np.random.default_rng(12).poisson(image), dims=("ky", "kx")))
    step = detector_step_from_angle(beam, 4.0)
    assert step.value == pytest.approx(0.5, rel=0.01)
    assert step.uncertainty == pytest.approx(step.value * beam.pixel.radius_sigma / beam.pixel.radius)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0, 10.0), "radius must be"), ((20.0, "ten"), "semi_convergence"), ((20.0, 10.0, "3 nm"), "beam_energy")],
)
def test_wrong_angles_are_refused(arguments, message):
    """Values that are no quantities of their kind are errors."""
    with pytest.raises(InputError, match=message):
        detector_step_from_angle(*arguments)


K = np.arange(110) + 0.5
PIXELS = np.round(2 * np.pi * K).astype(np.int64)
TRUE = np.array([36.3, 46.94, 59.28, 75.5, 95.1])


def profile(values, name="radial sum", unit="pixel"):
    coords = {"k": ("k", K, {"units": unit}), "n_pixels": ("k", PIXELS)}
    return xr.DataArray(values, dims="k", coords=coords, attrs={"units": "count", "long_name": name})


def expected():
    """Counts per pixel: rings of several heights on a decaying background."""
    heights = (60, 30, 20, 20, 10)
    rings = sum(h * np.exp(-(((K - r) / 1.4) ** 2) / 2) for h, r in zip(heights, TRUE, strict=True))
    return 2000 * np.exp(-K / 20) + 20 + rings


def test_rings_are_found_between_the_bins_with_errors_that_hold():
    """All rings and no others are found; at least 95 of 100 radii lie within 1.96 of their errors."""
    rng = np.random.default_rng(13)
    inside = []
    for _ in range(60):
        found = find_rings(profile(rng.poisson(expected() * PIXELS)), minimum=10)
        assert found.sizes["ring"] == len(TRUE)
        inside.append(np.abs(found.radius - TRUE) < 1.96 * found.radius_sigma)
    assert np.mean(inside) > 0.94
    assert float(abs(found.radius - TRUE).max()) < 0.3
    np.testing.assert_allclose(found.width[2:], 1.4, atol=0.4)


def test_sums_and_means_give_the_same_rings():
    """The number of pixels of a bin is taken into account; the unit is that of the profile."""
    sums = find_rings(profile(expected() * PIXELS), minimum=10)
    means = find_rings(profile(expected(), "radial mean", "mrad"), minimum=10)
    np.testing.assert_allclose(sums.radius, means.radius, rtol=1e-9)
    np.testing.assert_allclose(sums.radius, TRUE, atol=0.1)
    assert (sums.radius.attrs["units"], means.radius.attrs["units"]) == ("pixel", "mrad")


@pytest.mark.parametrize("level", [0.05, 1.0, 100.0])
def test_noise_has_no_rings(level):
    """A profile of even noise gives an empty list."""
    rng = np.random.default_rng(14)
    for _ in range(10):
        assert find_rings(profile(rng.poisson(level * PIXELS))).sizes["ring"] == 0


def test_profiles_that_cannot_work_are_refused():
    """A map of profiles, and one that is too short, are errors."""
    with pytest.raises(InputError, match="radial profile over k"):
        find_rings(profile(expected()).expand_dims(y=2))
    with pytest.raises(InputError, match="bins with pixels"):
        find_rings(profile(expected()), minimum=105)
