"""Hits of a Timepix3 stream joined to the electrons that made them.

A fast electron leaves its energy in several neighbouring pixels, within the drift time of its charge and the time that
weak signals need to cross the threshold. Two hits are linked when they lie close in both time and space; linked hits
make a cluster, whatever their order in the stream. A cluster is one event, at the mean of its pixels weighted by their
time over threshold, at the time of its first hit, which is the least delayed one.

So that a piece of the stream gives the same clusters wherever it is cut out, time is divided into slices of `SLICE`,
and hits of different slices are not linked: with the usual window one electron in ten thousand is counted twice.

Sources: criterion and weights, the Corryvreckan project (module ``Timepix3Clustering``); comparing hits as they come
with the earlier ones around them, J. Kuttruff et al., Ultramicroscopy 255, 113864 (2024). Here the latest hit of every
pixel is looked up in a table, so that the time does not depend on the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from stemstore.kernels.tpx3 import _HALF_30, _WRAP_30, COARSE, HIT, NOWHERE, _continued, _other_clock, locate

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array

SLICE = 40_000 * COARSE
"""Units of time among whose hits links are sought: 1 ms."""

int64: Any = np.int64  # the compiler's own names, without the types that are checked in plain code
uint64: Any = np.uint64


@numba.njit(nogil=True, cache=True)
def collect(
    words: Array, chunks: Int64Array, clock: Any, span: tuple[int, int], pixels: Array, out: Any
) -> int:  # pragma: no cover (compiled)
    """Take the hits of a span of time.

    Parameters
    ----------
    words, chunks, clock, pixels
        As for `stemstore.kernels.tpx3.assign`.
    span
        First time that is wanted, and the first one behind (`UNIT`).
    out : tuple of three arrays
        Filled: time (int64, `UNIT`), pixel (uint32), time over threshold (uint16, 25 ns); with room for every word.

    Returns
    -------
    n_hits
    """
    times, where, over = out
    n_hits = 0
    for c in range(len(chunks)):
        chip = chunks[c, 2]
        for i in range(chunks[c, 0], chunks[c, 1]):
            word = words[i]
            if word >> uint64(60) != uint64(HIT):
                clock = _other_clock(word, clock)
                continue
            low = int64(word & uint64(0xFFFFFFFFFFF))
            clock = _continued(((low & 0xFFFF) << 14) | (low >> 30), clock, _WRAP_30, _HALF_30)
            time = clock * COARSE - 6 * ((low >> 16) & 0xF)
            if chip >= len(pixels) or time < span[0] or time >= span[1]:
                continue
            pixel = pixels[chip, int64((word >> uint64(44)) & uint64(0xFFFF))]
            if pixel != NOWHERE:
                times[n_hits], where[n_hits], over[n_hits] = time, pixel, (low >> 20) & 0x3FF
                n_hits += 1
    return n_hits


def join(
    times: Int64Array, pixels: Array, over: Array, shape: tuple[int, int], window: int, distance: int
) -> tuple[Int64Array, Array]:
    """Join hits to clusters.

    Parameters
    ----------
    times : shape (n,)
        In units of the stream, in any order.
    pixels : shape (n,), uint32
    over : shape (n,), uint16
        Time over threshold; a hit without any has the least weight.
    shape
        Rows and columns of the detector.
    window
        Two hits are linked up to this difference of time,
    distance : unit pixel
        and up to this difference of rows and of columns.

    Returns
    -------
    times : shape (m,)
        Of the first hit of each cluster, rising.
    pixels : shape (m,), uint32
        Nearest to its weighted mean; halves go up.

    Notes
    -----
    Memory: 42 bytes per hit, and 4 per pixel of the detector.
    """
    rank = np.argsort(times, kind="stable")
    times, pixels, over = times[rank], pixels[rank], over[rank]
    parents = np.arange(len(times), dtype=np.int32)
    latest = np.full((shape[0] + 2 * distance, shape[1] + 2 * distance), -1, np.int32)
    _link(times, pixels, shape[1], window, distance, latest, parents)
    n_clusters = _add_up(times, pixels, over, shape[1], parents)
    return times[:n_clusters], pixels[:n_clusters]


@numba.njit(nogil=True, cache=True)
def _root(parents, i):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@numba.njit(nogil=True, cache=True)
def _link(times, pixels, n_columns, window, distance, latest, parents):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Link each hit to the latest one of every pixel around, which is linked to those before it in that pixel."""
    for i in range(len(times)):
        earliest = max(times[i] - window, times[i] // SLICE * SLICE)
        row, column = int64(pixels[i]) // n_columns, int64(pixels[i]) % n_columns
        for r in range(row, row + 2 * distance + 1):
            for c in range(column, column + 2 * distance + 1):
                other = latest[r, c]
                if other >= 0 and times[other] >= earliest:
                    one, two = _root(parents, int64(i)), _root(parents, int64(other))
                    parents[max(one, two)] = min(one, two)  # the first hit is the root
        latest[row + distance, column + distance] = i


@numba.njit(nogil=True, cache=True)
def _add_up(times, pixels, over, n_columns, parents):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Put time and mean pixel of each cluster in front, in the order of their first hits; gives their number."""
    sums = np.zeros((len(times), 3), np.int64)
    for i in range(len(pixels)):
        root, weight = _root(parents, int64(i)), max(int64(over[i]), 1)
        sums[root, 0] += weight
        sums[root, 1] += weight * (int64(pixels[i]) // n_columns)
        sums[root, 2] += weight * (int64(pixels[i]) % n_columns)
    n_clusters = 0
    for i in range(len(pixels)):
        if parents[i] == i:
            weight = sums[i, 0]
            row, column = (2 * sums[i, 1] + weight) // (2 * weight), (2 * sums[i, 2] + weight) // (2 * weight)
            times[n_clusters], pixels[n_clusters] = times[i], row * n_columns + column
            n_clusters += 1
    return n_clusters


@numba.njit(nogil=True, cache=True)
def assign_times(times: Int64Array, edges: Int64Array, raster: Any) -> Int64Array:  # pragma: no cover (compiled)
    """Give times their place in the scan, -1 for none; arguments and results as of `stemstore.kernels.tpx3.locate`."""
    places, edge = np.empty(len(times), np.int64), int64(0)
    for i in range(len(times)):
        places[i], edge = locate(times[i], edge, edges, raster)
    return places
