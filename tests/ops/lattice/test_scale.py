"""Detector calibration from a known lattice: step, ellipse and rotation come back, with honest errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import InputError
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.lattice.scale import detector_from_lattice
from stemstore.testing.disks import lattice_disks

IDEAL = np.array([[0.25, 0.0], [0.0, 0.25], [0.25, 0.25], [-0.25, 0.5]])


def distorted(ratio, theta, rotation, step):
    """Pixels of the ideal vectors: rotated, scaled, and stretched along theta."""
    u = np.array([np.cos(np.radians(theta)), np.sin(np.radians(theta))])
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    stretch = np.eye(2) + (ratio - 1) * np.outer(u, u)
    return IDEAL @ (stretch @ [[c, -s], [s, c]]).T / step


@given(st.floats(1.001, 1.2), st.floats(-89, 90), st.floats(-179, 179), st.sampled_from(["minor", "area"]))
def test_truth_comes_back(ratio, theta, rotation, preserve):
    """Whatever distorts the lattice is found, and corrected vectors times the step are the ideal ones, rotated."""
    measured = distorted(ratio, theta, rotation, 0.01)
    found = detector_from_lattice(measured, IDEAL, preserve=preserve)
    assert found.ellipse.ratio == pytest.approx(ratio)
    assert (found.ellipse.theta - theta + 90) % 180 - 90 == pytest.approx(0, abs=1e-6)
    assert found.rotation == pytest.approx(rotation)
    assert found.step.value == pytest.approx(0.01 if preserve == "minor" else 0.01 / np.sqrt(ratio))
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    back = measured @ found.ellipse.matrix.T * found.step.value
    np.testing.assert_allclose(back, IDEAL @ np.array([[c, -s], [s, c]]).T, atol=1e-9)


@pytest.mark.parametrize("stated", [True, False])
def test_errors_cover_the_truth(stated):
    """Over many noisy lattices the errors are the spread of the results."""
    random = np.random.default_rng(2)
    numbers, errors = [], []
    for _ in range(300):
        noisy = distorted(1.05, 30, 12, 0.01) + random.normal(0, 0.05, IDEAL.shape)
        found = detector_from_lattice(noisy, IDEAL, uncertainties=np.full(4, 0.05) if stated else None)
        ellipse = found.ellipse
        numbers.append([ellipse.a, ellipse.b, ellipse.theta, ellipse.ratio, found.step.value])
        errors.append([ellipse.a_sigma, ellipse.b_sigma, ellipse.theta_sigma, ellipse.ratio_sigma])
        errors[-1].append(found.step.uncertainty)
    spread, told = np.std(numbers, axis=0), np.sqrt(np.mean(np.square(errors), axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.15)


def test_two_vectors():
    """Two vectors determine everything, without errors unless theirs are given; units of the lattice are converted."""
    found = detector_from_lattice(distorted(1, 0, 0, 0.02)[:2], IDEAL[:2] * 10, unit="1/nm")
    assert found.step.value == pytest.approx(0.02)
    assert found.step.uncertainty is None
    assert np.isnan(found.ellipse.ratio_sigma)
    assert found.ellipse.theta == 0
    told = detector_from_lattice(distorted(1, 0, 0, 0.02)[:2], IDEAL[:2], uncertainties=[0.1, 0.1], preserve="area")
    assert told.step.uncertainty == pytest.approx(0.02 * 0.1 / 12.5 / np.sqrt(2), rel=0.01)


def test_disks_become_round():
    """What it finds is taken by calibrate_disks, and makes the lattice square."""
    bent = [[1.04, 0.01], [0.01, 0.98]]
    disks = lattice_disks(lattice=((20, 0), (0, 20)), distortion=bent)
    scale = detector_from_lattice([[20.8, 0.2], [0.2, 19.6]], [[0.25, 0], [0, 0.25]])
    found = calibrate_disks(disks, ellipse=scale.ellipse)
    first = np.hypot(found.gy, found.gx).values[1:5] * scale.step.value
    np.testing.assert_allclose(first, 0.25, rtol=1e-5)


def test_refusals():
    """Shapes that do not fit, parallel vectors and mirrored lattices are refused."""
    for measured, ideal, options, text in [
        (IDEAL[:3], IDEAL, {}, "3 vectors were measured and 4 are known"),
        (IDEAL[:1], IDEAL[:1], {}, "give two or more finite vectors"),
        (IDEAL[[0, 0]], IDEAL[:2], {}, "the measured vectors are parallel"),
        (IDEAL[::-1][2:], IDEAL[:2], {}, "mirror image"),
        (IDEAL, IDEAL, {"preserve": "major"}, "preserve 'major' is not known"),
        (IDEAL, IDEAL, {"uncertainties": [1, 2, 0, 1]}, "uncertainties must be 4 positive numbers"),
    ]:
        with pytest.raises(InputError, match=text):
            detector_from_lattice(measured, ideal, **options)
