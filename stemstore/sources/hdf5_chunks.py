"""How HDF5 datasets are cut into chunks that are decoded without HDF5, and where in the file those chunks lie.

HDF5 finds one chunk by looking at all of them. So a few are looked up one by one; when more are wanted, all are listed
once and the list is kept, in a memory of bounded size that all threads share.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.sources.files import unreadable
from stemstore.sources.hdf5 import dtype_of, find, open_hdf5
from stemstore.sources.remote import place

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array
    from stemstore.kernels.bitshuffle import Packing

BITSHUFFLE, LZ4 = 32008, 32004

MAX_LENGTH = 2**29
"""Bytes of the longest chunk that is decoded here; the decoder takes blocks of up to 682 MiB."""

_COMPRESSED: dict[int, Packing] = {2: "bitshuffle-lz4", 3: "bitshuffle-zstd"}
"""Fifth option of bitshuffle, behind two numbers of the version, the length of an element and the length of a block."""

FEW = 64
"""Chunks of a dataset that are looked up one by one before all are listed: as many cost about as much as the list."""

MOST_ASKED = 2**12
"""Datasets of which it is remembered how many chunks were looked up."""

MOST_KEPT = 2**21
"""Chunks whose places are remembered, over all datasets: 50 MiB."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a dataset is cut and packed.

    Attributes
    ----------
    shape, dtype
        Of the dataset, byte order included.
    chunk
        Shape of every chunk, those at the far edges included.
    packing
        The filter.
    fill
        Value of what was never written.
    native
        Whether NumPy can take elements as they lie; numbers with padding bits are HDF5's to decode.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    packing: Packing
    fill: float = field(compare=False)  # NaN is not equal to itself
    native: bool

    @classmethod
    def of(cls, dataset: Any) -> Chunking | None:
        """Look at a dataset; None where its chunks are left to HDF5: other filters, and those with a checksum.

        Raises
        ------
        CorruptDataError
            The filter contradicts the type of the elements.
        """
        packing, dtype = _packing(dataset), dtype_of(dataset)
        if packing is None or dtype is None or not hasattr(dataset.id, "chunk_iter"):  # HDF5 below 1.12.3
            return None
        import h5py

        shape, chunk, fill = tuple(dataset.shape), tuple(dataset.chunks), dataset.fillvalue
        if not all(chunk) or math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True)) >= 2**62:
            return None
        native = bool(h5py.h5t.py_create(dtype).equal(dataset.id.get_type())) and dtype.kind in "uif"
        return cls(shape, dtype, chunk, packing, fill, native)

    @property
    def decoded_here(self) -> bool:
        """Whether the kernels decode it; otherwise they look at its chunks before HDF5 does."""
        return self.native and self.length <= MAX_LENGTH

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))

    @property
    def length(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def longest(self) -> int:
        """Bytes beyond which no packed chunk can be sound: blocks of eight elements that all grow."""
        return 64 + 4 * self.length


def _packing(dataset: Any) -> Packing | None:
    """Tell the only filter of a dataset; None where it has another one, or several."""
    if dataset.chunks is None or dataset.is_virtual:
        return None
    listed = dataset.id.get_create_plist()
    if listed.get_nfilters() != 1:
        return None
    code, _, options, _ = listed.get_filter(0)
    if code == LZ4:
        return "lz4"
    if code != BITSHUFFLE:
        return None
    size = dataset.dtype.itemsize
    if options[2:3] != (size,):
        path = dataset.file.filename
        msg = f"{dataset.name} in {path!r} has elements of {size} bytes, but its filter says {options}; it is damaged"
        raise CorruptDataError(msg, url=path, key=dataset.name)
    return _COMPRESSED.get(options[4]) if len(options) > 4 else None  # noqa: PLR2004 (the fifth)


class Places(NamedTuple):
    """Where chunks lie.

    Attributes
    ----------
    number : shape (n,)
        Of the chunk in the grid, the last axis fastest.
    offset, size : shape (n,), unit byte
        In the file; the offset is -1 where nothing was written.
    bare : shape (n,)
        Whether the chunk was left unpacked.
    """

    number: Int64Array
    offset: Int64Array
    size: Int64Array
    bare: Array

    def take(self, wanted: Int64Array) -> Places:
        """Find chunks by number, of those that are known in ascending order."""
        at = np.searchsorted(self.number, wanted)
        found = np.zeros(len(wanted), bool)
        inside = at < len(self.number)
        found[inside] = self.number[at[inside]] == wanted[inside]
        offset, size, bare = np.full(len(wanted), -1), np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
        offset[found], size[found], bare[found] = (x[at[found]] for x in (self.offset, self.size, self.bare))
        return Places(wanted, offset, size, bare)


def places_of(path: str, name: str, chunking: Chunking, wanted: Int64Array) -> Places:
    """Find chunks in a file.

    Parameters
    ----------
    path, name
        The file, and the dataset in it.
    chunking
        As the dataset was found when it was opened.
    wanted : shape (n,)
        Numbers of chunks in the grid.

    Raises
    ------
    CorruptDataError
        The file is damaged, or the dataset is another one by now.
    StorageError, NotFoundError
        The file cannot be read.
    """
    try:
        state = place(path).stat()
    except OSError as error:
        raise unreadable(path, error) from error
    key = (path, name, state.st_size, state.st_mtime)
    with _MEMORY.lock:
        table = _MEMORY.find(key, len(wanted))
        if table is None:
            with open_hdf5(path) as file:
                dataset = find(file, name)
                _check_same(dataset, chunking)
                if not _MEMORY.wants_all(key):
                    return _look_up(dataset, chunking, wanted)
                table = _list_all(dataset, chunking)
            _MEMORY.keep(key, table)
    return table.take(wanted)


def _check_same(dataset: Any, chunking: Chunking) -> None:
    found = Chunking.of(dataset) if hasattr(dataset, "chunks") else None
    if found != chunking:
        path = dataset.file.filename
        msg = f"{dataset.name} in {path!r} is not what it was when it was opened; open it again"
        raise CorruptDataError(msg, url=path, key=dataset.name, expected=chunking.shape)


def _look_up(dataset: Any, chunking: Chunking, wanted: Int64Array) -> Places:
    corners = np.stack(np.unravel_index(wanted, chunking.grid), axis=1) * chunking.chunk
    found = [dataset.id.get_chunk_info_by_coord(tuple(corner)) for corner in corners.tolist()]
    offset = np.array([-1 if info.byte_offset is None else min(info.byte_offset, 2**62) for info in found], np.int64)
    size = np.array([info.size for info in found], np.int64)
    return Places(wanted, offset, size, (offset >= 0) & np.array([info.filter_mask != 0 for info in found]))


def _list_all(dataset: Any, chunking: Chunking) -> Places:
    numbers = array("Q")  # tuples would take ten times the memory

    def add(info: Any) -> None:
        numbers.extend((*info.chunk_offset, info.byte_offset, info.size, info.filter_mask))

    dataset.id.chunk_iter(add)
    ndim = len(chunking.shape)
    rows = np.frombuffer(numbers, np.uint64).reshape(-1, ndim + 3)
    inside = (rows[:, :ndim] < np.array(chunking.shape, np.uint64)).all(axis=1)  # others are left of a larger dataset
    rows = rows[inside]
    corners = rows[:, :ndim] // np.array(chunking.chunk, np.uint64)
    number = np.ravel_multi_index(tuple(corners.astype(np.int64).T), chunking.grid)
    order = np.argsort(number, kind="stable")
    offset = np.minimum(rows[order, ndim], 2**62).astype(np.int64)
    return Places(number[order], offset, rows[order, ndim + 1].astype(np.int64), rows[order, ndim + 2] != 0)


class _Memory:
    """Lists of chunks, the last used ones; and how many chunks of other datasets were looked up one by one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: OrderedDict[Any, int] = OrderedDict()
        self.tables: OrderedDict[Any, Places] = OrderedDict()

    def find(self, key: Any, n_wanted: int) -> Places | None:
        """Get the list of a dataset; None, and the question is counted, where there is none."""
        if key in self.tables:
            self.tables.move_to_end(key)
            return self.tables[key]
        self.asked[key] = self.asked.pop(key, 0) + n_wanted
        while len(self.asked) > MOST_ASKED:
            self.asked.popitem(last=False)
        return None

    def wants_all(self, key: Any) -> bool:
        """Whether so many chunks were asked for that a list is worth its time."""
        return self.asked[key] > FEW

    def keep(self, key: Any, table: Places) -> None:
        """Keep a list, and forget those that were not used for longest."""
        self.tables[key] = table
        self.asked.pop(key, None)
        while len(self.tables) > 1 and sum(len(kept.number) for kept in self.tables.values()) > MOST_KEPT:
            self.tables.popitem(last=False)


_MEMORY = _Memory()
