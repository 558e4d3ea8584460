"""Counts of single disks above their surroundings, on the pixels that are visible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from stemstore.kernels.peaks import RING

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray

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
    size = 2 * math.ceil(outer) + 3
    ring, whole = np.empty(size * size), np.empty(size * size)
    out = np.zeros((5, len(centres)))
    for n in range(len(centres)):
        y, x = centres[n, 0] + margin, centres[n, 1] + margin
        others = _neighbours(centres, n, outer + foreign) + margin
        total, top, area, hidden, m, all_ring = 0.0, -np.inf, 0, 0, 0, 0
        for i in range(max(0, math.ceil(y - outer)), min(image.shape[0], math.floor(y + outer) + 1)):
            across = math.sqrt(max(0.0, outer * outer - (i - y) ** 2))
            for j in range(max(0, math.ceil(x - across)), min(image.shape[1], math.floor(x + across) + 1)):
                d = (i - y) ** 2 + (j - x) ** 2
                if d < radius * radius:
                    if good[i, j]:
                        total += image[i, j]
                        top = max(top, image[i, j])
                        area += 1
                    else:
                        hidden += 1
                elif d >= inner * inner and good[i, j]:
                    whole[all_ring] = image[i, j]
                    all_ring += 1
                    if _clear(others, i, j, foreign):
                        ring[m] = image[i, j]
                        m += 1
        below = ring[:m].mean() if m > 0 else 0.0
        if 4 * m < all_ring:
            below = np.quantile(whole[:all_ring], 0.2)
        net = (total - below * area) * (area + hidden) / max(1, area)
        out[0, n], out[1, n] = net, (top - below) / net if net > 0 else np.inf
        out[2, n], out[3, n], out[4, n] = below, max(1, m), area / max(1, area + hidden)
    return Sums(out[0], out[1], out[2], out[3], out[4])


@numba.njit(nogil=True, cache=True)
def _clear(others: FloatArray, row: int, column: int, distance: float) -> bool:
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
    """Standard deviation per axis to expect of the position of every disk, in px.

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
