"""Chunks of HDF5 datasets, read and decoded without HDF5.

HDF5 decodes one chunk at a time under one lock, and its decoders believe the sizes that a damaged chunk states, which
ends the process. Here HDF5 is only asked where chunks lie (`stemstore.sources.hdf5_chunks`); they are read in long
pieces and decoded by `stemstore.kernels.bitshuffle`, by any number of threads at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.sources.hdf5_chunks import places_of
from stemstore.sources.records import MAX_GAP, as_bytes, read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.hdf5_chunks import Chunking

PIECE = 2**22
"""Bytes read, and bytes decoded, at once, unless one chunk is longer: inside the third-level cache, and long enough
that threads seldom wait for each other's Python."""


class Steps(NamedTuple):
    """What a selection wants of each chunk along one axis.

    Attributes
    ----------
    first : shape (n,)
        First index of each chunk.
    begin, end : shape (n,)
        Range of indices that are wanted of it.
    start
        Where the selection begins.
    """

    first: Int64Array
    begin: Int64Array
    end: Int64Array
    start: int

    @classmethod
    def of(cls, chosen: slice, extent: int, chunk: int) -> Steps:
        """Cut a selection along one axis by chunks."""
        start, stop, _ = chosen.indices(extent)
        first = np.arange(start - start % chunk, stop, chunk)
        return cls(first, np.maximum(first, start), np.minimum(first + chunk, stop), start)


class Run(NamedTuple):
    """Chunks that lie close together in the file, in its order; or chunks that were never written.

    Attributes
    ----------
    which : shape (n,)
        Their places among all that the selection touches.
    offset, size, bare : shape (n,)
        As in `Places`.
    """

    which: Int64Array
    offset: Int64Array
    size: Int64Array
    bare: Array

    def part(self, chosen: slice) -> Run:
        """Take some of the chunks."""
        return Run(self.which[chosen], self.offset[chosen], self.size[chosen], self.bare[chosen])


@dataclass(frozen=True, slots=True)
class PackedDataset:
    """A dataset whose chunks are read without HDF5.

    Attributes
    ----------
    path, name
        The file, and its name there.
    chunking
        As it was found when it was opened.
    """

    path: str
    name: str
    chunking: Chunking

    def read(self, selection: Sequence[slice], target: Array) -> None:
        """Read and decode the chunks that a selection touches.

        Parameters
        ----------
        selection
            A slice for each axis.
        target
            Filled; of the shape of the selection, and of any type and strides.

        Raises
        ------
        CorruptDataError
            Sizes in a chunk contradict each other, a chunk does not decode, or the file changed.
        StorageError, NotFoundError
            The file cannot be read.

        Notes
        -----
        Memory: four times `PIECE`, or of a chunk where those are longer.
        """
        touched = Touched(self.chunking, selection)
        rows = touched.rows(target)
        for run in self._runs(touched):
            if run.offset[0] < 0:
                for i in run.which.tolist():
                    target[touched.windows(i)[1]] = self.chunking.fill
            elif rows is not None and (np.diff(run.which) == 1).all():
                self._decode(run, touched, rows[run.which[0] : run.which[-1] + 1])
            else:
                plain = np.empty((len(run.which), self.chunking.length), np.uint8)
                self._decode(run, touched, plain)
                chunks = plain.view(self.chunking.dtype).reshape(-1, *self.chunking.chunk)
                for i, chunk in zip(run.which.tolist(), chunks, strict=True):
                    inside, outside = touched.windows(i)
                    target[outside] = chunk[inside]

    def check(self, selection: Sequence[slice]) -> None:
        """Make sure that HDF5 can decode the chunks of a selection, where it is HDF5 that reads them.

        Raises
        ------
        CorruptDataError
            Sizes in a chunk contradict each other.
        """
        from stemstore.kernels.bitshuffle import is_sound

        touched, itemsize = Touched(self.chunking, selection), self.chunking.dtype.itemsize
        for run in self._runs(touched):
            if run.offset[0] < 0:
                continue
            buffer, starts = self._load(run)
            for k in np.flatnonzero(~run.bare).tolist():
                chunk = buffer[starts[k] : starts[k] + run.size[k]]
                if not is_sound(chunk, self.chunking.packing, itemsize, self.chunking.length):
                    raise self._contradicts(touched, run.part(slice(k, k + 1)))

    def _runs(self, touched: Touched) -> Iterator[Run]:
        """Find the chunks, and cut them into runs that are read at once."""
        places = places_of(self.path, self.name, self.chunking, touched.numbers)
        order = np.argsort(places.offset, kind="stable")
        whole = Run(order, places.offset[order], places.size[order], places.bare[order])
        most, first, n = max(1, PIECE // self.chunking.length), 0, len(order)
        offsets, ends = whole.offset.tolist(), (whole.offset + whole.size).tolist()
        for i in range(1, n + 1):
            if i < n and (offsets[i] < 0 or i - first < most):
                near = offsets[first] >= 0 and 0 <= offsets[i] - ends[i - 1] <= MAX_GAP
                if offsets[i] < 0 or (near and ends[i] - offsets[first] <= PIECE):
                    continue
            run, first = whole.part(slice(first, i)), i
            if run.size.max() > self.chunking.longest:
                raise self._contradicts(touched, run.part(slice(int(run.size.argmax()), None)))
            yield run

    def _load(self, run: Run) -> tuple[Array, Int64Array]:
        """Read a run into a buffer with room for the decoder; and tell where its chunks begin."""
        from stemstore.kernels.bitshuffle import room_for

        first, length = int(run.offset[0]), int(run.offset[-1] + run.size[-1] - run.offset[0])
        room = room_for(int(run.size.sum()))
        buffer = np.empty(room + length, np.uint8)
        read_blocks(self.path, np.array([first]), length, as_bytes(buffer), np.array([room]))
        return buffer, run.offset - first + room

    def _decode(self, run: Run, touched: Touched, out: Array) -> None:
        """Decode a run into a table of one row per chunk; one by one where they are not all alike, or damaged."""
        from stemstore.kernels.bitshuffle import unpack

        buffer, starts = self._load(run)
        packing, itemsize = self.chunking.packing, self.chunking.dtype.itemsize
        if not run.bare.any() and unpack(buffer, starts, starts + run.size, packing, itemsize, out):
            return
        if len(out) > 1:
            for k in range(len(out)):
                self._decode(run.part(slice(k, k + 1)), touched, out[k : k + 1])
        elif run.bare.all() and run.size[0] == out.size:
            out[0] = buffer[starts[0] :]
        else:
            raise self._contradicts(touched, run)

    def _contradicts(self, touched: Touched, run: Run) -> CorruptDataError:
        corner, offset = touched.corner(int(run.which[0])), int(run.offset[0])
        msg = (
            f"the chunk of {self.name} at {corner} (byte {offset} of {self.path!r}) contradicts its own sizes; the "
            "file is damaged, copy it again"
        )
        return CorruptDataError(msg, url=self.path, key=self.name, byte=offset)


class Touched:
    """The chunks that a selection touches, counted with the last axis fastest.

    Attributes
    ----------
    numbers : shape (n,)
        Their numbers in the grid of the dataset.
    """

    def __init__(self, chunking: Chunking, selection: Sequence[slice]) -> None:
        self.chunking = chunking
        axes = zip(selection, chunking.shape, chunking.chunk, strict=True)
        self.steps = [Steps.of(*axis) for axis in axes]
        self.numbers: Int64Array = np.zeros(1, np.int64)
        for steps, chunk, extent in zip(self.steps, chunking.chunk, chunking.grid, strict=True):
            self.numbers = (self.numbers[:, None] * extent + steps.first // chunk).reshape(-1)

    def windows(self, i: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where what is wanted of chunk i lies: in the chunk, and in the selection."""
        found = [(steps.begin[k], steps.end[k], steps.first[k], steps.start) for steps, k in self._of(i)]
        inside = tuple(slice(begin - first, end - first) for begin, end, first, _ in found)
        return inside, tuple(slice(begin - start, end - start) for begin, end, _, start in found)

    def corner(self, i: int) -> tuple[int, ...]:
        """First index of chunk i in the dataset."""
        return tuple(int(steps.first[k]) for steps, k in self._of(i))

    def rows(self, target: Array) -> Array | None:
        """See a target as bytes, shape (n, length), where all chunks are wanted whole and lie in it one by one."""
        chunk, axis = self.chunking.chunk, len(self.steps) - 1
        while axis > 0 and chunk[axis] == target.shape[axis]:
            axis -= 1
        whole = all((steps.end - steps.begin == n).all() for steps, n in zip(self.steps, chunk, strict=True))
        fits = target.dtype == self.chunking.dtype and target.flags.c_contiguous
        if not (whole and fits and math.prod(chunk[:axis]) == 1):
            return None
        return target.reshape(-1).view(np.uint8).reshape(len(self.numbers), self.chunking.length)

    def _of(self, i: int) -> list[tuple[Steps, int]]:
        """Index of chunk i along each axis."""
        found = []
        for steps in reversed(self.steps):
            i, k = divmod(i, len(steps.first))
            found.append((steps, k))
        return found[::-1]
