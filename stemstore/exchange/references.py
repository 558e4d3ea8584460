"""Virtual references: which bytes of which files are the chunks of a scan, for programs that read them in place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.lazy import selection_of
from stemstore.scan.stored import describe_store
from stemstore.sources.contract import LocatedSource
from stemstore.sources.files import check_unchanged
from stemstore.sources.frame_extents import NOWHERE, not_as_they_are
from stemstore.sources.streaming import EventScan, FrameScan
from stemstore.store.arrays import StoredFrames
from stemstore.store.chunk_extents import chunk_extents
from stemstore.store.events import StoredEvents
from stemstore.store.urls import is_local
from stemstore.store.virtual import VirtualArray

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr

    from stemstore._types import Int64Array
    from stemstore_schemas import SourceFile

CHUNK_BYTES = 2 * 2**20
"""Frames that lie back to back are referred to together up to this size, as chunks of a store would be."""


@dataclass(frozen=True, eq=False)
class References:
    """The chunks of a scan as ranges of files.

    Attributes
    ----------
    array
        The array that the chunks make up.
    files
        Paths or URLs.
    base
        Folder or URL that all files lie below.
    number, offset, length : shape of the grid of chunks; offset and length in bytes
        File, first byte and length of every chunk; the offset is `NOWHERE` where there is none.
    rows_reversed
        Whether the last detector row comes first.
    sources
        What the references were made of.
    """

    array: VirtualArray
    files: tuple[str, ...]
    base: str
    number: Int64Array
    offset: Int64Array
    length: Int64Array
    rows_reversed: bool
    sources: tuple[SourceFile, ...]

    @property
    def n_chunks(self) -> int:
        """Number of references."""
        return int((self.offset != NOWHERE).sum())

    @property
    def n_missing(self) -> int:
        """Number of chunks that no file holds."""
        return self.offset.size - self.n_chunks

    def at(self, prefix: str | None) -> References:
        """Name files by the URLs where they will be found.

        Parameters
        ----------
        prefix
            What stands in the place of `base`: a URL or folder, or ``""`` for paths relative to it. None for where the
            files are now.
        """
        base = _url(self.base, self.base, prefix)  # without a slash at its end, unless it is a root
        return replace(self, files=tuple(_url(path, self.base, prefix) for path in self.files), base=base)

    def used(self) -> list[str]:
        """Name the files that are referred to, in their order."""
        there = np.unique(self.number[self.offset != NOWHERE])
        return list(dict.fromkeys(self.files[at] for at in there.tolist()))


def references_of(image: xr.DataArray, url: str) -> References:
    """Find the chunks of a scan in its files; no pixel is read.

    Parameters
    ----------
    image
        ``intensity`` of an opened scan, from which nothing was cut but flyback columns.
    url
        What was opened, for messages.

    Raises
    ------
    InputError
        The scan holds events, or frames that do not lie in the files as they are.
    StaleStoreError, CorruptDataError, StorageError
        The files were changed meanwhile, the store is damaged, or they cannot be read.
    """
    found = selection_of(image.data)
    source = None if found is None else found[0]
    if isinstance(source, StoredFrames):
        return _of_store(source, image)
    if isinstance(source, (EventScan, StoredEvents)):
        raise _events(url)
    if not isinstance(source, FrameScan):
        raise not_as_they_are([url], "are no longer those of one scan")
    if not isinstance(source.source, LocatedSource):
        raise not_as_they_are([url], "are packed, compressed or spread over the file")
    return _of_frames(source.source, image)


def _events(url: str) -> InputError:
    msg = (
        f"{url!r} holds electron events, but references lead to pixels; export it to 'stempy' or 'raw-csr', or make "
        f"frames of it with stemstore.convert({url!r}, 'frames.zarr', count=False) and refer to those"
    )
    return InputError(msg, url=url)


def _of_store(scan: StoredFrames, image: xr.DataArray) -> References:
    found = chunk_extents(scan)
    grid = tuple(slice(0, -(-n // c)) for n, c in zip(image.shape, found.chunk, strict=True))
    dtype = scan.dtype.newbyteorder("<")
    array = _array(image, found.chunk, dtype, codec=found.codec)
    number, offset, length = found.number[grid], found.offset[grid], found.length[grid]
    base = common_folder([scan.url])
    sources = tuple(describe_store(scan).files)
    return References(array, found.files, base, number, offset, length, rows_reversed=False, sources=sources)


def _of_frames(source: LocatedSource, image: xr.DataArray) -> References:
    scan, frame = source.scan_shape, source.frame_shape
    found = source.frame_extents(0, math.prod(scan))
    check_unchanged(source.metadata.files)
    shown = tuple(slice(0, n) for n in image.shape[:-2])
    tiles = (frame[0] // found.tile[0], frame[1] // found.tile[1])
    number, offset = (values.reshape(*scan, *tiles)[shown] for values in (found.number, found.offset))
    step = (1,) * len(scan)
    if tiles == (1, 1):
        step = together(number[..., 0, 0], offset[..., 0, 0], found.tile_bytes)
        first = tuple(slice(None, None, n) for n in step)
        number, offset = number[first], offset[first]
    length = np.full(offset.shape, math.prod(step) * found.tile_bytes)
    fill = math.nan if found.dtype.kind == "f" else None
    array = _array(image, (*step, *found.tile), found.dtype, fill=fill)
    return References(
        array=array,
        files=found.files,
        base=common_folder(found.files),
        number=number,
        offset=offset,
        length=length,
        rows_reversed=found.rows_reversed,
        sources=tuple(source.metadata.files),
    )


def _array(image: xr.DataArray, chunk: tuple[int, ...], dtype: np.dtype[Any], **more: Any) -> VirtualArray:
    values: dict[str, Any] = {"codec": None, **more}
    dims = tuple(map(str, image.dims))
    return VirtualArray(str(image.name), image.shape, chunk, dtype, dims=dims, attributes=dict(image.attrs), **values)


def together(number: Int64Array, offset: Int64Array, length: int) -> tuple[int, ...]:
    """Choose how many frames make a chunk: the most that lie back to back everywhere, up to `CHUNK_BYTES`.

    Parameters
    ----------
    number, offset : shape (scan axes)
        File and first byte of every frame.
    length : unit byte
        Of a frame.

    Returns
    -------
    chunk
        Extents along the scan axes, each a divisor of the extent of the scan, so that no chunk reaches beyond it.
    """
    chunk = [1] * offset.ndim
    for axis in reversed(range(offset.ndim)):
        extent = offset.shape[axis]
        room = CHUNK_BYTES // (math.prod(chunk) * length)
        for size in (n for n in range(min(room, extent), 1, -1) if extent % n == 0):
            if _one_piece(number, offset, (*chunk[:axis], size, *chunk[axis + 1 :]), length):
                chunk[axis] = size
                break
        if chunk[axis] < extent:
            break
    return tuple(chunk)


def _one_piece(number: Int64Array, offset: Int64Array, chunk: tuple[int, ...], length: int) -> bool:
    """Whether the frames of every chunk follow each other in one file, or are all missing."""
    place, file = _blocks(offset, chunk), _blocks(number, chunk)
    missing = place == NOWHERE
    follow = (place == place[:, :1] + np.arange(place.shape[1]) * length) & (file == file[:, :1]) & ~missing[:, :1]
    return bool((follow.all(axis=1) | missing.all(axis=1)).all())


def _blocks(values: Int64Array, chunk: tuple[int, ...]) -> Int64Array:
    """Give the values of every chunk as a row."""
    split = [part for n, c in zip(values.shape, chunk, strict=True) for part in (n // c, c)]
    axes = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return values.reshape(split).transpose(axes).reshape(-1, math.prod(chunk))


def common_folder(files: Iterable[str]) -> str:
    """Give the folder or URL that all files lie below, without a slash at its end."""
    folders = [_posix(path).split("/")[:-1] for path in files]
    shared = []
    for parts in zip(*folders):  # noqa: B905  # the shortest one ends what they share
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _url(path: str, base: str, prefix: str | None) -> str:
    """Give the URL of a path, moved from `base` to `prefix` where one is given."""
    text = _posix(path)
    if prefix is not None:
        inside = text[len(base) :].lstrip("/")
        return f"{prefix.rstrip('/')}/{inside}".rstrip("/") if prefix else inside
    return f"file://{'' if text.startswith('/') else '/'}{text}" if is_local(text) else text


def _posix(path: str) -> str:
    return Path(path).as_posix() if is_local(path) and "://" not in path else str(path)
