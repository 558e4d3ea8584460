"""Blocks of remote stores kept on a local disk, for who reads the same frames again.

A finished store never changes, so a block is named by the identity of the store, the object and the bytes it is of. Any
number of processes may use one folder: a block appears whole under its name, carries a checksum, and one that is
damaged, cut or gone is read from the server again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError
from stemstore.store.refusal import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

FOLDER = "stemstore-blocks"
"""Below the user's folder: nothing outside of it is ever removed."""

_SUFFIX, _CRC_BYTES = ".block", 4
_SWEEP_AFTER = 16
"""A process looks at the size of the whole cache each time it has written a sixteenth of the limit."""

_KEEP = 0.9
"""Part of the limit that a sweep leaves, so that the next one is not due at once."""

_ABANDONED = 3600.0
"""Seconds after which a temporary file belongs to nobody."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where blocks are kept, and how many bytes of them; travels with an address."""

    folder: str
    limit: int


class BlockCache:
    """Files of one folder, the ones used last up to a number of bytes; safe for threads and processes.

    Parameters
    ----------
    settings
        The folder and its limit.

    Raises
    ------
    StorageError
        The folder cannot be made.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.folder, self.limit = Path(settings.folder) / FOLDER, settings.limit
        self._due = 0
        self._broken = False
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error, self.folder, "write") from error

    def path(self, identity: str, key: str, start: int, length: int) -> Path:
        """File of a block, there or not."""
        name = hashlib.blake2b(f"{key} {start} {length}".encode(), digest_size=16).hexdigest()
        return self.folder / identity / name[:2] / f"{name[2:]}{_SUFFIX}"

    def get(self, path: Path, length: int | None = None) -> bytes | None:
        """Bytes of a block; None where it is not there, or not what was written."""
        try:
            body = path.read_bytes()
        except OSError:
            return None
        held, crc = body[:-_CRC_BYTES], body[-_CRC_BYTES:]
        if len(crc) < _CRC_BYTES or zlib.crc32(held).to_bytes(_CRC_BYTES, "little") != crc:
            with suppress(OSError):
                path.unlink()
            return None
        if length is not None and len(held) != length:
            return None
        with suppress(OSError):
            os.utime(path)  # marks it as used
        return held

    def put(self, path: Path, body: Any) -> None:
        """Keep a block; a full or broken disk ends the cache, not the read."""
        size = len(body) + _CRC_BYTES
        if self._broken or size > self.limit:
            return
        temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(body)
                file.write(zlib.crc32(body).to_bytes(_CRC_BYTES, "little"))
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            self._broken = not isinstance(error, FileNotFoundError)  # the latter: a sweep took the empty folder
            if self._broken:
                log.warning("blocks are no longer kept in '%s': %s", self.folder, error.strerror)
            return
        with self._lock:
            self._due -= size
            due = self._due <= 0
            if due:
                self._due = self.limit // _SWEEP_AFTER
        if due:
            self.sweep()

    def sweep(self) -> None:
        """Remove the blocks not used for longest where there are too many bytes of them."""
        found = sorted(self._files())
        n_bytes = sum(size for _, size, _ in found)
        if n_bytes <= self.limit:
            return
        for _, size, path in found:
            if n_bytes <= _KEEP * self.limit:
                break
            with suppress(OSError):
                path.unlink()
            n_bytes -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last use, size and path of every block; temporary files that were left are removed."""
        for path in self.folder.rglob("*"):
            try:
                status = path.stat()
            except OSError:
                continue
            if path.suffix == _SUFFIX:
                yield status.st_mtime, status.st_size, path
            elif f"{_SUFFIX}.tmp-" in path.name and status.st_mtime < time.time() - _ABANDONED:
                with suppress(OSError):
                    path.unlink()


_caches: dict[CacheSettings, BlockCache] = {}
_lock = threading.Lock()


def cache_at(settings: CacheSettings) -> BlockCache:
    """Give the cache of a folder, one per process; errors as for `BlockCache`."""
    with _lock:
        if settings not in _caches:
            _caches[settings] = BlockCache(settings)
        return _caches[settings]


def cache_settings(folder: str | os.PathLike[str], limit: int) -> CacheSettings:
    """Describe a cache.

    Raises
    ------
    InputError
        The folder is a URL, or there is no room in the limit.
    StorageError
        The folder cannot be made.
    """
    text = os.fspath(folder)
    if "://" in text:
        msg = f"cache={text!r} is no folder of this machine; name one on a local disk"
        raise InputError(msg, found=text)
    if limit < 1:
        msg = f"a cache of {limit} bytes holds nothing; state a size such as '10GiB', or leave cache= out"
        raise InputError(msg, found=limit)
    settings = CacheSettings(str(Path(text).expanduser().absolute()), limit)
    cache_at(settings)
    return settings
