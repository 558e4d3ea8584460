"""Hits of a Timepix3 stream at the positions of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stemstore.sources.contract import MISSING, VALID, Events
from stemstore.sources.geometry import check_range

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore_readers.tpx3_stream import Block
    from stemstore_schemas import SourceMetadata

UNLIMITED = 2.0**200
"""A time that no stream lasts, in units of the kernels; finite, so that no product with it is undefined."""


class Raster(NamedTuple):
    """How positions follow from times: see `stemstore.kernels.tpx3.assign`."""

    edges: Int64Array
    lines: int
    columns: int
    line_time: float
    dwell: float
    interpolated: Int64Array
    n_edges: int = 1

    def validity(self, scan_shape: tuple[int, ...]) -> ValidityArray | None:
        """Mark the positions without an edge missing; None where all have one."""
        known, n = self.n_edges * self.lines * self.columns, math.prod(scan_shape)
        return None if known >= n else np.where(np.arange(n) < known, VALID, MISSING).astype(np.uint8)

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """First and last time at which positions ``start <= i < stop`` can have hits."""
        per_edge = self.lines * self.columns
        first, last = start // per_edge, -(-stop // per_edge)
        if first >= self.n_edges:
            return 1, 0
        end = int(self.edges[last]) if last < len(self.edges) else 2**62
        return int(self.edges[first]), end


class Hits(NamedTuple):
    """Hits of a range of positions, by position and then pixel."""

    position: Int64Array
    pixel: Int64Array
    time: Array
    time_over_threshold: Array


@dataclass(frozen=True, eq=False)
class Tpx3Source:
    """Events of a stream; files are opened for every read and closed again."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    blocks: tuple[Block, ...]
    raster: Raster
    places: tuple[tuple[int, int, int] | None, ...]

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        from stemstore.kernels.tpx3 import order

        hits = self._hits(start, stop)
        indptr, pixels = np.zeros(stop - start + 1, np.int64), np.empty(len(hits), np.uint32)
        order(hits, start, indptr, pixels)
        return Events(indptr, pixels, self.frame_shape)

    def read_hits(self, start: int, stop: int) -> Hits:
        """Read the hits of flat scan positions ``start <= i < stop`` with what else is known about them.

        Returns
        -------
        hits
            Flat position, flat pixel, time in s (of the stream's own clock) and time over threshold in s.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        from stemstore.kernels.tpx3 import COARSE, UNIT

        hits = self._hits(start, stop)
        hits = hits[np.lexsort((hits[:, 1], hits[:, 0]))]
        return Hits(hits[:, 0], hits[:, 1], hits[:, 2] * UNIT, hits[:, 3] * (COARSE * UNIT))

    def _hits(self, start: int, stop: int) -> Int64Array:
        """Hits of a range in the order of the stream, shape (n, 4): position, pixel, time, time over threshold."""
        from stemstore.kernels.tpx3 import assign, pixel_table

        check_range(start, stop, math.prod(self.scan_shape))
        first, last = self.raster.span(start, stop)
        numbers = (self.raster.lines, self.raster.columns, self.raster.line_time, self.raster.dwell, start, stop)
        raster, pixels, found = np.array(numbers, np.float64), pixel_table(list(self.places), self.frame_shape), []
        for block in self.blocks:
            if block.latest < first or block.earliest > last or start == stop:
                continue
            words, chunks = block.read()
            hits = np.empty((len(words), 4), np.int64)
            found.append(hits[: assign(words, chunks, block.clock, self.raster.edges, raster, pixels, hits)].copy())
        return np.concatenate([np.empty((0, 4), np.int64), *found])
