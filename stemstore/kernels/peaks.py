"""Compiled loops on correlation maps: maxima and their vertices, and the filters in their order.

The maxima rule and the order of the filters follow py4DSTEM (Savitzky et al., Microsc. Microanal. 27 (2021) 712).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.background import noise_limit
from stemstore.kernels.disks.surroundings import Rules, surroundings

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

NEARLY = 0.9  # of the threshold; between pixels a maximum may exceed what it does not on them
STEPS = ("maxima", "min_visible", "min_abs", "min_rel", "min_spacing", "max_peaks")
"""What the numbers that `candidates` counts are left after."""


@numba.njit(nogil=True, cache=True)
def candidates(
    score: Array, binned: Array, bins: Array, share: Array, rules: Rules
) -> tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray], Int64Array]:
    """Find the maxima of a detection map and filter them.

    Parameters
    ----------
    score, binned : shape (padded rows, padded columns), float32
        Detection map and binned frame minus its level; what is beyond the binned frame is not looked at.
    bins, share : shape (binned rows, binned columns), float32
        Visible share of every bin, and of a disk centred there.
    rules
        See `Rules`.

    Returns
    -------
    positions : shape (n, 2), px of the detector
        Vertices of parabolas; brightest first.
    values : shape (n,), counts per pixel
        The map there.
    around
        Local background above the level of the frame and its gradient, see `surroundings`.
    tally : shape (len(STEPS),)
        Number of maxima left after every filter.
    """
    tally = np.zeros(6, np.int64)
    found = local_maxima(score, share.shape, 1, NEARLY * _limit(rules, 0.0))
    positions, values = vertices(score, found)
    _to_detector(positions, rules.binning)
    inside = np.empty(len(found), np.bool_)
    for n in range(len(found)):
        row = positions[n, 0] if rules.binning > 1 else found[n, 0] * 1.0
        column = positions[n, 1] if rules.binning > 1 else found[n, 1] * 1.0
        inside[n] = _within(row, rules.rows, rules.border) and _within(column, rules.columns, rules.border)
    found, positions, values = found[inside], positions[inside], values[inside]
    tally[0] = len(found)
    shown = np.array([np.float64(share[found[n, 0], found[n, 1]]) for n in range(len(found))], np.float64)
    keep = shown >= rules.min_visible
    found, positions, values, shown = found[keep], positions[keep], values[keep], np.sqrt(shown[keep])
    if rules.scaled:
        values /= shown
    order = np.argsort(-values, kind="mergesort")
    found, positions, values, shown = found[order], positions[order], values[order], shown[order]
    tally[1] = len(found)
    excess, slopes = surroundings(binned, bins, found, rules)
    keep = np.ones(len(found), np.bool_)
    for n in range(len(found)):
        keep[n] = values[n] * shown[n] > _limit(rules, excess[n])
    tally[2] = keep.sum()
    rest = np.flatnonzero(keep)
    if len(rest) > rules.relative_to:
        rest = rest[values[rest] >= rules.min_rel * values[rest[rules.relative_to]]]
    tally[3] = len(rest)
    rest = rest[space_out(positions[rest], rules.spacing)]
    tally[4] = len(rest)
    rest = rest[: rules.max_peaks]
    tally[5] = len(rest)
    return positions[rest], values[rest], (excess[rest], slopes[rest]), tally


@numba.njit(nogil=True, cache=True)
def _limit(rules: Rules, excess: float) -> float:
    """Smallest significant value where the background is `excess` counts per pixel above the level."""
    if not rules.local:
        return rules.least
    variance = max(rules.variance, rules.quantum * (rules.level + excess)) * rules.square
    return max(rules.least, noise_limit(variance, rules.quantum * rules.peak, rules.significance))


@numba.njit(nogil=True, cache=True)
def _within(place: float, extent: int, border: int) -> bool:
    """Whether the pixel nearest to a place is at least `border` px away from both ends."""
    return border - 0.5 <= place < extent - border - 0.5


@numba.njit(nogil=True, cache=True)
def _to_detector(positions: FloatArray, binning: int) -> None:
    """Turn places among bins into places among pixels."""
    for n in range(len(positions)):
        for axis in range(2):
            positions[n, axis] = positions[n, axis] * binning + (binning - 1) / 2


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
def local_maxima(score: Array, shape: tuple[int, int], border: int, threshold: float) -> Int64Array:
    """Find maxima above `threshold` in the corner of `shape` of a map, `border` (at least 1) px away from its edges.

    A maximum is larger than its four neighbours that come earlier column by column, and not smaller than its four later
    ones, so that a plateau yields one point. Returns rows and columns, shape (n, 2), row by row.
    """
    found = np.empty((256, 2), np.int64)
    marks = np.empty(max(0, shape[1] - 2 * border), np.bool_)
    n = 0
    for i in range(border, shape[0] - border):
        first, stop = border - 1, shape[1] - border + 1
        before, here, after = score[i - 1, first:stop], score[i, first:stop], score[i + 1, first:stop]
        if _mark_maxima(before, here, after, threshold, marks) == 0:
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
def _vertex(before: float, here: float, after: float) -> float:
    curvature = 4 * here - 2 * before - 2 * after
    if curvature <= 0:
        return 0.0
    return min(1.0, max(-1.0, (after - before) / curvature))


@numba.njit(nogil=True, cache=True)
def vertices(score: Array, positions: Int64Array) -> tuple[FloatArray, FloatArray]:
    """Refine maxima by the vertex of a three-point parabola along each axis, by at most 1 px; also the value there."""
    places, values = np.empty((len(positions), 2)), np.empty(len(positions))
    for n in range(len(positions)):
        i, j = positions[n, 0], positions[n, 1]
        places[n, 0], places[n, 1], values[n] = i, j, score[i, j]
        if 0 < i < score.shape[0] - 1:
            step = _vertex(score[i - 1, j], score[i, j], score[i + 1, j])
            places[n, 0] += step
            values[n] += step * (np.float64(score[i + 1, j]) - score[i - 1, j]) / 4
        if 0 < j < score.shape[1] - 1:
            step = _vertex(score[i, j - 1], score[i, j], score[i, j + 1])
            places[n, 1] += step
            values[n] += step * (np.float64(score[i, j + 1]) - score[i, j - 1]) / 4
    return places, values
