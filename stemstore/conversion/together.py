"""Shards of a new store that are made from one reading of an old one, whose chunks need not nest in them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stemstore.store.layout import DenseLayout

FEW = 4.0
"""Times that a chunk is decoded at most, on average, where the memory allows: what two cuts per scan axis cost."""


def shards_together(layout: DenseLayout, chunk: Sequence[int], room: int) -> tuple[int, ...]:
    """Choose how many shards along each scan axis are made from one reading.

    Chunks on the border of two readings are decoded by both. Where shards are whole numbers of chunks, one shard at a
    time decodes every chunk once.

    Parameters
    ----------
    layout
        Of the new store.
    chunk
        Extents along the scan axes of the chunks that are read.
    room : unit bytes
        Most that the frames of one reading may take; one shard is read whatever it takes.

    Returns
    -------
    shards
        Per scan axis; of all that fit the choice with the fewest decoded chunks, of these the smallest.
    """
    best = (1,) * len(layout.scan_shape)
    least = _decoded(layout, chunk, best), bytes_together(layout, best)
    for several in itertools.product(*map(_multiples, layout.scan_shape, layout.shard, chunk)):
        effort = _decoded(layout, chunk, several), bytes_together(layout, several)
        if effort[1] <= room and effort < least:
            best, least = several, effort
    return best


def times_decoded(layout: DenseLayout, chunk: Sequence[int], shards: Sequence[int]) -> float:
    """How often a chunk is decoded, on average, where so many shards along each scan axis are read together."""
    n_chunks = math.prod(-(-n // c) for n, c in zip(layout.scan_shape, chunk, strict=True))
    return _decoded(layout, chunk, shards) / n_chunks


def bytes_together(layout: DenseLayout, shards: Sequence[int]) -> int:
    """Bytes of the frames of so many shards along each scan axis."""
    frames = math.prod(min(n, k * s) for n, s, k in zip(layout.scan_shape, layout.shard, shards, strict=False))
    return frames * math.prod(layout.shape[-2:]) * np.dtype(layout.dtype).itemsize


def readings(layout: DenseLayout, indices: Sequence[int], shards: Sequence[int]) -> Iterator[list[int]]:
    """Sort partitions into those that are made from one reading, in the order of their first ones."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index in indices:
        place = layout.place(index)
        found.setdefault(tuple(at // n for at, n in zip(place, shards, strict=False)), []).append(index)
    yield from found.values()


def box_of(parts: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """Smallest rectangle of the scan that holds all of these."""
    return tuple(
        slice(min(one.start for one in axis), max(one.stop for one in axis)) for axis in zip(*parts, strict=True)
    )


def _decoded(layout: DenseLayout, chunk: Sequence[int], shards: Sequence[int]) -> int:
    """Chunks that all readings decode together."""
    axes = zip(layout.scan_shape, layout.shard, chunk, shards, strict=False)
    return math.prod(_pieces(n, c, k * s) for n, s, c, k in axes)


def _pieces(n: int, a: int, b: int) -> int:
    """Pieces of an axis that is cut at multiples of `a` and of `b`."""
    return -(-n // a) + -(-n // b) - -(-n // math.lcm(a, b))


def _multiples(n: int, shard: int, chunk: int) -> list[int]:
    """Shards along an axis worth trying: a few, powers of two, whole chunks, and all."""
    most = -(-n // shard)
    powers = (1 << k for k in range(most.bit_length()))
    return sorted(k for k in {3, math.lcm(shard, chunk) // shard, -(-chunk // shard), most, *powers} if k <= most)
