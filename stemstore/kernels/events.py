"""Loops over event lists in their stored coding (see `stemstore.kernels.gaps`): the operations of `frames`, on events.

Every operation gives what it would give on the densified frames, electrons in the same pixel included. Before compiled
code follows the gaps it is checked that no frame runs past its last pixel: a few percent of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import accumulator, check_rows, check_weights, flat_output, frozen
from stemstore.kernels.frames import binned_shape
from stemstore.kernels.gaps import ESCAPE, check_block, decode, encode, slot_offsets
from stemstore.kernels.tables import (
    Masks,
    Region,
    Weights,
    prepare_masks,
    prepare_region,
    prepare_weights,
    row_reciprocal,
)

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array

__all__ = [
    "add",
    "add_squares",
    "add_weighted",
    "bin_detector",
    "decode",
    "densify",
    "encode",
    "masked_sums",
    "maximum",
    "moments",
    "prepare_masks",
    "prepare_region",
    "prepare_weights",
    "slot_offsets",
    "weighted_sums",
]


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
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, total = np.int64(0), np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                total += labels[index]
        for j in range(pairs.shape[0]):
            out[place[i], pairs[j, 1]] += total


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
        Added to, one event after the other in float64.
    prepared
        From `prepare_weights`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    (table,) = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (table.shape[1],))
    gap, offsets, local = check_block(gap, offsets, local, len(table))
    if out.dtype != np.float64:
        msg = f"weighted sums need a float64 output, got {out.dtype}; allocate float64"
        raise InputError(msg, dtype=str(out.dtype))
    if table.shape[1] == 1:
        _weighted_sum(gap, offsets, local, out, place, frozen(table.reshape(-1)))
    else:
        _weighted_sums(gap, offsets, local, out, place, frozen(table))


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
def _weighted_sums(gap, offsets, local, out, place, table):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    flat = table.ravel()
    n_masks = table.shape[1]
    firsts = np.empty(1024, dtype=np.int64)  # where the weights of each event start; grows to the longest frame
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        if part.size > firsts.size:
            firsts = np.empty(2 * part.size, dtype=np.int64)
        index, n = np.int64(0), np.int64(0)
        for k in range(part.size):
            index += part[k]
            firsts[n] = index * n_masks
            n += part[k] != ESCAPE  # an escape is overwritten by the next slot
        for q in range(n_masks):
            total = 0.0
            for k in range(n):
                total += flat[firsts[k] + q]
            out[place[i], q] += total


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


def add(gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array) -> None:
    """Add the electrons of frames ``local[i]`` to the pattern `out`.

    Parameters
    ----------
    gap, offsets, local
        As in `masked_sums`.
    out : shape (det_y, det_x), C-contiguous uint64, int64 or float64
        Added to; exact.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, out.size)
    _add(gap, offsets, local, flat_output(accumulator(out, np.dtype(np.uint16)), out.size))


@numba.njit(nogil=True, cache=True)
def _add(gap, offsets, local, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index = np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                out[index] += 1


def add_squares(gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array) -> None:
    """Add the squares of the counts of frames ``local[i]`` to the pattern `out`.

    Parameters
    ----------
    gap, offsets, local
        As in `masked_sums`.
    out : shape (det_y, det_x), C-contiguous uint64, int64 or float64
        Added to; exact.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, out.size)
    _add_squares(gap, offsets, local, flat_output(accumulator(out, np.dtype(np.uint16)), out.size))


@numba.njit(nogil=True, cache=True)
def _add_squares(gap, offsets, local, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, previous, n = np.int64(0), np.int64(-1), np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                n = n + 1 if index == previous else np.int64(1)
                previous = index
                out[index] += 2 * n - 1  # n^2 is the sum of the first n odd numbers


def add_weighted(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: FloatArray, weights: FloatArray
) -> None:
    """Add the electrons of frames ``local[i]``, each times ``weights[i]``, to the pattern `out`.

    Parameters
    ----------
    gap, offsets, local
        As in `masked_sums`.
    out : shape (det_y, det_x), C-contiguous float64
        Added to in float64, event after event.
    weights : shape (m,), float64

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, out.size)
    _add_weighted(gap, offsets, local, flat_output(out, out.size), check_weights(weights, local, out))


@numba.njit(nogil=True, cache=True)
def _add_weighted(gap, offsets, local, out, weights):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index = np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                out[index] += weights[i]


def maximum(gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array) -> None:
    """Raise `out` to the most electrons that any of frames ``local[i]`` has in the pixel.

    Parameters
    ----------
    gap, offsets, local
        As in `masked_sums`.
    out : shape (det_y, det_x), C-contiguous, integer or real
        Start from zero.

    Raises
    ------
    InputError
        Indices that do not belong together, or a count that the dtype of `out` cannot hold.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, out.size)
    _check_no_overflow(_maximum(gap, offsets, local, flat_output(out, out.size)), out)


@numba.njit(nogil=True, cache=True)
def _maximum(gap, offsets, local, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = out.dtype.type
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, previous, n = np.int64(0), np.int64(-1), np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                n = n + 1 if index == previous else np.int64(1)
                previous = index
                out[index] = max(out[index], kind(n))
                if np.int64(kind(n)) != n:
                    return index
    return -1


def densify(gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array) -> None:
    """Add the electrons of frame ``local[i]`` to the dense frame ``out[place[i]]``.

    Parameters
    ----------
    gap, offsets, local, place
        As in `masked_sums`.
    out : shape (P, det_y * det_x), integer or real
        Added to.

    Raises
    ------
    InputError
        Shapes or indices that do not belong together, or a count that the dtype of `out` cannot hold.
    CorruptDataError
        A frame has events outside the detector.
    """
    if out.ndim != 2:  # noqa: PLR2004 (positions, pixels)
        msg = f"the output has shape {out.shape}, expected (positions, pixels); reshape it"
        raise InputError(msg, shape=out.shape)
    local, place = check_rows(local, len(offsets) - 1, place, out, (out.shape[1],))
    gap, offsets, local = check_block(gap, offsets, local, out.shape[1])
    _check_no_overflow(_densify(gap, offsets, local, out, place), out)


@numba.njit(nogil=True, cache=True)
def _densify(gap, offsets, local, out, place):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = out.dtype.type
    overflow = np.int64(-1)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        frame = out[place[i]]
        index = np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                before = frame[index]
                frame[index] = kind(before + kind(1))
                if frame[index] <= before:
                    overflow = index
    return overflow


def _check_no_overflow(pixel: int, out: Array) -> None:
    """Refuse a result that has wrapped around."""
    if pixel >= 0:
        msg = f"pixel {pixel} has more electrons in one frame than {out.dtype} can hold; allocate a wider output"
        raise InputError(msg, pixel=pixel, dtype=str(out.dtype))


def bin_detector(
    gap: UInt16Array,
    offsets: Int64Array,
    local: Int64Array,
    out: Array,
    place: Int64Array,
    detector: tuple[int, int],
    factor: tuple[int, int],
) -> None:
    """Add the electrons of frame ``local[i]``, counted in boxes of pixels, to ``out[place[i]]``.

    Nothing is lost: rows and columns that do not fill a box make a smaller last box.

    Parameters
    ----------
    gap, offsets, local, place
        As in `masked_sums`.
    out : shape (P, ceil(rows / factor[0]), ceil(columns / factor[1])), integer or real
        Added to.
    detector
        Rows and columns of the stored detector.
    factor
        Rows and columns of a box.

    Raises
    ------
    InputError
        Shapes or indices that do not belong together, or a count that the dtype of `out` cannot hold.
    CorruptDataError
        A frame has events outside the detector.
    """
    shape = binned_shape(detector, factor)
    local, place = check_rows(local, len(offsets) - 1, place, out, shape)
    gap, offsets, local = check_block(gap, offsets, local, detector[0] * detector[1])
    multiplier, shift = row_reciprocal(detector)
    box_row = (np.arange(detector[0]) // factor[0] * shape[1]).astype(np.int64)
    box_column = (np.arange(detector[1]) // factor[1]).astype(np.int64)
    reciprocal = (np.int64(multiplier), np.int64(shift))
    boxes = flat_output(out, len(out) * shape[0] * shape[1]).reshape(len(out), shape[0] * shape[1])
    _check_no_overflow(_bin(gap, offsets, local, boxes, place, box_row, box_column, reciprocal), out)


@numba.njit(nogil=True, cache=True)
def _bin(gap, offsets, local, out, place, box_row, box_column, reciprocal):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba, called once)
    kind = out.dtype.type
    overflow = np.int64(-1)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        image = out[place[i]]
        index = np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                row = (index * reciprocal[0]) >> reciprocal[1]
                box = box_row[row] + box_column[index - row * box_column.size]
                before = image[box]
                image[box] = kind(before + kind(1))
                if image[box] <= before:
                    overflow = index
    return overflow
