"""Archives of NumPy arrays: a zip of ``.npy`` members, stored or deflated, of which nothing is ever unpickled.

A stored array is read where it lies in the file; a deflated one is inflated once per process, as a whole. Sources:
PKWARE APPNOTE (local file headers), ``numpy.savez``, ``numpy.savez_compressed``.
"""

from __future__ import annotations

import io
import math
import struct
import threading
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import file_size, unreadable
from stemstore.sources.records import as_bytes, pixel_dtype, read_blocks
from stemstore.sources.remote import RemotePath, openable, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array
    from stemstore.sources.remote import Place

ZIP = b"PK\x03\x04"

PIECE = 2**20
"""Bytes that are inflated at a time."""

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Magic number, and the lengths of name and extra field, of a local file header (30 bytes; PKWARE APPNOTE 4.3.7)."""

MAX_NPY_HEADER = 12_000
"""Bytes read for the header of a member; NumPy's own limit is 10 000."""

MAX_INFLATION = 1032
"""Largest factor by which deflate can shrink (zlib technical details); a member that claims more is no deflated one."""

_INFLATION = threading.Lock()


@dataclass(frozen=True, slots=True)
class Member:
    """Where an array lies in the archive.

    Attributes
    ----------
    path, name
        Archive, and member in it.
    start : unit byte
        Of the pixels, in the file for a stored member, in the inflated member for a deflated one.
    stored
        Whether the member is not compressed.
    """

    path: str
    name: str
    start: int
    stored: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Length of the pixels in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, identity: str) -> Array:
        """Map the array, or inflate it (fetch it from another machine) once per process.

        Raises
        ------
        CorruptDataError, TruncatedFileError
            The member ends early or does not inflate.
        StorageError, NotFoundError
            The archive cannot be read.
        """
        path = place(self.path)
        if not self.stored or isinstance(path, RemotePath):
            with _INFLATION:  # threads that come first together inflate it once
                return _inflated(self, identity)
        try:
            return np.memmap(path, self.dtype, "r", self.start, self.shape, "F" if self.fortran_order else "C")
        except (OSError, ValueError) as error:
            raise unreadable(self.path, error) from error


@contextmanager
def opened_archive(path: Place) -> Iterator[zipfile.ZipFile]:
    """Open an archive; what goes wrong inside is an error of ours.

    Raises
    ------
    TruncatedFileError
        The directory at the end of the file is missing.
    UnknownFormatError
        The file is no archive.
    CorruptDataError
        A member contradicts the directory, or does not inflate.
    StorageError, NotFoundError
        The file cannot be read.
    """
    try:
        with openable(path) as source, zipfile.ZipFile(source) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise _no_archive(path, error) from error
    except (NotImplementedError, RuntimeError, EOFError, zlib.error, struct.error) as error:
        msg = f"archive {str(path)!r} cannot be read: {error}; save it again without encryption"
        raise CorruptDataError(msg, url=str(path)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _no_archive(path: Place, error: Exception) -> CorruptDataError | UnknownFormatError:
    with path.open("rb") as file:
        begins = file.read(4) == ZIP
    if begins:
        msg = f"archive {str(path)!r} has no usable directory at its end ({error}); it was cut short, copy it again"
        return TruncatedFileError(msg, url=str(path), found=file_size(path))
    msg = f"file {str(path)!r} is no zip archive ({error}); it holds no arrays"
    return UnknownFormatError(msg, url=str(path))


def locate(path: Place, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    """Find where the pixels of a member begin, sizes checked against each other and against the file.

    Raises
    ------
    InputError
        The array holds objects or records.
    CorruptDataError
        The member has no header of an array, or is shorter than it says.
    """
    with archive.open(info) as member:
        content = member.read(MAX_NPY_HEADER)
    shape, dtype, fortran, length = npy_header(path, info, content)
    try:
        pixel_dtype(dtype.str if dtype.names is None else "V")
    except InputError as error:
        error.add_note(f"member {info.filename} of {str(path)!r}; objects are never unpickled")
        raise
    stored = info.compress_type == zipfile.ZIP_STORED
    wanted = length + math.prod(shape) * dtype.itemsize
    possible = info.compress_size if stored else info.compress_size * MAX_INFLATION
    start = length
    if stored:
        with path.open("rb") as file:
            file.seek(info.header_offset)
            magic, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        start += info.header_offset + LOCAL_HEADER.size + name + extra
        possible = min(possible, file_size(path) - start + length) if magic == ZIP else 0
    if wanted > min(info.file_size, possible):
        msg = (
            f"member {info.filename} of {str(path)!r} states an array {shape} of {dtype}, {wanted} bytes with its "
            f"header, but has {min(info.file_size, possible)}; the file is damaged, copy it again"
        )
        raise CorruptDataError(msg, url=str(path), key=info.filename, expected=wanted)
    return Member(str(path), info.filename, start, stored, shape, dtype, fortran)


def npy_header(path: Place, info: zipfile.ZipInfo, content: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Read shape, type, whether the order is Fortran's, and the length of the header from the head of a member.

    Raises
    ------
    CorruptDataError
        There is no such header.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        msg = f"member {info.filename} of {str(path)!r} has no header of a NumPy array: {error}; copy the file again"
        raise CorruptDataError(msg, url=str(path), key=info.filename) from error
    if any(extent < 0 for extent in shape):
        msg = f"member {info.filename} of {str(path)!r} states the shape {shape}; the file is damaged, copy it again"
        raise CorruptDataError(msg, url=str(path), key=info.filename, found=shape)
    return tuple(int(extent) for extent in shape), dtype, bool(fortran), stream.tell()


@lru_cache(maxsize=1)  # a whole scan in memory; one at a time
def _inflated(member: Member, identity: str) -> Array:
    del identity
    array = np.empty(member.nbytes, np.uint8)
    if member.stored:
        read_blocks(member.path, np.array([member.start]), member.nbytes, as_bytes(array), np.zeros(1, np.int64))
    else:
        _inflate(member, as_bytes(array))
    array.setflags(write=False)
    return array.view(member.dtype).reshape(member.shape, order="F" if member.fortran_order else "C")


def _inflate(member: Member, view: memoryview) -> None:
    done = 0
    try:
        with opened_archive(place(member.path)) as archive, archive.open(member.name) as content:
            content.read(member.start)
            while done < len(view) and (piece := content.read(min(PIECE, len(view) - done))):
                view[done : done + len(piece)] = piece
                done += len(piece)
    except OSError as error:
        raise unreadable(member.path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        msg = f"member {member.name} of {member.path!r} does not inflate: {error}; the file is damaged, copy it again"
        raise CorruptDataError(msg, url=member.path, key=member.name) from error
    if done < len(view):
        msg = f"member {member.name} of {member.path!r} ends after {done} of {len(view)} bytes; copy the file again"
        raise TruncatedFileError(msg, url=member.path, found=done, expected=len(view))
