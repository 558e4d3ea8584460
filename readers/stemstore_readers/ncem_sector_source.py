"""Frames of NCEM 4D Camera files, assembled from where their parts lie."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.contract import MISSING, PARTIAL, VALID
from stemstore.sources.frame_extents import FrameExtents
from stemstore.sources.geometry import ValidityArray, check_range
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks, swap_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, BoolArray, Int64Array
    from stemstore_readers.ncem_sector_index import Layout
    from stemstore_schemas import SourceMetadata

    Fill = Callable[[str, Int64Array, Array, Int64Array], None]

FRAME_SHAPE = (576, 576)
PIXEL = np.dtype(np.uint16)

_COLUMN_FRAMES = 8
"""Frames of version 4 assembled at a time: 5 MB, so that the four modules of a frame meet in the processor's cache."""


@dataclass(frozen=True, eq=False)
class SectorSource:
    """Frames of one 4D Camera scan, assembled from their sectors when they are read.

    Attributes
    ----------
    files
        Data files by number.
    file_of, offset_of : shape (n_frames, n_modules)
        File number and byte offset of the pixels of every sector; -1 where it was lost.
    """

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    layout: Layout
    files: tuple[str, ...]
    file_of: np.ndarray[Any, np.dtype[np.int32]]
    offset_of: Int64Array
    validity: ValidityArray | None = field(init=False)
    frame_shape: tuple[int, int] = FRAME_SHAPE
    dtype: np.dtype[Any] = PIXEL

    def __post_init__(self) -> None:
        present = (self.offset_of >= 0).sum(axis=1)
        state = np.full(len(present), PARTIAL, dtype=np.uint8)
        state[present == 0] = MISSING
        state[present == self.layout.n_modules] = VALID
        object.__setattr__(self, "validity", None if (state == VALID).all() else state)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; lost sectors are zero.

        Parameters
        ----------
        start, stop
            Half-open range of flat scan positions.
        out : shape (stop - start, ky, kx), uint16, optional
            Buffer to fill.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, len(self.file_of))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), PIXEL)
        columns = self.layout.n_modules > 1 and self.layout.sector[1] < FRAME_SHAPE[1]
        step = _COLUMN_FRAMES if columns else max(len(frames), 1)
        for first in range(0, len(frames), step):
            self._assemble(start + first, frames[first : first + step], self._columns if columns else self._rows)
        if sys.byteorder == "big":
            swap_bytes(frames)
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the sectors of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        check_range(start, stop, len(self.file_of))
        number, offset = self.file_of[start:stop].astype(np.int64), self.offset_of[start:stop]
        tile = (self.layout.sector[0], self.layout.sector[1])
        return FrameExtents(self.files, number, offset, tile, PIXEL.newbyteorder("<"))

    def _assemble(self, start: int, frames: Array, fill: Fill) -> None:
        stop = start + len(frames)
        file_of, offset_of = self.file_of[start:stop].ravel(), self.offset_of[start:stop].ravel()
        self._clear(frames, file_of < 0)
        for number in set(file_of.tolist()) - {-1}:
            sectors = np.flatnonzero(file_of == number)
            fill(self.files[number], offset_of[sectors], frames, sectors)

    def _clear(self, frames: Array, lost: BoolArray) -> None:
        for sector in np.flatnonzero(lost).tolist():
            self._sector(frames, sector)[...] = 0

    def _sector(self, frames: Array, sector: int) -> Array:
        """View a sector of a batch, counted through all frames."""
        frame, module = divmod(sector, self.layout.n_modules)
        rows, columns = extent(self.layout, module)
        return frames[frame, slice(*rows), slice(*columns)]

    def _rows(self, path: str, offsets: Int64Array, frames: Array, sectors: Int64Array) -> None:
        """Read sectors that are runs of rows, or whole frames, straight to where they belong."""
        size = self.layout.pixel_bytes
        read_blocks(path, offsets, size, as_bytes(frames), sectors * size)

    def _columns(self, path: str, offsets: Int64Array, frames: Array, sectors: Int64Array) -> None:
        """Read sectors that are runs of columns, which no file read can scatter, by way of a small buffer."""
        scratch = np.empty((len(offsets), *self.layout.sector), dtype=PIXEL)
        places = np.arange(len(scratch), dtype=np.int64) * self.layout.pixel_bytes
        read_blocks(path, offsets, self.layout.pixel_bytes, as_bytes(scratch), places)
        for pixels, sector in zip(scratch, sectors.tolist(), strict=True):
            self._sector(frames, sector)[...] = pixels


def extent(layout: Layout, module: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns that a module fills."""
    rows, columns = layout.sector
    if columns < FRAME_SHAPE[1]:
        return (0, rows), (module * columns, (module + 1) * columns)
    return (module * rows, (module + 1) * rows), (0, columns)
