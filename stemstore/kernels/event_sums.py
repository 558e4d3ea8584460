"""Sums over the electrons of every frame: under masks, under weights, and moments; a row of numbers per position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import accumulator, check_rows, frozen
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.tables import Masks, Region, Weights


TILE_BYTES = 2**16
"""Weights that are looked up at a time: they stay near the processor."""

EVENTS_PER_TILE = 4
"""Events that a frame should have among the pixels of a tile; with fewer, going from frame to frame costs more."""


def masked_sums(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Masks
) -> None:
    """Add the number of electrons in each mask of frame ``local[i]`` to ``out[place[i]]``.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, n_masks), uint64, int64 or float64
        Added to; exact.
    prepared
        From `prepare_masks`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    labels, pairs, sizes = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (int(sizes[1]),))
    gap, offsets, local = check_block(gap, offsets, local, labels.size)
    target = accumulator(out, np.dtype(np.uint16))
    if sizes[0] == 2 and labels.dtype == np.uint8:  # noqa: PLR2004 (outside and inside: label 1 is the count itself)
        _inside(gap, offsets, local, target, place, frozen(labels), frozen(pairs))
    else:
        totals = np.zeros(int(sizes[0]), dtype=np.int64)
        _masked_sums(gap, offsets, local, target, place, frozen(labels), frozen(pairs), totals)


@numba.njit(nogil=True, cache=True)
def _inside(gap, offsets, local, out, place, labels, pairs):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    # two frames side by side: each waits for its own last pixel only
    for i in range(0, local.size, 2):
        one = gap[offsets[local[i]] : offsets[local[i] + 1]]
        two = one[:0] if i + 1 == local.size else gap[offsets[local[i + 1]] : offsets[local[i + 1] + 1]]
        both = min(one.size, two.size)
        first, second, inside, also = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for k in range(both):
            first += one[k]
            second += two[k]
            if one[k] != ESCAPE:
                inside += labels[first]
            if two[k] != ESCAPE:
                also += labels[second]
        inside += _inside_rest(one[both:], first, labels)
        also += _inside_rest(two[both:], second, labels)
        for j in range(pairs.shape[0]):
            out[place[i], pairs[j, 1]] += inside
            if i + 1 < local.size:
                out[place[i + 1], pairs[j, 1]] += also


@numba.njit(nogil=True, cache=True)
def _inside_rest(part, index, labels):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    total = np.int64(0)
    for k in range(part.size):
        index += part[k]
        if part[k] != ESCAPE:
            total += labels[index]
    return total


@numba.njit(nogil=True, cache=True)
def _masked_sums(gap, offsets, local, out, place, labels, pairs, totals):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba, called once)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index = np.int64(0)
        totals[:] = 0
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                totals[labels[index]] += 1
        for j in range(pairs.shape[0]):
            out[place[i], pairs[j, 1]] += totals[pairs[j, 0]]


def weighted_sums(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: FloatArray, place: Int64Array, prepared: Weights
) -> None:
    """Add the sum of weights over the electrons of frame ``local[i]`` to ``out[place[i]]``.

    Parameters
    ----------
    gap, offsets, local, place
        As in `masked_sums`.
    out : shape (P, n_masks), float64
        Added to: the sum of the events in float64, taken one after the other, or as number times weight where there are
        few different weights.
    prepared
        From `prepare_weights`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    labels, table = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (table.shape[1],))
    gap, offsets, local = check_block(gap, offsets, local, labels.size or len(table))
    if out.dtype != np.float64:
        msg = f"weighted sums need a float64 output, got {out.dtype}; allocate float64"
        raise InputError(msg, dtype=str(out.dtype))
    if labels.size:
        _labelled_sums(gap, offsets, local, out, place, frozen(labels), frozen(table))
    elif table.shape[1] == 1:
        _weighted_sum(gap, offsets, local, out, place, frozen(table.reshape(-1)))
    else:
        events = int((offsets[local + 1] - offsets[local]).sum()) // max(1, len(local))
        near = max(1, TILE_BYTES // max(1, table[:1].nbytes), int(EVENTS_PER_TILE * len(table) // max(1, events)))
        _weighted_sums(gap, offsets, local, out, place, frozen(table), near)


@numba.njit(nogil=True, cache=True)
def _weighted_sum(gap, offsets, local, out, place, weights):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, total = np.int64(0), 0.0
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                total += weights[index]
        out[place[i], 0] += total


@numba.njit(nogil=True, cache=True)
def _labelled_sums(gap, offsets, local, out, place, labels, table):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    counts = np.zeros(table.shape[0], dtype=np.int64)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index = np.int64(0)
        counts[:] = 0
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                counts[labels[index]] += 1
        for q in range(table.shape[1]):
            total = 0.0
            for label in range(table.shape[0]):
                total += counts[label] * table[label, q]
            out[place[i], q] += total


@numba.njit(nogil=True, cache=True)
def _weighted_sums(gap, offsets, local, out, place, table, near):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    # all frames over a few pixels, whose weights stay in the cache, then over the next few
    n_pixels, n_masks = table.shape
    at, reached = offsets[local], np.zeros(local.size, dtype=np.int64)
    totals = np.zeros((local.size, n_masks))
    for first in range(0, n_pixels, near):
        for i in range(local.size):
            k, end, index = at[i], offsets[local[i] + 1], reached[i]
            while k < end and index + gap[k] < first + near:
                index += gap[k]
                if gap[k] != ESCAPE:
                    for q in range(n_masks):
                        totals[i, q] += table[index, q]
                k += 1
            at[i], reached[i] = k, index
    for i in range(local.size):
        for q in range(n_masks):
            out[place[i], q] += totals[i, q]


def moments(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Region
) -> None:
    """Add number, sum of rows and sum of columns of the electrons of frame ``local[i]`` to ``out[place[i]]``.

    Row and column are indices of the stored detector, from zero; nothing is divided.

    Parameters
    ----------
    gap, offsets, local, place
        As in `masked_sums`.
    out : shape (P, 3), uint64, int64 or float64
        Added to; exact.
    prepared
        From `prepare_region`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    member, detector = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (3,))
    gap, offsets, local = check_block(gap, offsets, local, int(detector[0] * detector[1]))
    target = accumulator(out, np.dtype(np.uint16))
    if member.size:
        _moments_inside(gap, offsets, local, target, place, frozen(member), frozen(detector))
    else:
        _moments(gap, offsets, local, target, place, frozen(detector))


@numba.njit(nogil=True, cache=True)
def _moments(gap, offsets, local, out, place, detector):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    columns, multiplier, shift = detector[1], detector[2], detector[3]
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, n, indices, rows = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                n += 1
                indices += index
                rows += (index * multiplier) >> shift
        out[place[i], 0] += n
        out[place[i], 1] += rows
        out[place[i], 2] += indices - rows * columns  # the sum of columns needs no remainders


@numba.njit(nogil=True, cache=True)
def _moments_inside(gap, offsets, local, out, place, member, detector):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    columns, multiplier, shift = detector[1], detector[2], detector[3]
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, n, indices, rows = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                inside = np.int64(member[index])
                n += inside
                indices += inside * index
                rows += inside * ((index * multiplier) >> shift)
        out[place[i], 0] += n
        out[place[i], 1] += rows
        out[place[i], 2] += indices - rows * columns


def second_moments(
    gap: UInt16Array,
    offsets: Int64Array,
    local: Int64Array,
    out: Array,
    place: Int64Array,
    prepared: tuple[Region, Int64Array],
) -> None:
    """Add number, sums of r, c, r², c² and rc of the electrons of frame ``local[i]`` to ``out[place[i]]``.

    Parameters
    ----------
    gap, offsets, local, place
        As in `masked_sums`.
    out : shape (P, 6), uint64, int64 or float64
        Added to; exact (in float64 below 2^53).
    prepared
        From `prepare_region`, and the stored row and column, (2,), from which r and c count. Rows and columns of the
        detector are below 2^15, so that 2^33 electrons per frame fit 64 bits.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    (member, detector), first = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (6,))
    gap, offsets, local = check_block(gap, offsets, local, int(detector[0] * detector[1]))
    target = accumulator(out, np.dtype(np.uint16))
    numbers = np.concatenate([detector, first]).astype(np.int64)
    _second_moments(gap, offsets, local, target, place, frozen(member), frozen(numbers))


@numba.njit(nogil=True, cache=True)
def _second_moments(gap, offsets, local, out, place, member, numbers):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    columns, multiplier, shift, row0, column0 = numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
    pixels = np.empty(1024, dtype=np.int64)  # of the electrons that count; grows to the longest frame
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        if part.size > pixels.size:
            pixels = np.empty(2 * part.size, dtype=np.int64)
        index, n = np.int64(0), np.int64(0)
        for k in range(part.size):
            index += part[k]
            pixels[n] = index
            n += part[k] != ESCAPE and (member.size == 0 or member[index] != 0)  # others are overwritten by the next
        rows, cols, rr, cc, rc = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        for k in range(n):
            row = (pixels[k] * multiplier) >> shift
            r, c = np.int64(np.int32(row - row0)), np.int64(np.int32(pixels[k] - row * columns - column0))
            rows += r
            cols += c
            rr += r * r  # of 32-bit numbers: processors multiply several of them at once
            cc += c * c
            rc += r * c
        line = out[place[i]]
        line[0] += n
        line[1] += rows
        line[2] += cols
        line[3] += rr
        line[4] += cc
        line[5] += rc
