"""TVIPS recordings, written from the description of their headers."""

from __future__ import annotations

import struct

import numpy as np

FIELDS = {"counter": ("I", 0), "time": ("I", 4), "ms": ("I", 8), "magnification": ("I", 20), "mode": ("I", 24)}
FIELDS |= {"rotator": ("I", 48), "scan_x": ("f", 68), "scan_y": ("f", 72)}


def series_header(shape, bits=16, *, version=2, frame_header=128, **changes) -> bytes:
    """Write the 256 bytes in front of a series; `shape` is (height, width)."""
    values = {"size": 256, "version": version, "width": shape[1], "height": shape[0], "bits": bits}
    values |= {"x": 0, "y": 0, "bx": 2, "by": 4, "pixel": 31000, "tension": 200, "length": 80, "header": frame_header}
    return struct.pack("<13I", *(values | changes).values()) + b"TVIPS".ljust(204, b"\0")


def frame_header(length, **fields) -> bytes:
    """Write a frame header; fields beyond its length are left out, everything unknown is 0xEE."""
    content = bytearray(b"\0" * min(length, 108) + b"\xee" * max(length - 108, 0))
    for name, value in fields.items():
        kind, offset = FIELDS[name]
        if offset + 4 <= length:
            struct.pack_into(f"<{kind}", content, offset, value)
    return bytes(content)


def records(frames, length, fields) -> list[bytes]:
    """Write frames with their headers; `fields` holds one dictionary per frame."""
    order = frames.astype(frames.dtype.newbyteorder("<"))
    times = [{"counter": i + 1, "time": 1_700_000_000 + i // 100, "ms": 10 * (i % 100)} for i in range(len(frames))]
    return [
        frame_header(length, **time, mode=2, **field) + frame.tobytes()
        for time, field, frame in zip(times, fields, order, strict=True)
    ]


def write_series(folder, frames, *, fields=None, length=128, version=2, per_file=None, name="scan"):
    """Write a recording, `per_file` frames to a file, and name its first file."""
    header = series_header(frames.shape[1:], 8 * frames.dtype.itemsize, version=version, frame_header=length)
    content = records(frames, 12 if version == 1 else length, fields or [{}] * len(frames))
    step = per_file or len(frames)
    for number in range(0, len(frames), step):
        path = folder / f"{name}_{number // step:03d}.tvips"
        path.write_bytes((header if not number else b"") + b"".join(content[number : number + step]))
    return folder / f"{name}_000.tvips"


def scan_fields(ny, nx, idle=0):
    """Headers of a scan with `idle` frames in front of it."""
    places = [{"scan_y": y, "scan_x": x} for y in range(ny) for x in range(nx)]
    return [{"scan_x": 0, "scan_y": 0}] * idle + places


def ramp(count, shape=(3, 5), dtype="u2"):
    """Distinct pixels."""
    return (np.arange(count * shape[0] * shape[1]) % 251).astype(dtype).reshape(count, *shape)
