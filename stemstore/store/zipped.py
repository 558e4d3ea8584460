"""Objects of a store that was packed into one ``.zip``: read in place, by ranges, from a disk or a server.

Entries are stored uncompressed, so that a chunk of a shard is a range of the file. The central directory is read once.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections import OrderedDict
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import ChecksumError, InputError, NotFoundError
from stemstore.store.extents import LONGEST, Extent
from stemstore.store.refusal import absent, cut_short
from stemstore.store.remote import RemoteStorage
from stemstore.store.zip_directory import LOCAL, LONGEST_END, Bounds, Entry, data_start, find_directory, parse_directory

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from stemstore._types import Array
    from stemstore.store.local import LocalStorage

EXTENSION = ".zip"

TAIL = 256 * 1024
"""Bytes of the end of a file that are read first: the directory and, behind all data, the metadata of a store."""

FRESH = 60.0
"""Seconds for which a file on a server is taken to be still the same."""


def is_packed(url: str) -> bool:
    """Tell by its name whether a place is a packed store."""
    return url.lower().endswith(EXTENSION)


def read_only(url: str) -> InputError:
    """Describe an attempt to write into a packed store."""
    msg = (
        f"'{url}' names a packed store, into which nothing can be written; write to a folder such as scan.zarr and "
        "pack it with stemstore pack, or unpack this one with stemstore copy"
    )
    return InputError(msg, url=url)


_KEPT = 16
"""Files of this machine whose directories a process keeps."""


class _Directory:
    """What is known of the file: its entries, its end, and where objects begin that were looked at."""

    def __init__(self, file: Any, name: str, where: str, stamp: object) -> None:
        size = file.size(name)
        if size is None:
            raise absent(where)
        self.stamp = stamp
        self._read = time.monotonic()
        (tail,) = file.tails([name], min(size, max(TAIL, LONGEST_END)))
        if tail is None:
            raise absent(where)
        self.tail, self.tail_start = bytes(tail), size - len(tail)
        bounds: Bounds = find_directory(self.tail, size, where)
        body = self.held(bounds.start, bounds.length)
        if body is None:
            body = b"".join(bytes(part) for part in ranges(file, name, [(bounds.start, bounds.length)]))
        self.entries: dict[str, Entry] = parse_directory(body, bounds, where)
        self.stop = bounds.start
        self.digest = hashlib.sha256(body).hexdigest()[:16]
        self.starts: dict[str, int] = {}

    @property
    def age(self) -> float:
        """Seconds since it was read."""
        return time.monotonic() - self._read

    def held(self, start: int, length: int) -> bytes | None:
        """Bytes of the file where its end, which was read, has them all."""
        first = start - self.tail_start
        return self.tail[first : first + length] if first >= 0 else None


_directories: OrderedDict[tuple[str, object], _Directory] = OrderedDict()
_lock = threading.Lock()


def _shared(file: Any, name: str, where: str, stamp: object) -> _Directory:
    """Read a directory, of a file of this machine once per process while its mark stays the same."""
    if stamp is None:
        return _Directory(file, name, where, stamp)
    with _lock:
        found = _directories.get((where, stamp))
    if found is None:
        found = _Directory(file, name, where, stamp)
        with _lock:
            _directories[where, stamp] = found
            while len(_directories) > _KEPT:
                _directories.popitem(last=False)
    return found


def ranges(file: Any, name: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read runs of bytes (start, length) of a file, long ones in several pieces at a time."""
    pieces = [
        Extent(name, at, min(LONGEST, start + length - at))
        for start, length in wanted
        for at in range(start, start + length, LONGEST)
    ]
    scratch = np.empty(max((piece.length for piece in pieces), default=0), np.uint8)
    parts = iter([bytes(part) for part in file.fetch(pieces, scratch)])
    return [b"".join(next(parts) for _ in range(start, start + length, LONGEST)) for start, length in wanted]


class ZippedStorage:
    """Objects in a ``.zip``; nothing can be written.

    Parameters
    ----------
    file
        Folder or place in which it lies.
    name
        Of the file there.
    blocks
        The same place, where data are read; it may keep them on a local disk.
    """

    def __init__(self, file: LocalStorage | RemoteStorage, name: str, blocks: RemoteStorage | None = None) -> None:
        self._file: Any = file
        self._blocks: Any = blocks or file
        self._name = name
        self.root: str = f"{file.root}/{name}"
        if isinstance(file, RemoteStorage):
            self.root = _joined(file, name)
        self._known: _Directory | None = None

    @property
    def parallel(self) -> bool:
        """Whether threads may use it at the same time."""
        return bool(self._file.parallel)

    @property
    def claims_store(self) -> bool:
        """Whether its name says that it is a store, rather than any zip."""
        return self._name.lower().endswith(f".zarr{EXTENSION}")

    def cached(self, uuid: str) -> ZippedStorage:
        """Give the same, with blocks kept on a local disk where that was asked for."""
        from stemstore.store.blocks import cache_at
        from stemstore.store.cached import CachedStorage

        file = self._file
        if not isinstance(file, RemoteStorage) or file.address.cache is None:
            return self
        known = self._directory()
        blocks = CachedStorage(file, cache_at(file.address.cache), f"{uuid}-{known.digest}")
        other = ZippedStorage(file, self._name, blocks)
        other._known = known
        return other

    def _directory(self) -> _Directory:
        """Read the directory, once while the file stays the same."""
        stamp, known = self._file.stamp(self._name), self._known
        if known is not None and known.stamp == stamp and (stamp is not None or known.age < FRESH):
            return known
        self._known = _shared(self._file, self._name, self.root, stamp)
        return self._known

    def _at(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _entry(self, key: str) -> tuple[_Directory, Entry]:
        known = self._directory()
        if key not in known.entries:
            raise absent(self._at(key))
        return known, known.entries[key]

    def _locate(self, keys: Sequence[str]) -> _Directory:
        """Find where objects begin; their local headers are read in one round."""
        known = self._directory()
        new = sorted({key for key in keys if key not in known.starts})
        entries = [self._entry(key)[1] for key in new]
        wanted = [(entry.offset, LOCAL.size + len(entry.name)) for entry in entries]
        held = [known.held(*one) for one in wanted]
        others = iter(ranges(self._blocks, self._name, [w for w, h in zip(wanted, held, strict=True) if h is None]))
        for key, entry, header in zip(new, entries, held, strict=True):
            known.starts[key] = data_start(next(others) if header is None else header, entry, known.stop, self.root)
        return known

    def expect(self, keys: Sequence[str]) -> None:
        """Do nothing: the end of the file holds what opening asks for."""

    def get(self, key: str) -> bytes:
        """Read an object; `ChecksumError` where it is not as it was packed."""
        _, entry = self._entry(key)
        known = self._locate([key])
        body = known.held(known.starts[key], entry.size)
        if body is None:
            (body,) = ranges(self._blocks, self._name, [(known.starts[key], entry.size)])
        if len(body) != entry.size:
            raise cut_short(self._at(key), 0, entry.size, len(body))
        crc = zlib.crc32(body)
        if crc != entry.crc:
            msg = (
                f"'{self._at(key)}' is damaged: its CRC-32 is {crc:#010x}, expected {entry.crc:#010x}; "
                "restore the file from a copy"
            )
            raise ChecksumError(msg, key=key, expected=entry.crc, found=crc)
        return body

    def open(self, key: str) -> IO[bytes]:
        """Read an object and open it."""
        return BytesIO(self.get(key))

    def exists(self) -> bool:
        """Whether the file is there."""
        return self._file.size(self._name) is not None

    def size(self, key: str) -> int | None:
        """Size of an object, None where there is none."""
        try:
            return self._entry(key)[1].size
        except NotFoundError:
            return None

    def tails(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Last bytes of several objects."""
        there = [key for key in keys if self.size(key) is not None]
        known = self._locate(there)
        wanted = {}
        for key in there:
            entry, start = known.entries[key], known.starts[key]
            n_bytes = min(length, entry.size)
            wanted[key] = (start + entry.size - n_bytes, n_bytes)
        found = dict(zip(there, ranges(self._blocks, self._name, list(wanted.values())), strict=True))
        return [found.get(key) for key in keys]

    def fetch(self, extents: Sequence[Extent], scratch: Array) -> Generator[Array, None, None]:
        """Give the bytes of each extent in turn, as the place does in which the file lies."""
        known = self._locate([extent.key for extent in extents])
        for key, start, length in extents:
            if start + length > known.entries[key].size:
                raise cut_short(self._at(key), start, length, max(0, known.entries[key].size - start))
        inside = [Extent(self._name, known.starts[key] + start, length) for key, start, length in extents]
        yield from self._blocks.fetch(inside, scratch)

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below a prefix, sorted."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes of all objects below a prefix by key."""
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        return {key: entry.size for key, entry in self._directory().entries.items() if key.startswith(start)}

    def children(self, prefix: str) -> list[str]:
        """Names directly below a prefix, sorted."""
        strip = len(prefix.rstrip("/")) + 1 if prefix else 0
        return sorted({key[strip:].partition("/")[0] for key in self.keys(prefix)})

    def stamp(self, key: str) -> object:
        """Mark of the whole file."""
        del key
        return self._file.stamp(self._name)

    def put(self, key: str, parts: Sequence[Any]) -> int:
        """Refuse."""
        raise read_only(self.root)

    def create(self, key: str, parts: Sequence[Any]) -> None:
        """Refuse."""
        raise read_only(self.root)

    def move(self, source: str, target: str, last: str) -> None:
        """Refuse."""
        raise read_only(self.root)

    def sweep(self) -> None:
        """Refuse."""
        raise read_only(self.root)

    def delete(self, prefix: str = "", *, last: str = "") -> None:
        """Refuse."""
        raise read_only(self.root)


def _joined(file: RemoteStorage, name: str) -> str:
    """Address of a file in a remote place, with what is needed to reach it."""
    from stemstore.store.address import StoreUrl

    return StoreUrl(file.address.joined(name), file.address.options, file.address.cache)
