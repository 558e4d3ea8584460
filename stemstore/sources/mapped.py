"""Frames of a file seen where they already are: in the page cache, without a copy.

Copying out of the page cache costs more than adding up what is copied. A mapping avoids it, at a price: where a read
would report an error, touching a mapped page ends the process (SIGBUS). Pages are therefore mapped only for the
moment of their use, only while the file still has its size, and only when the kernel says that they are in memory, so
that no disk has to be asked. File systems that cannot tell (network file systems among them) and systems without the
question (Windows, macOS) are read in the ordinary way.
"""

from __future__ import annotations

import math
import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.location import location_of

if TYPE_CHECKING:
    from pathlib import Path

    from stemstore._types import Array

PROBE_BYTES = 2**20
"""Distance between the bytes whose presence in memory is asked for; read-ahead works in pieces of this order."""

_NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux 4.14: answer a read from memory or not at all


def view_block(path: str | Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """Map an array that lies in a file, if all of it is in memory.

    Parameters
    ----------
    path
        A file.
    offset : unit byte
        Where the array starts.
    shape, dtype
        Of the array, C order.

    Returns
    -------
    array
        Read-only; the mapping (and the file handle it holds) goes with the last reference. None where the array has
        to be read: it is not in memory as a whole, the file is too short or gone, the values are not aligned or not
        in native byte order, or the system cannot tell.

    Notes
    -----
    What remains: a file that another program shortens between this call and the last use of the array, or a page that
    leaves memory in that time and cannot be read again, ends the process. Keep the array for milliseconds.
    """
    length = math.prod(shape) * dtype.itemsize
    if _NOWAIT is None or not length or not dtype.isnative or offset % dtype.itemsize:
        return None
    if location_of(str(path)) is not None:  # on another machine
        return None
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _bring_in(handle, offset, length):
                return None
            pages = mmap.mmap(handle, offset - start + length, access=mmap.ACCESS_READ, offset=start)
        finally:
            os.close(handle)
    except (OSError, ValueError):  # ValueError: the file became shorter in between
        return None  # the ordinary read says what is wrong
    return np.frombuffer(pages, dtype, math.prod(shape), offset - start).reshape(shape)


def _bring_in(handle: int, offset: int, length: int) -> bool:
    """Make sure that a range is in memory by reading what is not; False where the file ends before it does.

    A disk that fails thus fails an ordinary read. Pages in between two places that were asked for may still be absent.
    """
    byte, piece = bytearray(1), None
    end = offset + length
    for at in (*range(offset, end, PROBE_BYTES), end - 1):
        try:
            got = os.preadv(handle, [byte], at, _NOWAIT or 0)
        except BlockingIOError:
            piece = piece or bytearray(PROBE_BYTES)
            got = os.preadv(handle, [piece], at)
        if not got:
            return False
    return True
