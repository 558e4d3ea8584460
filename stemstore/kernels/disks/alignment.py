"""The mean probe of a vacuum scan: every pattern moved so that its disk lies in the middle, then added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.disks.events import electron_frames
from stemstore.kernels.disks.probe import moved_by
from stemstore.kernels.disks.search import COLUMNS, frame_disks

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion
    from stemstore.kernels.disks.plan import DiskPlan

RIM = 3  # px; moving a cut-out by a part of a pixel disturbs its rim
SURROUNDINGS = 2.2  # radii; the background of a probe is measured up to two


@dataclass(frozen=True, slots=True, eq=False)
class AlignedSum:
    """Kernel: sum of the cut-outs around the brightest disk of every frame, moved to its sub-pixel position.

    The result has the shape (2, n, n): the sum, its disk in the middle, and the number of frames in all of the second
    image. Frames without a disk, or whose cut-out leaves the detector, are left out.
    """

    plan: DiskPlan
    reduces: Literal["scan"] = "scan"
    combine: np.ufunc = np.add

    @property
    def half(self) -> int:
        """Half-width of the cut-out."""
        return math.ceil(SURROUNDINGS * self.plan.parameters.radius) + RIM

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Need nothing but the region."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Two images."""
        del dtype, region
        side = 2 * (self.half - RIM) + 1
        return (2, side, side), np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Start from nothing."""
        del n_positions
        return np.zeros(*self.output(dtype, region))

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames."""
        del place
        for number in local:
            self._add(prepared.crop(block[number]), out)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames."""
        del place
        for frame in electron_frames(gap, offsets, local, prepared.stored):
            self._add(prepared.crop(frame), out)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the images as they are."""
        del region
        return out

    def _add(self, frame: Array, out: FloatArray) -> None:
        found = np.empty((self.plan.parameters.max_peaks, len(COLUMNS)), np.float32)
        if not frame_disks(frame, self.plan, found):
            return
        centre = found[0, :2].astype(np.float64)
        whole = np.rint(centre).astype(int)
        low, high = whole - self.half, whole + self.half + 1
        if (low < 0).any() or (high > frame.shape).any():
            return
        window = frame[low[0] : high[0], low[1] : high[1]].astype(np.float64)
        if not np.isfinite(window).all():
            return
        down, right = whole - centre
        out[0] += moved_by(window, (float(down), float(right)))[RIM:-RIM, RIM:-RIM]
        out[1] += 1
