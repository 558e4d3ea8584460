"""Counted frames as dense ones, of single pixels or of boxes of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import check_rows, flat_output
from stemstore.kernels.frames import binned_shape
from stemstore.kernels.gaps import ESCAPE, check_block
from stemstore.kernels.tables import row_reciprocal

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array


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
    check_no_overflow(_densify(gap, offsets, local, out, place), out)


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


def check_no_overflow(pixel: int, out: Array) -> None:
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
    check_no_overflow(_bin(gap, offsets, local, boxes, place, box_row, box_column, reciprocal), out)


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
