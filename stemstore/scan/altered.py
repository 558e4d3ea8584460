"""Scans whose frames are those of another scan, altered one by one while they stream: thinned, moved.

An `AlteredSource` stands in front of another scan source. What every operation gets is what it would get of the
altered frames written to a file; nothing is written, and nothing is altered before it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.gaps import runs_of_slots
from stemstore.scan.lazy import source_node
from stemstore.scan.pieces import SmallPieces
from stemstore.scan.points import Frames, PointSource
from stemstore.scan.series.source import holds_events

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import Kernel
    from stemstore.scan.lazy import ScanSource
    from stemstore.selection import Selection

BATCH_BYTES = 4 * 2**20
"""Bytes of dense frames that are altered at a time."""


class Change(Protocol):
    """What is done to every frame.

    Attributes
    ----------
    token
        Text that tells changes apart.
    """

    @property
    def token(self) -> str:
        """Text that tells changes apart."""

    def numbers(self, source: ScanSource, selection: Selection) -> Int64Array:
        """Give what each selected position of `source` is known by to the other methods."""

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, numbers: Int64Array, detector: tuple[int, int]
    ) -> tuple[UInt16Array, Int64Array]:
        """Make a block of frames ``local[i]``, altered, in the coding of `stemstore.kernels.gaps`."""

    def frames(self, block: Array, local: Int64Array, numbers: Int64Array) -> Array:
        """Give frames ``block[local[i]]``, altered."""


class AlteredSource:
    """The frames of a scan source, altered one by one; a scan source.

    Parameters
    ----------
    source
        Where the frames are.
    change
        What is done to each of them.
    """

    def __init__(self, source: ScanSource, change: Change) -> None:
        self.source, self.change = source, change
        self.shape, self.dtype = source.shape, source.dtype
        self.chunk, self.partition = source.chunk, source.partition
        self.uuid = f"{source.uuid}-{change.token}"

    def __reduce__(self) -> tuple[Any, ...]:
        return AlteredSource, (self.source, self.change)

    def opening(self) -> tuple[Any, ...]:
        """Give the call that opens the source where the tasks run, function first."""
        return AlteredSource, source_node(self.source), self.change

    def read(self, selection: Selection) -> Array:
        """Read the selected frames, altered, as an array of ``selection.shape``."""
        kernel = Frames(self.dtype)
        return self.run(selection, kernel, kernel.prepare(DetectorRegion.of(selection))).reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions, altered, through a kernel."""
        numbers = self.change.numbers(self.source, selection)
        altering = Altering(kernel, self.change, numbers, (self.shape[-2], self.shape[-1]))
        return self.source.run(selection, altering, prepared, keep)


@dataclass(frozen=True, slots=True, eq=False)
class Altering:
    """Kernel: another kernel, on altered frames; `numbers` belong to the positions of the work."""

    kernel: Kernel
    change: Change
    numbers: Int64Array
    detector: tuple[int, int]

    @property
    def reduces(self) -> Any:
        """As the kernel."""
        return self.kernel.reduces

    @property
    def combine(self) -> np.ufunc:
        """As the kernel."""
        return self.kernel.combine

    def at(self, values: Int64Array) -> Altering:
        """Give the kernel for positions with these numbers, (…positions, …)."""
        return replace(self, numbers=values.reshape(-1, *self.numbers.shape[1:]))

    def prepare(self, region: DetectorRegion) -> Any:
        """Prepare the kernel."""
        return self.kernel.prepare(region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """As the kernel."""
        return self.kernel.output(dtype, region)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the output of the kernel."""
        return self.kernel.allocate(n_positions, dtype, region)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Alter some dense frames at a time and hand them on."""
        step = max(1, BATCH_BYTES // max(1, block[:1].nbytes))
        for first in range(0, len(local), step):
            some = slice(first, first + step)
            frames = self.change.frames(block, local[some], self.numbers[place[some]])
            self.kernel.frames(frames, np.arange(len(frames), dtype=np.int64), out, place[some], prepared)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Alter some lists of events at a time and hand them on."""
        for some in runs_of_slots(offsets[local + 1] - offsets[local]):
            numbers = self.numbers[place[some]]
            altered, ends = self.change.events(gap, offsets, local[some], numbers, self.detector)
            self.kernel.events(altered, ends, np.arange(len(numbers), dtype=np.int64), out, place[some], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Let the kernel finish."""
        return self.kernel.finish(out, region)


def below(source: Any) -> Any:
    """Give the source that another one takes its frames from; None for a store or a file."""
    return source.source if isinstance(source, (AlteredSource, PointSource, SmallPieces)) else None


def bottom(source: Any) -> Any:
    """Give the store or the file that frames come from in the end, whatever sources are on top."""
    while (under := below(source)) is not None:
        source = under
    return source


def is_counted(source: Any) -> bool:
    """Tell whether a source holds electron events, not pixels."""
    return holds_events(bottom(source))


def stored_positions(source: Any, selection: Selection) -> Int64Array:
    """Give the flat position in the store or the file of every selected position, whatever sources are on top."""
    flat = selection.flat_positions()
    while (under := below(source)) is not None:
        if isinstance(source, PointSource):
            flat = source.points.reshape(-1)[flat]
        source = under
    return flat
