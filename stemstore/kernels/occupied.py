"""The pixels of frames that hold anything, with what they hold: frames as rows of a sparse matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

SMALL = 2**31


class Rows(NamedTuple):
    """Frames as compressed rows: frame i has the pixels ``indices[indptr[i]:indptr[i + 1]]``, rising, each once."""

    indptr: Int64Array
    indices: Array
    values: Array


def occupied(gap: UInt16Array, offsets: Int64Array, local: Int64Array, n_pixels: int, dtype: np.dtype[Any]) -> Rows:
    """Find the pixels of frames ``local[i]`` that electrons hit, and their number in each.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.
    local : shape (m,)
        Frames of the block.
    n_pixels
        Pixels of the detector.
    dtype
        Of the numbers of electrons.

    Returns
    -------
    rows
        Indices are int32 where these suffice, else int64.

    Raises
    ------
    InputError
        Frames that the block does not have, or more electrons in a pixel than `dtype` holds.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, n_pixels)
    n_slots = int((offsets[local + 1] - offsets[local]).sum())
    indices = np.empty(n_slots, np.int32 if n_pixels <= SMALL else np.int64)
    values, indptr = np.empty(n_slots, dtype), np.zeros(len(local) + 1, np.int64)
    wrong = int(_occupied(gap, offsets, local, indptr, indices, values))
    if wrong >= 0:
        msg = f"pixel {wrong} has more electrons in one frame than {dtype} can hold; convert the scan to a store first"
        raise InputError(msg, pixel=wrong, dtype=str(dtype))
    n = int(indptr[-1])
    return Rows(indptr, indices[:n], values[:n])


@numba.njit(nogil=True, cache=True)
def _occupied(gap, offsets, local, indptr, indices, values):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = values.dtype.type
    n = 0
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        index, first = np.int64(0), n
        for k in range(part.size):
            index += part[k]
            if part[k] != ESCAPE:
                if n > first and indices[n - 1] == index:
                    before = values[n - 1]
                    values[n - 1] = kind(before + kind(1))
                    if values[n - 1] <= before:
                        return index
                else:
                    indices[n] = index
                    values[n] = kind(1)
                    n += 1
        indptr[i + 1] = n
    return -1


def occupied_frames(frames: Array) -> Rows:
    """Find the pixels of dense frames, (m, ky, kx), that are not zero."""
    flat = frames.reshape(len(frames), math.prod(frames.shape[1:]))
    row, column = np.nonzero(flat)
    indptr = np.searchsorted(row, np.arange(len(flat) + 1)).astype(np.int64)
    kind = np.int32 if flat.shape[1] <= SMALL else np.int64
    return Rows(indptr, column.astype(kind), flat[row, column])


def seen(rows: Rows, region: DetectorRegion) -> Rows:
    """Turn rows of stored pixels into rows of visible ones: numbered as they are seen, the others dropped."""
    if region.whole:
        return rows
    n_rows, n_columns = region.shape
    shown = np.arange(n_rows * n_columns).reshape(region.shape)
    stored = np.arange(region.stored[0] * region.stored[1]).reshape(region.stored)
    source = region.crop(stored).reshape(-1)
    order = np.argsort(source, kind="stable")
    first = np.searchsorted(source[order], rows.indices, side="left")
    count = np.searchsorted(source[order], rows.indices, side="right") - first
    frame = np.repeat(np.repeat(np.arange(len(rows.indptr) - 1), np.diff(rows.indptr)), count)
    within = np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count)
    pixel = shown.reshape(-1)[order[np.repeat(first, count) + within]]
    sort = np.lexsort((pixel, frame))
    indptr = np.searchsorted(frame[sort], np.arange(len(rows.indptr))).astype(np.int64)
    return Rows(indptr, pixel[sort].astype(rows.indices.dtype), np.repeat(rows.values, count)[sort])


def joined(parts: list[tuple[Int64Array, Rows]], n_frames: int, dtype: np.dtype[Any]) -> Rows:
    """Put parts together.

    Parameters
    ----------
    parts
        Frame numbers of the result, and their rows. Frames in none are empty.
    n_frames, dtype
        Of the result.

    Returns
    -------
    rows
        The arrays of the part itself where there is one part in order; a single copy otherwise.
    """
    if len(parts) == 1 and np.array_equal(parts[0][0], np.arange(n_frames)):
        return parts[0][1]
    lengths = np.zeros(n_frames, np.int64)
    for place, part in parts:
        lengths[place] = np.diff(part.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    wide = any(part.indices.dtype.itemsize > np.dtype(np.int32).itemsize for _, part in parts)
    indices = np.empty(indptr[-1], np.int64 if wide else np.int32)
    values = np.empty(indptr[-1], dtype)
    for place, part in parts:
        own = np.diff(part.indptr)
        if len(place) and (np.diff(place) == 1).all():
            there: Any = slice(int(indptr[place[0]]), int(indptr[place[-1] + 1]))
        else:
            there = np.repeat(indptr[place] - part.indptr[:-1], own) + np.arange(len(part.indices))
        indices[there], values[there] = part.indices, part.values
    return Rows(indptr, indices, values)


@dataclass(slots=True, eq=False)
class Collected:
    """Output of `OccupiedPixels`: what came in so far."""

    n_frames: int
    dtype: np.dtype[Any]
    parts: list[tuple[Int64Array, Rows]] = field(default_factory=list)

    def rows(self) -> Rows:
        """Put everything in order."""
        return joined(self.parts, self.n_frames, self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class OccupiedPixels:
    """Kernel: the frames as rows of a sparse matrix; its output is `Collected`, not an array."""

    dtype: np.dtype[Any]
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Have no shape of its own."""
        del region
        return (), dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Any:
        """Start without anything."""
        del dtype, region
        return Collected(n_positions, self.dtype)

    def frames(self, block: Array, local: Int64Array, out: Any, place: Int64Array, prepared: DetectorRegion) -> None:
        """Collect the pixels of dense frames."""
        out.parts.append((place, occupied_frames(prepared.crop(block[local]))))

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Any, place: Int64Array, prepared: Any
    ) -> None:
        """Collect the pixels that electrons hit."""
        n_pixels = prepared.stored[0] * prepared.stored[1]
        out.parts.append((place, seen(occupied(gap, offsets, local, n_pixels, self.dtype), prepared)))

    def finish(self, out: Any, region: DetectorRegion) -> Any:
        """Leave what came in as it is."""
        del region
        return out
