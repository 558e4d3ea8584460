"""Objects of a store as files below a folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from stemstore.errors import NotFoundError, StemStoreError
from stemstore.store.refusal import absent, cut_short, refused, taken

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from stemstore._types import Array
    from stemstore.store.extents import Extent

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without hard links answer: FAT, some of networks and containers."""


class LocalStorage:
    """Objects as files below a folder."""

    parallel = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.root = str(self.folder)

    def _path(self, key: str) -> Path:
        return self.folder / key if key else self.folder

    def get(self, key: str) -> bytes:
        """Read a file."""
        with self.open(key) as file, _reading(self._path(key)):
            return file.read()

    def open(self, key: str) -> IO[bytes]:
        """Open a file for unbuffered reading."""
        path = self._path(key)
        with _reading(path):
            return path.open("rb", buffering=0)

    def expect(self, keys: Sequence[str]) -> None:
        """Do nothing: files are there at once."""

    def create(self, key: str, parts: Sequence[Any]) -> None:
        """Write a file unless there is one; of several that try it together one succeeds."""
        self._write(key, parts, new=True)

    def exists(self) -> bool:
        """Whether the folder, a file or a link of its name is there."""
        return _status(self.folder, follow=False) is not None

    def size(self, key: str) -> int | None:
        """Size of a file, None where it is not a file."""
        found = _status(self._path(key))
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def put(self, key: str, parts: Sequence[Any]) -> int:
        """Write a temporary file, make it durable, then give it its name."""
        return self._write(key, parts, new=False)

    def _write(self, key: str, parts: Sequence[Any], *, new: bool) -> int:
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
        try:
            make_folder(path.parent)
            n_bytes = _write_durably(temporary, parts)
            if not new:
                temporary.replace(path)
            elif not _link(temporary, path):
                raise taken(str(path))
            sync_folder(path.parent)
        except StemStoreError:
            raise
        except OSError as error:
            raise refused(error, path, "write") from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return n_bytes

    def tails(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Last bytes of several files."""
        found: list[bytes | None] = []
        for key in keys:
            size = self.size(key)
            if size is None:
                found.append(None)
                continue
            with self.open(key) as file, _reading(self._path(key)):
                file.seek(max(size - length, 0))
                found.append(file.read(length))
        return found

    def fetch(self, extents: Sequence[Extent], scratch: Array) -> Generator[Array, None, None]:
        """Read one extent after the other into `scratch`; files of the page cache need no merging."""
        file: IO[bytes] | None = None
        name, path = None, self.folder
        try:
            for key, start, length in extents:
                if key != name:
                    if file is not None:
                        file.close()
                    file, name, path = self.open(key), key, self._path(key)
                target = scratch[:length]
                with _reading(path):
                    got = _read_into(file, start, target)
                if got != length:
                    raise cut_short(path, start, length, got)
                yield target
        finally:
            if file is not None:
                file.close()

    def keys(self, prefix: str) -> list[str]:
        """Keys of all files below a folder, temporary ones left out."""
        below = self._path(prefix)
        with _reading(below):
            files = [path for path in below.rglob("*") if path.is_file() and ".tmp-" not in path.name]
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes of all files below a folder by key, temporary ones left out."""
        return {key: self._path(key).stat().st_size for key in self.keys(prefix)}

    def children(self, prefix: str) -> list[str]:
        """Names in a folder."""
        path = self._path(prefix)
        if not path.is_dir():
            return []
        with _reading(path):
            return sorted(entry.name for entry in path.iterdir())

    def move(self, source: str, target: str, last: str) -> None:
        """Rename a folder; one that has the name already steps aside and is removed once the new one has it."""
        del last  # a rename brings all files at once
        new, path = self._path(source), self._path(target)
        old = path.with_name(f".{path.name}.DELETING-{uuid.uuid4()}")
        with _reading(new, "rename"):
            there = path.exists()
            if there:
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if there:
                    old.rename(path)
                raise
            sync_folder(path.parent)
            if there:
                shutil.rmtree(old)

    def sweep(self) -> None:
        """Remove temporary files that killed writers left, and hidden folders that are empty."""
        for path in self.folder.rglob(".*.tmp-*"):
            with _reading(path, "remove"):
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*/"):
            with suppress(OSError):  # not empty: it is in use
                path.rmdir()

    def delete(self, prefix: str = "", *, last: str = "") -> None:
        """Remove a folder with all it holds, one file of it after all others, or a file."""
        path = self._path(prefix)
        if path.exists():
            with _reading(path, "remove"):
                if last:
                    for file in [file for file in path.rglob("*") if not file.is_dir() and file != path / last]:
                        file.unlink()
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def stamp(self, key: str) -> object:
        """Inode, size and modification time of a file."""
        found = _status(self._path(key))
        return "absent" if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def _status(path: Path, *, follow: bool = True) -> os.stat_result | None:
    """Look at a path; None where nothing is there, an error where it may not be looked at."""
    try:
        with _reading(path):
            return path.stat(follow_symlinks=follow)
    except NotFoundError:
        return None


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows has no such call; there a rename is journalled by the file system
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(temporary: Path, path: Path) -> bool:
    """Give a file a further name; False where something has that name."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # such devices are seldom shared: looking first is all that they allow
            return False
        temporary.replace(path)
    return True


def _write_durably(path: Path, parts: Sequence[Any]) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    n_bytes = 0
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):
                written = os.write(handle, view)
                n_bytes += written
                view = view[written:]
        os.fsync(handle)
    finally:
        os.close(handle)
    return n_bytes


def _read_into(file: Any, start: int, target: Any) -> int:
    file.seek(start)
    view, got = memoryview(target), 0
    while got < len(view):
        step = file.readinto(view[got:])
        if not step:
            break
        got += step
    return got


@contextmanager
def _reading(path: Path, verb: str = "read") -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise absent(path) from error
    except StemStoreError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        raise refused(error, path, verb) from error
