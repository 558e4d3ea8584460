"""Ranges of bytes of remote files: many at once, tried again where a failure may pass, errors without secrets."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stemstore.errors import (
    InputError,
    NotFoundError,
    OptionalDependencyError,
    StemStoreError,
    StorageError,
    TruncatedFileError,
)
from stemstore.sources.location import is_web

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stemstore.sources.location import Location

MAX_GAP = 64 * 1024
"""Bytes between two blocks that are read and dropped: what a line carries in the time of a round trip, and more."""

BATCH = 32 * 2**20
"""Bytes that are asked for at once."""

REQUEST = 4 * 2**20
"""Longest range of one request: several at once fill a line better than one."""

PAUSES = (0.2, 1.0)
"""Seconds before the second and the third attempt."""

_FINAL = (
    *(FileNotFoundError, NotADirectoryError, IsADirectoryError),
    *(PermissionError, NotImplementedError, ImportError, ValueError),
)
"""What another attempt does not change."""

_ranging: set[str] = set()
"""Web servers that were seen to send parts of files."""


def file_system(location: Location) -> tuple[Any, str]:
    """Give the file system of an address and its path there."""
    import fsspec.core

    return fsspec.core.url_to_fs(location.full, **location.options)


def read_ranges(location: Location, blocks: Sequence[tuple[int, int]], length: int, target: memoryview) -> None:
    """Read equally long blocks of a remote file into places of a buffer.

    Parameters
    ----------
    location
        The file.
    blocks
        Ascending pairs: where a block starts in the file, and where it goes in `target`.
    length : unit byte
        Length of every block.
    target
        Writeable bytes.

    Raises
    ------
    TruncatedFileError
        The file ends inside a block.
    NotFoundError, StorageError
        It is gone or cannot be read.

    Notes
    -----
    Memory: twice `BATCH` bytes, or a block where it is longer.
    """
    for runs in _batches(_runs(blocks, length), length):
        borders = [(run[0][0], run[-1][0] + length) for run in runs]
        answers = iter(fetch(location, [part for border in borders for part in cut(*border)]))
        for run, border in zip(runs, borders, strict=True):
            content = memoryview(b"".join(next(answers) for _ in cut(*border)))
            for start, goal in run:
                target[goal : goal + length] = content[start - border[0] : start - border[0] + length]


def _runs(blocks: Sequence[tuple[int, int]], length: int) -> Iterator[list[tuple[int, int]]]:
    """Put blocks together that lie close to each other."""
    run: list[tuple[int, int]] = []
    for start, goal in blocks:
        if run and not (0 <= start - run[-1][0] - length <= MAX_GAP and start + length - run[0][0] <= BATCH):
            yield run
            run = []
        run.append((start, goal))
    if run:
        yield run


def _batches(runs: Iterator[list[tuple[int, int]]], length: int) -> Iterator[list[list[tuple[int, int]]]]:
    """Put runs together that are asked for at once."""
    batch: list[list[tuple[int, int]]] = []
    held = 0
    for run in runs:
        size = run[-1][0] + length - run[0][0]
        if batch and held + size > BATCH:
            yield batch
            batch, held = [], 0
        batch.append(run)
        held += size
    if batch:
        yield batch


def cut(start: int, stop: int) -> list[tuple[int, int]]:
    """Cut a range of bytes into ranges for single requests."""
    return [(first, min(first + REQUEST, stop)) for first in range(start, stop, REQUEST)]


def fetch(location: Location, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read ranges of bytes of a remote file, all at once where its file system can.

    Raises
    ------
    TruncatedFileError
        The file ends inside a range.
    NotFoundError, StorageError
        It is gone or cannot be read.
    """
    with asking(location):
        fs, path = file_system(location)
        _make_sure_of_ranges(location, fs, path)
    found: list[Any] = [None] * len(ranges)
    for pause in (0.0, *PAUSES):
        missing = [i for i, part in enumerate(found) if not isinstance(part, bytes)]
        if not missing:
            break
        if any(isinstance(found[i], _FINAL) for i in missing):
            break
        time.sleep(pause)
        starts, stops = ([ranges[i][side] for i in missing] for side in (0, 1))
        with asking(location):
            parts = fs.cat_ranges([path] * len(missing), starts, stops, on_error="return")
        for i, part in zip(missing, parts, strict=True):
            found[i] = part if isinstance(part, Exception) else bytes(part)
    for part, (start, stop) in zip(found, ranges, strict=True):
        if isinstance(part, Exception):
            raise refused(location, part) from None
        _check_length(location, len(part), start, stop)
    return found


def _make_sure_of_ranges(location: Location, fs: Any, path: str) -> None:
    """Ask a web server for one byte, once, in a way that does not wait for the whole file where ranges are ignored."""
    host = location.full.partition("://")[2].partition("/")[0]
    if not is_web(location) or host in _ranging:
        return
    try:
        with fs.open(path, "rb", block_size=1, cache_type="none") as file:
            file.seek(1)
            file.read(1)
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        msg = f"the server of {str(location)!r} does not send parts of files; copy the file first"
        raise InputError(msg, url=str(location)) from None  # the text of the original error may hold secrets
    _ranging.add(host)


def _check_length(location: Location, got: int, start: int, stop: int) -> None:
    if got == stop - start:
        return
    if got > stop - start:
        msg = f"the server of {str(location)!r} sends the whole file where a part is asked for; copy the file first"
        raise StorageError(msg, url=str(location))
    msg = (
        f"file {str(location)!r} ends at byte {start + got}, expected at least {stop - start - got} more bytes; it was "
        "shortened after it was opened, open it again"
    )
    raise TruncatedFileError(msg, url=str(location), byte=start + got)


@contextmanager
def asking(location: Location) -> Iterator[None]:
    """Turn what a file system throws into errors of stemstore, without secrets."""
    try:
        yield
    except StemStoreError:
        raise
    except Exception as error:  # file systems raise what their libraries raise
        raise refused(location, error) from None  # the text of the original error may hold secrets


def refused(location: Location, error: Exception) -> StemStoreError:
    """Make the error for a remote file that cannot be read."""
    name = str.__str__(location)
    reason = location.censor(str(error)) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{name!r} does not exist or cannot be reached; check the address", url=name)
    if isinstance(error, ImportError):
        msg = f"{name!r} needs a package that is not installed: {reason}"
        return OptionalDependencyError(msg, url=name)
    if isinstance(error, ValueError):
        msg = f"{name!r} cannot be reached: {reason}; give a path or a URL that fsspec knows, such as s3://…"
        return InputError(msg, url=name)
    msg = f"{name!r} cannot be read: {type(error).__name__}: {reason}; check address, permissions and connection"
    return StorageError(msg, url=name)
