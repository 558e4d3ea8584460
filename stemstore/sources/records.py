"""Reading of fixed-stride records: straight from file to buffer, headers skipped, no handle kept.

A mapped file counts into the memory of the process with every page that was looked at. Vectored reads put the pixels
where they belong in one system call per run of records and leave nothing behind. Frames that lie back to back may also
be looked at in the page cache, a moment at a time.
"""

from __future__ import annotations

import io
import itertools
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError, TruncatedFileError
from stemstore.sources.fetch import read_ranges
from stemstore.sources.files import unreadable
from stemstore.sources.frame_extents import FrameExtents, Run, extents_of_runs, positions
from stemstore.sources.geometry import check_range, factor_pairs
from stemstore.sources.mapped import view_block
from stemstore.sources.remote import remote_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stemstore._types import Array, Int64Array
    from stemstore.sources.contract import DetectorImage
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.ranged import RangedFile
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceFile, SourceMetadata, ValueSource

MAX_GAP = 4096
"""Bytes between two blocks that are read and dropped rather than skipped by a new system call: one page."""

MAX_VECTORS = 1000
"""Blocks, and gaps between them, per system call; POSIX systems accept 1024."""

MAX_ITEM_BYTES = 8
"""Longest pixel: extended floats differ between machines."""

_HAS_PREADV = hasattr(os, "preadv")  # Linux, macOS 11, BSD; not Windows


def frame_buffer(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Make the array that frames are read into, or check the one given.

    Raises
    ------
    InputError
        `out` has another shape or dtype, is not C-contiguous or not writeable.
    """
    if out is None:
        return np.empty(shape, dtype=dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        msg = (
            f"out is {out.dtype} of shape {out.shape} (C-contiguous {out.flags.c_contiguous}, writeable "
            f"{out.flags.writeable}), expected a writeable C-contiguous {dtype} of shape {shape}"
        )
        raise InputError(msg, key="out")
    return out


def as_bytes(array: Array) -> memoryview:
    """View a C-contiguous array as its bytes."""
    return array.reshape(-1).view(np.uint8).data


def swap_bytes(values: Array) -> None:
    """Turn round the bytes of every value in place.

    Parameters
    ----------
    values
        Where it is C-contiguous, this is several times as fast as NumPy's `byteswap` in place.
    """
    if not values.flags.c_contiguous:
        values.byteswap(inplace=True)
        return
    flat = values.reshape(-1)
    np.copyto(flat, flat.view(flat.dtype.newbyteorder()))


def open_unbuffered(path: str | Place) -> io.FileIO | RangedFile:
    """Open a file for reads of one's own size; one on another machine is not held open there.

    Raises
    ------
    StorageError, NotFoundError
        The operating system, or the other machine, refuses.
    """
    remote = remote_path(path)
    return _open_here(str(path)) if remote is None else remote.open()


def _open_here(path: str) -> io.FileIO:
    try:
        return io.FileIO(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from error


def read_blocks(path: str | Place, offsets: Int64Array, length: int, target: memoryview, places: Int64Array) -> None:
    """Read equally long blocks of a file into places of a buffer.

    Blocks are read in file order; runs of blocks that lie close together take one system call. Of a file on another
    machine they take few requests, several at once (see `stemstore.sources.fetch`).

    Parameters
    ----------
    path
        The file; opened and closed in this call, so that nothing is shared between threads.
    offsets : shape (n,), unit byte
        Where each block starts in the file, in any order.
    length : unit byte
        Length of every block.
    target
        Writeable bytes.
    places : shape (n,), unit byte
        Where each block goes in `target`.

    Raises
    ------
    TruncatedFileError
        The file ends inside a block.
    StorageError, NotFoundError
        The file cannot be opened or read.
    """
    if not len(offsets):
        return
    remote, blocks = remote_path(path), sorted(zip(offsets.tolist(), places.tolist(), strict=True))
    if remote is not None:
        read_ranges(remote.location, blocks, length, target)
        return
    with _open_here(str(path)) as file:
        for start, stop, vectors in _runs(blocks, length, target):
            _fill(file, vectors, start, stop)


def _runs(
    blocks: list[tuple[int, int]], length: int, target: memoryview
) -> Iterator[tuple[int, int, list[memoryview]]]:
    """Cut ascending blocks where the next is far away, overlaps, or the call would take too many vectors.

    Plain numbers: arrays of a few blocks cost more than the blocks. Gives the bytes of each run and where they go.
    """
    skip = memoryview(bytearray(MAX_GAP))
    vectors: list[memoryview] = []
    first = end = blocks[0][0]
    for start, goal in blocks:
        gap = start - end
        if not 0 <= gap <= MAX_GAP or len(vectors) >= MAX_VECTORS:
            yield first, end, vectors
            vectors, first = [], start
        elif gap:
            vectors.append(skip[:gap])
        vectors.append(target[goal : goal + length])
        end = start + length
    yield first, end, vectors


def _fill(file: io.FileIO, vectors: list[memoryview], offset: int, end: int) -> None:
    """Read bytes ``offset <= i < end`` into `vectors`."""
    while offset < end:
        try:
            got = _read_some(file, vectors, offset)
        except OSError as error:
            raise unreadable(str(file.name), error) from error
        if got == 0:
            msg = (
                f"file {str(file.name)!r} ends at byte {offset}, expected at least {end - offset} more "
                "bytes; it was shortened after it was opened, open it again"
            )
            raise TruncatedFileError(msg, url=str(file.name), byte=offset)
        offset += got
        if offset < end:
            vectors = _rest(vectors, got)


def _rest(vectors: list[memoryview], got: int) -> list[memoryview]:
    """Give what is left to fill after so many bytes."""
    done = 0
    while got >= len(vectors[done]):
        got -= len(vectors[done])
        done += 1
    return [vectors[done][got:], *vectors[done + 1 :]]


def _read_some(file: io.FileIO, vectors: list[memoryview], offset: int) -> int:
    """Read into `vectors` from byte `offset`; may stop early, like every read."""
    if _HAS_PREADV:
        return os.preadv(file.fileno(), vectors, offset)
    file.seek(offset)
    total = 0
    for vector in vectors:
        got = file.readinto(vector) or 0
        total += got
        if got < len(vector):
            break
    return total


@dataclass(frozen=True, eq=False)
class RecordSource:
    """Frames of a scan that lie at a fixed stride in one file or in a series of files.

    Attributes
    ----------
    files
        Paths in the order of the frames.
    counts
        Whole frames in each file.
    offset : unit byte
        Where the pixels of the first frame of every file start.
    stride : unit byte
        From the pixels of one frame to those of the next.
    file_dtype
        Pixel type in the byte order of the file.
    references
        Images of the detector that the files know.
    """

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    files: tuple[str, ...]
    counts: tuple[int, ...]
    offset: int
    stride: int
    file_dtype: np.dtype[Any]
    references: Mapping[str, DetectorImage] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.file_dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Parameters
        ----------
        start, stop
            Half-open range of flat scan positions.
        out : shape (stop - start, ky, kx), optional
            Buffer of the source's dtype.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        size = math.prod(self.frame_shape) * self.file_dtype.itemsize
        first = 0
        for path, count in zip(self.files, self.counts, strict=True):
            inside = np.arange(max(start, first), min(stop, first + count), dtype=np.int64)
            if len(inside):
                offsets = self.offset + (inside - first) * self.stride
                read_blocks(path, offsets, size, as_bytes(frames), (inside - start) * size)
            first += count
        present = min(max(first - start, 0), stop - start)
        if self.file_dtype != self.dtype:
            swap_bytes(frames[:present])
        frames[present:] = np.nan if self.dtype.kind == "f" else 0
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        wanted = positions(start, stop, math.prod(self.scan_shape))
        firsts = itertools.accumulate(self.counts, initial=0)
        parts = zip(self.files, firsts, self.counts)  # noqa: B905  # the last sum begins nothing
        runs = (Run(path, first, count, self.offset, self.stride) for path, first, count in parts)
        return extents_of_runs(wanted, runs, self.frame_shape, self.file_dtype)

    def view_frames(self, start: int, stop: int) -> Array | None:
        """Show frames in the page cache where they lie back to back in one file; None where they have to be read.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        if self.stride != math.prod(self.frame_shape) * self.file_dtype.itemsize:
            return None
        first = 0
        for path, count in zip(self.files, self.counts, strict=True):
            if first <= start and stop <= first + count:
                offset = self.offset + (start - first) * self.stride
                return view_block(path, offset, (stop - start, *self.frame_shape), self.file_dtype)
            first += count
        return None


def pixel_dtype(text: object) -> np.dtype[Any]:
    """Read a pixel type, byte order included.

    Raises
    ------
    InputError
        Not a dtype, or not one of the integers and floats of up to 8 bytes that pixels have.
    """
    try:
        dtype = np.dtype(text)  # type: ignore[call-overload]  # anything a user may write
    except (TypeError, ValueError, SyntaxError) as error:
        msg = f"dtype {text!r} is not understood: {error}; expected NumPy text with byte order, such as '<u2'"
        raise InputError(msg, key="dtype", found=text) from error
    if text is None or dtype.kind not in "uif" or dtype.itemsize > MAX_ITEM_BYTES or dtype.subdtype is not None:
        msg = f"dtype {text!r} cannot be a pixel; expected an integer or float of up to 8 bytes, such as '<u2' or '<f4'"
        raise InputError(msg, key="dtype", found=str(text))
    return dtype


def stack_metadata(
    scan_shape: tuple[int, ...],
    frame_shape: tuple[int, int],
    *,
    source: ValueSource,
    warnings: list[str],
    files: list[SourceFile],
    vendor: dict[str, Any],
) -> SourceMetadata:
    """Say what is known about frames without a header of their own.

    Of a flat stack the scan shape is unknown: the shapes that fit its number of frames are given as alternatives and
    none is chosen.

    Parameters
    ----------
    source
        Where the scan shape comes from, if there is one.
    """
    from stemstore_schemas import Acquisition, Detector, SourceMetadata

    if len(scan_shape) == 1:
        acquisition = Acquisition(scan_shape_alternatives=factor_pairs(scan_shape[0]))
    else:
        repeats = math.prod(scan_shape[:-2])
        acquisition = Acquisition(scan_shape=scan_shape, scan_shape_source=source, frames_per_position=repeats)
    detector = Detector(shape=frame_shape)
    return SourceMetadata(acquisition=acquisition, detector=detector, vendor=vendor, warnings=warnings, files=files)


def whole_records(size: int, record: int, offset: int = 0) -> tuple[int, int]:
    """Count the whole records in a file and the bytes left over behind the last one.

    Parameters
    ----------
    size, record, offset : unit byte
        Of the file, of one record, of the file's own header.
    """
    if size < offset:
        return 0, size
    return divmod(size - offset, record)
