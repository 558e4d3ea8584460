"""What is measured beside the pixel of an event: its energy, and where in the pixel the electron arrived.

Both rest on the 3 x 3 box of the event, of which pixels take part that lie above the noise (mean of the pedestal plus
twice its width) and are no X-rays. With f the corrected frame and m the mean of the pedestal,

    energy = sum (f - m),    offset = sum (f - m) (place - event) / sum (f - m).

The pixels of two events that are two pixels apart are shared: both get their charge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from stemstore.kernels.counting_maxima import is_absent, pixel_value
from stemstore.kernels.gaps import ESCAPE

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array, UInt32Array
    from stemstore.kernels.counting import Limits

STEPS = 128
"""Steps per pixel in which offsets are given: -127 to 127 is less than a pixel on either side."""


def measure_events(
    frames: Array, indptr: Int64Array, indices: UInt32Array, limits: Limits, levels: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, Array]:
    """Measure energy and place of events.

    Parameters
    ----------
    frames : shape (n, rows, columns), ADU
        As they were counted.
    indptr, indices
        Events, from ``limits.count(frames)``.
    limits
        They tell of offsets, dead pixels and X-rays.
    levels : shape (rows, n_spans), ADU
        Mean of the pedestal, and the level above which a pixel takes part, for the column spans of `limits`.

    Returns
    -------
    energy : shape (m,), float64, ADU
        0 where no pixel of the box lies above the level.
    offsets : shape (m, 2), int8
        Along rows and columns, in steps of 1/128 pixel from the centre of the event's pixel.

    Notes
    -----
    Neighbours beyond the border, dead ones and X-rays take no part, so that their share of the charge is lost.
    """
    energy = np.zeros(len(indices), np.float64)
    offsets = np.zeros((len(indices), 2), np.int8)
    places = (limits.spans, limits.last, limits.offset)
    _measure(frames, indptr, indices, places, levels[0], levels[1], energy, offsets)
    return energy, offsets


@numba.njit(nogil=True, cache=True)
def _measure(frames, indptr, indices, places, mean, level, energy, offsets):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba, called once)
    spans, last, offset = places
    n_rows, n_columns = frames.shape[1:]
    for f in range(indptr.size - 1):
        frame = frames[f]
        for k in range(indptr[f], indptr[f + 1]):
            row, column = indices[k] // n_columns, indices[k] % n_columns
            total, down, right = 0.0, 0.0, 0.0
            for r in range(max(row - 1, 0), min(row + 2, n_rows)):
                for c in range(max(column - 1, 0), min(column + 2, n_columns)):
                    value, s = pixel_value(frame, offset, r, c), spans[c]
                    if is_absent(frame, offset, r, c) or value > last[r, s] or not value > level[r, s]:
                        continue
                    weight = np.float64(value) - mean[r, s]
                    total += weight
                    down += weight * (r - row)
                    right += weight * (c - column)
            if total > 0:
                energy[k] = total
                offsets[k, 0] = _steps(down / total)
                offsets[k, 1] = _steps(right / total)


@numba.njit(nogil=True, cache=True)
def _steps(offset):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Round to steps; neighbours of a region with a lower pedestal may bring an offset near a whole pixel."""
    return np.int8(min(max(np.rint(offset * STEPS), 1.0 - STEPS), STEPS - 1.0))


def over_slots(gap: UInt16Array, values: Array) -> Array:
    """Lay values of events over the slots of their gaps; a slot that is no event holds 0.

    Parameters
    ----------
    gap : shape (s,)
    values : shape (m,)
        In the order of the events; m slots are no escapes.

    Returns
    -------
    slots : shape (s,), of the dtype of `values`
    """
    if len(values) == len(gap):
        return values
    slots: Array = np.zeros(len(gap), values.dtype)
    slots[gap != ESCAPE] = values
    return slots


def smallest_type(largest: float, *, integers: bool) -> np.dtype[Any]:
    """Type of energies up to `largest` ADU: uint16 where the frames are integers and it fits, else float32."""
    fits = integers and largest <= np.iinfo(np.uint16).max
    return np.dtype(np.uint16 if fits else np.float32)
