"""Hits of a Timepix3 stream at the positions of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stemstore.sources.contract import MISSING, VALID, Events
from stemstore.sources.geometry import check_range
from stemstore_readers.tpx3_options import Clustering

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, Int64Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore_readers.tpx3_stream import Block
    from stemstore_schemas import SourceMetadata

    Fill = Callable[[Array, Int64Array, int, Array, tuple[Array, ...]], int]

FOREVER = 2**62
"""A time behind all others, in units of the kernels."""

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
        """First time at which positions ``start <= i < stop`` can have hits, and the first one behind."""
        if start == stop or start // (self.lines * self.columns) >= self.n_edges:
            return 0, 0
        last = min(stop, self.n_edges * self.lines * self.columns) - 1
        edge = last // (self.lines * self.columns) + 1
        end = int(self.edges[edge]) if edge < len(self.edges) else FOREVER
        return self._begin(start), min(end, self._begin(last, self.dwell) + 2)  # one unit each way for rounding

    def _begin(self, position: int, late: float = 0.0) -> int:
        """Time at which a position begins, or `late` behind that."""
        edge, rest = divmod(position, self.lines * self.columns)
        line, column = divmod(rest, self.columns)
        return int(self.edges[edge]) + int(min(line * self.line_time + column * self.dwell + late, 2.0 * FOREVER)) - 1

    def numbers(self, start: int, stop: int) -> tuple[int, int, float, float, int, int, int, int]:
        """Raster as the kernels take it, for positions ``start <= i < stop``."""
        times = float(self.line_time), float(self.dwell)
        return self.lines, self.columns, *times, start, stop, *self.span(start, stop)


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
    cluster: Clustering | None = None

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.

        Notes
        -----
        Memory: 20 bytes per hit; 80 where hits are joined to electrons.
        """
        from stemstore.kernels.event_order import order

        frames, pixels = self._hits(start, stop)[:2] if self.cluster is None else self._electrons(start, stop)
        indptr, indices = order(frames, pixels, stop - start, math.prod(self.frame_shape))
        return Events(indptr, indices, self.frame_shape)

    def read_hits(self, start: int, stop: int) -> Hits:
        """Read the hits of flat scan positions ``start <= i < stop``, not joined, with what else is known about them.

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

        places, pixels, times, over = self._hits(start, stop, timed=True)
        rank = np.lexsort((pixels, places))
        position = places[rank].astype(np.int64) + start
        return Hits(position, pixels[rank].astype(np.int64), times[rank] * UNIT, over[rank] * (COARSE * UNIT))

    def _hits(self, start: int, stop: int, *, timed: bool = False) -> list[Array]:
        """Hits of a range as the stream has them: positions from `start` on, pixels, times, times over threshold."""
        from stemstore.kernels.tpx3 import assign

        check_range(start, stop, math.prod(self.scan_shape))
        raster, edges = self.raster.numbers(start, stop), self.raster.edges

        def fill(words: Array, chunks: Int64Array, clock: int, pixels: Array, out: tuple[Array, ...]) -> int:
            return assign(words, chunks, clock, edges, raster, pixels, out)

        kept = (np.uint32, np.uint32, np.int64, np.uint16)
        return self._gather(self.raster.span(start, stop), fill, kept, 4 if timed else 2)

    def _electrons(self, start: int, stop: int) -> tuple[Array, Array]:
        """Electrons of a range: positions from `start` on, and pixels."""
        from stemstore.kernels.tpx3 import UNIT
        from stemstore.kernels.tpx3_clusters import SLICE, assign_times, collect, join

        check_range(start, stop, math.prod(self.scan_shape))
        first, end = self.raster.span(start, stop)
        span = first // SLICE * SLICE, min(-(-end // SLICE) * SLICE, FOREVER)

        def fill(words: Array, chunks: Int64Array, clock: int, pixels: Array, out: tuple[Array, ...]) -> int:
            return collect(words, chunks, clock, span, pixels, out)

        times, pixels, over = self._gather(span if first < end else (0, 0), fill, (np.int64, np.uint32, np.uint16), 3)
        window, distance = self.cluster or Clustering()
        times, pixels = join(times, pixels, over, self.frame_shape, round(window / UNIT), distance)
        places = assign_times(times, self.raster.edges, self.raster.numbers(start, stop))
        return places[places >= 0].astype(np.uint32), pixels[places >= 0]

    def _gather(self, span: tuple[int, int], fill: Fill, kinds: tuple[Any, ...], n_kept: int) -> list[Array]:
        """Run a kernel over the blocks that have hits in a span of time, and join what it writes into its arrays."""
        from stemstore.kernels.tpx3 import pixel_table

        blocks = [block for block in self.blocks if block.latest >= span[0] and block.earliest < span[1]]
        size = sum(block.stop - block.start for block in blocks)
        arrays = [np.empty(size if i < n_kept else 0, kind) for i, kind in enumerate(kinds)]  # memory is taken on use
        pixels, n = pixel_table(list(self.places), self.frame_shape), 0
        for block in blocks:
            words, chunks = block.read()
            n += fill(words, chunks, block.clock, pixels, tuple(array[n:] for array in arrays))
        return [array[:n] for array in arrays]
