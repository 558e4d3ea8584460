"""Patterns over many frames, for any source: sum, maximum, sum of squares, weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

EXACT_SQUARES = 2  # bytes of the widest integers whose squares are summed exactly


class PatternKernel:
    """What kernels share whose result is patterns: sums from zero on the stored detector, cropped at the end."""

    __slots__ = ()

    @property
    def reduces(self) -> Literal["scan"]:
        """Take away the scan axes."""
        return "scan"

    @property
    def combine(self) -> np.ufunc:
        """Add partial patterns."""
        return np.add

    def prepare(self, region: DetectorRegion) -> None:
        """Need no weights on the detector."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern of exact sums."""
        return region.shape, sum_dtype(dtype)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed stored patterns."""
        del n_positions
        shape, wide = self.output(dtype, region)
        return np.zeros((*shape[: -len(region.stored)], *region.stored), wide)

    def looks_at(self, prepared: Any, region: DetectorRegion) -> BoolArray:
        """Visible pixels; each is summed for itself."""
        del prepared
        return region.visible()

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Cut out the visible detector."""
        return region.crop(out)


@dataclass(frozen=True, slots=True, eq=False)
class PatternSum(PatternKernel):
    """Kernel: the sum of all frames, exact for integers."""

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames."""
        from stemstore.kernels import frames

        frames.add(block, local, out)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames."""
        from stemstore.kernels import events

        events.add(gap, offsets, local, out)


@dataclass(frozen=True, slots=True, eq=False)
class PatternMax(PatternKernel):
    """Kernel: the largest value of every pixel over all frames."""

    @property
    def combine(self) -> np.ufunc:
        """Keep the larger values of partial patterns."""
        return np.maximum

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern of the scan's own dtype."""
        return region.shape, dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Start from the smallest value of the type."""
        del n_positions
        lowest = np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf
        return np.full(region.stored, lowest, dtype)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Compare dense frames."""
        from stemstore.kernels import frames

        frames.maximum(block, local, out)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Compare counted frames."""
        from stemstore.kernels import events

        events.maximum(gap, offsets, local, out)


@dataclass(frozen=True, slots=True, eq=False)
class PatternSquares(PatternKernel):
    """Kernel: the sum of all frames and the sum of their squares, exact for integers of 8 and 16 bits."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Two patterns."""
        return (2, *region.shape), sum_dtype(dtype) if dtype.itemsize <= EXACT_SQUARES else np.dtype(np.float64)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames."""
        from stemstore.kernels import frames

        frames.add(block, local, out[0])
        frames.add_squares(block, local, out[1])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames."""
        from stemstore.kernels import events

        events.add(gap, offsets, local, out[0])
        events.add_squares(gap, offsets, local, out[1])


@dataclass(frozen=True, slots=True, eq=False)
class PatternWeighted(PatternKernel):
    """Kernel: the sum of all frames, each times the weight of its position (see `at`), in double precision."""

    weight: FloatArray

    def at(self, values: FloatArray) -> PatternWeighted:
        """Give the kernel for positions with these weights."""
        return PatternWeighted(np.ascontiguousarray(values, np.float64).reshape(-1))

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern."""
        del dtype
        return region.shape, np.dtype(np.float64)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames."""
        from stemstore.kernels import frames

        frames.add_weighted(block, local, out, self.weight[place])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames."""
        from stemstore.kernels import events

        events.add_weighted(gap, offsets, local, out, self.weight[place])
