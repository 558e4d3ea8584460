"""Background level and noise of a frame, and the frame made ready for transforms.

The level is the mean of the tiles that are left when bright ones are put aside, because a median says nothing about
counted frames, where most pixels are zero. The noise threshold holds down to a few electrons per frame: a Gaussian one
would take two electrons that happen to meet for a disk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array


def measure_background(frame: Array, bad: BoolArray, tile: int) -> tuple[float, float, float]:
    """Estimate level and noise of the area without disks.

    Parameters
    ----------
    frame : shape (ky, kx), counts
        Native byte order, C-contiguous.
    bad : shape (ky, kx)
        Pixels to leave out.
    tile : px
        Side of the squares whose means are compared, about the radius of a disk.

    Returns
    -------
    level : counts per pixel
        Mean of the tiles that remain when bright ones (three standard deviations) are put aside until none is left.
    variance : counts squared per pixel
        Mean variance inside these tiles, at least that of one electron per frame.
    quantum : counts
        Size of one electron: variance over level, at most the largest pixel of these tiles; 1 for counted frames, 0
        for float frames without any noise.
    """
    count, total, square, largest = tile_sums(frame, bad, tile)
    level, variance, top = clip_tiles(count, total, square, largest)
    quantum = 0.0
    if variance > 0:
        quantum = min(variance / level, top) if level > 0 else max(top, 0.0)
    if frame.dtype.kind in "ui":
        quantum = max(quantum, 1.0)  # integer frames cannot hold less than one electron a count
    return level, max(variance, quantum**2 / frame.size), quantum


def loadable(frame: Array) -> Array:
    """Bring a frame to a dtype and layout that the compiled loops take."""
    if frame.dtype.kind == "b" or (frame.dtype.kind == "f" and frame.dtype.itemsize == 2):  # noqa: PLR2004 (half)
        frame = frame.astype(np.float32)
    return np.ascontiguousarray(frame, dtype=frame.dtype.newbyteorder("="))


@numba.njit(nogil=True, cache=True)
def noise_limits(variance: FloatArray, jump: float, significance: float) -> FloatArray:
    """Levels that sparse Poisson noise hardly ever exceeds.

    Parameters
    ----------
    variance : shape (n,)
        Variance of sums of independent electrons.
    jump
        Largest contribution of one electron to a sum.
    significance
        Gaussian-equivalent level in standard deviations.

    Returns
    -------
    limits : shape (n,)
        In units of the sums. Tend to ``significance * sqrt(variance)`` for many electrons and to a few `jump` for few.

    Notes
    -----
    Solves Bennett's inequality ``v h(n / v) = significance^2 / 2``, ``h(u) = (1 + u) ln(1 + u) - u``, ``v = variance /
    jump^2`` (Bennett, J. Am. Stat. Assoc. 57 (1962) 33) by Newton's method from Bernstein's bound, which lies above.
    """
    exponent = significance**2 / 2
    out = np.zeros(len(variance))
    for i in range(len(variance)):
        if variance[i] <= 0 or jump <= 0:
            continue
        v = variance[i] / jump**2
        n = exponent / 3 + math.sqrt((exponent / 3) ** 2 + 2 * exponent * v)
        for _ in range(30):  # convex: comes down from above, in about five steps
            slope = math.log1p(n / v)
            step = ((v + n) * slope - n - exponent) / slope
            n -= step
            if abs(step) < 1e-6 * n:
                break
        out[i] = n * jump
    return out


@numba.njit(nogil=True, cache=True)
def tile_sums(frame: Array, bad: BoolArray, tile: int) -> tuple[Int64Array, FloatArray, FloatArray, FloatArray]:
    """Sum up the good pixels of every square of `tile` px, the last ones larger: number, sum, of squares, maximum."""
    down, across = max(1, frame.shape[0] // tile), max(1, frame.shape[1] // tile)
    count = np.zeros(down * across, np.int64)
    total, square = np.zeros(down * across), np.zeros(down * across)
    largest = np.full(down * across, -np.inf)
    for row in range(frame.shape[0]):
        first = min(row // tile, down - 1) * across
        for j in range(across):
            stop = (j + 1) * tile if j < across - 1 else frame.shape[1]
            s, q, m, n = 0.0, 0.0, -np.inf, 0
            for column in range(j * tile, stop):
                value = np.float64(frame[row, column])
                if not bad[row, column] and np.isfinite(value):
                    s += value
                    q += value * value
                    m = max(m, value)
                    n += 1
            count[first + j] += n
            total[first + j] += s
            square[first + j] += q
            largest[first + j] = max(largest[first + j], m)
    return count, total, square, largest


@numba.njit(nogil=True, cache=True)
def clip_tiles(
    count: Int64Array, total: FloatArray, square: FloatArray, largest: FloatArray
) -> tuple[float, float, float]:
    """Level, variance and maximum of the tiles left after putting bright ones aside."""
    bound = np.inf
    level, variance, top = 0.0, 0.0, 0.0
    kept = -1
    for _ in range(50):  # every round removes a tile or ends
        n, s, v, top, tiles = 0, 0.0, 0.0, -np.inf, 0
        for i in range(len(count)):
            if count[i] > 0 and total[i] <= bound * count[i]:
                n += count[i]
                s += total[i]
                v += max(0.0, square[i] - total[i] * total[i] / count[i]) * count[i] / max(1, count[i] - 1)
                top = max(top, largest[i])
                tiles += 1
        if tiles == 0:
            return level, variance, 0.0
        level, variance = s / n, v / n
        if tiles == kept:
            break
        kept = tiles
        area = n / tiles
        one = variance / level if level > 0 else 0.0
        bound = level + 3 * math.sqrt(variance / area) + min(one, top) / area
    return level, variance, top


@numba.njit(nogil=True, cache=True)
def load(frame: Array, bad: BoolArray, level: float, image: Array) -> int:
    """Write frame minus level as float32 into the corner of `image`; bad pixels become 0 and are counted."""
    n_bad = 0
    for row in range(frame.shape[0]):
        for column in range(frame.shape[1]):
            value = float(frame[row, column]) - level  # before rounding: counts may exceed 2^24
            if bad[row, column] or not np.isfinite(value):
                value = 0.0
                n_bad += 1
            image[row, column] = np.float32(value)
    return n_bad


@numba.njit(nogil=True, cache=True)
def fill(frame: Array, bad: BoolArray, image: Array) -> None:
    """Give every bad pixel the mean of the good ones in the smallest square around it (up to 7 x 7) that has any."""
    rows, columns = frame.shape
    for row in range(rows):
        for column in range(columns):
            if not bad[row, column] and np.isfinite(frame[row, column]):
                continue
            for half in range(1, 4):
                total, n = 0.0, 0
                for i in range(max(0, row - half), min(rows, row + half + 1)):
                    for j in range(max(0, column - half), min(columns, column + half + 1)):
                        if not bad[i, j] and np.isfinite(frame[i, j]):
                            total += image[i, j]
                            n += 1
                if n > 0:
                    image[row, column] = np.float32(total / n)
                    break
