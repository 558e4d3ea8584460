"""Small results that are written in the same pass as the data: images, patterns and a coarse copy for browsing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.kernels import events, frames
from stemstore.kernels.contract import sum_dtype

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array

BINNED = 32  # pixels along each side of the coarse detector
BATCH = 8  # frames per round of kernels, so that a frame is still in the cache for the next kernel
DARK_FROM = 1.5  # inner radius of the annular dark field, in bright-field radii: clear of the disk's soft edge


@dataclass(frozen=True, slots=True)
class BrightField:
    """Where the unscattered disk lies, as guessed from a coarse mean pattern.

    Attributes
    ----------
    center
        (ky, kx) in pixels.
    radius
        In pixels.
    """

    center: tuple[float, float]
    radius: float

    @classmethod
    def guess(cls, pattern: Array) -> BrightField:
        """Find the disk in a mean pattern: the area above half of the maximum, on a coarse grid.

        Parameters
        ----------
        pattern : shape (ky, kx)
            Sum or mean of many frames; a constant background is taken off.
        """
        factor = bin_factor(pattern.shape)
        coarse = np.zeros((1, *frames.binned_shape(pattern.shape, factor)), np.float64)
        one = np.zeros(1, np.int64)
        frames.bin_detector(np.asarray(pattern, np.float64)[None], one, coarse, one, factor)
        image = coarse[0] - np.median(coarse[0])
        lit = image > 0.5 * np.quantile(image, 1 - 1 / image.size)
        if not lit.any():
            middle = ((pattern.shape[0] - 1) / 2, (pattern.shape[1] - 1) / 2)
            return cls(middle, min(pattern.shape) / 8)
        weight = np.where(lit, image, 0.0)
        rows, columns = (np.arange(n) * f + (f - 1) / 2 for n, f in zip(image.shape, factor, strict=True))
        center = (float(weight.sum(1) @ rows / weight.sum()), float(weight.sum(0) @ columns / weight.sum()))
        return cls(center, max(1.0, math.sqrt(lit.sum() * math.prod(factor) / math.pi)))

    def masks(self, frame_shape: tuple[int, int]) -> tuple[Array, Array]:
        """Bright field (the disk) and annular dark field (from 1.5 radii outwards)."""
        rows, columns = (np.arange(n) - c for n, c in zip(frame_shape, self.center, strict=True))
        distance = np.hypot(rows[:, None], columns[None, :])
        return distance < self.radius, distance >= DARK_FROM * self.radius


class Summariser:
    """Computes the summary of pieces of a scan, frame by frame or event by event."""

    def __init__(self, frame_shape: tuple[int, int], dtype: np.dtype[Any], bright_field: BrightField) -> None:
        self.frame_shape, self.dtype = frame_shape, dtype
        self.factor = bin_factor(frame_shape)
        masks = np.stack(bright_field.masks(frame_shape))
        self.dense_masks, self.event_masks = frames.prepare_masks(masks), events.prepare_masks(masks)
        self.dense_region, self.event_region = frames.prepare_region(frame_shape), events.prepare_region(frame_shape)

    def of_frames(self, block: Array) -> dict[str, Any]:
        """Summarise frames of shape (n, ky, kx)."""
        moments, images, binned, total, highest = self._outputs(len(block))
        for start in range(0, len(block), BATCH):
            some = np.arange(start, min(start + BATCH, len(block)), dtype=np.int64)
            frames.moments(block, some, moments, some, self.dense_region)
            frames.masked_sums(block, some, images, some, self.dense_masks)
            frames.bin_detector(block, some, binned, some, self.factor)
            frames.add(block, some, total)
            frames.maximum(block, some, highest)
        return self._results(moments, images, binned, total, highest)

    def of_events(self, gap: UInt16Array, offsets: Int64Array) -> dict[str, Any]:
        """Summarise the events of a block."""
        n_frames = len(offsets) - 1
        moments, images, binned, total, highest = self._outputs(n_frames)
        every = np.arange(n_frames, dtype=np.int64)
        events.moments(gap, offsets, every, moments, every, self.event_region)
        events.masked_sums(gap, offsets, every, images, every, self.event_masks)
        events.bin_detector(gap, offsets, every, binned, every, self.frame_shape, self.factor)
        events.add(gap, offsets, every, total)
        events.maximum(gap, offsets, every, highest)
        return self._results(moments, images, binned, total, highest)

    def _outputs(self, n_frames: int) -> tuple[Array, Array, Array, Array, Array]:
        wide = sum_dtype(self.dtype)
        lowest = np.iinfo(self.dtype).min if self.dtype.kind in "iu" else -np.inf
        binned = frames.binned_shape(self.frame_shape, self.factor)
        return (
            np.zeros((n_frames, 3), wide),
            np.zeros((n_frames, 2), wide),
            np.zeros((n_frames, *binned), wide),
            np.zeros(self.frame_shape, wide),
            np.full(self.frame_shape, lowest, self.dtype),
        )

    def _results(self, moments: Array, images: Array, binned: Array, total: Array, highest: Array) -> dict[str, Any]:
        n = moments[:, 0]
        com = np.full((2, len(n)), np.nan)
        np.divide(moments[:, 1:].T, n, out=com, where=n > 0)
        coarse = binned.astype(_narrow(binned)) if binned.dtype.kind in "iu" else binned.astype(np.float32)
        maps = {"total": n, "com_y": com[0], "com_x": com[1], "binned": coarse}
        maps |= {"bright_field": images[:, 0], "annular_dark_field": images[:, 1]}
        return {"maps": maps, "sums": {"sum_pattern": total}, "maxima": {"max_pattern": highest}}


def bin_factor(frame_shape: tuple[int, ...]) -> tuple[int, int]:
    """Pixels that are summed into one of the coarse detector."""
    ky, kx = frame_shape
    return -(-ky // BINNED), -(-kx // BINNED)


def _narrow(binned: Array) -> np.dtype[Any]:
    """Smallest integer type that holds all sums of one sign; the end of a conversion takes the widest of all parts."""
    if binned.dtype.kind == "i":
        return np.result_type(
            np.min_scalar_type(binned.min(initial=-1)), np.min_scalar_type(-binned.max(initial=0) - 1)
        )
    return np.min_scalar_type(binned.max(initial=0))
