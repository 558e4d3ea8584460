"""The disks of all pieces put in order: one ragged list in the C order of the scan."""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, Int64Array

CHUNK = 2**20
"""Disks of a chunk of a stored column: 4 MiB."""


class Assembly:
    """Pieces, and the order of their disks in the whole.

    Parameters
    ----------
    places
        Flat positions of every piece.
    counts
        Disks of each of these positions, for pieces that are there; None for others, which have none.
    rows
        Gives the disks of a piece, (disks, columns).
    n_positions, n_columns
        Of the scan, and of a disk.

    Attributes
    ----------
    offset : shape (n_positions + 1,), int64
        First disk of every position.
    """

    def __init__(
        self,
        places: list[Int64Array],
        counts: list[Array | None],
        rows: Callable[[int], Array],
        n_positions: int,
        n_columns: int,
    ) -> None:
        self._places, self._counts, self._rows, self.n_columns = places, counts, rows, n_columns
        n_disks = np.zeros(n_positions, np.int64)
        for place, count in zip(places, counts, strict=True):
            if count is not None:
                n_disks[place] = count
        self.offset = np.concatenate([[0], np.cumsum(n_disks)]).astype(np.int64)

    @property
    def n_disks(self) -> int:
        """Disks of all positions."""
        return int(self.offset[-1])

    def column(self, column: int, start: int, stop: int) -> Array:
        """Give a column of the disks ``start <= i < stop`` of the whole."""
        out = np.zeros(stop - start, np.float32)
        for number, (place, count) in enumerate(zip(self._places, self._counts, strict=True)):
            if count is None or not self._touches(place, start, stop):
                continue
            target = _targets(self.offset[place], count) - start
            inside = (target >= 0) & (target < stop - start)
            out[target[inside]] = self._rows(number)[inside, column]
        return out

    def _touches(self, place: Int64Array, start: int, stop: int) -> bool:
        first, last = self.offset[place.min()], self.offset[place.max() + 1]
        return bool(first < stop and last > start)


@dataclass(frozen=True, eq=False)
class LazyColumn:
    """One column of an assembly, put together when it is sliced."""

    assembly: Assembly
    column: int
    ndim = 1
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int]:
        """Number of disks."""
        return (self.assembly.n_disks,)

    def __getitem__(self, key: Any) -> Array:
        """Give a slice without step."""
        (part,) = key if isinstance(key, tuple) else (key,)
        start, stop, _ = part.indices(self.shape[0])
        return self.assembly.column(self.column, start, stop)


def lazy_columns(assembly: Assembly) -> list[Any]:
    """Columns as dask arrays of chunks of 4 MiB."""
    import dask.array as da

    name = f"disk-columns-{uuids.uuid4()}"
    meta = np.empty(0, np.float32)
    return [
        da.from_array(LazyColumn(assembly, column), chunks=CHUNK, name=f"{name}-{column}", meta=meta)
        for column in range(assembly.n_columns)
    ]


def _targets(first: Int64Array, count: Array) -> Int64Array:
    """Places in the whole of disks that follow each other in a piece."""
    count = count.astype(np.int64)
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(count.sum(), dtype=np.int64)
