"""Blocks of a file land where they belong, whatever their order and distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import NotFoundError, StorageError, TruncatedFileError
from stemstore.sources import records

CONTENT = np.random.default_rng(0).integers(0, 256, 60_000, dtype=np.uint8)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "data"
    path.write_bytes(CONTENT.tobytes())
    return path


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 300),
    offsets=st.lists(st.integers(0, 59_000), max_size=40),
    vectored=st.booleans(),
    data=st.data(),
)
def test_blocks_in_any_order(data_file, length, offsets, vectored, data):
    """Overlapping, repeated, distant or adjacent blocks in any order equal the slices of the file."""
    places = data.draw(st.permutations(range(len(offsets))))
    target = np.zeros((len(offsets), length), dtype=np.uint8)
    goals = np.array(places, dtype=np.int64) * length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_HAS_PREADV", vectored and records._HAS_PREADV)
        records.read_blocks(data_file, np.array(offsets, np.int64), length, records.as_bytes(target), goals)
    for place, offset in zip(places, offsets, strict=True):
        np.testing.assert_array_equal(target[place], CONTENT[offset : offset + length])


def test_more_blocks_than_a_call_takes(data_file):
    """Thousands of blocks with gaps between them take several calls and are all there."""
    offsets = np.arange(0, 60_000, 20, dtype=np.int64)
    target = np.zeros((len(offsets), 7), dtype=np.uint8)
    records.read_blocks(data_file, offsets, 7, records.as_bytes(target), np.arange(len(offsets)) * 7)
    np.testing.assert_array_equal(target, CONTENT.reshape(-1, 20)[:, :7])


def test_block_beyond_the_end(data_file):
    """A block that the file does not hold names the file and the byte where it ends."""
    target = np.zeros(100, dtype=np.uint8)
    with pytest.raises(TruncatedFileError, match="ends at byte 60000, expected at least 40 more bytes"):
        records.read_blocks(data_file, np.array([59_940]), 100, records.as_bytes(target), np.array([0]))


def test_file_that_is_gone(tmp_path):
    """A file that was removed since opening is not found; a folder in its place cannot be read."""
    target = records.as_bytes(np.zeros(1, dtype=np.uint8))
    with pytest.raises(NotFoundError, match="does not exist"):
        records.read_blocks(tmp_path / "none", np.array([0]), 1, target, np.array([0]))
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        records.read_blocks(tmp_path, np.array([0]), 1, target, np.array([0]))


@pytest.mark.parametrize(
    ("size", "record", "offset", "expected"),
    [(100, 10, 0, (10, 0)), (105, 10, 0, (10, 5)), (105, 10, 6, (9, 9)), (5, 10, 6, (0, 5)), (0, 10, 0, (0, 0))],
)
def test_whole_records(size, record, offset, expected):
    """Whole records and left-over bytes behind the header of a file."""
    assert records.whole_records(size, record, offset) == expected


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f8"])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_bytes_are_turned_round_in_place(dtype, layout):
    """Values become those of the other byte order where they lie; neighbours are not touched."""
    whole = CONTENT[:4800].view(dtype).reshape(10, -1).copy()
    part = whole[2:8] if layout == "contiguous" else whole[2:8, ::2]
    truth, before = part.byteswap(), whole.copy()
    records.swap_bytes(part)
    assert part.tobytes() == truth.tobytes()
    assert whole[:2].tobytes() == before[:2].tobytes()
