"""Background level and noise of a frame.

The level is the mean of the tiles that are left when bright ones are put aside, because a median says nothing about
counted frames, where most pixels are zero. The noise threshold holds down to a few electrons per frame: a Gaussian one
would take two electrons that happen to meet for a disk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array


class Background(NamedTuple):
    """Level and noise of the area without disks.

    Attributes
    ----------
    level : counts per pixel
        Mean of the tiles that remain when bright ones (three standard deviations) are put aside until none is left; the
        offset included.
    variance : counts squared per pixel
        Mean variance inside these tiles or, where this is less, inside those below the level, at least that of one
        electron per frame.
    quantum : counts
        Size of one electron: variance over level, at most the largest value of these tiles; 1 for counted frames, 0
        for float frames without any noise.
    """

    level: float
    variance: float
    quantum: float


@numba.njit(nogil=True, cache=True)
def noise_limit(variance: float, jump: float, significance: float) -> float:
    """Give one of `noise_limits`."""
    if variance <= 0 or jump <= 0:
        return 0.0
    exponent = significance**2 / 2
    v = variance / jump**2
    n = exponent / 3 + math.sqrt((exponent / 3) ** 2 + 2 * exponent * v)
    for _ in range(30):  # convex: comes down from above, in about five steps
        slope = math.log1p(n / v)
        step = ((v + n) * slope - n - exponent) / slope
        n -= step
        if abs(step) < 1e-6 * n:
            break
    return n * jump


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
    out = np.zeros(len(variance))
    for i in range(len(variance)):
        out[i] = noise_limit(variance[i], jump, significance)
    return out


@numba.njit(nogil=True, cache=True)
def tile_sums(image: Array, shares: Array, side: int) -> tuple[Int64Array, FloatArray, FloatArray, FloatArray]:
    """Sum up every square of `side`, the last ones larger: number, sum, sum of squares, maximum.

    Pixels take part whose share is 1, those with a flag. Columns of a band of rows are summed first, without branches,
    so that vector instructions are used.
    """
    rows, columns = shares.shape
    down, across = max(1, rows // side), max(1, columns // side)
    count = np.zeros(down * across, np.int64)
    total, square = np.zeros(down * across), np.zeros(down * across)
    largest = np.full(down * across, -np.inf)
    one, sums, squares, tops = np.zeros(columns), np.zeros(columns), np.zeros(columns), np.zeros(columns)
    for band in range(down):
        one[:], sums[:], squares[:], tops[:] = 0.0, 0.0, 0.0, -np.inf
        for row in range(band * side, (band + 1) * side if band < down - 1 else rows):
            _add_row(image[row], shares[row], one, sums, squares, tops)
        for j in range(across):
            i = band * across + j
            for column in range(j * side, (j + 1) * side if j < across - 1 else columns):
                count[i] += np.int64(one[column])
                total[i] += sums[column]
                square[i] += squares[column]
                largest[i] = max(largest[i], tops[column])
    return count, total, square, largest


@numba.njit(nogil=True, cache=True)
def _add_row(
    values: Array, shares: Array, one: FloatArray, sums: FloatArray, squares: FloatArray, tops: FloatArray
) -> None:
    for j in range(len(shares)):
        good = shares[j] == 1
        value = np.float64(values[j]) if good else 0.0
        top = value if good else -np.inf
        one[j] += 1.0 if good else 0.0
        sums[j] += value
        squares[j] += value * value
        tops[j] = max(tops[j], top)


@numba.njit(nogil=True, cache=True)
def _quiet_variance(means: FloatArray, spreads: FloatArray, count: Int64Array, level: float, offset: float) -> float:
    """Variance at the level, from the tiles below it alone: in those above there may be edges of disks.

    Tiles of few counts have little variance as well; the ratio to their mean makes up for it.
    """
    n, s, v = 0, 0.0, 0.0
    for i in range(len(means)):
        if means[i] <= level:
            n += count[i]
            s += (means[i] + offset) * count[i]
            v += spreads[i]
    return v / s * (level + offset) if s > 0 else np.inf


@numba.njit(nogil=True, cache=True)
def clip_tiles(
    count: Int64Array, total: FloatArray, square: FloatArray, largest: FloatArray, offset: float
) -> tuple[float, float, float]:
    """Level, variance and maximum of the tiles left after putting bright ones aside.

    Where `offset` was taken off, level and maximum lack it.
    """
    means, spreads = np.full(len(count), np.nan), np.zeros(len(count))  # no mean: never at most the bound
    for i in range(len(count)):
        if count[i] > 0:
            means[i] = total[i] / count[i]
            spreads[i] = max(0.0, square[i] - total[i] * means[i]) * count[i] / max(1, count[i] - 1)
    bound = np.inf
    level, variance, top = 0.0, 0.0, 0.0
    kept = -1
    for _ in range(50):  # every round removes a tile or ends
        n, s, v, top, tiles = 0, 0.0, 0.0, -np.inf, 0
        for i in range(len(count)):
            if means[i] <= bound:
                n += count[i]
                s += total[i]
                v += spreads[i]
                top = max(top, largest[i])
                tiles += 1
        if tiles == 0:
            return level, variance, 0.0
        level, variance = s / n, v / n
        if tiles == kept:
            variance = min(variance, _quiet_variance(means, spreads, count, level, offset))
            break
        kept = tiles
        area = n / tiles
        one = variance / (level + offset) if level + offset > 0 else 0.0
        bound = level + 3 * math.sqrt(variance / area) + min(one, top + offset) / area
    return level, variance, top


@numba.njit(nogil=True, cache=True)
def measure_background(
    binned: Array, bins: Array, size: int, tile: int, offset: float = 0.0, counted: bool = False
) -> Background:
    """Estimate level and noise of the area without disks.

    Parameters
    ----------
    binned : shape (rows or more, columns or more), counts above `offset` per bin
        From `stemstore.kernels.disks.frame.shrink`.
    bins : shape (rows, columns), float32
        Visible share of every bin; those below 1 are left out.
    size : px
        Side of a bin.
    tile : px
        Side of the squares whose means are compared, about the radius of a disk.
    offset : counts per pixel
        What was taken off the frame.
    counted
        Whether the counts are whole electrons.
    """
    side = max(2, round(tile / size))
    beyond = offset * size**2
    count, total, square, largest = tile_sums(binned, bins, side)
    level, variance, top = clip_tiles(count, total, square, largest, beyond)
    level, top = level + beyond, top + beyond
    quantum = 0.0
    if variance > 0:
        quantum = min(variance / level, top) if level > 0 else max(top, 0.0)
    if counted:
        quantum = max(quantum, 1.0)  # counted frames cannot hold less than one electron a count
    level, variance = level / size**2, variance / size**2
    return Background(level, max(variance, quantum**2 / (bins.size * size**2)), quantum)
