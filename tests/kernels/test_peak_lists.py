"""Filters and choices on ragged lists, against plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.kernels import peak_lists
from stemstore.kernels.peak_map import place, spread

LISTS = st.lists(st.lists(st.tuples(*[st.integers(0, 9)] * 3, st.booleans()), max_size=8), max_size=5)


def flat(lists):
    """Offsets, two coordinates, values in falling order and flags of a list of lists of points."""
    offset = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    points = np.array([point for one in lists for point in one], np.int64).reshape(-1, 4)
    values = np.concatenate([np.sort(points[a:b, 2])[::-1] for a, b in pairwise(offset)] or [[]])
    return offset, points[:, 0].astype(np.float32), points[:, 1].astype(np.float32), values, points[:, 3] != 0


@given(LISTS, st.integers(0, 3), st.sampled_from([0.2, 0.5, 1.0]))
def test_faint_peaks(lists, rank, share):
    """What is below a share of the peak of some rank among the kept ones goes; a list without that rank stays."""
    offset, _, _, values, keep = flat(lists)
    expected = keep.copy()
    for a, b in pairwise(offset):
        kept = [k for k in range(a, b) if keep[k]]
        if len(kept) > rank:
            expected[a:b] &= values[a:b] >= share * values[kept[rank]]
    peak_lists.drop_faint(offset, values, rank, share, keep)
    assert keep.tolist() == expected.tolist()


@given(LISTS, st.floats(0.5, 8))
def test_crowded_peaks(lists, distance):
    """Kept peaks of a list are apart, and every peak that went has a kept one before it nearby."""
    offset, qy, qx, _, before = flat(lists)
    keep = before.copy()
    peak_lists.drop_crowded(offset, qy, qx, distance, keep)
    for a, b in pairwise(offset):
        for k in range(a, b):
            near = [m for m in range(a, k) if keep[m] and np.hypot(qy[k] - qy[m], qx[k] - qx[m]) < distance]
            assert keep[k] == (before[k] and not near)


@given(LISTS, st.integers(0, 4))
def test_many_peaks(lists, most):
    """The first ones of those that are kept stay."""
    offset, *_, before = flat(lists)
    keep = before.copy()
    peak_lists.drop_behind(offset, most, keep)
    for a, b in pairwise(offset):
        assert np.flatnonzero(keep[a:b]).tolist() == np.flatnonzero(before[a:b])[:most].tolist()


@given(LISTS, st.integers(0, 100))
def test_choices(lists, limit):
    """The nearest peak, or the highest one, within reach; none where there is none."""
    offset, qy, qx, values, _ = flat(lists)
    squares = qy.astype(float) ** 2 + qx.astype(float) ** 2
    near = peak_lists.nearest(offset, squares, float(limit))
    high = peak_lists.highest(offset, values, squares, float(limit))
    for i, (a, b) in enumerate(pairwise(offset)):
        inside = [k for k in range(a, b) if squares[k] <= limit]
        assert near[i] == min(inside, key=lambda k: squares[k], default=-1)
        assert high[i] == max(inside, key=lambda k: values[k], default=-1)


PLACES = st.lists(st.tuples(st.floats(-2, 6), st.floats(-2, 6), st.floats(-3, 3)), max_size=20)


@given(PLACES)
def test_bilinear_shares(points):
    """Every point gives its weight to the bins around it by their overlap with a unit square; others are counted."""
    y, x, weights = np.array(points, float).reshape(-1, 3).T.copy()
    out = np.zeros((5, 4))
    outside, unweighted = spread(y, x, np.append(weights, 0), out)
    inside = (y >= 0) & (y <= 4) & (x >= 0) & (x <= 3)
    rows, columns = np.indices(out.shape)
    expected = np.zeros_like(out)
    for a, b, w in zip(y[inside], x[inside], weights[inside], strict=True):
        expected += w * np.clip(1 - abs(rows - a), 0, 1) * np.clip(1 - abs(columns - b), 0, 1)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert (outside, unweighted) == ((~inside).sum(), 0)


@given(PLACES)
def test_nearest_bins(points):
    """Every point gives its weight to the bin that it lies in, or is counted as outside."""
    y, x, weights = np.array(points, float).reshape(-1, 3).T.copy()
    out = np.zeros((5, 4))
    outside, _ = place(y, x, np.append(weights, 0), out)
    inside = (y + 0.5 >= 0) & (y + 0.5 < 5) & (x + 0.5 >= 0) & (x + 0.5 < 4)
    expected = np.zeros_like(out)
    np.add.at(expected, (np.floor(y[inside] + 0.5).astype(int), np.floor(x[inside] + 0.5).astype(int)), weights[inside])
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert outside == (~inside).sum()


@pytest.mark.parametrize("scatter", [spread, place])
def test_what_is_not_finite(scatter):
    """Places that are not numbers are outside, weights that are none are counted apart, one weight serves all."""
    out = np.zeros((3, 3))
    y = np.array([1.0, np.nan, 2.0, 0.49999999999999994])
    assert scatter(y, np.ones(4), np.array([2.0, 1.0, np.inf, 0.0]), out) == (1, 1)
    assert out.sum() == out[1, 1] == 2
    assert scatter(y, np.ones(4), np.ones(1), out) == (1, 0)
    assert out.sum() == 5


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), max_size=9, unique=True))
def test_pairs_of_one_centre(points):
    """Points and their inversions have their centre; a list with fewer than two pairs has none."""
    points = np.array([p for p in points if (-p[0], -p[1]) not in points], float).reshape(-1, 2)
    both = np.concatenate([points, -points]) + np.array([1.25, -0.5])
    offset = np.array([0, len(both), len(both)])
    centres, errors, pairs = peak_lists.inversion_centres(offset, both[:, 0].copy(), both[:, 1].copy(), 9.0, 0.01)
    assert np.isnan(centres[1]).all()
    assert pairs[1] == 0
    if len(points) < 2:
        return
    assert pairs[0] == len(points)  # no finite set has two centres
    np.testing.assert_allclose(centres[0], (1.25, -0.5), atol=1e-12)
    assert errors[0] == pytest.approx(0, abs=1e-6)
