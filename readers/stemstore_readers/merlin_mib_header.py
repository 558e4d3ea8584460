"""Headers of Quantum Detectors Merlin files: the text in front of every frame, and the ``.hdr`` file beside the data.

A frame header is ASCII with commas, padded with NUL:

======  =====================================================  ============================
field   content                                                example
======  =====================================================  ============================
0       ``MQ1``
1       number of the frame, goes on over the files of a run   ``000001``
2       bytes of the header                                    ``00384``
3       chips                                                  ``01``, ``04``
4, 5    width and height (RAW: of the readout)                 ``0256``
6       pixel code                                             ``U08`` ``U16`` ``U32`` ``R64``
7       assembly, ``G``: with the gap between chips            ``   2x2``
8       chip select                                            ``0F``
9       local time
10      exposure, s                                            ``0.001000``
11-13   counter, colour mode, gain mode
14 …    up to eight thresholds, keV, or one empty field        ``2.000000E+0``
then    per chip: ``3RX`` and 27 DAC values
then    ``MQ1A``, UTC time in ns, exposure, counter depth      ``1000000ns``, ``12``
======  =====================================================  ============================

Sources: LiberTEM (``src/libertem/io/dataset/mib.py``) and files of the detector.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, FormatVersionError
from stemstore.kernels import merlin_raw

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_READ = 4096
"""Bytes read to find out how long the header is; longer than every known one (384 per chip, at most)."""

LONGEST = 65536
"""Bytes that a header, or a ``.hdr`` file, may have; known ones have 384, 768 and 2048."""

PLAIN = {"U08": ">u1", "U16": ">u2", "U32": ">u4"}
"""Pixel codes of processed frames, and the type of their pixels."""

RAW = "R64"
"""Pixel code of frames as the readout sends them."""

DEPTHS = tuple(merlin_raw.PIXELS)
"""Counter depths, bit."""

_N_FIXED = 14
_MAX_THRESHOLDS = 8
_NUMBER = re.compile(r"\d{1,9}")
_STAMP = re.compile(rb"MQ1A,(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{1,9})Z")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the header of one frame says.

    Attributes
    ----------
    sequence
        Number of the frame in its acquisition, from 1.
    header_bytes : unit byte
    chips
        Chips that were read out.
    width, height : unit pixel
        Of the frame; of the readout where the frame is RAW.
    pixel_code, layout
        As stated, without blanks.
    exposure : unit s
        None where it is not stated.
    thresholds : unit keV
    chip_type
        None where the header names no chip.
    stamp
        UTC time with nanoseconds, ISO 8601; None where it is not stated.
    depth : unit bit
        Counter depth; None where it is not stated.
    text
        The header without its padding.
    """

    sequence: int
    header_bytes: int
    chips: int
    width: int
    height: int
    pixel_code: str
    layout: str
    exposure: float | None
    thresholds: tuple[float, ...]
    chip_type: str | None
    stamp: str | None
    depth: int | None
    text: str


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """How one frame lies in its file.

    Attributes
    ----------
    header_bytes, pixel_bytes : unit byte
        In front of the pixels, and of the pixels.
    shape
        Rows and columns of the frame as the detector sees it.
    file_dtype
        Type of the pixels, of processed frames in the byte order of the file.
    raw_depth : unit bit
        Counter depth of RAW frames; None for processed ones.
    """

    header_bytes: int
    pixel_bytes: int
    shape: tuple[int, int]
    file_dtype: np.dtype[Any]
    raw_depth: int | None

    @property
    def record_bytes(self) -> int:
        """From one frame to the next."""
        return self.header_bytes + self.pixel_bytes


def header_length(content: bytes) -> int | None:
    """Read how long a frame header is; None where the bytes are none."""
    fields = content[:32].split(b",")
    numbers = [field.decode("latin-1") for field in fields[1:-1][:2]]  # the last field may be cut
    if fields[0] != b"MQ1" or not numbers[1:] or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    length = int(numbers[1])
    return length if 0 < length <= LONGEST else None


def parse_header(content: bytes, place: str) -> FrameHeader:
    """Read a frame header.

    Parameters
    ----------
    content
        Bytes from the start of the header on; what follows it is not looked at.
    place
        File and frame, for messages.

    Raises
    ------
    CorruptDataError
        It is no header, or one of its numbers is none.
    """
    length = header_length(content)
    if length is None or len(content) < length:
        msg = f"{place} starts with {content[:16]!r}, expected the header 'MQ1,000001,00384,…' of a Merlin frame"
        if content[:4] == b"MPX,":
            msg += "; this is a stream of the control computer, not a file: save the frames as .mib"
        else:
            msg += "; check that the file is complete, or name its format with reader='…'"
        raise CorruptDataError(msg, found=content[:16])
    text = content[:length].split(b"\0")[0].decode("latin-1").rstrip()
    fields = [field.strip() for field in text.split(",")]
    if len(fields) < _N_FIXED or not all(_NUMBER.fullmatch(fields[i]) for i in (1, 3, 4, 5)):
        msg = (
            f"{place} has the header {text[:60]!r}, expected {_N_FIXED} fields with the number of the frame, of chips, "
            "width and height; the file is damaged, copy it again"
        )
        raise CorruptDataError(msg, found=fields[:_N_FIXED])
    stamp, exposure, depth = _extension(fields)
    return FrameHeader(
        sequence=int(fields[1]),
        header_bytes=length,
        chips=int(fields[3]),
        width=int(fields[4]),
        height=int(fields[5]),
        pixel_code=fields[6],
        layout=fields[7],
        exposure=exposure if exposure is not None else _float(fields[10]),
        thresholds=thresholds(fields[_N_FIXED:]),
        chip_type="3RX" if "3RX" in fields else None,
        stamp=stamp,
        depth=depth,
        text=text,
    )


def frame_layout(header: FrameHeader, depth: int | None, place: str) -> FrameLayout:
    """Work out where the pixels of a frame lie.

    Parameters
    ----------
    depth : unit bit
        Counter depth from elsewhere, for headers that do not state it.

    Raises
    ------
    FormatVersionError
        The pixel code is unknown, or a RAW frame has a depth, a size or an assembly whose order is not known.
    CorruptDataError
        The frame has no pixels.
    """
    if header.width * header.height == 0:
        msg = f"{place} states {header.width} x {header.height} pixels, expected at least one; the header is damaged"
        raise CorruptDataError(msg, found=(header.height, header.width))
    if header.pixel_code in PLAIN:
        dtype = np.dtype(PLAIN[header.pixel_code])
        shape = header.height, header.width
        return FrameLayout(header.header_bytes, math.prod(shape) * dtype.itemsize, shape, dtype, None)
    if header.pixel_code != RAW:
        msg = (
            f"{place} has the pixel code {header.pixel_code!r}, expected {', '.join(PLAIN)} or {RAW}; "
            "save the frames in one of these"
        )
        raise FormatVersionError(msg, found=header.pixel_code, expected=[*PLAIN, RAW])
    depth = header.depth or depth
    if depth is None:
        msg = f"{place} is RAW and states no counter depth; put the .hdr file beside the data, which states it"
        raise FormatVersionError(msg, expected=list(DEPTHS))
    shape = _raw_shape(header, depth, place)
    n_pixels = math.prod(shape)
    dtype = merlin_raw.PIXELS[depth][0]
    return FrameLayout(header.header_bytes, merlin_raw.packed_bytes(n_pixels, depth), shape, dtype, depth)


def _raw_shape(header: FrameHeader, depth: int, place: str) -> tuple[int, int]:
    """Rows and columns behind a RAW readout, which states all chips side by side, and 24 bits as two images."""
    side, chips = merlin_raw.CHIP, header.chips
    halves = header.width * header.height / (chips * side * side) if chips else 0
    quad = chips == merlin_raw.QUAD and header.layout.startswith("2x2")
    if quad and halves in (1, 2 if depth == 24 else 1):  # noqa: PLR2004 (bits of a counter)
        return 2 * side, 2 * side
    if chips == 1 and depth == 24 and halves in (1, 2):  # noqa: PLR2004 (bits of a counter)
        return side, side
    if chips == 1 and depth != 24 and header.width == side and header.height <= side:  # noqa: PLR2004 (see above)
        return header.height, side
    msg = (
        f"{place} is a RAW frame of {header.width} x {header.height} and {depth} bit from {chips} chips in the "
        f"assembly {header.layout!r}, whose order of pixels is not known; save processed frames (U08, U16 or U32)"
    )
    raise FormatVersionError(msg, found=(header.height, header.width), expected="one chip, or four chips as 2x2")


def thresholds(fields: Sequence[str]) -> tuple[float, ...]:
    """Read the energies, keV, at the start of `fields`; what follows them is something else."""
    found = []
    for field in fields[:_MAX_THRESHOLDS]:
        value = _float(field) if "." in field else None  # DAC values and chip types have no point
        if value is None:
            break
        found.append(value)
    return tuple(found)


def _extension(fields: list[str]) -> tuple[str | None, float | None, int | None]:
    """UTC time, exposure in s and counter depth behind the token ``MQ1A``, each as far as it makes sense."""
    if "MQ1A" not in fields:
        return None, None, None
    values = [field for field in fields[fields.index("MQ1A") + 1 :] if field]
    stamp = values[0] if values else ""
    try:
        datetime.fromisoformat(stamp)
    except ValueError:
        stamp = ""
    exposure = _float(values[1][:-2]) if len(values) > 1 and values[1].endswith("ns") else None
    depth = int(values[-1]) if values and values[-1] in {str(depth) for depth in DEPTHS} else None
    return stamp or None, None if exposure is None else exposure * 1e-9, depth


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def nanoseconds(content: bytes) -> int | None:
    """Find the UTC time of a frame in a piece of its header, ns since 1970; None where there is none."""
    found = _STAMP.search(content)
    if found is None:
        return None
    try:
        seconds = datetime.fromisoformat(found[1].decode() + "+00:00").timestamp()
    except ValueError:
        return None
    return round(seconds) * 10**9 + int(found[2].ljust(9, b"0"))


def parse_sidecar(content: bytes) -> dict[str, str] | None:
    """Read the lines ``key:<TAB>value`` of a ``.hdr`` file; None where it is none."""
    if not content.startswith(b"HDR,"):
        return None
    values = {}
    for line in content.decode("latin-1").splitlines()[1:]:
        key, colon, value = line.partition(":\t")
        if colon:
            values[key.strip()] = value.strip()
    return values


def whole_number(values: dict[str, str], *names: str) -> int | None:
    """Find the number behind a key that starts with one of `names`; None where there is none."""
    for key, value in values.items():
        if key.startswith(names) and _NUMBER.fullmatch(value):
            return int(value)
    return None
