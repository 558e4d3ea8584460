"""Header of FEI TIA series (``.ser``), and what the document beside them (``.emi``) says.

========  ================  ========================================================================================
offset    type              field (little-endian; P is uint32 in version 0x210, uint64 in 0x220)
========  ================  ========================================================================================
0         uint16 x 3        0x4949, 0x0197, version
6         uint32            0x4120: elements are lines, 0x4122: elements are images
10        uint32            0x4152: tags have a time, 0x4142: time and position
14        uint32 x 2        elements, valid elements
22        P                 offset of the offset arrays: P per element, then P per tag
22 + P    uint32            dimensions; per dimension uint32 size, float64 offset, float64 step, uint32 element,
                            uint32 + text description, uint32 + text unit; the fastest first
========  ================  ========================================================================================

Image: float64 offset, float64 step, uint32 element for x, the same for y (m or 1/m), uint16 type, uint32 columns,
uint32 rows, pixels. Tag: uint16 type, uint16, uint32 time in seconds since 1970.

Sources: ercius/openNCEM (``ncempy/io/ser.py``); C. Boothroyd, description of the format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.files import file_size, unreadable

if TYPE_CHECKING:
    from io import BufferedIOBase

    from stemstore._types import Int64Array
    from stemstore.sources.remote import Place

MAGIC = b"II\x97\x01"
POINTERS = {0x210: "<u4", 0x220: "<u8"}
"""Version -> type of the offsets in a file."""

IMAGES = 0x4122
PIXELS = {1: "<u1", 2: "<u2", 3: "<u4", 4: "<i1", 5: "<i2", 6: "<i4", 7: "<f4", 8: "<f8"}
COMPLEX = (9, 10)

ELEMENT = struct.Struct("<ddIddIHII")
"""Head of an image."""

HEADER_BYTES = 2**16
"""Bytes that hold header and dimensions, whose texts are short."""

MAX_DIMENSIONS = 4
MAX_EMI_BYTES = 2**26
"""Longest document that is searched; it holds copies of some images."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A dimension of a series: size, coordinate of the element with the number `element`, step, texts."""

    size: int
    offset: float
    step: float
    element: int
    description: str
    unit: str


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a series says; `table` is where the offset arrays are."""

    version: int
    data_type: int
    tag_type: int
    total: int
    valid: int
    table: int
    dimensions: tuple[Dimension, ...]

    @property
    def pointer(self) -> np.dtype[Any]:
        """Type of the offsets in the file."""
        return np.dtype(POINTERS[self.version])


@dataclass(frozen=True, slots=True)
class Element:
    """Head of an image: per axis coordinate of a pixel, step and number of that pixel; x first."""

    x: tuple[float, float, int]
    y: tuple[float, float, int]
    data_type: int
    columns: int
    rows: int


def parse_header(content: bytes) -> Header:
    """Read a header.

    Raises
    ------
    UnknownFormatError
        The magic number is missing.
    FormatVersionError
        The version is not known.
    TruncatedFileError
        The file ends inside the header.
    CorruptDataError
        There are more dimensions than a series can have.
    """
    if content[: len(MAGIC)] != MAGIC:
        msg = f"file starts with {content[:4]!r}, expected {MAGIC!r}; it is no TIA series"
        raise UnknownFormatError(msg, found=content[:4], expected=MAGIC)
    try:
        version, data_type, tag_type, total, valid = struct.unpack_from("<HIIII", content, 4)
        if version not in POINTERS:
            msg = f"file has the TIA format {version:#x}, known are 0x210 and 0x220; export it with a current TIA"
            raise FormatVersionError(msg, found=version, expected=list(POINTERS))
        table, n_dimensions = struct.unpack_from("<II" if version == 0x210 else "<QI", content, 22)  # noqa: PLR2004
        if n_dimensions > MAX_DIMENSIONS:
            msg = f"header states {n_dimensions} dimensions, expected at most {MAX_DIMENSIONS}; the file is damaged"
            raise CorruptDataError(msg, byte=22, found=n_dimensions, expected=MAX_DIMENSIONS)
        place = 26 + np.dtype(POINTERS[version]).itemsize
        dimensions = []
        for _ in range(n_dimensions):
            size, offset, step, element = struct.unpack_from("<IddI", content, place)
            description, place = _text(content, place + 24)
            unit, place = _text(content, place)
            dimensions.append(Dimension(size, offset, step, element, description, unit))
    except struct.error as error:
        msg = f"file ends inside its header at byte {len(content)}; copy it again"
        raise TruncatedFileError(msg, found=len(content)) from error
    return Header(version, data_type, tag_type, total, valid, table, tuple(dimensions))


def _text(content: bytes, place: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", content, place)
    if length > len(content):
        msg = f"header states a text of {length} bytes at byte {place}; the file is damaged"
        raise CorruptDataError(msg, byte=place, found=length)
    return content[place + 4 : place + 4 + length].decode("latin1"), place + 4 + length


def parse_element(content: bytes) -> Element:
    """Read the head of an image.

    Raises
    ------
    TruncatedFileError
        There are too few bytes.
    """
    if len(content) < ELEMENT.size:
        msg = f"file ends inside the head of an image, {len(content)} of {ELEMENT.size} bytes; copy it again"
        raise TruncatedFileError(msg, found=len(content), expected=ELEMENT.size)
    x0, dx, ix, y0, dy, iy, data_type, columns, rows = ELEMENT.unpack(content[: ELEMENT.size])
    return Element((x0, dx, ix), (y0, dy, iy), data_type, columns, rows)


@dataclass(frozen=True, slots=True)
class Series:
    """A series file as it was found.

    Attributes
    ----------
    header, element
        What the file says of itself and of its first image.
    offsets : shape (n,), unit byte
        Where the pixels of every element start; -1 for those that were not recorded or lie behind the end.
    start_time
        Of the first element, ISO 8601; None where its tag is not found.
    """

    header: Header
    element: Element
    offsets: Int64Array
    start_time: str | None


def read_series(path: Place, notes: list[str]) -> Series:
    """Read header, offsets and the head of the first image.

    Raises
    ------
    UnknownFormatError, FormatVersionError, CorruptDataError, TruncatedFileError
        As for `parse_header`; also where no image is complete, or images overlap.
    InputError
        The elements are spectra or complex images.
    """
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
            if header.data_type != IMAGES:
                msg = f"file {str(path)!r} holds lines of numbers ({header.data_type:#x}), expected images (0x4122)"
                msg += "; spectra are no diffraction patterns, open the series of images"
                raise InputError(msg, url=str(path), found=header.data_type)
            size = file_size(path)
            heads = read_offsets(file, header, size, notes)
            place = int(heads[np.argmax(heads >= 0)]) if (heads >= 0).any() else size
            file.seek(place)
            element = parse_element(file.read(ELEMENT.size))
            offsets = check_elements(path, heads, element, size, notes)
            return Series(header, element, offsets, read_time(file, header, size))
    except OSError as error:
        if isinstance(error, StemStoreError):
            raise
        raise unreadable(path, error) from error


def read_offsets(file: BufferedIOBase, header: Header, size: int, notes: list[str]) -> Int64Array:
    """Read where the elements start; -1 for those that are not valid. Never more than the file can hold."""
    width = header.pointer.itemsize
    room = max(size - header.table, 0) // width
    total, valid = min(header.total, room), header.valid
    file.seek(min(header.table, size))
    found = np.frombuffer(file.read(total * width), header.pointer)
    offsets = np.where(found < size, found, 0).astype(np.int64)
    if not 0 < valid <= header.total:
        rising = np.flatnonzero((np.diff(offsets, prepend=0) <= 0) | (offsets < ELEMENT.size))
        valid = int(rising[0]) if len(rising) else total
        notes.append(f"header states {header.valid} valid of {header.total} elements; {valid} rising offsets are used")
    known = (np.arange(total) < valid) & (offsets > 0)
    return np.where(known, offsets, -1)


def check_elements(path: Place, heads: Int64Array, element: Element, size: int, notes: list[str]) -> Int64Array:
    """Turn places of heads into places of pixels, and leave out what the file does not hold as a whole.

    Raises
    ------
    InputError, CorruptDataError, TruncatedFileError
        The pixels have no usable type; images are empty or overlap; none is complete.
    """
    if element.data_type in COMPLEX:
        msg = f"file {str(path)!r} holds complex numbers, expected diffraction patterns; open the measured series"
        raise InputError(msg, url=str(path), found=element.data_type)
    if element.data_type not in PIXELS or not element.rows * element.columns:
        msg = (
            f"first image of {str(path)!r} states {element.rows} x {element.columns} pixels of type "
            f"{element.data_type}; the file is damaged"
        )
        raise CorruptDataError(msg, url=str(path), found=element.data_type)
    length = element.rows * element.columns * np.dtype(PIXELS[element.data_type]).itemsize
    starts = np.where(heads < 0, -1, heads + ELEMENT.size)
    cut = (starts >= 0) & (starts > size - length)  # lengths may be larger than any int64
    starts[cut] = -1
    present = np.sort(starts[starts >= 0])
    if not len(present):
        msg = f"file {str(path)!r} has {size} bytes and holds no whole image of {length} bytes; copy it again"
        raise TruncatedFileError(msg, url=str(path), found=size, expected=length)
    if len(present) > 1 and np.diff(present).min() < length:
        msg = f"images of {length} bytes overlap in {str(path)!r}; the offset table is damaged"
        raise CorruptDataError(msg, url=str(path), expected=length, found=int(np.diff(present).min()))
    if cut.any():
        notes.append(f"file {path.name!r} ends before {int(cut.sum())} of its images do; these are missing")
    return starts


def read_time(file: BufferedIOBase, header: Header, size: int) -> str | None:
    """Read the time of the first tag; writers space the tag offsets by all or by the valid elements."""
    for count in {header.total: None, header.valid: None}:
        place = header.table + count * header.pointer.itemsize
        if place + header.pointer.itemsize > size:
            continue
        file.seek(place)
        tag = int(np.frombuffer(file.read(header.pointer.itemsize), header.pointer)[0])
        if tag + 8 > size:
            continue
        file.seek(tag)
        kind, _, seconds = struct.unpack("<HHI", file.read(8))
        if kind == header.tag_type and seconds:
            return datetime.fromtimestamp(seconds, tz=UTC).isoformat()
    return None


def read_emi(path: Place, number: int, notes: list[str]) -> dict[str, str]:
    """Read what the document says of its `number`-th series, from 1; empty, with a note, where it says nothing.

    Returns
    -------
    values
        Texts by their label, units in brackets behind it; nested tags are joined with ``/``.
    """
    if file_size(path) > MAX_EMI_BYTES:
        notes.append(f"document {path.name!r} has {file_size(path)} bytes and is not read")
        return {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    parts = content.split(b"<ObjectInfo>")[1:]
    if len(parts) < number:
        notes.append(f"document {path.name!r} describes {len(parts)} series, not the one with number {number}")
        return {}
    block = b"<ObjectInfo>" + parts[number - 1].partition(b"</ObjectInfo>")[0] + b"</ObjectInfo>"
    if b"<!" in block:  # entities may unfold to any length
        notes.append(f"document {path.name!r} cannot be read: it defines entities")
        return {}
    try:
        return parse_object(ET.fromstring(block))
    except (ET.ParseError, ValueError, LookupError) as error:
        notes.append(f"document {path.name!r} cannot be read: {error}")
        return {}


def parse_object(root: ET.Element) -> dict[str, str]:
    """Flatten the description of a series."""
    values: dict[str, str] = {}
    for data in root.iterfind("ExperimentalDescription/Root/Data"):
        label, unit = (data.findtext(name, "").strip() for name in ("Label", "Unit"))
        values[f"{label} [{unit}]" if unit else label] = data.findtext("Value", "").strip()
    for group in ("ExperimentalConditions/MicroscopeConditions", "AcquireInfo", "DetectorRange"):
        values |= {
            f"{group.rpartition('/')[2]}/{one.tag}": (one.text or "").strip() for one in root.iterfind(f"{group}/*")
        }
    plain = ("AcquireDate", "Manufacturer", "DetectorPixelHeight", "DetectorPixelWidth")
    return values | {name: text for name in plain if (text := root.findtext(name, "").strip())}
