"""FRMS6 measurements, folded as the detector reads them out."""

from __future__ import annotations

import struct

import numpy as np


def fold(frames):
    """Fold frames (n, 2 h, w / 2) into the stored (n, h, w)."""
    height = frames.shape[1] // 2
    stored = np.empty((len(frames), height, 2 * frames.shape[2]), "<u2")
    for y in range(height):
        stored[:, y, : frames.shape[2]] = frames[:, y]
        stored[:, height - 1 - y, frames.shape[2] :] = frames[:, height + y, ::-1]
    return stored


def file_header(width, height, n_frames, *, size=1024, frame=64, version=6) -> bytes:
    """Write the header of a file."""
    return struct.pack("<HH3xB80sHH928sI", size, frame, version, b"pnCCD", width, height, b"test", n_frames)


def encode(frames, *, n_frames=None, **changes) -> bytes:
    """Write frames (n, 2 h, w / 2) as one file."""
    stored = fold(frames)
    _, height, width = stored.shape
    content = file_header(width, height, len(frames) if n_frames is None else n_frames, **changes)
    for number, frame in enumerate(stored):
        content += struct.pack("<4xIII12x36s", 1_700_000_000, 250_000, number, b"c") + frame.tobytes()
    return content


def text(columns, rows, *, frames=None, binning=1, dwell=1000) -> str:
    """Write the text file."""
    return (
        f"[measurementInfo]\ndarkframes = 2\nsignalframes = {columns * rows if frames is None else frames}\n"
        f"dwelltimemicroseconds = {dwell}\ngain = 16\nstemimagesize = {columns}x{rows}\n"
        f'readoutmode = "bin: {binning}, windowing: 264 x 264"\n'
    )


def write(folder, dark, frames, *, hdr=None, per_file=None, **options):
    """Write a measurement and name its first signal file."""
    if dark is not None:
        (folder / "m_000.frms6").write_bytes(encode(dark))
    step = per_file or len(frames)
    for number in range(0, len(frames), step):
        (folder / f"m_{number // step + 1:03d}.frms6").write_bytes(encode(frames[number : number + step], **options))
    if hdr is not None:
        (folder / "m.hdr").write_text(hdr, encoding="latin-1")
    return folder / "m_001.frms6"
