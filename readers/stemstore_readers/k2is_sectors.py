"""Files of a Gatan K2 IS camera: where the frames of each sector lie, and which of them all sectors have.

A file is a row of blocks of 22360 bytes, big-endian headers and pixels of 12 bit:

======  ======  ==================================================
byte    type    content
======  ======  ==================================================
0       uint32  sync word 0xFFFF0055
8       uint8   version
9       uint8   flags; bit 0: shutter active
16      uint32  number of the block, counts up over the file
20, 22  uint16  width 256, height 1860 of a sector
24      uint32  number of the frame
28, 30  uint16  first column and row of the block in its sector
32, 34  uint16  last ones, inclusive
36      uint32  22360
40              930 rows of 16 pixels, two in three bytes
======  ======  ==================================================

The 32 blocks of a frame come from right to left, upper row first. Files start and end inside a frame, each at another
block. Source: LiberTEM (``src/libertem/io/dataset/k2is.py``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import CorruptDataError, SectorMismatchError, TruncatedFileError
from stemstore.sources.files import unreadable
from stemstore.sources.geometry import check_missing
from stemstore.sources.records import open_unbuffered

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from stemstore._types import Array, Int64Array
    from stemstore.sources.ranged import RangedFile
    from stemstore.sources.remote import Place

BLOCK_BYTES, HEADER_BYTES = 0x5758, 40
BLOCK_ROWS, BLOCK_COLUMNS = 930, 16
BLOCKS = 32
"""Blocks of one sector of one frame: two rows of sixteen."""

N_SECTORS = 8
SECTOR_SHAPE = (2 * BLOCK_ROWS, 16 * BLOCK_COLUMNS)
SECTOR_BYTES = BLOCKS * BLOCK_BYTES
SYNC = b"\xff\xff\x00\x55"

MAX_RUNS = 1000
"""Places in a file where blocks may be missing or damaged; a file with more is beyond use."""

SEARCH_BYTES = 2**24
"""How far the next block is searched for behind a damaged one; longer damage ends the file."""

_HEADER = np.dtype(
    {
        "names": ["sync", "flags", "count", "width", "height", "frame", "x", "y", "size"],
        "formats": ["S4", "u1", ">u4", ">u2", ">u2", ">u4", ">u2", ">u2", ">u4"],
        "offsets": [0, 9, 16, 20, 22, 24, 28, 30, 36],
        "itemsize": HEADER_BYTES,
    }
)
_MIDDLE = BLOCKS // 2 - 1  # blocks of a row are counted from the right


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What the header of a block says: its number, its frame, its place in the frame's order, and the shutter."""

    count: int
    frame: int
    place: int
    shutter: bool


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks that follow each other without a gap: first byte, number of blocks, and the header of the first."""

    offset: int
    length: int
    first: BlockHeader

    @property
    def frames(self) -> tuple[int, int]:
        """Numbers of the first frame that the run holds as a whole, and of the one behind the last."""
        start = self.first.frame + bool(self.first.place)
        return start, max(start, self.first.frame + (self.first.place + self.length) // BLOCKS)

    def offset_of(self, frame: int) -> int:
        """Byte where a frame starts."""
        return self.offset + ((frame - self.first.frame) * BLOCKS - self.first.place) * BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames that lie in the files: number of the first, and the byte of each in each sector, -1 where it is lost."""

    first: int
    offsets: Int64Array
    warnings: list[str]


def parse_header(content: bytes) -> BlockHeader | None:
    """Read a block header; None where the bytes are none."""
    if len(content) < HEADER_BYTES or not content.startswith(SYNC):
        return None
    head = np.frombuffer(content, _HEADER, 1)[0]
    if (int(head["height"]), int(head["width"])) != SECTOR_SHAPE or head["size"] != BLOCK_BYTES:
        return None
    x, left = divmod(int(head["x"]), BLOCK_COLUMNS)
    y, above = divmod(int(head["y"]), BLOCK_ROWS)
    if left or above or x > _MIDDLE or y > 1:
        return None
    place = _MIDDLE - x + y * (BLOCKS // 2)
    return BlockHeader(int(head["count"]), int(head["frame"]), place, bool(head["flags"] & 1))


def read_header(path: Place, offset: int) -> BlockHeader | None:
    """Read the header at a byte of a file; None where there is none."""
    with open_unbuffered(path) as file:
        return parse_header(_read(file, offset, HEADER_BYTES))


def _read(file: io.FileIO | RangedFile, offset: int, length: int) -> bytes:
    try:
        file.seek(offset)
        return file.read(length) or b""
    except OSError as error:
        raise unreadable(str(file.name), error) from error


def find_runs(path: Place, size: int) -> tuple[list[Run], list[str]]:
    """Find the blocks of one file, looking at few of them.

    Block numbers, frame numbers and places go up together. Where a block far behind still has what the first one
    predicts, nothing is missing in between; else the place of the gap is found by halving.

    Returns
    -------
    runs, warnings

    Raises
    ------
    TruncatedFileError
        The file holds no whole block.
    CorruptDataError
        It does not start with a block, or is damaged in more than `MAX_RUNS` places.
    """
    if size < BLOCK_BYTES:
        msg = f"file {str(path)!r} has {size} bytes and holds no whole block of {BLOCK_BYTES}; copy it again"
        raise TruncatedFileError(msg, url=str(path), found=size, expected=BLOCK_BYTES)
    runs: list[Run] = []
    warnings: list[str] = []
    at = 0
    with open_unbuffered(path) as file:
        while at + BLOCK_BYTES <= size:
            first = parse_header(_read(file, at, HEADER_BYTES))
            if first is None:
                if not runs:
                    msg = f"file {str(path)!r} does not start with a K2 IS block, expected the sync word 0xFFFF0055"
                    raise CorruptDataError(msg + "; it is damaged or no file of this camera", url=str(path), byte=0)
                found = _next_block(file, at + 1, size)
                warnings.append(f"file {str(path)!r} is damaged from byte {at} to {found}; the blocks there are lost")
                at = found
                continue
            runs.append(Run(at, _length(file, at, first, (size - at) // BLOCK_BYTES), first))
            at += runs[-1].length * BLOCK_BYTES
            if len(runs) > MAX_RUNS:
                msg = f"file {str(path)!r} is damaged in more than {MAX_RUNS} places; copy it again or leave it out"
                raise CorruptDataError(msg, url=str(path), byte=at)
    if at < size:
        warnings.append(f"file {str(path)!r} ends with {size - at} bytes of a block that was cut")
    return runs, warnings + _gaps(path, runs)


def _length(file: io.FileIO | RangedFile, at: int, first: BlockHeader, most: int) -> int:
    """Count the blocks from byte `at` on that go on from the first one."""

    def fits(number: int) -> bool:
        head = parse_header(_read(file, at + number * BLOCK_BYTES, HEADER_BYTES))
        if head is None or head.count != first.count + number:
            return False
        return (head.frame - first.frame) * BLOCKS + head.place - first.place == number

    if fits(most - 1):
        return most
    good, bad = 0, most - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good + 1


def _next_block(file: io.FileIO | RangedFile, start: int, size: int) -> int:
    """Find the first block from byte `start` on; the end of the file where none is near."""
    step = 2**20
    for at in range(start, min(start + SEARCH_BYTES, size), step):
        content = _read(file, at, step + HEADER_BYTES)
        found = content.find(SYNC)
        while found >= 0:
            if parse_header(content[found : found + HEADER_BYTES]) is not None:
                return at + found
            found = content.find(SYNC, found + 1)
    return size


def _gaps(path: Place, runs: list[Run]) -> list[str]:
    lost = sum(
        max(after.first.count - before.first.count - before.length, 0) for before, after in itertools.pairwise(runs)
    )
    return [f"{lost} blocks are missing in file {str(path)!r}"] if lost else []


def after_reset(path: Place, runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Leave out frames in front of a place where frame numbers start anew: they are of an earlier acquisition."""
    for number in range(len(runs) - 1, 0, -1):
        if runs[number].first.frame < runs[number - 1].first.frame:
            text = f"frames in {str(path)!r} before byte {runs[number].offset} belong to an earlier acquisition"
            return runs[number:], [f"{text} and are left out: their numbers are higher"]
    return runs, []


def common_frames(runs: list[list[Run]]) -> Frames:
    """Find the frames from the first to the last that the sectors have in common.

    Sectors start and end inside a frame, so that one frame at either end is not whole. A sector that ends earlier was
    cut: the frames behind are kept, without it.

    Parameters
    ----------
    runs
        Of each sector; empty for one without a file.

    Raises
    ------
    SectorMismatchError
        The sectors have no frame in common.
    CorruptDataError
        Next to nothing of the frames is there.
    """
    spans = [(part[0].frames[0], part[-1].frames[1]) for part in runs if part]
    first, stops = max(start for start, _ in spans), [stop for _, stop in spans]
    if first >= min(stops):
        held = ", ".join(f"{start} to {stop - 1}" for start, stop in spans)
        msg = (
            f"the sectors have no frame in common: they hold the frames {held}; the files belong to different "
            "acquisitions or are too short"
        )
        raise SectorMismatchError(msg, found=spans)
    warnings = []
    stop = min(stops)
    if max(stops) > stop + 1:
        stop = max(stops)
        warnings.append(f"sectors end at different frames ({min(stops) - 1} to {stop - 1}): files were cut")
    n_found = sum(b - a for a, b in (run.frames for part in runs for run in part))
    check_missing((stop - first,), n_found)
    offsets = np.full((stop - first, len(runs)), -1, np.int64)
    for sector, part in enumerate(runs):
        for run in part:
            start, end = max(run.frames[0], first), min(run.frames[1], stop)
            if start < end:
                place = run.offset_of(start) + np.arange(end - start, dtype=np.int64) * BLOCKS * BLOCK_BYTES
                offsets[start - first : end - first, sector] = place
    return Frames(first, offsets, warnings)


def unpack_sector(blocks: Array, frame: int, left: int, out: Array) -> int:
    """Put the pixels of one sector of one frame where the headers of its blocks say.

    Parameters
    ----------
    blocks : shape (715520,), uint8
        As the file holds them.
    frame
        Number that the headers must state.
    left
        First column of the sector.
    out : shape (1860, 2048), uint16
        The frame.

    Returns
    -------
    wrong
        The first block that is damaged, of another frame or at the place of an earlier one; -1 when all is well, and
        only then `out` is filled.
    """
    from stemstore.kernels.packed12 import place_blocks

    table = blocks.reshape(BLOCKS, BLOCK_BYTES)
    heads = np.ascontiguousarray(table[:, :HEADER_BYTES]).view(_HEADER)[:, 0]
    lefts, tops = heads["x"].astype(np.int64), heads["y"].astype(np.int64)
    good = (heads["sync"] == SYNC) & (heads["frame"] == frame) & (lefts % BLOCK_COLUMNS == 0) & (tops % BLOCK_ROWS == 0)
    good &= (lefts < SECTOR_SHAPE[1]) & (tops < SECTOR_SHAPE[0])
    _, first = np.unique(tops * SECTOR_SHAPE[1] + lefts, return_index=True)
    again = np.ones(BLOCKS, np.bool_)
    again[first] = False
    if again.any() or not good.all():
        return int(np.flatnonzero(again | ~good)[0])
    place_blocks(table, tops, left + lefts, (BLOCK_ROWS, BLOCK_COLUMNS), out, skip=HEADER_BYTES)
    return -1


def first_exposed(n_frames: int, exposed: Callable[[int], bool]) -> int | None:
    """Find the first frame with an open shutter by halving: once open it stays open; None where it never opens."""
    if not exposed(n_frames - 1):
        return None
    shut, opened = -1, n_frames - 1
    while opened - shut > 1:
        middle = (shut + opened) // 2
        shut, opened = (shut, middle) if exposed(middle) else (middle, opened)
    return opened
