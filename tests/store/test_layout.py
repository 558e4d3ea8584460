"""Layouts: budgets are kept and partitions cover the scan."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import ChunkingError, InputError
from stemstore.store.layout import (
    MAX_CHUNK_BYTES,
    MAX_RAW_BYTES,
    MAX_SHARD_BYTES,
    counted_layout,
    dense_layout,
    dump_layout,
    load_layout,
)

scans = st.lists(st.integers(1, 90), min_size=1, max_size=3).map(tuple)
detectors = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
dtypes = st.sampled_from(["u1", "u2", "u4", "i2", "f4", "f8"])


@pytest.mark.parametrize(("side", "c"), [(256, 4), (128, 8), (576, 2)])
def test_inner_chunks_of_usual_detectors(side, c):
    """The inner chunk of a 16-bit detector holds about two megabytes."""
    layout = dense_layout((512, 512), (side, side), "u2")
    assert layout.chunk == (c, c, side, side)


def test_shards_are_the_largest_square_below_the_budget():
    """A shard of 256 x 256 16-bit frames spans 16 x 16 positions: 32 x 32 would take 134 MB."""
    layout = dense_layout((512, 512), (256, 256), "u2")
    assert layout.shard == (16, 16, 256, 256)


def test_kinds_of_scan_axes():
    """A stack of frames has c * c frames in a chunk, repeated frames one per chunk along their axis."""
    assert dense_layout((5000,), (256, 256), "u2").chunk == (16, 256, 256)
    assert dense_layout((7, 64, 64), (256, 256), "u2").chunk == (1, 4, 4, 256, 256)
    assert dense_layout((7, 64, 64), (256, 256), "u2").shard[0] == 1


def test_shards_are_not_larger_than_the_scan_needs():
    """A small scan gets shards of the next whole number of chunks."""
    assert dense_layout((21, 19), (128, 128), "u2").shard == (24, 24, 128, 128)


def test_large_frames_are_cut_rows_first():
    """A frame of 32 MB is halved along rows and columns in turn until a piece fits."""
    layout = dense_layout((9, 9), (4096, 4096), "u2")
    assert layout.chunk == (1, 1, 1024, 2048)
    assert layout.shard[-2:] == (4096, 4096)


@settings(deadline=None, max_examples=50)
@given(scans, detectors, dtypes, st.sampled_from([30 * 10**6, 80 * 10**6, MAX_SHARD_BYTES]))
def test_dense_budgets_and_cover(scan, detector, dtype, limit):
    """Chunks and shards keep their budgets, nest, and partitions cover every position once."""
    itemsize = np.dtype(dtype).itemsize
    try:
        layout = dense_layout(scan, detector, dtype, max_shard_bytes=limit)
    except ChunkingError:
        assert math.prod(detector) * itemsize > 0.9 * limit
        return
    assert math.prod(layout.chunk) * itemsize <= MAX_CHUNK_BYTES
    assert math.prod(layout.shard) * itemsize <= limit
    assert all(s % c == 0 for s, c in zip(layout.shard, layout.chunk, strict=True))
    sizes = [math.prod(s.stop - s.start for s in part) for part in layout.partitions]
    assert sum(sizes) == math.prod(scan)
    assert len(sizes) == math.prod(layout.shard_grid)
    assert all(s.start % step == 0 for part in layout.partitions for s, step in zip(part, layout.shard, strict=False))


@settings(deadline=None, max_examples=50)
@given(scans, detectors, st.floats(0, 1e5))
def test_counted_budgets_and_cover(scan, detector, events):
    """Blocks and shards keep their budgets, and partitions cover every frame once, on block borders."""
    layout = counted_layout(scan, detector, events)
    n_frames = math.prod(scan)
    raw = 2 * math.prod(detector)
    assert layout.frames_per_block == 1 or layout.frames_per_block * events <= 2**20
    per_shard = layout.frames_per_block * layout.blocks_per_shard
    assert per_shard * raw <= MAX_RAW_BYTES
    assert layout.slots_per_chunk % 1024 == 0
    edges = [edge for part in layout.partitions for edge in part]
    assert edges[0] == 0
    assert edges[-1] == n_frames
    assert edges[1:-1:2] == edges[2::2]
    blocks = [block for number in range(len(layout.partitions)) for block in layout.blocks(number)]
    assert [stop for _, stop in blocks[:-1]] == [start for start, _ in blocks[1:]]
    assert all(start % layout.frames_per_block == 0 for start, _ in blocks)


def test_counted_layout_of_a_published_scan():
    """512 x 512 positions of 2000 electrons: one scan row per block, with headroom."""
    layout = counted_layout((512, 512), (576, 576), 1951.0)
    assert layout.frames_per_block == 512
    assert 1.1 < layout.slots_per_chunk / (512 * 1951) < 1.2


def test_blocks_divide_rows_that_do_not_fit():
    """A row of too many events is divided evenly; a prime row is cut anyhow."""
    assert counted_layout((64, 512), (576, 576), 4000.0).frames_per_block == 256
    assert counted_layout((64, 509), (576, 576), 4000.0).frames_per_block == 261


def test_dense_events_never_need_a_wide_chunk():
    """A single frame of ten million electrons is spread over several chunks."""
    layout = counted_layout((4, 4), (4096, 4096), 1e7)
    assert layout.frames_per_block == 1
    assert layout.slots_per_chunk < 2**21


@pytest.mark.parametrize(
    ("scan", "detector", "dtype"),
    [((0, 4), (4, 4), "u2"), ((), (4, 4), "u2"), ((4, 4), (4, 4), "c8"), ((4, 4), (4,), "u2")],
)
def test_impossible_layouts_are_refused(scan, detector, dtype):
    """Empty axes and types that cannot be stored are named."""
    with pytest.raises(ChunkingError, match="cannot be"):
        dense_layout(scan, detector, dtype)


def test_a_frame_above_the_shard_budget_is_refused():
    """A frame that no shard may hold is named with both sizes."""
    with pytest.raises(ChunkingError, match=r"takes 7\.6 MiB .* \(976\.6 KiB"):
        dense_layout((4, 4), (2000, 2000), "u2", max_shard_bytes=10**6)


def test_unknown_profiles_are_refused():
    """A misspelt profile lists the known ones."""
    with pytest.raises(InputError, match="choose one of fast, balanced, small, raw"):
        dense_layout((4, 4), (8, 8), "u2", profile="quick")
    with pytest.raises(InputError, match="choose one of fast, balanced, small, raw"):
        counted_layout((4, 4), (8, 8), 3.0, profile="tiny")


def test_a_bad_expectation_is_refused():
    """The expected number of events is a number of at least zero."""
    with pytest.raises(ChunkingError, match="nan"):
        counted_layout((4, 4), (8, 8), math.nan)


def test_layouts_survive_json():
    """A layout written as JSON values reads back equal."""
    for layout in (dense_layout((21, 19), (24, 20), ">u2"), counted_layout((21, 19), (24, 20), 12.0)):
        found = {key: list(v) if isinstance(v, tuple) else v for key, v in dump_layout(layout).items()}
        assert load_layout(found) == layout
