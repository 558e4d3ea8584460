"""Indexing and fitting of single positions, against what the vectors were made of and against NumPy."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from stemstore.kernels.lattice import OFF, OUTLIER, TWIN, USED, FitSettings, fit_lattices, nearest_neighbours

BASIS = np.array([[24.0, -2.0], [1.0, 23.0]])
ORDERS = np.array([(h, k) for h in range(-4, 5) for k in range(-4, 5) if h * h + k * k <= 14])
X0 = np.array([0.7, -0.4])


def fit(q, *, weights=None, basis=BASIS, n=1, **options):
    """Fit positions with the same number of disks."""
    chosen = {"reach": 6.0, "limit": 31, "cut": 3.0, "min_peaks": 5, "min_share": 0.5, "metric": np.eye(2)} | options
    offset = np.linspace(0, len(q), n + 1).astype(np.int64)
    weights = np.ones(len(q)) if weights is None else np.asarray(weights, float)
    return fit_lattices(np.asarray(q, float), weights, offset, np.ones(n, bool), basis, FitSettings(**chosen))


def points(orders=ORDERS, basis=BASIS):
    """Give the disks of a lattice."""
    return X0 + np.asarray(orders) @ basis.T


def test_an_exact_lattice_comes_back():
    """Vectors, indices and counts are those the disks were made of; nothing is left over."""
    found = fit(points())
    np.testing.assert_allclose(found.vectors[0], [X0, *BASIS.T], atol=1e-12)
    np.testing.assert_array_equal(np.stack([found.marks.h, found.marks.k], axis=1), ORDERS)
    assert (found.marks.state == USED).all()
    assert found.counts.tolist() == [[len(ORDERS), 0, 0]]
    assert found.residual[0] < 1e-12


def test_the_fit_is_weighted_least_squares():
    """Vectors, variances and residual are those of the textbook, without outlier rejection."""
    rng = np.random.default_rng(0)
    q, w = points() + rng.normal(0, 0.3, (len(ORDERS), 2)), rng.uniform(1, 9, len(ORDERS))
    found = fit(q, weights=w, cut=np.inf)
    design = np.column_stack([np.ones(len(q)), ORDERS])
    normal = np.linalg.inv(design.T @ (w[:, None] * design))
    expected = normal @ design.T @ (w[:, None] * q)
    squares = (w[:, None] * (q - design @ expected) ** 2).sum()
    spread = normal * squares / (2 * len(q) - 6)
    np.testing.assert_allclose(found.vectors[0], expected, rtol=1e-10)
    np.testing.assert_allclose(found.variances[0], [*np.diag(spread), spread[1, 2]], rtol=1e-9)
    np.testing.assert_allclose(found.residual[0], np.sqrt(squares / (2 * w.sum())), rtol=1e-10)


def test_a_metric_weighs_components_and_leaves_the_vectors():
    """Residuals are measured in the metric; the least-squares solution does not depend on it."""
    q = points() + np.random.default_rng(0).normal(0, 0.3, (len(ORDERS), 2))
    plain, rows = fit(q, cut=np.inf), fit(q, cut=np.inf, metric=np.diag([2.0, 0.0]))
    np.testing.assert_allclose(rows.vectors, plain.vectors)
    rest = q - np.column_stack([np.ones(len(q)), ORDERS]) @ plain.vectors[0]
    np.testing.assert_allclose(rows.residual[0], np.sqrt(4 * (rest[:, 0] ** 2).mean() / 2), rtol=1e-10)


def test_standard_errors_are_those_of_repeated_measurements():
    """Over 4000 noisy positions the spread of every vector is its standard error, within 10 %."""
    rng, n = np.random.default_rng(1), 4000
    w = rng.uniform(0.3, 3, len(ORDERS))
    noise = rng.normal(0, 0.2, (n, len(ORDERS), 2)) / np.sqrt(w)[:, None]
    found = fit((points() + noise).reshape(-1, 2), weights=np.tile(w, n), n=n)
    spread = found.vectors - [X0, *BASIS.T]
    measured = [(spread[:, i] ** 2).mean() for i in range(3)] + [(spread[:, 1] * spread[:, 2]).mean()]
    ratio = np.array(measured) / found.variances.mean(axis=0)
    assert found.fitted.all()
    assert 0.9 < np.sqrt(ratio[:3]).min() <= np.sqrt(ratio[:3]).max() < 1.1
    assert measured[3] == pytest.approx(found.variances[:, 3].mean(), abs=0.1 * measured[1])


@pytest.mark.parametrize("angle", [-6, 0, 5])
@pytest.mark.parametrize("stretch", [0.95, 1.0, 1.05])
def test_high_orders_follow_the_low_ones(angle, stretch):
    """A lattice several per cent and degrees away from the basis is numbered rightly up to order 15."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turned = np.array([[c, -s], [s, c]]) @ np.diag([stretch, 1.02]) @ BASIS
    orders = np.stack(np.meshgrid(*[np.arange(-15, 16)] * 2), axis=-1).reshape(-1, 2)
    found = fit(points(orders, turned))
    np.testing.assert_allclose(found.vectors[0, 1:].T, turned, atol=1e-10)
    np.testing.assert_array_equal(found.marks.h, orders[:, 0])


def test_the_nearer_of_two_disks_is_taken():
    """Two disks at one lattice point: the nearer one counts, whatever their order."""
    q = np.concatenate([points(), points()[:1] + 3.0, points()[1:2] - 3.0])
    for order in (1, -1):
        found = fit(q[::order])
        assert (found.marks.state == TWIN).sum() == 2
        np.testing.assert_allclose(found.vectors[0, 1:].T, BASIS, atol=1e-10)


def test_outliers_are_dropped():
    """A disk that is displaced by many standard errors is left out of the fit and counted."""
    q = points() + np.random.default_rng(0).normal(0, 0.05, (len(ORDERS), 2))
    q[7] += 4.0
    found = fit(q)
    assert found.marks.state[7] == OUTLIER
    assert 1 <= found.counts[0, 1] <= 3
    np.testing.assert_allclose(found.vectors[0, 1:].T, BASIS, atol=0.05)


def test_disks_between_lattice_points_are_counted():
    """A disk in the middle of a cell is off the lattice; beyond the largest order nothing is indexed."""
    found = fit(np.concatenate([points(), [X0 + BASIS @ [0.5, 0.5]]]))
    assert found.counts[0].tolist() == [len(ORDERS), 0, 1]
    assert found.marks.state[-1] == OFF
    near = fit(points(), limit=1)
    assert near.counts[0, 0] == 9


@pytest.mark.parametrize(
    "orders",
    [
        [(0, 0), (1, 0), (0, 1), (1, 1)],
        [(h, 0) for h in range(-4, 5)],
        [(h, 2) for h in range(-4, 5)],
        [(h, h) for h in range(-4, 5)],
        [(h, 1 - h) for h in range(-4, 5)],
        [],
    ],
)
def test_too_few_disks_and_disks_on_a_line_have_no_fit(orders):
    """Four disks, and nine on any line, say nothing about one of the vectors: no numbers rather than wrong ones."""
    found = fit(np.asarray(points(orders)).reshape(-1, 2) if orders else np.empty((0, 2)))
    assert not found.fitted[0]
    assert np.isnan(found.vectors).all()
    assert np.isnan(found.variances).all()
    assert np.isnan(found.residual).all()


def test_disks_of_another_grain_have_no_fit():
    """Random disks, and those of a lattice turned by 45 degrees, are mostly off the lattice."""
    rng = np.random.default_rng(2)
    turn = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    for q in (rng.uniform(-90, 90, (45, 2)), points(basis=turn @ BASIS)):
        found = fit(q)
        assert not found.fitted[0]
        assert found.counts[0, 2] > 0.4 * len(q)


def test_disks_without_weight_and_without_place_take_no_part():
    """Weights that are zero, negative or NaN, and vectors that are not finite, are left out."""
    q, w = points(), np.ones(len(ORDERS))
    q[:3] += 2.0
    w[:3] = 0.0, -1.0, np.nan
    q[3] = np.nan
    found = fit(q, weights=w)
    np.testing.assert_allclose(found.vectors[0], [X0, *BASIS.T], atol=1e-12)
    assert found.counts[0, 0] == len(ORDERS) - 4


def test_positions_that_are_not_wanted_are_left_alone():
    """A position that is masked has no fit and no counts, and does not disturb its neighbours."""
    q = np.tile(points(), (3, 1))
    settings = FitSettings(6.0, 31, 3.0, 5, 0.5, np.eye(2))
    offset = np.arange(4) * len(ORDERS)
    found = fit_lattices(q, np.ones(len(q)), offset, np.array([True, False, True]), BASIS, settings)
    assert found.fitted.tolist() == [True, False, True]
    assert found.counts[1].tolist() == [0, 0, 0]


@hypothesis.given(
    st.floats(-180, 180), st.floats(0.5, 2), st.floats(-0.5, 0.5), st.booleans(), st.integers(0, 2**31 - 1)
)
@hypothesis.settings(max_examples=30)
def test_the_fit_follows_linear_maps(angle, scale, shear, mirrored, seed):
    """Disks and basis under one linear map, mirrors included, give the mapped lattice."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array([[c, -s], [s, c]]) @ np.array([[scale, shear], [0, 1]]) @ np.diag([1, -1 if mirrored else 1])
    q = points() + np.random.default_rng(seed).normal(0, 0.05, (len(ORDERS), 2))
    plain = fit(q, cut=np.inf)
    mapped = fit(q @ matrix.T, basis=matrix @ BASIS, cut=np.inf, reach=3.0)
    np.testing.assert_allclose(mapped.vectors[0], plain.vectors[0] @ matrix.T, atol=1e-10)
    np.testing.assert_array_equal(mapped.marks.h, plain.marks.h)


def test_nearest_neighbours():
    """Every disk of the chosen positions has its distance from the nearest other one."""
    q = np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 3.0], [9.0, 9.0], [0.0, 0.0], [5.0, 12.0]])
    assert nearest_neighbours(q, np.array([0, 3, 4, 6]), np.array([0, 2])).tolist() == [3, 3, 4, 13, 13]
