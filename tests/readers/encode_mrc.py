"""Encoder of MRC files and of Direct Electron's side files, written from the description of the formats."""

from __future__ import annotations

import struct

import numpy as np

MODES = {"u1": 0, "i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12, "c8": 4}


def encode(array, *, order="<", frames=None, mark=b"MAP ", cell=-10.0, extended=b"", version=20140, **more):
    """Pack a stack (frame, row, column) with Direct Electron's marks; `frames` and `mode` may lie."""
    n, rows, columns = array.shape
    head = bytearray(1024)
    mode = more.get("mode", MODES[array.dtype.str[1:]])
    struct.pack_into(f"{order}4i", head, 0, columns, rows, n if frames is None else frames, mode)
    struct.pack_into(f"{order}3i6f3i", head, 28, columns, rows, n, cell * columns, cell * rows, 0, 90, 90, 90, 1, 2, 3)
    struct.pack_into(f"{order}3f2i", head, 76, 2.0, 1.0, 0.0, 1, len(extended))
    head[104:108] = more.get("kind", bytes(4))
    struct.pack_into(f"{order}i", head, 108, version)
    if "imod_flags" in more:
        struct.pack_into(f"{order}2i", head, 152, 1146047817, more["imod_flags"])
    head[208:212] = mark
    head[212:216] = b"DD\0\0" if order == "<" else b"\x11\x11\0\0"
    return bytes(head) + extended + array.astype(array.dtype.newbyteorder(order)).tobytes()


def info(**values):
    """Write the text of a scan; keys as in the file, underscores for what Python does not take."""
    names = {
        "size_x": "Scan - Size X", "size_y": "Scan - Size Y", "enable": "Scan - Enable", "type": "Scan - Type",
        "repeats": "Scan - Repeats", "per_point": "Scan - Camera Frames Per Point", "roi": "Scan - ROI Enable",
        "roi_x": "Scan - ROI Size X", "roi_y": "Scan - ROI Size Y", "roi_type": "Scan - ROI Type",
        "step_x": "Specimen Pixel Size X (nanometers)", "step_y": "Specimen Pixel Size Y (nanometers)",
        "k_x": "Diffraction Pixel Size X", "k_y": "Diffraction Pixel Size Y",
        "mode": "Instrument Project TEMorSTEM Mode", "voltage": "Instrument Accelerating Voltage (V)",
        "path": "Autosave Final Image File Path", "rate": "Frames Per Second", "sum": "Autosave Movie Sum Count",
    }  # fmt: skip
    base = {"enable": "Enable", "type": "Raster", "mode": -1, "path": "D:\\a = b.mrc"}
    return "".join(f"{names[key]:<64}= {value}\n" for key, value in (base | values).items())


def write_movie(folder, array, *, name="20241021_00405_movie.mrc", positions=None, text=None, **form):
    """Write a movie and its side files; gives the path of the movie."""
    path = folder / name
    path.write_bytes(encode(array, **form))
    base = name.removesuffix("_movie.mrc")
    if text is not None:
        (folder / f"{base}_info.txt").write_text(text)
    if positions is not None:
        (folder / f"{base}_scan_coordinates.csv").write_text("".join(f"{x},{y}\n" for x, y in positions))
    return path


def fei_header(rows, columns, length=768):
    """Pack the extended header of one frame with voltage, camera length and the edges of the scan."""
    block = bytearray(length)
    struct.pack_into("<i", block, 0, length)
    struct.pack_into("<d", block, 84, 300e3)
    struct.pack_into("<d", block, 301, 0.115)
    struct.pack_into("<d", block, 571, 0.001)
    struct.pack_into("<4i", block, 587, 10, 20, 10 + columns, 20 + rows)
    block[435:439] = b"Ceta"
    return bytes(block)


def some(shape, dtype="<u2"):
    """Distinct pixels."""
    return (np.arange(np.prod(shape)) % 113).astype(dtype).reshape(shape)
