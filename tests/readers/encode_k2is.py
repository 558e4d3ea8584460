"""Encoder of K2 IS files, written from the description of the format."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from encode_dm import DmFile

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 22360


def pack12(values):
    """Two numbers in three bytes, the low ones first."""
    pairs = values.reshape(-1, 2).astype(np.uint16)
    low, high = pairs[:, 0], pairs[:, 1]
    return np.stack([low & 255, low >> 8 | (high & 15) << 4, high >> 4], axis=1).astype(np.uint8).tobytes()


def head(*, count, frame, place, shutter):
    """Header of block `place` of a frame: from right to left, upper row first."""
    x, y = 16 * (15 - place % 16), 930 * (place // 16)
    start = struct.pack(">I4xBB6xIHHI", 0xFFFF0055, 1, 2 | shutter, count, 256, 1860, frame)
    return start + struct.pack(">HHHHI", x, y, x + 15, y + 929, BLOCK)


def make_frames(n, seed=0):
    """Frames of 12 bit whose values differ everywhere."""
    return np.random.default_rng(seed).integers(0, 4096, (n, 1860, 2048)).astype(np.uint16)


@dataclass
class K2:
    """Frames to be written, with half a frame more at either end unless `exact`.

    `shutter` is the frame from which on the flag is set; `scan` are rows and columns with flyback, `inner` without.
    """

    frames: np.ndarray
    shutter: int = 0
    first: int = 100
    exact: bool = False
    scan: tuple[int, int] | None = None
    inner: tuple[int, int] | None = None

    def blocks(self, sector):
        """All blocks of a sector in their order."""
        n = len(self.frames)
        start, stop = (0, 32 * n) if self.exact else (sector - 16, 32 * n + 9 + sector)
        return [self.block(sector, number) for number in range(start, stop)]

    def block(self, sector, number):
        """Block `number`, counted from the first block of the first frame."""
        frame, place = divmod(number, 32)
        shutter = frame >= self.shutter
        header = head(count=5000 + number, frame=self.first + frame, place=place, shutter=shutter)
        if not 0 <= frame < len(self.frames):
            return header + bytes(BLOCK - 40)
        x, y = 256 * sector + 16 * (15 - place % 16), 930 * (place // 16)
        return header + pack12(self.frames[frame, y : y + 930, x : x + 16])

    def gtg(self):
        """Tag file."""
        tree = {"Microscope Info": {"Voltage": 300000.0, "Operator": "Ernst"}}
        if self.scan:
            tree["SI Dimensions"] = {"Size X": self.scan[1], "Size Y": self.scan[0]}
        if self.inner:
            sampling = {"Height (pixels)": self.inner[0], "Width (pixels)": self.inner[1]}
            tree["SI Image Tags"] = {"SI": {"Acquisition": {"Spatial Sampling": sampling}}}
        return DmFile(version=3).encode(tree)

    def write(self, folder: Path, name="Capture34_"):
        """Write the sectors and the tag file."""
        folder.mkdir(exist_ok=True)
        for sector in range(8):
            (folder / f"{name}{sector + 1}.bin").write_bytes(b"".join(self.blocks(sector)))
        (folder / f"{name}.gtg").write_bytes(self.gtg())
        return str(folder / f"{name}.gtg")
