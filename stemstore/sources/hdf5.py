"""HDF5 files as readers see them: opened for a moment, followed along their links; the door to `hdf5_content`.

h5py reports damage by built-in exceptions of many kinds; here they become the errors of stemstore. No object is ever
unpickled, and nothing is allocated because a file says so.
"""

from __future__ import annotations

import importlib
import io
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stemstore.errors import (
    CorruptDataError,
    NotFoundError,
    OptionalDependencyError,
    StemStoreError,
    StorageError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.files import exists, unreadable
from stemstore.sources.hdf5_content import (
    DAMAGE,
    Listed,
    attribute,
    attributes,
    datasets,
    dtype_of,
    number,
    plain,
    quote,
    text,
    value_of,
    walk,
)
from stemstore.sources.remote import RemotePath, local_only, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stemstore.sources.remote import Place

__all__ = [
    "DAMAGE",
    "MAGIC",
    "Listed",
    "ask_hdf5",
    "attribute",
    "attributes",
    "beside",
    "damaged",
    "datasets",
    "dtype_of",
    "find",
    "is_hdf5",
    "linked_files",
    "number",
    "open_hdf5",
    "plain",
    "quote",
    "require_filters",
    "text",
    "value_of",
    "walk",
]

MAGIC = b"\x89HDF\r\n\x1a\n"

USER_BLOCKS = (0, 512, 1024, 2048)
"""Bytes at which the signature may lie inside the head of a file that readers are shown."""

_state = threading.local()
"""Files opened on the way along links, by the thread that follows them."""

MAX_QUESTION = 2**16
"""Bytes behind the head of a file that one question may read."""


def is_hdf5(first_bytes: bytes) -> bool:
    """Whether the head of a file carries the signature of HDF5, behind a user block perhaps."""
    return any(first_bytes[at : at + len(MAGIC)] == MAGIC for at in USER_BLOCKS)


@contextmanager
def open_hdf5(path: str | Place) -> Iterator[Any]:
    """Open an HDF5 file for reading, without a lock, for the duration of a block.

    A file on another machine is read by ranges, through the cache of `stemstore.sources.ranged`.

    Raises
    ------
    UnknownFormatError
        It is no HDF5 file.
    TruncatedFileError, CorruptDataError
        It is damaged; also for what h5py raises inside the block.
    StorageError, NotFoundError
        It cannot be read, or another program has it open for writing.
    """
    import h5py

    found = place(path)
    try:
        with found.open("rb", buffering=0) as file:
            head = file.read(USER_BLOCKS[-1] + len(MAGIC))
    except OSError as error:
        raise unreadable(path, error) from error
    if not is_hdf5(head):
        msg = f"file {str(path)!r} starts with {head[: len(MAGIC)]!r}, expected {MAGIC!r}; it is no HDF5 file"
        raise UnknownFormatError(msg, url=str(path), found=head[: len(MAGIC)], expected=MAGIC)
    try:
        if isinstance(found, RemotePath):
            with ExitStack() as linked, found.open() as raw, h5py.File(raw, "r") as file, _opened(linked):
                yield file
            return
        with h5py.File(found, "r", locking=False) as file:
            yield file
    except StemStoreError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from error


@contextmanager
def _opened(linked: ExitStack) -> Iterator[None]:
    """Say where files go that are opened on the way along links, so that they close with the one that links to them."""
    before = getattr(_state, "linked", None)
    _state.linked = linked
    try:
        yield
    finally:
        _state.linked = before


def damaged(path: str | Place, error: Exception) -> StemStoreError:
    """Make the error for a file over which h5py stumbled."""
    reason = str(error)
    if "truncated" in reason:
        msg = f"HDF5 file {str(path)!r} ends before its content does ({reason}); copy it again"
        return TruncatedFileError(msg, url=str(path))
    if "already open for write" in reason or "not closed" in reason:
        msg = f"HDF5 file {str(path)!r} is still being written, or was never closed ({reason}); wait, or run h5clear -s"
        return StorageError(msg, url=str(path))
    if "locking flag" in reason:  # HDF5 shares a file that is open already, if only it was opened alike
        msg = (
            f"HDF5 file {str(path)!r} is open in this process with its lock ({reason}); close it, or pass locking=False"
        )
        return StorageError(msg, url=str(path))
    if "required filter" in reason:  # of a dataset that a virtual one is made of
        msg = f'HDF5 file {str(path)!r} needs the package hdf5plugin ({reason}); pip install "stemstore[hdf5]"'
        return OptionalDependencyError(msg, url=str(path))
    msg = f"HDF5 file {str(path)!r} cannot be read: {reason}; it is damaged, copy it again"
    return CorruptDataError(msg, url=str(path))


def ask_hdf5(url: str, first_bytes: bytes, question: Callable[[Any], float]) -> float:
    """Ask about the inside of a file, for `Reader.matches`: 0 for what is no readable HDF5 file; never raises.

    Names and attributes mostly lie in the head of a file, which is not read again; for the others a question may read
    up to `MAX_QUESTION` bytes. Links into other files are not followed.
    """
    import h5py

    if not is_hdf5(first_bytes):
        return 0.0
    try:
        with _Head(url, first_bytes) as head, h5py.File(head, "r") as file:
            return float(question(file))
    except (*DAMAGE, AttributeError, StemStoreError):  # AttributeError: a dataset in place of a group
        return 0.0


class _Head(io.RawIOBase):
    """A file whose first bytes are known, and of which little else is read."""

    def __init__(self, path: str, head: bytes) -> None:
        self.file = place(path).open("rb", buffering=0)
        self.head = head
        self.place = 0
        self.left = MAX_QUESTION

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; only the end of the file is looked up."""
        if whence == io.SEEK_END:
            self.place = self.file.seek(offset, whence)
        else:
            self.place = offset + (self.place if whence == io.SEEK_CUR else 0)
        return self.place

    def tell(self) -> int:
        """Tell the place."""
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the head or, behind it, from the file."""
        view = memoryview(buffer).cast("B")
        end = self.place + len(view)
        if end <= len(self.head):
            view[:] = self.head[self.place : end]
            got = len(view)
        else:
            self.left -= len(view)
            if self.left < 0:
                msg = f"more than {MAX_QUESTION} bytes would have to be read"
                raise OSError(msg)
            self.file.seek(self.place)
            got = self.file.readinto(view) or 0
        self.place += got
        return got

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


def find(file: Any, name: str) -> Any:
    """Get a group or dataset by its path, links followed.

    Raises
    ------
    NotFoundError
        A linked file is missing.
    CorruptDataError
        There is no such object, a link leads nowhere, or it is damaged.
    """
    origin = place(file.file.filename)
    try:
        return file[name] if isinstance(origin, Path) else _follow(origin, file, name)
    except DAMAGE as error:
        raise _lost(file, name, error) from error


def _follow(origin: RemotePath, file: Any, name: str) -> Any:
    """Get an object of a remote file; links into other files would lead HDF5 back into the same one."""
    import h5py

    way = PurePosixPath("/")
    steps = PurePosixPath(file.name, name).parts[1:]
    for depth, step in enumerate(steps):
        way /= step
        link = file.file.get(str(way), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = beside(origin, link.filename)
            if not exists(target):
                raise _no_target(str(way), str(origin), link.filename, target)
            other = _state.linked.enter_context(open_hdf5(target))
            return find(other, str(PurePosixPath(link.path, *steps[depth + 1 :])))
    return file[name]


def _no_target(way: str, origin: str, name: str, target: Place) -> NotFoundError:
    what = f"{way} in {origin!r} links to the file {name!r}, which is missing"
    msg = f"{what} (looked for as {str(target)!r}); copy it there"
    return NotFoundError(msg, url=str(target), key=way)


def _lost(file: Any, name: str, error: Exception) -> StemStoreError:
    """Tell why an object cannot be had: the first link on its way that leads nowhere."""
    import h5py

    origin, way = file.file.filename, PurePosixPath("/")
    for step in PurePosixPath(file.name, name).parts[1:]:
        way /= step
        try:
            link = file.file.get(str(way), getlink=True)
        except DAMAGE:  # KeyError: there is no such name
            link = None
        if isinstance(link, h5py.ExternalLink):
            target = beside(origin, link.filename)
            if not exists(target):
                return _no_target(str(way), origin, link.filename, target)
            try:
                with open_hdf5(target):
                    pass
            except StemStoreError as own:  # the linked file says best what is wrong with it
                return own
        if link is None or file.file.get(str(way)) is None:
            aim = f", a link to {link.path}," if hasattr(link, "path") else ""
            msg = f"{way}{aim} leads nowhere in {origin!r}; the file is damaged or incomplete, copy it again"
            return CorruptDataError(msg, url=origin, key=str(way))
    msg = f"{name} in {origin!r} cannot be read: {error}; the file is damaged, copy it again"
    return CorruptDataError(msg, url=origin, key=name)


def beside(origin: str | Place, name: str) -> Place:
    """Where a file named by a link lies: beside the file that names it, unless it is there as it is named."""
    folder, last = place(origin).parent, Path(name.replace("\\", "/")).name
    if isinstance(folder, RemotePath):
        return folder / (last if Path(name).is_absolute() else name)
    near, stray = folder / name, folder / last
    return next((path for path in (near, Path(name)) if path.exists()), stray if Path(name).is_absolute() else near)


def require_filters(dataset: Any) -> None:
    """Make sure that the filters of a dataset can be undone, loading those of the package hdf5plugin.

    Raises
    ------
    OptionalDependencyError
        The package is not installed, or does not know the filter either.
    """
    import h5py

    if dataset.is_virtual:  # its sources may be compressed
        with suppress(ImportError):
            importlib.import_module("hdf5plugin")
    listed = dataset.id.get_create_plist()
    filters = [listed.get_filter(i) for i in range(listed.get_nfilters())]
    for code, _, _, label in filters:
        if h5py.h5z.filter_avail(code):
            continue
        where = f"{dataset.name} in {dataset.file.filename!r} is compressed with filter {code} ({text(label)[:80]!r})"
        try:
            importlib.import_module("hdf5plugin")  # registers its filters
        except ImportError as error:
            msg = f'{where}, which needs the package hdf5plugin; pip install "stemstore[hdf5]"'
            raise OptionalDependencyError(msg, key=dataset.name, found=code) from error
        if not h5py.h5z.filter_avail(code):
            msg = f"{where}, which hdf5plugin does not know; rewrite the file with h5repack -f GZIP=1"
            raise OptionalDependencyError(msg, key=dataset.name, found=code)


def linked_files(dataset: Any) -> list[Place]:
    """List the files that hold the pixels of a dataset: its own, and those that a virtual dataset is made of.

    Raises
    ------
    InputError
        It lies on another machine, from where HDF5 cannot get the pixels of other files.
    NotFoundError
        One of them is missing; HDF5 would fill its pixels silently.
    """
    origin = place(dataset.file.filename)
    names = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    names += [text(name) for name, _, _ in dataset.external or ()]
    found = [origin]
    if any(name != "." for name in names):
        local_only(origin, f"{dataset.name}, a dataset made of other files,")
    for name in dict.fromkeys(names):
        path = origin if name == "." else beside(origin, name.replace("%b", "0"))
        if not exists(path):
            msg = f"{dataset.name} in {str(origin)!r} takes pixels from {str(path)!r}, which is missing; copy it there"
            raise NotFoundError(msg, url=str(path), key=dataset.name)
        if path not in found:
            found.append(path)
    return found
