"""Arrays of attached groups: one object per chunk, written and read region by region."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError, StaleStoreError
from stemstore.store.codecs import ChunkCodec, to_native
from stemstore.store.metadata import ROOT, ArrayInfo
from stemstore.store.shards import gather
from stemstore.store.urls import open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array
    from stemstore.store.urls import Storage

CHUNK_BYTES = 4 * 2**20
"""Chunk of a small array; an array that fits is a single object."""

MOST_CHUNKS = 4096
"""Objects from which on chunks grow instead, up to `MOST_CHUNK_BYTES`."""

MOST_CHUNK_BYTES = 64 * 2**20

LARGEST_CHUNK_BYTES = 16 * 2**20
"""Blocks of the caller up to this size stay whole in an array that needs no larger ones."""

_WIDEST = {"f": 8, "c": 16, "b": 1, "i": 8, "u": 8}
"""Bytes of the widest type of each kind among the core types of Zarr."""


@dataclass(frozen=True, slots=True)
class AttachedArray:
    """An array to be written.

    Attributes
    ----------
    dims
        Names of the axes.
    values
        NumPy array, or, where the caller streams, anything with ``shape`` and ``dtype``.
    attributes
        Plain attributes (``units``, ``long_name``); JSON values.
    chunk
        Extents of what is written and read at once; None for `chunk_extents`.
    """

    dims: tuple[str, ...]
    values: Any
    attributes: dict[str, Any] = field(default_factory=dict)
    chunk: tuple[int, ...] | None = None


def chunk_extents(shape: tuple[int, ...], itemsize: int, blocks: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Choose chunks of about 4 MiB, of up to 64 MiB where there would be more than 4096 of them.

    Parameters
    ----------
    shape, itemsize
        Of the array; `itemsize` in bytes.
    blocks
        Extents of the blocks in which the values come: they are joined, the last axis first, or halved, the first
        axis first, until they fit.
    """
    n_bytes = math.prod(shape) * itemsize
    wanted = max(CHUNK_BYTES, min(MOST_CHUNK_BYTES, -(-n_bytes // MOST_CHUNKS)))
    extents = [max(1, min(b, n)) for b, n in zip(blocks or (1,) * len(shape), shape, strict=True)]
    for axis in reversed(range(len(shape))):
        while extents[axis] < shape[axis]:
            grown = min(2 * extents[axis], shape[axis])
            if math.prod(extents) // extents[axis] * grown * itemsize > wanted:
                break
            extents[axis] = grown
    for axis in range(len(shape)):
        while extents[axis] > 1 and math.prod(extents) * itemsize > max(wanted, LARGEST_CHUNK_BYTES):
            extents[axis] = -(-extents[axis] // 2)
    return tuple(extents)


def array_info(path: str, array: AttachedArray) -> ArrayInfo:
    """Describe an array as it will be stored.

    Raises
    ------
    InputError
        The values are no numbers, or dims and values do not agree.
    """
    dtype, shape = np.dtype(array.values.dtype), tuple(int(n) for n in array.values.shape)
    if dtype.itemsize > _WIDEST.get(dtype.kind, 0):
        msg = (
            f"array '{path}' is of type {dtype}; expected bool, integers, floats or complex numbers of core Zarr types"
        )
        raise InputError(msg, key=path, found=str(dtype))
    if len(array.dims) != len(shape) or len(set(array.dims)) != len(shape):
        msg = f"array '{path}' has shape {shape} and dims {array.dims}; expected one name for each axis"
        raise InputError(msg, key=path, found=array.dims, expected=shape)
    chunk = array.chunk or chunk_extents(shape, dtype.itemsize)
    codec = ChunkCodec(dtype.itemsize, "lz4", 5, "shuffle")
    return ArrayInfo(path, shape, chunk, None, dtype.newbyteorder("="), codec, array.dims, array.attributes)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the blocks of an array go; can be pickled, blocks may be written by several workers at once.

    Attributes
    ----------
    url, info
        The store, and the array below it.
    """

    url: str
    info: ArrayInfo

    def write(self, start: tuple[int, ...], values: Array) -> None:
        """Write the chunks of a block.

        Parameters
        ----------
        start
            Where the block begins; the beginning of a chunk.
        values
            Whole chunks, but for the ends of the array.

        Raises
        ------
        InputError
            The block cuts through a chunk.
        StorageError
            The device refuses.
        """
        stop = tuple(s + n for s, n in zip(start, values.shape, strict=True))
        grid = list(zip(start, stop, self.info.chunk, self.info.shape, strict=True))
        if any(a % c or b > n or (b % c and b != n) for a, b, c, n in grid):
            msg = (
                f"block {start} to {stop} of '{self.info.path}' cuts chunks of {self.info.chunk}; write whole chunks, "
                f"or up to the end of the array {self.info.shape}"
            )
            raise InputError(msg, found=(start, stop), expected=self.info.chunk)
        storage = open_storage(self.url)
        stored = self.info.dtype.newbyteorder("<")
        for place in itertools.product(*(range(a // c, -(-b // c)) for a, b, c, _ in grid)):
            at = tuple(p * c - a for p, (a, _, c, _) in zip(place, grid, strict=True))
            piece = gather(values, at, self.info.chunk, stored)
            if piece is not None:
                storage.put(self.info.key(place), [self.info.codec.encode(piece)])


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array of an attached group, read when it is indexed; can be pickled.

    Attributes
    ----------
    url, info
        The store, and the array below it.
    stamp
        Mark of the group's metadata when they were read; None where there is no cheap one.
    """

    url: str
    info: ArrayInfo
    stamp: object = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self.info.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.info.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native type of the values."""
        return self.info.dtype

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return self.info.dims

    @property
    def attributes(self) -> dict[str, Any]:
        """Plain attributes."""
        return self.info.attributes

    @property
    def chunk(self) -> tuple[int, ...]:
        """Extents of one object, which is decoded whole."""
        return self.info.chunk

    def read(self, region: tuple[slice, ...] | None = None) -> Array:
        """Read a region.

        Parameters
        ----------
        region
            A slice without step for each axis; None for the whole array.

        Raises
        ------
        NotFoundError, ChecksumError, CorruptDataError
            An object is missing or damaged.
        StaleStoreError
            The group was replaced since its metadata were read.
        """
        bounds = [s.indices(n)[:2] for s, n in zip(region or (slice(None),) * self.ndim, self.shape, strict=True)]
        out = np.empty(tuple(max(0, b - a) for a, b in bounds), self.dtype)
        if not out.size:
            return out
        storage = open_storage(self.url)
        self._check_fresh(storage)
        held = np.empty(self.chunk, self.dtype)
        for place in itertools.product(
            *(range(a // c, -(-b // c)) for (a, b), c in zip(bounds, self.chunk, strict=True))
        ):
            key = self.info.key(place)
            encoded = np.frombuffer(storage.get(key), np.uint8)
            self.info.codec.decode(encoded, held.reshape(-1).view(np.uint8), f"'{storage.root}/{key}'")
            to_native(held)
            seen = list(_overlap(bounds, place, self.chunk))
            out[tuple(there for _, there in seen)] = held[tuple(here for here, _ in seen)]
        return out

    def _check_fresh(self, storage: Storage) -> None:
        group = self.info.path.rpartition("/")[0]
        if self.stamp is not None and storage.stamp(f"{group}/{ROOT}") != self.stamp:
            msg = f"'{storage.root}/{group}' was replaced or removed since it was opened; open it again"
            raise StaleStoreError(msg, url=storage.root, key=group)

    def __getitem__(self, key: Any) -> Array:
        """Index with integers, slices or lists, each axis for itself."""
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (self.ndim - len(keys))
        picks = [np.arange(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        spans = [(int(p.min()), int(p.max()) + 1) if p.size else (0, 0) for p in picks]
        block = self.read(tuple(slice(a, b) for a, b in spans))
        for axis, (pick, (start, _)) in enumerate(zip(picks, spans, strict=True)):
            if pick.shape != (block.shape[axis],) or (np.diff(pick) != 1).any():
                block = block.take(np.atleast_1d(pick) - start, axis=axis)
        return block.reshape([n for pick in picks for n in pick.shape])


def _overlap(
    bounds: list[tuple[int, int]], place: tuple[int, ...], chunk: tuple[int, ...]
) -> Iterator[tuple[slice, slice]]:
    """Tell for each axis which part of a chunk is wanted, and where it goes."""
    for (start, stop), number, extent in zip(bounds, place, chunk, strict=True):
        first = number * extent
        a, b = max(start, first), min(stop, first + extent)
        yield slice(a - first, b - first), slice(a - start, b - start)
