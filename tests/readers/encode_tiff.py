"""TIFF files, written tag by tag from the specification (TIFF 6.0)."""

from __future__ import annotations

import struct

KINDS = {"u": 1, "i": 2, "f": 3}
SIZES = {"B": 1, "H": 2, "I": 4, "R": 8}
CODES = {"B": 2, "H": 3, "I": 4, "R": 5}


def directory(entries, at, following, order) -> bytes:
    """Write one directory that lies at byte `at`, values that do not fit behind it."""
    extra_at = at + 2 + 12 * len(entries) + 4
    body, extra = struct.pack(order + "H", len(entries)), b""
    for code, kind, value in sorted(entries):
        if kind == "B":
            content, count = value + b"\0", len(value) + 1
        elif kind == "R":
            content, count = struct.pack(order + "II", *value), 1
        else:
            content, count = struct.pack(order + kind, value), 1
        if len(content) <= 4:
            stored = content.ljust(4, b"\0")
        else:
            stored = struct.pack(order + "I", extra_at + len(extra))
            extra += content + b"\0" * (len(content) % 2)
        body += struct.pack(order + "HHI", code, CODES[kind], count) + stored
    return body + struct.pack(order + "I", following) + extra


def tags(frame, offset, length, order, description=None, resolution=None):
    """List the tags of an image."""
    rows, columns = frame.shape
    entries = [(256, "I", columns), (257, "I", rows), (258, "H", 8 * frame.dtype.itemsize), (259, "H", 1)]
    entries += [(262, "H", 1), (273, "I", offset), (277, "H", 1), (278, "I", rows), (279, "I", length)]
    entries += [(339, "H", KINDS[frame.dtype.kind])]
    if description is not None:
        entries.append((270, "B", description.encode("latin-1")))
    if resolution is not None:
        entries += [(282, "R", resolution), (283, "R", resolution)]
    return entries


def imagej(frames, order=">", unit="micron", resolution=(1000000, 500000), keep=None) -> bytes:
    """Write a stack as ImageJ does: one directory, all frames (or the first `keep`) behind it."""
    count = len(frames)
    text = f"ImageJ=1.51d\nimages={count}\nslices={count}\nunit={unit}\nspacing=2.5\nloop=false\n"
    frame = frames[0]
    for offset in (0, len(directory(tags(frame, 0, 0, order, text, resolution), 8, 0, order)) + 8):
        head = directory(tags(frame, offset, frame.nbytes, order, text, resolution), 8, 0, order)
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return magic + head + frames[:keep].astype(frames.dtype.newbyteorder(order)).tobytes()


def pages(frames, order="<", gap=10) -> bytes:
    """Write a directory per frame, each in front of its pixels, with a gap between the frames."""
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for number, frame in enumerate(frames):
        at = len(content)
        size = len(directory(tags(frame, 0, 0, order), at, 0, order))
        following = at + size + frame.nbytes + gap if number + 1 < len(frames) else 0
        head = directory(tags(frame, at + size, frame.nbytes, order), at, following, order)
        content += head + frame.astype(frame.dtype.newbyteorder(order)).tobytes()
        content += b"\xee" * gap if following else b""
    return content
