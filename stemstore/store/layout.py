"""How a scan is cut into chunks and shards: pure functions of its shape.

The unit that is decoded is an inner chunk of about two megabytes, the unit that is written is a shard: one object, made
by one writer, once. Budgets are those of a laptop: a chunk stays near the processor's cache and a shard fits in memory.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.config import format_size
from stemstore.errors import ChunkingError, InputError
from stemstore.store.codecs import ChunkCodec, frame_codec, gap_codec

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CHUNK_BYTES = 4 * 2**20
"""Largest inner chunk of frames: larger ones leave the second-level cache between decoding and use."""

MAX_SHARD_BYTES = 128 * 10**6
"""Largest shard before compression; the most that one writer holds."""

BLOCK_EVENTS = 2**20
"""Events of one block of a counted scan: decoded in about a millisecond."""

HEADROOM = 1.15
"""Slots per chunk over the expected ones, so that a denser part of the scan seldom needs a second chunk."""

MAX_EVENT_SHARD = 64 * 10**6
"""Expected compressed bytes of a shard of events."""

GAP_BYTES = 2
"""A gap is a uint16."""

MAX_RAW_BYTES = 4 * 2**30
"""Raw frames behind one shard of events: bounds the work that is lost with a killed writer."""

_BITS = {"fast": 9.4, "balanced": 8.4, "small": 8.2, "raw": 16.0}  # per event, 576 x 576 frames of 1900 electrons
_DETECTOR = 2


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """Chunks and shards of a scan that is stored as frames.

    Attributes
    ----------
    shape
        Scan axes, detector rows, detector columns.
    dtype
        Name of the pixel type, e.g. ``"uint16"``; values are stored little-endian.
    chunk, shard
        Extents along every axis; a shard is a whole number of chunks.
    profile
        ``"fast"``, ``"balanced"``, ``"small"`` or ``"raw"``.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    profile: str

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Extents of the scan axes."""
        return self.shape[:-_DETECTOR]

    @property
    def codec(self) -> ChunkCodec:
        """Codec of the inner chunks."""
        return frame_codec(self.profile, np.dtype(self.dtype).itemsize)

    @property
    def shard_grid(self) -> tuple[int, ...]:
        """Number of shards along every axis."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))

    @property
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Number of inner chunks of a shard along every axis."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def n_partitions(self) -> int:
        """Number of shards."""
        return math.prod(self.shard_grid)

    @property
    def partitions(self) -> list[tuple[slice, ...]]:
        """Scan slices of every shard, in the order of their numbers."""
        return [self.partition(index) for index in range(self.n_partitions)]

    def place(self, index: int) -> tuple[int, ...]:
        """Place of shard `index` in the grid of shards, detector axes included.

        Raises
        ------
        InputError
            There is no such shard.
        """
        check_number(index, self.n_partitions)
        return tuple(int(along) for along in np.unravel_index(index, self.shard_grid))

    def partition(self, index: int) -> tuple[slice, ...]:
        """Scan slices of shard `index`; errors as for `place`."""
        return tuple(
            slice(at * step, min((at + 1) * step, n))
            for at, step, n in zip(self.place(index), self.shard, self.scan_shape, strict=False)
        )


@dataclass(frozen=True, slots=True)
class CountedLayout:
    """Blocks, chunks and shards of a scan that is stored as events.

    Attributes
    ----------
    scan_shape, frame_shape
        Extents of the scan axes and of the detector.
    frames_per_block
        Consecutive frames (C order) whose events share one row of ``events/gap``.
    slots_per_chunk
        Width of a chunk; a block that needs more takes further chunks of its row.
    blocks_per_shard
        Rows of a shard.
    profile
        ``"fast"``, ``"balanced"``, ``"small"`` or ``"raw"``.
    columns
        Name and dtype of arrays that hold a further value for every slot.
    """

    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    frames_per_block: int
    slots_per_chunk: int
    blocks_per_shard: int
    profile: str
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def n_frames(self) -> int:
        """Number of scan positions."""
        return math.prod(self.scan_shape)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.n_frames // self.frames_per_block)

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot before compression: its gap, and what columns add."""
        return GAP_BYTES + sum(np.dtype(dtype).itemsize for _, dtype in self.columns)

    @property
    def codec(self) -> ChunkCodec:
        """Codec of the gaps."""
        return gap_codec(self.profile)

    @property
    def n_partitions(self) -> int:
        """Number of rows of shards."""
        return -(-self.n_blocks // self.blocks_per_shard)

    @property
    def partitions(self) -> list[tuple[int, int]]:
        """Range of flat scan positions of every row of shards, in the order of their numbers."""
        return [self.partition(index) for index in range(self.n_partitions)]

    def partition(self, index: int) -> tuple[int, int]:
        """Range of flat scan positions of row of shards `index`.

        Raises
        ------
        InputError
            There is no such row.
        """
        check_number(index, self.n_partitions)
        step = self.frames_per_block * self.blocks_per_shard
        return index * step, min((index + 1) * step, self.n_frames)

    def blocks(self, index: int) -> list[tuple[int, int]]:
        """Range of flat scan positions of every block of partition `index`."""
        start, stop = self.partition(index)
        return [
            (first, min(first + self.frames_per_block, stop)) for first in range(start, stop, self.frames_per_block)
        ]


Layout = DenseLayout | CountedLayout


def dense_layout(
    scan_shape: tuple[int, ...],
    frame_shape: tuple[int, int],
    dtype: Any,
    *,
    profile: str = "fast",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> DenseLayout:
    """Choose chunks and shards for frames.

    A chunk spans c x c positions of the last two scan axes (c * c of a single one, 1 on a leading axis of repeated
    frames) with c the largest power of two whose frames fit `MAX_CHUNK_BYTES`. Larger frames are cut instead.

    Parameters
    ----------
    scan_shape, frame_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)``, and detector rows and columns.
    dtype
        Pixel type; integers or floats of at most 8 bytes.
    profile
        Codec: ``"fast"`` (LZ4), ``"balanced"`` or ``"small"`` (Zstandard), ``"raw"`` (none).
    max_shard_bytes
        Largest shard before compression.

    Raises
    ------
    ChunkingError
        Empty axes, a pixel type that cannot be stored, or a frame larger than a shard may be.
    """
    kind = check_shape(scan_shape, frame_shape, np.dtype(dtype))
    frame_bytes = math.prod(frame_shape) * kind.itemsize
    limit = min(max_shard_bytes, MAX_SHARD_BYTES)
    detector = _detector_chunk(frame_shape, kind.itemsize)
    covered = tuple(c * -(-n // c) for c, n in zip(detector, frame_shape, strict=True))
    stored_bytes = math.prod(covered) * kind.itemsize  # a cut frame is padded to whole chunks
    if stored_bytes > limit:
        msg = (
            f"a frame of {frame_shape} {kind.name} takes {format_size(stored_bytes)}, more than a shard may hold "
            f"({format_size(limit)}); allow more memory or bin the detector"
        )
        raise ChunkingError(msg, found=stored_bytes, expected=limit)
    side = _power_of_two(min(MAX_CHUNK_BYTES, limit) // frame_bytes) if detector == frame_shape else 1
    shard_side = side * _power_of_two(limit // (side * side * stored_bytes))
    chunk = scan_extents(scan_shape, side)
    largest = scan_extents(scan_shape, shard_side)
    shard = tuple(min(s, c * -(-n // c)) for s, c, n in zip(largest, chunk, scan_shape, strict=True))
    layout = DenseLayout(scan_shape + frame_shape, kind.name, chunk + detector, shard + covered, profile)
    _ = layout.codec  # an unknown profile is refused here
    return layout


def counted_layout(
    scan_shape: tuple[int, ...],
    frame_shape: tuple[int, int],
    events_per_frame: float,
    *,
    profile: str = "fast",
    raw_bytes_per_frame: int | None = None,
    frames_per_block: int | None = None,
    frames_per_shard: int | None = None,
) -> CountedLayout:
    """Choose blocks, chunks and shards for events.

    Parameters
    ----------
    scan_shape, frame_shape
        As in `dense_layout`.
    events_per_frame
        Expected mean; a wrong guess costs size or further chunks, never data.
    profile
        Codec: ``"fast"`` (LZ4), ``"balanced"`` or ``"small"`` (Zstandard), ``"raw"`` (none).
    raw_bytes_per_frame
        Size of the frames that are counted; 2 bytes a pixel by default.
    frames_per_block, frames_per_shard
        Frames that share a block, and a shard, which holds whole blocks; chosen where they are left out.

    Raises
    ------
    ChunkingError
        Empty axes, an expected number of events that is not a number of at least zero, or a shard that is no whole
        number of blocks.
    """
    check_shape(scan_shape, frame_shape, np.dtype("u2"))
    if not (math.isfinite(events_per_frame) and events_per_frame >= 0):
        msg = f"expected events per frame is {events_per_frame!r}; give a number of at least 0"
        raise ChunkingError(msg, found=events_per_frame)
    raw_frame = raw_bytes_per_frame or 2 * math.prod(frame_shape)
    n_frames = math.prod(scan_shape)
    slots = expected_slots(events_per_frame, frame_shape)
    most = int(min(BLOCK_EVENTS / slots if slots else math.inf, MAX_RAW_BYTES / raw_frame, n_frames))
    per_block = min(frames_per_block or _frames_per_block(scan_shape, max(most, 1)), n_frames)
    expected = max(slots * per_block, 1.0)
    width = min(1024 * math.ceil(expected * HEADROOM / 1024), math.ceil(HEADROOM * BLOCK_EVENTS / 1024) * 1024)
    gap_codec(profile)  # an unknown profile is refused here
    n_blocks = -(-n_frames // per_block)
    if frames_per_shard is not None:
        per_shard = min(_whole_blocks(frames_per_shard, frames_per_block or per_block), n_blocks)
    else:
        fitting = min(MAX_EVENT_SHARD * 8 / (_BITS[profile] * expected), MAX_RAW_BYTES / (raw_frame * per_block))
        per_shard = _whole_rows(max(1, min(int(fitting), n_blocks)), scan_shape[-1], per_block)
    return CountedLayout(tuple(scan_shape), frame_shape, per_block, width, per_shard, profile)


def expected_slots(events_per_frame: float, frame_shape: tuple[int, int]) -> float:
    """Slots that a frame is expected to take: a far first event needs some that carry no event.

    Sparse frames consist of little else.
    """
    return events_per_frame + math.prod(frame_shape) / 65536 * events_per_frame / (1 + events_per_frame)


def check_shape(scan_shape: tuple[int, ...], frame_shape: tuple[int, int], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Make sure that frames can be stored; gives their pixel type in native byte order.

    Raises
    ------
    ChunkingError
        Empty axes, too many of them, or a pixel type that cannot be stored.
    """
    shape = (*scan_shape, *frame_shape)
    if not 1 <= len(scan_shape) <= 3 or len(frame_shape) != _DETECTOR or min(shape) < 1:  # noqa: PLR2004
        msg = (
            f"scan {scan_shape} of frames {frame_shape} cannot be laid out; expected one to three scan axes, none empty"
        )
        raise ChunkingError(msg, found=shape)
    if dtype.kind not in "uif" or dtype.itemsize > 8:  # noqa: PLR2004 - Zarr's core types end at 8 bytes
        msg = f"pixels of type {dtype} cannot be stored; expected integers or floats of at most 8 bytes"
        raise ChunkingError(msg, found=str(dtype))
    return dtype.newbyteorder("=")


def check_number(index: int, n_partitions: int) -> None:
    """Make sure that a partition exists.

    Raises
    ------
    InputError
        Its number is not one of ``0 … n_partitions - 1``.
    """
    if not 0 <= index < n_partitions:
        msg = f"partition {index} does not exist; expected a number from 0 to {n_partitions - 1}"
        raise InputError(msg, partition=index, expected=n_partitions)


def scan_extents(scan_shape: tuple[int, ...], side: int) -> tuple[int, ...]:
    """Spread side x side positions over the scan axes, not beyond the power of two that covers an axis."""
    wanted = (side * side,) if len(scan_shape) == 1 else (1,) * (len(scan_shape) - 2) + (side, side)
    return tuple(min(w, 1 << (n - 1).bit_length()) for w, n in zip(wanted, scan_shape, strict=True))


def dump_layout(layout: Layout) -> dict[str, Any]:
    """Write a layout as JSON."""
    return {"kind": "dense" if isinstance(layout, DenseLayout) else "counted", **asdict(layout)}


def load_layout(found: Mapping[str, Any]) -> Layout:
    """Read what `dump_layout` wrote."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    if "columns" in fields:
        fields["columns"] = tuple((name, dtype) for name, dtype in fields["columns"])
    kind = fields.pop("kind")
    return DenseLayout(**fields) if kind == "dense" else CountedLayout(**fields)


def _power_of_two(area: int) -> int:
    """Largest power of two whose square is at most `area`, at least 1."""
    side = 1
    while 4 * side * side <= area:
        side *= 2
    return side


def _detector_chunk(frame_shape: tuple[int, int], itemsize: int) -> tuple[int, int]:
    """Halve detector rows and columns in turn until the piece fits a chunk."""
    rows, columns = frame_shape
    by_rows = True
    while rows * columns * itemsize > MAX_CHUNK_BYTES:
        if (by_rows and rows > 1) or columns == 1:
            rows = -(-rows // 2)
        else:
            columns = -(-columns // 2)
        by_rows = not by_rows
    return rows, columns


def _frames_per_block(scan_shape: tuple[int, ...], most: int) -> int:
    """Whole scan rows, else a divisor of a row, else (where a row has no fitting divisor) any run of frames."""
    row = scan_shape[-1]
    if most >= row:
        return most // row * row
    divisor = max(piece for piece in range(1, most + 1) if row % piece == 0)
    return divisor if 2 * divisor >= most else most


def _whole_blocks(frames_per_shard: int, per_block: int) -> int:
    """Blocks of a shard of so many frames."""
    if frames_per_shard % per_block:
        msg = (
            f"a shard of {frames_per_shard} frames is no whole number of blocks of {per_block}; choose a multiple, or "
            "state the frames of a block as well"
        )
        raise ChunkingError(msg, found=frames_per_shard, expected=per_block)
    return frames_per_shard // per_block


def _whole_rows(n_blocks: int, row: int, per_block: int) -> int:
    """Lessen a number of blocks so that a shard holds whole scan rows or divides one, where blocks divide rows."""
    if per_block >= row or row % per_block:
        return n_blocks
    pieces = row // per_block
    if n_blocks >= pieces:
        return n_blocks - n_blocks % pieces
    return max(count for count in range(1, n_blocks + 1) if pieces % count == 0)
