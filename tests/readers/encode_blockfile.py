"""Blockfiles, written from the description of their layout."""

from __future__ import annotations

import struct

import numpy as np


def encode(frames, *, first_number=0, marker=b"\xaa\x55", note=b"", gap=16, **changes) -> bytes:
    """Write frames (rows, columns, size, size) as a blockfile; `changes` replace fields of the header."""
    rows, columns, size = frames.shape[:3]
    image_end = 0x1000 + rows * columns
    fields = {
        "magic": b"IMGBLO", "version": 0x0102, "image": 0x1000, "patterns": image_end + -image_end % gap,
        "flags": 131135, "size": size, "rotation": 256,
        "columns": columns, "rows": rows, "scan_rotation": 2500, "step_x": 12.5, "step_y": 10.0,
        "energy": 200000, "per_cm": 6250, "length": 2000, "time": 43970.5,
    }  # fmt: skip
    fields |= changes
    header = struct.pack("<6sH3I5H2dIHId22d", *fields.values(), *range(22)) + note
    image = np.arange(rows * columns, dtype="u1").tobytes()
    start = fields["patterns"] if "patterns" not in changes else image_end
    content = header.ljust(0x1000, b"\0") + image
    flat = frames.reshape(rows * columns, size, size)
    records = [
        marker + struct.pack("<I", first_number + number) + frame.astype(frame.dtype.newbyteorder("<")).tobytes()
        for number, frame in enumerate(flat)
    ]
    return content.ljust(start, b"\0") + b"".join(records)
