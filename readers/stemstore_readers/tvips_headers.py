"""Headers of TVIPS recordings: one per series, one in front of each frame.

Series header, 256 bytes, little-endian, only in the file that ends in ``_000.tvips``:

======  ========  ====================================================
offset  type      field
======  ========  ====================================================
0       uint32    size of the header, 256
4       uint32    version, 1 or 2
8, 12   uint32    width, height
16      uint32    bits per pixel, 8 or 16
20, 24  uint32    x, y offset
28, 32  uint32    x, y binning
36      uint32    pixel size, nm
40      uint32    high tension, kV
44      uint32    total magnification, or camera length in diffraction
48      uint32    bytes of a frame header (version 2)
52      204 byte  text
======  ========  ====================================================

The fields of a frame header are in `FRAME_FIELDS`; those beyond the stated length do not exist. Version 1 has the first
three. Sources: LiberTEM/LiberTEM (``src/libertem/io/dataset/tvips.py``); hyperspy/rosettasciio (``rsciio/tvips``).
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stemstore.errors import CorruptDataError, FormatVersionError, TruncatedFileError, UnknownFormatError

SERIES_BYTES = 256
_SERIES = struct.Struct("<13I204s")

FRAME_FIELDS: tuple[tuple[str, str, int], ...] = (
    ("counter", "<u4", 0), ("time", "<u4", 4), ("ms", "<u4", 8), ("lut_index", "<u4", 12),
    ("faraday_cup", "<f4", 16), ("magnification", "<u4", 20), ("mode", "<u4", 24),
    ("stage_x", "<f4", 28), ("stage_y", "<f4", 32), ("stage_z", "<f4", 36),
    ("stage_alpha", "<f4", 40), ("stage_beta", "<f4", 44), ("rotator", "<u4", 48),
    ("temperature", "<f4", 52), ("temperature_set", "<f4", 56), ("heater_power", "<f4", 60),
    ("objective_current", "<f4", 64), ("scan_x", "<f4", 68), ("scan_y", "<f4", 72),
    ("bias_u_set", "<f4", 76), ("bias_u", "<f4", 80), ("bias_i_set", "<f4", 84), ("bias_i", "<f4", 88),
    ("bias_e_set", "<f4", 92), ("bias_r", "<f4", 96), ("bias_u_limit", "<f4", 100), ("bias_i_limit", "<f4", 104),
)  # fmt: skip
"""Name, type and offset of the fields of a frame header; stage in nm and deg."""

VERSION_1_BYTES = 12
MAX_FRAME_HEADER = 4096
"""Longest frame header that is believed; 12, 60, 108 and 128 bytes are seen."""

MAX_SIDE = 2**15
"""Largest width or height that is believed; the cameras have up to 16 384 pixels."""


@dataclass(frozen=True, slots=True)
class SeriesHeader:
    """What the series header says, lengths in the units of the file."""

    version: int
    width: int
    height: int
    bits: int
    x_offset: int
    y_offset: int
    x_binning: int
    y_binning: int
    pixel_size: int
    high_tension: int
    magnification: int
    frame_header: int
    text: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of the file."""
        return np.dtype("u1" if self.bits == 8 else "<u2")  # noqa: PLR2004 (bits)

    @property
    def record(self) -> int:
        """Bytes from one frame to the next."""
        return self.frame_header + self.width * self.height * self.bits // 8

    def frame_dtype(self) -> np.dtype[Any]:
        """Structure of a frame header, as far as it goes."""
        fields = [field for field in FRAME_FIELDS if field[2] + 4 <= self.frame_header]
        names, formats, offsets = zip(*fields, strict=True)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.frame_header})

    def as_vendor(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def is_series(content: bytes) -> bool:
    """Whether bytes begin like a series header."""
    if len(content) < SERIES_BYTES:
        return False
    size, version, width, height, bits = struct.unpack_from("<5I", content)
    return size == SERIES_BYTES and version in (1, 2) and bits in (8, 16) and 0 < min(width, height) <= MAX_SIDE


def parse_header(content: bytes) -> SeriesHeader:
    """Parse the series header.

    Raises
    ------
    TruncatedFileError
        There are less than 256 bytes.
    UnknownFormatError
        The bytes are no series header.
    FormatVersionError
        The version is neither 1 nor 2.
    CorruptDataError
        A size cannot be right.
    """
    if len(content) < SERIES_BYTES:
        msg = f"series header has {len(content)} bytes, expected {SERIES_BYTES}; copy the file again"
        raise TruncatedFileError(msg, found=len(content), expected=SERIES_BYTES)
    *numbers, text = _SERIES.unpack(content[:SERIES_BYTES])
    size, version, width, height, bits, frame_header = *numbers[:5], numbers[-1]
    if size != SERIES_BYTES:
        msg = f"series header states its own size as {size}, expected {SERIES_BYTES}; this is no TVIPS recording"
        raise UnknownFormatError(msg, found=size, expected=SERIES_BYTES)
    if version not in (1, 2):
        msg = f"series header has version {version}, known are 1 and 2; update stemstore"
        raise FormatVersionError(msg, found=version, expected=[1, 2])
    if version == 1:
        frame_header = VERSION_1_BYTES
    limits = (("width", width, 1, MAX_SIDE), ("height", height, 1, MAX_SIDE))
    for name, value, least, most in (*limits, ("frame header", frame_header, VERSION_1_BYTES, MAX_FRAME_HEADER)):
        if not least <= value <= most:
            msg = f"series header states {name} {value}, expected {least} to {most}; the file is damaged, copy it again"
            raise CorruptDataError(msg, key=name, found=value, expected=[least, most])
    if bits not in (8, 16):
        msg = f"series header states {bits} bits per pixel, expected 8 or 16; the file is damaged, copy it again"
        raise CorruptDataError(msg, key="bits", found=bits, expected=[8, 16])
    described = text.rstrip(b"\0").decode("latin-1")
    return SeriesHeader(*[*numbers[1:-1], frame_header, described])
