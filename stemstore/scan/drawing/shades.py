"""Which value gets which shade: ranges between percentiles, logarithmic shades, values beyond the ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stemstore._types import FloatArray


def value_range(known: FloatArray, percentile: tuple[float, float] | None) -> tuple[float, float]:
    """Values of the darkest and the brightest shade; the whole range where percentiles leave none."""
    if known.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(known, percentile) if percentile else (known.min(), known.max())
    if low == high:
        low, high = known.min(), known.max()
    return float(low), float(high)


def logarithmic(
    values: FloatArray, known: FloatArray, percentile: tuple[float, float] | None, options: dict[str, Any]
) -> tuple[dict[str, Any], FloatArray]:
    """Options for logarithmic shades, and the values with nothing below the darkest one."""
    from matplotlib.colors import LogNorm

    positive = known[known > 0]
    low, high = value_range(positive, percentile) if positive.size else (0.1, 1.0)
    options = dict(options)
    high = options.pop("vmax", high)
    # one electron is brighter than none: the darkest shade is that of half the smallest value shown
    low = options.pop("vmin", low / 2)
    # numbers that have no logarithm would be left out of the picture as if they were missing
    return options | {"norm": LogNorm(low, high)}, np.maximum(values, low)


def beyond(known: FloatArray, shown: Any) -> str:
    """Tell a colour bar on which sides values lie beyond its ends."""
    if known.size == 0:
        return "neither"
    below, above = bool(known.min() < shown.norm.vmin), bool(known.max() > shown.norm.vmax)
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
