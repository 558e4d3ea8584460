"""Frames in HDF5 datasets: any order of axes, one dataset or several, in one file or in several.

Chunked datasets are read by hyperslabs of whole scan rows, so that every chunk is decoded once per call, and the cache
of HDF5 stays small. Contiguous ones are read at their byte offset, and chunks of the filters that cameras use are
decoded here (see `stemstore.sources.hdf5_packed`), both past the global lock of h5py.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError
from stemstore.sources.files import file_size
from stemstore.sources.frame_extents import FrameExtents, Run, extents_of_runs, not_as_they_are, positions
from stemstore.sources.geometry import ValidityArray, check_range
from stemstore.sources.hdf5 import dtype_of, find, linked_files, open_hdf5, require_filters
from stemstore.sources.hdf5_chunks import Chunking
from stemstore.sources.hdf5_packed import PackedDataset
from stemstore.sources.mapped import view_block
from stemstore.sources.records import MAX_ITEM_BYTES, as_bytes, frame_buffer, read_blocks, swap_bytes
from stemstore.sources.remote import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stemstore._types import Array
    from stemstore.sources.contract import DetectorImage
    from stemstore_schemas import SourceMetadata

BIG_CHUNK = 256 * 2**20
"""Bytes of a decoded chunk that are worth a warning: every read of one frame decodes as much."""


@dataclass(frozen=True, slots=True)
class Part:
    """Frames in one dataset.

    Attributes
    ----------
    path, dataset
        The file that holds it, links followed, and its name there.
    shape, dtype
        As stored, byte order included.
    scan_axes
        Its axes that count frames, slow first.
    frame_axes
        Its axes that are detector rows and columns.
    picked
        Pairs of every other axis and the index taken on it.
    block : unit byte
        Where the first frame lies and how far it is to the next, for frames that lie in the file as they are.
    files
        All files that hold its pixels.
    chunk_bytes : unit byte
        Size of a decoded chunk; 0 without chunks.
    chunking
        How chunks are packed that are not left to HDF5 altogether.
    """

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scan_axes: tuple[int, ...]
    frame_axes: tuple[int, int]
    picked: tuple[tuple[int, int], ...]
    block: tuple[int, int] | None
    files: tuple[str, ...]
    chunk_bytes: int
    chunking: Chunking | None

    @classmethod
    def of(
        cls,
        dataset: Any,
        *,
        scan_axes: Sequence[int] | None = None,
        frame_axes: tuple[int, int] | None = None,
        picked: Mapping[int, int] | None = None,
    ) -> Part:
        """Look at a dataset of an open file; no pixel is read.

        Parameters
        ----------
        dataset
            An ``h5py.Dataset``.
        scan_axes, frame_axes, picked
            As the attributes. By default, of the axes not picked the last two are the detector and the others the scan.

        Raises
        ------
        InputError
            It holds no pixels, or the axes are not its own.
        OptionalDependencyError
            A filter is missing.
        NotFoundError
            Files that hold its pixels are missing.
        TruncatedFileError
            The file ends before its pixels do.
        CorruptDataError
            A filter contradicts the type of the pixels.
        """
        dtype, name = _pixels(dataset), f"{dataset.name} in {dataset.file.filename!r}"
        ndim, taken = dataset.ndim, dict(picked or {})
        left = [axis for axis in range(ndim) if axis not in taken]
        frame = tuple(left[-2:]) if frame_axes is None else frame_axes
        scan = tuple(axis for axis in left if axis not in frame) if scan_axes is None else tuple(scan_axes)
        if sorted((*scan, *frame, *taken)) != list(range(ndim)) or len(frame) != 2 or not scan:  # noqa: PLR2004 (rows and columns)
            msg = f"{name} has shape {dataset.shape}; scan axes {scan}, detector axes {frame} and {taken} do not fit it"
            raise InputError(msg, key="axes", found=dataset.shape)
        if not all(0 <= index < dataset.shape[axis] for axis, index in taken.items()):
            msg = f"{name} has shape {dataset.shape}, which has no index {taken} (axis: index); choose a smaller one"
            raise InputError(msg, key="index", found=taken, expected=dataset.shape)
        chunking = Chunking.of(dataset)
        if chunking is None or not chunking.decoded_here:
            require_filters(dataset)
        files = tuple(map(str, linked_files(dataset)))
        path, shape = str(place(dataset.file.filename)), tuple(dataset.shape)
        block = _block(dataset, dtype, (*scan, *frame), taken)
        chunk = math.prod(dataset.chunks or (0,)) * dtype.itemsize
        picks = tuple(taken.items())
        return cls(path, dataset.name, shape, dtype, scan, (frame[0], frame[1]), picks, block, files, chunk, chunking)

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Extents of the scan axes, slow first."""
        return tuple(self.shape[axis] for axis in self.scan_axes)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.shape[self.frame_axes[0]], self.shape[self.frame_axes[1]]

    @property
    def n_frames(self) -> int:
        """Frames in the dataset."""
        return math.prod(self.scan_shape)

    @property
    def warnings(self) -> list[str]:
        """What makes reading slow."""
        if self.chunk_bytes <= BIG_CHUNK:
            return []
        size = self.chunk_bytes / 2**20
        return [f"chunks of {self.dataset} in {self.path!r} have {size:.0f} MiB, of which any frame needs a whole one"]

    def read(self, start: int, out: Array) -> None:
        """Fill `out`, shape (n, ky, kx) in native byte order, with the frames from number `start` on.

        Axes in another order than scan, rows, columns take a second buffer of the size of `out`.
        """
        if self.block is not None:
            offset, stride = self.block
            size = math.prod(self.frame_shape) * self.dtype.itemsize
            steps = np.arange(len(out), dtype=np.int64)
            read_blocks(self.path, offset + (start + steps) * stride, size, as_bytes(out), steps * size)
            if not self.dtype.isnative:
                swap_bytes(out)
            return
        packed = None if self.chunking is None else PackedDataset(self.path, self.dataset, self.chunking)
        if packed is not None and packed.chunking.decoded_here:
            for selection, here in self._boxes(start, out):
                packed.read(selection, here)
            return
        with open_hdf5(self.path) as file:
            dataset = find(file, self.dataset)
            if tuple(dataset.shape) != self.shape or dataset.dtype != self.dtype:
                msg = f"{self.dataset} in {self.path!r} changed to {dataset.dtype} {dataset.shape}; open it again"
                raise CorruptDataError(msg, url=self.path, key=self.dataset, expected=self.shape)
            require_filters(dataset)
            for selection, here in self._boxes(start, out):
                if packed is not None:
                    packed.check(selection)
                if here.flags.c_contiguous:
                    dataset.read_direct(here, source_sel=tuple(selection))
                else:
                    here[...] = dataset[tuple(selection)]

    def _boxes(self, start: int, out: Array) -> Iterator[tuple[list[slice], Array]]:
        """Cut a range of frames into selections of the dataset, each with the part of `out` that it fills.

        That part has the axes of the dataset in their order, those not wanted with length 1.
        """
        order = [*self.scan_axes, *self.frame_axes]
        stored, done = sorted(order), 0
        for box in boxes(self.scan_shape, start, start + len(out)):
            selection = [slice(0, extent) for extent in self.shape]
            for axis, part in zip(self.scan_axes, box, strict=True):
                selection[axis] = part
            for axis, index in self.picked:
                selection[axis] = slice(index, index + 1)
            extent = tuple(place.stop - place.start for place in box)
            here = out[done : done + math.prod(extent)].reshape(*extent, *self.frame_shape)
            done += math.prod(extent)
            here = here.transpose([order.index(axis) for axis in stored])
            yield selection, np.expand_dims(here, tuple(axis for axis, _ in self.picked))

    def view(self, start: int, stop: int) -> Array | None:
        """Show frames in the page cache; None where they have to be read."""
        size = math.prod(self.frame_shape) * self.dtype.itemsize
        if self.block is None or self.block[1] != size:
            return None
        return view_block(self.path, self.block[0] + start * size, (stop - start, *self.frame_shape), self.dtype)


def _pixels(dataset: Any) -> np.dtype[Any]:
    """Type of the pixels of a dataset, refused where they are none."""
    import h5py

    name = f"{dataset.name} in {dataset.file.filename!r}"
    if not isinstance(dataset, h5py.Dataset):
        msg = f"{name} is a {type(dataset).__name__.lower()}, expected a dataset; choose another one"
        raise InputError(msg, key=dataset.name, found=type(dataset).__name__)
    dtype = dtype_of(dataset)
    if dtype is None or dtype.kind not in "uif" or dtype.itemsize > MAX_ITEM_BYTES:
        msg = f"{name} holds values of type {dtype or 'unknown'}, expected integers or floats; choose another dataset"
        raise InputError(msg, key=dataset.name, found=str(dtype))
    if dataset.shape is None or dataset.ndim < 3 or 0 in dataset.shape:  # noqa: PLR2004 (one scan and two detector axes)
        msg = f"{name} has shape {dataset.shape}, expected frames along one or more axes; choose another dataset"
        raise InputError(msg, key=dataset.name, found=dataset.shape)
    return dtype


def _block(
    dataset: Any, dtype: np.dtype[Any], order: tuple[int, ...], picked: dict[int, int]
) -> tuple[int, int] | None:
    """Byte offset and stride of frames that lie in the file one after the other, as they are."""
    import h5py

    offset = dataset.id.get_offset()
    if offset is None or dataset.is_virtual or dataset.external or order != tuple(sorted(order)):
        return None
    if not h5py.h5t.py_create(dtype).equal(dataset.id.get_type()):
        return None
    strides = [math.prod(dataset.shape[axis + 1 :]) * dtype.itemsize for axis in range(dataset.ndim)]
    lengths = {axis: dataset.shape[axis] for axis in order}
    *scan, rows, columns = order
    whole = strides[columns] == dtype.itemsize and strides[rows] == lengths[columns] * dtype.itemsize
    if not whole or any(strides[a] != strides[b] * lengths[b] for a, b in itertools.pairwise(scan)):
        return None
    end = offset + math.prod(dataset.shape) * dtype.itemsize
    if file_size(place(dataset.file.filename)) < end:
        msg = f"file {dataset.file.filename!r} ends before {dataset.name} does, at byte {end}; copy it again"
        raise TruncatedFileError(msg, url=dataset.file.filename, expected=end)
    return offset + sum(index * strides[axis] for axis, index in picked.items()), strides[scan[-1]]


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """Cut a range of flat positions of a scan into boxes of consecutive positions, in order: rows as long as possible.

    Parameters
    ----------
    shape
        Extents, slow first.
    start, stop
        Half-open range of flat positions.
    """
    if start >= stop:
        return
    inner = math.prod(shape[1:])
    whole = tuple(slice(0, extent) for extent in shape[1:])
    first, last = -(-start // inner), stop // inner
    if first > last:  # inside one row
        row = start // inner
        for box in boxes(shape[1:], start - row * inner, stop - row * inner):
            yield (slice(row, row + 1), *box)
        return
    for box in boxes(shape[1:], start - (first - 1) * inner, inner) if start < first * inner else ():
        yield (slice(first - 1, first), *box)
    if first < last:
        yield (slice(first, last), *whole)
    for box in boxes(shape[1:], 0, stop - last * inner) if stop > last * inner else ():
        yield (slice(last, last + 1), *box)


@dataclass(frozen=True, eq=False)
class Hdf5Source:
    """Frames of a scan in one or several HDF5 datasets, each opened for the moment of a read.

    Attributes
    ----------
    parts
        The datasets, all of one frame shape.
    starts
        Flat position of the first frame of each part, ascending; positions in between are missing.
    dtype
        Pixel type in native byte order.
    references
        Images of the detector that the files know.
    """

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    metadata: SourceMetadata
    validity: ValidityArray | None
    parts: tuple[Part, ...]
    starts: tuple[int, ...]
    references: Mapping[str, DetectorImage] = field(default_factory=dict)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Parameters
        ----------
        start, stop
            Half-open range of flat scan positions.
        out : shape (stop - start, ky, kx), optional
            Buffer of the source's dtype.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError, StorageError, NotFoundError
            A file is damaged, changed or gone.
        OptionalDependencyError
            A filter is missing here.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        filled, blank = start, np.nan if self.dtype.kind == "f" else 0
        for part, first in zip(self.parts, self.starts, strict=True):
            begin, end = max(start, first), min(stop, first + part.n_frames)
            if begin < end:
                frames[filled - start : begin - start] = blank
                part.read(begin - first, frames[begin - start : end - start])
                filled = end
        frames[filled - start :] = blank
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        InputError
            They lie in chunks, or their pixels are spread.
        """
        wanted = positions(start, stop, math.prod(self.scan_shape))
        runs = []
        for part, first in zip(self.parts, self.starts, strict=True):
            if part.block is None:
                raise not_as_they_are([part.path], f"lie in {part.dataset} in chunks or in another order of axes")
            runs.append(Run(part.path, first, part.n_frames, *part.block))
        if any(part.dtype != self.parts[0].dtype for part in self.parts):
            raise not_as_they_are([self.parts[0].path], "have several byte orders")
        return extents_of_runs(wanted, runs, self.frame_shape, self.parts[0].dtype)

    def view_frames(self, start: int, stop: int) -> Array | None:
        """Show frames that lie in one contiguous dataset in the page cache; None where they have to be read.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        for part, first in zip(self.parts, self.starts, strict=True):
            if first <= start and stop <= first + part.n_frames:
                return part.view(start - first, stop - first)
        return None


def join_parts(parts: Sequence[Part]) -> tuple[int, ...]:
    """Flat position of the first frame of each part, one part after the other.

    Raises
    ------
    CorruptDataError
        Their frames differ in shape or type.
    """
    for part in parts[1:]:
        if part.frame_shape != parts[0].frame_shape or part.dtype.newbyteorder("=") != parts[0].dtype.newbyteorder("="):
            msg = (
                f"{part.dataset} in {part.path!r} has {part.dtype} frames of {part.frame_shape}, expected "
                f"{parts[0].dtype} of {parts[0].frame_shape} as in {parts[0].path!r}; the files belong to several scans"
            )
            raise CorruptDataError(msg, url=part.path, found=part.frame_shape, expected=parts[0].frame_shape)
    return (0, *itertools.accumulate(part.n_frames for part in parts[:-1]))
