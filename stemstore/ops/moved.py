"""Sums under detectors that are moved by whole pixels from position to position (see `stemstore.ops.origin`)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from stemstore.kernels.contract import DetectorRegion, sum_dtype
from stemstore.ops.blocks import Work, run_block, run_partition
from stemstore.scan.lazy import cut_axis, cuts, selection_of
from stemstore.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.ops.origin import Movement
    from stemstore.scan.lazy import ScanSource

READY_BYTES = 32 * 2**20  # prepared weights that are kept for the next blocks


@dataclass(frozen=True, slots=True, eq=False)
class MovedSums:
    """Kernel: the sums of every frame under weights that are moved by whole pixels from position to position.

    `table` has the shape (Q, rows, columns) of the plane of a `Movement`; `shift` belongs to the positions of one piece
    of work (see `at`). Exact where the same weights at rest are (boolean, no repeated pixels).
    """

    table: Array
    rows: Int64Array
    columns: Int64Array
    shift: Int64Array
    mark: str
    ready: dict[Any, Any] = field(default_factory=dict)
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    @classmethod
    def of(cls, table: Array, movement: Movement) -> MovedSums:
        """Make the kernel for all positions of a scan; `mark` stands for its weights in the names of tasks."""
        mark = str(tokenize(table, movement.rows, movement.columns))
        return cls(table, movement.rows, movement.columns, movement.shift, mark)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Tell kernels apart by what they compute, not by what they have ready."""
        return (type(self).__name__, self.mark, self.shift)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what is ready."""
        return (type(self), (self.table, self.rows, self.columns, self.shift, self.mark))

    def at(self, shift: Int64Array) -> MovedSums:
        """Give the kernel for other positions; what is ready serves all of them."""
        return replace(self, shift=shift)

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region; weights are prepared move by move."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per weight image."""
        return (len(self.table),), sum_dtype(dtype) if self._counts(region) else np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums, (positions, Q)."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Add the sums of dense frames, move by move."""
        from stemstore.kernels import frames

        sums = frames.masked_sums if self._counts(prepared) else frames.weighted_sums
        for some, table in self._by_move(place, prepared, frames):
            sums(block, local[some], out, place[some], table)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the sums of counted frames, move by move."""
        from stemstore.kernels import events

        sums = events.masked_sums if self._counts(prepared) else events.weighted_sums
        for some, table in self._by_move(place, prepared, events):
            sums(gap, offsets, local[some], out, place[some], table)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out

    def _counts(self, region: DetectorRegion) -> bool:
        return self.table.dtype == bool and not region.repeats

    def _by_move(self, place: Int64Array, region: DetectorRegion, driver: Any) -> Iterator[tuple[Int64Array, Any]]:
        """Gather frames that move alike, with the weights of `driver` prepared for them, one move after the other."""
        moves, group = np.unique(self.shift.reshape(-1, 2)[place], axis=0, return_inverse=True)
        group = group.reshape(-1)
        for number, move in enumerate(moves.tolist()):
            yield np.flatnonzero(group == number), self._prepared((move[0], move[1]), region, driver)

    def _prepared(self, move: tuple[int, int], region: DetectorRegion, driver: Any) -> Any:
        axes = (region.stored, *(np.asarray(axis).tobytes() for axis in (region.rows, region.columns)))
        key = (move, axes, driver.__name__)
        found = self.ready.get(key)
        if found is None:
            visible = self.table[:, (self.rows - move[0])[:, None], self.columns - move[1]]
            if self._counts(region):
                found = driver.prepare_masks(region.embed(visible))
            else:
                found = driver.prepare_weights(region.embed(visible.astype(np.float64)))
            if (len(self.ready) + 1) * sum(part.nbytes for part in found) > READY_BYTES:
                self.ready.clear()
            self.ready[key] = found
        return found


def map_moved(array: Any, kernel: MovedSums) -> da.Array:
    """Run a kernel over a lazy array, every piece of the scan with its own moves.

    Parameters
    ----------
    array : shape (…scan, ky, kx)
        A scan's lazy array, any other dask array, or a NumPy array.
    kernel
        Whose moves cover the scan axes of `array`.

    Returns
    -------
    result : shape (…scan, Q)

    Notes
    -----
    One task per partition of the source, as in `stemstore.ops.blocks.map_kernel`; weights travel once, and each task
    carries the moves of its positions.
    """
    array = array if isinstance(array, da.Array) else da.from_array(np.asarray(array))
    found = selection_of(array)
    source, selection = (None, Selection.full(array.shape)) if found is None else found
    if source is None:
        array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
        cut = [cuts(sizes) for sizes in array.chunks[:-2]]
    else:
        cut = [cut_axis(axis, size) for axis, size in zip(selection.scan, source.partition, strict=True)]
    work = Work.of(kernel.at(np.zeros((0, 2), np.int64)), DetectorRegion.of(selection), array.dtype)
    name = "moved-" + str(tokenize(source.uuid if source else array.name, selection.token, kernel))
    shared = (f"source-{name}", f"work-{name}")
    graph: dict[Any, Any] = dict(zip(shared, (source, work), strict=True))
    kept = selection.kept[:-2]
    for number in itertools.product(*(range(len(c)) for c in cut)):
        part = tuple(c[i] for c, i in zip(cut, number, strict=True))
        block = tuple(i for i, k in zip(number, kept, strict=True) if k)
        data = selection.cut_scan(part) if source else (array.name, *number, 0, 0)
        moves = kernel.shift[tuple(p for p, k in zip(part, kept, strict=True) if k)]
        graph[work.key(name, block)] = (run_moved, *shared, data, moves)
    sizes = tuple(tuple(s.stop - s.start for s in c) for c, k in zip(cut, kept, strict=True) if k)
    layers = HighLevelGraph.from_collections(name, graph, () if source else (array,))
    return da.Array(layers, name, (*sizes, *((n,) for n in work.behind)), dtype=work.result_dtype)


def run_moved(source: ScanSource | None, work: Work, data: Any, moves: Int64Array) -> Array:
    """Task: sum one piece; `data` is a selection of the source, or a NumPy block without one."""
    work = replace(work, kernel=work.kernel.at(moves))  # type: ignore[attr-defined]  # made by map_moved
    return run_block(data, work, None) if source is None else run_partition(source, work, data, None)
