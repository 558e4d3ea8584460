"""Kernels that need values of their own for every position: where a detector is, how much a frame counts.

`map_positions` is `stemstore.ops.blocks.map_kernel` for these: each task carries the values of its piece of the scan.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from stemstore.kernels.contract import DetectorRegion, Kernel
from stemstore.ops.blocks import Work, run_block, run_partition
from stemstore.scan.lazy import cut_axis, cuts, selection_of
from stemstore.selection import Selection

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray
    from stemstore.scan.lazy import ScanSource


class PositionKernel(Kernel, Protocol):
    """A kernel that is made for the positions of one piece of work."""

    def at(self, values: Array) -> PositionKernel:
        """Give the kernel for positions with these values, (…positions, …)."""


def map_positions(array: Any, kernel: PositionKernel, values: Array, keep: BoolArray | None = None) -> da.Array:
    """Run a kernel over a lazy array, every piece of the scan with its own values.

    Parameters
    ----------
    array : shape (…scan, ky, kx)
        A scan's lazy array, any other dask array, or a NumPy array.
    kernel
        The operation, without values. If it reduces the scan its partial outputs are added.
    values : shape (…scan, …)
        What it is to know about each position.
    keep : shape (…scan), optional
        False for positions to leave out.

    Returns
    -------
    result
        As from `map_kernel`.

    Notes
    -----
    One task per partition of the source. What all positions share travels once, the values of a piece with its task.
    """
    array = array if isinstance(array, da.Array) else da.from_array(np.asarray(array))
    found = selection_of(array)
    source, selection = (None, Selection.full(array.shape)) if found is None else found
    if source is None:
        array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
        cut = [cuts(sizes) for sizes in array.chunks[:-2]]
    else:
        cut = [cut_axis(axis, size) for axis, size in zip(selection.scan, source.partition, strict=True)]
    work = Work.of(kernel, DetectorRegion.of(selection), array.dtype)
    name = "positions-" + str(tokenize(source.uuid if source else array.name, selection.token, kernel, values, keep))
    shared = (f"source-{name}", f"work-{name}")
    graph: dict[Any, Any] = dict(zip(shared, (source, work), strict=True))
    kept = selection.kept[:-2]
    for number in itertools.product(*(range(len(c)) for c in cut)):
        part = tuple(c[i] for c, i in zip(cut, number, strict=True))
        block = tuple(i for i, k in zip(number, kept, strict=True) if k)
        data = selection.cut_scan(part) if source else (array.name, *number, 0, 0)
        here = tuple(p for p, k in zip(part, kept, strict=True) if k)
        flags = None if keep is None else keep[here]
        graph[work.key(name, block)] = (run_positions, *shared, data, values[here], flags)
    sizes = tuple(tuple(s.stop - s.start for s in c) for c, k in zip(cut, kept, strict=True) if k)
    layers = HighLevelGraph.from_collections(name, graph, () if source else (array,))
    return _result(layers, name, work, sizes)


def run_positions(source: ScanSource | None, work: Work, data: Any, values: Array, keep: BoolArray | None) -> Array:
    """Task: run one piece; `data` is a selection of the source, or a NumPy block without one."""
    kernel: Any = work.kernel
    work = replace(work, kernel=kernel.at(values))
    if source is None:
        return run_block(data, work, keep)
    return run_partition(source, work, data, None if keep is None else keep.reshape(data.scan_lengths))


def _result(graph: HighLevelGraph, name: str, work: Work, sizes: tuple[tuple[int, ...], ...]) -> da.Array:
    trailing = tuple((n,) for n in work.behind)
    if work.per_position:
        return da.Array(graph, name, sizes + trailing, dtype=work.result_dtype)
    ones = tuple((1,) * len(s) for s in sizes) or ((1,),)
    partial = da.Array(graph, name, ones + trailing, dtype=work.result_dtype)
    return partial.sum(axis=tuple(range(len(ones))), dtype=work.result_dtype)
