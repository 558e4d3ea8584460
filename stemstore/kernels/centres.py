"""Loops that find the beam in dense frames: a window on the brightest disk, or the area above a threshold.

Coarse search and window of the disk follow py4DSTEM (Savitzky et al., Microsc. Microanal. 27 (2021) 712), with sums of
bins in place of a Gaussian filter. Arguments are checked by `stemstore.kernels.origins`. Sums are taken in float64,
which is exact for counts.
"""

from __future__ import annotations

import math

import numba
import numpy as np

WINDOW = 1.2  # radii within which the centre of mass is taken: py4DSTEM's value
RING = 1.6  # radii up to which the surroundings of the window are compared with it
ROUNDS = 20  # of the moving window; a background of half the counts in the window needs about ten
SETTLED = 1e-4  # px
MOST_BACKGROUND = 0.95  # share of the counts in the window at which the error is no longer extrapolated

_FLOAT = {"reassoc", "nsz", "contract"}
# sums may be reordered, which lets them vectorise; NaN is taken out before


@numba.njit(nogil=True, cache=True)
def _clean(frame, good, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Write the frame with zeros in pixels that are bad or not finite."""
    for k in range(frame.size):
        value = frame[k]
        if (good.size and not good[k]) or not np.isfinite(value):
            value = 0
        out[k] = value


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _bin(frame, columns, size, bins, line):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sum squares of `size` px; the last ones may be smaller."""
    rows = frame.size // columns
    for i in range(bins.shape[0]):
        line[:] = 0
        for row in range(i * size, min(rows, (i + 1) * size)):
            part = frame[row * columns : (row + 1) * columns]
            for k in range(part.size):
                line[k] += part[k]
        for j in range(bins.shape[1]):
            total = 0.0
            part_of_line = line[j * size : min(columns, (j + 1) * size)]
            for k in range(part_of_line.size):
                total += part_of_line[k]
            bins[i, j] = total


@numba.njit(nogil=True, cache=True)
def _brightest(bins, size):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Give the middle of the square of 4 x 4 bins, about a disk across, that holds most."""
    down, across = bins.shape
    best, row, column = -np.inf, np.nan, np.nan
    four = np.zeros((4, across + 5))  # rows i - 2 … i + 1 of bins, with an empty margin
    column_sums = np.zeros(across + 5)
    for i in range(down + 1):
        newest = four[(i + 1) % 4]
        newest[:] = 0
        if i + 1 < down:
            newest[2 : across + 2] = bins[i + 1]
        if i == 0:
            four[0, 2 : across + 2] = bins[0]
        column_sums[:] = four[0] + four[1] + four[2] + four[3]
        for j in range(across + 1):
            total = column_sums[j] + column_sums[j + 1] + column_sums[j + 2] + column_sums[j + 3]
            if total > best:
                best, row, column = total, i * size - 0.5, j * size - 0.5
    return row, column


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _within(frame, columns, row, column, radius):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sum I, dy I, dx I, (dy^2 + dx^2) I and 1 over the pixels within `radius` of a place, relative to it."""
    rows = frame.size // columns
    n, sum_y, sum_x, square, area = 0.0, 0.0, 0.0, 0.0, 0
    for y in range(max(0, math.ceil(row - radius)), min(rows - 1, math.floor(row + radius)) + 1):
        dy = y - row
        half = math.sqrt(max(0.0, radius * radius - dy * dy))
        first = max(0, math.ceil(column - half))
        part = frame[y * columns + first : y * columns + min(columns - 1, math.floor(column + half)) + 1]
        in_row, moment, second = 0.0, 0.0, 0.0
        dx = first - column
        for k in range(part.size):
            value = np.float64(part[k])
            x = dx + k
            in_row += value
            moment += value * x
            second += value * x * x
        n += in_row
        sum_y += in_row * dy
        sum_x += moment
        square += second + in_row * dy * dy
        area += part.size
    return n, sum_y, sum_x, square, area


@numba.njit(nogil=True, cache=True)
def disk_centres(pixels, local, out, place, masks, shape, radius, bins):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201, PLR0917 (typed by numba, called once)
    """Measure frames by a window that follows the brightest disk.

    `masks` are the good pixels, and those in which the disk is looked for: flat, or empty for all. `shape` is rows,
    columns and size of a bin in px; `bins` is scratch, one number per bin.
    """
    _, columns, size = shape
    good, close = masks
    line, clean = np.zeros(columns), np.empty(pixels.shape[1], pixels.dtype)
    for i in range(local.size):
        frame = pixels[local[i]]
        _clean(frame, close if close.size else good, clean)
        _bin(clean, columns, size, bins, line)
        row, column = _brightest(bins, size)
        if close.size:
            _clean(frame, good, clean)
        for _ in range(ROUNDS):
            n, sum_y, sum_x, square, area = _within(clean, columns, row, column, WINDOW * radius)
            if not n > 0:
                break
            row += sum_y / n
            column += sum_x / n
            if math.hypot(sum_y, sum_x) < SETTLED * n:
                break
        n, sum_y, sum_x, square, area = _within(clean, columns, row, column, WINDOW * radius)
        if not n > 0:
            continue
        wide, _, _, _, wide_area = _within(clean, columns, row, column, RING * radius)
        around = (wide - n) / (wide_area - area) if wide_area > area else 0.0
        background = min(max(0.0, around * area / n), 1.0)
        on_detector = min(1.0, area / (math.pi * (WINDOW * radius) ** 2))
        out[place[i], 0] = row
        out[place[i], 1] = column
        out[place[i], 2] = (1.0 - background) * on_detector
        out[place[i], 3] = math.sqrt(max(0.0, square / 2)) / n / (1 - min(background, MOST_BACKGROUND))


@numba.njit(nogil=True, cache=True)
def _smooth(frame, smooth, half, line):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sum over squares of 2 half + 1 px around every pixel by running sums; returns the largest."""
    rows, columns = smooth.shape
    line[:] = 0
    best = 0.0
    for row in range(-half, rows):
        ahead, behind = row + half, row - half - 1
        if ahead < rows:
            part = frame[ahead * columns : (ahead + 1) * columns]
            for k in range(part.size):
                line[k] += part[k]
        if behind >= 0:
            part = frame[behind * columns : (behind + 1) * columns]
            for k in range(part.size):
                line[k] -= part[k]
        if row < 0:
            continue
        total = 0.0
        for column in range(-half, columns):
            if column + half < columns:
                total += line[column + half]
            if column - half - 1 >= 0:
                total -= line[column - half - 1]
            if column >= 0:
                smooth[row, column] = total
                best = max(best, total)
    return best


@numba.njit(nogil=True, cache=True)
def threshold_centres(pixels, local, out, place, good, fraction, half, scratch):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201, PLR0917 (typed by numba, called once)
    """Measure frames by the pixels whose surroundings of 2 half + 1 px are above a fraction of the brightest ones.

    `scratch` is an image and one row, float64. `good` is flat, or empty for all.
    """
    smooth, line = scratch
    rows, columns = smooth.shape
    clean = np.empty(pixels.shape[1], pixels.dtype)
    for i in range(local.size):
        _clean(pixels[local[i]], good, clean)
        limit = fraction * _smooth(clean, smooth, half, line)
        if not limit > 0:
            continue
        n, sum_y, sum_x, square, area, everything = 0.0, 0.0, 0.0, 0.0, 0, 0.0
        for row in range(rows):
            for column in range(columns):
                value = np.float64(clean[row * columns + column])
                everything += value
                if smooth[row, column] >= limit:
                    n += value
                    sum_y += value * row
                    sum_x += value * column
                    square += value * (row * row + column * column)
                    area += 1
        if not n > 0:
            continue
        y, x = sum_y / n, sum_x / n
        rest = rows * columns - area
        outside = max(0.0, everything - n) / rest if rest else 0.0
        out[place[i], 0] = y
        out[place[i], 1] = x
        out[place[i], 2] = max(0.0, 1.0 - outside * area / n)
        out[place[i], 3] = math.sqrt(max(0.0, square / n - y * y - x * x) / 2 / n)
