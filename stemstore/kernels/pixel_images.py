"""Sums over groups of detector pixels as images of the scan, one per group: the kernel of bright-field stacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

SCRATCH_BYTES = 2**20
"""Sums of some positions at a time, before they are turned into images: they stay in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelImages:
    """Kernel: sums of every frame over disjoint groups of visible pixels, laid out as one image per group.

    `labels` names the group of every visible pixel, -1 for none. The output is (positions, groups) as seen by others,
    (groups, positions) in memory.
    """

    labels: Int64Array
    n_groups: int
    dtype: np.dtype[Any]
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> Any:
        """Make the tables of both drivers."""
        from stemstore.kernels import groups

        return groups.prepare_groups(self.labels, self.n_groups, region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per group."""
        del dtype, region
        return (self.n_groups,), self.dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed images."""
        del dtype, region
        return np.zeros((self.n_groups, n_positions), self.dtype).T

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Sum dense frames."""
        from stemstore.kernels import groups

        wide = sum_dtype(block.dtype)
        for some, rows in self._batches(len(local), wide):
            sums = np.zeros((len(rows), self.n_groups), wide)
            groups.frame_sums(block, local[some], sums, rows, prepared)
            self._write(self._narrowed(sums), out, place[some])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Count electrons."""
        from stemstore.kernels import groups

        for some, rows in self._batches(len(local), self.dtype):
            sums = np.zeros((len(rows), self.n_groups), self.dtype)
            groups.event_sums(gap, offsets, local[some], sums, rows, prepared)
            self._write(sums, out, place[some])

    def looks_at(self, prepared: Any, region: DetectorRegion) -> BoolArray:
        """Pixels of any group."""
        from stemstore.kernels import groups

        return groups.grouped(prepared, region)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the images as they are."""
        del region
        return out

    def _batches(self, n: int, dtype: np.dtype[Any]) -> list[tuple[slice, Int64Array]]:
        step = max(1, SCRATCH_BYTES // (self.n_groups * dtype.itemsize))
        starts = range(0, n, step)
        return [(slice(i, i + step), np.arange(min(step, n - i), dtype=np.int64)) for i in starts]

    def _write(self, sums: Array, out: Array, place: Int64Array) -> None:
        from stemstore.kernels.transposition import place_columns

        place_columns(sums, out.T, place)

    def _narrowed(self, sums: Array) -> Array:
        """Give exact sums in the type of the images; one that it cannot hold is refused."""
        if self.dtype.kind in "ui" and sums.dtype.kind in "ui" and sums.size:
            limits = np.iinfo(self.dtype)
            lowest, highest = int(sums.min()), int(sums.max())
            if lowest < limits.min or highest > limits.max:
                found = highest if highest > limits.max else lowest
                msg = f"a sum of {found} does not fit into {self.dtype}; choose a wider dtype=…"
                raise InputError(msg, key="dtype", found=found)
        return sums.astype(self.dtype)
