"""What a kernel is: one numeric code that every source and every dask block can drive.

A driver (a store, a raw file, a block of an ordinary dask array) hands over pieces of the scan as it decodes them: a
stack of whole stored frames, or a block of events. It says which frames of the piece are wanted and to which output
row each belongs. The kernel adds them into the output; it never sees files, labels or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array, UInt32Array
    from stemstore.selection import Index, Selection


@dataclass(frozen=True, slots=True)
class DetectorRegion:
    """The part of the stored detector that an operation looks at.

    Attributes
    ----------
    stored
        Rows and columns of the stored detector.
    rows, columns
        Stored indices that are visible, in their visible order; may repeat.
    """

    stored: tuple[int, int]
    rows: Index
    columns: Index

    @classmethod
    def of(cls, selection: Selection) -> DetectorRegion:
        """Take the detector part of a selection."""
        rows, columns = selection.detector
        return cls((selection.stored[-2], selection.stored[-1]), rows, columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Visible rows and columns."""
        return len(self.rows), len(self.columns)

    @property
    def whole(self) -> bool:
        """Whether the visible detector is the stored one."""
        axes = zip((self.rows, self.columns), self.stored, strict=True)
        return all(isinstance(axis, range) and axis == range(size) for axis, size in axes)

    @property
    def repeats(self) -> bool:
        """Whether a stored pixel is visible more than once."""
        return any(len(set(axis)) < len(axis) for axis in (self.rows, self.columns) if not isinstance(axis, range))

    @property
    def contiguous(self) -> bool:
        """Whether the visible rows and columns are unbroken runs of stored ones, in stored order."""
        return all(isinstance(axis, range) and axis.step == 1 and len(axis) for axis in (self.rows, self.columns))

    def embed(self, visible: Array) -> Array:
        """Place weights given on the visible detector onto the stored one.

        Unseen pixels get zero; a pixel seen several times gets the sum of its weights, so that a weighted sum over the
        stored frame equals the one over the visible frame exactly.
        """
        if self.whole:
            return np.ascontiguousarray(visible)
        out = np.zeros(visible.shape[:-2] + self.stored, dtype=visible.dtype)
        np.add.at(out, self._grid(), visible)
        return out

    def crop(self, stored: Array) -> Array:
        """Cut the visible detector out of an array whose last two axes are the stored one."""
        if self.whole:
            return stored
        return stored[self._grid()]

    def visible(self) -> BoolArray:
        """Which pixels of the stored detector are visible."""
        seen = np.zeros(self.stored, bool)
        seen[self._grid()] = True
        return seen

    def _grid(self) -> Any:
        rows, columns = (np.asarray(axis, dtype=np.int64) for axis in (self.rows, self.columns))
        return (..., rows[:, None], columns[None, :])


@dataclass(frozen=True, slots=True)
class Events:
    """Electron events of consecutive frames in compressed-row form.

    Attributes
    ----------
    indptr : shape (n_frames + 1,)
        Frame i owns ``indices[indptr[i]:indptr[i + 1]]``.
    indices : shape (n_events,)
        Flat detector index ``ky * frame_shape[1] + kx``; an index repeats when several electrons hit one pixel.
    frame_shape
        Detector rows and columns.
    columns
        What else is known of every event, by name: arrays of shape (n_events,). Most sources know nothing else.
    """

    indptr: Int64Array
    indices: UInt32Array
    frame_shape: tuple[int, int]
    columns: dict[str, Array] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Number of frames, empty ones included."""
        return len(self.indptr) - 1


class Kernel(Protocol):
    """One operation on frames or events."""

    @property
    def reduces(self) -> Literal["detector", "scan"]:
        """What the operation takes away.

        ``"detector"``: one output row per scan position. ``"scan"``: one output for all positions of a piece of work;
        partial outputs are merged with `combine`.
        """

    @property
    def combine(self) -> np.ufunc:
        """NumPy ufunc that merges partial outputs of a ``"scan"`` kernel (``np.add`` or ``np.maximum``)."""

    def prepare(self, region: DetectorRegion) -> Any:
        """Turn the operation's weights into plain arrays on the stored detector."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape behind the scan axes and dtype of the result, for pixels of `dtype`."""

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed array that `frames` and `events` add into.

        ``(n_positions, …)`` for a ``"detector"`` kernel; any shape of its own for a ``"scan"`` kernel.
        """

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Process frames ``block[local[i]]`` into ``out[place[i]]``.

        Parameters
        ----------
        block : shape (n, stored ky, stored kx), C-contiguous
            Valid during the call only.
        local, place : shape (m,)
            Frames of the block, and their output rows (meaningless for a ``"scan"`` kernel).
        """

    def events(
        self,
        gap: UInt16Array,
        offsets: Int64Array,
        local: Int64Array,
        out: Array,
        place: Int64Array,
        prepared: Any,
    ) -> None:
        """Process the events of frames ``local[i]`` of a block into ``out[place[i]]``.

        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]`` (see `stemstore.kernels.events` for the coding).
        """

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Turn the accumulated output into the result (a ``"scan"`` kernel crops the detector here)."""


def looked_at(kernel: Kernel, prepared: Any, region: DetectorRegion) -> BoolArray | None:
    """Tell which pixels of the stored detector a kernel looks at; None for all, and where it does not tell.

    A kernel tells by a method ``looks_at(prepared, region)``. A source may give it zeros in all other pixels.
    """
    ask = getattr(kernel, "looks_at", None)
    return None if ask is None else ask(prepared, region)


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which pixels of `dtype` are summed: uint64, int64 or float64, so that integer sums are exact."""
    return np.dtype({"u": np.uint64, "b": np.uint64, "i": np.int64}.get(np.dtype(dtype).kind, np.float64))
