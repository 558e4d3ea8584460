"""A frame made ready for the search of disks: as float32 with a rim, and binned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.arguments import frozen
from stemstore.kernels.background import measure_background

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray
    from stemstore.kernels.background import Background

SHORT = 2  # bytes of the widest integers whose sums over bins float32 holds exactly


def loadable(frame: Array) -> Array:
    """Bring a frame to a dtype and layout that the compiled loops take."""
    if frame.dtype.kind == "b" or (frame.dtype.kind == "f" and frame.dtype.itemsize == 2):  # noqa: PLR2004 (half)
        frame = frame.astype(np.float32)
    return frozen(frame.astype(frame.dtype.newbyteorder("="), copy=False))


def offset_of(frame: Array) -> float:
    """Give what is taken off every pixel so that float32 holds the rest: nothing for few-bit integers."""
    if frame.dtype.kind in "ui" and frame.dtype.itemsize <= SHORT:
        return 0.0
    some = frame[:: max(1, frame.shape[0] // 32), :: max(1, frame.shape[1] // 32)].astype(np.float64)
    known = some[np.isfinite(some)]
    return float(np.median(known)) if known.size else 0.0


@numba.njit(nogil=True, cache=True)
def load(frame: Array, bad: BoolArray, offset: float, image: Array, margin: int) -> int:
    """Write frame minus offset as float32 into the middle of `image`; bad pixels become 0.

    Returns the number of others that are not finite, which become 0, too.
    """
    missing = 0
    for row in range(frame.shape[0]):
        missing += _load_row(frame[row], bad[row], offset, image[row + margin, margin : margin + frame.shape[1]])
    return missing


@numba.njit(nogil=True, cache=True)
def _load_row(values: Array, bad: BoolArray, offset: float, image: Array) -> int:
    missing = 0
    for j in range(len(values)):
        value = np.float64(values[j]) - offset  # before rounding: counts may exceed 2^24
        finite = abs(value) < np.inf
        image[j] = np.float32(value if finite & (not bad[j]) else 0.0)
        missing += (not finite) & (not bad[j])
    return missing


@numba.njit(nogil=True, cache=True)
def fill(frame: Array, bad: BoolArray, image: Array, margin: int) -> None:
    """Give every missing pixel the mean of the good ones in the smallest square around it (up to 7 x 7) that has any.

    Missing are those that are not bad and not finite: they differ from frame to frame.
    """
    rows, columns = frame.shape
    for row in range(rows):
        for column in range(columns):
            if bad[row, column] or np.isfinite(frame[row, column]):
                continue
            for half in range(1, 4):
                total, n = 0.0, 0
                for i in range(max(0, row - half), min(rows, row + half + 1)):
                    for j in range(max(0, column - half), min(columns, column + half + 1)):
                        if not bad[i, j] and np.isfinite(frame[i, j]):
                            total += image[i + margin, j + margin]
                            n += 1
                if n > 0:
                    image[row + margin, column + margin] = np.float32(total / n)
                    break


@numba.njit(nogil=True, cache=True)
def shrink(image: Array, margin: int, size: int, shape: tuple[int, int], binned: Array) -> None:
    """Sum squares of `size` px of a frame of `shape` into the corner of `binned`; the last ones may be smaller."""
    for i in range(-(-shape[0] // size)):
        target = binned[i, : -(-shape[1] // size)]
        target[:] = np.float32(0)
        for row in range(i * size, min((i + 1) * size, shape[0])):
            values = image[row + margin, margin : margin + shape[1]]
            if size == 1:
                target[:] = values
            elif size == 2:  # noqa: PLR2004 (the usual size, known to the compiler: several times as fast)
                _add_pairs(values, target)
            else:
                _add_runs(values, size, target)


@numba.njit(nogil=True, cache=True)
def _add_pairs(values: Array, target: Array) -> None:
    pairs = len(values) // 2
    for j in range(pairs):
        target[j] += values[2 * j] + values[2 * j + 1]
    if pairs < len(target):
        target[pairs] += values[2 * pairs]


@numba.njit(nogil=True, cache=True)
def _add_runs(values: Array, size: int, target: Array) -> None:
    for j in range(len(target)):
        total = np.float32(0)
        for column in range(j * size, min((j + 1) * size, len(values))):
            total += values[column]
        target[j] += total


@numba.njit(nogil=True, cache=True)
def subtract(binned: Array, bins: Array, level: float) -> float:
    """Take the level of a whole bin off the bins, as far as they are visible; gives the norm of what is left."""
    norm = 0.0
    for i in range(bins.shape[0]):
        norm += _subtract_row(binned[i], bins[i], level)
    return math.sqrt(norm)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def _subtract_row(values: Array, shares: Array, level: float) -> float:
    norm = np.float32(0)
    for j in range(len(shares)):
        left = np.float32(np.float64(values[j]) - level * shares[j])
        values[j] = left
        norm += left * left
    return np.float64(norm)


@numba.njit(nogil=True, cache=True)
def make_ready(
    frame: Array,
    hidden: tuple[BoolArray, Array],
    offset: float,
    counted: bool,
    buffers: tuple[Array, Array],
    sizes: tuple[int, int, int],
) -> tuple[Background, float]:
    """Do all of the above to a frame, in one call: threads take turns between calls.

    Parameters
    ----------
    frame
        From `loadable`.
    hidden
        Bad pixels, and the visible share of every bin.
    offset, counted
        From `offset_of`, and whether the counts are whole electrons.
    buffers
        From `stemstore.kernels.correlation.workspace`: filled with the frame, and with its bins minus their level.
    sizes
        Margin, side of a bin, side of the tiles of `measure_background`.

    Returns
    -------
    noise, norm
        Level and noise of the frame, and the norm of the bins.
    """
    (bad, bins), (image, binned), (margin, size, tile) = hidden, buffers, sizes
    if load(frame, bad, offset, image, margin) > 0:
        fill(frame, bad, image, margin)
    shrink(image, margin, size, frame.shape, binned)
    noise = measure_background(binned, bins, size, tile, offset, counted)
    return noise, subtract(binned, bins, (noise.level - offset) * size**2)
