"""Compiled loops over ragged lists: the peaks of position i are ``offset[i] : offset[i + 1]``, in order of rank.

Filters only ever clear `keep`, a flag for every peak, so that they can follow one another; what an earlier one dropped
is not there for the later ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

NOTHING = -1
"""Number of the peak that was chosen where none is left."""

FEWEST = 2
"""Pairs that have to agree on a centre of inversion: one pair agrees with itself."""

ROUNDS = 3  # in which the mean of the middles around a centre becomes the centre


@numba.njit(nogil=True, cache=True)
def drop_faint(offset: Int64Array, values: Array, rank: int, share: float, keep: BoolArray) -> None:
    """Drop the peaks below a share of the peak of some rank; lists without a peak of that rank stay whole.

    Parameters
    ----------
    offset : shape (positions + 1,)
    values : shape (peaks,)
    rank
        Among the peaks that are kept so far, 0 the first.
    share
        Of its value, that others need at least.
    keep : shape (peaks,)
        Cleared where a peak is dropped.
    """
    for i in range(len(offset) - 1):
        seen, least = 0, -np.inf
        for k in range(offset[i], offset[i + 1]):
            if keep[k]:
                if seen == rank:
                    least = share * values[k]
                    break
                seen += 1
        for k in range(offset[i], offset[i + 1]):
            keep[k] = keep[k] and values[k] >= least


@numba.njit(nogil=True, cache=True)
def drop_crowded(offset: Int64Array, qy: Array, qx: Array, distance: float, keep: BoolArray) -> None:
    """Drop the peaks closer than `distance` to one of a lower rank that is kept."""
    limit = distance * distance
    for i in range(len(offset) - 1):
        for k in range(offset[i], offset[i + 1]):
            for m in range(offset[i], k):
                if keep[k] and keep[m]:
                    dy, dx = np.float64(qy[k]) - qy[m], np.float64(qx[k]) - qx[m]
                    keep[k] = dy * dy + dx * dx >= limit


@numba.njit(nogil=True, cache=True)
def drop_behind(offset: Int64Array, most: int, keep: BoolArray) -> None:
    """Drop the peaks behind the first `most` that are kept."""
    for i in range(len(offset) - 1):
        seen = 0
        for k in range(offset[i], offset[i + 1]):
            if keep[k]:
                seen += 1
                keep[k] = seen <= most


@numba.njit(nogil=True, cache=True)
def nearest(offset: Int64Array, squares: FloatArray, limit: float) -> Int64Array:
    """Choose the peak with the smallest squared distance up to `limit` of every position, or `NOTHING`."""
    chosen = np.full(len(offset) - 1, NOTHING)
    for i in range(len(chosen)):
        best = np.inf
        for k in range(offset[i], offset[i + 1]):
            if squares[k] <= limit and squares[k] < best:
                best = squares[k]
                chosen[i] = k
    return chosen


@numba.njit(nogil=True, cache=True)
def highest(offset: Int64Array, values: Array, squares: FloatArray, limit: float) -> Int64Array:
    """Choose the peak with the largest value among those up to `limit` of every position, or `NOTHING`."""
    chosen = np.full(len(offset) - 1, NOTHING)
    for i in range(len(chosen)):
        best = -np.inf
        for k in range(offset[i], offset[i + 1]):
            if squares[k] <= limit and values[k] > best:
                best = values[k]
                chosen[i] = k
    return chosen


@numba.njit(nogil=True, cache=True)
def _midpoints(y: FloatArray, x: FloatArray, limit: float) -> FloatArray:
    """Give the middles of all pairs of points whose square distance from zero is at most `limit`, shape (n, 2)."""
    found = np.empty((len(y) * (len(y) - 1) // 2, 2))
    n = 0
    for i in range(len(y)):
        for j in range(i):
            v, u = (y[i] + y[j]) / 2, (x[i] + x[j]) / 2
            if v * v + u * u <= limit:
                found[n, 0], found[n, 1] = v, u
                n += 1
    return found[:n]


@numba.njit(nogil=True, cache=True)
def _crowd(points: FloatArray, place: FloatArray, limit: float) -> tuple[int, float, float, float]:
    """Give the number of points around a place, their mean, and their variance per axis."""
    n, y, x, squares = 0, 0.0, 0.0, 0.0
    for k in range(len(points)):
        dy, dx = points[k, 0] - place[0], points[k, 1] - place[1]
        if dy * dy + dx * dx <= limit:
            n += 1
            y, x, squares = y + dy, x + dx, squares + dy * dy + dx * dx
    if n == 0:
        return 0, place[0], place[1], np.nan
    y, x = y / n, x / n
    spread = (squares - n * (y * y + x * x)) / (2 * (n - 1)) if n > 1 else np.nan
    return n, place[0] + y, place[1] + x, max(spread, 0.0)


@numba.njit(nogil=True, cache=True)
def inversion_centres(
    offset: Int64Array, y: FloatArray, x: FloatArray, limit: float, tolerance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Find the place about which most peaks of a position have a partner (Friedel pairs).

    Parameters
    ----------
    offset : shape (positions + 1,)
    y, x : shape (peaks,)
        From the guess of their position.
    limit
        Squared distance from the guess up to which centres are looked for.
    tolerance
        Squared distance between middles of pairs that belong together.

    Returns
    -------
    centres : shape (positions, 2)
        NaN where fewer than `FEWEST` pairs agree.
    errors : shape (positions,)
        Standard error per axis, from the scatter of the middles.
    pairs : shape (positions,)
        How many agree.
    """
    n_positions = len(offset) - 1
    centres, errors = np.full((n_positions, 2), np.nan), np.full(n_positions, np.nan)
    pairs = np.zeros(n_positions)
    for i in range(n_positions):
        mine = slice(offset[i], offset[i + 1])
        middles = _midpoints(y[mine], x[mine], limit)
        best, near = 0, np.inf
        place = np.zeros(2)
        for k in range(len(middles)):
            n = _crowd(middles, middles[k], tolerance)[0]
            away = middles[k, 0] ** 2 + middles[k, 1] ** 2
            if n > best or (n == best and away < near):
                best, near = n, away
                place[:] = middles[k]
        if best < FEWEST:
            continue
        spread = np.nan
        for _ in range(ROUNDS):
            best, place[0], place[1], spread = _crowd(middles, place, tolerance)
        if best >= FEWEST:
            centres[i], pairs[i] = place, best
            errors[i] = np.sqrt(spread / best)
    return centres, errors, pairs
