"""Chunks and shards as a user wants them: checked, and completed where nothing was said."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from stemstore.config import format_size
from stemstore.errors import ChunkingError
from stemstore.store.layout import (
    GAP_BYTES,
    MAX_SHARD_BYTES,
    DenseLayout,
    check_shape,
    counted_layout,
    dense_layout,
    expected_slots,
    scan_extents,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.store.layout import CountedLayout

LayoutName = Literal["frames", "tiled"]
NAMES = get_args(LayoutName)

CUT = ("layout", "chunks", "shards")
"""Names of the options that make a `Cut`, in the order of `Cut.of`."""

TILE, TILE_SIDE = 64, 8
"""Detector pixels along each side of a tile, and positions along each scan axis that share one (store format)."""

LARGEST_CHUNK = 32 * 2**20
"""Bytes of a chunk, which every look at one of its pixels decodes."""

MOST_CHUNKS = 2**16
"""Chunks of a shard: its index, read before any of them, is a megabyte then."""

_EVENTS = "counted stores hold events, which are cut into runs of frames"


@dataclass(frozen=True, slots=True)
class Cut:
    """How a store is to be cut; what is None is chosen.

    Made by `of`, which checks what can be checked without the scan.

    Attributes
    ----------
    layout
        ``"frames"``: whole frames of some positions share a chunk. ``"tiled"``: 64 x 64 pixels of 8 x 8 positions.
    chunks, shards
        Extents along all axes, of a shard those of the scan suffice; of events one number each, the frames.
    """

    layout: LayoutName | None = None
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None

    @classmethod
    def of(cls, layout: Any = None, chunks: int | Sequence[int] | None = None, shards: Any = None) -> Cut:
        """Take what a user gave.

        Raises
        ------
        ChunkingError
            There is no such layout, a layout and chunks are both given, an extent is no whole number above zero, or a
            shard is no whole number of chunks.
        """
        if layout is not None and layout not in NAMES:
            msg = f"layout={layout!r} is not known; choose from {', '.join(NAMES)}, or give chunks"
            raise ChunkingError(msg, key="layout", found=layout)
        if layout is not None and chunks is not None:
            msg = f"layout={layout!r} and chunks={chunks!r} exclude each other; leave one out"
            raise ChunkingError(msg, key="layout", found=layout)
        cut = cls(layout, _extents(chunks, "chunks"), _extents(shards, "shards"))
        if cut.chunks is not None and cut.shards is not None:
            _check_multiple(cut.shards, cut.chunks)
        return cut

    @property
    def given(self) -> dict[str, Any]:
        """What was stated, by name, as JSON values."""
        named = {"layout": self.layout, "chunks": self.chunks, "shards": self.shards}
        return {name: list(one) if isinstance(one, tuple) else one for name, one in named.items() if one is not None}

    def dense(
        self,
        scan_shape: tuple[int, ...],
        frame_shape: tuple[int, int],
        dtype: Any,
        *,
        profile: str,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> DenseLayout:
        """Lay frames out.

        Extents beyond an axis are cut to it. A shard always holds whole frames: whoever writes one sums them up too.

        Parameters
        ----------
        scan_shape, frame_shape, dtype, profile, max_shard_bytes
            As in `dense_layout`.

        Raises
        ------
        ChunkingError
            Chunks or shards do not fit the axes, each other or their limits.
        """
        kind = check_shape(scan_shape, frame_shape, np.dtype(dtype))
        limit = min(max_shard_bytes, MAX_SHARD_BYTES)
        if not self.shards and not self.chunks and self.layout != "tiled":
            return dense_layout(scan_shape, frame_shape, kind, profile=profile, max_shard_bytes=limit)
        shape = (*scan_shape, *frame_shape)
        chunk = self._chunk(scan_shape, frame_shape, kind, limit)
        n_bytes = math.prod(chunk) * kind.itemsize
        if n_bytes > LARGEST_CHUNK:
            msg = (
                f"a chunk of {_by(chunk)} {kind.name} takes {format_size(n_bytes)}, more than the "
                f"{format_size(LARGEST_CHUNK)} that one look may decode; use smaller chunks"
            )
            raise ChunkingError(msg, key="chunks", found=n_bytes, expected=LARGEST_CHUNK)
        shard = self._shard(shape, chunk, kind, limit)
        _check_shard(shard, chunk, kind, limit)
        layout = DenseLayout(shape, kind.name, chunk, shard, profile)
        _ = layout.codec  # an unknown profile is refused here
        return layout

    def counted(
        self,
        scan_shape: tuple[int, ...],
        frame_shape: tuple[int, int],
        events_per_frame: float,
        *,
        profile: str,
        raw_bytes_per_frame: int | None = None,
    ) -> CountedLayout:
        """Lay events out; parameters as in `counted_layout`.

        Raises
        ------
        ChunkingError
            A layout of frames was asked for, or a shard of so many frames is too large.
        """
        if self.layout is not None:
            msg = f"layout={self.layout!r} is for frames; {_EVENTS}: give chunks= (frames of a block) or nothing"
            raise ChunkingError(msg, key="layout", found=self.layout)
        block, shard = (
            _one(self.chunks, "chunks", "frames of a block"),
            _one(self.shards, "shards", "frames of a shard"),
        )
        layout = counted_layout(
            scan_shape,
            frame_shape,
            events_per_frame,
            profile=profile,
            raw_bytes_per_frame=raw_bytes_per_frame,
            frames_per_block=block,
            frames_per_shard=shard,
        )
        frames = min(layout.frames_per_block * layout.blocks_per_shard, layout.n_frames)
        n_bytes = int(frames * expected_slots(events_per_frame, frame_shape) * GAP_BYTES)
        if self.given and n_bytes > MAX_SHARD_BYTES:
            msg = (
                f"a shard of {frames} frames is expected to hold {format_size(n_bytes)} of events, more than "
                f"{format_size(MAX_SHARD_BYTES)}; give fewer frames as chunks= or shards="
            )
            raise ChunkingError(msg, key="shards", found=n_bytes, expected=MAX_SHARD_BYTES)
        return layout

    def _chunk(
        self, scan_shape: tuple[int, ...], frame_shape: tuple[int, int], kind: np.dtype[Any], limit: int
    ) -> tuple[int, ...]:
        """Extents of a chunk, none far beyond its axis."""
        if self.chunks is not None:
            shape = (*scan_shape, *frame_shape)
            _check_axes(self.chunks, "chunks", (len(shape),), shape)
            within = (*(1 << (n - 1).bit_length() for n in scan_shape), *frame_shape)
            return tuple(min(c, n) for c, n in zip(self.chunks, within, strict=True))
        if self.layout == "tiled":
            return _tile(scan_shape, frame_shape, kind, limit)
        return dense_layout(scan_shape, frame_shape, kind, max_shard_bytes=limit).chunk

    def _shard(
        self, shape: tuple[int, ...], chunk: tuple[int, ...], kind: np.dtype[Any], limit: int
    ) -> tuple[int, ...]:
        """Extents of a shard, in whole chunks, none beyond its axis by more than a chunk."""
        cover = tuple(c * -(-n // c) for c, n in zip(chunk, shape, strict=True))
        if self.shards is None:
            return _grown(chunk[:-2], cover[:-2], _most_frames(chunk, cover[-2:], kind, limit)) + cover[-2:]
        _check_axes(self.shards, "shards", (len(shape), len(shape) - 2), shape)
        detector = self.shards[len(shape) - 2 :]
        if any(s < n for s, n in zip(detector, shape[-2:], strict=False)):
            msg = (
                f"shards={_by(self.shards)} cut frames of {_by(shape[-2:])}; a shard is written at once from whole "
                "frames: give its extents along the scan axes only, and cut the detector by chunks="
            )
            raise ChunkingError(msg, key="shards", found=self.shards)
        if self.chunks is None:
            _check_multiple(self.shards[: len(shape) - 2], chunk[: len(shape) - 2])
        scan = zip(self.shards, cover[:-2], strict=False)
        return tuple(min(s, n) for s, n in scan) + cover[-2:]


def _extents(given: Any, name: str) -> tuple[int, ...] | None:
    """Take one number or several."""
    if given is None:
        return None
    several = list(given) if hasattr(given, "__iter__") else [given]
    try:
        found = tuple(operator.index(one) for one in several)
    except TypeError:
        found = ()
    if not found or min(found) < 1 or any(isinstance(one, bool) for one in several):
        msg = f"{name}={given!r} are no extents; give whole numbers above zero, one for each axis (y, x, ky, kx)"
        raise ChunkingError(msg, key=name, found=repr(given))
    return found


def _check_multiple(shard: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    if any(s % c for s, c in zip(shard, chunk, strict=False)):
        msg = f"shards={_by(shard)} are no whole number of chunks of {_by(chunk)}; choose multiples along every axis"
        raise ChunkingError(msg, key="shards", found=shard, expected=chunk)


def _check_axes(given: tuple[int, ...], name: str, lengths: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(given) not in lengths:
        wanted = " or ".join(str(n) for n in lengths)
        msg = f"{name}={_by(given)} have {len(given)} extents, expected {wanted}: the frames are {_by(shape)}"
        raise ChunkingError(msg, key=name, found=given, expected=shape)


def _check_shard(shard: tuple[int, ...], chunk: tuple[int, ...], kind: np.dtype[Any], limit: int) -> None:
    n_bytes = math.prod(shard) * kind.itemsize
    if n_bytes > limit:
        msg = (
            f"a shard of {_by(shard)} {kind.name} takes {format_size(n_bytes)}, more than one may hold "
            f"({format_size(limit)}); use smaller chunks or shards, or allow more memory (up to "
            f"{format_size(MAX_SHARD_BYTES)} a shard)"
        )
        raise ChunkingError(msg, key="shards", found=n_bytes, expected=limit)
    n_chunks = math.prod(s // c for s, c in zip(shard, chunk, strict=True))
    if n_chunks > MOST_CHUNKS:
        msg = (
            f"a shard of {_by(shard)} has {n_chunks} chunks of {_by(chunk)}, at most {MOST_CHUNKS} keep its index "
            "small; use larger chunks or smaller shards"
        )
        raise ChunkingError(msg, key="chunks", found=n_chunks, expected=MOST_CHUNKS)


def _one(given: tuple[int, ...] | None, name: str, what: str) -> int | None:
    if given is None:
        return None
    if len(given) != 1:
        msg = f"{name}={_by(given)} are extents of frames; {_EVENTS}: give one number, the {what}"
        raise ChunkingError(msg, key=name, found=given)
    return given[0]


def _tile(
    scan_shape: tuple[int, ...], frame_shape: tuple[int, int], kind: np.dtype[Any], limit: int
) -> tuple[int, ...]:
    """Chunk of the layout ``"tiled"``; of fewer positions where whole frames of so many would not fit a shard."""
    tile = tuple(min(TILE, n) for n in frame_shape)
    frame = math.prod(t * -(-n // t) for t, n in zip(tile, frame_shape, strict=True)) * kind.itemsize
    side = TILE_SIDE
    while side > 1 and side * side * frame > limit:
        side //= 2
    return scan_extents(scan_shape, side) + tile


def _most_frames(chunk: tuple[int, ...], detector: tuple[int, ...], kind: np.dtype[Any], limit: int) -> int:
    """Frames that a shard may hold by its bytes and by the size of its index."""
    tiles = math.prod(n // c for n, c in zip(detector, chunk[-2:], strict=True))
    by_bytes = limit // (math.prod(detector) * kind.itemsize)
    return min(by_bytes, MOST_CHUNKS // max(1, tiles) * math.prod(chunk[:-2]))


def _grown(chunk: tuple[int, ...], cover: tuple[int, ...], frames: int) -> tuple[int, ...]:
    """Double a chunk along the last two scan axes, the shorter side first, up to a number of frames.

    `cover` is where an axis ends, in whole chunks.
    """
    shard = list(chunk)
    axes = range(len(shard))[-2:]
    while True:
        wider = {axis: min(2 * shard[axis], cover[axis]) for axis in axes if shard[axis] < cover[axis]}
        fits = [axis for axis, extent in wider.items() if math.prod(shard) // shard[axis] * extent <= frames]
        if not fits:
            return tuple(shard)
        axis = min(fits, key=lambda axis: (shard[axis], -axis))
        shard[axis] = wider[axis]


def _by(extents: tuple[int, ...]) -> str:
    return "x".join(map(str, extents))
