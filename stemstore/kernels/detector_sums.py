"""The sums of every frame under several weight images, for any source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


@dataclass(frozen=True, slots=True, eq=False)
class DetectorSums:
    """Kernel: the sums of every frame under several weight images of shape (Q, ky, kx).

    Boolean weights on a detector region without repeated pixels are summed exactly in integers; all other weights in
    double precision.
    """

    weights: Array
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[bool, Any, Any]:
        """Embed the weights into the stored detector and make the tables of both drivers."""
        from stemstore.kernels import events, frames

        if self._counts(region):
            masks = region.embed(self.weights)
            return True, frames.prepare_masks(masks), events.prepare_masks(masks)
        weights = region.embed(self.weights.astype(np.float64))
        return False, frames.prepare_weights(weights), events.prepare_weights(weights)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per weight image."""
        wide = sum_dtype(dtype) if self._counts(region) else np.dtype(np.float64)
        return (len(self.weights),), wide

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums, (positions, Q)."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add the sums of dense frames."""
        from stemstore.kernels import frames

        exact, table, _ = prepared
        (frames.masked_sums if exact else frames.weighted_sums)(block, local, out, place, table)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the sums of counted frames."""
        from stemstore.kernels import events

        exact, _, table = prepared
        (events.masked_sums if exact else events.weighted_sums)(gap, offsets, local, out, place, table)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out

    def _counts(self, region: DetectorRegion) -> bool:
        return self.weights.dtype == bool and not region.repeats
