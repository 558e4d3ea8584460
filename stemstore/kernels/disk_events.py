"""Counted frames for the detection of disks, one at a time in a buffer that stays in the processor's cache."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numba
import numpy as np

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
    frame : shape `stored`, float32
        Electrons per pixel, valid until the next one is asked for. Pass it to `stemstore.kernels.disks.frame_disks`
        with ``counted=True``: the disks are those of the same frame as integers, to the last bit.

    Raises
    ------
    InputError, CorruptDataError
        Offsets or frames that do not belong together, or events outside the detector.

    Notes
    -----
    Detection needs the frame as float32 anyway; as integers it would be written and read once more, and a batch of
    frames leaves the cache. Memory per thread: one frame.
    """
    gap, offsets, local = check_block(gap, offsets, local, stored[0] * stored[1])
    buffers: dict[tuple[int, int], Array] = _scratch.__dict__.setdefault("frames", {})
    if stored not in buffers:
        buffers.clear()  # a thread works on one detector at a time: do not hoard
        buffers[stored] = np.empty(stored, np.float32)
    frame = buffers[stored]
    for number in local:
        scatter(gap, offsets, number, frame.reshape(-1))
        yield frame


@numba.njit(nogil=True, cache=True)
def scatter(gap: UInt16Array, offsets: Int64Array, number: int, frame: Array) -> None:
    """Count the electrons of one frame; events are known to lie on the detector."""
    frame[:] = 0
    index = np.uint64(0)
    for k in range(offsets[number], offsets[number + 1]):
        index += np.uint64(gap[k])
        if gap[k] != ESCAPE:
            frame[index] += np.float32(1)
