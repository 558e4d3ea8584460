"""The lazy 4D array: a dask array that remembers which part of which scan it is.

`ScanArray` is the only subclass of dask in the package. Indexing and rechunking compose a `Selection` and give another
`ScanArray`; every other dask operation is inherited and gives an ordinary dask array of NumPy blocks. Operations ask
`selection_of` whether an array still is a plain selection of a source; if so they may stream the source itself. So do
the sums, means and maxima of `reductions`, and picking single positions (`picking`).

The selection counts only while the array has the name it was built with. In-place changes (item assignment, ``out=``)
rename the array, so that a changed array is never mistaken for its source.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import dask.array as da
import numpy as np

from stemstore.errors import InputError
from stemstore.selection import Index, Selection, runs

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray
    from stemstore.kernels.contract import Kernel

Chunks = tuple[tuple[int, ...], ...]

STREAMED = {np.sum: "sum", np.mean: "mean", np.max: "max"}
"""NumPy functions (xarray's reductions end in them) that may stream like the methods of the same name."""


@runtime_checkable
class ScanSource(Protocol):
    """What a lazy array stands on: a finished store, or the files of a detector.

    Attributes
    ----------
    shape, dtype
        Stored shape (scan axes, ky, kx; flyback included) and pixel type.
    uuid
        Identity of the data; equal identities mean equal pixels.
    partition
        Extent along every scan axis of one unit of work of an operation.
    chunk
        Extent along every scan axis of one block of the dask array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    uuid: str
    partition: tuple[int, ...]
    chunk: tuple[int, ...]

    def read(self, selection: Selection) -> Array:
        """Read the selected pixels as an array of ``selection.shape``."""

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions through a kernel; ``keep`` (scan lengths) leaves positions out."""


class _Dask(type):
    """A class equal to `dask.array.Array`: xarray computes lazy variables together only if their classes are equal."""

    def __eq__(cls, other: object) -> bool:
        return other is da.Array or other is cls

    def __hash__(cls) -> int:
        return hash(da.Array)


class ScanArray(da.Array, metaclass=_Dask):
    """A lazy selection of a scan; an ordinary dask array in every other respect."""

    __slots__ = ()
    _source: ScanSource
    _selection: Selection
    _born: str

    def __new__(cls, source: ScanSource, selection: Selection, chunks: Chunks | None = None) -> Self:
        """Make the array of `selection`; `chunks` defaults to the blocks that suit the source."""
        chunks = natural_chunks(source, selection) if chunks is None else chunks
        name = "scan-" + token(source.uuid, selection.token, chunks)
        graph = BlockGraph(name, source, selection, chunks)
        self = super().__new__(cls, graph, name, chunks, meta=np.empty((0,) * len(chunks), source.dtype))
        self._source, self._selection, self._born = source, selection, name
        return self

    def selection(self) -> Selection | None:
        """Which part of its source the array is, or None once it was changed in place."""
        return self._selection if self.name == self._born else None

    def __getitem__(self, key: Any) -> da.Array:
        selection = self.selection()
        composed = None if selection is None else selection.compose(key)
        return super().__getitem__(key) if composed is None else ScanArray(*narrowed(self._source, composed))

    def rechunk(self, chunks: Any = "auto", *args: Any, **kwargs: Any) -> da.Array:
        """Rechunk without reading the old blocks."""
        selection = self.selection()
        if selection is None or args or kwargs:
            return super().rechunk(chunks, *args, **kwargs)
        if isinstance(chunks, dict):
            chunks = {axis % self.ndim: size for axis, size in chunks.items()}
            chunks = tuple(chunks.get(axis, self.chunks[axis]) for axis in range(self.ndim))
            chunks = tuple(old if new is None else new for new, old in zip(chunks, self.chunks, strict=True))
        normal = da.core.normalize_chunks(chunks, self.shape, dtype=self.dtype, previous_chunks=self.chunks)
        return ScanArray(self._source, selection, normal)

    @property
    def vindex(self) -> Any:
        """Pick single positions: ``array.vindex[[0, 5], [3, 1]]``; a lazy selection again, with the positions first."""
        from dask.utils import IndexCallable

        return IndexCallable(self._picked)

    def _picked(self, key: Any) -> da.Array:
        from stemstore.scan.picking import pick

        picked = pick(self, key)
        return super().vindex[key] if picked is None else picked

    def sum(self, *args: Any, **keywords: Any) -> da.Array:
        """Sum over some axes; streams its source where `reductions` can."""
        result = self._streamed("sum", args, keywords)
        return super().sum(*args, **keywords) if result is None else result

    def mean(self, *args: Any, **keywords: Any) -> da.Array:
        """Average over some axes; streams its source where `reductions` can."""
        result = self._streamed("mean", args, keywords)
        return super().mean(*args, **keywords) if result is None else result

    def max(self, *args: Any, **keywords: Any) -> da.Array:
        """Find the largest values along some axes; streams its source where `reductions` can."""
        result = self._streamed("max", args, keywords)
        return super().max(*args, **keywords) if result is None else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is np.moveaxis and _stay(*args[1:], **kwargs):
            return self  # xarray ends its pointwise selections so
        name = STREAMED.get(func)
        result = self._streamed(name, args[1:], kwargs) if name and args and args[0] is self else None
        return super().__array_function__(func, types, args, kwargs) if result is None else result

    def _streamed(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> da.Array | None:
        from stemstore.scan.reductions import streamed

        return streamed(self, name, args, keywords)

    def copy(self) -> da.Array:
        """Give the same lazy array again."""
        selection = self.selection()
        return super().copy() if selection is None else ScanArray(self._source, selection, self.chunks)

    def __reduce__(self) -> tuple[Any, ...]:
        selection = self.selection()
        return super().__reduce__() if selection is None else (ScanArray, (self._source, selection, self.chunks))


class BlockGraph(Mapping[Any, Any]):
    """The graph of a `ScanArray`: its tasks are made when asked for, so that opening costs nothing per block."""

    def __init__(self, name: str, source: ScanSource, selection: Selection, chunks: Chunks) -> None:
        self.name, self.node, self.selection = name, source_node(source), selection
        self.source_key = f"source-{name}"
        sizes = iter(chunks)
        self.edges = [_edges(next(sizes)) if kept else [0, 1] for kept in selection.kept]
        self.blocks = tuple(len(e) - 1 for e, kept in zip(self.edges, selection.kept, strict=True) if kept)

    def __getitem__(self, key: Any) -> Any:
        if key == self.source_key:
            return self.node
        if not (isinstance(key, tuple) and len(key) == 1 + len(self.blocks) and key[0] == self.name):
            raise KeyError(key)
        if not all(0 <= i < n for i, n in zip(key[1:], self.blocks, strict=True)):
            raise KeyError(key)
        block = iter(key[1:])
        places = [
            (edges, next(block) if kept else 0) for edges, kept in zip(self.edges, self.selection.kept, strict=True)
        ]
        parts = tuple(slice(edges[i], edges[i + 1]) for edges, i in places)
        return (read_block, self.source_key, self.selection.cut(parts))

    def __iter__(self) -> Iterator[Any]:
        yield self.source_key
        yield from itertools.product([self.name], *(range(n) for n in self.blocks))

    def __len__(self) -> int:
        return 1 + int(np.prod(self.blocks, dtype=np.int64))


def _stay(source: Any = None, destination: Any = None, **_: Any) -> bool:
    """Whether axes that are to be moved are already where they belong."""
    return all(isinstance(axes, (list, tuple, range)) for axes in (source, destination)) and [*source] == [*destination]


def selection_of(array: Any) -> tuple[ScanSource, Selection] | None:
    """Give the source and the selection that an array stands for, or None where it is no plain selection."""
    if not isinstance(array, ScanArray):
        return None
    selection = array.selection()
    return None if selection is None else (array._source, selection)


def narrowed(source: ScanSource, selection: Selection) -> tuple[ScanSource, Selection]:
    """Give the one source that a selection of several has picked, and what is selected of it."""
    narrow = getattr(source, "narrowed", None)
    return (source, selection) if narrow is None else narrow(selection)


def source_node(source: ScanSource | None) -> Any:
    """Give what a graph holds in place of a source: the call that opens it where the tasks run, or the source itself.

    A cluster's scheduler unpickles graphs; it need not reach the data, and a store that has gone is told by the tasks.
    """
    opening = getattr(source, "opening", None)
    return source if opening is None else opening()


def read_block(source: ScanSource, selection: Selection) -> Array:
    """Read one dask block."""
    return source.read(selection)


def natural_chunks(source: ScanSource, selection: Selection) -> Chunks:
    """Cut the kept axes at the block borders of the source; the detector stays whole."""
    sizes = (*source.chunk, *selection.stored[-2:])
    kept = (pair for pair, kept in zip(zip(selection.axes, sizes, strict=True), selection.kept, strict=True) if kept)
    return tuple(_block_sizes(axis, size) for axis, size in kept)


def _block_sizes(axis: Index, size: int) -> tuple[int, ...]:
    """Lengths of the pieces of `cut_axis`; those of an unbroken axis without making a slice for each."""
    if not isinstance(axis, range) or axis.step != 1 or not len(axis):
        return tuple(part.stop - part.start for part in cut_axis(axis, size))
    borders = range(axis.start - axis.start % size + size, axis.stop, size)
    edges = [axis.start, *borders, axis.stop]
    return tuple(b - a for a, b in itertools.pairwise(edges))


def cut_axis(axis: Index, size: int) -> list[slice]:
    """Cut an axis at the borders of stored blocks of `size`, or evenly where it jumps about too much for that."""
    if len(axis) == 0:
        return [slice(0, 0)]
    parts = list(runs(axis, size))
    # A shuffled axis would give a piece per index; even pieces cost some re-reading but keep the graph small.
    if len(parts) > 2 * -(-len(axis) // size) + 2:
        distinct = len(np.unique(np.asarray(axis) // size))
        if len(parts) > 2 * distinct:
            return [slice(i, min(i + size, len(axis))) for i in range(0, len(axis), size)]
    return parts


def cuts(sizes: tuple[int, ...]) -> list[slice]:
    """Turn chunk sizes into slices."""
    return [slice(a, b) for a, b in itertools.pairwise(_edges(sizes))]


def _edges(sizes: tuple[int, ...]) -> list[int]:
    """Where pieces of some sizes begin, and where the last one ends; opening keeps these, not a slice for each."""
    return [0, *itertools.accumulate(sizes)]


def token(*parts: Any) -> str:
    """Short digest of plain values for task names."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def require_classic_arrays() -> None:
    """Refuse dask's experimental array expressions, under which arrays cannot carry their selection.

    Raises
    ------
    InputError
        The dask setting ``array.query-planning`` is on.
    """
    import dask

    if dask.config.get("array.query-planning", False):
        msg = (
            "dask's experimental setting 'array.query-planning' is on; lazy scans need the classic dask arrays. "
            "Set it to False (environment: DASK_ARRAY__QUERY_PLANNING=False) before importing dask.array"
        )
        raise InputError(msg, key="array.query-planning")
