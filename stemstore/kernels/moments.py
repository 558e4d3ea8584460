"""Moments of every frame, for any source: the sums behind a centre of mass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

SIDE = 2**15
"""Rows or columns of a detector up to which the squares of many electrons fit 64 bits."""


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

    def prepare(self, region: DetectorRegion) -> MomentTables:
        """Keep the kernel and the region; tables are made when the driver is known."""
        return MomentTables(self, region)

    def stored_mask(self, region: DetectorRegion) -> BoolArray | None:
        """Pixels of the stored detector that count; None for all."""
        if self.mask is None and region.whole:
            return None
        return region.embed(np.ones(region.shape, bool) if self.mask is None else self.mask)

    def weights(self, shape: tuple[int, int]) -> Array:
        """Weight images of the visible detector whose sums are the moments, (3 or 6, ky, kx), float64."""
        rows, columns = self.positions or tuple(np.arange(n, dtype=np.float64) for n in shape)
        ones = np.ones(shape) if self.mask is None else self.mask.astype(np.float64)
        r, c = ones * rows[:, None], ones * columns[None, :]
        return np.stack([ones, r, c, *([r * r, c * c, r * c] if self.second else [])])

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Three sums per frame, or six."""
        return (6 if self.second else 3,), sum_dtype(dtype) if self.exact(region) else np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums, (positions, 3 or 6)."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add the moments of dense frames."""
        from stemstore.kernels import frames

        (frames.moments if self.exact(prepared.region) else frames.weighted_sums)(
            block, local, out, place, prepared.frames
        )

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the moments of counted frames."""
        from stemstore.kernels import events

        sums: Any = events.weighted_sums
        if self.in_integers(prepared.region):
            sums = events.second_moments if self.second else events.moments
        sums(gap, offsets, local, out, place, prepared.events)

    def looks_at(self, prepared: MomentTables, region: DetectorRegion) -> BoolArray | None:
        """Pixels of the mask; None for all."""
        del prepared
        return self.stored_mask(region)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Count rows and columns from the first visible pixel."""
        if not self.exact(region) or (region.rows[0] == 0 and region.columns[0] == 0):
            return out
        first = np.array([0, region.rows[0], region.columns[0]]).astype(out.dtype)
        return out - first * out[:, :1]

    def exact(self, region: DetectorRegion) -> bool:
        """Whether the sums are integers, of rows and columns of the stored detector."""
        return self.in_integers(region) and not self.second

    def in_integers(self, region: DetectorRegion) -> bool:
        """Whether events are summed in integers: rows and columns of the stored detector are the visible ones."""
        fits = not self.second or max(region.stored) <= SIDE
        return region.contiguous and self.positions is None and fits


class MomentTables:
    """Tables of moments for the loops over frames or events, made when needed.

    Attributes
    ----------
    kernel, region
        What they are for.
    """

    def __init__(self, kernel: Moments, region: DetectorRegion) -> None:
        self.kernel, self.region = kernel, region

    @property
    def nbytes(self) -> int:
        """Bytes that the tables will take, at most."""
        pixels = self.region.stored[0] * self.region.stored[1]
        return pixels if self.kernel.exact(self.region) else pixels * 8 * (6 if self.kernel.second else 3)

    @cached_property
    def frames(self) -> Any:
        """For dense frames."""
        from stemstore.kernels import frames

        if self.kernel.exact(self.region):
            return frames.prepare_region(self.region.stored, self.kernel.stored_mask(self.region))
        return frames.prepare_weights(self.region.embed(self.kernel.weights(self.region.shape)))

    @cached_property
    def events(self) -> Any:
        """For events."""
        from stemstore.kernels import events

        if not self.kernel.in_integers(self.region):
            return events.prepare_weights(self.region.embed(self.kernel.weights(self.region.shape)))
        table = events.prepare_region(self.region.stored, self.kernel.stored_mask(self.region))
        first = np.array([self.region.rows[0], self.region.columns[0]], np.int64)
        return (table, first) if self.kernel.second else table

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without tables."""
        return MomentTables, (self.kernel, self.region)
