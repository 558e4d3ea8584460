"""Elliptic rings come back with their axes, direction and centre, and with errors that hold."""

import math
import warnings

import hypothesis
import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st

from stemstore.errors import InputError, ScanWarning
from stemstore.ops.calibration.ellipse import fit_ellipse

SHAPE = (80, 84)


def ring(a, b, theta, *, center=(39.3, 42.1), widths=(1.8, 1.8), height=20.0, background=4.0):
    """Ring with a Gaussian profile whose ellipse has the axis a along theta, from rows towards columns."""
    y, x = np.indices(SHAPE) - np.array(center)[:, None, None]
    turn = math.radians(theta)
    along, across = y * math.cos(turn) + x * math.sin(turn), x * math.cos(turn) - y * math.sin(turn)
    size = math.sqrt(a * b)
    rho = (np.hypot(along / a, across / b) - 1) * size
    return height * np.exp(-((rho / np.where(rho < 0, *widths)) ** 2) / 2) + background


def labelled(image):
    return xr.DataArray(image, dims=("ky", "kx"))


def fitted(image, inner=15, outer=32, **options):
    """Fit without the warning that large distortions give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        return fit_ellipse(labelled(image), inner, outer, **options)


@pytest.mark.parametrize("method", ["ring", "amorphous"])
@pytest.mark.parametrize(
    ("a", "b", "theta"), [(24.0, 22.0, 0.0), (24.0, 22.0, 90.0), (23.0, 22.5, 30.0), (25, 22, -60.0)]
)
def test_noise_free_ellipses(method, a, b, theta):
    """Axes, direction and centre of a ring come back; the direction runs from rows towards columns."""
    found = fitted(ring(a, b, theta), method=method)
    assert (found.a, found.b) == pytest.approx((a, b), abs=0.05)
    assert found.ratio == pytest.approx(a / b, abs=2e-3)
    assert math.cos(2 * math.radians(found.theta - theta)) > math.cos(math.radians(1.0))
    assert found.center == pytest.approx((39.3, 42.1), abs=0.02)
    assert found.residual < 0.1


def test_a_column_wide_ring_has_its_axis_along_columns():
    """An ellipse that is longer along columns has theta 90, along rows 0."""
    assert abs(fitted(ring(24, 22, 90)).theta) == pytest.approx(90, abs=0.1)
    assert fitted(ring(24, 22, 0)).theta == pytest.approx(0, abs=0.1)


@hypothesis.given(st.floats(22, 25), st.floats(0.92, 1.0), st.floats(-89, 90), st.sampled_from(["minor", "area"]))
@hypothesis.settings(max_examples=10)
def test_the_matrix_makes_the_ring_round(a, share, theta, preserve):
    """Points of the ellipse lie on a circle after the correction: of radius b, or of equal area."""
    b = a * share
    found = fitted(ring(a, b, theta), preserve=preserve)
    angle = np.linspace(0, 2 * np.pi, 60)
    turn = math.radians(theta)
    along, across = a * np.cos(angle), b * np.sin(angle)
    points = [along * math.cos(turn) - across * math.sin(turn), along * math.sin(turn) + across * math.cos(turn)]
    radii = np.hypot(*(found.matrix @ np.array(points)))
    expected = b if preserve == "minor" else math.sqrt(a * b)
    np.testing.assert_allclose(radii, expected, rtol=5e-3)
    assert np.linalg.det(found.matrix) == pytest.approx(found.b / found.a if preserve == "minor" else 1.0)


def test_a_circle_has_no_direction():
    """A ring without distortion gives the identity, theta 0 and an error that says nothing is known of it."""
    found = fitted(ring(22.0, 22.0, 0.0, center=(39.5, 41.5)))
    assert found.theta == 0
    assert found.theta_sigma == pytest.approx(180 / math.sqrt(12))
    np.testing.assert_allclose(found.matrix, np.eye(2), atol=1e-5)


@pytest.mark.parametrize(("method", "n"), [("ring", 120), ("amorphous", 24)])
def test_errors_cover_the_truth(method, n):
    """In about 95 of 100 noise realisations every parameter lies within 1.96 standard errors."""
    rng = np.random.default_rng(8)
    expected = ring(24.0, 22.5, 35.0)
    inside = []
    for _ in range(n):
        found = fitted(rng.poisson(expected).astype(float), method=method)
        for name, truth in (("a", 24.0), ("b", 22.5), ("theta", 35.0), ("ratio", 24 / 22.5)):
            inside.append(abs(getattr(found, name) - truth) < 1.96 * getattr(found, f"{name}_sigma"))
    assert np.mean(inside) > 0.89


def test_a_halo_of_unequal_flanks_needs_the_amorphous_fit():
    """The two-sided Gaussian gives the top of the ring where the ring fit gives its middle."""
    image = ring(24.0, 22.0, 20.0, widths=(1.5, 3.5))
    halo, middle = (fitted(image, 13, 38, method=method) for method in ("amorphous", "ring"))
    assert (halo.a, halo.b) == pytest.approx((24.0, 22.0), abs=0.05)
    assert middle.ratio == pytest.approx(24 / 22, abs=0.01)
    assert middle.a > 24.5


def test_calibrated_axes_and_a_center(frames_of):
    """The result is in the unit of the axes, from a scan as well; a centre in that unit starts the search."""
    frames = np.round(10 * ring(24.0, 22.0, 20.0, center=(33.3, 47.1)))[None, None].astype(np.uint16)
    ds = frames_of(frames, detector_step="0.5 mrad", detector_center=(39.5, 41.5))
    with pytest.warns(ScanWarning, match="elliptic by"):
        found = fit_ellipse(ds, 8.0, 15.0, center=(-3.0, 2.5))
    assert found.unit == "mrad"
    assert (found.a, found.b) == pytest.approx((12.0, 11.0), abs=0.03)
    assert found.center == pytest.approx((-3.1, 2.8), abs=0.02)


def test_hot_pixels_and_gaps_do_no_harm():
    """Hot pixels are found, and a masked sector is left out."""
    image = ring(24.0, 23.0, 35.0)
    image[[10, 40], [40, 66]] = 1e5
    good = np.ones(SHAPE, bool)
    good[:, 30:36] = False
    image[:, 30:36] = 0
    found = fitted(image, mask=good)
    assert (found.a, found.b) == pytest.approx((24.0, 23.0), abs=0.1)


def test_large_distortions_warn_and_small_ones_do_not():
    """More than five percent is worth a warning."""
    with pytest.warns(ScanWarning, match="elliptic by 9"):
        fit_ellipse(labelled(ring(24.0, 22.0, 20.0)), 15, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_ellipse(labelled(ring(22.5, 22.0, 20.0)), 15, 32)


WRONG = {
    "order": ({"inner": 30, "outer": 20}, "inner < outer"),
    "method": ({"method": "lattice"}, "method 'lattice'"),
    "preserve": ({"preserve": "major"}, "preserve 'major'"),
    "far away": ({"inner": 300, "outer": 320}, "good pixels"),
    "empty": ({"inner": 1, "outer": 9}, "no elliptic ring"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_fitted_is_refused(options, message):
    """Impossible annuli, unknown choices and annuli without a ring are errors."""
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match=message):
        fitted(rng.poisson(ring(24.0, 22.0, 20.0)).astype(float), **options)
