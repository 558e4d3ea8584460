"""Where frames lie in files, for those who leave the pixels there: one byte offset per frame, or per part of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.sources.geometry import check_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stemstore._types import Int64Array

NOWHERE = -1
"""Offset of a tile that no file holds."""


@dataclass(frozen=True, eq=False)
class FrameExtents:
    """Where the pixels of frames lie: uncompressed, each tile in one piece, C order.

    Attributes
    ----------
    files
        Paths or URLs; one may be listed more than once.
    number, offset : shape (n, tiles), unit of the offset byte
        File, and place of the first pixel in it, of every tile of every frame; the offset is `NOWHERE` for a tile that
        was lost.
    tile
        Rows and columns of a tile; the tiles of a frame are numbered row by row and have all the same shape.
    dtype
        Pixel type in the byte order of the files.
    rows_reversed
        Whether the files hold the last row of every frame first.
    """

    files: tuple[str, ...]
    number: Int64Array
    offset: Int64Array
    tile: tuple[int, int]
    dtype: np.dtype[Any]
    rows_reversed: bool = False

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return math.prod(self.tile) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Run:
    """Records that follow each other in one file.

    Attributes
    ----------
    path
        The file.
    first, count
        Number of the first record, counted through all files, and how many there are.
    offset, stride : unit byte
        Where the pixels of the first record start, and how far it is to those of the next.
    """

    path: str
    first: int
    count: int
    offset: int
    stride: int


def extents_of_runs(
    wanted: Int64Array, runs: Iterable[Run], frame_shape: tuple[int, int], dtype: np.dtype[Any]
) -> FrameExtents:
    """Find frames that are records of files.

    Parameters
    ----------
    wanted : shape (n,)
        Number of the record of every frame; numbers that no run has are missing frames.
    runs
        The files.
    frame_shape, dtype
        Of a frame as stored.
    """
    number, offset = np.zeros(len(wanted), np.int64), np.full(len(wanted), NOWHERE, np.int64)
    files = []
    for at, run in enumerate(runs):
        files.append(run.path)
        here = (wanted >= run.first) & (wanted < run.first + run.count)
        number[here] = at
        offset[here] = run.offset + (wanted[here] - run.first) * run.stride
    return FrameExtents(tuple(files), number[:, None], offset[:, None], frame_shape, dtype)


def positions(start: int, stop: int, n_positions: int) -> Int64Array:
    """List the flat positions ``start <= i < stop``.

    Raises
    ------
    IndexError
        The range leaves the scan.
    """
    check_range(start, stop, n_positions)
    return np.arange(start, stop, dtype=np.int64)


def not_as_they_are(files: Iterable[str], why: str) -> InputError:
    """Describe frames that cannot be pointed at.

    Parameters
    ----------
    why
        What the files do with their pixels: "are compressed".
    """
    name = next(iter(files), "memory")
    msg = (
        f"the frames of {name!r} {why}, so that no reference can lead to plain pixels; convert the scan with "
        "stemstore.convert and use the store"
    )
    return InputError(msg, url=name)
