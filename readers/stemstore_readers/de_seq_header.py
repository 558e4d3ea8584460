"""Header and images of Norpix SEQ files.

======  ==========  ==============================================================================================
offset  type        field (little-endian)
======  ==========  ==============================================================================================
0       uint32      0xFEED
4       24 bytes    ``Norpix seq``, UTF-16
28      int32 x 2   version, length of the header (says 1024; records start at 8192 from version 5 on)
36      512 bytes   description, UTF-16 up to the first zero
548     uint32 x 2  columns, rows
556     uint32 x 2  bits per stored pixel, bits in use
564     uint32 x 2  bytes of an image, format (100 = grey)
572     uint32      images written
580     uint32      distance of the images
584     float64     frame rate
620     uint32      compression (0 = none)
======  ==========  ==============================================================================================

Image i starts at 8192 + i * distance; its time follows it: uint32 s, uint16 ms, uint16 µs.

Sources: Norpix, SEQ file format; hyperspy/rosettasciio, LiberTEM (``seq.py``); files of such cameras.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import file_size, unreadable
from stemstore.sources.records import whole_records
from stemstore_readers.de_seq_files import read_counters

if TYPE_CHECKING:
    from stemstore.sources.remote import Place

MAGIC = struct.pack("<I", 0xFEED) + "Norpix seq".encode("utf-16-le")
HEADER_BYTES = 1024
DATA_START = 8192
"""Where images start from version 5 on."""

_LONG_HEADER = 5
PIXELS = {8: "u1", 16: "<u2"}
_TIME = struct.Struct("<IHH")


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says."""

    version: int
    description: str
    columns: int
    rows: int
    bits: int
    real_bits: int
    image_bytes: int
    image_format: int
    images: int
    stride: int
    frame_rate: float
    compression: int

    @property
    def start(self) -> int:
        """Where the images start, in bytes."""
        return DATA_START if self.version >= _LONG_HEADER else HEADER_BYTES


def parse_header(content: bytes) -> Header:
    """Read a header of 1024 bytes.

    Raises
    ------
    UnknownFormatError
        The magic number is missing.
    TruncatedFileError
        There are fewer bytes.
    InputError
        The images are compressed, or their pixels neither bytes nor words.
    CorruptDataError
        Sizes contradict each other.
    """
    if not content.startswith(MAGIC):
        msg = f"file starts with {content[:8]!r}, expected {MAGIC[:8]!r}; it is no Norpix SEQ file"
        raise UnknownFormatError(msg, found=content[:8], expected=MAGIC[:8])
    if len(content) < HEADER_BYTES:
        msg = f"file ends inside its header at byte {len(content)}, expected {HEADER_BYTES}; copy it again"
        raise TruncatedFileError(msg, found=len(content), expected=HEADER_BYTES)
    columns, rows, bits, real_bits, image_bytes, image_format, images, _, stride = struct.unpack_from(
        "<9I", content, 548
    )
    header = Header(
        version=struct.unpack_from("<i", content, 28)[0],
        description=content[36:548].decode("utf-16-le", "replace").partition("\0")[0],
        columns=columns,
        rows=rows,
        bits=bits,
        real_bits=real_bits,
        image_bytes=image_bytes,
        image_format=image_format,
        images=images,
        stride=stride,
        frame_rate=struct.unpack_from("<d", content, 584)[0],
        compression=struct.unpack_from("<I", content, 620)[0],
    )
    if header.compression or bits not in PIXELS:
        what = f"compressed images (method {header.compression})" if header.compression else f"pixels of {bits} bits"
        msg = f"file holds {what}, expected uncompressed pixels of 8 or 16 bits; export it uncompressed"
        raise InputError(msg, found=header.compression or bits)
    if not columns * rows or image_bytes != columns * rows * bits // 8 or stride < image_bytes:
        msg = (
            f"header states images of {rows} x {columns} pixels of {bits} bits, {image_bytes} bytes, every {stride} "
            "bytes, which contradict each other; the file is damaged"
        )
        raise CorruptDataError(msg, byte=548, found=image_bytes, expected=columns * rows * bits // 8)
    return header


@dataclass(frozen=True, slots=True)
class SeqFile:
    """A SEQ file: its header, its whole images, and the counter of the first."""

    path: Place
    header: Header
    count: int
    first: int
    last: int


def open_seq(path: Place, notes: list[str]) -> SeqFile:
    """Read the header of a file and count its images.

    Raises
    ------
    UnknownFormatError, CorruptDataError, InputError, TruncatedFileError
        As for `parse_header`; also where there is no whole image.
    """
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
    except OSError as error:
        raise unreadable(path, error) from error
    except (UnknownFormatError, InputError, CorruptDataError) as error:
        error.add_note(f"in file {str(path)!r}")
        raise
    size = file_size(path)
    room, _ = whole_records(size, header.stride, header.start)
    count = min(header.images, room) if header.images else recorded(path, header, room)
    if not count:
        msg = f"file {str(path)!r} has {size} bytes and holds no whole image of {header.stride} bytes; copy it again"
        raise TruncatedFileError(msg, url=str(path), found=size, expected=header.start + header.stride)
    if room < header.images:
        notes.append(f"file {path.name!r} ends after {room} of {header.images} whole images; the others are missing")
    elif room > count:
        notes.append(f"file {path.name!r} has room for {room} images, {count} were recorded; the rest is ignored")
    counters = read_counters(path.with_name(path.name + ".metadata"))
    if counters is None:
        return SeqFile(path, header, count, 1, count)
    if counters[0] != count:
        notes.append(f"file {path.name!r} holds {count} images, its .metadata file speaks of {counters[0]}")
    return SeqFile(path, header, count, counters[1], counters[2])


def recorded(path: Place, header: Header, room: int) -> int:
    """Count the images in front of those with a zero time, which were never recorded."""
    try:
        with path.open("rb") as file:

            def blank(number: int) -> bool:
                file.seek(header.start + number * header.stride + header.image_bytes)
                return not any(file.read(_TIME.size))

            return bisect_left(range(room), 1, key=blank)
    except OSError as error:
        raise unreadable(path, error) from error


def start_time(file: SeqFile) -> str | None:
    """Time of the first image, UTC; None where it is zero or there is no room for it."""
    header = file.header
    if header.stride < header.image_bytes + _TIME.size:
        return None
    try:
        with file.path.open("rb") as handle:
            handle.seek(header.start + header.image_bytes)
            content = handle.read(_TIME.size)
    except OSError as error:
        raise unreadable(file.path, error) from error
    seconds, milli, micro = _TIME.unpack(content.ljust(_TIME.size, b"\0"))
    return datetime.fromtimestamp(seconds + milli / 1e3 + micro / 1e6, tz=UTC).isoformat() if seconds else None
