"""Sums under detectors that are moved by whole pixels from position to position (see `stemstore.ops.origin`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from dask.base import tokenize

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion
    from stemstore.ops.origin import Movement

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
        """Make the kernel, without positions yet; `mark` stands for its weights in the names of tasks."""
        mark = str(tokenize(table, movement.rows, movement.columns))
        return cls(table, movement.rows, movement.columns, np.zeros((0, 2), np.int64), mark)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Tell kernels apart by what they compute, not by what they have ready."""
        return (type(self).__name__, self.mark, self.shift)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what is ready."""
        return (type(self), (self.table, self.rows, self.columns, self.shift, self.mark))

    def at(self, values: Int64Array) -> MovedSums:
        """Give the kernel for positions with these moves, (…, 2); what is ready serves all of them."""
        return replace(self, shift=values)

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
        for move, some in by_move(self.shift.reshape(-1, 2)[place]):
            yield some, self._prepared(move, region, driver)

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
    """Bytes of the arrays in nested tuples."""
    if isinstance(found, tuple):
        return sum(_n_bytes(part) for part in found)
    return found.nbytes if isinstance(found, np.ndarray) else 0
