"""Timepix3 streams, packed bit by bit from the description of the packets; times in units of 25/96 ns."""

from __future__ import annotations

import numpy as np

TICK = 6
"""Units of 1.5625 ns, the fine step of a hit."""

CLOCK = 96
"""Units of 25 ns."""

KINDS = {"tdc1_rising": 0xF, "tdc1_falling": 0xA, "tdc2_rising": 0xE, "tdc2_falling": 0xB}


def hit(column, row, time, tot=5) -> int:
    """Pack a hit; its time is a multiple of the tick, what is earlier than the clock cycle is counted backwards."""
    ticks = time // TICK
    clock = -(-ticks // 16)
    address = ((column & 0xFE) << 8) | ((row & 0xFC) << 1) | ((column & 1) << 2) | (row & 3)
    wrapped = clock % 2**30
    word = 0xB << 60 | address << 44 | (wrapped & 0x3FFF) << 30 | tot << 20 | (16 * clock - ticks) << 16 | wrapped >> 14
    assert ticks == 16 * clock - (word >> 16 & 0xF)
    return word


def edge(kind, number, time, fine=None) -> int:
    """Pack a trigger edge."""
    coarse, rest = divmod(time, 12)
    return (
        0x6 << 60
        | KINDS[kind] << 56
        | (number % 4096) << 44
        | (coarse % 2**35) << 9
        | (rest + 1 if fine is None else fine) << 5
    )


def global_time(time) -> list[int]:
    """Pack a global time as its two packets."""
    clock = time // CLOCK
    return [0x44 << 56 | (clock % 2**32) << 16, 0x45 << 56 | (clock >> 32) << 16]


def chunk(chip, words, size=None) -> list[int]:
    """Put the header in front of the packets of a chip."""
    return [(8 * len(words) if size is None else size) << 48 | chip << 32 | 0x33585054, *words]


def write(path, words):
    """Write words as a file."""
    path.write_bytes(np.array(words, "<u8").tobytes())
    return path


def lines(scan_shape, hits, *, dwell, period, start=0, kind="tdc1_rising", first=2, chips=1):
    """Write the stream of a scan whose lines begin with an edge, a chunk per chip and line.

    Parameters
    ----------
    scan_shape
        Lines and columns.
    hits
        (position, chip, column, row, units after the beginning of the position), positions rising.
    dwell, period
        Of a position and of a line.
    """
    ny, nx = scan_shape
    words = []
    for y in range(ny):
        begin = start + y * period
        for chip in range(chips):
            mine = [one for one in hits if one[0] // nx == y and one[1] == chip]
            packed = [hit(column, row, _whole(begin + (at % nx) * dwell + late)) for at, _, column, row, late in mine]
            words += chunk(chip, [edge(kind, first + 2 * y, begin + chip), *packed])
    return words


def _whole(time):
    return -(-time // TICK) * TICK
