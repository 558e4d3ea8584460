"""Frames that lie anywhere in files, whole or in bands of rows: one offset per scan position and band."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.frame_extents import NOWHERE, FrameExtents, not_as_they_are
from stemstore.sources.geometry import check_range
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks, swap_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore._types import Array, Int64Array
    from stemstore.sources.contract import DetectorImage
    from stemstore.sources.geometry import ValidityArray
    from stemstore_schemas import SourceMetadata


PIECE = 2**18
"""Bytes that are exchanged at once: they stay in the second-level cache."""


def turn_over(frames: Array) -> None:
    """Put the last row of every frame first, in place; some rows at a time are exchanged with those across."""
    n_rows = frames.shape[1]
    step = max(1, PIECE // max(1, frames[0, 0].nbytes)) if len(frames) else 1
    for frame in frames:
        for first in range(0, n_rows // 2, step):
            last = min(first + step, n_rows // 2)
            upper, lower = frame[first:last], frame[n_rows - last : n_rows - first]
            kept = upper.copy()
            upper[:], lower[:] = lower[::-1], kept[::-1]


@dataclass(frozen=True, eq=False)
class Band:
    """A band of detector rows that one file holds.

    Attributes
    ----------
    path
        The file.
    offsets : shape (n_positions,), unit byte
        Where the band of every scan position starts; below zero where it is missing.
    first_row, n_rows
        Rows of the frame that the band fills.
    """

    path: str
    offsets: Int64Array
    first_row: int
    n_rows: int


@dataclass(frozen=True, eq=False)
class PlacedSource:
    """Frames put together from bands of rows; files are opened for every read and closed again.

    Attributes
    ----------
    bands
        Together all rows of the frame.
    file_dtype
        Pixel type in the byte order of the files.
    flip_rows
        Whether the files hold the last row of every frame first.
    references
        Images of the detector that the files know.
    """

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    bands: tuple[Band, ...]
    file_dtype: np.dtype[Any]
    flip_rows: bool = False
    references: Mapping[str, DetectorImage] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.file_dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        row = self.frame_shape[1] * self.dtype.itemsize
        frame = self.frame_shape[0] * row
        target = as_bytes(frames)
        for band in self.bands:
            offsets = band.offsets[start:stop]
            present = np.flatnonzero(offsets >= 0)
            places = present * frame + band.first_row * row
            read_blocks(band.path, offsets[present], band.n_rows * row, target, places)
        if self.file_dtype != self.dtype:
            swap_bytes(frames)
        if self.flip_rows:
            turn_over(frames)
        for band in self.bands:
            last = self.frame_shape[0] - band.first_row if self.flip_rows else band.first_row + band.n_rows
            missing = np.flatnonzero(band.offsets[start:stop] < 0)
            frames[missing, last - band.n_rows : last] = np.nan if self.dtype.kind == "f" else 0
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the bands of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        InputError
            The bands are not equally high.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        bands = sorted(self.bands, key=lambda band: band.first_row)
        files, rows = tuple(band.path for band in bands), bands[0].n_rows
        if any((band.first_row, band.n_rows) != (at * rows, rows) for at, band in enumerate(bands)):
            raise not_as_they_are(files, "come in bands of unequal height")
        offset = np.stack([np.where(band.offsets < 0, NOWHERE, band.offsets)[start:stop] for band in bands], axis=1)
        number = np.broadcast_to(np.arange(len(bands)), offset.shape)
        tile = (rows, self.frame_shape[1])
        return FrameExtents(files, number, offset, tile, self.file_dtype, rows_reversed=self.flip_rows)
