"""Sums over groups of pixels that are moved by whole pixels from position to position (see `stemstore.ops.origin`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from dask.base import tokenize

from stemstore.kernels.contract import sum_dtype
from stemstore.ops import moved

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion
    from stemstore.ops.origin import Movement


@dataclass(frozen=True, slots=True, eq=False)
class MovedGroups:
    """Kernel: sums of every frame over disjoint groups of pixels that move with the position; else `GroupMoments`.

    Attributes
    ----------
    labels : shape (rows, columns)
        Group of every pixel of the plane of a `Movement`, -1 for none.
    still : shape (visible rows, visible columns)
        False for visible pixels that take no part wherever the groups are; None for all.
    n_groups, spread
        Number of groups; whether squared deviations are summed as well.
    rows, columns, shift, mark
        As of `stemstore.ops.moved.MovedSums`.
    """

    labels: Int64Array
    still: BoolArray | None
    n_groups: int
    spread: bool
    rows: Int64Array
    columns: Int64Array
    shift: Int64Array
    mark: str
    ready: dict[Any, Any] = field(default_factory=dict)
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    @classmethod
    def of(
        cls, labels: Int64Array, still: BoolArray | None, n_groups: int, movement: Movement, *, spread: bool
    ) -> MovedGroups:
        """Make the kernel, without positions yet."""
        mark = str(tokenize(labels, still, n_groups, spread, movement.rows, movement.columns))
        places = movement.rows, movement.columns, np.zeros((0, 2), np.int64)
        return cls(labels, still, n_groups, spread, *places, mark)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Tell kernels apart by what they compute, not by what they have ready."""
        return (type(self).__name__, self.mark, self.shift)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what is ready."""
        own = self.labels, self.still, self.n_groups, self.spread
        return (type(self), (*own, self.rows, self.columns, self.shift, self.mark))

    def at(self, values: Int64Array) -> MovedGroups:
        """Give the kernel for positions with these moves, (…, 2); what is ready serves all of them."""
        return replace(self, shift=values)

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region; groups are prepared move by move."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per group, or two."""
        del region
        if self.spread:
            return (2, self.n_groups), np.dtype(np.float64)
        return (self.n_groups,), sum_dtype(dtype)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Add the sums of dense frames, move by move."""
        from stemstore.kernels import groups

        sums = groups.frame_deviations if self.spread else groups.frame_sums
        for move, some in moved.by_move(self.shift.reshape(-1, 2)[place]):
            sums(block, local[some], out, place[some], self._prepared(move, prepared))

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the sums of counted frames, move by move."""
        from stemstore.kernels import groups

        sums = groups.event_deviations if self.spread else groups.event_sums
        for move, some in moved.by_move(self.shift.reshape(-1, 2)[place]):
            sums(gap, offsets, local[some], out, place[some], self._prepared(move, prepared))

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out

    def visible(self, move: tuple[int, int]) -> Int64Array:
        """Give the groups of the visible pixels after a move, -1 for none."""
        labels = self.labels[(self.rows - move[0])[:, None], self.columns - move[1]]
        return labels if self.still is None else np.where(self.still, labels, -1)

    def sizes(self, shift: Int64Array) -> Int64Array:
        """Count the visible pixels in every group, (…, n_groups), after moves (…, 2)."""
        flat = shift.reshape(-1, 2)
        found = np.zeros((len(flat), self.n_groups), np.int64)
        for move, some in moved.by_move(flat):
            labels = self.visible(move)
            found[some] = np.bincount(labels[labels >= 0], minlength=self.n_groups)
        return found.reshape(*shift.shape[:-1], self.n_groups)

    def _prepared(self, move: tuple[int, int], region: DetectorRegion) -> Any:
        from stemstore.kernels import groups

        key = (move, region.stored, *(np.asarray(axis).tobytes() for axis in (region.rows, region.columns)))
        found = self.ready.get(key)
        if found is None:
            found = groups.prepare_groups(self.visible(move), self.n_groups, region)
            moved.remember(self.ready, key, found)
        return found
