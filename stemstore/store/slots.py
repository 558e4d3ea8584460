"""Events of a block as slots of ``events/gap``: checks, chunks, and how often one pixel was hit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, UInt16Array, UInt32Array
    from stemstore.store.layout import CountedLayout

ESCAPE = 65535
"""Gap that carries no event: add it and go on."""


def check_blocks(layout: CountedLayout, index: int, blocks: Sequence[tuple[UInt16Array, UInt32Array]]) -> None:
    """Make sure that blocks fit a partition of a layout.

    Raises
    ------
    InputError
        Their number, the type of the gaps or the sums of the slots are wrong.
    """
    ranges = layout.blocks(index)
    if len(blocks) != len(ranges):
        msg = f"partition {index} got {len(blocks)} blocks, expected {len(ranges)}: one per range of layout.blocks"
        raise InputError(msg, partition=index, found=len(blocks), expected=len(ranges))
    for (start, stop), (gap, slots) in zip(ranges, blocks, strict=True):
        if gap.dtype != np.uint16 or len(slots) != stop - start or int(slots.sum(dtype=np.int64)) != len(gap):
            msg = (
                f"the block of frames {start}..{stop - 1} got {len(gap)} gaps {gap.dtype.name} and "
                f"{len(slots)} counts that sum to {slots.sum(dtype=np.int64)}; expected uint16 gaps and one count "
                "per frame that sum to their number. Use kernels.events.encode"
            )
            raise InputError(msg, partition=index, frame=start)


def max_multiplicity(gap: UInt16Array, n_slots: UInt32Array) -> int:
    """Most events that share one pixel of one frame: one more than the longest run of repeating gaps 0.

    A gap 0 that opens a frame, or follows an escape, is the first event at its pixel and repeats nothing.
    """
    if not np.any(gap != ESCAPE):
        return 0
    repeats = gap == 0
    starts = np.cumsum(n_slots[:-1], dtype=np.int64)
    repeats[0] = False
    repeats[starts[starts < len(gap)]] = False
    repeats[1:] &= gap[:-1] != ESCAPE
    where = np.flatnonzero(repeats)
    if not len(where):
        return 1
    borders = np.flatnonzero(np.diff(where) > 1) + 1
    edges = np.concatenate(([0], borders, [len(where)]))
    return 1 + int(np.diff(edges).max())


def encode_slots(layout: CountedLayout, slots: Array, column: int) -> bytes | None:
    """Encode chunk `column` of the gaps or other values of a block, padded with zeros; the first is always there."""
    width = layout.slots_per_chunk
    piece = slots[column * width : (column + 1) * width]
    if column and not len(piece):
        return None
    padded = np.zeros(width, slots.dtype.newbyteorder("<"))
    padded[: len(piece)] = piece
    return replace(layout.codec, itemsize=padded.dtype.itemsize).encode(padded)
