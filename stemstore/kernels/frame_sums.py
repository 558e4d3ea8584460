"""Loops over dense frames that give numbers per frame: sums under masks and weights, moments.

Arguments and promises are those of `stemstore.kernels.frames`, from where the functions are used. Four frames, or four
rows of a frame, go through a loop together wherever what they share (a run, a weight, an accumulator) would otherwise
be fetched for each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import (
    RUN,
    accumulator,
    check_detector,
    check_rows,
    frozen,
    pixels_of,
    wide_zeros,
)

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array
    from stemstore.kernels.runs import Masks, Region, Weights

_FLOAT = {"reassoc", "nsz", "contract"}
# sums may be reordered, which lets them vectorise; NaN and infinity keep their meaning


def masked_sums(block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Masks) -> None:
    """Add the sum over each mask of frame ``local[i]`` to ``out[place[i]]``.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, n_masks), uint64, int64 or float64
        Added to. Exact for integer frames; uint64 for unsigned, int64 for signed, float64 for real frames.
    prepared
        From `prepare_masks`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    runs, pairs, sizes = prepared
    pixels = pixels_of(block)
    check_detector(pixels.shape[1], int(sizes[2]))
    local, place = check_rows(local, len(pixels), place, out, (int(sizes[1]),))
    target = accumulator(out, block.dtype)
    totals = np.zeros((int(sizes[0]), 4), dtype=target.dtype)
    _masked_sums(pixels, local, target, place, frozen(runs), frozen(pairs), totals, wide_zeros(1, pixels.dtype, RUN))


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _masked_sums(pixels, local, out, place, runs, pairs, totals, wide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba, called once)
    for i in range(0, local.size, 4):
        totals[:] = 0
        if i + 4 <= local.size:
            _four_sums(pixels, local[i : i + 4], runs, totals, wide)
        else:
            for q in range(local.size - i):
                _label_sums(pixels[local[i + q]], runs, totals[:, q], wide)
        for q in range(min(4, local.size - i)):
            for j in range(pairs.shape[0]):
                out[place[i + q], pairs[j, 1]] += totals[pairs[j, 0], q]


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _four_sums(pixels, local, runs, totals, wide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sum four frames per label: most runs are a few pixels long, and looking each up costs as much as adding it."""
    kind = wide.dtype.type
    one, two, three, last = pixels[local[0]], pixels[local[1]], pixels[local[2]], pixels[local[3]]
    for j in range(runs.shape[0]):
        start, stop, label = runs[j, 0], runs[j, 1], runs[j, 2]
        v, w, x, y = one[start:stop], two[start:stop], three[start:stop], last[start:stop]
        a, b, c, d = kind(0), kind(0), kind(0), kind(0)
        for k in range(v.size):
            a, b, c, d = kind(a + v[k]), kind(b + w[k]), kind(c + x[k]), kind(d + y[k])
        totals[label, 0] += a
        totals[label, 1] += b
        totals[label, 2] += c
        totals[label, 3] += d


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _label_sums(frame, runs, totals, wide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = wide.dtype.type
    for j in range(runs.shape[0]):
        part = frame[runs[j, 0] : runs[j, 1]]
        total = kind(0)
        for k in range(part.size):
            total = kind(total + part[k])
        totals[runs[j, 2]] += total


def weighted_sums(block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Weights) -> None:
    """Add the weighted sum of frame ``local[i]`` for each set of weights to ``out[place[i]]``.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, n_masks), float64
        Added to; every product and sum is taken in float64, in an order that depends on the weights alone.
    prepared
        From `prepare_weights`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    values, runs, bands, sizes = prepared
    pixels = pixels_of(block, exact=True)
    check_detector(pixels.shape[1], int(sizes[1]))
    local, place = check_rows(local, len(pixels), place, out, (int(sizes[0]),))
    if out.dtype != np.float64:
        msg = f"weighted sums need a float64 output, got {out.dtype}; allocate float64"
        raise InputError(msg, dtype=str(out.dtype))
    _weighted_sums(pixels, local, out, place, frozen(values), frozen(runs), frozen(bands))


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _weighted_sums(pixels, local, out, place, values, runs, bands):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    totals = np.zeros(4)
    for band in range(bands.size - 1):
        for i in range(0, local.size, 4):  # four frames share the loads of a weight
            end = local.size - 1  # beyond it the last frame stands in: every frame is added up by the same code
            one, two = pixels[local[i]], pixels[local[min(i + 1, end)]]
            three, last = pixels[local[min(i + 2, end)]], pixels[local[min(i + 3, end)]]
            for j in range(bands[band], bands[band + 1]):
                start, stop = runs[j, 1], runs[j, 2]
                v, w, x, y = one[start:stop], two[start:stop], three[start:stop], last[start:stop]
                weight = values[runs[j, 3] : runs[j, 3] + v.size]
                a, b, c, d = 0.0, 0.0, 0.0, 0.0
                for k in range(v.size):
                    a += v[k] * weight[k]
                    b += w[k] * weight[k]
                    c += x[k] * weight[k]
                    d += y[k] * weight[k]
                totals[0], totals[1], totals[2], totals[3] = a, b, c, d
                for q in range(min(4, local.size - i)):
                    out[place[i + q], runs[j, 0]] += totals[q]


def moments(block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Region) -> None:
    """Add sum I, sum row * I and sum column * I of frame ``local[i]`` to ``out[place[i]]``.

    Row and column are indices of the stored detector, from zero; nothing is divided.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, 3), uint64, int64 or float64
        Added to. Exact for integer frames.
    prepared
        From `prepare_region`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    runs, fours, detector = prepared
    pixels = pixels_of(block)
    check_detector(pixels.shape[1], int(detector[0] * detector[1]))
    local, place = check_rows(local, len(pixels), place, out, (3,))
    target = accumulator(out, block.dtype)
    columns = wide_zeros(int(detector[1]), pixels.dtype, int(detector.max()))
    _moments(pixels, local, target, place, frozen(runs), frozen(fours), columns)


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _moments(pixels, local, out, place, runs, fours, columns):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba, called once)
    kind = columns.dtype.type
    wide = out.dtype.type
    for i in range(local.size):
        frame = pixels[local[i]]
        columns[:] = 0
        total, total_row, total_column = wide(0), wide(0), wide(0)
        for j in range(fours.shape[0]):
            sums = _four_rows(frame, fours[j], columns)
            for q in range(4):
                total += wide(sums[q])
                total_row += wide(sums[q]) * wide(fours[j, q])
        for j in range(runs.shape[0]):
            row = runs[j, 0]
            part = frame[row * columns.size + runs[j, 1] : row * columns.size + runs[j, 2]]
            column = columns[runs[j, 1] : runs[j, 2]]
            in_run = kind(0)
            for k in range(part.size):
                column[k] = kind(column[k] + part[k])
                in_run = kind(in_run + part[k])
            total += wide(in_run)
            total_row += wide(in_run) * wide(row)
        for k in range(columns.size):
            total_column += wide(columns[k]) * wide(k)
        out[place[i], 0] += total
        out[place[i], 1] += total_row
        out[place[i], 2] += total_column


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _four_rows(frame, four, columns):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sum four rows at once, and add them to the columns: one pass over the columns instead of four."""
    kind = columns.dtype.type
    column = columns[four[4] : four[5]]
    one = frame[four[0] * columns.size + four[4] : four[0] * columns.size + four[5]]
    two = frame[four[1] * columns.size + four[4] : four[1] * columns.size + four[5]]
    three = frame[four[2] * columns.size + four[4] : four[2] * columns.size + four[5]]
    last = frame[four[3] * columns.size + four[4] : four[3] * columns.size + four[5]]
    a, b, c, d = kind(0), kind(0), kind(0), kind(0)
    for k in range(one.size):
        v, w, x, y = kind(one[k]), kind(two[k]), kind(three[k]), kind(last[k])
        a, b, c, d = kind(a + v), kind(b + w), kind(c + x), kind(d + y)
        column[k] = kind(column[k] + kind(kind(v + w) + kind(x + y)))
    return a, b, c, d
