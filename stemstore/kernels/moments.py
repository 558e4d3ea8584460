"""Moments of every frame, for any source: the sums behind a centre of mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Kernel: sum, sum of row x intensity, sum of column x intensity of every frame, on the visible detector.

    With `second` also the sums of row², column² and row x column: in float64, exact for integers below 2^53.

    `mask` is boolean, of the visible shape; None for the whole detector. Rows and columns count from the first visible
    pixel, or are the given `positions` (two arrays) where the visible pixels are not evenly spaced.
    """

    mask: BoolArray | None
    positions: tuple[FloatArray, FloatArray] | None = None
    second: bool = False
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[str, Any, Any]:
        """Choose the exact integer kernel where rows and columns of the stored detector are the visible ones."""
        from stemstore.kernels import events, frames

        if self._exact(region):
            mask = np.ones(region.shape, bool) if self.mask is None else self.mask
            stored = None if self.mask is None and region.whole else region.embed(mask)
            return (
                "moments",
                frames.prepare_region(region.stored, stored),
                events.prepare_region(region.stored, stored),
            )
        weights = region.embed(self.weights(region.shape))
        return "weights", frames.prepare_weights(weights), events.prepare_weights(weights)

    def weights(self, shape: tuple[int, int]) -> Array:
        """Weight images of the visible detector whose sums are the moments, (3 or 6, ky, kx), float64."""
        rows, columns = self.positions or tuple(np.arange(n, dtype=np.float64) for n in shape)
        ones = np.ones(shape) if self.mask is None else self.mask.astype(np.float64)
        r, c = ones * rows[:, None], ones * columns[None, :]
        return np.stack([ones, r, c, *([r * r, c * c, r * c] if self.second else [])])

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Three sums per frame, or six."""
        return (6 if self.second else 3,), sum_dtype(dtype) if self._exact(region) else np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums, (positions, 3 or 6)."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add the moments of dense frames."""
        from stemstore.kernels import frames

        how, table, _ = prepared
        (frames.moments if how == "moments" else frames.weighted_sums)(block, local, out, place, table)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the moments of counted frames."""
        from stemstore.kernels import events

        how, _, table = prepared
        (events.moments if how == "moments" else events.weighted_sums)(gap, offsets, local, out, place, table)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Count rows and columns from the first visible pixel."""
        if not self._exact(region) or (region.rows[0] == 0 and region.columns[0] == 0):
            return out
        first = np.array([0, region.rows[0], region.columns[0]]).astype(out.dtype)
        return out - first * out[:, :1]

    def _exact(self, region: DetectorRegion) -> bool:
        return region.contiguous and self.positions is None and not self.second
