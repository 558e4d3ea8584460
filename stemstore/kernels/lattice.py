"""Compiled loops that put the disks of every position on a lattice and fit its vectors by weighted least squares.

A position is fitted by itself: low orders are indexed first, their fit then indexes all others, so that a lattice may
differ from the basis by several per cent and degrees and its high orders are numbered rightly all the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

OFF, USED, OUTLIER, TWIN = 0, 1, 2, 3
"""What became of a disk: off the lattice, part of the fit, too far from the fit, or not the nearest to its point."""
LOW_ORDER = 2  # |h|, |k| up to which a lattice that differs from the basis by 10 % is still indexed rightly
FLAT = 1e-3  # determinant of the scaled normal matrix; above it the condition number is below 7000
ROUGH = 1.1774  # median of a length whose two components have a standard deviation of 1
TINY = 1e-7  # of |g1|: residuals below come from rounding positions to single precision
ASTRAY = 0.25  # distance from whole numbers beyond which a disk is off the lattice


class FitSettings(NamedTuple):
    """What a fit accepts.

    Attributes
    ----------
    reach
        Distance of a disk from its lattice point at most, unit of the vectors.
    limit
        Largest order |h|, |k|.
    cut
        Residual beyond which a disk is an outlier, in robust standard deviations per axis.
    min_peaks
        Disks that a fit needs at least.
    min_share
        Share of a position's disks that has to lie on the lattice.
    metric : shape (2, 2)
        Turns distances into such as have the same noise along both components; residuals and outliers are measured so.
    """

    reach: float
    limit: int
    cut: float
    min_peaks: int
    min_share: float
    metric: FloatArray


class Marks(NamedTuple):
    """What is known of each disk; P disks.

    Attributes
    ----------
    h, k : shape (P,), int16
        Nearest lattice point.
    state : shape (P,), uint8
        ``OFF``, ``USED``, ``OUTLIER`` or ``TWIN``.
    """

    h: Array
    k: Array
    state: Array


class LatticeFits(NamedTuple):
    """Lattices of N positions with P disks.

    Attributes
    ----------
    vectors : shape (N, 3, 2)
        x0, g1, g2 as (row, column); NaN where there is no fit.
    variances : shape (N, 4)
        Of x0, of g1, of g2, and the covariance of g1 and g2, each per component and in the metric; NaN where there is
        no fit.
    residual : shape (N,)
        Weighted RMS distance per component of the disks from the fit, in the metric; NaN where there is no fit.
    counts : shape (N, 3)
        Disks in the fit, outliers, and disks with |m - round(m)| > 1/4.
    fitted : shape (N,)
    marks
        Lattice point and state of every disk.
    """

    vectors: FloatArray
    variances: FloatArray
    residual: FloatArray
    counts: Int64Array
    fitted: BoolArray
    marks: Marks


def fit_lattices(
    q: FloatArray, weights: FloatArray, offset: Int64Array, wanted: BoolArray, basis: FloatArray, settings: FitSettings
) -> LatticeFits:
    """Index the disks of every position and fit x0, g1 and g2.

    Parameters
    ----------
    q : shape (P, 2)
        Vectors (row, column) from the direct beam.
    weights : shape (P,)
        Inverse variances up to a factor; disks without a positive weight take no part.
    offset : shape (N + 1,)
        Disks of position i are ``offset[i] : offset[i + 1]``.
    wanted : shape (N,)
        Positions to fit.
    basis : shape (2, 2)
        g1 and g2 as columns.
    settings

    Notes
    -----
    Memory: the results, 80 bytes per position and 5 per disk. Outliers follow Rousseeuw and Leroy, "Robust Regression
    and Outlier Detection" (1987), chapter 5: the scale is the median residual with the factor 1 + 5 / (n - 3) for few
    disks.
    """
    n, n_disks = len(offset) - 1, len(q)
    fits = LatticeFits(
        np.full((n, 3, 2), np.nan),
        np.full((n, 4), np.nan),
        np.full(n, np.nan),
        np.zeros((n, 3), np.int64),
        np.zeros(n, np.bool_),
        Marks(np.zeros(n_disks, np.int16), np.zeros(n_disks, np.int16), np.zeros(n_disks, np.uint8)),
    )
    _fit_all(q, weights, offset, wanted, basis, settings, fits)
    return fits


@numba.njit(nogil=True, cache=True)
def _fit_all(
    q: FloatArray,
    weights: FloatArray,
    offset: Int64Array,
    wanted: BoolArray,
    basis: FloatArray,
    settings: FitSettings,
    fits: LatticeFits,
) -> None:
    """Fit position by position."""
    side = 2 * settings.limit + 1
    nearest = np.full((side, side), -1, np.int64)
    longest = 0
    for i in range(len(wanted)):
        longest = max(longest, offset[i + 1] - offset[i])
    distance, inverse, lattice = np.empty(longest), np.empty(4), np.empty((3, 2))
    for i in range(len(wanted)):
        if not wanted[i]:
            continue
        own = slice(offset[i], offset[i + 1])
        marks = Marks(fits.marks.h[own], fits.marks.k[own], fits.marks.state[own])
        vectors, weight = q[own], weights[own]
        n, dropped = _fit_one(vectors, weight, basis, settings, (nearest, distance, inverse), lattice, marks)
        fits.counts[i, 0], fits.counts[i, 1] = max(n, 0), dropped
        fits.counts[i, 2] = _astray(vectors, lattice)
        if n < settings.min_peaks or n < settings.min_share * len(vectors):
            continue
        fits.fitted[i] = True
        fits.vectors[i] = lattice
        total, squares = _misfit(vectors, weight, settings.metric, lattice, marks)
        fits.residual[i] = math.sqrt(squares / (2 * total))
        fits.variances[i] = inverse * squares / (2 * n - 6)


@numba.njit(nogil=True, cache=True)
def _fit_one(
    q: FloatArray,
    weight: FloatArray,
    basis: FloatArray,
    settings: FitSettings,
    scratch: tuple[Int64Array, FloatArray, FloatArray],
    lattice: FloatArray,
    marks: Marks,
) -> tuple[int, int]:
    """Fit one position; gives the disks in the fit, 0 without one, and the outliers."""
    nearest, distance, inverse = scratch
    lattice[0], lattice[1], lattice[2] = 0.0, basis[:, 0], basis[:, 1]
    n = 0
    for limit in (min(LOW_ORDER, settings.limit), settings.limit):
        _index(q, lattice, settings.reach, limit, nearest, distance, marks)
        n = _solve(q, weight, settings.min_peaks, lattice, inverse, marks)
    if n == 0:
        return 0, 0
    floor = TINY * math.hypot(basis[0, 0], basis[1, 0])
    dropped = _drop_outliers(q, weight, n, (settings.cut, floor, settings.metric), lattice, distance, marks)
    if dropped:
        n = _solve(q, weight, settings.min_peaks, lattice, inverse, marks)
    return n, dropped


@numba.njit(nogil=True, cache=True)
def _whole(q: FloatArray, lattice: FloatArray, p: int) -> tuple[float, float]:
    """Give the indices of a disk as real numbers."""
    y, x = q[p, 0] - lattice[0, 0], q[p, 1] - lattice[0, 1]
    area = lattice[1, 0] * lattice[2, 1] - lattice[2, 0] * lattice[1, 1]
    return (lattice[2, 1] * y - lattice[2, 0] * x) / area, (lattice[1, 0] * x - lattice[1, 1] * y) / area


@numba.njit(nogil=True, cache=True)
def _rest(q: FloatArray, lattice: FloatArray, p: int, marks: Marks) -> tuple[float, float]:
    """Give the distance of a disk from its lattice point, (row, column)."""
    h, k = marks.h[p], marks.k[p]
    y = q[p, 0] - lattice[0, 0] - h * lattice[1, 0] - k * lattice[2, 0]
    x = q[p, 1] - lattice[0, 1] - h * lattice[1, 1] - k * lattice[2, 1]
    return y, x


@numba.njit(nogil=True, cache=True)
def _distance(metric: FloatArray, rest: tuple[float, float]) -> float:
    """Length of a distance in the metric."""
    y, x = rest
    return math.hypot(metric[0, 0] * y + metric[0, 1] * x, metric[1, 0] * y + metric[1, 1] * x)


@numba.njit(nogil=True, cache=True)
def _index(
    q: FloatArray,
    lattice: FloatArray,
    reach: float,
    limit: int,
    nearest: Int64Array,
    distance: FloatArray,
    marks: Marks,
) -> None:
    """Give every disk of a position the nearest lattice point; of several disks at one the nearest is taken."""
    h, k, state = marks.h, marks.k, marks.state
    middle = len(nearest) // 2
    for p in range(len(q)):
        a, b = _whole(q, lattice, p)
        state[p] = OFF
        if not math.isfinite(a + b):
            continue
        # beyond any order: the nearest that the columns can hold
        h[p], k[p] = round(min(max(a, -32767.0), 32767.0)), round(min(max(b, -32767.0), 32767.0))
        if abs(h[p]) > limit or abs(k[p]) > limit:
            continue
        distance[p] = math.hypot(*_rest(q, lattice, p, marks))
        if distance[p] > reach:
            continue
        rival = nearest[h[p] + middle, k[p] + middle]
        if rival >= 0 and distance[rival] <= distance[p]:
            state[p] = TWIN
            continue
        if rival >= 0:
            state[rival] = TWIN
        state[p] = USED
        nearest[h[p] + middle, k[p] + middle] = p
    for p in range(len(q)):
        if state[p] == USED:
            nearest[h[p] + middle, k[p] + middle] = -1


@numba.njit(nogil=True, cache=True)
def _solve(
    q: FloatArray,
    weight: FloatArray,
    fewest: int,
    lattice: FloatArray,
    inverse: FloatArray,
    marks: Marks,
) -> int:
    """Improve a lattice by least squares; gives the disks used, 0 (and an untouched lattice) where they do not do."""
    sums = np.zeros((3, 3))
    rest = np.zeros((3, 2))
    n = 0
    for p in range(len(q)):
        w = weight[p]
        if marks.state[p] != USED or not w > 0:
            continue
        n += 1
        y, x = _rest(q, lattice, p, marks)
        row = (1.0, float(marks.h[p]), float(marks.k[p]))
        for i in range(3):
            for j in range(i, 3):
                sums[i, j] += w * row[i] * row[j]
            rest[i, 0] += w * row[i] * y
            rest[i, 1] += w * row[i] * x
    if n < fewest or not (sums[1, 1] > 0 and sums[2, 2] > 0):
        return 0
    scale = 1.0 / math.sqrt(sums[0, 0]), 1.0 / math.sqrt(sums[1, 1]), 1.0 / math.sqrt(sums[2, 2])
    a, b, c = sums[0, 1] * scale[0] * scale[1], sums[0, 2] * scale[0] * scale[2], sums[1, 2] * scale[1] * scale[2]
    volume = 1 + 2 * a * b * c - a * a - b * b - c * c
    if volume < FLAT:
        return 0
    cofactors = (
        (1 - c * c, b * c - a, a * c - b),
        (b * c - a, 1 - b * b, a * b - c),
        (a * c - b, a * b - c, 1 - a * a),
    )
    for i in range(3):
        for j in range(3):
            factor = cofactors[i][j] * scale[i] * scale[j] / volume
            lattice[i, 0] += factor * rest[j, 0]
            lattice[i, 1] += factor * rest[j, 1]
        inverse[i] = cofactors[i][i] * scale[i] * scale[i] / volume
    inverse[3] = cofactors[1][2] * scale[1] * scale[2] / volume
    return n


@numba.njit(nogil=True, cache=True)
def _misfit(
    q: FloatArray, weight: FloatArray, metric: FloatArray, lattice: FloatArray, marks: Marks
) -> tuple[float, float]:
    """Sum the weights, and the weighted squares of the distances from the fit."""
    total, squares = 0.0, 0.0
    for p in range(len(q)):
        if marks.state[p] == USED and weight[p] > 0:
            total += weight[p]
            squares += weight[p] * _distance(metric, _rest(q, lattice, p, marks)) ** 2
    return total, squares


@numba.njit(nogil=True, cache=True)
def _drop_outliers(
    q: FloatArray,
    weight: FloatArray,
    n: int,
    limits: tuple[float, float, FloatArray],
    lattice: FloatArray,
    score: FloatArray,
    marks: Marks,
) -> int:
    """Mark disks whose distance from the fit is too large for their weight; gives their number."""
    cut, floor, metric = limits
    m = 0
    for p in range(len(q)):
        if marks.state[p] == USED and weight[p] > 0:
            score[m] = math.sqrt(weight[p]) * _distance(metric, _rest(q, lattice, p, marks))
            m += 1
    spread = np.median(score[:m]) / ROUGH * (1 + 5 / (n - 3)) if n > 3 else np.inf  # noqa: PLR2004 (x0, g1, g2)
    dropped = 0
    for p in range(len(q)):
        if marks.state[p] == USED and weight[p] > 0:
            far = _distance(metric, _rest(q, lattice, p, marks))
            if far > floor and math.sqrt(weight[p]) * far > cut * spread:
                marks.state[p] = OUTLIER
                dropped += 1
    return dropped


@numba.njit(nogil=True, cache=True)
def _astray(q: FloatArray, lattice: FloatArray) -> int:
    """Count the disks that lie between the lattice points."""
    n = 0
    for p in range(len(q)):
        a, b = _whole(q, lattice, p)
        n += max(abs(a - round(a)), abs(b - round(b))) > ASTRAY
    return n


@numba.njit(nogil=True, cache=True)
def nearest_neighbours(q: FloatArray, offset: Int64Array, positions: Int64Array) -> FloatArray:
    """Give the distance of every disk from its nearest neighbour at the same position, for some positions.

    Parameters
    ----------
    q : shape (P, 2)
    offset : shape (N + 1,)
    positions : shape (n,)
        Numbers of positions with two disks or more.

    Returns
    -------
    distances
        In the order of the positions and of their disks.
    """
    total = 0
    for i in positions:
        total += offset[i + 1] - offset[i]
    found = np.full(total, np.inf)
    first = 0
    for i in positions:
        begin, n = offset[i], offset[i + 1] - offset[i]
        for a in range(n):
            for b in range(a):
                apart = math.hypot(q[begin + a, 0] - q[begin + b, 0], q[begin + a, 1] - q[begin + b, 1])
                found[first + a] = min(found[first + a], apart)
                found[first + b] = min(found[first + b], apart)
        first += n
    return found
