"""The place of the undiffracted beam in every frame: disk, bright area, or centre of inversion.

Three methods give the same four numbers per frame (`COLUMNS`), in pixels of the visible detector. Frames without
intensity, and frames that nobody looked at, are NaN with the quality 0. The loops are in
`stemstore.kernels.centres` and `stemstore.kernels.inversion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from stemstore.kernels.arguments import check_rows, frozen, pixels_of
from stemstore.kernels.centres import disk_centres, threshold_centres
from stemstore.kernels.inversion import Inversion

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

COLUMNS = ("row", "column", "quality", "sigma")
"""Meaning of the last axis: place in px, 0 … 1, standard error in px per axis."""

SCRATCH_PIXELS = 2**19  # pixels that counted frames are made dense in at a time: a megabyte stays in the cache


class Method(Protocol):
    """A way to find the origin of dense frames of the visible detector."""

    def measure(self, frames: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Write the four numbers of frame ``local[i]`` to ``out[place[i]]``."""

    def prepare(self, shape: tuple[int, int]) -> Any:
        """Make tables for a visible detector of this shape."""


@dataclass(frozen=True, slots=True, eq=False)
class OriginKernel:
    """Kernel: place of the origin of every frame on the visible detector, shape (4,), see `COLUMNS`."""

    method: Method
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[DetectorRegion, Any]:
        """Make the tables of the method."""
        return region, self.method.prepare(region.shape)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Four numbers per frame, whatever the dtype."""
        del dtype, region
        return (len(COLUMNS),), np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make rows that say: nothing known."""
        shape, wide = self.output(dtype, region)
        out = np.full((n_positions, *shape), np.nan, wide)
        out[:, COLUMNS.index("quality")] = 0.0
        return out

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Measure dense frames."""
        region, tables = prepared
        if not region.whole:
            block, local = np.ascontiguousarray(region.crop(block[local])), np.arange(len(local), dtype=np.int64)
        self.method.measure(block, local, out, place, tables)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Make counted frames dense, a few at a time, and measure them."""
        from stemstore.kernels import events

        region, _ = prepared
        n_pixels = math.prod(region.stored)
        step = max(1, SCRATCH_PIXELS // n_pixels)
        dense = np.empty((min(step, len(local)), n_pixels), np.uint16)
        for first in range(0, len(local), step):
            some = local[first : first + step]
            rows = np.arange(len(some), dtype=np.int64)
            dense[: len(some)] = 0
            events.densify(gap, offsets, some, dense, rows)
            self.frames(dense.reshape(-1, *region.stored), rows, out, place[first : first + step], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the rows as they are."""
        del region
        return out


@dataclass(frozen=True, slots=True, eq=False)
class DiskCentre:
    """Centre of mass within 1.2 radii of the brightest disk, in a window that follows it.

    Attributes
    ----------
    radius : px
        Of the disk.
    good : shape (ky, kx), boolean, or None for all
        Pixels that take part.
    near, reach : px
        The disk is looked for in the pixels within `reach` of `near` (row, column) alone.

    Notes
    -----
    Quality: contrast of the window to the ring around it (up to 1.6 radii), times the share of the window that lies on
    the detector. Sigma: counting statistics, ``sqrt(sum rho^2 I / 2) / N / (1 - f)``; a window that follows the centre
    of mass weakens its own answer by the share f of background in it.
    """

    radius: float
    good: BoolArray | None = None
    near: tuple[float, float] | None = None
    reach: float = math.inf

    def prepare(self, shape: tuple[int, int]) -> Any:
        """Choose the bins of the coarse search: half a radius wide."""
        close = None if self.near is None else within(shape, self.near, self.reach)
        if close is not None and self.good is not None:
            close &= self.good
        return shape, (self.good, close), max(1, round(self.radius / 2))

    def measure(self, frames: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """See `Method`."""
        (rows, columns), masks, size = prepared
        pixels, local, place = _arguments(frames, local, out, place)
        bins = np.zeros((-(-rows // size), -(-columns // size)))
        flat = _flat(masks[0]), _flat(masks[1])
        disk_centres(pixels, local, out, place, flat, (rows, columns, size), self.radius, bins)


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCentre:
    """Centre of mass of the pixels where the smoothed frame is above a share of its maximum.

    Attributes
    ----------
    fraction
        The share.
    half : px
        The frame is smoothed by the mean over squares of ``2 * half + 1`` px.
    good : shape (ky, kx), boolean, or None for all
        Pixels that take part.

    Notes
    -----
    Quality: one minus the intensity per pixel outside over that inside. Sigma: counting statistics of the pixels
    inside, ``sqrt(sum rho^2 I / 2) / N``.
    """

    fraction: float = 0.5
    half: int = 1
    good: BoolArray | None = None

    def prepare(self, shape: tuple[int, int]) -> Any:
        """Keep the shape."""
        return shape, self.good

    def measure(self, frames: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """See `Method`."""
        (rows, columns), good = prepared
        pixels, local, place = _arguments(frames, local, out, place)
        smooth, line = np.zeros((rows, columns)), np.zeros(columns)
        threshold_centres(pixels, local, out, place, _flat(good), self.fraction, self.half, (smooth, line))


@dataclass(frozen=True, slots=True, eq=False)
class InversionCentre:
    """Point about which the frame is its own inversion (Friedel's law), also where a beam stop hides the beam.

    Attributes
    ----------
    good : shape (ky, kx), boolean, or None for all
        Pixels that take part: False under the beam stop.
    near, reach : px
        Only centres less than `reach` from `near` (row, column) are looked for.

    Notes
    -----
    See `stemstore.kernels.inversion`. Quality: correlation of the frame with its inversion. Sigma is not known (NaN).
    Memory per thread: about ten images of twice the frame's rows and columns, in float64.
    """

    good: BoolArray | None = None
    near: tuple[float, float] | None = None
    reach: float = math.inf

    def prepare(self, shape: tuple[int, int]) -> Any:
        """Transform the mask, once."""
        good = np.ones(shape, bool) if self.good is None else self.good
        return Inversion.of(good, self.near, self.reach)

    def measure(self, frames: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """See `Method`."""
        for number, row in zip(local.tolist(), place.tolist(), strict=True):
            out[row, :3] = prepared.centre(frames[number])


def within(shape: tuple[int, int], near: tuple[float, float], reach: float) -> BoolArray:
    """Mark the pixels of a detector within `reach` of a place (row, column)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(np.hypot(rows - near[0], columns - near[1]) <= reach)


def _arguments(frames: Array, local: Int64Array, out: Array, place: Int64Array) -> tuple[Array, Int64Array, Int64Array]:
    """Check what compiled loops index."""
    pixels = pixels_of(frames)
    return pixels, *check_rows(local, len(pixels), place, out, (len(COLUMNS),))


def _flat(mask: BoolArray | None) -> BoolArray:
    """Give a mask pixel by pixel; an empty one stands for all pixels."""
    return frozen(np.ones(0, bool) if mask is None else mask.reshape(-1))
