"""Remote files as open ones: short reads come from cached blocks, long ones are read ahead.

Nothing stays open: every range is a request of its own (`stemstore.sources.fetch`).
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from stemstore.sources.fetch import REQUEST, cut, fetch

if TYPE_CHECKING:
    from stemstore.sources.remote import RemotePath

BLOCK = 16 * 1024
"""Bytes of a block of the cache: what searches for headers jump over, and what a round trip carries for nothing."""

MOST_AHEAD = 16
"""Blocks fetched at once where one follows the other."""

CACHED = 32 * 2**20
"""Bytes of blocks that a process keeps, of all files together."""


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
