"""Chunks and shards as a user wants them: kept where they can be, completed where nothing was said."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import ChunkingError
from stemstore.store.cut import LARGEST_CHUNK, MOST_CHUNKS, Cut
from stemstore.store.layout import MAX_SHARD_BYTES, counted_layout, dense_layout

scans = st.lists(st.integers(1, 200), min_size=1, max_size=3).map(tuple)
detectors = st.tuples(st.integers(1, 600), st.integers(1, 600))


def test_nothing_said_is_the_layout_of_always():
    """Without wishes, and with the name of the default, nothing changes."""
    usual = dense_layout((100, 90), (128, 128), "u2")
    for cut in (Cut(), Cut.of("frames")):
        assert cut.dense((100, 90), (128, 128), "u2", profile="fast") == usual
    events = counted_layout((100, 90), (128, 128), 50)
    assert Cut().counted((100, 90), (128, 128), 50, profile="fast") == events


@pytest.mark.parametrize(
    ("scan", "detector", "dtype", "chunk", "shard"),
    [
        ((512, 512), (256, 256), "u2", (8, 8, 64, 64), (16, 32, 256, 256)),
        ((64, 64), (576, 576), "u2", (8, 8, 64, 64), (8, 16, 576, 576)),
        ((5, 6), (130, 40), "u1", (8, 8, 64, 40), (8, 8, 192, 40)),
        ((9, 9), (1024, 1024), "u2", (4, 4, 64, 64), (4, 12, 1024, 1024)),  # 8 x 8 frames are more than 128 MB
        ((1000,), (64, 64), "u2", (64, 64, 64), (1024, 64, 64)),
        ((3, 40, 40), (128, 128), "f4", (1, 8, 8, 64, 64), (1, 40, 40, 128, 128)),
    ],
)
def test_tiles(scan, detector, dtype, chunk, shard):
    """Tiles are 64 x 64 pixels of 8 x 8 positions, a shard holds whole frames."""
    layout = Cut.of("tiled").dense(scan, detector, dtype, profile="fast")
    assert (layout.chunk, layout.shard) == (chunk, shard)


@given(scans, detectors, st.sampled_from(["u1", "u2", "f8"]), st.data())
def test_what_was_said_is_kept_or_refused(scan, detector, dtype, data):
    """Chunks and shards are what was asked for, as far as the axes go, and keep their limits, or are refused."""
    shape = scan + detector
    chunks = tuple(data.draw(st.integers(1, 2 * n)) for n in shape)
    shards = data.draw(st.sampled_from([None, tuple(2 * c for c in chunks[: len(scan)])]))
    error = None
    try:
        layout = Cut.of(None, chunks, shards).dense(scan, detector, dtype, profile="raw")
    except ChunkingError as caught:
        error = caught
    if error is not None:
        assert error.context["found"] > error.context["expected"]
        return
    itemsize = np.dtype(dtype).itemsize
    assert all(c == w or n <= c <= w for c, w, n in zip(layout.chunk, chunks, shape, strict=True))
    assert all(s % c == 0 for s, c in zip(layout.shard, layout.chunk, strict=True))
    assert all(s >= n for s, n in zip(layout.shard[-2:], detector, strict=True))
    assert all(s < n + c for s, n, c in zip(layout.shard, shape, layout.chunk, strict=True))
    assert math.prod(layout.shard) * itemsize <= MAX_SHARD_BYTES
    assert math.prod(layout.chunk) * itemsize <= LARGEST_CHUNK
    assert math.prod(layout.chunks_per_shard) <= MOST_CHUNKS
    if shards is not None:
        asked = zip(layout.shard, shards, layout.chunk, scan, strict=False)
        assert all(s in (w, c * -(-n // c)) for s, w, c, n in asked)


@pytest.mark.parametrize(
    ("chunks", "shards", "match"),
    [
        ((64, 64, 256, 256), None, "a chunk of 64x64x256x256 uint16 takes 512.0 MiB"),
        ((1, 1, 1, 1), (64, 64), "takes 512.0 MiB .* more than one may hold"),
        ((1, 1, 2, 2), (16, 16), "a shard of 16x16x256x256 has 4194304 chunks of 1x1x2x2, at most 65536"),
    ],
)
def test_limits(chunks, shards, match):
    """Chunks that one look would not decode gladly, shards that do not fit and indices without end are refused."""
    with pytest.raises(ChunkingError, match=match):
        Cut.of(None, chunks, shards).dense((512, 512), (256, 256), "u2", profile="fast")


def test_an_index_limits_the_shards_that_are_chosen():
    """Where chunks are single pixels a shard is one frame, whose index is a megabyte."""
    layout = Cut.of(None, (1, 1, 1, 1)).dense((512, 512), (256, 256), "u2", profile="fast")
    assert layout.shard == (1, 1, 256, 256)


def test_blocks_of_events():
    """Events take the frames of a block and of a shard; a shard that nobody could hold is refused."""
    layout = Cut.of(None, 100, 1000).counted((64, 64), (128, 128), 50, profile="fast")
    assert (layout.frames_per_block, layout.blocks_per_shard) == (100, 10)
    assert Cut.of(None, 10**6).counted((64, 64), (128, 128), 50, profile="fast").frames_per_block == 64 * 64
    with pytest.raises(ChunkingError, match="is expected to hold 191"):
        Cut.of(None, 10**6).counted((1000, 1000), (128, 128), 100, profile="fast")
    with pytest.raises(ChunkingError, match="a shard of 70 frames is no whole number of blocks"):
        Cut.of(None, None, 70).counted((64, 64), (128, 128), 50, profile="fast")
    assert Cut.of(None, None, 64 * 64).counted((64, 64), (128, 128), 50, profile="fast").blocks_per_shard == 1
