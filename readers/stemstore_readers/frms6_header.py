"""Headers of PNDetector files (FRMS6), and the text file beside them.

File header, 1024 bytes, little-endian; frames follow, each behind a header of 64 bytes:

======  =========  ========================================================
offset  type       field
======  =========  ========================================================
0, 2    uint16     bytes of the file header (1024), of a frame header (64)
7       uint8      version, 6
8       80 byte    comment
88, 90  uint16     width, height as stored
92      928 byte   comment
1020    uint32     frames; 0 in old files
======  =========  ========================================================

Frame header: time in s (uint32 at 4), microseconds (8), number (12). The text file ``name.hdr`` has a section
``measurementInfo``. Source: LiberTEM/LiberTEM (``src/libertem/io/dataset/frms6.py``).
"""

from __future__ import annotations

import configparser
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stemstore.errors import CorruptDataError, FormatVersionError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import unreadable

if TYPE_CHECKING:
    from stemstore.sources.remote import Place

FILE_HEADER, FRAME_HEADER, VERSION = 1024, 64, 6
_FIELDS = struct.Struct("<HH3xB80sHH928sI")
FRAME_TIME = struct.Struct("<4xIII")

MAX_SIDE = 2**14
"""Largest stored width or height that is believed; the detector has 528 by 264."""

MAX_TEXT = 2**20
"""Longest text file that is read."""

SECTION = "measurementInfo"
_SIZE = re.compile(r"\s*(\d{1,6})\s*x\s*(\d{1,6})\s*")
_BINNING = re.compile(r"bin:\s*(\d)")


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What a file header says; width and height are those of the folded frame."""

    width: int
    height: int
    n_frames: int
    comment: str

    @property
    def frame_bytes(self) -> int:
        """Length of the pixels of a frame in bytes."""
        return 2 * self.width * self.height

    @property
    def record(self) -> int:
        """Bytes from one frame to the next."""
        return FRAME_HEADER + self.frame_bytes


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the text file says; None and 1 where it does not."""

    text: str = ""
    scan_shape: tuple[int, int] | None = None
    signal_frames: int | None = None
    dwell_time: float | None = None
    binning: int = 1
    warnings: list[str] = field(default_factory=list)


def begins_file(content: bytes) -> bool:
    """Whether bytes begin like a file header."""
    return len(content) >= FILE_HEADER and struct.unpack_from("<HH3xB", content) == (FILE_HEADER, FRAME_HEADER, VERSION)


def parse_header(content: bytes) -> FileHeader:
    """Parse a file header.

    Raises
    ------
    TruncatedFileError
        There are less than 1024 bytes.
    UnknownFormatError
        The bytes are no file header.
    FormatVersionError
        The version is not 6.
    CorruptDataError
        Width or height cannot be right.
    """
    if len(content) < FILE_HEADER:
        msg = f"file header has {len(content)} bytes, expected {FILE_HEADER}; copy the file again"
        raise TruncatedFileError(msg, found=len(content), expected=FILE_HEADER)
    size, frame, version, comment, width, height, more, n_frames = _FIELDS.unpack_from(content)
    if (size, frame) != (FILE_HEADER, FRAME_HEADER):
        msg = f"file header states headers of {size} and {frame} bytes, expected 1024 and 64; this is no FRMS6 file"
        raise UnknownFormatError(msg, found=(size, frame), expected=(FILE_HEADER, FRAME_HEADER))
    if version != VERSION:
        msg = f"file header has version {version}, known is {VERSION}; update stemstore"
        raise FormatVersionError(msg, found=version, expected=VERSION)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or width % 2:
        msg = f"file header states frames of {width} x {height}, expected an even width up to {MAX_SIDE}; copy it again"
        raise CorruptDataError(msg, found=(width, height))
    texts = (part.split(b"\0")[0].decode("latin-1") for part in (comment, more))
    return FileHeader(width, height, n_frames, " ".join(text for text in texts if text))


def parse_text(text: str) -> Measurement:
    """Parse the text file; what it states in another form is left out and reported."""
    warnings: list[str] = []
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
        values = dict(parser[SECTION]) if parser.has_section(SECTION) else {}
    except configparser.Error as error:
        values = {}
        warnings.append(f"the text file cannot be parsed ({type(error).__name__}); scan and binning are unknown")
    size = _SIZE.fullmatch(values.get("stemimagesize", ""))
    scan = (int(size.group(2)), int(size.group(1))) if size else None
    if scan is not None and 0 in scan:
        scan = None
    if scan is not None and scan[0] != scan[1]:
        warnings.append(
            f"the scan is {values['stemimagesize'].strip()}, read as columns x rows; pass scan_shape otherwise"
        )
    binning = _BINNING.search(values.get("readoutmode", ""))
    factor = int(binning.group(1)) if binning else 1
    if factor not in (1, 2, 4):
        warnings.append(f"the read-out mode states a binning of {factor}, expected 1, 2 or 4; it is ignored")
        factor = 1
    frames, dwell = (_number(values.get(key)) for key in ("signalframes", "dwelltimemicroseconds"))
    return Measurement(text, scan, frames, dwell / 1e6 if dwell else None, factor, warnings)


def read_text(path: Place) -> Measurement:
    """Read and parse a text file.

    Raises
    ------
    StorageError, NotFoundError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return parse_text(file.read(MAX_TEXT).decode("latin-1"))
    except OSError as error:
        raise unreadable(path, error) from error


def _number(text: str | None) -> int | None:
    digits = (text or "").strip().strip('"')
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None  # noqa: PLR2004
