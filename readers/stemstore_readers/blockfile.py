"""NanoMEGAS blockfile (``.blo``): a virtual bright-field image, then one pattern per scan position.

Little-endian, packed:

==========  ==============  ==========================================================
offset      type            field
==========  ==============  ==========================================================
0           6 byte          ``IMGBLO``
6           uint16          0x0102
8, 12       uint32          offsets of the image and of the patterns
16          uint32          flags
20, 22      uint16          size of a pattern (it is square), its rotation
24, 26      uint16          columns, rows of the scan
28          uint16          scan rotation, 1/100 deg
30, 38      float64         scan steps, nm: columns, rows
46          uint32          beam energy, eV
50          uint16          100 × pixels per cm
52          uint32          camera length, 1/10 mm
56          float64         acquisition time, days since 1899-12-30
64, 128     float64         8 coefficients of centring, 14 of distortion
240         text            note, up to the image
==========  ==============  ==========================================================

Image: rows × columns uint8. Patterns: for each position, row by row, the bytes AA 55, a running number (uint32) and
size × size pixels of 8 bit. Source: hyperspy/rosettasciio (``rsciio/blockfile``).
"""

from __future__ import annotations

import math
import struct
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import describe, expand, file_size, identity, unreadable
from stemstore.sources.geometry import fit_scan, shape_option
from stemstore.sources.records import RecordSource, stack_metadata, whole_records
from stemstore_readers.stated_axes import StatedAxis, bring_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

MAGIC = b"IMGBLO"
VERSION = 0x0102
HEADER_BYTES = 240
MARKER = b"\xaa\x55"
_FIELDS = struct.Struct("<6sH3I5H2dIHId8d14d")

MAX_NOTE = 2**16
"""Longest note that is kept; the program leaves 3856 bytes for it."""

RECORD_HEADER = 6

MAX_STEP = 1e9
"""Longest scan step that is believed, in nm: a metre."""

EPOCH = datetime(1899, 12, 30)  # of an unknown zone
MAX_DAYS = 200_000  # the year 2447: a serial date beyond is no date


@dataclass(frozen=True, slots=True)
class Header:
    """Fields of the header in the units of the file."""

    version: int
    image_offset: int
    pattern_offset: int
    flags: int
    size: int
    pattern_rotation: int
    columns: int
    rows: int
    scan_rotation: int
    step_x: float
    step_y: float
    beam_energy: int
    pixels_per_cm: int
    camera_length: int
    time: float
    centring: tuple[float, ...]
    distortion: tuple[float, ...]

    def record(self, item: int) -> int:
        """Bytes from one pattern to the next, with pixels of `item` bytes."""
        return RECORD_HEADER + self.size**2 * item

    @property
    def start_time(self) -> str | None:
        """Acquisition time without a zone; None where it is no date."""
        if not 1 <= self.time < MAX_DAYS:
            return None
        return (EPOCH + timedelta(days=self.time)).isoformat(timespec="seconds")


class Blockfile:
    """Reader of NanoMEGAS blockfiles.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of what the header says.
    """

    name: ClassVar[str] = "blockfile"
    description: ClassVar[str] = "NanoMEGAS ASTAR blockfiles"
    extensions: ClassVar[tuple[str, ...]] = (".blo",)

    def __init__(self, *, scan_shape: Sequence[int] | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the magic text."""
        del url
        return 1.0 if first_bytes.startswith(MAGIC) else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource:
        """Open the file: header, note and the markers of two patterns, no pixel.

        Raises
        ------
        InputError
            Several files were given, or a folder.
        UnknownFormatError, CorruptDataError
            The file is no blockfile, or is damaged.
        TruncatedFileError
            There is not one whole pattern.
        """
        paths = expand(url)
        if len(paths) != 1 or paths[0].is_dir():
            msg = f"{[str(path) for path in paths]} is no single file; open blockfiles one at a time"
            raise InputError(msg, found=len(paths), expected=1)
        (path,) = paths
        header, note = read_header(path)
        item, warnings = find_records(path, header)
        record = header.record(item)
        found, left = whole_records(file_size(path), record, header.pattern_offset)
        if not found:
            msg = f"file {str(path)!r} ends before its first pattern of {record} bytes is complete; copy it again"
            raise TruncatedFileError(msg, url=str(path), found=file_size(path), expected=header.pattern_offset + record)
        if left and found < header.rows * header.columns:
            warnings.append(f"file {str(path)!r} ends inside pattern {found}, of which {left} bytes are left out")
        scan_shape, validity, notes = fit_scan(self.scan_shape or (header.rows, header.columns), found)
        files = describe([path])
        metadata = stack_metadata(
            scan_shape,
            (header.size, header.size),
            source="header" if self.scan_shape is None else "user",
            warnings=warnings + notes,
            files=files,
            vendor=asdict(header) | {"note": note},
        )
        return RecordSource(
            identity=identity(self.name, files, self.scan_shape),
            scan_shape=scan_shape,
            frame_shape=(header.size, header.size),
            metadata=_with_header(metadata, header, scan_shape),
            validity=validity,
            files=(str(path),),
            counts=(found,),
            offset=header.pattern_offset + RECORD_HEADER,
            stride=record,
            file_dtype=np.dtype("u1" if item == 1 else "<u2"),
        )


def parse_header(content: bytes) -> Header:
    """Parse the 240 bytes of the header.

    Raises
    ------
    UnknownFormatError
        The magic text is missing.
    TruncatedFileError
        There are fewer bytes.
    CorruptDataError
        A size or offset cannot be right.
    """
    if not content.startswith(MAGIC):
        msg = f"file starts with {content[:6]!r}, expected {MAGIC!r}; it is no blockfile"
        raise UnknownFormatError(msg, found=content[:6], expected=MAGIC)
    if len(content) < HEADER_BYTES:
        msg = f"header has {len(content)} bytes, expected {HEADER_BYTES}; copy the file again"
        raise TruncatedFileError(msg, found=len(content), expected=HEADER_BYTES)
    _, *fields = _FIELDS.unpack_from(content)
    header = Header(*[*fields[:15], tuple(fields[15:23]), tuple(fields[23:])])
    if not (header.size and header.rows and header.columns):
        msg = (
            f"header states {header.rows} rows and {header.columns} columns of patterns of size {header.size}, "
            "expected numbers above zero; the file is damaged or was never filled"
        )
        raise CorruptDataError(msg, found=(header.rows, header.columns, header.size))
    image_end = header.image_offset + header.rows * header.columns
    if header.image_offset < HEADER_BYTES or header.pattern_offset < image_end:
        msg = (
            f"header places the image at byte {header.image_offset} and the patterns at {header.pattern_offset}, "
            f"expected {HEADER_BYTES} or more and {image_end} or more; the file is damaged, copy it again"
        )
        raise CorruptDataError(msg, found=(header.image_offset, header.pattern_offset), expected=image_end)
    return header


def read_header(path: Place) -> tuple[Header, str]:
    """Read the header of a file, and the note behind it.

    Raises
    ------
    UnknownFormatError, TruncatedFileError, CorruptDataError
        As for `parse_header`.
    StorageError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(HEADER_BYTES + MAX_NOTE)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        header = parse_header(content)
    except StemStoreError as error:
        error.add_note(f"in the file {str(path)!r}")
        error.context.setdefault("url", str(path))
        raise
    return header, content[HEADER_BYTES : header.image_offset].rstrip(b"\0").decode("latin-1")


def find_records(path: Place, header: Header) -> tuple[int, list[str]]:
    """Find out the bytes of a pixel, by the marker of the second pattern, and look at the marker of the first.

    Returns
    -------
    item, warnings

    Raises
    ------
    CorruptDataError
        No pattern lies where the header says.
    """
    warnings = []
    if header.version != VERSION:
        warnings.append(
            f"version of {str(path)!r} is {header.version:#06x}, known is {VERSION:#06x}; read all the same"
        )
    first = _read_marker(path, header.pattern_offset)
    if len(first) == RECORD_HEADER and first[:2] != MARKER:
        msg = (
            f"pattern 0 of {str(path)!r} begins with {first[:2].hex(' ')} at byte {header.pattern_offset}, expected "
            f"{MARKER.hex(' ')}; the file is damaged, copy it again"
        )
        raise CorruptDataError(msg, url=str(path), byte=header.pattern_offset, frame=0)
    number = int.from_bytes(first[2:], "little")
    if number:
        warnings.append(f"patterns of {str(path)!r} are numbered from {number}, expected from 0")
    if header.rows * header.columns == 1:
        size = file_size(path) - header.pattern_offset
        return (2 if size == header.record(2) else 1), warnings
    for item in (1, 2):
        at = header.pattern_offset + header.record(item)
        second = _read_marker(path, at)
        if second[:2] == MARKER or len(second) < len(MARKER):
            if item == 2 and second:  # noqa: PLR2004 (bytes)
                warnings.append(
                    "patterns are taken for 16 bit by the place of the second; their meaning is not published"
                )
            return (item if second else 1), warnings
    at = header.pattern_offset + header.record(1)
    msg = (
        f"pattern 1 of {str(path)!r} does not begin with {MARKER.hex(' ')} at byte {at}; the file is damaged or of "
        "another kind, copy it again"
    )
    raise CorruptDataError(msg, url=str(path), byte=at, frame=1)


def _read_marker(path: Place, offset: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(RECORD_HEADER) or b""
    except OSError as error:
        raise unreadable(path, error) from error


def _with_header(metadata: SourceMetadata, header: Header, scan_shape: tuple[int, ...]) -> SourceMetadata:
    from stemstore_schemas import Quantity

    known: dict[str, Any] = {"start_time": header.start_time}
    if header.beam_energy:
        known["beam_energy"] = Quantity(value=header.beam_energy / 1000, unit="keV", source="header")
    if header.camera_length:
        known["camera_length"] = Quantity(value=header.camera_length / 10, unit="mm", source="header")
    stated = [StatedAxis("SY", header.step_y, 0.0, "nm"), StatedAxis("SX", header.step_x, 0.0, "nm")]
    angles: list[StatedAxis | None] = [None, None]
    if header.pixels_per_cm and header.camera_length:
        step = 1000 * math.atan(1000 / header.pixels_per_cm / (header.camera_length / 10))
        angles = [StatedAxis("SDP", step, 0.0, "mrad")] * 2
    steps = [one if 0 < one.step < MAX_STEP else None for one in stated] if len(scan_shape) > 1 else [None]
    notes: list[str] = []
    lead = [None] * (len(scan_shape) - len(steps))
    axes = bring_axes((*scan_shape, header.size, header.size), [*lead, *steps, *angles], notes)
    acquisition = metadata.acquisition.model_copy(update=known)
    return metadata.model_copy(update={"acquisition": acquisition, "axes": axes, "warnings": metadata.warnings + notes})
