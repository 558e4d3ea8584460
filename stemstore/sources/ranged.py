"""Remote files read by ranges of bytes: many at once for pixels, a cached block at a time for headers.

Nothing stays open: every range is a request of its own. Failures that may pass are tried again.
"""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
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
    from stemstore.sources.remote import RemotePath

BLOCK = 16 * 1024
"""Bytes of a block of the cache: what searches for headers jump over, and what a round trip carries for nothing."""

MOST_AHEAD = 16
"""Blocks fetched at once where one follows the other."""

CACHED = 32 * 2**20
"""Bytes of blocks that a process keeps, of all files together."""

MAX_GAP = 64 * 1024
"""Bytes between two blocks that are read and dropped: what a line carries in the time of a round trip, and more."""

BATCH = 32 * 2**20
"""Bytes that are asked for at once."""

REQUEST = 4 * 2**20
"""Longest range of one request: several at once fill a line better than one."""

PAUSES = (0.2, 1.0)
"""Seconds before the second and the third attempt."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError, ValueError)
"""What another attempt does not change."""


class BlockCache:
    """Blocks of files that were used last; shared by the threads of a process."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[Any, int], bytes] = OrderedDict()

    def get(self, file: Any, number: int) -> bytes | None:
        """Give a block, if it is there."""
        with self._lock:
            block = self._blocks.get((file, number))
            if block is not None:
                self._blocks.move_to_end((file, number))
            return block

    def put(self, file: Any, number: int, block: bytes) -> None:
        """Keep a block, and drop those that were not used for longest."""
        with self._lock:
            self.held += len(block) - len(self._blocks.pop((file, number), b""))
            self._blocks[file, number] = block
            while self.held > self.limit:
                self.held -= len(self._blocks.popitem(last=False)[1])


_cache = BlockCache(CACHED)
_ranging: set[str] = set()
"""Web servers that were seen to send parts of files."""


class RangedFile(io.BufferedIOBase):
    """A remote file as an open one: readable, seekable, and nothing to close.

    Short reads come from blocks of the cache, long ones are requests of their own.

    Parameters
    ----------
    path
        The file; its size and its mark of change are looked up.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path, self.size = path, path.stat().st_size
        self.name = str(path)
        self._key = (path.location.full, self.size, path.version or id(self))
        self._place, self._next, self._ahead = 0, -1, 1
        self._held, self._held_at, self._end, self._window = b"", 0, -1, 0

    def __repr__(self) -> str:
        """Give the address; HDF5 takes it for the name of the file."""
        return str.__str__(self.path.location)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            msg = f"place {start + offset} lies before the begin of {self.name!r}"
            raise ValueError(msg)
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """Tell the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self.size - self._place))
        view[:length] = self._bytes(self._place, length)
        self._place += length
        return length

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, or what is left."""
        left = max(0, self.size - self._place)
        content = self._bytes(self._place, left if size is None or size < 0 else min(size, left))
        self._place += len(content)
        return content

    def read1(self, size: int = -1) -> bytes:
        """Read like `read`."""
        return self.read(size)

    def _bytes(self, start: int, length: int) -> bytes:
        if length >= BLOCK:
            return self._long(start, length)
        numbers = range(start // BLOCK, (start + length - 1) // BLOCK + 1) if length else range(0)
        content = b"".join(self._block(number) for number in numbers)
        return content[start % BLOCK :][:length]

    def _long(self, start: int, length: int) -> bytes:
        """Read past the cache; where long reads follow each other, as chunks do, more and more is read ahead."""
        at = start - self._held_at
        if not 0 <= at <= len(self._held) - length:
            follows = 0 <= start - self._end <= BLOCK
            self._window = min(2 * max(self._window, length), REQUEST) if follows else 0
            stop = min(start + max(length, self._window), self.size)
            self._held, self._held_at, at = b"".join(fetch(self.path.location, cut(start, stop))), start, 0
        self._end = start + length
        return self._held[at : at + length]

    def _block(self, number: int) -> bytes:
        found = _cache.get(self._key, number)
        if found is not None:
            return found
        self._ahead = min(2 * self._ahead, MOST_AHEAD) if number == self._next else 1
        self._next = number + self._ahead
        start = number * BLOCK
        (content,) = fetch(self.path.location, [(start, min(start + self._ahead * BLOCK, self.size))])
        for i in range(self._ahead):
            if part := content[i * BLOCK : (i + 1) * BLOCK]:
                _cache.put(self._key, number + i, part)
        return content[:BLOCK]


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
    from stemstore.sources.remote import file_system

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
