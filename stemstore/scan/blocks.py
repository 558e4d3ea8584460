"""The one bridge between labelled lazy arrays and kernels.

`map_kernel` runs a kernel over a lazy array. Where the array is a plain selection of a scan (`selection_of`), the
source streams its own pieces through the kernel, one task per partition ("fused"). Any other array (arithmetic,
``where``, a NumPy array …) goes block by block through the same kernel ("generic"). Both give the same numbers. A
kernel may get values of its own for every position.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from stemstore.kernels.contract import DetectorRegion, Kernel
from stemstore.scan.lazy import ScanSource, cut_axis, cuts, selection_of, source_node
from stemstore.scan.order import in_stored_order
from stemstore.scan.pieces import in_small_pieces
from stemstore.selection import Selection

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray

    Values = Array | tuple[Array, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A kernel made ready for one detector region: what every task of an operation shares."""

    kernel: Kernel
    region: DetectorRegion
    prepared: Any
    dtype: np.dtype[Any]
    behind: tuple[int, ...]
    result_dtype: np.dtype[Any]

    @classmethod
    def of(cls, kernel: Kernel, region: DetectorRegion, dtype: np.dtype[Any]) -> Work:
        """Prepare the kernel once, on the client."""
        return cls(kernel, region, kernel.prepare(region), dtype, *kernel.output(dtype, region))

    def at(self, values: Values) -> Work:
        """Give the work for a piece whose positions have these values, where the kernel takes any."""
        kernel: Any = self.kernel
        return self if values is None else replace(self, kernel=kernel.at(values))

    @property
    def per_position(self) -> bool:
        """Whether the result has a row per scan position."""
        return self.kernel.reduces == "detector"

    def result_bytes(self, positions: int) -> int:
        """Bytes of the results of a task of so many positions."""
        n = math.prod(self.behind) * self.result_dtype.itemsize
        if self.per_position:
            return n * positions
        visible, stored = math.prod(self.region.shape), math.prod(self.region.stored)
        return n * stored // max(1, visible)  # patterns are summed on the stored detector

    def key(self, name: str, block: tuple[int, ...]) -> tuple[Any, ...]:
        """Graph key of the result of one piece of the scan."""
        lead = block if block or self.per_position else (0,)
        return (name, *lead, *(0,) * len(self.behind))

    def shape_result(self, out: Array, scan: tuple[int, ...]) -> Array:
        """Give the output of one task its place among the scan axes."""
        out = self.kernel.finish(out, self.region)
        lead = scan if self.per_position else (1,) * max(1, len(scan))
        behind = out.shape[1:] if self.per_position else out.shape
        return out.reshape(lead + behind)


class PositionKernel(Kernel, Protocol):
    """A kernel that needs values of its own for every position: where a detector is, how much a frame counts."""

    def at(self, values: Any) -> PositionKernel:
        """Give the kernel for positions with these values: an array (…positions, …), or a tuple of such arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What one task is about.

    Attributes
    ----------
    block
        Its place among the pieces of the scan.
    data
        A part of the selection of the source, or the key of a dask block.
    keep, values
        Flags and values of its positions; None for all, and for kernels without values.
    """

    block: tuple[int, ...]
    data: Any
    keep: BoolArray | None
    values: Values


class Layer(dict[Any, Any]):
    """Tasks that run a kernel over a lazy array, one per piece of the scan.

    Attributes
    ----------
    name, source, work
        Of the layer; `source` is None where the tasks take dask blocks.
    reads
        Equal for layers that read the same positions of the same data: they can share a pass.
    pieces
        One per task.
    sizes
        Extents of the pieces along the scan axes that are kept.
    piece_bytes, result_bytes, shared_bytes
        What a task holds at once: decoded pixels, its own results, and tables that all tasks share.
    """

    def __init__(self, array: da.Array, kernel: Kernel, keep: BoolArray | None, values: Values) -> None:
        found = selection_of(array)
        self.source: ScanSource | None = None if found is None else found[0]
        selection = Selection.full(array.shape) if found is None else found[1]
        self.work = Work.of(kernel, DetectorRegion.of(selection), array.dtype)
        self.reads = _token(array.name) if self.source is None else _token(self.source.uuid, selection.token)
        prefix = "generic" if self.source is None else "fused"
        self.name = f"{prefix}-{_token(self.reads, kernel, keep, values)}"
        kept = selection.kept[:-2]
        if self.source is None:
            cut = [cuts(sizes) for sizes in array.chunks[:-2]]
        else:
            cut = [cut_axis(axis, size) for axis, size in zip(selection.scan, self.source.partition, strict=True)]
        self.sizes = tuple(tuple(s.stop - s.start for s in c) for c, k in zip(cut, kept, strict=True) if k)
        self.pieces = []
        for number in itertools.product(*(range(len(c)) for c in cut)):
            part = tuple(c[i] for c, i in zip(cut, number, strict=True))
            here = tuple(p for p, k in zip(part, kept, strict=True) if k)
            block = tuple(i for i, k in zip(number, kept, strict=True) if k)
            data = (array.name, *number, 0, 0) if self.source is None else selection.cut_scan(part)
            self.pieces.append(Piece(block, data, _part(keep, here), _part(values, here)))
        largest = math.prod(max((c.stop - c.start for c in along), default=0) for along in cut)
        self.piece_bytes = self._piece_bytes(array, largest)
        self.result_bytes = self.work.result_bytes(largest)
        self.shared_bytes = _nbytes(self.work.prepared)
        shared = (f"source-{self.name}", f"work-{self.name}")
        super().__init__(zip(shared, (source_node(self.source), self.work), strict=True))
        for piece in self.pieces:
            self[self.work.key(self.name, piece.block)] = (run_piece, *shared, piece.data, piece.keep, piece.values)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the bare tasks: a cluster's scheduler has no use for the source."""
        return dict, (dict(self),)

    @property
    def n_positions(self) -> int:
        """Positions of all pieces."""
        return math.prod(sum(along) for along in self.sizes)

    def _piece_bytes(self, array: da.Array, positions: int) -> int:
        frame = math.prod(self.work.region.stored) * array.dtype.itemsize
        if self.source is None:
            return 2 * frame * positions  # a dask block as a whole, and one that it is made of
        return frame * min(positions, math.prod(self.source.chunk))  # about as much as a dask block of the source


def run_piece(source: ScanSource | None, work: Work, data: Any, keep: BoolArray | None, values: Values) -> Array:
    """Task: stream a part of the source through the kernel, or run it over a NumPy block."""
    work = work.at(values)
    if source is None:
        return run_block(data, work, keep)
    flags = None if keep is None else keep.reshape(data.scan_lengths)
    return work.shape_result(source.run(data, work.kernel, work.prepared, flags), kept_lengths(data))


def kept_lengths(selection: Selection) -> tuple[int, ...]:
    """Extents of the scan axes that no integer index has dropped."""
    return tuple(n for n, k in zip(selection.scan_lengths, selection.kept, strict=False) if k)


def run_block(block: Array, work: Work, keep: BoolArray | None) -> Array:
    """Run the kernel over one NumPy block with the whole visible detector."""
    scan = block.shape[:-2]
    frames = np.ascontiguousarray(block).reshape(-1, *block.shape[-2:])
    place = np.arange(len(frames), dtype=np.int64)
    if keep is not None:
        place = place[keep.reshape(-1)]
    out = work.kernel.allocate(len(frames), work.dtype, work.region)
    work.kernel.frames(frames, place, out, place, work.prepared)
    return work.shape_result(out, scan)


def map_kernel(array: Any, kernel: Kernel, keep: BoolArray | None = None, values: Values = None) -> da.Array:
    """Run a kernel over a lazy array, detector axes last.

    Parameters
    ----------
    array : shape (…scan, ky, kx)
        A scan's lazy array, any other dask array, or a NumPy array.
    kernel
        The operation.
    keep : shape (…scan), optional
        False for positions to leave out (their rows stay zero; they add nothing to a reduction over the scan).
    values : shape (…scan, …), optional
        What a `PositionKernel` is to know about each position, an array or a tuple of arrays; the values of a piece
        travel with its task.

    Returns
    -------
    result
        ``(…scan, …)`` for a kernel that reduces the detector; its own shape for one that reduces the scan.
    """
    array = array if isinstance(array, da.Array) else da.from_array(np.asarray(array))
    if selection_of(array) is None:
        array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
    array, order = in_stored_order(array, kernel)
    layer = Layer(in_small_pieces(array, kernel), kernel, order.sort(keep), order.sort(values))
    needs = [array] if layer.source is None else []
    graph = HighLevelGraph.from_collections(layer.name, layer, needs)
    result = _collect(graph, layer.name, layer.work, layer.sizes)
    return order.restore(result) if layer.work.per_position else result


def _collect(graph: HighLevelGraph, name: str, work: Work, sizes: tuple[tuple[int, ...], ...]) -> da.Array:
    """Make the result array of a graph whose blocks lie on a grid of scan pieces, and merge partial results."""
    trailing = tuple((n,) for n in work.behind)
    if work.per_position:
        return da.Array(graph, name, sizes + trailing, dtype=work.result_dtype)
    ones = tuple((1,) * len(s) for s in sizes) or ((1,),)
    partial = da.Array(graph, name, ones + trailing, dtype=work.result_dtype)
    axes = tuple(range(len(ones)))
    if work.kernel.combine is np.maximum:
        return partial.max(axis=axes)
    return partial.sum(axis=axes, dtype=work.result_dtype)


def _nbytes(tables: Any) -> int:
    """Bytes of what a kernel prepared: arrays, or containers of them."""
    if isinstance(tables, (tuple, list)):
        return sum(_nbytes(one) for one in tables)
    return int(getattr(tables, "nbytes", 0))


def _part(values: Any, here: tuple[slice, ...]) -> Any:
    """Give what belongs to some positions: of an array, of each of several arrays, or nothing."""
    if isinstance(values, tuple):
        return tuple(one[here] for one in values)
    return None if values is None else values[here]


def _token(*parts: Any) -> str:
    from dask.base import tokenize

    return str(tokenize(*parts))
