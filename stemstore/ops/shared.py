"""Several results of one scan in one pass over its data.

Each operation builds its own tasks, one per partition of the scan. Where several results need the same partitions,
`compute` replaces these tasks by shared ones, which decode each piece once and hand it to all kernels in turn.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dask
import numpy as np
from dask.base import compute as dask_compute
from dask.base import is_dask_collection, tokenize
from dask.highlevelgraph import HighLevelGraph

from stemstore.config import memory_budget, n_workers
from stemstore.kernels.contract import looked_at
from stemstore.ops.projection import Projection, passes_of
from stemstore.scan.blocks import Layer, Piece, Work, kept_lengths
from stemstore.scan.lazy import source_node

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion, Kernel
    from stemstore.scan.lazy import ScanSource
    from stemstore.selection import Selection


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Kernel: several kernels in one pass, each with its own choice of positions.

    Outputs are tuples with an entry per kernel; `keep` is None or a flag per position of the piece.
    """

    kernels: tuple[Kernel, ...]
    keep: tuple[BoolArray | None, ...]
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[Any, ...]:
        """Prepare every kernel."""
        return tuple(kernel.prepare(region) for kernel in self.kernels)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Have no shape of its own: the outputs are a tuple."""
        del dtype, region
        return (len(self.kernels),), np.dtype(object)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Any:
        """Make the outputs of all kernels."""
        return tuple(kernel.allocate(n_positions, dtype, region) for kernel in self.kernels)

    def frames(self, block: Array, local: Int64Array, out: Any, place: Int64Array, prepared: Any) -> None:
        """Hand the frames to every kernel."""
        for kernel, keep, one, own in zip(self.kernels, self.keep, out, prepared, strict=True):
            some = slice(None) if keep is None else keep[place]
            kernel.frames(block, local[some], one, place[some], own)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Any, place: Int64Array, prepared: Any
    ) -> None:
        """Hand the events to every kernel."""
        for kernel, keep, one, own in zip(self.kernels, self.keep, out, prepared, strict=True):
            some = slice(None) if keep is None else keep[place]
            kernel.events(gap, offsets, local[some], one, place[some], own)

    def looks_at(self, prepared: tuple[Any, ...], region: DetectorRegion) -> BoolArray | None:
        """Pixels that any kernel looks at; None where one looks at all."""
        own = [looked_at(kernel, one, region) for kernel, one in zip(self.kernels, prepared, strict=True)]
        some = [pixels for pixels in own if pixels is not None]
        return np.logical_or.reduce(some) if len(some) == len(own) else None

    def finish(self, out: Any, region: DetectorRegion) -> Any:
        """Leave the outputs to their kernels."""
        del region
        return out


def run_together(source: ScanSource, works: list[Work], pieces: list[Piece]) -> list[Array]:
    """Stream one partition once for several works (shared task); the pieces are of the same partition."""
    selection: Selection = pieces[0].data
    works = [work.at(piece.values) for work, piece in zip(works, pieces, strict=True)]
    flags = tuple(None if piece.keep is None else piece.keep.reshape(-1) for piece in pieces)
    kernel = Together(tuple(work.kernel for work in works), flags)
    outs: Any = source.run(selection, kernel, tuple(work.prepared for work in works))
    return [work.shape_result(out, kept_lengths(selection)) for work, out in zip(works, outs, strict=True)]


def compute(*results: Any, **options: Any) -> tuple[Any, ...]:
    """Compute several lazy results together, reading the scan once for all of them.

    Parameters
    ----------
    *results
        DataArrays, Datasets, dask arrays or trees of these, of one or several scans.
    **options
        Passed to ``dask.compute`` (``scheduler``, ``num_workers`` …).

    Returns
    -------
    computed
        The same objects with NumPy data, in the same order, equal to what each would give by itself.

    Raises
    ------
    MemoryBudgetError
        The results themselves, with one thread, exceed the budget; nothing is read.

    Notes
    -----
    Only operations that stream their source share a pass, and only those over the same selection of positions of the
    same scan; everything else runs as it would alone (see `stemstore.explain`). Memory per thread: one decoded piece of
    the scan, and the outputs of all operations for one partition. Where all threads together would exceed the budget
    (``STEMSTORE_MAX_MEMORY``, 768 MiB by default), fewer are used.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> image, com = stemstore.compute(  # doctest: +SKIP
    ...     stemstore.virtual_image(ds, stemstore.disk(5)), stemstore.center_of_mass(ds)
    ... )
    """
    if any(_is_tree(result) for result in results):
        return _with_trees(results, options)
    projection = Projection.of(results)
    wanted = options.get("num_workers") or n_workers()
    workers = projection.workers(wanted, memory_budget())
    lazy = [result.__dask_graph__() for result in results if is_dask_collection(result)]
    shared = [SharedLayer(layers) for layers in passes_of(lazy) if len(layers) > 1 and layers[0].source is not None]
    ready = [_with(shared, result) if is_dask_collection(result) else result for result in results]
    with dask.config.set({"num_workers": workers} if workers < wanted else {}):
        return dask_compute(*ready, **options)


def _is_tree(result: Any) -> bool:
    return hasattr(result, "subtree") and hasattr(result, "to_dict")


def _with_trees(results: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """Compute the datasets of trees, which are no collections of dask, together with everything else."""
    nodes = [result.to_dict() if _is_tree(result) else {"": result} for result in results]
    computed = iter(compute(*(one for parts in nodes for one in parts.values()), **options))
    done = [{path: next(computed) for path in parts} for parts in nodes]
    return tuple(
        type(result).from_dict(parts, name=result.name) if _is_tree(result) else parts[""]
        for result, parts in zip(results, done, strict=True)
    )


class SharedLayer(dict[Any, Any]):
    """Tasks that stream a selection once for several operations; a list of results per partition."""

    def __init__(self, members: list[Layer]) -> None:
        self.members = {member.name: member for member in members}
        first = members[0]
        self.name = "shared-" + tokenize(sorted(self.members))
        source, works = f"source-{self.name}", f"works-{self.name}"
        super().__init__({source: source_node(first.source), works: [member.work for member in members]})
        for number in range(len(first.pieces)):
            self[self.name, number] = (run_together, source, works, [member.pieces[number] for member in members])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the bare tasks, like the layers it stands for."""
        return dict, (dict(self),)

    def part(self, name: str) -> dict[Any, Any]:
        """Tasks in place of a member's own: they pick its results."""
        member, place = self.members[name], list(self.members).index(name)
        return {
            member.work.key(name, piece.block): (operator.getitem, (self.name, number), place)
            for number, piece in enumerate(member.pieces)
        }


def _with(shared: list[SharedLayer], result: Any) -> Any:
    """Give a lazy result whose layers pick from the shared ones."""
    graph = result.__dask_graph__()
    layers, needs = dict(graph.layers), dict(graph.dependencies)
    for layer in shared:
        mine = [name for name in layer.members if name in layers]
        for name in mine:
            layers[name], needs[name] = layer.part(name), {layer.name}
        if mine:
            layers[layer.name], needs[layer.name] = layer, set()
    rebuild, arguments = result.__dask_postpersist__()
    return rebuild(HighLevelGraph(layers, needs), *arguments)
