"""Patterns over many counted frames: sums, sums of squares, weighted sums, maxima; a number per detector pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.arguments import accumulator, check_weights, flat_output
from stemstore.kernels.event_frames import check_no_overflow
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array


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
    # two frames side by side: each waits for its own last pixel only
    for i in range(0, local.size, 2):
        one = gap[offsets[local[i]] : offsets[local[i] + 1]]
        two = one[:0] if i + 1 == local.size else gap[offsets[local[i + 1]] : offsets[local[i + 1] + 1]]
        both = min(one.size, two.size)
        first, second = np.int64(0), np.int64(0)
        for k in range(both):
            first += one[k]
            second += two[k]
            if one[k] != ESCAPE:
                out[first] += 1
            if two[k] != ESCAPE:
                out[second] += 1
        _add_rest(one[both:], first, out)
        _add_rest(two[both:], second, out)


@numba.njit(nogil=True, cache=True)
def _add_rest(part, index, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
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
    check_no_overflow(_maximum(gap, offsets, local, flat_output(out, out.size)), out)


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
