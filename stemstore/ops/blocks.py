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
from typing import TYPE_CHECKING, Any, Literal, Protocol

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from stemstore.errors import InputError
from stemstore.kernels.contract import DetectorRegion, Kernel
from stemstore.ops.labels import intensity_of, labelled, parameters_text, scan_dims
from stemstore.scan.lazy import ScanSource, cut_axis, cuts, selection_of
from stemstore.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array


GROUP_BYTES = 32 * 2**20  # sums that one task of map_groups holds


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

    def at(self, values: Array | None) -> Work:
        """Give the work for a piece whose positions have these values, where the kernel takes any."""
        kernel: Any = self.kernel
        return self if values is None else replace(self, kernel=kernel.at(values))

    @property
    def per_position(self) -> bool:
        """Whether the result has a row per scan position."""
        return self.kernel.reduces == "detector"

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

    def at(self, values: Array) -> PositionKernel:
        """Give the kernel for positions with these values, (…positions, …)."""


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
    values: Array | None


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
    """

    def __init__(self, array: da.Array, kernel: Kernel, keep: BoolArray | None, values: Array | None) -> None:
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
            self.pieces.append(Piece(block, data, *(None if m is None else m[here] for m in (keep, values))))
        shared = (f"source-{self.name}", f"work-{self.name}")
        super().__init__(zip(shared, (self.source, self.work), strict=True))
        for piece in self.pieces:
            self[self.work.key(self.name, piece.block)] = (run_piece, *shared, piece.data, piece.keep, piece.values)


def run_piece(source: ScanSource | None, work: Work, data: Any, keep: BoolArray | None, values: Array | None) -> Array:
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


def map_kernel(array: Any, kernel: Kernel, keep: BoolArray | None = None, values: Array | None = None) -> da.Array:
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
        What a `PositionKernel` is to know about each position; the values of a piece travel with its task.

    Returns
    -------
    result
        ``(…scan, …)`` for a kernel that reduces the detector; its own shape for one that reduces the scan.
    """
    array = array if isinstance(array, da.Array) else da.from_array(np.asarray(array))
    if selection_of(array) is None:
        array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
    layer = Layer(array, kernel, keep, values)
    needs = [array] if layer.source is None else []
    graph = HighLevelGraph.from_collections(layer.name, layer, needs)
    return _collect(graph, layer.name, layer.work, layer.sizes)


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
    name = "groups-" + _token(source.uuid if source else array.name, full.token, kernel_of, factors, keep)
    graph: dict[Any, Any] = {f"source-{name}": source, f"region-{name}": region}
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


def explain(array: Any) -> str:
    """Say whether operations on an array stream its source (``"fused"``) or go block by block, and why.

    Parameters
    ----------
    array
        A Dataset or DataArray of a scan, or the lazy array itself.

    Returns
    -------
    text
        One line that begins with ``fused`` or ``generic``.
    """
    data = getattr(intensity_of(array), "data", array) if hasattr(array, "dims") else array
    found = selection_of(data)
    if found is not None:
        return f"fused: {found[1].n_positions} positions streamed from {type(found[0]).__name__}"
    if isinstance(data, da.Array):
        return "generic, because the array is not a plain selection of a scan (its values or axes were changed)"
    return "generic, because the array is in memory"


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


def _token(*parts: Any) -> str:
    from dask.base import tokenize

    return str(tokenize(*parts))


@dataclass(frozen=True, slots=True, eq=False)
class FunctionKernel:
    """A user's function as a kernel: called with one frame, or with a block of frames."""

    function: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    per_block: bool
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region: the function sees the visible detector."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Take what the user declared."""
        del dtype, region
        return self.shape, self.dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """One row of the declared shape per position."""
        del dtype, region
        return np.zeros((n_positions, *self.shape), self.dtype)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Call the function on a copy of the visible frames, so that it may keep or change them."""
        visible = np.array(prepared.crop(block[local]))
        if self.per_block:
            out[place] = self._checked(self.function(visible), (len(place), *self.shape))
            return
        for frame, row in zip(visible, place, strict=True):
            out[row] = self._checked(self.function(frame), self.shape)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Densify some frames at a time and call the function on them."""
        from stemstore.kernels import events

        n_pixels = math.prod(prepared.stored)
        step = max(1, 2**22 // n_pixels)
        for first in range(0, len(local), step):
            some = local[first : first + step]
            rows = np.arange(len(some), dtype=np.int64)
            dense = np.zeros((len(some), n_pixels), np.uint16)
            events.densify(gap, offsets, some, dense, rows)
            frames = dense.astype(np.uint8) if dense.max(initial=0) <= np.iinfo(np.uint8).max else dense
            self.frames(frames.reshape(-1, *prepared.stored), rows, out, place[first : first + step], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Nothing is left to do."""
        del region
        return out

    def _checked(self, value: Any, shape: tuple[int, ...]) -> Array:
        result = np.asarray(value)
        if result.shape != shape:
            msg = (
                f"function {getattr(self.function, '__name__', 'given')!r} returned shape {result.shape}, "
                f"expected {shape}; declare the shape of one frame's result with shape=…"
            )
            raise InputError(msg, expected=shape, found=result.shape)
        return result


def map_frames(
    scan: Any,
    function: Callable[..., Any],
    *,
    shape: tuple[int, ...] = (),
    dtype: Any = np.float64,
    dims: tuple[str, ...] | None = None,
    per_block: bool = False,
) -> xr.DataArray:
    """Apply a function to every diffraction pattern of a scan, lazily.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose last dims are (ky, kx).
    function
        Called with one pattern ``(ky, kx)``, or with a stack ``(n, ky, kx)`` when `per_block`. It must not depend on
        other patterns and must be picklable for use on a cluster.
    shape, dtype
        Shape and dtype of the result for one pattern.
    dims
        Names of the result's own axes; ``("out_0", …)`` by default.
    per_block
        Hand over blocks of patterns; the function returns ``(n, *shape)``.

    Returns
    -------
    result : dims (…scan dims, …dims)
        Lazy; nothing is read until it is computed. Missing frames are zero, NaN where the
        pixels are floats, and marked by the coordinate ``valid``.

    Raises
    ------
    InputError
        The function's result has another shape than declared (raised when computed).

    Notes
    -----
    Memory per thread: one decoded piece of the scan (about 8 MB) and its copy, besides what the function takes.
    """
    image = intensity_of(scan)
    kernel = FunctionKernel(function, tuple(shape), np.dtype(dtype), per_block)
    names = tuple(f"out_{i}" for i in range(len(shape))) if dims is None else tuple(dims)
    if len(names) != len(shape):
        msg = f"dims {names} name {len(names)} axes, but shape {tuple(shape)} has {len(shape)}; give one name per axis"
        raise InputError(msg, expected=len(shape), found=names)
    data = map_kernel(image.data, kernel)
    return labelled(
        data,
        image,
        (*scan_dims(image), *names),
        parameters_text("map_frames", function=getattr(function, "__name__", "?")),
    )
