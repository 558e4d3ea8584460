"""How events are stored: gaps between sorted detector indices, 16 bits each.

The events of a frame are sorted by flat detector index. Each is stored as its distance to the one before, the first as
its distance from pixel 0. A distance of 0 is another electron in the same pixel (or, at the head of a frame, an
electron in pixel 0). The value 65535 is no event: it adds 65535 to the distance that follows, as often as needed.
Frame f owns the *slots* ``gap[offsets[f]:offsets[f + 1]]``; with such escapes there are more slots than events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels.arguments import check_local, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array, UInt16Array, UInt32Array

ESCAPE = 65535
"""Value of a slot that is no event but adds 65535 to the next distance."""

NEAR_SLOTS = 2**19
"""Slots of events that are altered at a time: they stay in the cache."""


def encode(indptr: Int64Array, indices: Array, n_pixels: int | None = None) -> tuple[UInt16Array, UInt32Array]:
    """Code event lists as gaps.

    Parameters
    ----------
    indptr : shape (n + 1,)
        Events of frame f are ``indices[indptr[f]:indptr[f + 1]]``.
    indices : shape (m,)
        Flat detector index of every event, in any order and as often as there were electrons; stays unchanged.
    n_pixels
        Pixels of the detector. None: indices are only checked to fit 32 bits.

    Returns
    -------
    gap : shape (n_slots.sum(),), uint16
    n_slots : shape (n,), uint32
        Slots of every frame.

    Raises
    ------
    InputError
        `indptr` does not describe `indices`, or an index lies outside the detector.
    """
    bounds = frozen(np.asarray(indptr, dtype=np.int64))
    events = np.asarray(indices)
    if events.ndim != 1 or (events.size and events.dtype.kind not in "iu"):
        msg = f"event indices have shape {events.shape} and dtype {events.dtype}, expected a list of integers"
        raise InputError(msg, shape=events.shape, dtype=str(events.dtype))
    if bounds.ndim != 1 or not bounds.size or bounds[0] < 0 or bounds[-1] > events.size or (np.diff(bounds) < 0).any():
        msg = f"indptr does not describe {events.size} events; it must rise from 0 to at most that number"
        raise InputError(msg, n_events=events.size)
    limit = 2**32 if n_pixels is None else int(n_pixels)
    _check_indices(bounds, events, limit)
    events = frozen(events.astype(np.uint32, copy=False))
    if _any_unsorted(bounds, events):
        events = events.copy()
        _sort_frames(bounds, events)
        events = frozen(events)
    n_slots = np.empty(bounds.size - 1, dtype=np.uint32)
    _count_slots(bounds, events, n_slots)
    gap = np.empty(int(n_slots.sum(dtype=np.int64)), dtype=np.uint16)
    _write_gaps(bounds, events, gap)
    return gap, n_slots


def _check_indices(indptr: Int64Array, events: Array, limit: int) -> None:
    """Refuse events outside the detector, naming the first one."""
    used = events[indptr[0] : indptr[-1]]
    if not used.size or (int(used.max()) < limit and int(used.min()) >= 0):
        return
    position = int(np.flatnonzero((used < 0) | (used >= limit))[0] + indptr[0])
    frame = int(np.searchsorted(indptr, position, side="right")) - 1
    msg = (
        f"frame {frame} has an event at pixel {int(events[position])} but the detector has pixels 0 to {limit - 1}; "
        "check the frame shape"
    )
    raise InputError(msg, frame=frame, index=int(events[position]), n_pixels=limit)


@numba.njit(nogil=True, cache=True)
def _any_unsorted(indptr, indices):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for f in range(indptr.size - 1):
        part = indices[indptr[f] : indptr[f + 1]]
        for k in range(1, part.size):
            if part[k] < part[k - 1]:
                return True
    return False


@numba.njit(nogil=True, cache=True)
def _sort_frames(indptr, indices):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for f in range(indptr.size - 1):
        indices[indptr[f] : indptr[f + 1]].sort()


@numba.njit(nogil=True, cache=True)
def _count_slots(indptr, indices, n_slots):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for f in range(n_slots.size):
        previous, n = np.int64(0), np.int64(0)
        for k in range(indptr[f], indptr[f + 1]):
            index = np.int64(indices[k])
            n += 1
            if index - previous >= ESCAPE:  # rare, which spares the division
                n += (index - previous) // ESCAPE
            previous = index
        n_slots[f] = n


@numba.njit(nogil=True, cache=True)
def _write_gaps(indptr, indices, gap):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    slot = 0
    for f in range(indptr.size - 1):
        previous = np.int64(0)
        for k in range(indptr[f], indptr[f + 1]):
            index = np.int64(indices[k])
            distance = index - previous
            while distance >= ESCAPE:
                gap[slot] = ESCAPE
                slot += 1
                distance -= ESCAPE
            gap[slot] = distance
            slot += 1
            previous = index


def slot_offsets(n_slots: UInt32Array) -> Int64Array:
    """Give the first slot of every frame, and the end, from the number of slots of each.

    Parameters
    ----------
    n_slots : shape (n,)

    Returns
    -------
    offsets : shape (n + 1,), int64
    """
    offsets = np.zeros(len(n_slots) + 1, dtype=np.int64)
    np.cumsum(n_slots, out=offsets[1:])
    return offsets


def runs_of_slots(slots: Int64Array) -> Iterator[slice]:
    """Cut frames, of `slots` slots each, into runs of about `NEAR_SLOTS` slots, at least a frame."""
    ends = np.cumsum(slots)
    first = 0
    while first < len(slots):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + NEAR_SLOTS, side="right")))
        yield slice(first, last)
        first = last


def decode(gap: UInt16Array, offsets: Int64Array) -> tuple[Int64Array, UInt32Array]:
    """Turn gaps back into event lists; the inverse of `encode`.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.

    Returns
    -------
    indptr : shape (n + 1,), int64
    indices : shape (m,), uint32
        Ascending within a frame.

    Raises
    ------
    CorruptDataError
        The offsets do not describe the gaps, or an index exceeds 32 bits.
    """
    everything = np.arange(len(offsets) - 1, dtype=np.int64)
    gap, offsets, _ = check_block(gap, offsets, everything, 2**32)
    indptr = np.zeros(len(offsets), dtype=np.int64)
    indices = np.empty(int(offsets[-1] - offsets[0]), dtype=np.uint32)
    n = _decode(gap, offsets, indptr, indices)
    return indptr, indices[:n].copy() if n < indices.size else indices


@numba.njit(nogil=True, cache=True)
def _decode(gap, offsets, indptr, indices):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    n = 0
    for f in range(offsets.size - 1):
        index = 0
        for k in range(offsets[f], offsets[f + 1]):
            index += gap[k]
            if gap[k] != ESCAPE:
                indices[n] = index
                n += 1
        indptr[f + 1] = n
    return n


def check_block(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, n_pixels: int
) -> tuple[UInt16Array, Int64Array, Int64Array]:
    """Check that the frames asked for lie in the block and on the detector; give the arguments read-only.

    The sum of the gaps of a frame is its last pixel, so that this costs one vectorised sum.

    Raises
    ------
    InputError
        A frame that the block does not have.
    CorruptDataError
        Slots outside the block, or events outside the detector.
    """
    if gap.dtype != np.uint16 or gap.ndim != 1 or len(offsets) < 1:
        msg = (
            f"gaps have shape {gap.shape} and dtype {gap.dtype} with {len(offsets)} offsets, expected a list of uint16"
        )
        raise InputError(msg, shape=gap.shape, dtype=str(gap.dtype))
    slots, bounds = frozen(gap), frozen(np.asarray(offsets, dtype=np.int64))
    frames = check_local(local, len(bounds) - 1)
    wrong = _first_beyond(slots, bounds, frames, n_pixels)
    if wrong >= 0:
        frame = int(frames[wrong])
        begin, end = int(bounds[frame]), int(bounds[frame + 1])
        if 0 <= begin <= end <= len(slots):
            last = int(slots[begin:end].sum(dtype=np.int64))
            found = f"its last slot is an escape or its events reach pixel {last} of {n_pixels} pixels"
        else:
            found = f"its slots are {begin}:{end} but the block has {len(slots)}"
        msg = f"frame {frame} of the event block is damaged: {found}; verify the store or convert the scan again"
        raise CorruptDataError(msg, frame=frame, n_pixels=n_pixels)
    return slots, bounds, frames


@numba.njit(nogil=True, cache=True)
def _first_beyond(gap, offsets, local, n_pixels):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(local.size):
        begin, end = offsets[local[i]], offsets[local[i] + 1]
        if begin < 0 or end < begin or end > gap.size:
            return i
        part = gap[begin:end]
        last = np.int64(0)
        for k in range(part.size):
            last += part[k]
        if part.size > 0 and (last >= n_pixels or part[part.size - 1] == ESCAPE):
            return i
    return -1
