"""Loops over dense frames: virtual detectors, moments, sums, bins and histograms.

Each function takes a block of whole frames, the frames of it that are wanted (`local`) and the output row of each
(`place`), and adds into `out`. Weights come in a *prepared* form, a tuple of plain arrays that is built once per
operation and travels to the workers.

Integers are added as integers: in 32 bits while a run of pixels cannot overflow them (twice as many per vector
register), then in 64 bits. uint64 outputs are added to as int64, which gives the same bits. Inner loops run over flat
slices from zero, because numba's negative indices keep the compiler from vectorising anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import (
    RUN,
    accumulator,
    check_kind,
    check_local,
    check_rows,
    check_weights,
    flat_output,
    pixels_of,
    wide_zeros,
)
from stemstore.kernels.frame_sums import masked_sums, moments, weighted_sums
from stemstore.kernels.runs import STRETCH, TILE, prepare_masks, prepare_region, prepare_weights

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array

__all__ = [
    "add",
    "add_squares",
    "add_weighted",
    "bin_detector",
    "binned_shape",
    "histogram",
    "masked_sums",
    "maximum",
    "moments",
    "prepare_masks",
    "prepare_region",
    "prepare_weights",
    "weighted_sums",
]

_FLOAT = {"reassoc", "nsz", "contract"}
# sums may be reordered, which lets them vectorise; NaN and infinity keep their meaning


def add(block: Array, local: Int64Array, out: Array) -> None:
    """Add frames ``block[local[i]]`` to `out`.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local : shape (m,)
        Frames of the block; one that is listed twice counts twice.
    out : shape (det_y, det_x), C-contiguous uint64, int64 or float64
        Added to. Exact for integer frames.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    pixels = pixels_of(block)
    local = check_local(local, len(pixels))
    target = flat_output(accumulator(out, block.dtype), pixels.shape[1])
    _add(pixels, local, target, wide_zeros(min(STRETCH, target.size), pixels.dtype, RUN))


@numba.njit(nogil=True, cache=True)
def _add(pixels, local, out, scratch):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = scratch.dtype.type
    for start in range(0, out.size, max(scratch.size, 1)):
        target = out[start : start + scratch.size]
        column = scratch[: target.size]
        for first in range(0, local.size, RUN):  # as many frames as the narrow sums hold
            column[:] = 0
            end = min(first + RUN, local.size)
            for i in range(first, end - 3, 4):
                a = pixels[local[i]][start : start + target.size]
                b = pixels[local[i + 1]][start : start + target.size]
                c = pixels[local[i + 2]][start : start + target.size]
                d = pixels[local[i + 3]][start : start + target.size]
                for k in range(column.size):
                    pair = kind(kind(a[k]) + kind(b[k]))
                    column[k] = kind(column[k] + kind(pair + kind(kind(c[k]) + kind(d[k]))))
            for i in range(end - (end - first) % 4, end):
                a = pixels[local[i]][start : start + target.size]
                for k in range(column.size):
                    column[k] = kind(column[k] + a[k])
            for k in range(target.size):
                target[k] += column[k]


def add_squares(block: Array, local: Int64Array, out: Array) -> None:
    """Add the squares of the pixels of frames ``block[local[i]]`` to `out`.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local : shape (m,)
        Frames of the block; one that is listed twice counts twice.
    out : shape (det_y, det_x), C-contiguous
        Added to. uint64 or int64, exact for up to 2^32 frames of 8 or 16 bits (2^33 signed ones); float64 for wider
        integers, whose squares 64 bits do not hold, and for real frames.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    whole = block.dtype.kind in "biu" and block.dtype.itemsize <= 2  # noqa: PLR2004 (bytes of a 16-bit pixel)
    if out.dtype not in ((np.uint64, np.int64, np.float64) if whole else (np.float64,)):
        best = "uint64" if whole else "float64"
        msg = f"squares of {block.dtype} pixels cannot go into {out.dtype}; allocate {best}"
        raise InputError(msg, dtype=str(block.dtype), out=str(out.dtype))
    pixels = pixels_of(block, exact=True)
    local = check_local(local, len(pixels))
    target = flat_output(out.view(np.int64) if out.dtype == np.uint64 else out, pixels.shape[1])
    _add_squares(pixels, local, target, TILE)


@numba.njit(nogil=True, cache=True)
def _add_squares(pixels, local, out, tile):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    wide = out.dtype.type
    for start in range(0, out.size, tile):
        target = out[start : start + tile]
        for i in range(local.size):
            part = pixels[local[i]][start : start + target.size]
            for k in range(part.size):
                value = wide(part[k])
                target[k] += value * value


def add_weighted(block: Array, local: Int64Array, out: Array, weights: FloatArray) -> None:
    """Add frames ``block[local[i]]``, each times ``weights[i]``, to `out`.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local : shape (m,)
        Frames of the block.
    out : shape (det_y, det_x), C-contiguous float64
        Added to in float64, frame after frame.
    weights : shape (m,), float64

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    pixels = pixels_of(block, exact=True)
    local = check_local(local, len(pixels))
    target = flat_output(out, pixels.shape[1])
    _add_weighted(pixels, local, target, check_weights(weights, local, out), TILE)


@numba.njit(nogil=True, cache=True)
def _add_weighted(pixels, local, out, weights, tile):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for start in range(0, out.size, tile):
        target = out[start : start + tile]
        for i in range(local.size):
            part = pixels[local[i]][start : start + target.size]
            weight = weights[i]
            for k in range(part.size):
                target[k] += weight * part[k]


def maximum(block: Array, local: Int64Array, out: Array) -> None:
    """Raise `out` to the pixel-wise maximum of itself and frames ``block[local[i]]``.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local : shape (m,)
        Frames of the block.
    out : shape (det_y, det_x), C-contiguous, dtype of the block
        Start from the smallest value of the dtype, not from zero, where pixels can be negative. NaN stays NaN.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    if out.dtype != block.dtype:
        msg = f"the maximum of {block.dtype} frames cannot go into {out.dtype}; allocate the dtype of the frames"
        raise InputError(msg, dtype=str(block.dtype), out=str(out.dtype))
    array = pixels_of(block, exact=True)
    _maximum(array, check_local(local, len(array)), flat_output(out.view(array.dtype), array.shape[1]), STRETCH)


@numba.njit(nogil=True, cache=True)
def _maximum(pixels, local, out, tile):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for start in range(0, out.size, tile):
        target = out[start : start + tile]
        for i in range(local.size):
            part = pixels[local[i]][start : start + target.size]
            for k in range(part.size):
                value = part[k]
                target[k] = value if (value > target[k]) | (value != value) else target[k]  # noqa: PLR0124 (NaN is unequal to itself)


def binned_shape(detector: tuple[int, int], factor: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a detector binned by `factor`; a last box that is not full counts as one.

    Raises
    ------
    InputError
        A factor below one.
    """
    if min(factor) < 1:
        msg = f"binning factors are {factor}, expected whole numbers from 1 on; 1 leaves an axis as it is"
        raise InputError(msg, factor=factor)
    return -(-detector[0] // factor[0]), -(-detector[1] // factor[1])


def bin_detector(block: Array, local: Int64Array, out: Array, place: Int64Array, factor: tuple[int, int]) -> None:
    """Add frame ``local[i]``, summed over boxes of pixels, to ``out[place[i]]``.

    Nothing is lost: rows and columns that do not fill a box make a smaller last box.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, ceil(det_y / factor[0]), ceil(det_x / factor[1]))
        Added to. Any dtype that holds the largest possible box sum of one frame (float32 rounds beyond 2^24).
    factor
        Rows and columns of a box.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together, or sums that could overflow `out`.
    """
    detector = (block.shape[1], block.shape[2])
    pixels = pixels_of(block)
    local, place = check_rows(local, len(pixels), place, out, binned_shape(detector, factor))
    _check_room(block.dtype, factor[0] * factor[1], out.dtype)
    target = out.view(np.int64) if out.dtype == np.uint64 else out
    columns = wide_zeros(detector[1], pixels.dtype, factor[0])
    _bin_detector(pixels, local, target, place, columns, factor)


def _check_room(dtype: np.dtype[Any], n: int, out: np.dtype[Any]) -> None:
    """Refuse an output that cannot hold the sum of `n` pixels of `dtype`."""
    if out.kind == "f" or out.itemsize == 8:  # noqa: PLR2004 (64-bit sums of any box fit)
        check_kind(dtype, out)
        return
    limits = np.iinfo(np.uint8 if dtype == np.bool_ else dtype) if dtype.kind in "biu" else None
    if limits is None or limits.max * n > np.iinfo(out).max or limits.min * n < np.iinfo(out).min:
        msg = f"sums of {n} pixels of {dtype} do not fit {out}; allocate a wider output"
        raise InputError(msg, dtype=str(dtype), out=str(out), n_pixels=n)


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _bin_detector(pixels, local, out, place, columns, factor):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = columns.dtype.type
    n_columns = columns.size
    n_rows = pixels.shape[1] // max(n_columns, 1)
    for i in range(local.size):
        frame = pixels[local[i]]
        image = out[place[i]]
        for by in range(image.shape[0]):
            columns[:] = 0
            for row in range(by * factor[0], min((by + 1) * factor[0], n_rows)):
                part = frame[row * n_columns : (row + 1) * n_columns]
                for k in range(part.size):
                    columns[k] = kind(columns[k] + part[k])
            for bx in range(image.shape[1]):
                box = columns[bx * factor[1] : (bx + 1) * factor[1]]
                total = kind(0) + 0  # at least 64 bits
                for k in range(box.size):
                    total += box[k]
                image[by, bx] += total


def histogram(frames: Array, out: Int64Array, rows: tuple[int, int] | None = None) -> None:
    """Add the number of pixels of each value to `out`.

    Parameters
    ----------
    frames : shape (n, det_y, det_x), uint8 or uint16
    out : shape (65536,) or, for uint8, at least (256,), int64
        Added to; ``out[v]`` counts pixels of value v.
    rows
        First and end row of the part of the detector to look at (a sector); None for all.

    Raises
    ------
    InputError
        Another dtype, rows outside the detector, or an output that is too short.
    """
    if frames.dtype not in (np.uint8, np.uint16):
        msg = f"frames have dtype {frames.dtype}, expected uint8 or uint16; a histogram of values needs small integers"
        raise InputError(msg, dtype=str(frames.dtype))
    n_values = np.iinfo(frames.dtype).max + 1
    if out.dtype != np.int64 or out.ndim != 1 or len(out) < n_values:
        msg = f"the histogram has shape {out.shape} and dtype {out.dtype}, expected int64 of at least ({n_values},)"
        raise InputError(msg, shape=out.shape, dtype=str(out.dtype))
    pixels = pixels_of(frames)
    first, end = (0, frames.shape[1]) if rows is None else rows
    if not 0 <= first <= end <= frames.shape[1]:
        msg = f"rows {first}:{end} are not part of a detector of {frames.shape[1]} rows; give first and end row"
        raise InputError(msg, rows=rows, detector=frames.shape[1:])
    _histogram(pixels[:, first * frames.shape[2] : end * frames.shape[2]], out, n_values)


@numba.njit(nogil=True, cache=True)
def _histogram(pixels, out, n_values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    # four tables in turn: neighbouring pixels often have the same value, and each count would wait for the one before
    tables = np.zeros((4, n_values), dtype=np.int64)
    zero, one, two, three = tables[0], tables[1], tables[2], tables[3]
    for i in range(pixels.shape[0]):
        frame = pixels[i]
        quarter = frame.size // 4
        parts = (frame[:quarter], frame[quarter : 2 * quarter], frame[2 * quarter : 3 * quarter], frame[3 * quarter :])
        for k in range(quarter):
            zero[parts[0][k]] += 1
            one[parts[1][k]] += 1
            two[parts[2][k]] += 1
            three[parts[3][k]] += 1
        for k in range(quarter, parts[3].size):
            three[parts[3][k]] += 1
    for v in range(n_values):
        out[v] += zero[v] + one[v] + two[v] + three[v]
