"""Scans held in memory as frame and event sources, for tests of everything that stands on a source."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.contract import Events

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore_schemas import SourceMetadata


class ArrayFrames:
    """A frame source over an array of shape (…scan, ky, kx).

    Parameters
    ----------
    frames
        The pixels.
    validity
        State of every frame (0 missing, 1 partial, 2 valid), of the scan's shape; None when all are valid.
    metadata
        What a reader would report.
    """

    def __init__(self, frames: Array, validity: Array | None = None, metadata: SourceMetadata | None = None) -> None:
        from stemstore_schemas import SourceMetadata

        self.array = np.ascontiguousarray(frames)
        self.scan_shape = self.array.shape[:-2]
        self.frame_shape = (self.array.shape[-2], self.array.shape[-1])
        self.dtype = self.array.dtype
        self.validity = None if validity is None else np.asarray(validity, np.uint8).reshape(-1)
        self.metadata = SourceMetadata() if metadata is None else metadata
        self.identity = hashlib.sha256(self.array.tobytes()).hexdigest()

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Copy frames ``start <= i < stop``."""
        _check(start, stop, math.prod(self.scan_shape))
        frames = self.array.reshape(-1, *self.frame_shape)[start:stop]
        if out is None:
            return frames.copy()
        out[...] = frames
        return out


class ArrayEvents:
    """An event source over an array of electrons per pixel, of shape (…scan, ky, kx)."""

    def __init__(self, counts: Array, validity: Array | None = None, metadata: SourceMetadata | None = None) -> None:
        frames = ArrayFrames(counts, validity, metadata)
        self.scan_shape, self.frame_shape = frames.scan_shape, frames.frame_shape
        self.validity, self.metadata, self.identity = frames.validity, frames.metadata, "events-" + frames.identity
        self.counts = frames.array.reshape(-1, math.prod(self.frame_shape))

    def read_events(self, start: int, stop: int) -> Events:
        """List the electrons of frames ``start <= i < stop``."""
        _check(start, stop, len(self.counts))
        chosen = self.counts[start:stop].astype(np.int64)
        indices: Any = np.tile(np.arange(chosen.shape[1]), len(chosen)).repeat(chosen.reshape(-1))
        indptr = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(np.int64)
        return Events(indptr, indices.astype(np.uint32), self.frame_shape)


def _check(start: int, stop: int, n_frames: int) -> None:
    if not 0 <= start <= stop <= n_frames:
        msg = f"frames {start} to {stop} leave the scan of {n_frames} frames"
        raise IndexError(msg)
