"""Counted frames for the detection of disks, one at a time in a buffer that stays in the processor's cache."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.event_frames import densify
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array, UInt16Array

_scratch = threading.local()


def electron_frames(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, stored: tuple[int, int]
) -> Iterator[Array]:
    """Make frames ``local[i]`` of a block of events dense, one after the other.

    Parameters
    ----------
    gap, offsets, local
        As a kernel's `events` takes them.
    stored
        Rows and columns of the stored detector.

    Yields
    ------
    frame : shape `stored`, uint16
        Electrons per pixel, valid until the next one is asked for.

    Raises
    ------
    InputError, CorruptDataError
        Offsets or frames that do not belong together, more electrons in a pixel than 16 bits hold, or events outside
        the detector.

    Notes
    -----
    One frame at a time: a batch leaves the cache. As float32 it would be twice as large and no faster to search.
    Memory per thread: one frame.
    """
    gap, offsets, local = check_block(gap, offsets, local, stored[0] * stored[1])
    buffers: dict[tuple[int, int], Array] = _scratch.__dict__.setdefault("frames", {})
    if stored not in buffers:
        buffers.clear()  # a thread works on one detector at a time: do not hoard
        buffers[stored] = np.empty(stored, np.uint16)
    frame = buffers[stored]
    for number in local:
        frame[...] = 0
        if offsets[number + 1] - offsets[number] <= np.iinfo(np.uint16).max:  # one pixel could hold them all
            scatter(gap, offsets, number, frame.reshape(-1))
        else:
            densify(gap, offsets, np.array([number]), frame.reshape(1, -1), np.zeros(1, np.int64))
        yield frame


@numba.njit(nogil=True, cache=True)
def scatter(gap: UInt16Array, offsets: Int64Array, number: int, frame: Array) -> None:
    """Add the electrons of one frame; events are known to lie on the detector, counts to fit."""
    index, slots = np.uint64(0), gap[offsets[number] : offsets[number + 1]]
    for k in range(slots.size):
        index += slots[k]
        if slots[k] != ESCAPE:
            frame[index] += np.uint16(1)
