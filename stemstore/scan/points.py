"""Single positions of a scan, in any order and number, as a scan source of their own.

A `PointSource` hands the positions of each partition to the source below it as the smallest grid around them, with
flags for those that are meant. So only the chunks touched are read, each once per task. `picking` makes them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.kernels.contract import DetectorRegion
from stemstore.scan.lazy import source_node
from stemstore.selection import DETECTOR_AXES, Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import Kernel
    from stemstore.scan.lazy import ScanSource
    from stemstore.selection import Index

_DENSE_BYTES = 4 * 2**20
"""Whole frames made at once before the visible detector is cut out of them."""

MANY_TASKS = 16
"""Tasks that an operation on scattered positions is cut into, where it reads that many blocks: work for all threads."""


class PointSource:
    """Chosen positions of another scan source; a scan source.

    Parameters
    ----------
    source
        Where the frames are.
    points
        Flat stored scan position of each position, of any shape; may repeat.
    """

    def __init__(self, source: ScanSource, points: Int64Array) -> None:
        self.source = source
        self.points = np.ascontiguousarray(points, np.int64)
        self.shape = (*self.points.shape, *source.shape[-DETECTOR_AXES:])
        self.dtype = source.dtype
        digest = hashlib.blake2b(self.points.tobytes(), digest_size=16).hexdigest()
        self.uuid = f"{source.uuid}-{digest}-{self.points.shape}"
        touched = len(np.unique(block_numbers(self.points, source, source.chunk)))
        per_partition = math.prod(source.partition) // math.prod(source.chunk)
        tasks = max(touched // max(per_partition, 1), min(touched, MANY_TASKS), 1)
        self.chunk = _extents(self.points.shape, math.prod(source.chunk))
        self.partition = _extents(self.points.shape, -(-self.points.size // tasks))

    def __reduce__(self) -> tuple[Any, ...]:
        return PointSource, (self.source, self.points)

    def opening(self) -> tuple[Any, ...]:
        """Give the call that opens the source where the tasks run, function first."""
        return PointSource, source_node(self.source), self.points

    def read(self, selection: Selection) -> Array:
        """Read the selected positions as an array of ``selection.shape``."""
        kernel = Frames(self.dtype)
        return self.run(selection, kernel, kernel.prepare(DetectorRegion.of(selection))).reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions through a kernel, partition by partition of the source."""
        out = kernel.allocate(selection.n_positions, self.dtype, DetectorRegion.of(selection))
        wanted = self.points.reshape(-1)[selection.flat_positions()]
        rows = np.arange(len(wanted)) if keep is None else np.flatnonzero(keep)
        for grid, flags, placed in self._grids(wanted, rows, selection.detector):
            self.source.run(grid, Placed(kernel, out, *placed), prepared, flags)
        return out

    def _grids(
        self, wanted: Int64Array, rows: Int64Array, detector: tuple[Index, Index]
    ) -> Iterator[tuple[Selection, BoolArray, tuple[Int64Array, Int64Array]]]:
        """Find the smallest grid around the wanted positions of each partition.

        Yields
        ------
        grid, flags
            Of the source, and which of its positions are wanted.
        placed
            Output rows, sorted by place in the grid, and where those of each place begin.
        """
        shape = self.source.shape
        number = block_numbers(wanted[rows], self.source, self.source.partition)
        order = np.argsort(number, kind="stable")
        for some in np.split(rows[order], np.flatnonzero(np.diff(number[order])) + 1):
            if len(some) == 0:
                continue
            along = np.unravel_index(wanted[some], shape[:-DETECTOR_AXES])
            axes, inside = zip(*(np.unique(index, return_inverse=True) for index in along), strict=True)
            lengths = tuple(len(axis) for axis in axes)
            place = np.ravel_multi_index(inside, lengths)
            count = np.bincount(place, minlength=math.prod(lengths))
            grid = Selection(shape, (*(axis.astype(np.int64) for axis in axes), *detector), (True,) * len(shape))
            begins = np.concatenate([[0], np.cumsum(count)])
            yield grid, (count > 0).reshape(lengths), (some[np.argsort(place, kind="stable")], begins)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Kernel: another kernel whose rows are found by place in a grid; a place may have several rows.

    Attributes
    ----------
    kernel, out
        The operation and its output, which several grids share.
    rows, begins
        Place p of the grid has the output rows ``rows[begins[p]:begins[p + 1]]``.
    """

    kernel: Kernel
    out: Any
    rows: Int64Array
    begins: Int64Array

    @property
    def reduces(self) -> Any:
        """As the kernel."""
        return self.kernel.reduces

    @property
    def combine(self) -> np.ufunc:
        """As the kernel."""
        return self.kernel.combine

    def prepare(self, region: DetectorRegion) -> Any:
        """Prepare the kernel."""
        return self.kernel.prepare(region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """As the kernel."""
        return self.kernel.output(dtype, region)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Any:
        """Give the output that is there already."""
        del n_positions, dtype, region
        return self.out

    def frames(self, block: Array, local: Int64Array, out: Any, place: Int64Array, prepared: Any) -> None:
        """Hand frames to the kernel, each as often as it is wanted."""
        local, rows = self._expand(local, place)
        self.kernel.frames(block, local, out, rows, prepared)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Any, place: Int64Array, prepared: Any
    ) -> None:
        """Hand events to the kernel, each frame as often as it is wanted."""
        local, rows = self._expand(local, place)
        self.kernel.events(gap, offsets, local, out, rows, prepared)

    def finish(self, out: Any, region: DetectorRegion) -> Any:
        """Leave the output to whoever made it."""
        del region
        return out

    def _expand(self, local: Int64Array, place: Int64Array) -> tuple[Int64Array, Int64Array]:
        first, count = self.begins[place], self.begins[place + 1] - self.begins[place]
        ends = np.cumsum(count)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
        return np.repeat(local, count), self.rows[np.repeat(first, count) + within]


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Kernel: the visible frames themselves."""

    dtype: np.dtype[Any]
    reduces: Any = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One frame per position."""
        return region.shape, dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make empty frames."""
        return np.zeros((n_positions, *region.shape), dtype)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Copy dense frames."""
        out[place] = prepared.crop(block[local])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Make frames of events; one that the type cannot hold raises `InputError`."""
        from stemstore.kernels import events

        n_pixels = math.prod(prepared.stored)
        if prepared.whole:
            events.densify(gap, offsets, local, out.reshape(len(out), n_pixels), place)
            return
        step = max(1, _DENSE_BYTES // (n_pixels * self.dtype.itemsize))
        for first in range(0, len(local), step):
            some = slice(first, first + step)
            whole = np.zeros((len(local[some]), n_pixels), self.dtype)
            events.densify(gap, offsets, local[some], whole, np.arange(len(whole), dtype=np.int64))
            out[place[some]] = prepared.crop(whole.reshape(-1, *prepared.stored))

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the frames as they are."""
        del region
        return out


def block_numbers(points: Int64Array, source: ScanSource, extents: tuple[int, ...]) -> Int64Array:
    """Find the number of the block of `extents` that each flat position lies in."""
    shape = source.shape[:-DETECTOR_AXES]
    blocks = tuple(-(-size // extent) for size, extent in zip(shape, extents, strict=True))
    along = np.unravel_index(points.reshape(-1), shape)
    inside = tuple(index // extent for index, extent in zip(along, extents, strict=True))
    return np.asarray(np.ravel_multi_index(inside, blocks), np.int64)


def _extents(shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Extents of a run of at most about `n` positions in C order."""
    extents = []
    for size in reversed(shape):
        extents.append(max(1, min(size, n)))
        n //= max(size, 1)
    return tuple(reversed(extents))
