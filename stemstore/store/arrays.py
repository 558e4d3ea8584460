"""A stored scan of frames as the lazy array drives it: shape and partitions, `read` and `run`."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stemstore.kernels.contract import DetectorRegion, looked_at
from stemstore.selection import flatten, groups
from stemstore.store.extents import BATCH
from stemstore.store.metadata import INTENSITY
from stemstore.store.scratch import lease
from stemstore.store.stream import ShardedArray, ravel
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, BoolArray, Int64Array
    from stemstore.kernels.contract import Kernel
    from stemstore.selection import Index, Selection
    from stemstore.store.head import StoreHead
    from stemstore_schemas import ScanDocument

    Consume = Callable[[Array, Int64Array, Int64Array], None]

BLOCK_BYTES = 8 * 2**20
"""Dense bytes of one dask block: large enough for few tasks, small enough to stay near the cache."""

REMOTE_BLOCK_BYTES = 64 * 2**20
"""The same for a store on a server: one task asks for all that a row needs at once, instead of one after the other."""

PARTITION_BYTES = 128 * 2**20
"""Dense bytes of one task of an operation: long against what a scheduler takes for a task."""

FEWEST_TASKS = 16
"""Tasks that a scan is cut into where its shards allow, so that all processors have work until the end."""

_AHEAD = 2
"""Rounds of requests that a read from a server holds at a time."""

_COPY_SINGLY = 4096
"""Frame bytes from which copying frames one by one is faster than one fancy-indexed copy."""


class Piece(NamedTuple):
    """The wanted frames of one inner chunk."""

    shard: tuple[int, ...]
    inner: tuple[int, ...]
    local: tuple[Int64Array, ...]
    place: tuple[Int64Array, ...]


class StoredFrames:
    """Frames of a finished store; a scan source.

    Attributes
    ----------
    shape
        Scan axes, detector rows and columns as stored, flyback included.
    dtype
        Native pixel type.
    uuid
        Identity of the store; part of every cache key.
    document
        What the store says about its scan.
    partition
        Extent along every scan axis of the unit of work: one shard, or several small ones.
    chunk
        Extent along every scan axis of what one dask block should hold (about 8 MiB, from a server 64 MiB).
    """

    def __init__(self, head: StoreHead) -> None:
        info = head.arrays[INTENSITY]
        self.head = head
        self.document: ScanDocument = head.document
        self.uuid = self.document.uuid
        self.shape = info.shape
        self.dtype = info.dtype
        self._array = ShardedArray(head.storage, info, complete=head.complete)
        self._chunk = info.chunk
        frame_bytes = math.prod(self.shape[-2:]) * self.dtype.itemsize
        together = min(PARTITION_BYTES // frame_bytes, math.prod(self.scan_shape) // FEWEST_TASKS)
        self.partition = block_extents((info.shard or info.chunk)[:-2], self.scan_shape, together)
        limits = self.partition if is_local(self.url) else self.scan_shape
        self.chunk = block_extents(self._chunk[:-2], limits, block_bytes(self.url) // frame_bytes)

    @property
    def url(self) -> str:
        """Where the store lies."""
        return self.head.url

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Extents of the scan axes."""
        return self.shape[:-2]

    @property
    def validity(self) -> Array | None:
        """State of every flat scan position (uint8), or None when all frames are valid; read when asked for."""
        return self.head.validity()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as url and identity; the other side opens the store once and refuses a replaced one."""
        function, *arguments = self.opening()
        return function, tuple(arguments)

    def opening(self) -> tuple[Any, ...]:
        """Give the call that opens this scan in another process, function first."""
        from stemstore.store.open import reopen

        return reopen, self.url, self.uuid, self.head.complete

    def read(self, selection: Selection) -> Array:
        """Read the selected frames.

        Parameters
        ----------
        selection
            Of the stored shape.

        Returns
        -------
        frames : shape ``selection.shape``
            Missing frames are zero; `validity` tells which they are.

        Raises
        ------
        ChecksumError, TruncatedFileError, CorruptDataError, StaleStoreError
            The store is damaged or was replaced.
        """
        rows, columns = selection.detector
        out = np.zeros((selection.n_positions, len(rows), len(columns)), self.dtype)
        together = math.prod(self.shape[-2:]) * self.dtype.itemsize < _COPY_SINGLY

        def copy(block: Array, local: Int64Array, place: Int64Array) -> None:
            seen = cut_detector(block, rows, columns)
            if together:
                out[place] = seen[local]
                return
            for here, there in zip(local.tolist(), place.tolist(), strict=True):
                out[there] = seen[here]

        self._drive(selection, None, copy, DetectorRegion.of(selection).visible)
        return out.reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected frames through a kernel, inner chunk by inner chunk.

        Parameters
        ----------
        selection
            Of the stored shape.
        kernel, prepared
            The operation, and what its `prepare` made of ``DetectorRegion.of(selection)``.
        keep : shape ``selection.scan_lengths``, optional
            False where a position is to be skipped.

        Returns
        -------
        out
            What ``kernel.allocate`` made, filled; rows of skipped positions stay as allocated.
        """
        region = DetectorRegion.of(selection)
        out = kernel.allocate(selection.n_positions, self.dtype, region)

        def work(block: Array, local: Int64Array, place: Int64Array) -> None:
            kernel.frames(block, local, out, place, prepared)

        self._drive(selection, keep, work, lambda: looked_at(kernel, prepared, region))
        return out

    @property
    def chunk_extents(self) -> tuple[int, ...]:
        """Extents along the scan axes of a stored chunk."""
        return self._chunk[:-2]

    def reading_bytes(self) -> int:
        """Memory that a read takes besides its result: a chunk, coded and decoded, and whole frames of its positions.

        From a server also what is on its way.
        """
        chunk = 2 * self._array.chunk_bytes
        if math.prod(self._array.per_shard[-2:]) > 1:
            chunk += math.prod(self._chunk[:-2]) * math.prod(self.shape[-2:]) * self.dtype.itemsize
        return chunk if is_local(self.url) else chunk + _AHEAD * BATCH

    def _drive(
        self, selection: Selection, keep: BoolArray | None, consume: Consume, pixels: Callable[[], BoolArray | None]
    ) -> None:
        """Decode each touched chunk once, and show its frames with the wanted ones and their places.

        Where frames are cut into tiles, only those with any of `pixels` are read (all of them for None); the others
        are shown as zeros.
        """
        self.head.check_selection(selection)
        pieces = self._pieces(selection, keep)
        grid = self._array.per_shard
        tiles = [(0, 0)] if math.prod(grid[-2:]) == 1 else touched_tiles(pixels(), self._chunk[-2:], grid[-2:])
        wanted = [((*p.shard, 0, 0), ravel((*p.inner, *tile), grid)) for p in pieces for tile in tiles]
        frames = math.prod(self._chunk[:-2])
        rows, columns = self.shape[-2:]
        lengths = selection.scan_lengths

        def show(at: int, block: Array) -> None:
            piece = pieces[at // len(tiles)]
            local, place = flatten(piece.local, self._chunk[:-2]), flatten(piece.place, lengths)
            if keep is not None:
                kept = keep.reshape(-1)[place]
                local, place = local[kept], place[kept]
            consume(block.reshape(frames, rows, columns), local, place)

        if math.prod(grid[-2:]) == 1:
            self._array.stream(wanted, show)
            return
        with lease(frames * rows * columns * self.dtype.itemsize) as buffer:
            block = buffer.view(self.dtype).reshape(frames, rows, columns)
            if len(tiles) < math.prod(grid[-2:]):
                block[...] = 0

            def assemble(at: int, tile: Array) -> None:
                paste(block, tile.reshape(frames, *tile.shape[-2:]), tiles[at % len(tiles)])
                if at % len(tiles) == len(tiles) - 1:
                    show(at, block)

            self._array.stream(wanted, assemble)

    def _pieces(self, selection: Selection, keep: BoolArray | None) -> list[Piece]:
        """Wanted inner chunks, those of one shard together."""
        scan_chunk, per_shard = self._chunk[:-2], self._array.per_shard[:-2]
        along = [list(groups(axis, c)) for axis, c in zip(selection.scan, scan_chunk, strict=True)]
        pieces = []
        for parts in itertools.product(*along):
            blocks, local, place = zip(*parts, strict=True)
            shard = tuple(b // n for b, n in zip(blocks, per_shard, strict=True))
            inner = tuple(b % n for b, n in zip(blocks, per_shard, strict=True))
            if keep is None or keep[np.ix_(*place)].any():
                pieces.append(Piece(shard, inner, local, place))
        pieces.sort(key=lambda piece: piece[:2])
        return pieces


def cut_detector(block: Array, rows: Index, columns: Index) -> Array:
    """Cut the visible detector out of frames, as a view where both runs are regular."""
    if isinstance(rows, range) and isinstance(columns, range):
        return block[:, as_slice(rows), as_slice(columns)]
    return block[:, np.asarray(rows, np.int64)[:, None], np.asarray(columns, np.int64)]


def as_slice(run: range) -> slice:
    """Slice that picks the indices of a range of non-negative numbers."""
    stop: int | None = run.stop
    if stop is not None and stop < 0:
        stop = None  # a falling run that includes index 0
    return slice(run.start, stop, run.step) if len(run) else slice(0, 0)


def touched_tiles(pixels: BoolArray | None, tile: tuple[int, ...], grid: tuple[int, ...]) -> list[tuple[int, int]]:
    """List the detector tiles that are looked at, at least one.

    Parameters
    ----------
    pixels : shape (ky, kx)
        True at pixels of the stored detector that are looked at; None for all.
    tile, grid
        Rows and columns of a tile, and numbers of tiles.
    """
    tiles = list(itertools.product(range(grid[0]), range(grid[1])))
    if pixels is None:
        return tiles
    rows, columns = tile
    seen = [(a, b) for a, b in tiles if pixels[a * rows : (a + 1) * rows, b * columns : (b + 1) * columns].any()]
    return seen or tiles[:1]


def paste(frames: Array, tiles: Array, at: tuple[int, ...]) -> None:
    """Put detector tile number `at` of some frames into its place, without what lies beyond the edge."""
    top, left = at[0] * tiles.shape[-2], at[1] * tiles.shape[-1]
    target = frames[:, top : top + tiles.shape[-2], left : left + tiles.shape[-1]]
    target[...] = tiles[:, : target.shape[-2], : target.shape[-1]]


def block_bytes(url: str) -> int:
    """Dense bytes of one dask block of a store."""
    return BLOCK_BYTES if is_local(url) else REMOTE_BLOCK_BYTES


def block_extents(chunk: tuple[int, ...], limits: tuple[int, ...], frames: int) -> tuple[int, ...]:
    """Double `chunk` along the scan axes, the fastest first, while it stays below a number of frames."""
    extents = [min(c, n) for c, n in zip(chunk, limits, strict=True)]
    grown = True
    while grown:
        grown = False
        for axis in reversed(range(len(extents))):
            wider = min(2 * extents[axis], limits[axis])
            total = math.prod(extents) // extents[axis] * wider
            if wider > extents[axis] and total <= frames:
                extents[axis] = wider
                grown = True
    return tuple(extents)
