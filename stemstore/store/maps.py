"""Small arrays of a store: coordinates, validity, slots per position, images. One chunk is one object."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.store.codecs import ChunkCodec, to_native
from stemstore.store.metadata import ArrayInfo
from stemstore.store.shards import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array
    from stemstore.store.urls import Storage

MAX_BYTES = 16 * 2**20
"""Largest chunk of a small array; most are a single one."""


def map_info(path: str, values: Array, dims: tuple[str, ...], attributes: dict[str, Any] | None = None) -> ArrayInfo:
    """Describe a small array: whole rows of its first axis in a chunk, always compressed without loss."""
    row_bytes = max(math.prod(values.shape[1:]) * values.dtype.itemsize, 1)
    rows = max(1, min(values.shape[0], MAX_BYTES // row_bytes))
    codec = ChunkCodec(values.dtype.itemsize, "lz4", 5, "shuffle")
    dtype = values.dtype.newbyteorder("=")
    return ArrayInfo(path, values.shape, (rows, *values.shape[1:]), None, dtype, codec, dims, attributes or {})


def write_map(storage: Storage, info: ArrayInfo, values: Array) -> None:
    """Write all chunks of a small array."""
    for key, body in map_objects(info, values):
        storage.put(key, [body])


def map_objects(info: ArrayInfo, values: Array) -> Iterator[tuple[str, bytes]]:
    """Encode a small array: key and content of every chunk."""
    stored = info.dtype.newbyteorder("<")
    for place, start in _chunks(info):
        piece = gather(values, start, info.chunk, stored)
        if piece is not None:
            yield info.key(place), info.codec.encode(piece)


def read_map(storage: Storage, info: ArrayInfo) -> Array:
    """Read a small array whole.

    Raises
    ------
    NotFoundError, ChecksumError, CorruptDataError
        An object is missing or damaged.
    """
    out = np.empty(info.shape, info.dtype)
    chunk = np.empty(info.chunk, info.dtype)
    for place, start in _chunks(info):
        key = info.key(place)
        encoded = np.frombuffer(storage.get(key), np.uint8)
        info.codec.decode(encoded, chunk.reshape(-1).view(np.uint8), f"'{storage.root}/{key}'")
        to_native(chunk)
        inside = tuple(slice(0, min(c, n - s)) for c, n, s in zip(info.chunk, info.shape, start, strict=True))
        out[tuple(slice(s, s + c) for s, c in zip(start, info.chunk, strict=True))] = chunk[inside]
    return out


def _chunks(info: ArrayInfo) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    grid = (range(-(-n // c)) for n, c in zip(info.shape, info.chunk, strict=True))
    for place in itertools.product(*grid):
        yield place, tuple(p * c for p, c in zip(place, info.chunk, strict=True))
