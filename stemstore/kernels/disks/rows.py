"""From the detection map of a frame to the rows of its list of disks, in one call: threads take turns between calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.disks.likelihood import refine
from stemstore.kernels.disks.sums import disk_sums, precision, write_rows
from stemstore.kernels.peaks import candidates, space_out

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array
    from stemstore.kernels.disks.bank import Bank
    from stemstore.kernels.disks.surroundings import Rules

HOT_SHARE = 0.5  # one pixel holding more of the net counts than this is a hot pixel, not a disk


@numba.njit(nogil=True, cache=True)
def write_disks(
    image: Array,
    good: BoolArray,
    centres: FloatArray,
    values: FloatArray,
    rules: Rules,
    rest: tuple[float, float],
    out: Array,
) -> Int64Array:
    """Write the rows of disks whose places are known, without those that met and without hot pixels.

    Parameters
    ----------
    image, good : frame + 2 margins
        Counts minus the offset, and which pixels count.
    centres, values : shapes (n, 2), px, and (n,)
        Places, and the map there; best first.
    rules
        See `stemstore.kernels.disks.surroundings.Rules`.
    rest
        What was taken off the image, counts per pixel, and the width of the disks' edge, px.
    out
        As of `stemstore.kernels.disks.search.frame_disks`.

    Returns
    -------
    left : shape (2,)
        Disks that keep their distance, and those of them that are no hot pixels.
    """
    offset, edge_width = rest
    keep = space_out(centres, rules.spacing / 2)
    centres, values = centres[keep], values[keep]
    sums = disk_sums(image, good, (good.shape[0] - rules.rows) // 2, centres, rules.radius, edge_width)
    sigma = precision(sums, offset, rules.quantum, rules.radius, edge_width)
    return np.array([len(values), write_rows(centres, values, sums, sigma, HOT_SHARE, out)])


@numba.njit(nogil=True, cache=True)
def likely_disks(
    maps: tuple[Array, Array, Array],
    visible: tuple[BoolArray, BoolArray, Array, Array],
    rules: Rules,
    bank: Bank,
    response: float,
    rest: tuple[float, float],
    out: Array,
) -> Int64Array:
    """Find the disks of a detection map in counts per pixel, at the places of maximum likelihood.

    Parameters
    ----------
    maps
        Detection map, binned frame minus its level, and frame with its margins.
    visible
        Good pixels, windows that hold bad ones, visible share of the bins and of a disk on them.
    rules, rest, out
        As of `write_disks`.
    bank, response
        As in `stemstore.kernels.disks.plan.DiskPlan`.

    Returns
    -------
    left
        Numbers of peaks left after each of `stemstore.kernels.disks.search.FILTERS`.
    """
    (score, binned, image), (good, partial, bins, share) = maps, visible
    positions, values, (excess, slopes), tally = candidates(score, binned, bins, share, rules)
    backgrounds = rules.level + np.maximum(excess, 0.0), slopes
    places = refine(image, (good, partial), positions, values / response, backgrounds, rest[0], bank)
    return np.append(tally, write_disks(image, good, places, values, rules, rest, out))
