"""Disk detection cut into pieces of a scan: what each task does, and where its disks belong.

A task streams one piece through the kernel and returns its disks as a ragged list, so that lists of fixed length exist
for one piece per worker only. The cut depends on the data alone, not on the machine: a run that was stopped goes on
elsewhere with the same pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from stemstore.scan.blocks import Layer, run_piece
from stemstore.scan.lazy import ScanArray, cuts, selection_of
from stemstore.scan.order import in_stored_order
from stemstore.scan.pieces import SmallPieces

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array
    from stemstore.scan.blocks import Piece, Values, Work
    from stemstore.scan.lazy import ScanSource
    from stemstore.scan.order import Order

MOST_PIXELS = 2**27  # of a piece: about a second of work on one core
LEAST_PIXELS = 2**23  # below, a scheduler takes more time than the work
WANTED_PIECES = 64  # of a small scan, so that all cores of a workstation have some and progress is seen


@dataclass(frozen=True, slots=True, eq=False)
class PieceDisks:
    """Disks of one piece.

    Attributes
    ----------
    counts : shape (positions,), int32
        Number of disks of every position, in C order.
    rows : shape (disks, columns), float32
        The disks one position after another; columns as the kernel gives them.
    """

    counts: Array
    rows: Array

    @classmethod
    def of(cls, lists: Array) -> PieceDisks:
        """Take the disks out of lists (…positions, max_peaks, columns) that end in NaN."""
        lists = lists.reshape(-1, *lists.shape[-2:])
        known = ~np.isnan(lists[:, :, 0])
        return cls(known.sum(axis=1, dtype=np.int32), lists[known])


class DiskPieces:
    """The tasks of a detection.

    Attributes
    ----------
    places
        Number and flat positions, in the C order of the scan as the user sees it, of every piece with something to do.
    reads
        Equal for runs over the same positions of the same data.
    worker_bytes
        What a task holds at once: decoded pixels and lists of fixed length.
    """

    def __init__(self, array: Any, kernel: Any, keep: BoolArray | None) -> None:
        array = array if isinstance(array, da.Array) else da.from_array(np.asarray(array))
        if selection_of(array) is None:
            array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
        given = array.shape[:-2]
        self.array, order = in_stored_order(array, kernel)
        self.array = in_timely_pieces(self.array)
        self._layer = Layer(self.array, kernel, order.sort(keep), None)
        self.reads = self._layer.reads
        self.worker_bytes = self._layer.piece_bytes + self._layer.result_bytes
        along = [cuts(sizes) for sizes in self._layer.sizes]
        self._pieces = [piece for piece in self._layer.pieces if piece.keep is None or piece.keep.any()]
        self.places = [
            _flat([axis[i] for axis, i in zip(along, piece.block, strict=True)], given, order) for piece in self._pieces
        ]
        self.wanted = [
            len(place) if piece.keep is None else int(piece.keep.sum())
            for piece, place in zip(self._pieces, self.places, strict=True)
        ]
        self.name = f"disks-{self._layer.name}"

    def graph(self, numbers: list[int]) -> tuple[Any, list[Any]]:
        """Give the tasks of some pieces, and their keys ``(name, number)``."""
        work: Work = self._layer.work
        source, shared = f"source-{self._layer.name}", f"work-{self._layer.name}"
        tasks: dict[Any, Any] = {source: self._layer[source], shared: work}
        for number in numbers:
            piece: Piece = self._pieces[number]
            tasks[self.name, number] = (find_piece, source, shared, piece.data, piece.keep, piece.values)
        needs: Any = [self.array] if self._layer.source is None else []
        graph = HighLevelGraph.from_collections(self.name, tasks, needs)
        keys = [(self.name, number) for number in numbers]
        return da.Array.__dask_optimize__(graph, keys), keys


def find_piece(
    source: ScanSource | None, work: Work, data: Any, keep: BoolArray | None, values: Values
) -> list[PieceDisks]:
    """Task: the disks of one piece, in a list that whoever takes them empties, so that no scheduler keeps them."""
    return [PieceDisks.of(run_piece(source, work, data, keep, values))]


def in_timely_pieces(array: Any) -> Any:
    """Cut a lazy array into pieces that take a second or so.

    Blocks of its source are cut only where a single one takes longer than that: blocks of few electrons per frame hold
    thousands of frames, and reading one of them several times costs little.
    """
    few, many = wanted_positions(array.shape)
    found = selection_of(array)
    if found is not None:
        source, selection = found
        partition = halved(source.partition, source.chunk, few)
        partition = halved(partition, (1,) * len(partition), many)
        if partition == tuple(source.partition):
            return array
        uuid = f"{source.uuid} in pieces of {partition}"
        pieces = SmallPieces(source, source.shape, source.dtype, uuid, partition, source.chunk)
        return ScanArray(pieces, selection)
    largest = tuple(max(sizes, default=1) for sizes in array.chunks[:-2])
    extents = halved(largest, (1,) * len(largest), few)
    scan = [_split(sizes, extent) for sizes, extent in zip(array.chunks[:-2], extents, strict=True)]
    return array.rechunk((*scan, *array.chunks[-2:]))


def wanted_positions(shape: tuple[int, ...]) -> tuple[int, int]:
    """Positions that a piece of a scan should have, and at most."""
    frame, n = max(1, math.prod(shape[-2:])), math.prod(shape[:-2])
    many = max(1, MOST_PIXELS // frame)
    return min(max(-(-LEAST_PIXELS // frame), -(-n // WANTED_PIECES)), many), many


def halved(extents: tuple[int, ...], least: tuple[int, ...], positions: int) -> tuple[int, ...]:
    """Halve extents, slow axes first, into multiples of the least ones until they hold at most so many positions."""
    halved = list(extents)
    while math.prod(halved) > positions:
        axis = next((n for n, extent in enumerate(halved) if extent > least[n]), None)
        if axis is None:
            break
        blocks = -(-halved[axis] // least[axis])
        halved[axis] = -(-blocks // 2) * least[axis]
    return tuple(halved)


def _split(sizes: tuple[int, ...], extent: int) -> tuple[int, ...]:
    """Cut blocks that are longer than an extent."""
    return tuple(min(extent, size - start) for size in sizes for start in range(0, size, extent)) or (0,)


def _flat(part: list[slice], shape: tuple[int, ...], order: Order) -> Int64Array:
    """Flat positions of a piece in the order that the user gave."""
    flat = np.zeros(1, np.int64)
    for axis, (span, size) in enumerate(zip(part, shape, strict=True)):
        index = order.axes[axis][span] if axis in order.axes else np.arange(span.start, span.stop)
        flat = np.add.outer(flat * size, index.astype(np.int64)).reshape(-1)
    return flat
