"""Kernels that merge groups of neighbouring positions: one task per block of groups, whatever it has to read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from stemstore.kernels.contract import DetectorRegion, Kernel
from stemstore.scan.blocks import Work, run_block
from stemstore.scan.lazy import ScanSource, cuts, selection_of, source_node
from stemstore.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, BoolArray, Int64Array

GROUP_BYTES = 32 * 2**20  # sums that one task holds


def map_groups(
    array: Any, kernel_of: Callable[[Int64Array, int], Kernel], factors: tuple[int, int], keep: BoolArray
) -> da.Array:
    """Run a kernel that merges groups of neighbouring positions.

    Parameters
    ----------
    array : shape (y, x, ky, kx)
        Both scan extents are multiples of the factors.
    kernel_of
        Makes the kernel from the group number of every position (C order) and the number of groups; its result is
        ``(groups, ky, kx)``.
    factors
        Positions per group along y and x.
    keep : shape (y, x)
        False for positions to leave out.

    Returns
    -------
    result : shape (y / factor, x / factor, ky, kx)
    """
    found = selection_of(array)
    if found is None:
        array = array if isinstance(array, da.Array) else da.from_array(np.asarray(array))
        source, full = None, Selection.full(array.shape)
    else:
        source, full = found
    region = DetectorRegion.of(full)
    groups = tuple(n // f for n, f in zip(array.shape[:2], factors, strict=True))
    behind, dtype = kernel_of(np.zeros(1, np.int64), 1).output(array.dtype, region)
    per_block = max(1, GROUP_BYTES // max(1, math.prod(region.stored) * dtype.itemsize))
    steps = (max(1, per_block // groups[1]), min(groups[1], per_block))
    sizes = tuple(tuple(min(s, n - i) for i in range(0, n, s)) for n, s in zip(groups, steps, strict=True))
    name = "groups-" + tokenize(source.uuid if source else array.name, full.token, kernel_of, factors, keep)
    graph: dict[Any, Any] = {f"source-{name}": source_node(source), f"region-{name}": region}
    if source is None:
        array = array.rechunk((*(tuple(n * f for n in s) for s, f in zip(sizes, factors, strict=True)), -1, -1))
    for i, rows in enumerate(cuts(sizes[0])):
        for j, columns in enumerate(cuts(sizes[1])):
            part = tuple(slice(s.start * f, s.stop * f) for s, f in zip((rows, columns), factors, strict=True))
            data = (array.name, i, j, 0, 0) if source is None else full.cut_scan(_on_stored(full, part))
            graph[name, i, j, 0, 0] = (
                run_groups, f"source-{name}", f"region-{name}", data, kernel_of, factors, keep[part],
            )  # fmt: skip
    layers = HighLevelGraph.from_collections(name, graph, () if source else (array,))
    return da.Array(layers, name, (*sizes, *((n,) for n in behind[1:])), dtype=dtype)


def run_groups(
    source: ScanSource | None, region: DetectorRegion, data: Any, kernel_of: Any, factors: tuple[int, int], keep: Any
) -> Array:
    """Task: sum the groups of one block; `data` is a selection of the source, or a NumPy block without one."""
    rows, columns = keep.shape
    number = (np.arange(rows) // factors[0])[:, None] * (columns // factors[1]) + np.arange(columns) // factors[1]
    shape = (rows // factors[0], columns // factors[1])
    kernel = kernel_of(number.reshape(-1).astype(np.int64), math.prod(shape))
    if source is None:
        work = Work.of(kernel, region, data.dtype)
        return run_block(data, work, keep).reshape(*shape, *region.shape)
    out = source.run(data, kernel, kernel.prepare(region), keep.reshape(data.scan_lengths))
    return kernel.finish(out, region).reshape(*shape, *region.shape)


def _on_stored(selection: Selection, parts: tuple[slice, ...]) -> tuple[slice, ...]:
    """Slices on kept scan axes as slices on all scan axes."""
    given = iter(parts)
    return tuple(next(given) if kept else slice(0, 1) for kept in selection.kept[:-2])
