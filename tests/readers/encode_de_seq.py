"""Encoder of Norpix SEQ files and of the files beside them, written from their description."""

from __future__ import annotations

import struct

import numpy as np


def encode(images, *, allocated=None, blank=0, version=5, rate=333.0, seconds=1660245687, **header):
    """Pack images (n, rows, columns) with their times; `blank` zero images follow that were never recorded."""
    n, rows, columns = images.shape
    size = rows * columns * images.dtype.itemsize
    start = 8192 if version >= 5 else 1024
    stride = header.get("stride", -(-(size + 8) // 8192) * 8192)
    head = bytearray(start)
    struct.pack_into("<I", head, 0, 0xFEED)
    head[4:28] = "Norpix seq".encode("utf-16-le").ljust(24, b"\0")
    struct.pack_into("<2i", head, 28, version, 1024)
    head[36:548] = ("Tests\0".encode("utf-16-le") + b"\xff\xfe" * 256)[:512]  # garbage behind the end
    bits = header.get("bits", images.dtype.itemsize * 8)
    count = n if allocated is None else allocated
    struct.pack_into("<9I", head, 548, columns, rows, bits, 12, size, 100, count, 0, stride)
    struct.pack_into("<d", head, 584, rate)
    struct.pack_into("<I", head, 620, header.get("compression", 0))
    records = []
    for i, image in enumerate(images):
        pixels = image.astype(image.dtype.newbyteorder("<")).tobytes()
        records.append((pixels + struct.pack("<IHH", seconds, i, 500)).ljust(stride, b"\0"))
    return bytes(head) + b"".join(records) + bytes(stride) * blank


def counters(numbers, short=False):
    """Pack a ``.metadata`` file with these counters."""
    records = []
    for number in numbers:
        record = bytearray(224)
        struct.pack_into("<I", record, 0, 24 if short else 224)
        struct.pack_into("<I", record, 16 if short else 216, number)
        records.append(bytes(record))
    return struct.pack("<4I", 1, 256, len(records), 224).ljust(256, b"\0") + b"".join(records)


def settings(defects="", **values):
    """Write a configuration."""
    lines = "".join(f'<{key} Value="{value}" />' for key, value in values.items())
    body = f"<BadPixels>{defects}</BadPixels><FileInfo>{lines}</FileInfo>"
    return f"<?xml version='1.0'?><Configuration>{body}</Configuration>"


def write(folder, images, *, name="scan.seq", xml=None, numbers=None, missing=None, **form):
    """Write a SEQ file and what lies beside it; gives its path."""
    path = folder / name
    path.write_bytes(encode(images, **form))
    if xml is not None:
        (folder / f"{name}.Config.Metadata.xml").write_text(xml)
    if numbers is not None:
        (folder / f"{name}.metadata").write_bytes(counters(numbers))
    if missing is not None:
        text = "Frame number of missing frames: \r\n" + "".join(f"{number}\r\n" for number in missing)
        (folder / f"{name}.Missing_Frame_Info.txt").write_text(text)
    return path


def write_halves(folder, frames, per_record, *, times=("14-13-42.780", "14-13-42.822"), extra=0, first=(1, 1)):
    """Write frames (n, rows, columns) as the two halves; the lower one has `extra` records more."""
    n, rows, columns = frames.shape
    paths = []
    for i, (half, time) in enumerate(zip(("Top", "Bottom"), times, strict=True)):
        part = frames[:, : rows // 2] if half == "Top" else frames[:, rows // 2 :]
        records = np.ascontiguousarray(part).reshape(n // per_record, per_record * rows // 2, columns)
        if i:
            records = np.concatenate([records, np.full((extra, *records.shape[1:]), 9, records.dtype)])
        path = folder / f"scan_{half}_{time}.seq"
        path.write_bytes(encode(records))
        numbers = range(first[i], first[i] + len(records))
        path.with_name(path.name + ".metadata").write_bytes(counters(numbers, short=True))
        paths.append(path)
    return paths
