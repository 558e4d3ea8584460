"""Moving frames by whole pixels: what leaves the detector is dropped and can be counted, what enters it is zero.

A moved list of events stays in order, because pixels that stay on the detector keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.arguments import check_local, frozen
from stemstore.kernels.contract import sum_dtype
from stemstore.kernels.gaps import ESCAPE, check_block
from stemstore.kernels.tables import row_reciprocal

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array

Slices = tuple[slice, slice]


def shift_events(
    gap: UInt16Array,
    offsets: Int64Array,
    local: Int64Array,
    shift: Int64Array,
    detector: tuple[int, int],
    *,
    plane: tuple[int, int] | None = None,
) -> tuple[UInt16Array, Int64Array, Int64Array]:
    """Make a block of the events of frames ``local[i]``, moved by ``shift[i]``.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.
    local : shape (m,)
        Frames of the block.
    shift : shape (m, 2)
        Rows and columns by which each of them moves.
    detector
        Rows and columns of the detector.
    plane
        Rows and columns of what the events come to lie on, the detector by default.

    Returns
    -------
    gap : shape (t,), uint16
    offsets : shape (m + 1,)
        Of the moved events, frame by frame in the order of `local`.
    lost : shape (m,)
        Events of each frame that left the plane.

    Raises
    ------
    InputError
        Frames that the block does not have, or a detector of more than 2^30 pixels.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, detector[0] * detector[1])
    moves = frozen(np.asarray(shift, np.int64))
    target = detector if plane is None else plane
    # there are no more events than slots, and all escapes of a frame together reach the last pixel at most
    slots = offsets[local + 1] - offsets[local] + target[0] * target[1] // ESCAPE
    out = np.empty(int(slots.sum()), np.uint16)
    ends, lost = np.zeros(len(local) + 1, np.int64), np.zeros(len(local), np.int64)
    shape = np.array([detector[1], *row_reciprocal(detector), *target], np.int64)
    n = _shift_events(gap, offsets, local, moves, frozen(shape), out, ends, lost)
    return out[:n], ends, lost


@numba.njit(nogil=True, cache=True)
def _shift_events(gap, offsets, local, moves, shape, out, ends, lost):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba, called once)
    columns, multiplier, shift, to_rows, to_columns = shape[0], shape[1], shape[2], shape[3], shape[4]
    n = 0
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        down, right = moves[i, 0], moves[i, 1]
        index, previous = np.int64(0), np.int64(0)
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                row = (index * multiplier) >> shift
                column = index - row * columns + right
                row += down
                if row < 0 or row >= to_rows or column < 0 or column >= to_columns:
                    lost[i] += 1
                    continue
                moved = row * to_columns + column
                distance = moved - previous
                while distance >= ESCAPE:
                    out[n] = ESCAPE
                    n += 1
                    distance -= ESCAPE
                out[n] = distance
                n += 1
                previous = moved
        ends[i + 1] = n
    return n


def shift_frames(block: Array, local: Int64Array, shift: Int64Array) -> Array:
    """Give frames ``block[local[i]]``, moved by ``shift[i]`` rows and columns; zeros enter.

    Parameters
    ----------
    block : shape (n, ky, kx)
    local : shape (m,)
    shift : shape (m, 2)

    Returns
    -------
    frames : shape (m, ky, kx), dtype of `block`

    Raises
    ------
    InputError
        Frames that the block does not have.
    """
    local = check_local(local, len(block))
    out = np.zeros((len(local), *block.shape[1:]), block.dtype)
    for frame, number, move in zip(out, local.tolist(), shift.tolist(), strict=True):
        here, there = overlap(block.shape[1:], move)
        frame[there] = block[number][here]
    return out


def leaving_frames(block: Array, local: Int64Array, shift: Int64Array) -> Array:
    """Sum the intensity of frames ``block[local[i]]`` that leaves the detector when they move by ``shift[i]``.

    Parameters
    ----------
    block, local, shift
        As in `shift_frames`.

    Returns
    -------
    lost : shape (m,), uint64, int64 or float64
        Exact for integers.

    Raises
    ------
    InputError
        Frames that the block does not have.
    """
    local = check_local(local, len(block))
    lost = np.zeros(len(local), sum_dtype(block.dtype))
    for i, (number, move) in enumerate(zip(local.tolist(), shift.tolist(), strict=True)):
        rows, columns = overlap(block.shape[1:], move)[0]
        frame = block[number]
        beside = (frame[: rows.start], frame[rows.stop :], frame[rows, : columns.start], frame[rows, columns.stop :])
        for strip in beside:
            lost[i] += strip.sum(dtype=lost.dtype)
    return lost


def overlap(detector: tuple[int, ...], move: list[int]) -> tuple[Slices, Slices]:
    """Tell which pixels of a frame stay on the detector when it moves, and where they come to lie."""
    here, there = [], []
    for size, step in zip(detector, move, strict=True):
        first = min(max(0, -step), size)
        last = max(first, min(size, size - step))
        here.append(slice(first, last))
        there.append(slice(first + step, last + step) if last > first else slice(0, 0))
    return (here[0], here[1]), (there[0], there[1])
