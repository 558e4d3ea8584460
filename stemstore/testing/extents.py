"""Frames read by nothing but the references to their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemstore.sources.frame_extents import NOWHERE
from stemstore.sources.records import as_bytes, read_blocks

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.sources.frame_extents import FrameExtents


def read_extents(extents: FrameExtents, frame_shape: tuple[int, int]) -> Array:
    """Read frames by their extents alone; lost tiles are zero, NaN for floats.

    What a foreign reader of references does, to test `frame_extents` by; `read_frames` is the faster way.

    Raises
    ------
    TruncatedFileError, StorageError, NotFoundError
        A file cannot be read.
    """
    n, (rows, columns) = len(extents.offset), extents.tile
    tiles = np.empty((*extents.offset.shape, rows, columns), extents.dtype)
    flat, number, offset = tiles.reshape(-1, rows, columns), extents.number.reshape(-1), extents.offset.reshape(-1)
    flat[offset == NOWHERE] = np.nan if extents.dtype.kind == "f" else 0
    for at, path in enumerate(extents.files):
        here = np.flatnonzero((number == at) & (offset != NOWHERE))
        read_blocks(path, offset[here], extents.tile_bytes, as_bytes(flat), here * extents.tile_bytes)
    grid = (frame_shape[0] // rows, frame_shape[1] // columns)
    frames = tiles.reshape(n, *grid, rows, columns).swapaxes(2, 3).reshape(n, *frame_shape)
    return frames[:, ::-1] if extents.rows_reversed else frames
