"""Compiled loops that lay weighted points out on a grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray


@numba.njit(nogil=True, cache=True)
def spread(y: Array, x: Array, weights: Array, out: FloatArray) -> tuple[int, int]:
    """Share every point among the four bins around it, bilinearly; a point on a bin goes there alone.

    Parameters
    ----------
    y, x : shape (points,), unit bin
        Row and column; centres of bins are integers. May be NaN.
    weights : shape (points,), or (1,) for all
        May be NaN.
    out : shape (rows, columns), float64
        Is added to.

    Returns
    -------
    n_outside, n_unweighted
        Points that are left out: those with a bin that is not there, and others whose weight is not finite.
    """
    rows, columns = out.shape
    single = len(weights) == 1
    outside = unweighted = 0
    for k in range(len(y)):
        if not (0 <= y[k] <= rows - 1 and 0 <= x[k] <= columns - 1):
            outside += 1
            continue
        weight = weights[0 if single else k]
        if not math.isfinite(weight):
            unweighted += 1
            continue
        i, j = int(y[k]), int(x[k])
        below, right = y[k] - i, x[k] - j
        out[i, j] += weight * (1 - below) * (1 - right)
        if right > 0:
            out[i, j + 1] += weight * (1 - below) * right
        if below > 0:
            out[i + 1, j] += weight * below * (1 - right)
            if right > 0:
                out[i + 1, j + 1] += weight * below * right
    return outside, unweighted


@numba.njit(nogil=True, cache=True)
def place(y: Array, x: Array, weights: Array, out: FloatArray) -> tuple[int, int]:
    """Give every point to the bin that it lies in, [i - 1/2, i + 1/2); otherwise as `spread`."""
    rows, columns = out.shape
    single = len(weights) == 1
    outside = unweighted = 0
    for k in range(len(y)):
        if not (0 <= y[k] + 0.5 < rows and 0 <= x[k] + 0.5 < columns):
            outside += 1
            continue
        weight = weights[0 if single else k]
        if not math.isfinite(weight):
            unweighted += 1
            continue
        out[int(y[k] + 0.5), int(x[k] + 0.5)] += weight
    return outside, unweighted
