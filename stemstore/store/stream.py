"""Reading many inner chunks of a sharded array: cached indices, merged ranges, decoding into one leased buffer."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.store.codecs import to_native
from stemstore.store.extents import Extent
from stemstore.store.scratch import BoundedCache, lease
from stemstore.store.shards import ABSENT, Index, decode_index, index_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stemstore._types import Array
    from stemstore.store.metadata import ArrayInfo
    from stemstore.store.urls import Storage

    Wanted = Sequence[tuple[tuple[int, ...], int]]

INDEX_CACHE = 32 * 2**20
"""Bytes of shard indices that an open array keeps."""

_OVERHEAD = 64
"""Bytes by which an encoded chunk may exceed its values: the headers of Blosc and the checksum."""


class ShardedArray:
    """Inner chunks of one array, addressed by shard and number.

    Parameters
    ----------
    storage
        Where the store lies.
    info
        The array.
    complete
        Whether every shard has to be there; of an unfinished store the absent ones read as zeros.
    """

    def __init__(self, storage: Storage, info: ArrayInfo, *, complete: bool) -> None:
        if info.shard is None:
            msg = f"array '{info.path}' is not sharded, so it is not of this format; open it with zarr.open"
            raise CorruptDataError(msg, key=info.path)
        self.storage = storage
        self.info = info
        self.complete = complete
        self.per_shard = tuple(s // c for s, c in zip(info.shard, info.chunk, strict=True))
        self.n_chunks = math.prod(self.per_shard)
        self.chunk_bytes = math.prod(info.chunk) * info.dtype.itemsize
        self._indices: BoundedCache[Index] = BoundedCache(INDEX_CACHE)

    def stream(self, wanted: Wanted, visit: Callable[[int, Array], None]) -> None:
        """Decode chunks one after the other and show each of them.

        Parameters
        ----------
        wanted
            Shard and C-order number of the inner chunk in it; sorted by shard for best speed.
        visit
            Called with the position in `wanted` and the values of the chunk, which are valid during the call only.

        Raises
        ------
        ChecksumError, TruncatedFileError, CorruptDataError
            A shard is damaged or missing.
        """
        indices = self._load_indices([shard for shard, _ in wanted])
        extents = [self._extent(shard, number, indices[shard]) for shard, number in wanted]
        there = [extent for extent in extents if extent is not None]
        longest = max((extent.length for extent in there), default=0)
        with (
            lease(longest) as encoded,
            lease(self.chunk_bytes) as decoded,
            closing(self.storage.fetch(there, encoded)) as parts,
        ):
            values = decoded.view(self.info.dtype).reshape(self.info.chunk)
            for at, extent in enumerate(extents):
                if extent is None:
                    decoded[:] = 0
                else:
                    where = f"chunk {wanted[at][1]} of shard '{self.storage.root}/{extent.key}'"
                    self.info.codec.decode(next(parts), decoded, where)
                    to_native(values)
                visit(at, values)

    def load(self, shards: list[tuple[int, ...]]) -> None:
        """Read the indices of shards that will be needed; errors as for `stream`."""
        self._load_indices(shards)

    def _extent(self, shard: tuple[int, ...], number: int, index: Index | None) -> Extent | None:
        if index is None or index[number, 0] == ABSENT:
            return None
        start, length = index[number].tolist()
        if length > self.chunk_bytes + _OVERHEAD:
            where = f"{self.storage.root}/{self.info.key(shard)}"
            msg = (
                f"the index of shard '{where}' gives chunk {number} {length} bytes, more than its "
                f"{self.chunk_bytes} bytes of values can take; restore it from a copy or convert the scan again"
            )
            raise CorruptDataError(msg, key=where, found=length, expected=self.chunk_bytes)
        return Extent(self.info.key(shard), start, length)

    def _load_indices(self, shards: list[tuple[int, ...]]) -> dict[tuple[int, ...], Index | None]:
        """Find the indices of shards: from the cache, the others in one round of requests."""
        found: dict[tuple[int, ...], Index | None] = {shard: self._indices.get(shard) for shard in shards}
        absent = [shard for shard, index in found.items() if index is None]
        if not absent:
            return found
        tails = self.storage.tails([self.info.key(shard) for shard in absent], index_bytes(self.n_chunks))
        for shard, tail in zip(absent, tails, strict=True):
            key = self.info.key(shard)
            if tail is None:
                if self.complete:
                    msg = f"shard '{self.storage.root}/{key}' is missing; restore it from a copy or convert again"
                    raise CorruptDataError(msg, key=key)
                continue
            index = decode_index(tail, self.n_chunks, f"{self.storage.root}/{key}")
            self._indices.put(shard, index, index.nbytes)
            found[shard] = index
        return found


def ravel(place: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """C-order number of `place` in a grid of shape `shape`."""
    return int(np.ravel_multi_index(place, shape))
