"""Compiled loops on correlation maps: maxima, spacing, climbing, sub-pixel positions, intensities.

The maxima rule follows py4DSTEM (Savitzky et al., Microsc. Microanal. 27 (2021) 712).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

RING = (2.0, 5.0)  # background ring from radius + 2 to radius + 5 px
CLIMBS = 4  # squares a candidate may climb: strong neighbours push maxima of the detection map away


@numba.njit(nogil=True, cache=True)
def _mark_maxima(before: Array, here: Array, after: Array, threshold: float, marks: Array) -> int:
    """Mark the maxima of a row between its two neighbours; without branches, so that vector instructions are used."""
    width = len(marks)
    left, middle, right = here[:width], here[1 : width + 1], here[2 : width + 2]
    before_left, before_middle, before_right = before[:width], before[1 : width + 1], before[2 : width + 2]
    after_left, after_middle, after_right = after[:width], after[1 : width + 1], after[2 : width + 2]
    n = 0
    for k in range(width):
        s = middle[k]
        earlier = (s > left[k]) & (s > before_left[k]) & (s > after_left[k]) & (s > before_middle[k])
        later = (s >= right[k]) & (s >= before_right[k]) & (s >= after_right[k]) & (s >= after_middle[k])
        marks[k] = earlier & later & (s > threshold)
        n += marks[k]
    return n


@numba.njit(nogil=True, cache=True)
def local_maxima(score: Array, border: int, threshold: float) -> Int64Array:
    """Find maxima above `threshold`, `border` (at least 1) px away from the edge.

    A maximum is larger than its four neighbours that come earlier column by column, and not smaller than its four later
    ones, so that a plateau yields one point. Returns rows and columns, shape (n, 2), row by row.
    """
    found = np.empty((256, 2), np.int64)
    marks = np.empty(max(0, score.shape[1] - 2 * border), np.bool_)
    n = 0
    for i in range(border, score.shape[0] - border):
        cut = slice(border - 1, score.shape[1] - border + 1)
        if _mark_maxima(score[i - 1, cut], score[i, cut], score[i + 1, cut], threshold, marks) == 0:
            continue
        for k in np.flatnonzero(marks):
            if n == len(found):
                found = np.concatenate((found, np.empty_like(found)))
            found[n, 0], found[n, 1] = i, border + k
            n += 1
    return found[:n].copy()


@numba.njit(nogil=True, cache=True)
def space_out(positions: FloatArray, distance: float) -> BoolArray:
    """Walk down a list of positions, shape (n, 2), and keep those at least `distance` from every kept one before."""
    keep = np.ones(len(positions), np.bool_)
    for i in range(len(positions)):
        for j in range(i):
            if keep[j]:
                dy, dx = positions[i, 0] - positions[j, 0], positions[i, 1] - positions[j, 1]
                if dy * dy + dx * dx < distance * distance:
                    keep[i] = False
                    break
    return keep


@numba.njit(nogil=True, cache=True)
def climb(score: Array, positions: Int64Array, half: int) -> Int64Array:
    """Move every position uphill on `score`, by squares of half-width `half`, to the top; at most four squares."""
    out = positions.copy()
    for n in range(len(positions)):
        best = -np.inf
        for _ in range(CLIMBS):
            y, x, moved = out[n, 0], out[n, 1], False
            for i in range(max(0, y - half), min(score.shape[0], y + half + 1)):
                for j in range(max(0, x - half), min(score.shape[1], x + half + 1)):
                    if score[i, j] > best:
                        best = score[i, j]
                        out[n, 0], out[n, 1] = i, j
                        moved = True
            if not moved or (out[n, 0] == y and out[n, 1] == x):
                break
    return out


@numba.njit(nogil=True, cache=True)
def _vertex(before: float, here: float, after: float) -> float:
    curvature = 4 * here - 2 * before - 2 * after
    if curvature <= 0:
        return 0.0
    return min(1.0, max(-1.0, (after - before) / curvature))


@numba.njit(nogil=True, cache=True)
def parabola(score: Array, positions: Int64Array) -> FloatArray:
    """Refine positions by the vertex of a three-point parabola along each axis, moved by at most 1 px."""
    out = np.empty((len(positions), 2))
    for n in range(len(positions)):
        i, j = positions[n, 0], positions[n, 1]
        out[n, 0], out[n, 1] = i, j
        if 0 < i < score.shape[0] - 1:
            out[n, 0] += _vertex(score[i - 1, j], score[i, j], score[i + 1, j])
        if 0 < j < score.shape[1] - 1:
            out[n, 1] += _vertex(score[i, j - 1], score[i, j], score[i, j + 1])
    return out


@numba.njit(nogil=True, cache=True)
def ring_medians(image: Array, positions: Int64Array, radius: float) -> FloatArray:
    """Take the median between radius + 2 and radius + 5 px around every position; 0 where the ring is off the image."""
    inner, outer = (radius + RING[0]) ** 2, (radius + RING[1]) ** 2
    reach = math.ceil(radius + RING[1])
    values = np.empty((2 * reach + 1) ** 2)
    out = np.zeros(len(positions))
    for n in range(len(positions)):
        m = 0
        for i in range(max(0, positions[n, 0] - reach), min(image.shape[0], positions[n, 0] + reach + 1)):
            for j in range(max(0, positions[n, 1] - reach), min(image.shape[1], positions[n, 1] + reach + 1)):
                d = (i - positions[n, 0]) ** 2 + (j - positions[n, 1]) ** 2
                if inner <= d < outer:
                    values[m] = image[i, j]
                    m += 1
        if m > 0:
            out[n] = np.median(values[:m])
    return out


@numba.njit(nogil=True, cache=True)
def _neighbours(centres: FloatArray, own: int, distance: float) -> FloatArray:
    """Give the centres closer than `distance` to centre number `own`, without itself."""
    out = np.empty_like(centres)
    m = 0
    for k in range(len(centres)):
        dy, dx = centres[k, 0] - centres[own, 0], centres[k, 1] - centres[own, 1]
        if k != own and dy * dy + dx * dx < distance * distance:
            out[m] = centres[k]
            m += 1
    return out[:m]


@numba.njit(nogil=True, cache=True)
def disk_sums(image: Array, centres: FloatArray, radius: float, edge_width: float) -> tuple[FloatArray, FloatArray]:
    """Sum every disk above its surrounding ring; also the share of its largest pixel in that sum."""
    inner, outer, reach = radius + RING[0], radius + RING[1], math.ceil(radius + RING[1])
    foreign = radius + edge_width / 2 + 0.5  # half a pixel for the position
    ring = np.empty((2 * reach + 3) ** 2)
    total, share = np.zeros(len(centres)), np.zeros(len(centres))
    for n in range(len(centres)):
        y, x = centres[n, 0], centres[n, 1]
        others = _neighbours(centres, n, outer + foreign)
        area, m, all_ring, top = 0, 0, 0, -np.inf
        for i in range(max(0, int(y) - reach), min(image.shape[0], int(y) + reach + 2)):
            for j in range(max(0, int(x) - reach), min(image.shape[1], int(x) + reach + 2)):
                d = (i - y) ** 2 + (j - x) ** 2
                if d < radius * radius:
                    total[n] += image[i, j]
                    top = max(top, image[i, j])
                    area += 1
                elif inner * inner <= d < outer * outer:
                    all_ring += 1
                    clear = True
                    for k in range(len(others)):
                        clear &= (i - others[k, 0]) ** 2 + (j - others[k, 1]) ** 2 >= foreign * foreign
                    if clear:
                        ring[m] = image[i, j]
                        m += 1
        below = ring[:m].mean() if m > 0 else 0.0
        if 4 * m < all_ring:
            below = _ring_quantile(image, y, x, inner, outer)
        total[n] -= below * area
        share[n] = (top - below) / total[n] if total[n] > 0 else np.inf
    return total, share


@numba.njit(nogil=True, cache=True)
def _ring_quantile(image: Array, y: float, x: float, inner: float, outer: float) -> float:
    """20 % quantile of a ring that other disks cover."""
    reach = math.ceil(outer)
    values = np.empty((2 * reach + 3) ** 2)
    m = 0
    for i in range(max(0, int(y) - reach), min(image.shape[0], int(y) + reach + 2)):
        for j in range(max(0, int(x) - reach), min(image.shape[1], int(x) + reach + 2)):
            if inner <= math.sqrt((i - y) ** 2 + (j - x) ** 2) < outer:
                values[m] = image[i, j]
                m += 1
    return np.quantile(values[:m], 0.2) if m > 0 else 0.0
