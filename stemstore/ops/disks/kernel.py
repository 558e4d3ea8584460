"""Disk detection as a kernel: a list of fixed length per frame, streamed over a scan like any other operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.disks.events import electron_frames
from stemstore.kernels.disks.search import COLUMNS, frame_disks
from stemstore.ops.disks.turns import short_turns

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion
    from stemstore.kernels.disks.plan import DiskPlan


@dataclass(frozen=True, slots=True, eq=False)
class DiskKernel:
    """Kernel: the list of Bragg disks of every frame, shape (max_peaks, columns), NaN behind the last disk.

    Columns as in `stemstore.kernels.disks.search.COLUMNS`; rows and columns count on the visible detector.
    """

    plan: DiskPlan
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[DiskPlan, DetectorRegion]:
        """Check that the plan was made for the visible detector."""
        if region.shape != self.plan.frame_shape:
            msg = (
                f"disk detection was planned for frames of {self.plan.frame_shape} pixels, but the scan shows "
                f"{region.shape}; plan it for the detector region that is used"
            )
            raise InputError(msg, expected=self.plan.frame_shape, found=region.shape)
        return self.plan, region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One list of fixed length per frame, whatever the dtype."""
        del dtype, region
        return (self.plan.parameters.max_peaks, len(COLUMNS)), np.dtype(np.float32)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make empty lists: a position that is never visited has no disks."""
        shape, wide = self.output(dtype, region)
        return np.full((n_positions, *shape), np.nan, wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Find the disks of dense frames, one by one."""
        plan, region = prepared
        with short_turns():
            for frame, row in zip(local, place, strict=True):
                frame_disks(region.crop(block[frame]), plan, out[row])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Count the electrons of one frame after the other, and find its disks."""
        plan, region = prepared
        with short_turns():
            for frame, row in zip(electron_frames(gap, offsets, local, region.stored), place, strict=True):
                frame_disks(region.crop(frame), plan, out[row])

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the lists as they are."""
        del region
        return out
