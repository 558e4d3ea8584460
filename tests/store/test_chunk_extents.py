"""Ranges of bytes found in the indices of shards are the encoded chunks."""

from __future__ import annotations

import numpy as np
import pytest

import stemstore
from stemstore.errors import ChecksumError
from stemstore.store.chunk_extents import chunk_extents
from stemstore.store.open import open_store

FRAMES = np.random.default_rng(5).integers(0, 99, (5, 7, 6, 9)).astype(np.uint16)


@pytest.fixture
def store(tmp_path):
    """Make a store of several shards whose chunks hold a part of a frame, more of them than the scan needs."""
    np.save(tmp_path / "a.npy", FRAMES)
    stemstore.convert(tmp_path / "a.npy", tmp_path / "a.zarr", chunks=(2, 1, 4, 5), shards=(4, 3))
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("packed", [False, True])
def test_every_range_decodes_to_its_chunk(store, packed, monkeypatch):
    """Read by file, offset and length alone, chunks make up the frames; of a zip, offsets count from its start."""
    monkeypatch.setattr("stemstore.store.chunk_extents.TOGETHER", 3)
    if packed:
        store = stemstore.pack_store(store, store.with_suffix(".zarr.zip")).url
    found = chunk_extents(open_store(store))
    grid = tuple(-(-n // c) for n, c in zip(FRAMES.shape, found.chunk, strict=True))
    assert found.offset.shape == grid
    assert len(found.files) == 6
    assert len(set(found.files)) == (1 if packed else 6)
    whole = np.zeros([n * c for n, c in zip(grid, found.chunk, strict=True)], np.uint16)
    for place in np.ndindex(grid):
        start, length = found.offset[place], found.length[place]
        with open(found.files[found.number[place]], "rb") as file:  # noqa: PTH123  # paths come as text
            body = np.frombuffer(file.read()[start : start + length], np.uint8)
        values = np.empty(found.chunk, np.uint16)
        found.codec.decode(body, values.reshape(-1).view(np.uint8), "the chunk")
        whole[tuple(slice(at * c, (at + 1) * c) for at, c in zip(place, found.chunk, strict=True))] = values
    np.testing.assert_array_equal(whole[tuple(slice(0, n) for n in FRAMES.shape)], FRAMES)


def test_damaged_index_is_found(store):
    """A shard whose index was changed gives no ranges."""
    shard = next(path for path in sorted((store / "intensity" / "c").rglob("*")) if path.is_file())
    body = bytearray(shard.read_bytes())
    body[-9] ^= 1
    shard.write_bytes(body)
    with pytest.raises(ChecksumError, match="the index of shard"):
        chunk_extents(open_store(store))
