"""Electron counting: local maxima of raw frames between two thresholds, as lists of detector pixels.

An electron leaves its charge in a few neighbouring pixels; the highest one is the event. Of a frame of 576 x 576 pixels
some hundred are above the background threshold, so the work per pixel is one vectorised comparison: each row is
looked at in blocks of 64 pixels, and only blocks with a pixel above threshold are searched for *candidates*. The eight
comparisons with the neighbours are made for candidates alone.

Both thresholds are turned into the smallest and the largest accepted value of the frames' own dtype, so that integer
frames are compared as integers and no value is ever cast.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import numba
import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from stemstore._types import Array, BoolArray, Int64Array, UInt32Array

Rule = Literal["stemstore", "stempy"]

_BLOCK = 64  # pixels per comparison block: two to four vector registers of 16-bit values
_FIRST_EVENTS = 1024  # events per frame that the first output buffer holds; it grows when that is too few
_MAX_PIXELS = 2**32  # flat indices are uint32
_SATURATED = 65535  # a 16-bit pixel at full scale carries no height


def count_frames(
    frames: Array, background: ArrayLike, xray: float | None = None, rule: Rule = "stemstore"
) -> tuple[Int64Array, UInt32Array]:
    """Count electrons: list the local maxima of every frame.

    A pixel is a candidate when its value lies in the open interval from `background` to `xray`. What comes out are
    pixels, not energies or sub-pixel positions; pedestal and gain are as in the frames.

    Parameters
    ----------
    frames : shape (n, det_y, det_x), ADU
        Any integer or real float dtype. NaN marks a dead pixel: never an event, and absent as a neighbour.
    background : unit ADU
        Lower limit, excluded: one number, or one per detector row (a sector of the detector is a band of rows).
    xray : unit ADU
        Upper limit, excluded. None: no limit.
    rule
        ``"stemstore"``: a candidate that is higher than its earlier neighbours (in raster order) and not lower than
        its later ones, with no neighbour at or above `xray`; the first pixel of a plateau wins. Saturated 16-bit
        pixels (65535) count as X-rays even without a limit. ``"stempy"``: values outside the interval are set to zero,
        and a candidate must be higher than all its neighbours; equal neighbours extinguish each other.

    Returns
    -------
    indptr : shape (n + 1,), int64
        Events of frame f are ``indices[indptr[f]:indptr[f + 1]]``.
    indices : shape (m,), uint32
        Flat detector index ``row * det_x + column``, ascending within a frame, never twice.

    Raises
    ------
    InputError
        Unknown rule, frames that are not a stack of real numbers, or thresholds that are not numbers.

    Notes
    -----
    Memory: the result and at most one more copy of it, plus one worst-case frame (no two events touch, so a quarter
    of the pixels). The rule ``"stempy"`` restates the counting of OpenChemistry/stempy 3.6.
    """
    if rule not in get_args(Rule):
        msg = f"unknown counting rule {rule!r}, expected one of {', '.join(get_args(Rule))}; the default is 'stemstore'"
        raise InputError(msg, rule=rule)
    stack = _stack(frames)
    rows = stack.shape[1]
    cut, empty_rows = _cuts(background, rows, stack.dtype)
    limit = math.inf if xray is None else float(xray)
    if math.isnan(limit):
        msg = "the X-ray threshold is not a number; give a level in ADU, or None for no upper limit"
        raise InputError(msg, xray=xray)
    last = _largest_below(limit, stack.dtype)
    if rule == "stemstore" and stack.dtype == np.uint16 and last is not None:
        last = min(last, np.uint16(_SATURATED - 1))
    if stack.size == 0 or last is None or empty_rows.all():
        return np.zeros(len(stack) + 1, dtype=np.int64), np.zeros(0, dtype=np.uint32)
    return _count(stack, cut, empty_rows, last, rule == "stempy")


def _stack(frames: Array) -> Array:
    """Check the frames and give them as a read-only C-contiguous native array (one compiled form per dtype)."""
    array = np.asarray(frames)
    if array.ndim != 3 or array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or array.dtype == np.float16:  # noqa: PLR2004 (frames, rows, columns; 8 bytes: no extended floats)
        msg = (
            f"frames have shape {array.shape} and dtype {array.dtype}, expected (n, rows, columns) of integers, "
            "float32 or float64; reshape or cast them first"
        )
        raise InputError(msg, shape=array.shape, dtype=str(array.dtype))
    if array.shape[1] * array.shape[2] > _MAX_PIXELS:
        msg = (
            f"frames of {array.shape[1:]} pixels exceed the range of 32-bit event indices; count parts of the detector"
        )
        raise InputError(msg, shape=array.shape)
    stack = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).view()
    stack.flags.writeable = False
    return stack


def _cuts(background: ArrayLike, rows: int, dtype: np.dtype[Any]) -> tuple[Array, BoolArray]:
    """Smallest accepted value of each detector row, and the rows in which no value of `dtype` is accepted."""
    levels = np.asarray(background, dtype=np.float64)
    if levels.ndim > 1 or (levels.ndim == 1 and len(levels) != rows):
        msg = f"background thresholds have shape {levels.shape}, expected one number or one per detector row ({rows},)"
        raise InputError(msg, shape=levels.shape, rows=rows)
    if np.isnan(levels).any():
        msg = "a background threshold is not a number; give a level in ADU, or -inf to accept every value"
        raise InputError(msg)
    cut = np.zeros(rows, dtype=dtype)
    unreachable = np.zeros(rows, dtype=np.bool_)
    for level in np.unique(levels):  # as many as there are sectors
        value = _smallest_above(float(level), dtype)
        where = np.broadcast_to(levels == level, rows)
        unreachable[where] = value is None
        cut[where] = 0 if value is None else value
    return cut, unreachable


def _smallest_above(level: float, dtype: np.dtype[Any]) -> Any:
    """Smallest value of `dtype` above `level`; None when there is none."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # a level beyond the range of float32 becomes infinite, which is meant
            value = dtype.type(level)
        value = value if float(value) > level else np.nextafter(value, dtype.type(np.inf))
        return value if float(value) > level else None
    info = np.iinfo(dtype)
    if level < info.min:
        return dtype.type(info.min)
    if level == math.inf or math.floor(level) + 1 > info.max:
        return None
    return dtype.type(math.floor(level) + 1)


def _largest_below(level: float, dtype: np.dtype[Any]) -> Any:
    """Largest value of `dtype` below `level`; None when there is none."""
    if dtype.kind == "f":
        opposite = _smallest_above(-level, dtype)
        return None if opposite is None else -opposite
    info = np.iinfo(dtype)
    if level > info.max:
        return dtype.type(info.max)
    if level == -math.inf or math.ceil(level) - 1 < info.min:
        return None
    return dtype.type(math.ceil(level) - 1)


@numba.njit(nogil=True, cache=True)
def _count(stack, cut, empty_rows, last, stempy):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Count all frames into a buffer that always has room for one worst-case frame."""
    n, n_rows, n_columns = stack.shape
    worst = ((n_rows + 1) // 2) * ((n_columns + 1) // 2)
    indptr = np.zeros(n + 1, dtype=np.int64)
    indices = np.empty(worst + n * min(worst, _FIRST_EVENTS), dtype=np.uint32)
    candidates = np.empty(n_columns, dtype=np.int64)
    filled = 0
    for f in range(n):
        if filled + worst > indices.size:
            grown = np.empty(2 * indices.size, dtype=np.uint32)
            grown[:filled] = indices[:filled]
            indices = grown
        frame = stack[f]
        for row in range(n_rows):
            if empty_rows[row]:
                continue
            found = _find_candidates(frame[row], cut[row], last, candidates)
            for k in range(found):
                column = candidates[k]
                if stempy:
                    event = _beats_thresholded(frame, row, column, cut, last, empty_rows)
                else:
                    event = _wins_in_raster_order(frame, row, column)
                if event:
                    indices[filled] = row * n_columns + column
                    filled += 1
        indptr[f + 1] = filled
    return indptr, indices[:filled].copy()


@numba.njit(nogil=True, cache=True)
def _find_candidates(line, low, last, candidates):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """List the columns whose value is accepted; give their number."""
    found = 0
    for start in range(0, line.size, _BLOCK):
        part = line[start : start + _BLOCK]
        if not _reaches(part, low):
            continue
        for k in range(part.size):
            if low <= part[k] <= last:
                candidates[found] = start + k
                found += 1
    return found


@numba.njit(nogil=True, cache=True)
def _reaches(part, low):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Whether any value is at least `low`; both forms vectorise, the maximum only where there is no NaN to order."""
    if part.dtype.type(0.5) > 0:  # real numbers; decided when it is compiled
        hit = False
        for k in range(part.size):
            hit |= part[k] >= low
        return hit
    highest = part[0]
    for k in range(part.size):
        highest = max(highest, part[k])
    return highest >= low


@numba.njit(nogil=True, cache=True)
def _wins_in_raster_order(frame, row, column):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Whether no neighbour before is as high and none after is higher.

    An X-ray in the ring is higher than any candidate, so that it needs no test of its own.
    """
    value = frame[row, column]
    if 0 < row < frame.shape[0] - 1 and 0 < column < frame.shape[1] - 1:
        above, line, below = frame[row - 1], frame[row], frame[row + 1]
        beaten = (above[column - 1] >= value) | (above[column] >= value) | (above[column + 1] >= value)
        beaten |= (line[column - 1] >= value) | (line[column + 1] > value)
        beaten |= (below[column - 1] > value) | (below[column] > value) | (below[column + 1] > value)
        return not beaten
    for r in range(max(row - 1, 0), min(row + 2, frame.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, frame.shape[1])):
            other = frame[r, c]
            if other > value or (other == value and (r < row or (r == row and c < column))):
                return False
    return True


@numba.njit(nogil=True, cache=True)
def _beats_thresholded(frame, row, column, cut, last, empty_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Whether all neighbours are lower, once values outside the interval are zero."""
    value = frame[row, column]
    for r in range(max(row - 1, 0), min(row + 2, frame.shape[0])):
        line = frame[r]
        for c in range(max(column - 1, 0), min(column + 2, frame.shape[1])):
            if r == row and c == column:
                continue
            other = line[c]
            accepted = (not empty_rows[r]) and cut[r] <= other <= last
            if (accepted and other >= value) or (not accepted and value <= 0):
                return False
    return True
