"""Encoder of Merlin files, written from the description of the format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

CODES = {"U08": ">u1", "U16": ">u2", "U32": ">u4"}
TYPES = {1: "u1", 6: "u1", 12: "u2", 24: "u4"}
THRESHOLDS = "2.000000E+0,5.110000E+2," + ",".join(["0.000000E+0"] * 6)
DACS = "3RX," + ",".join(f"{number:03d}" for number in range(27))


def pixels(shape, depth, seed=0):
    """Random frames that use every bit of the counter."""
    return np.random.default_rng(seed).integers(0, 2**depth, shape).astype(TYPES[depth])


def raw_pixels(frame, depth):
    """Pack one frame as the readout sends it."""
    if frame.shape == (512, 512):
        quarters = frame[:256, :256], frame[:256, 256:], frame[256:, :256][::-1, ::-1], frame[256:, 256:][::-1, ::-1]
        frame = np.concatenate(quarters[::-1], axis=1)
    flat = frame.reshape(-1)
    if depth == 24:
        return raw_pixels(flat >> 12, 12) + raw_pixels(flat & 4095, 12)
    if depth == 12:
        return flat.reshape(-1, 4)[:, ::-1].astype(">u2").tobytes()
    if depth == 6:
        return flat.reshape(-1, 8)[:, ::-1].astype("u1").tobytes()
    weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
    return (flat.reshape(-1, 64).astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64).astype(">u8").tobytes()


@dataclass
class Mib:
    """Frames to be written: `code` is U08, U16, U32 or R64."""

    frames: np.ndarray
    depth: int = 12
    code: str = "U16"
    first: int = 1
    bare: bool = False
    layout: str = ""
    times: np.ndarray | None = None
    size: tuple[int, int] | None = None

    @property
    def chips(self):
        """One, or four for the square assembly."""
        return 4 if self.frames.shape[-1] >= 512 else 1

    def header(self, number):
        """Text in front of frame `number`, padded with NUL."""
        rows, columns = self.frames.shape[-2:]
        if self.code == "R64":
            columns, rows = (1024, 256) if self.chips == 4 else (256, rows)
            columns *= 2 if self.depth == 24 else 1
        columns, rows = self.size or (columns, rows)
        length = 768 if self.chips == 4 else 384
        elapsed = number * 1_000_000 if self.times is None else int(self.times[number])
        at = datetime(2024, 5, 17, 9, 30, tzinfo=UTC) + timedelta(seconds=elapsed // 10**9)
        layout = self.layout or ("2x2" if self.chips == 4 else "1x1")
        fields = [f"MQ1,{self.first + number:06d},{length:05d},{self.chips:02d},{columns:04d},{rows:04d},{self.code}"]
        fields += [f"{layout:>6}", "0F" if self.chips == 4 else "01", f"{at:%Y-%m-%d %H:%M:%S}.000000", "0.001000"]
        fields += ["0,0,0", "" if self.bare else THRESHOLDS]
        fields += [] if self.bare else [DACS] * self.chips
        fields += [f"MQ1A,{at:%Y-%m-%dT%H:%M:%S}.{elapsed % 10**9:09d}Z,1000000ns,{self.depth},"]
        return ",".join(fields).encode().ljust(length, b"\0")

    def encode(self):
        """All records."""
        flat = self.frames.reshape(-1, *self.frames.shape[-2:])
        return b"".join(self.header(number) + self.pixels(frame) for number, frame in enumerate(flat))

    def pixels(self, frame):
        """Pixels of one record."""
        return raw_pixels(frame, self.depth) if self.code == "R64" else frame.astype(CODES[self.code]).tobytes()

    def write(self, path: Path, **sidecar):
        """Write the frames, and a ``.hdr`` file if it is to say something."""
        path.write_bytes(self.encode())
        if sidecar:
            path.with_suffix(".hdr").write_bytes(hdr(sidecar))
        return str(path)


KEYS = {
    "frames": "Frames in Acquisition (Number)",
    "per_trigger": "Frames per Trigger (Number)",
    "depth": "Counter Depth (number)",
    "thresholds": "Thresholds (keV)",
    "x": "ScanX",
    "y": "ScanY",
}


def hdr(values):
    """Text beside the data."""
    lines = ["HDR,\t", "Dead Time File:\tDummy (C:\\<NUL>\\)", "Sensor Bias (V):\t120 V"]
    lines += [f"{KEYS[key]}:\t{value}" for key, value in values.items()]
    return "\r\n".join([*lines, "End\t"]).encode("latin-1").ljust(2048)


def times(shape, period=1_000_000, delay=0, jitter=10):
    """Times of frames, ns: `delay` longer behind every line, and the noise of the clock."""
    gaps = np.full(shape, period) + np.random.default_rng(3).integers(-jitter, jitter + 1, shape)
    gaps[:, -1] += delay
    return np.concatenate([[0], np.cumsum(gaps.reshape(-1))[:-1]])
