"""Sums and spread over groups of detector pixels as a kernel, for any source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


@dataclass(frozen=True, slots=True, eq=False)
class GroupMoments:
    """Kernel: sums of every frame over each of many disjoint groups of pixels, exact for integers.

    `labels` names the group of every visible pixel, -1 for none. With `spread` also the sums of the squared deviations
    from the mean of the group, (positions, 2, groups) in float64.
    """

    labels: Int64Array
    n_groups: int
    spread: bool = False
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    @property
    def placeless(self) -> bool:
        """Whether only the groups of pixels matter, not where they lie; a spread counts the pixels of its groups."""
        return not self.spread

    def prepare(self, region: DetectorRegion) -> Any:
        """Make the tables of both drivers."""
        from stemstore.kernels import groups

        return groups.prepare_groups(self.labels, self.n_groups, region)

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

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add the sums of dense frames."""
        from stemstore.kernels import groups

        (groups.frame_deviations if self.spread else groups.frame_sums)(block, local, out, place, prepared)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the sums of counted frames."""
        from stemstore.kernels import groups

        (groups.event_deviations if self.spread else groups.event_sums)(gap, offsets, local, out, place, prepared)

    def looks_at(self, prepared: Any, region: DetectorRegion) -> BoolArray:
        """Pixels of any group."""
        from stemstore.kernels import groups

        return groups.grouped(prepared, region)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out
