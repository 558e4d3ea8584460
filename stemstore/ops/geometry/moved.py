"""Any kernel that moves by whole pixels from position to position (see `stemstore.ops.geometry.origin`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from dask.base import tokenize

from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.gaps import runs_of_slots
from stemstore.kernels.shifting import shift_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import Kernel
    from stemstore.ops.geometry.origin import Movement

READY_BYTES = 32 * 2**20  # prepared tables that are kept for the next blocks
PLANE, STILL = "plane", "still"  # keys of the kernels on the whole plane and at rest, among those of single moves


@dataclass(frozen=True, slots=True, eq=False)
class MovedKernel:
    """Kernel: for each move, another kernel made of what a table shows at the visible pixels then.

    Attributes
    ----------
    make
        Makes the kernel of one move from the visible part of the table; can be pickled. All of them reduce the
        detector and have outputs of one shape.
    table : shape (…, rows, columns)
        Weights, flags or labels on the plane of a `Movement`.
    rows, columns
        Where the visible pixels are on that plane without a move.
    shift
        Moves of the positions of one piece of work, (…, 2); see `at`.
    mark
        Stands for the rest in the names of tasks.
    ready
        Kernels with their tables, by move, for the next blocks.
    """

    make: Callable[[Array], Kernel]
    table: Array
    rows: Int64Array
    columns: Int64Array
    shift: Int64Array
    mark: str
    ready: dict[Any, Any] = field(default_factory=dict)
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    @classmethod
    def of(cls, make: Callable[[Array], Kernel], table: Array, movement: Movement) -> MovedKernel:
        """Make the kernel, without positions yet."""
        mark = str(tokenize(make, table, movement.rows, movement.columns))
        return cls(make, table, movement.rows, movement.columns, np.zeros((0, 2), np.int64), mark)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Tell kernels apart by what they compute, not by what they have ready."""
        return (type(self).__name__, self.mark, self.shift)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what is ready."""
        return (type(self), (self.make, self.table, self.rows, self.columns, self.shift, self.mark))

    def at(self, values: Int64Array) -> MovedKernel:
        """Give the kernel for positions with these moves, (…, 2); what is ready serves all of them."""
        return replace(self, shift=values)

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region; kernels are prepared move by move."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Describe the output of the kernel at rest."""
        return self._still().output(dtype, region)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the output of the kernel at rest."""
        return self._still().allocate(n_positions, dtype, region)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Process dense frames, move by move."""
        for move, some in by_move(self.shift.reshape(-1, 2)[place]):
            kernel, tables = self._prepared(move, prepared)
            kernel.frames(block, local[some], out, place[some], tables)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Process counted frames: moved onto the plane all at once where that gives the same, else move by move."""
        if prepared.whole and getattr(self._still(), "placeless", False):
            self._on_plane(gap, offsets, local, out, place, prepared)
            return
        for move, some in by_move(self.shift.reshape(-1, 2)[place]):
            kernel, tables = self._prepared(move, prepared)
            kernel.events(gap, offsets, local[some], out, place[some], tables)

    def _on_plane(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, region: Any
    ) -> None:
        """Move events instead of tables: the plane has one table for all moves."""
        rows, columns = self.table.shape[-2:]
        plane = DetectorRegion((rows, columns), range(rows), range(columns))
        found: tuple[Kernel, Any] | None = self.ready.get(PLANE)
        if found is None:
            kernel = self.make(self.table)
            found = self.ready[PLANE] = kernel, kernel.prepare(plane)
        kernel, tables = found
        moves = np.array([self.rows[0], self.columns[0]]) - self.shift.reshape(-1, 2)[place]
        for some in runs_of_slots(offsets[local + 1] - offsets[local]):
            moved, ends, _ = shift_events(gap, offsets, local[some], moves[some], region.stored, plane=(rows, columns))
            kernel.events(moved, ends, np.arange(len(ends) - 1, dtype=np.int64), out, place[some], tables)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Finish as the kernel at rest does."""
        return self._still().finish(out, region)

    def _still(self) -> Kernel:
        """Give the kernel of frames that do not move."""
        found: Kernel | None = self.ready.get(STILL)
        if found is None:
            found = self.ready[STILL] = self.make(self.visible((0, 0)))
        return found

    def visible(self, move: tuple[int, int]) -> Array:
        """Show the table at the visible pixels after a move."""
        return self.table[..., (self.rows - move[0])[:, None], self.columns - move[1]]

    def _prepared(self, move: tuple[int, int], region: DetectorRegion) -> tuple[Kernel, Any]:
        key = (move, region.stored, *(np.asarray(axis).tobytes() for axis in (region.rows, region.columns)))
        found: tuple[Kernel, Any] | None = self.ready.get(key)
        if found is None:
            kernel = self.make(self.visible(move))
            found = kernel, kernel.prepare(region)
            remember(self.ready, key, found)
        return found


def by_move(shift: Int64Array) -> Iterator[tuple[tuple[int, int], Int64Array]]:
    """Gather rows of `shift`, (n, 2), that are alike: each move with the rows that have it."""
    moves, group = np.unique(shift, axis=0, return_inverse=True)
    group = group.reshape(-1)
    for number, move in enumerate(moves.tolist()):
        yield (move[0], move[1]), np.flatnonzero(group == number)


def remember(ready: dict[Any, Any], key: Any, found: tuple[Any, ...]) -> None:
    """Keep what is prepared for the next blocks; where this becomes too much, the others are forgotten."""
    if (len(ready) + 1) * _n_bytes(found) > READY_BYTES:
        ready.clear()
    ready[key] = found


def _n_bytes(found: Any) -> int:
    """Bytes of arrays and tables in nested tuples."""
    if isinstance(found, tuple):
        return sum(_n_bytes(part) for part in found)
    return int(getattr(found, "nbytes", 0))
