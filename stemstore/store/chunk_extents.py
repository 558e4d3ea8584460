"""Where the chunks of a finished store of frames lie: file, byte offset and length, from the indices of its shards."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.store.metadata import INTENSITY
from stemstore.store.shards import ABSENT, decode_index, index_bytes
from stemstore.store.zipped import ZippedStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Int64Array
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.codecs import ChunkCodec
    from stemstore.store.urls import Storage

TOGETHER = 256
"""Shards whose indices are read in one round of requests."""


@dataclass(frozen=True, eq=False)
class ChunkExtents:
    """Where the encoded chunks of an array lie.

    Attributes
    ----------
    files
        Paths or URLs of the objects.
    number, offset, length : shape of the grid of chunks; offset and length in bytes
        Object of every chunk, its place in it and its encoded length, the checksum at its end included; -1 where a
        chunk was never written.
    chunk
        Extents of a chunk.
    codec
        How a chunk is encoded; values are little-endian.
    """

    files: tuple[str, ...]
    number: Int64Array
    offset: Int64Array
    length: Int64Array
    chunk: tuple[int, ...]
    codec: ChunkCodec


def chunk_extents(scan: StoredFrames) -> ChunkExtents:
    """Find all chunks of the frames of a store; the indices of its shards are read, no pixel.

    Memory: 24 bytes per chunk.

    Raises
    ------
    CorruptDataError, ChecksumError
        A shard is missing, or its index is damaged.
    StorageError
        A shard cannot be read.
    """
    info, storage = scan.head.arrays[INTENSITY], scan.head.storage
    extents = info.shard or info.chunk
    per_shard = tuple(s // c for s, c in zip(extents, info.chunk, strict=True))
    grid = tuple(-(-n // c) for n, c in zip(info.shape, info.chunk, strict=True))
    shards = tuple(-(-n // s) for n, s in zip(info.shape, extents, strict=True))
    found = np.full((3, *(n * p for n, p in zip(shards, per_shard, strict=True))), -1, np.int64)
    files: list[str] = []
    every = itertools.product(*map(range, shards))
    while batch := list(itertools.islice(every, TOGETHER)):
        keys = [info.key(shard) for shard in batch]
        tails = storage.tails(keys, index_bytes(int(np.prod(per_shard))))
        for shard, key, tail, (file, start) in zip(batch, keys, tails, places(storage, keys), strict=True):
            if tail is None:
                msg = f"shard '{storage.root}/{key}' is missing; restore it from a copy or convert again"
                raise CorruptDataError(msg, key=key)
            index = decode_index(tail, int(np.prod(per_shard)), f"{storage.root}/{key}")
            there = index[:, 0] != ABSENT
            here = found[(slice(None), *(slice(s * p, (s + 1) * p) for s, p in zip(shard, per_shard, strict=True)))]
            values = np.full((3, len(index)), -1, np.int64)
            values[0, there], values[1:, there] = len(files), index[there].T
            values[1, there] += start
            here[...] = values.reshape(here.shape)
            files.append(file)
    number, offset, length = found[(slice(None), *(slice(0, n) for n in grid))]
    return ChunkExtents(tuple(files), number, offset, length, info.chunk, info.codec)


def places(storage: Storage, keys: Sequence[str]) -> list[tuple[str, int]]:
    """Tell in which files objects lie, and where in them they begin."""
    if isinstance(storage, ZippedStorage):
        known = storage._locate(keys)
        return [(storage.root, known.starts[key]) for key in keys]
    return [(f"{storage.root}/{key}", 0) for key in keys]
