"""Counts of single disks above their surroundings, on the pixels that are visible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np

from stemstore.kernels.disks.surroundings import RING

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray

TOUCHING = 1e-9  # px; a pixel on a circle is outside
FINEST = 0.02  # px; no position is claimed to be better known, because disks are not exactly alike


class Sums(NamedTuple):
    """What `disk_sums` measures; one entry per disk.

    Attributes
    ----------
    counts
        Within the radius above the background, for the whole disk where a part is hidden.
    top
        Share of the largest pixel in them.
    background
        Counts per pixel of the surroundings, without what was taken off the image.
    ring
        Number of pixels this was measured on.
    visible
        Visible share of the disk.
    """

    counts: FloatArray
    top: FloatArray
    background: FloatArray
    ring: FloatArray
    visible: FloatArray


@numba.njit(nogil=True, cache=True)
def disk_sums(
    image: Array, good: BoolArray, margin: int, centres: FloatArray, radius: float, edge_width: float
) -> Sums:
    """Sum every disk above its surrounding ring, from radius + 2 to radius + 5 px.

    Parameters
    ----------
    image, good : frame + 2 margins
        Counts, and which pixels count.
    margin, radius, edge_width : px
        Pixels of the ring that belong to other disks are left out; where less than a quarter of it remains, its 20 %
        quantile is the background.
    centres : shape (n, 2), px
        Row and column on the frame.
    """
    inner, outer = radius + RING[0], radius + RING[1]
    foreign = radius + edge_width / 2 + 0.5  # half a pixel for the position
    values = np.empty((2 * math.ceil(outer) + 3) ** 2)
    out = np.zeros((5, len(centres)))
    for n in range(len(centres)):
        y, x = centres[n, 0] + margin, centres[n, 1] + margin
        whole, area, total, top = _annulus(image, good, (y, x), (0.0, radius))
        _, m, below, _ = _annulus(image, good, (y, x), (inner, outer))
        below /= max(1, m)
        others = _neighbours(centres, n, outer + foreign) + margin
        if len(others):
            m, below = _between(image, good, (y, x, inner, outer), others, foreign, values)
        net = (total - below * area) * whole / max(1, area)
        out[0, n], out[1, n] = net, (top - below) / net if net > 0 else np.inf
        out[2, n], out[3, n], out[4, n] = below, max(1, m), area / max(1, whole)
    return Sums(out[0], out[1], out[2], out[3], out[4])


@numba.njit(nogil=True, cache=True)
def _pixels(low: float, high: float, extent: int) -> tuple[Any, Any]:
    """Give the first pixel and the one after the last from `low` to `high` on an axis.

    Unsigned: compiled code need not look whether an index counts from the end.
    """
    first = min(extent, max(0, math.ceil(low)))
    return np.uintp(first), np.uintp(max(first, min(extent, math.floor(high) + 1)))


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def _annulus(
    image: Array, good: BoolArray, centre: tuple[float, float], radii: tuple[float, float]
) -> tuple[Any, int, float, float]:
    """Count all and the good pixels from one circle to before another; give sum and maximum of the good ones."""
    y, x = centre
    inner, outer = max(0.0, radii[0] - TOUCHING), radii[1] - TOUCHING
    whole, count, total, top = np.uintp(0), 0, 0.0, -np.inf
    first, stop = _pixels(y - outer, y + outer, image.shape[0])
    for i in range(first, stop):
        d = np.float64(i) - y
        across = math.sqrt(max(0.0, outer * outer - d * d))
        left, right = _pixels(x - across, x + across, image.shape[1])
        hole = inner * inner - d * d
        begin, end = right, right
        if hole > 0:
            begin, end = _pixels(x - math.sqrt(hole), x + math.sqrt(hole), image.shape[1])
        for a, b in ((left, begin), (end, right)):
            whole += b - a
            for j in range(a, b):
                value = np.float64(image[i, j]) if good[i, j] else 0.0
                high = value if good[i, j] else -np.inf
                count += good[i, j]
                total += value
                top = max(top, high)
    return np.int64(whole), count, total, top


@numba.njit(nogil=True, cache=True)
def _between(
    image: Array,
    good: BoolArray,
    circles: tuple[float, float, float, float],
    others: FloatArray,
    distance: float,
    values: FloatArray,
) -> tuple[int, float]:
    """Give number and mean of the pixels between two circles that are `distance` from other disks.

    Where less than a quarter of them is, the 20 % quantile of all stands for the mean.
    """
    y, x, inner, outer = circles
    m, count = 0, 0
    for clear in (True, False):
        m, count = 0, 0
        for i in range(max(0, math.ceil(y - outer)), min(image.shape[0], math.floor(y + outer) + 1)):
            for j in range(max(0, math.ceil(x - outer)), min(image.shape[1], math.floor(x + outer) + 1)):
                d = (i - y) ** 2 + (j - x) ** 2
                if not good[i, j] or d < inner * inner or d > outer * outer:
                    continue
                count += 1
                if not clear or _is_clear(others, i, j, distance):
                    values[m] = image[i, j]
                    m += 1
        if clear and m > 0 and 4 * m >= count:
            return m, values[:m].mean()
    return max(1, m), np.quantile(values[:m], 0.2) if m > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def _is_clear(others: FloatArray, row: int, column: int, distance: float) -> bool:
    for k in range(len(others)):
        if (row - others[k, 0]) ** 2 + (column - others[k, 1]) ** 2 < distance * distance:
            return False
    return True


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
def precision(sums: Sums, offset: float, quantum: float, radius: float, edge_width: float) -> FloatArray:
    """Give the standard deviation per axis to expect of the position of every disk, in px.

    Parameters
    ----------
    sums
        From `disk_sums`.
    offset : counts per pixel
        What was taken off the image.
    quantum : counts
        Of one electron; 0 where there is no noise.
    radius, edge_width : px
        Of the disk.

    Notes
    -----
    Closed form of the Cramér-Rao bound for a disk of N electrons, A per pixel, on b per pixel:
    ``sqrt(radius w / (N ln(1 + A / b)))``, w half a pixel more than the edge width because pixels widen it. The
    background is taken for no less than one electron in the ring it was measured on; a hidden part of the disk takes
    its share of the information. Between 0.02 px and the radius.
    """
    out = np.full(len(sums.counts), FINEST)
    if quantum <= 0:
        return out
    for n in range(len(out)):
        electrons = sums.counts[n] / quantum * sums.visible[n]
        if electrons <= 0:
            out[n] = radius
            continue
        height = sums.counts[n] / quantum / (math.pi * radius * radius)
        below = max((offset + sums.background[n]) / quantum, 1 / sums.ring[n])
        sigma = math.sqrt(radius * (edge_width + 0.5) / (electrons * math.log1p(height / below)))
        out[n] = min(radius, max(FINEST, sigma))
    return out


@numba.njit(nogil=True, cache=True)
def write_rows(centres: FloatArray, values: FloatArray, sums: Sums, sigma: FloatArray, share: float, out: Array) -> int:
    """Write the rows of disks whose largest pixel holds at most `share` of their counts; NaN behind them."""
    n = 0
    for i in range(len(centres)):
        if sums.top[i] <= share:
            out[n, 0], out[n, 1], out[n, 2] = centres[i, 0], centres[i, 1], sums.counts[i]
            out[n, 3], out[n, 4] = values[i], sigma[i]
            n += 1
    out[n:] = np.nan
    return n
