"""Electron counting: local maxima of raw frames between two thresholds, as lists of detector pixels.

An electron leaves its charge in a few neighbouring pixels; the highest one is the event. Of a frame of 576 x 576 pixels
some hundred are above the background threshold, so the work per pixel is one vectorised comparison: each row is
looked at in blocks of 64 pixels, and only blocks with a pixel above threshold are searched for *candidates*. The eight
comparisons with the neighbours are made for candidates alone.

Both thresholds are turned into the smallest and the largest accepted value of the frames' own dtype, so that integer
frames are compared as integers and no value is ever cast. A dark reference of integers is folded into these limits: a
frame is compared with an image of its own dtype, and only candidates are subtracted, in 64 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.counting_maxima import DEAD, find_maxima

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt32Array

Rule = Literal["stemstore", "stempy"]

_MAX_PIXELS = 2**32  # flat indices are uint32
_SATURATED = 65535  # a 16-bit pixel at full scale carries no height
_FAR = 2**40  # beyond every difference of 32-bit integers, and far from the end of 64 bits


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """Thresholds as the compiled search takes them; made once for all frames of a scan.

    Attributes
    ----------
    shape, dtype
        Of the frames they are for.
    bounds, spans : shape (n_spans + 1,), (columns,)
        Borders of the column spans that have thresholds of their own, and the span of every column.
    low, last, never : shape (rows, n_spans)
        Smallest and largest accepted value, and where none is accepted.
    offset, reach : shape (rows, columns)
        Subtracted from every frame, and the smallest value of the frame that may be accepted; None without a dark.
    stempy
        Whether the rule is that of stempy.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    bounds: Int64Array
    spans: Int64Array
    low: Array
    last: Array
    never: BoolArray
    offset: Array | None
    reach: Array | None
    stempy: bool

    @classmethod
    def make(
        cls,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        background: ArrayLike,
        xray: ArrayLike | None,
        rule: Rule,
        *,
        bounds: Int64Array | None = None,
        offset: Array | None = None,
    ) -> Limits:
        """Turn thresholds into limits.

        Parameters
        ----------
        shape, dtype
            Of the frames.
        background, xray : unit ADU
            Excluded limits: one number, one per row, or shape (rows, n_spans). `xray` None: no upper limit.
        rule
            As in `count_frames`.
        bounds : shape (n_spans + 1,)
            Borders of the column spans; None for a single one.
        offset : shape (rows, columns), integers
            Dark reference that is subtracted; `stemstore.kernels.counting_maxima.DEAD` marks absent pixels.

        Raises
        ------
        InputError
            As in `count_frames`.
        """
        if rule not in get_args(Rule):
            known = ", ".join(get_args(Rule))
            msg = f"unknown counting rule {rule!r}, expected one of {known}; the default is 'stemstore'"
            raise InputError(msg, rule=rule)
        rows, columns = shape
        edges = np.array([0, columns], np.int64) if bounds is None else np.asarray(bounds, np.int64)
        levels = _levels(background, rows, len(edges) - 1, "a background threshold")
        tops = _levels(math.inf if xray is None else xray, rows, len(edges) - 1, "an X-ray threshold")
        kind = dtype if offset is None else np.dtype(np.int64)
        low, too_high = _each(levels, kind, _smallest_above)
        last, too_low = _each(tops, kind, _largest_below)
        if rule == "stemstore" and dtype == np.uint16 and offset is None:
            last = np.minimum(last, np.uint16(_SATURATED - 1))
        last[too_low] = np.iinfo(kind).min if kind.kind != "f" else -np.inf
        spans = np.searchsorted(edges, np.arange(columns), side="right").astype(np.int64) - 1
        reach = None
        if offset is not None:
            offset = np.ascontiguousarray(offset, np.int32)
            wanted = np.clip(low, -_FAR, _FAR)[:, spans] + offset
            reach = np.clip(wanted, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
        return cls(shape, dtype, edges, spans, low, last, too_high | too_low, offset, reach, rule == "stempy")

    def count(self, frames: Array) -> tuple[Int64Array, UInt32Array, Int64Array]:
        """Count frames of this shape and dtype.

        Returns
        -------
        indptr, indices
            As from `count_frames`.
        tallies : shape (n, 2), int64
            Pixels of every frame between the limits, and above them.

        Raises
        ------
        InputError
            The frames have another shape or dtype.
        """
        stack = _stack(frames)
        if stack.shape[1:] != self.shape or stack.dtype != self.dtype:
            msg = (
                f"frames have shape {stack.shape} and dtype {stack.dtype}, the limits are for {self.shape} of "
                f"{self.dtype}; make them for these frames"
            )
            raise InputError(msg, shape=stack.shape, dtype=str(stack.dtype))
        if stack.size == 0 or self.never.all():
            n = len(stack)
            return np.zeros(n + 1, np.int64), np.zeros(0, np.uint32), np.zeros((n, 2), np.int64)
        full = _SATURATED if not self.stempy and self.dtype == np.uint16 else -1
        uniform = self.offset is None and bool((self.last == self.last.flat[0]).all())
        places = (self.bounds, self.spans, self.low, self.last, self.never, self.offset, self.reach)
        found: tuple[Int64Array, UInt32Array, Int64Array] = find_maxima(stack, *places, full, uniform, self.stempy)
        return found


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
    stack = _stack(frames)
    limits = Limits.make((stack.shape[1], stack.shape[2]), stack.dtype, background, xray, rule)
    return limits.count(stack)[:2]


def fold_dark(dark: FloatArray | None, dead: BoolArray | None, shape: tuple[int, int]) -> Array | None:
    """Give the integer offsets of a dark reference and of dead pixels; None where there is nothing to subtract.

    Parameters
    ----------
    dark : shape (ky, kx)
        Whole numbers, below 2**30 in size.
    dead : shape (ky, kx)
        True at pixels that are absent.
    shape
        Detector rows and columns.
    """
    if dark is None and dead is None:
        return None
    offset = np.zeros(shape, np.int32) if dark is None else dark.astype(np.int32)
    if dead is not None:
        offset[dead] = DEAD
    return offset


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


def _levels(given: ArrayLike, rows: int, n_spans: int, what: str) -> FloatArray:
    """Give thresholds for every row and span."""
    levels = np.asarray(given, dtype=np.float64)
    fits = levels.ndim == 0 or levels.shape in ((rows,), (rows, n_spans))
    if not fits:
        msg = (
            f"{what} has shape {levels.shape}, expected one number or one per detector row ({rows},); give one of these"
        )
        raise InputError(msg, shape=levels.shape, rows=rows)
    if np.isnan(levels).any():
        msg = f"{what} is not a number; give a level in ADU, or an infinite one for no limit"
        raise InputError(msg)
    return np.broadcast_to(levels[:, None] if levels.ndim == 1 else levels, (rows, n_spans))


def _each(levels: FloatArray, dtype: np.dtype[Any], limit: Any) -> tuple[Array, BoolArray]:
    """Apply `limit` to every level, and tell where it found no value of `dtype`."""
    values = np.zeros(levels.shape, dtype)
    nothing = np.zeros(levels.shape, np.bool_)
    for level in np.unique(levels):  # as many as there are sectors
        value = limit(float(level), dtype)
        where = levels == level
        nothing[where] = value is None
        values[where] = 0 if value is None else value
    return values, nothing


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
