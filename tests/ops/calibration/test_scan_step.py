"""The distance of positions follows from lattice fringes, apart along both axes where these can be told apart."""

import json
import math

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError
from stemstore.ops.calibration.scan_step import scan_step_from_lattice

D = 0.2  # nm
Y, X = np.indices((56, 64))


def lattice(angles, steps, rng=None, noise=1.0, shape=(Y, X)):
    """Fringes of spacing D in several directions (deg, from rows towards columns)."""
    image = np.full(shape[0].shape, 10.0)
    for number, angle in enumerate(np.radians(angles)):
        phase = (shape[0] * steps[0] * math.cos(angle) + shape[1] * steps[1] * math.sin(angle)) / D
        image += np.cos(2 * np.pi * phase + number)
    return image if rng is None else image + rng.normal(0, noise, image.shape)


SQUARE, HEXAGON = (12, 102), (12, 72, 132)


@pytest.mark.parametrize("angles", [SQUARE, HEXAGON], ids=["square", "hexagonal"])
def test_noise_free_lattices_give_both_steps(angles):
    """Two steps that differ come back from a lattice in two or three directions."""
    scale = scan_step_from_lattice(lattice(angles, (0.05, 0.047)), D, unit="nm")
    assert scale.separate
    assert (scale.step_y.value, scale.step_x.value) == pytest.approx((0.05, 0.047), rel=1e-6)
    assert (scale.step_y.unit, scale.step_y.source) == ("nm", "measured")
    assert scale.misfit < 1e-6
    assert scan_step_from_lattice(lattice(angles, (0.05, 0.047)), 2.0).step_y.value == pytest.approx(0.05)


def test_fringes_in_one_direction_give_equal_steps():
    """Where all fringes run alike the steps are taken as equal, and the result says so."""
    scale = scan_step_from_lattice(lattice((33,), (0.05, 0.05)), D, unit="nm")
    assert not scale.separate
    assert (scale.step_y.value, scale.step_x.value) == pytest.approx((0.05, 0.05), rel=1e-6)


@pytest.mark.parametrize("angles", [SQUARE, (33,)], ids=["two directions", "one direction"])
def test_the_uncertainty_covers_the_truth(angles):
    """In about 95 of 100 noise realisations the steps lie within 1.96 standard uncertainties."""
    rng = np.random.default_rng(15)
    steps = (0.05, 0.05) if len(angles) == 1 else (0.05, 0.047)
    inside = []
    for _ in range(100):
        scale = scan_step_from_lattice(lattice(angles, steps, rng, 1.5), D, unit="nm")
        for found, truth in zip((scale.step_y, scale.step_x), steps, strict=True):
            inside.append(abs(found.value - truth) < 1.96 * found.uncertainty)
    assert 0.88 < np.mean(inside) < 0.99


def test_a_sheared_scan_shows_in_the_misfit():
    """Fringes that cannot all have the spacing leave a misfit."""
    sheared = (Y, X + 0.08 * Y)
    scale = scan_step_from_lattice(lattice(HEXAGON, (0.05, 0.05), shape=sheared), D, unit="nm")
    assert scale.misfit > 1e-3


def test_simulated_lattice(sample, frames_of):
    """The step of a multislice simulation comes back from its virtual dark field, within the uncertainty."""
    truth = json.loads(sample("sim/mos2_defocus150.json").read_text())
    with np.load(sample("sim/mos2_defocus150_counts_u16.npz")) as file:
        image = stemstore.virtual_image(frames_of(file["counts"]), stemstore.annulus(25, 60)).compute()
    scale = scan_step_from_lattice(image, 3.16 * math.sqrt(3) / 2)  # {10-10} planes of molybdenum disulphide
    for step, angstrom in zip((scale.step_y, scale.step_x), truth["scan_step_A"], strict=True):
        assert step.value == pytest.approx(angstrom / 10, abs=3 * step.uncertainty)


@pytest.mark.parametrize(
    ("image", "spacing", "message"),
    [
        (np.random.default_rng(16).normal(0, 1, (40, 40)), D, "no lattice fringes"),
        (np.ones((40, 40)), D, "no lattice fringes"),
        (lattice(SQUARE, (0.05, 0.05)), -1.0, "spacing = -1.0"),
        (np.ones((4, 4)), D, "at least 16 x 16"),
        (np.full((40, 40), np.nan), D, "finite image"),
    ],
)
def test_what_cannot_work_is_refused(image, spacing, message):
    """Noise, flat, small and unfinished images, and lengths that are none, are errors."""
    with pytest.raises(InputError, match=message):
        scan_step_from_lattice(image, spacing)
