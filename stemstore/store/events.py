"""A stored scan of electron events as the lazy array drives it; frames are made only where they are asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.kernels.contract import DetectorRegion, Events
from stemstore.selection import groups
from stemstore.store.arrays import block_bytes, cut_detector
from stemstore.store.metadata import GAP, N_SLOTS
from stemstore.store.scratch import BoundedCache, lease
from stemstore.store.stream import ShardedArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import Kernel
    from stemstore.selection import Selection
    from stemstore.store.head import StoreHead
    from stemstore_schemas import ScanDocument

    Block = tuple[UInt16Array, Int64Array]
    Consume = Callable[[UInt16Array, Int64Array, Int64Array, Int64Array], None]

BROWSED_BYTES = 64 * 2**20
"""Decoded blocks that an open scan keeps, so that frame after frame of one block costs one decode."""

_DENSE_BYTES = 8 * 2**20
"""Whole frames made at once before the visible detector is cut out of them."""


class StoredEvents:
    """Electron events of a finished store; a scan source. Attributes as in `StoredFrames`.

    `dtype` is the type of frames made from events: uint8, or wider where a pixel got more electrons than fit.
    """

    def __init__(self, head: StoreHead) -> None:
        info, encoding = head.arrays[GAP], head.document.encoding
        if encoding is None:
            msg = f"the store '{head.url}' is counted but its document lacks the encoding; restore it from a copy"
            raise CorruptDataError(msg, url=head.url)
        self.head = head
        self.document: ScanDocument = head.document
        self.uuid = self.document.uuid
        self.shape = self.document.shape
        self.dtype = np.dtype(np.min_scalar_type(int(info.attributes.get("max_multiplicity", 1))))
        self.frames_per_block = encoding.frames_per_block
        self._array = ShardedArray(head.storage, info, complete=head.complete)
        self._width = info.chunk[1]
        self._browsed: BoundedCache[Block] = BoundedCache(BROWSED_BYTES)
        blocks = self._array.per_shard[0]
        self.partition = run_extents(self.scan_shape, self.frames_per_block * blocks)
        frame_bytes = math.prod(self.shape[-2:]) * self.dtype.itemsize
        # A run along the row stays within one block of events; a square would decode several
        frames = 1 << (max(block_bytes(self.url) // frame_bytes, 1).bit_length() - 1)
        run = run_extents(self.scan_shape, frames)
        self.chunk = tuple(min(r, p) for r, p in zip(run, self.partition, strict=True))

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

    @property
    def n_slots(self) -> Array:
        """Slots of every flat scan position (uint32), escapes included; read once."""
        if self.head.journal is not None:
            return self.head.journal.n_slots
        return self.head.small(N_SLOTS).reshape(-1)

    def browsing_bytes(self) -> int:
        """Memory of the blocks that `read_events` keeps, of all threads together."""
        blocks = 2 * int(self.n_slots.sum()) + 8 * (self.n_slots.size + self.n_slots.size // self.frames_per_block + 1)
        return min(BROWSED_BYTES, blocks)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as url and identity; the other side opens the store once and refuses a replaced one."""
        function, *arguments = self.opening()
        return function, tuple(arguments)

    def opening(self) -> tuple[Any, ...]:
        """Give the call that opens this scan in another process, function first."""
        from stemstore.store.open import reopen

        return reopen, self.url, self.uuid, self.head.complete

    def read(self, selection: Selection) -> Array:
        """Make the selected frames from their events; parameters, result and errors as `StoredFrames.read`."""
        from stemstore.kernels.events import densify

        rows, columns = selection.detector
        n_pixels = self.shape[-2] * self.shape[-1]
        out = np.zeros((selection.n_positions, len(rows), len(columns)), self.dtype)
        step = max(1, _DENSE_BYTES // (n_pixels * self.dtype.itemsize))

        def fill(gap: UInt16Array, offsets: Int64Array, local: Int64Array, place: Int64Array) -> None:
            if selection.whole_detector:
                densify(gap, offsets, local, out.reshape(-1, n_pixels), place)
                return
            for first in range(0, len(local), step):
                some = local[first : first + step]
                whole = np.zeros((len(some), n_pixels), self.dtype)
                densify(gap, offsets, some, whole, np.arange(len(some)))
                seen = cut_detector(whole.reshape(-1, *self.shape[-2:]), rows, columns)
                out[place[first : first + step]] = seen

        self._drive(selection, None, fill, browse=True)
        return out.reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the events of the selected positions through a kernel; as `StoredFrames.run`."""
        out = kernel.allocate(selection.n_positions, self.dtype, DetectorRegion.of(selection))

        def work(gap: UInt16Array, offsets: Int64Array, local: Int64Array, place: Int64Array) -> None:
            kernel.events(gap, offsets, local, out, place, prepared)

        self._drive(selection, keep, work, browse=False)
        return out

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        n_frames = math.prod(self.scan_shape)
        if not 0 <= start <= stop <= n_frames:
            msg = f"frames {start} to {stop} leave the scan of {n_frames} frames"
            raise IndexError(msg)
        from stemstore.kernels.gaps import decode

        self.head.check_fresh()
        lengths, indices = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
        for block in range(start // self.frames_per_block, -(-stop // self.frames_per_block)):
            gap, offsets = self._browsed.get_or_make(block, lambda block=block: self._decode(block))  # type: ignore[misc]
            first = block * self.frames_per_block
            a, b = max(start - first, 0), min(stop - first, len(offsets) - 1)
            indptr, found = decode(gap, offsets[a : b + 1])
            lengths.append(np.diff(indptr))
            indices.append(found)
        ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        return Events(ends, np.concatenate(indices), (self.shape[-2], self.shape[-1]))

    def _drive(self, selection: Selection, keep: BoolArray | None, consume: Consume, *, browse: bool) -> None:
        """Decode each touched block once, and show it with the wanted frames and their places."""
        self.head.check_selection(selection)
        kept = None if keep is None else keep.reshape(-1)
        todo = []
        for block, local, place in groups(selection.flat_positions(), self.frames_per_block):
            wanted = slice(None) if kept is None else kept[place]
            if len(place[wanted]):
                todo.append((block, local[wanted], place[wanted]))
        if self.head.complete and self.head.expect(N_SLOTS):
            self._array.load([(block // self._array.per_shard[0], 0) for block, _, _ in todo])  # in the same round
        if browse:
            for block, local, place in todo:
                gap, offsets = self._browsed.get_or_make(block, lambda block=block: self._decode(block))  # type: ignore[misc]
                consume(gap, offsets, local, place)
            return
        starts = {block: self._offsets(block) for block, _, _ in todo}
        longest = max((self._columns(each) for each in starts.values()), default=0) * self._width
        with lease(longest * 2) as buffer:
            row = buffer.view(np.uint16)
            lookup = iter(todo)

            def show(block: int, gap: UInt16Array) -> None:
                _, local, place = next(lookup)
                consume(gap, starts[block], local, place)

            self._stream([block for block, _, _ in todo], starts, row, show)

    def _stream(
        self,
        blocks: list[int],
        offsets: dict[int, Int64Array],
        row: UInt16Array,
        show: Callable[[int, UInt16Array], None],
    ) -> None:
        """Decode blocks one after the other into `row` and show each of them."""
        per_shard = self._array.per_shard[0]
        parts = [(block, column) for block in blocks for column in range(self._columns(offsets[block]))]
        wanted = [((block // per_shard, column), block % per_shard) for block, column in parts]

        def gather(at: int, chunk: Array) -> None:
            block, column = parts[at]
            columns, used = self._columns(offsets[block]), int(offsets[block][-1])
            if columns == 1:
                show(block, chunk.reshape(-1)[:used])
                return
            row[column * self._width : (column + 1) * self._width] = chunk.reshape(-1)
            if column == columns - 1:
                show(block, row[:used])

        self._array.stream(wanted, gather)

    def _decode(self, block: int) -> tuple[Block, int]:
        """Decode one block into memory of its own; gives its size as well."""
        offsets = self._offsets(block)
        row = np.empty(self._columns(offsets) * self._width, np.uint16)
        kept = []
        self._stream([block], {block: offsets}, row, lambda _, gap: kept.append(gap.copy()))
        return (kept[0], offsets), kept[0].nbytes + offsets.nbytes

    def _offsets(self, block: int) -> Int64Array:
        """First slot of every frame of a block, and the end of the last one."""
        slots = self.n_slots[block * self.frames_per_block : (block + 1) * self.frames_per_block]
        offsets = np.zeros(len(slots) + 1, np.int64)
        np.cumsum(slots, out=offsets[1:])
        room = self._array.info.shape[1]
        if self.head.complete and offsets[-1] > room:
            msg = (
                f"block {block} of '{self.url}' needs {offsets[-1]} slots, but rows of {GAP} hold {room}; "
                "restore the store from a copy or convert the scan again"
            )
            raise CorruptDataError(msg, url=self.url, key=N_SLOTS, block=block)
        return offsets

    def _columns(self, offsets: Int64Array) -> int:
        """Chunks that a block takes; an empty block has one as well."""
        return max(1, -(-int(offsets[-1]) // self._width))


def run_extents(scan_shape: tuple[int, ...], frames: int) -> tuple[int, ...]:
    """Extents along the scan axes that a run of consecutive frames covers, at least one each."""
    extents = []
    for n in reversed(scan_shape):
        extents.append(max(1, min(n, frames)))
        frames //= n
    return tuple(reversed(extents))
