"""A scan whose patterns were moved by whole pixels, each by its own distance (see `stemstore.kernels.shifting`)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.kernels.contract import sum_dtype
from stemstore.kernels.shifting import leaving_frames, shift_events, shift_frames
from stemstore.scan.altered import AlteredSource
from stemstore.scan.lazy import ScanArray
from stemstore.scan.points import PointSource
from stemstore.selection import Selection

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion
    from stemstore.scan.lazy import ScanSource


@dataclass(frozen=True, slots=True, eq=False)
class Shifts:
    """Change: every frame moves by whole pixels; `moves`, (positions of the source, 2), along ky and kx."""

    moves: Int64Array

    @property
    def token(self) -> str:
        """Text that tells changes apart."""
        return f"moved-{hashlib.blake2b(self.moves.tobytes(), digest_size=16).hexdigest()}"

    def numbers(self, source: ScanSource, selection: Selection) -> Int64Array:
        """Give the moves of the selected positions."""
        del source
        return self.moves[selection.flat_positions()]

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, numbers: Int64Array, detector: tuple[int, int]
    ) -> tuple[UInt16Array, Int64Array]:
        """Make a block of the moved events."""
        moved, ends, _ = shift_events(gap, offsets, local, numbers, detector)
        return moved, ends

    def frames(self, block: Array, local: Int64Array, numbers: Int64Array) -> Array:
        """Give the moved frames."""
        return shift_frames(block, local, numbers)


def recentred(source: ScanSource, selection: Selection, moves: Int64Array) -> ScanArray:
    """Move the selected frames of a source; the others stay.

    Parameters
    ----------
    source, selection
        The scan.
    moves : shape (…scan, 2)
        Of the selected positions, along ky and kx.

    Returns
    -------
    array
        The selection, moved. A position that is selected several times with different moves is a frame for each.
    """
    flat, own = selection.flat_positions(), moves.reshape(-1, 2)
    table = np.zeros((math.prod(source.shape[:-2]), 2), np.int64)
    table[flat] = own
    if (table[flat] != own).any():
        kept = tuple(n for n, is_kept in zip(selection.scan_lengths, selection.kept, strict=False) if is_kept)
        source, table = PointSource(source, flat.reshape(kept)), own
        axes = (*(range(n) for n in kept), *selection.detector)
        selection = Selection(source.shape, axes, (True,) * len(axes))
    return ScanArray(AlteredSource(source, Shifts(np.ascontiguousarray(table))), selection)


@dataclass(frozen=True, slots=True, eq=False)
class Leaving:
    """Kernel: what leaves the stored detector when frames are moved; `moves` belong to the positions of the work."""

    moves: Int64Array
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def at(self, values: Int64Array) -> Leaving:
        """Give the kernel for positions with these moves, (…, 2)."""
        return replace(self, moves=values.reshape(-1, 2))

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region: the detector is the stored one."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One sum per frame."""
        del region
        return (), sum_dtype(dtype)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums."""
        del region
        return np.zeros(n_positions, sum_dtype(dtype))

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Sum what leaves dense frames."""
        del prepared
        out[place] = leaving_frames(block, local, self.moves[place])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Count the electrons that leave."""
        out[place] = shift_events(gap, offsets, local, self.moves[place], prepared.stored)[2]

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out
