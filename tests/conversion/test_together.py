"""Shards that are made from one reading: few readings of the same chunk, in the memory that there is."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.conversion.together import bytes_together, readings, shards_together, times_decoded
from stemstore.store.layout import DenseLayout

FRAME = (4, 4)


def layout(scan, shard):
    """Frames of 32 bytes in these shards."""
    return DenseLayout((*scan, *FRAME), "uint16", (1,) * len(scan) + FRAME, (*shard, *FRAME), "raw")


def decoded(scan, shard, chunk, together):
    """Count by hand how often all chunks are decoded together."""
    along = []
    for n, s, c, k in zip(scan, shard, chunk, together, strict=True):
        along.append(len({(i // c, i // (s * k)) for i in range(n)}))
    return math.prod(along)


scans = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3)


@settings(max_examples=60)
@given(scans, st.integers(1, 60_000))
def test_the_choice_fits_and_helps(axes, room):
    """A reading fits the room (one shard always does), counts as it says, and is no worse than single shards."""
    scan, shard, chunk = zip(*axes, strict=True)
    made = layout(scan, shard)
    several = shards_together(made, chunk, room)
    single = decoded(scan, shard, chunk, (1,) * len(scan))
    n_chunks = math.prod(-(-n // c) for n, c in zip(scan, chunk, strict=True))
    assert several == (1,) * len(scan) or bytes_together(made, several) <= room
    assert decoded(scan, shard, chunk, several) <= single
    assert times_decoded(made, chunk, several) == pytest.approx(decoded(scan, shard, chunk, several) / n_chunks)


@settings(max_examples=60)
@given(scans)
def test_four_times_at_most_in_room_for_chunk_and_shard(axes):
    """Where a shard and a chunk side by side fit along both axes, no chunk is cut more than once along an axis."""
    scan, shard, chunk = zip(*axes, strict=True)
    room = math.prod(2 * (s + c) for s, c in zip(shard, chunk, strict=True)) * 32
    several = shards_together(layout(scan, shard), chunk, room)
    assert times_decoded(layout(scan, shard), chunk, several) <= 2 ** len(scan)


def test_nested_pieces_are_read_one_by_one():
    """Shards of whole chunks decode every chunk once by themselves."""
    assert shards_together(layout((64, 64), (16, 16)), (4, 4), 10**9) == (1, 1)


def test_small_shards_of_large_chunks_are_read_together():
    """Of 16 x 16 positions in one chunk all shards are made at once."""
    assert shards_together(layout((64, 64), (4, 8)), (16, 16), 10**9) == (4, 2)
    assert times_decoded(layout((64, 64), (4, 8)), (16, 16), (1, 1)) == 8


def test_readings_hold_every_partition_once():
    """Partitions are sorted into squares, those that are done left out."""
    made = layout((10, 12), (2, 3))
    found = list(readings(made, [n for n in range(made.n_partitions) if n != 5], (2, 2)))
    assert sorted(itertools.chain(*found)) == [*range(5), *range(6, 20)]
    assert found[0] == [0, 1, 4]
    for numbers in found:
        places = np.array([made.place(number)[:2] for number in numbers])
        assert len(np.unique(places // 2, axis=0)) == 1
