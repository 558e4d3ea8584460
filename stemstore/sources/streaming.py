"""Raw files as scan sources: the lazy array and the kernels run over a reader's frames or events.

`FrameScan` and `EventScan` give a `FrameSource` or an `EventSource` the two methods every scan source has: `read` a
selection into an array, `run` a kernel over a selection while reading. Positions are visited in file order, each once.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.sources.contract import EventSource, FrameSource, ViewableSource
from stemstore.sources.files import check_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, BoolArray, Int64Array
    from stemstore.kernels.contract import Kernel
    from stemstore.selection import Selection

BATCH_BYTES = 8 * 2**20  # stays inside a processor's last-level cache, and is long enough for sequential reads
VIEW_BYTES = 32 * 2**20  # what is mapped at a time: used up in milliseconds, and worth the mapping
VIEW_LEAST = 2**20  # below it a copy costs less than a mapping
BLOCK_BYTES = 8 * 2**20  # what one block of the dask array holds
PARTITION_BYTES = 128 * 2**20  # what one task of an operation reads: long against the scheduler's cost of a task
EVENT_BATCH = 4096  # frames per batch of events; about half a million events at usual doses


class FrameScan:
    """A scan source over the frames of a reader."""

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.shape = (*source.scan_shape, *source.frame_shape)
        self.dtype = np.dtype(source.dtype)
        self.uuid = _identity(source)
        self.viewable = isinstance(source, ViewableSource)
        self.frame_bytes = max(1, math.prod(source.frame_shape) * self.dtype.itemsize)
        self.chunk = _rows(source.scan_shape, BLOCK_BYTES // self.frame_bytes)
        self.partition = _rows(source.scan_shape, PARTITION_BYTES // self.frame_bytes)

    @property
    def validity(self) -> Array | None:
        """State of every frame, flat, or None when all are valid."""
        return self.source.validity

    def read(self, selection: Selection) -> Array:
        """Read the selected pixels as an array of ``selection.shape``."""
        out = np.empty((selection.n_positions, *selection.lengths[-2:]), self.dtype)
        whole, (rows, columns) = selection.whole_detector, selection.detector
        cut = np.ix_(np.asarray(rows, np.int64), np.asarray(columns, np.int64))
        for block, local, place in self._pieces(selection, None):
            out[place] = block[local] if whole else block[local][:, cut[0], cut[1]]
        return out.reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions through a kernel."""
        from stemstore.kernels.contract import DetectorRegion

        out = kernel.allocate(selection.n_positions, self.dtype, DetectorRegion.of(selection))
        for block, local, place in self._pieces(selection, keep):
            kernel.frames(block, local, out, place, prepared)
        return out

    def _pieces(self, selection: Selection, keep: BoolArray | None) -> Iterator[tuple[Array, Int64Array, Int64Array]]:
        check_unchanged(self.source.metadata.files)
        flat, place = _wanted(selection, keep)
        batch = max(1, BATCH_BYTES // self.frame_bytes)
        scratch: Array | None = None
        for first, last, start, stop in _batches(flat, max(batch, VIEW_BYTES // self.frame_bytes)):
            view = self._view(start, stop)
            for a, b, begin, end in _batches(flat[first:last], batch):
                if view is not None:
                    block = view[begin - start : end - start]
                else:
                    if scratch is None:
                        scratch = np.empty((min(batch, len(flat)), *self.source.frame_shape), self.dtype)
                    block = self.source.read_frames(begin, end, out=scratch[: end - begin])
                yield block, flat[first + a : first + b] - begin, place[first + a : first + b]

    def _view(self, start: int, stop: int) -> Array | None:
        if not self.viewable or (stop - start) * self.frame_bytes < VIEW_LEAST:
            return None
        source: Any = self.source
        return source.view_frames(start, stop)


class EventScan:
    """A scan source over the counted events of a reader; as an array it shows electrons per pixel, uint8."""

    def __init__(self, source: EventSource) -> None:
        self.source = source
        self.shape = (*source.scan_shape, *source.frame_shape)
        self.dtype = np.dtype(np.uint8)
        self.uuid = _identity(source)
        self.chunk = _rows(source.scan_shape, BLOCK_BYTES // max(1, math.prod(source.frame_shape)))
        self.partition = _rows(source.scan_shape, 16 * EVENT_BATCH)

    @property
    def validity(self) -> Array | None:
        """State of every frame, flat, or None when all are valid."""
        return self.source.validity

    def read(self, selection: Selection) -> Array:
        """Densify the selected frames into an array of ``selection.shape``.

        Raises
        ------
        InputError
            A pixel holds more than 255 electrons, which the array's type cannot show.
        """
        from stemstore.kernels import events

        n_pixels = math.prod(self.source.frame_shape)
        dense = np.zeros((selection.n_positions, n_pixels), np.uint8)
        for gap, offsets, local, place in self._pieces(selection, None):
            try:
                events.densify(gap, offsets, local, dense, place)
            except InputError as error:
                error.add_note("convert the file to a store, which chooses a type that is wide enough, and open that")
                raise
        rows, columns = selection.detector
        frames = dense.reshape(-1, *self.source.frame_shape)
        if not selection.whole_detector:
            frames = frames[:, np.asarray(rows, np.int64)[:, None], np.asarray(columns, np.int64)[None, :]]
        return frames.reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the events of the selected positions through a kernel."""
        from stemstore.kernels.contract import DetectorRegion

        out = kernel.allocate(selection.n_positions, self.dtype, DetectorRegion.of(selection))
        for gap, offsets, local, place in self._pieces(selection, keep):
            kernel.events(gap, offsets, local, out, place, prepared)
        return out

    def _pieces(
        self, selection: Selection, keep: BoolArray | None
    ) -> Iterator[tuple[Array, Int64Array, Int64Array, Int64Array]]:
        from stemstore.kernels import events

        check_unchanged(self.source.metadata.files)
        flat, place = _wanted(selection, keep)
        for first, last, start, stop in _batches(flat, EVENT_BATCH):
            block = self.source.read_events(start, stop)
            gap, slots = events.encode(block.indptr, block.indices)
            offsets = np.concatenate([[0], np.cumsum(slots, dtype=np.int64)])
            yield gap, offsets, flat[first:last] - start, place[first:last]


def scan_source(source: FrameSource | EventSource) -> FrameScan | EventScan:
    """Wrap what a reader gave into a scan source."""
    return EventScan(source) if isinstance(source, EventSource) else FrameScan(source)


def _identity(source: FrameSource | EventSource) -> str:
    return "raw-" + hashlib.blake2b(source.identity.encode(), digest_size=16).hexdigest()


def _wanted(selection: Selection, keep: BoolArray | None) -> tuple[Int64Array, Int64Array]:
    """Flat stored positions in file order, and the output row of each."""
    flat = selection.flat_positions()
    place = np.arange(len(flat), dtype=np.int64)
    if keep is not None:
        place = place[np.asarray(keep, bool).reshape(-1)]
    place = place[np.argsort(flat[place], kind="stable")]
    return flat[place], place


def _batches(flat: Int64Array, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut sorted positions into runs without holes of at most `size` stored frames.

    Yields
    ------
    first, last, start, stop
        Range of entries of `flat`, and the range of stored frames that they need.
    """
    if len(flat) == 0:
        return
    holes = np.flatnonzero(np.diff(flat) > 1) + 1
    for first, last in zip([0, *holes.tolist()], [*holes.tolist(), len(flat)], strict=True):
        for start in range(int(flat[first]), int(flat[last - 1]) + 1, size):
            a, b = np.searchsorted(flat[first:last], [start, start + size]) + first
            yield int(a), int(b), start, int(flat[b - 1]) + 1


def _rows(scan_shape: tuple[int, ...], n_frames: int) -> tuple[int, ...]:
    """Extents along the scan axes of a block of about `n_frames` frames: whole rows, or a piece of one row."""
    n_frames = max(1, n_frames)
    extents = []
    for size in reversed(scan_shape):
        extents.append(min(size, n_frames))
        n_frames = max(1, n_frames // size)
    return tuple(reversed(extents))
