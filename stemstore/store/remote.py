"""Objects of a store at any URL that fsspec knows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError, NotFoundError, OptionalDependencyError, StemStoreError
from stemstore.store.extents import batches, merge
from stemstore.store.refusal import absent, cut_short, refused

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from stemstore._types import Array
    from stemstore.store.extents import Extent


class RemoteStorage:
    """Objects at a URL that fsspec knows; writes of one object are whole or nothing there."""

    def __init__(self, url: str) -> None:
        import fsspec.core

        self.root = url.rstrip("/")
        try:
            self.fs, path = fsspec.core.url_to_fs(self.root)
        except ImportError as error:
            msg = f"'{url}' needs a package that is not installed: {error}"
            raise OptionalDependencyError(msg, url=url) from error
        except ValueError as error:
            msg = f"'{url}' cannot be reached: {error}; give a path or a URL that fsspec knows, such as s3://…"
            raise InputError(msg, url=url) from error
        self.path: str = path.rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self.path}/{key}" if key else self.path

    def get(self, key: str) -> bytes:
        """Read an object."""
        with self._asking(key):
            return bytes(self.fs.cat_file(self._path(key)))

    def open(self, key: str) -> IO[bytes]:
        """Open an object for reading through fsspec."""
        with self._asking(key):
            return self.fs.open(self._path(key), "rb")

    def exists(self) -> bool:
        """Whether anything is below the url."""
        self.fs.invalidate_cache()
        with self._asking(""):
            return bool(self.fs.exists(self.path))

    def size(self, key: str) -> int | None:
        """Size of an object, None where there is none."""
        self.fs.invalidate_cache()
        path = self._path(key)
        with self._asking(key):
            return int(self.fs.size(path)) if self.fs.isfile(path) else None

    def put(self, key: str, parts: Sequence[Any]) -> int:
        """Write an object in one request."""
        body = b"".join(bytes(part) for part in parts)
        with self._asking(key, "write"):
            self.fs.pipe_file(self._path(key), body)
        return len(body)

    def tails(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Last bytes of several objects, in one round of concurrent requests."""
        paths = [self._path(key) for key in keys]
        with self._asking(", ".join(keys[:3])):
            found = self.fs.cat_ranges(paths, [-length] * len(paths), [None] * len(paths), on_error="return")
            return [self._tail(key, part) for key, part in zip(keys, found, strict=True)]

    def _tail(self, key: str, part: Any) -> bytes | None:
        if isinstance(part, FileNotFoundError):
            return None
        if isinstance(part, Exception):
            raise refused(part, f"{self.root}/{key}", "read") from part
        return bytes(part)

    def fetch(self, extents: Sequence[Extent], scratch: Array) -> Generator[Array, None, None]:
        """Merge neighbouring extents, ask for many at once, and give back each extent's part."""
        del scratch  # fsspec hands out buffers of its own
        for batch in batches(extents):
            merged, home = merge(batch)
            with self._asking(merged[0].key):
                bodies = self.fs.cat_ranges(
                    [self._path(one.key) for one in merged],
                    [one.start for one in merged],
                    [one.stop for one in merged],
                    on_error="raise",
                )
            for extent, (number, offset) in zip(batch, home, strict=True):
                part = np.frombuffer(bodies[number], np.uint8)[offset : offset + extent.length]
                if len(part) != extent.length:
                    where = f"{self.root}/{extent.key}"
                    raise cut_short(where, extent.start, extent.length, len(part))
                yield part

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below a prefix."""
        self.fs.invalidate_cache()
        with self._asking(prefix):
            found = self.fs.find(self._path(prefix))
        strip = len(self._path("")) + 1
        return sorted(path[strip:] for path in found)

    def children(self, prefix: str) -> list[str]:
        """Names directly below a prefix."""
        self.fs.invalidate_cache()
        try:
            with self._asking(prefix):
                found = self.fs.ls(self._path(prefix), detail=False)
        except NotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def move(self, source: str, target: str, last: str) -> None:
        """Copy all objects on the server's side and remove the first ones; `last` is removed first and copied last."""
        keys = sorted(self.keys(source), key=lambda key: key == f"{source}/{last}")
        self.delete(f"{target}/{last}")
        self.delete(target)
        with self._asking(target, "write"):
            for key in keys:
                self.fs.cp_file(self._path(key), self._path(f"{target}{key.removeprefix(source)}"))
        self.delete(source)

    def sweep(self) -> None:
        """Do nothing: unfinished uploads have no name here."""

    def delete(self, prefix: str = "") -> None:
        """Remove all objects below a prefix."""
        self.fs.invalidate_cache()
        path = self._path(prefix)
        with self._asking(prefix, "remove"):
            if self.fs.exists(path):
                self.fs.rm(path, recursive=True)

    def stamp(self, key: str) -> object:
        """Give no mark: a look would cost a round trip at each read."""
        del key
        return None

    @contextmanager
    def _asking(self, key: str, verb: str = "read") -> Iterator[None]:
        """Turn what a file system throws into our errors."""
        where = f"{self.root}/{key}"
        try:
            yield
        except StemStoreError:
            raise
        except FileNotFoundError as error:
            raise absent(where) from error
        except (OSError, NotImplementedError) as error:  # the latter from file systems that are read-only by nature
            raise refused(error, where, verb) from error
