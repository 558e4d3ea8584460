"""Compiled search for local maxima between two limits; `stemstore.kernels.counting` is its door.

A pixel's value is what the frame holds, or, where an offset image is given, the frame minus that image in 64-bit
integers, so that nothing wraps around. Pixels whose offset is `DEAD` are absent, as are NaN pixels.
"""

from __future__ import annotations

import numba
import numpy as np

DEAD = 2**30
"""Offset of a pixel that is neither an event nor a neighbour."""

_BLOCK = 64  # pixels per comparison block: two to four vector registers of 16-bit values
_FIRST_EVENTS = 1024  # events per frame that the first output buffer holds; it grows when that is too few


@numba.njit(nogil=True, cache=True)
def find_maxima(stack, bounds, spans, low, last, never, offset, reach, saturated, uniform, stempy):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201, PLR0913, PLR0917 (typed by numba, called once)
    """List the events of all frames, in a buffer that always has room for one worst-case frame.

    Parameters
    ----------
    stack : shape (n, rows, columns)
    bounds, spans : shape (n_spans + 1,), (columns,)
        Borders of the column spans, and the span of every column.
    low, last, never : shape (rows, n_spans)
        Smallest and largest accepted value, and where none is accepted.
    offset, reach : shape (rows, columns), or None
        Subtracted from every frame, and the smallest value of the frame itself that may be accepted.
    saturated
        Value of the frame from which on a pixel is an X-ray, beside `last`; negative: none.
    uniform
        Whether `last` is the same everywhere and there is no offset.
    stempy
        Which rule.

    Returns
    -------
    indptr : shape (n + 1,), int64
    indices : shape (m,), uint32
    tallies : shape (n, 2), int64
        Pixels of every frame between the limits, and above them.
    """
    n, n_rows, n_columns = stack.shape
    worst = ((n_rows + 1) // 2) * ((n_columns + 1) // 2)
    indptr = np.zeros(n + 1, dtype=np.int64)
    tallies = np.zeros((n, 2), dtype=np.int64)
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
            for s in range(bounds.size - 1):
                if never[row, s]:
                    continue
                limits = (low[row, s], last[row, s])
                found, above = _find(frame, row, bounds[s], bounds[s + 1], limits, offset, reach, saturated, candidates)
                tallies[f, 0] += found
                tallies[f, 1] += above
                for k in range(found):
                    column = candidates[k]
                    if stempy:
                        event = _beats_thresholded(frame, row, column, spans, low, last, never, offset)
                    elif uniform:
                        event = _wins_in_raster_order(frame, row, column)
                    else:
                        event = _wins_among_regions(frame, row, column, spans, last, offset, saturated)
                    if event:
                        indices[filled] = row * n_columns + column
                        filled += 1
        indptr[f + 1] = filled
    return indptr, indices[:filled].copy(), tallies


@numba.njit(nogil=True, cache=True)
def _find(frame, row, first, stop, limits, offset, reach, saturated, candidates):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0913, PLR0917 (typed by numba; None decides what is compiled)
    """List the columns of a span whose value is accepted; give their number, and that of the columns above."""
    found, above = 0, 0
    low, last = limits
    line = frame[row, first:stop]
    for start in range(0, line.size, _BLOCK):
        part = line[start : start + _BLOCK]
        if offset is None:
            if not _reaches(part, low):
                continue
        elif not _reaches_each(part, reach[row, first + start : first + start + _BLOCK]):
            continue
        for k in range(part.size):
            column = first + start + k
            value = pixel_value(frame, offset, row, column)
            if value >= low:
                if value <= last and not _is_full(frame, offset, row, column, saturated):
                    candidates[found] = column
                    found += 1
                else:
                    above += 1
    return found, above


@numba.njit(nogil=True, cache=True)
def pixel_value(frame, offset, row, column):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 (typed by numba)
    """Give what a pixel is compared by: what the frame holds, or its difference to the offset in 64 bits."""
    if offset is None:
        return frame[row, column]
    return np.int64(frame[row, column]) - np.int64(offset[row, column])


@numba.njit(nogil=True, cache=True)
def _is_full(frame, offset, row, column, saturated):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Whether a pixel is at full scale; without an offset the upper limit says so."""
    if offset is None:
        return False
    return 0 <= saturated <= np.int64(frame[row, column])


@numba.njit(nogil=True, cache=True)
def is_absent(frame, offset, row, column):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 (typed by numba)
    """Whether a pixel is dead, and so neither an event nor a neighbour."""
    if offset is None:
        return frame[row, column] != frame[row, column]  # NaN
    return offset[row, column] == DEAD


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
def _reaches_each(part, reach):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Whether any value is at least its own limit."""
    hit = False
    for k in range(part.size):
        hit |= part[k] >= reach[k]
    return hit


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
def _wins_among_regions(frame, row, column, spans, last, offset, saturated):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Apply the same rule where values are differences or upper limits differ, so that X-rays are looked for."""
    value = pixel_value(frame, offset, row, column)
    for r in range(max(row - 1, 0), min(row + 2, frame.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, frame.shape[1])):
            if (r == row and c == column) or is_absent(frame, offset, r, c):
                continue
            other = pixel_value(frame, offset, r, c)
            if other > last[r, spans[c]] or _is_full(frame, offset, r, c, saturated):
                return False
            if other > value or (other == value and (r < row or (r == row and c < column))):
                return False
    return True


@numba.njit(nogil=True, cache=True)
def _beats_thresholded(frame, row, column, spans, low, last, never, offset):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba)
    """Whether all neighbours are lower, once values outside the interval are zero."""
    value = pixel_value(frame, offset, row, column)
    for r in range(max(row - 1, 0), min(row + 2, frame.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, frame.shape[1])):
            if (r == row and c == column) or is_absent(frame, offset, r, c):
                continue
            other, s = pixel_value(frame, offset, r, c), spans[c]
            accepted = (not never[r, s]) and low[r, s] <= other <= last[r, s]
            if (accepted and other >= value) or (not accepted and value <= 0):
                return False
    return True
