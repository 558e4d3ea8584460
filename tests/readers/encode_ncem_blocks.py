"""Encoder of NCEM 4D Camera files of header versions 1 and 2, written from the description of the format."""

from __future__ import annotations

import numpy as np

BLOCK = 1600
FRAME_2 = 2 * 576 * 576


def block_1(frames, numbers, *, time=77, count=None):
    """One block of version 1: frames (n, rows, columns) with image numbers that count from 1."""
    words = np.zeros(1024, "<u4")
    words[:5] = len(frames) if count is None else count, *frames.shape[1:], 1, time
    words[10 : 10 + len(numbers)] = numbers
    return words.tobytes() + frames.astype("<u2").tobytes()


def write_2(path, frames, *, blocks, first=12345):
    """Write blocks of version 2, sparse on disk: `frames` {number in the stream: frame} are not empty."""
    with path.open("wb") as file:
        for block in range(blocks):
            file.seek(block * (4 + BLOCK * FRAME_2))
            file.write(int(first).to_bytes(4, "little"))
        for number, frame in frames.items():
            block, place = divmod(number, BLOCK)
            file.seek(block * (4 + BLOCK * FRAME_2) + 4 + place * FRAME_2)
            file.write(frame.astype("<u2").tobytes())
        file.truncate(blocks * (4 + BLOCK * FRAME_2))
    return str(path)
