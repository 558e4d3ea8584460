"""Frames in the chunks of an array of Zarr format 2; the array is described in `stemstore_readers.zspy_header`."""

from __future__ import annotations

import itertools
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, TruncatedFileError
from stemstore.sources.files import unreadable
from stemstore.sources.geometry import ValidityArray, check_range
from stemstore.sources.hdf5_frames import boxes
from stemstore.sources.records import frame_buffer
from stemstore_readers.zspy_tree import read_member

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore_readers.zspy_header import ArrayHeader
    from stemstore_schemas import SourceMetadata

_DEFLATE = {"zlib": 15, "gzip": 31}
"""Window parameter of zlib by codec."""


@dataclass(frozen=True, eq=False)
class ChunkSource:
    """Frames of an array in chunks; every read opens the files that it needs and closes them again.

    A read holds one decoded chunk per thread beside the frames that it fills.

    Attributes
    ----------
    path
        The zip file, or the folder of the chunks.
    header
        Description of the array.
    order
        Its axes, those of the scan first, the detector's last.
    members
        In a zip file, name of a chunk -> byte at which its entry starts and size of its content; None in a folder.
    """

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    validity: ValidityArray | None
    path: str
    header: ArrayHeader
    order: tuple[int, ...]
    members: dict[str, tuple[int, int]] | None

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.header.shape[self.order[-2]], self.header.shape[self.order[-1]]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.header.dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError, TruncatedFileError, StorageError
            A chunk is damaged, incomplete or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        stored = tuple(self.header.shape[axis] for axis in self.order[:-2])
        present = min(max(math.prod(stored) - start, 0), stop - start)
        done = 0
        for box in boxes(stored, start, start + present):
            extent = tuple(place.stop - place.start for place in box)
            target = frames[done : done + math.prod(extent)].reshape(*extent, *self.frame_shape)
            whole = tuple(slice(0, size) for size in self.frame_shape)
            self._read_box((*box, *whole), target)
            done += math.prod(extent)
        frames[present:] = np.nan if self.dtype.kind == "f" else 0
        return frames

    def _read_box(self, box: tuple[slice, ...], target: Array) -> None:
        """Fill `target` with a box of the array, both in the order of the scan."""
        chunks = [self.header.chunks[axis] for axis in self.order]
        grids = [range(at.start // size, -(-at.stop // size)) for at, size in zip(box, chunks, strict=True)]
        for place in itertools.product(*grids):
            here, there = [], []
            for number, size, at in zip(place, chunks, box, strict=True):
                first, last = max(number * size, at.start), min((number + 1) * size, at.stop)
                here.append(slice(first - at.start, last - at.start))
                there.append(slice(first - number * size, last - number * size))
            chunk = self._chunk(tuple(place[self.order.index(axis)] for axis in range(len(self.order))))
            target[tuple(here)] = self.header.fill if chunk is None else chunk.transpose(self.order)[tuple(there)]

    def _chunk(self, place: tuple[int, ...]) -> Array | None:
        """Decode one chunk; None where there is none."""
        name = self.header.separator.join(map(str, place))
        content = self._content(name)
        if content is None:
            return None
        where = f"chunk {name} in {self.path!r}"
        try:
            raw = decode(content, self.header.compressor, self.header.chunk_bytes)
        except Exception as error:  # codecs raise what they like over damaged bytes
            msg = f"{where} cannot be decoded by {self.header.compressor}: {error}; it is damaged, copy it again"
            raise CorruptDataError(msg, url=self.path, key=name) from error
        if len(raw) != self.header.chunk_bytes:
            msg = f"{where} has {len(raw)} bytes, expected {self.header.chunk_bytes}; copy it again"
            raise TruncatedFileError(msg, url=self.path, key=name, found=len(raw), expected=self.header.chunk_bytes)
        return np.frombuffer(raw, self.header.dtype).reshape(self.header.chunks, order=self.header.order)  # type: ignore[call-overload]  # C or F

    def _content(self, name: str) -> bytes | None:
        if self.members is None:
            file = Path(self.path, name)
            try:
                return file.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise unreadable(file, error) from error
        if name not in self.members:
            return None
        offset, size = self.members[name]
        return read_member(self.path, offset, size)


def decode(content: bytes, codec: str | None, size: int) -> bytes | bytearray:
    """Undo a compressor, into `size` bytes where all is well; never into many more.

    Raises
    ------
    ValueError
        The content says that it has another size.
    """
    if codec is None:
        return content
    if codec in _DEFLATE:
        return zlib.decompressobj(_DEFLATE[codec]).decompress(content, size + 1)
    import numcodecs

    stated = _stated_sizes(content, codec)
    if stated != (size, len(content)):
        msg = f"{len(content)} bytes that say they are {stated[1]} bytes of {stated[0]}, expected {size} decoded ones"
        raise ValueError(msg)
    target = bytearray(size)
    numcodecs.get_codec({"id": codec}).decode(content, out=target)
    return target


def _stated_sizes(content: bytes, codec: str) -> tuple[int, int]:
    """Read which decoded and encoded size the head of a compressed chunk states; its own length where it is silent.

    Sources: the formats of Blosc 1 (README_CHUNK_FORMAT), of numcodecs' LZ4 and of Zstandard (RFC 8878, 3.1.1.1).
    """
    if codec == "blosc":
        return int.from_bytes(content[4:8], "little"), int.from_bytes(content[12:16], "little")
    if codec == "lz4":
        return int.from_bytes(content[:4], "little"), len(content)
    head = content[4] if len(content) > 4 else 0  # noqa: PLR2004 (behind the magic number)
    single = head >> 5 & 1
    start = 6 - single + (0, 1, 2, 4)[head & 3]
    width = (single, 2, 4, 8)[head >> 6]
    extra = 256 if width == 2 else 0  # noqa: PLR2004 (two bytes count from 256)
    return int.from_bytes(content[start : start + width], "little") + extra, len(content)
