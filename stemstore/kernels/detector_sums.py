"""The sums of every frame under several weight images, for any source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


class SumTables:
    """Weights on the stored detector, and the tables that the loops over frames or events take, made when needed.

    Attributes
    ----------
    stored : shape (Q, ky, kx)
    exact
        Whether they are flags whose sums are counted in integers.
    """

    def __init__(self, stored: Array, exact: bool) -> None:
        self.stored, self.exact = stored, exact

    @property
    def nbytes(self) -> int:
        """Bytes of the weights; tables take about as much."""
        return 2 * self.stored.nbytes

    @cached_property
    def frames(self) -> Any:
        """For dense frames."""
        from stemstore.kernels import frames

        return (frames.prepare_masks if self.exact else frames.prepare_weights)(self.stored)

    @cached_property
    def events(self) -> Any:
        """For events."""
        from stemstore.kernels import events

        return (events.prepare_masks if self.exact else events.prepare_weights)(self.stored)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without tables."""
        return SumTables, (self.stored, self.exact)


@dataclass(frozen=True, slots=True, eq=False)
class DetectorSums:
    """Kernel: the sums of every frame under several weight images of shape (Q, ky, kx).

    Boolean weights on a detector region without repeated pixels are summed exactly in integers; all other weights in
    double precision.
    """

    weights: Array
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add
    placeless: bool = True  # only the weights of pixels matter, not where they lie: frames may move in their place

    def prepare(self, region: DetectorRegion) -> SumTables:
        """Embed the weights into the stored detector."""
        exact = self._counts(region)
        return SumTables(region.embed(self.weights if exact else self.weights.astype(np.float64)), exact)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per weight image."""
        wide = sum_dtype(dtype) if self._counts(region) else np.dtype(np.float64)
        return (len(self.weights),), wide

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums, (positions, Q)."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: SumTables) -> None:
        """Add the sums of dense frames."""
        from stemstore.kernels import frames

        sums = frames.masked_sums if prepared.exact else frames.weighted_sums
        sums(block, local, out, place, prepared.frames)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the sums of counted frames."""
        from stemstore.kernels import events

        sums = events.masked_sums if prepared.exact else events.weighted_sums
        sums(gap, offsets, local, out, place, prepared.events)

    def looks_at(self, prepared: SumTables, region: DetectorRegion) -> BoolArray:
        """Pixels with a weight."""
        del region
        pixels: BoolArray = (prepared.stored != 0).any(axis=0)
        return pixels

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out

    def _counts(self, region: DetectorRegion) -> bool:
        return self.weights.dtype == bool and not region.repeats
