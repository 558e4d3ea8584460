"""Which positions and which detector pixels of a stored scan are meant.

A `Selection` is a grid: one run of stored indices per stored axis. Indexing composes selections without touching data,
so that a lazy array can carry what the user selected and a source can read just that.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array

Index: TypeAlias = "range | Int64Array"
"""Stored indices along one axis: a range while regular, otherwise an int64 array."""

DETECTOR_AXES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """An orthogonal selection of a stored array whose last two axes are the detector.

    Attributes
    ----------
    stored
        Shape of the stored array, scan axes first, detector rows and columns last.
    axes
        Stored indices selected along each stored axis.
    kept
        False for an axis that an integer index has dropped.
    """

    stored: tuple[int, ...]
    axes: tuple[Index, ...]
    kept: tuple[bool, ...]

    @classmethod
    def full(cls, stored: tuple[int, ...]) -> Selection:
        """Select everything of an array of shape `stored`."""
        return cls(tuple(stored), tuple(range(n) for n in stored), (True,) * len(stored))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the selected array, dropped axes left out."""
        return tuple(len(axis) for axis, kept in zip(self.axes, self.kept, strict=True) if kept)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of selected indices along every stored axis, dropped axes counted as one."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def scan(self) -> tuple[Index, ...]:
        """Stored indices along the scan axes."""
        return self.axes[:-DETECTOR_AXES]

    @property
    def detector(self) -> tuple[Index, Index]:
        """Stored indices of detector rows and columns."""
        ky, kx = self.axes[-DETECTOR_AXES:]
        return ky, kx

    @property
    def scan_lengths(self) -> tuple[int, ...]:
        """Number of selected positions along every scan axis, dropped axes counted as one."""
        return self.lengths[:-DETECTOR_AXES]

    @property
    def n_positions(self) -> int:
        """Number of selected scan positions, repetitions counted."""
        return math.prod(self.scan_lengths)

    @property
    def whole_detector(self) -> bool:
        """Whether every detector pixel is selected, in stored order."""
        axes = zip(self.detector, self.stored[-DETECTOR_AXES:], strict=True)
        return all(isinstance(axis, range) and axis == range(size) for axis, size in axes)

    @property
    def token(self) -> str:
        """Short digest of the selection; equal selections have equal tokens."""
        digest = hashlib.blake2b(digest_size=16)
        for axis in self.axes:
            text = f"{axis.start}:{axis.stop}:{axis.step}" if isinstance(axis, range) else ""
            digest.update(text.encode() or np.ascontiguousarray(axis).tobytes())
            digest.update(b"|")
        digest.update(repr((self.stored, self.kept)).encode())
        return digest.hexdigest()

    def flat_positions(self) -> Int64Array:
        """Flat stored scan position of every selected position, in the order of the selection."""
        return flatten(self.scan, self.stored[:-DETECTOR_AXES])

    def compose(self, key: Any) -> Selection | None:
        """Apply a NumPy index to the selected array.

        Parameters
        ----------
        key
            Integers, slices, an Ellipsis and at most one one-dimensional integer or boolean array.

        Returns
        -------
        selection
            None where the key is legal but not a grid selection (new axes, pointwise or multi-dimensional indexing).

        Raises
        ------
        IndexError
            An index lies outside the selected array, as in NumPy.
        """
        parts = _expand(key, len(self.shape))
        if parts is None:
            return None
        axes, kept, todo = list(self.axes), list(self.kept), iter(parts)
        for number, axis in enumerate(self.axes):
            if not self.kept[number]:
                continue
            part = next(todo)
            if isinstance(part, (int, np.integer)):
                axes[number], kept[number] = _one(axis, int(part)), False
            else:
                axes[number] = _take(axis, part)
        return Selection(self.stored, tuple(axes), tuple(kept))

    def cut(self, parts: tuple[slice, ...]) -> Selection:
        """Apply one slice per stored axis (dropped axes included, as axes of length one)."""
        axes = tuple(_take(axis, part) for axis, part in zip(self.axes, parts, strict=True))
        return Selection(self.stored, axes, self.kept)

    def cut_scan(self, parts: tuple[slice, ...]) -> Selection:
        """Apply one slice per scan axis; the detector stays as selected."""
        return self.cut((*parts, slice(None), slice(None)))


def indices(axis: Index) -> Int64Array:
    """List the indices of an axis; a range without going through its numbers one by one."""
    if isinstance(axis, range):
        return np.arange(axis.start, axis.stop, axis.step, dtype=np.int64)
    return np.asarray(axis, dtype=np.int64)


def flatten(axes: tuple[Index, ...], shape: tuple[int, ...]) -> Int64Array:
    """Flat C-order positions of the grid spanned by index runs `axes` in an array of shape `shape`."""
    flat = np.zeros(1, dtype=np.int64)
    for axis, size in zip(axes, shape, strict=True):
        flat = np.add.outer(flat * size, indices(axis)).reshape(-1)
    return flat


def runs(axis: Index, size: int) -> Iterator[slice]:
    """Cut `axis` where it passes from one stored block of `size` indices to another, keeping its order."""
    blocks = indices(axis) // size
    borders = np.flatnonzero(np.diff(blocks)) + 1
    edges = [0, *borders.tolist(), len(blocks)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield slice(start, stop)


def groups(axis: Index, size: int) -> Iterator[tuple[int, Int64Array, Int64Array]]:
    """Gather `axis` by stored block of `size` indices, each block once.

    Yields
    ------
    block, local, place
        Block number, indices inside the block, and where each of them stands in `axis`.
    """
    index = indices(axis)
    order = np.argsort(index, kind="stable")
    blocks = index[order] // size
    edges = np.flatnonzero(np.diff(blocks)) + 1
    for place in np.split(order, edges):
        if len(place):
            block = int(index[place[0]]) // size
            yield block, index[place] - block * size, place.astype(np.int64)


def _expand(key: Any, ndim: int) -> list[Any] | None:
    """Bring a key to one part per axis, or None where it is not a grid selection."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(part is None for part in parts):
        return None
    parts = [np.asarray(part) if isinstance(part, (list, np.ndarray)) else part for part in parts]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    known = all(isinstance(part, (int, np.integer, slice, np.ndarray)) or part is Ellipsis for part in parts)
    if not known or len(arrays) > 1 or any(a.ndim != 1 or a.dtype.kind not in "iub" for a in arrays):
        return None
    if arrays and any(isinstance(part, (int, np.integer)) for part in parts):
        return None  # NumPy broadcasts an integer with an array; leave its axis rules to NumPy
    if any(isinstance(part, (bool, np.bool_)) for part in parts):
        return None
    dots = [number for number, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        msg = "an index can only have a single ellipsis ('...')"
        raise IndexError(msg)
    fill = ndim - (len(parts) - len(dots))
    if fill < 0:
        msg = f"too many indices: the scan has {ndim} axes, but {len(parts) - len(dots)} were indexed"
        raise IndexError(msg)
    at = dots[0] if dots else len(parts)
    return parts[:at] + [slice(None)] * fill + parts[at + len(dots) :]


def _one(axis: Index, index: int) -> Index:
    if not -len(axis) <= index < len(axis):
        msg = f"index {index} is out of bounds for an axis of size {len(axis)}"
        raise IndexError(msg)
    stored = int(axis[index])
    return range(stored, stored + 1)


def _take(axis: Index, part: slice | Array) -> Index:
    if isinstance(part, slice):
        return axis[part]
    if part.dtype.kind == "b":
        if len(part) != len(axis):
            msg = f"boolean index of length {len(part)} does not match an axis of size {len(axis)}"
            raise IndexError(msg)
        part = np.flatnonzero(part)
    if len(part) and not (-len(axis) <= part.min() and part.max() < len(axis)):
        msg = f"indices {part.min()}..{part.max()} are out of bounds for an axis of size {len(axis)}"
        raise IndexError(msg)
    return np.asarray(axis, dtype=np.int64)[part.astype(np.int64)]
