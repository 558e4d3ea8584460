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
