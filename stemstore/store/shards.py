"""One shard: encoded inner chunks one after the other, then an index of where each of them lies.

This is the object of Zarr's ``sharding_indexed`` codec with its index at the end (Zarr format 3, sharding codec,
version 1.0): for each inner chunk in C order an offset and a length as little-endian uint64, both 2**64 - 1 for a chunk
that is absent, and a CRC-32C over the index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stemstore.errors import CorruptDataError
from stemstore.store.codecs import CRC_BYTES, checksum, verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stemstore._types import Array

ABSENT = 2**64 - 1
_ENTRY = 16

Index = NDArray[np.uint64]
"""Shape (n_chunks, 2): offset and length of every inner chunk."""


def index_bytes(n_chunks: int) -> int:
    """Size of the index of `n_chunks` inner chunks with its checksum."""
    return n_chunks * _ENTRY + CRC_BYTES


def encode_shard(chunks: Iterable[bytes | None]) -> list[bytes]:
    """Put encoded inner chunks, None for absent ones, together with their index.

    Returns
    -------
    parts
        Byte strings to be written one after the other.
    """
    parts: list[bytes] = []
    entries: list[tuple[int, int]] = []
    offset = 0
    for chunk in chunks:
        if chunk is None:
            entries.append((ABSENT, ABSENT))
            continue
        parts.append(chunk)
        entries.append((offset, len(chunk)))
        offset += len(chunk)
    index = np.array(entries, dtype="<u8").tobytes()
    return [*parts, index, checksum(index).to_bytes(CRC_BYTES, "little")]


def decode_index(tail: bytes, n_chunks: int, where: str) -> Index:
    """Check and read the index at the end of a shard.

    Raises
    ------
    ChecksumError
        The index is not the one that was written.
    CorruptDataError
        The object is shorter than its index.
    """
    if len(tail) != index_bytes(n_chunks):
        msg = (
            f"shard '{where}' has {len(tail)} bytes, fewer than its index of {index_bytes(n_chunks)}; "
            "restore it from a copy or convert the scan again"
        )
        raise CorruptDataError(msg, key=where, expected=index_bytes(n_chunks), found=len(tail))
    raw = np.frombuffer(tail, np.uint8)
    verify(raw[:-CRC_BYTES], int.from_bytes(tail[-CRC_BYTES:], "little"), f"the index of shard '{where}'")
    return raw[:-CRC_BYTES].view("<u8").reshape(n_chunks, 2).astype(np.uint64)


def gather(frames: Array, at: tuple[int, ...], extent: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """Cut the chunk that begins at `at` out of `frames`, padded with zeros; None where it lies outside of them.

    Values are converted to `dtype` by value, so that data of the other byte order arrive unchanged.
    """
    if any(start >= n for start, n in zip(at, frames.shape, strict=True)):
        return None
    piece = frames[tuple(slice(start, start + step) for start, step in zip(at, extent, strict=True))]
    if piece.shape == extent:
        return np.ascontiguousarray(piece, dtype=dtype)
    padded = np.zeros(extent, dtype)
    padded[tuple(slice(0, n) for n in piece.shape)] = piece
    return padded
