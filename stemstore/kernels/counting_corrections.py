"""Frames corrected for counting, and the histograms from which thresholds are found.

A corrected value is ``(raw - dark) x row factor x gain`` in floating point, never truncated. The row factor brings the
level of every half row of a frame to the pedestal of the scan; it is a factor and no difference because a pedestal is
left in the frames, as in OpenChemistry/stempy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

RowDark = Literal["none", "mean", "median"]

_STEPS = 64  # levels tried for the median of a half row before its pixels are sorted


def correct(
    frames: Array, out: Array, dark: FloatArray, gain: FloatArray, *, row_dark: RowDark, pedestal: float
) -> Int64Array:
    """Correct frames.

    Parameters
    ----------
    frames : shape (n, rows, columns), ADU
        Any real dtype, C-contiguous.
    out : shape (n, rows, columns), float32 or float64
        Filled with ``(frames - dark) * factor * gain``.
    dark, gain : shape (rows, columns), of the dtype of `out`
        NaN in one of them makes a pixel NaN, which means absent.
    row_dark
        What the level of a half row is: its mean, its median, or 1 everywhere (``"none"``).
    pedestal : unit ADU
        Level to which half rows are brought.

    Returns
    -------
    levelless : shape (n,), int64
        Half rows of every frame without a positive level; they keep their values.

    Notes
    -----
    Halves are columns ``[0, columns // 2)`` and the rest. Mean and median are those of the uncorrected half row.
    """
    if row_dark == "none":
        _correct(frames, out, dark, gain)
        return np.zeros(len(frames), np.int64)
    return np.asarray(_correct_rows(frames, out, dark, gain, row_dark == "median", pedestal))


@numba.njit(nogil=True, cache=True)
def _correct(frames, out, dark, gain):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for f in range(frames.shape[0]):
        for r in range(frames.shape[1]):
            line, to, d, g = frames[f, r], out[f, r], dark[r], gain[r]
            for c in range(line.size):
                to[c] = (to.dtype.type(line[c]) - d[c]) * g[c]


@numba.njit(nogil=True, cache=True)
def _correct_rows(frames, out, dark, gain, median, pedestal):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    levelless = np.zeros(frames.shape[0], np.int64)
    middle = frames.shape[2] // 2
    for f in range(frames.shape[0]):
        for r in range(frames.shape[1]):
            for first, stop in ((0, middle), (middle, frames.shape[2])):
                if first == stop:
                    continue
                line, to = frames[f, r, first:stop], out[f, r, first:stop]
                level = _median(line, pedestal) if median else _sum(line) / line.size
                factor = 1.0
                if level > 0:  # NaN is not
                    factor = pedestal / level
                else:
                    levelless[f] += 1
                d, g, scale = dark[r, first:stop], gain[r, first:stop], to.dtype.type(factor)
                for c in range(line.size):
                    to[c] = (to.dtype.type(line[c]) - d[c]) * scale * g[c]
    return levelless


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def _sum(line):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sum in 64 bits, exact for integers, in any order so that it vectorises."""
    total = 0.0
    for c in range(line.size):
        total += line[c]
    return total


@numba.njit(nogil=True, cache=True)
def _median(line, guess):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Give the median: of integers by counting from a guess upwards or downwards, which is a compare per step."""
    if line.dtype.type(0.5) > 0:  # real numbers; decided when it is compiled
        return np.float64(np.median(line))
    lower, upper = (line.size - 1) // 2, line.size // 2
    level, steps = int(guess), 0
    while _rank(line, level) <= lower and steps < _STEPS:
        level, steps = level + 1, steps + 1
    while _rank(line, level - 1) > lower and steps < _STEPS:
        level, steps = level - 1, steps + 1
    other = level
    while _rank(line, other) <= upper and steps < _STEPS:
        other, steps = other + 1, steps + 1
    if steps == _STEPS:
        return np.float64(np.median(line))
    return 0.5 * (level + other)


@numba.njit(nogil=True, cache=True)
def _rank(line, level):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Count the pixels at or below a level."""
    limit = line.dtype.type(level)
    if np.int64(limit) != level:  # beyond the values that there are
        return np.int32(line.size if level > 0 else 0)
    count = np.int32(0)
    for c in range(line.size):
        count += np.int32(line[c] <= limit)
    return count


def value_histogram(frames: Array, grid: tuple[Int64Array, Int64Array], scale: tuple[float, float], out: Array) -> None:
    """Add the number of pixels of each value to the histogram of their region.

    Parameters
    ----------
    frames : shape (n, rows, columns)
        NaN pixels are left out.
    grid
        Borders of the column spans (n_spans + 1,), and the number of the region of every row and span.
    scale
        Value of the middle of the first bin, and width of a bin; values beyond the ends go to the last bins.
    out : shape (n_regions, n_bins), int64
        Added to.
    """
    origin, width = scale
    if frames.dtype.kind in "iu" and width == 1 and origin == int(origin):
        _whole_histogram(frames, grid[0], grid[1], int(origin), out)
    else:
        _value_histogram(frames, grid[0], grid[1], origin, 1 / width, out)


@numba.njit(nogil=True, cache=True)
def _whole_histogram(frames, bounds, region, origin, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    last = out.shape[1] - 1
    for f in range(frames.shape[0]):
        for r in range(frames.shape[1]):
            line = frames[f, r]
            for s in range(bounds.size - 1):
                table = out[region[r, s]]
                for c in range(bounds[s], bounds[s + 1]):
                    table[min(max(np.int64(line[c]) - origin, 0), last)] += 1


@numba.njit(nogil=True, cache=True)
def _value_histogram(frames, bounds, region, origin, per_bin, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    last = out.shape[1] - 1
    for f in range(frames.shape[0]):
        for r in range(frames.shape[1]):
            for s in range(bounds.size - 1):
                table = out[region[r, s]]
                for c in range(bounds[s], bounds[s + 1]):
                    place = (frames[f, r, c] - origin) * per_bin + 0.5
                    if not np.isnan(place):
                        table[int(min(max(place, 0.0), last))] += 1


def row_histogram(frames: Array, start: tuple[int, int], seen: BoolArray, bands: Int64Array, out: Array) -> BoolArray:
    """Add the values of one row per band and frame to histograms; row after row, so that all have their turn.

    Parameters
    ----------
    frames : shape (n, rows, columns), integers
    start
        Number of the first frame, and value of the first bin. Frame i shows row ``i modulo rows of the band``.
    seen : shape (n,)
        Frames that are added.
    bands : shape (m, 4)
        First and end row, first and end column.
    out : shape (m, n_bins), int64
        Added to; values outside the bins are left out.

    Returns
    -------
    constant : shape (n,)
        Whether all pixels that were looked at have the same value.
    """
    return np.asarray(_row_histogram(frames, start[0], start[1], seen, bands, out))


@numba.njit(nogil=True, cache=True)
def _row_histogram(frames, first, low, seen, bands, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    constant = np.ones(frames.shape[0], np.bool_)
    for f in range(frames.shape[0]):
        level = frames[f, bands[0, 0] + (first + f) % (bands[0, 1] - bands[0, 0]), bands[0, 2]]
        for b in range(bands.shape[0]):
            row = bands[b, 0] + (first + f) % (bands[b, 1] - bands[b, 0])
            line, table = frames[f, row, bands[b, 2] : bands[b, 3]], out[b]
            differs = False
            for c in range(line.size):
                differs |= line[c] != level
            constant[f] &= not differs
            if not seen[f]:
                continue
            for c in range(line.size):
                place = np.int64(line[c]) - low
                if 0 <= place < table.size:
                    table[place] += 1
    return constant
