"""The header of MRC files, and the extended header that Thermo Fisher writes.

======  ==========  =======================================================================================
offset  type        field (little-endian unless the machine stamp says otherwise)
======  ==========  =======================================================================================
0       int32 x 3   columns, rows, frames
12      int32       mode, see `MODES`
28      int32 x 3   grid
40      float32 x 3 cell, angstrom (Direct Electron: -10 per pixel)
64      int32 x 3   order of the axes (1, 2, 3)
76      float32 x 3 minimum, maximum, mean (Direct Electron: 2, 1, 0)
92      int32       length of the extended header; the frames follow at 1024 + this
104     4 bytes     kind of the extended header
108     int32       version
152     int32 x 2   1146047817 and flags, written by IMOD
208     4 bytes     ``MAP ``
212     2 bytes     machine stamp
220     int32       labels; 10 x 80 bytes follow
======  ==========  =======================================================================================

Sources: Cheng et al., J. Struct. Biol. 192, 146 (2015): MRC2014; IMOD's description; mrcfile (extended header).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemstore.errors import TruncatedFileError, UnknownFormatError

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
"""Mode -> pixel type; bytes of mode 0 may be unsigned."""

NO_PIXELS = {3: "complex integers", 4: "complex numbers", 16: "colours", 101: "packed pixels of 4 bit"}
"""Modes that are known and not read."""

STAMPS = {b"DD": "<", b"DA": "<", b"\x11\x11": ">"}
_IMOD = 1146047817
_LABELS, _LABEL_BYTES = 10, 80


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says; `order` is the byte order."""

    columns: int
    rows: int
    frames: int
    mode: int
    grid: tuple[int, ...]
    cell: tuple[float, ...]
    axes: tuple[int, ...]
    extremes: tuple[float, ...]
    extended: int
    extended_kind: str
    version: int
    imod_flags: int | None
    labels: tuple[str, ...]
    order: str

    @property
    def frame_bytes(self) -> int:
        """Length of one frame in the file."""
        return self.rows * self.columns * np.dtype(MODES[self.mode]).itemsize

    @property
    def start(self) -> int:
        """Where the frames start, in bytes."""
        return HEADER_BYTES + self.extended

    @property
    def by_direct_electron(self) -> bool:
        """Whether the marks of Direct Electron are there: minimum above maximum and a negative cell."""
        return self.extremes == (2.0, 1.0, 0.0) and self.cell[0] < 0


def parse_header(content: bytes) -> Header:
    """Read a header of 1024 bytes.

    Raises
    ------
    TruncatedFileError
        There are fewer bytes.
    UnknownFormatError
        The numbers cannot be those of an MRC file.
    """
    if len(content) < HEADER_BYTES:
        msg = f"file ends inside its header at byte {len(content)}, expected {HEADER_BYTES}; copy it again"
        raise TruncatedFileError(msg, found=len(content), expected=HEADER_BYTES)
    stamp = STAMPS.get(content[212:214])
    for order in (stamp,) if stamp else ("<", ">"):
        numbers = struct.unpack_from(f"{order}10i3f", content)
        mapping = struct.unpack_from(f"{order}3i", content, 64)
        extended, *_ = struct.unpack_from(f"{order}i", content, 92)
        known = numbers[3] in MODES or numbers[3] in NO_PIXELS
        unset = mapping == (0, 0, 0)  # old writers
        if min(numbers[:3]) > 0 and known and (sorted(mapping) == [1, 2, 3] or unset) and extended >= 0:
            return _header(content, order, numbers, mapping)
    msg = f"file starts with {content[:16]!r}, expected columns, rows, frames and mode of an MRC file; check the format"
    raise UnknownFormatError(msg, found=content[:16])


def _header(content: bytes, order: str, numbers: tuple[Any, ...], mapping: tuple[int, ...]) -> Header:
    n_labels = min(max(struct.unpack_from(f"{order}i", content, 220)[0], 0), _LABELS)
    starts = range(224, 224 + n_labels * _LABEL_BYTES, _LABEL_BYTES)
    stamp, flags = struct.unpack_from(f"{order}2i", content, 152)
    return Header(
        columns=numbers[0],
        rows=numbers[1],
        frames=numbers[2],
        mode=numbers[3],
        grid=numbers[7:10],
        cell=numbers[10:13],
        axes=mapping,
        extremes=struct.unpack_from(f"{order}3f", content, 76),
        extended=struct.unpack_from(f"{order}i", content, 92)[0],
        extended_kind=content[104:108].rstrip(b"\0").decode("latin1"),
        version=struct.unpack_from(f"{order}i", content, 108)[0],
        imod_flags=flags if stamp == _IMOD else None,
        labels=tuple(content[at : at + _LABEL_BYTES].decode("latin1").strip("\0 ") for at in starts),
        order=order,
    )


FEI = {
    "voltage": (84, "d"), "magnification": (289, "d"), "camera_length": (301, "d"), "integration_time": (419, "d"),
    "binning_x": (427, "i"), "binning_y": (431, "i"), "camera": (435, "16s"), "dwell_time": (571, "d"),
    "frame_time": (579, "d"), "scan_left": (587, "i"), "scan_top": (591, "i"), "scan_right": (595, "i"),
    "scan_bottom": (599, "i"),
}  # fmt: skip
"""Field of the extended headers ``FEI1`` and ``FEI2`` -> offset in bytes and type; V, m, s, positions of the scan."""

FEI_BYTES = 768
"""Length of the shorter of the two."""


def parse_fei(content: bytes) -> dict[str, Any]:
    """Read the fields of the first frame; empty where the bytes are too few or state another layout."""
    if len(content) < FEI_BYTES or struct.unpack_from("<i", content)[0] < FEI_BYTES:
        return {}
    values = {key: struct.unpack_from(f"<{code}", content, at)[0] for key, (at, code) in FEI.items()}
    return values | {"camera": values["camera"].partition(b"\0")[0].decode("latin1")}


def fei_scan(values: dict[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of the scan of an extended header; None where it has none."""
    if not values:
        return None
    shape = values["scan_bottom"] - values["scan_top"], values["scan_right"] - values["scan_left"]
    return shape if min(shape) > 0 else None
