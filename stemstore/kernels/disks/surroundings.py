"""What a maximum of the detection map must be, and the background around it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array

MAD = 1.4826  # standard deviation over median absolute deviation, for a normal distribution
RING = (2.0, 5.0)  # background ring from radius + 2 to radius + 5 px


class Rules(NamedTuple):
    """What a maximum of the detection map must be; lengths in px of the detector, values in counts per pixel.

    Attributes
    ----------
    rows, columns
        Extent of the frame.
    binning, radius, border, spacing
        As in `stemstore.kernels.disks.options.DiskOptions`.
    min_visible, min_rel, relative_to, max_peaks, significance
        As there.
    least
        Absolute threshold.
    scaled
        Whether the map was multiplied by the root of the visible share.
    local
        Whether noise sets a higher one where the local background is higher.
    level, variance, quantum
        From `stemstore.kernels.background.measure_background`.
    square, peak
        Sum of squares and maximum of the detection kernel: they turn noise per pixel into noise of the map.
    """

    rows: int
    columns: int
    binning: int
    radius: float
    border: int
    spacing: float
    min_visible: float
    min_rel: float
    relative_to: int
    max_peaks: int
    significance: float
    least: float
    scaled: bool
    local: bool
    level: float
    variance: float
    quantum: float
    square: float
    peak: float


@numba.njit(nogil=True, cache=True)
def surroundings(binned: Array, bins: Array, positions: Int64Array, rules: Rules) -> tuple[FloatArray, FloatArray]:
    """Measure the background between radius + 2 and radius + 5 px (one bin at least) around positions, on whole bins.

    Parameters
    ----------
    binned, bins, rules
        As of `candidates`.
    positions : shape (n, 2), bins

    Returns
    -------
    excess : shape (n,), counts per pixel
        Median of the ring, per pixel; 0 where none of it is visible.
    slopes : shape (n, 2), counts per pixel and px
        Gradient of the background, as far as it stands out of its noise (``g max(0, 1 - (2 sigma_g / g)^2)``). Values
        further than three standard deviations from the median, of the noise or of the ring, count as being that far:
        those of other disks. 0 where a part of the ring is hidden.
    """
    size = rules.binning
    inner = (rules.radius + RING[0]) / size
    outer = max((rules.radius + RING[1]) / size, inner + 1)
    reach = math.ceil(outer)
    values, places = np.empty((2 * reach + 1) ** 2), np.empty(((2 * reach + 1) ** 2, 2))
    excess, slopes = np.zeros(len(positions)), np.zeros((len(positions), 2))
    for n in range(len(positions)):
        m, whole = 0, 0
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                if not inner * inner <= i * i + j * j < outer * outer:
                    continue
                whole += 1
                row, column = positions[n, 0] + i, positions[n, 1] + j
                if 0 <= row < bins.shape[0] and 0 <= column < bins.shape[1] and bins[row, column] == 1:
                    values[m], places[m, 0], places[m, 1] = binned[row, column], i, j
                    m += 1
        if m == 0:
            continue
        median = np.median(values[:m])
        excess[n] = median / size**2
        if m == whole:
            variance = max(rules.variance, rules.quantum * (rules.level + excess[n])) * size**2
            away = values[:m] - median
            limit = 3 * math.sqrt(variance)
            if np.abs(away).max() > limit:  # a slope or another disk: most of the ring decides what is far
                limit = max(limit, 3 * MAD * np.median(np.abs(away)))
            for axis in range(2):
                slopes[n, axis] = _slope(away, places[:m, axis], limit, variance) / size**3
    return excess, slopes


@numba.njit(nogil=True, cache=True)
def _slope(values: FloatArray, places: FloatArray, limit: float, variance: float) -> float:
    """Fit a slope to values, those beyond a limit taken for it, as far as it stands out of the noise."""
    product, square = 0.0, 0.0
    for k in range(len(values)):
        product += min(limit, max(-limit, values[k])) * places[k]
        square += places[k] * places[k]
    if product == 0:
        return 0.0
    return product / square * max(0.0, 1 - 4 * variance * square / product**2)
