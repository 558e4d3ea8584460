"""Files on other machines, with the part of `pathlib.Path` that readers use.

A `RemotePath` names a file or folder at any URL that fsspec knows. What it learned about the file lives as long as it
does; no connection is held. Folders of web servers are listed where the server shows their content.
"""

from __future__ import annotations

import stat
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stemstore.errors import InputError, NotFoundError, ScanWarning, StorageError
from stemstore.places.address import is_web, local_path
from stemstore.places.link import link_to
from stemstore.sources.fetch import asking, without_parts
from stemstore.sources.location import Location, location_of
from stemstore.sources.ranged import RangedFile

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "Last-Modified", "modify", "created")
"""What file systems of fsspec call the time of the last change."""

_MARKS = ("ETag", "etag", "md5Hash", "content_md5")
"""What they call a mark of the content."""


class Status(NamedTuple):
    """What is known of a file; the time is 0 where the server does not tell."""

    st_size: int
    st_mtime: float
    st_mode: int


class RemotePath:
    """A file or folder at a URL.

    Parameters
    ----------
    location
        Where it is.
    info
        What a listing said about it.
    """

    __slots__ = ("_info", "location")

    def __init__(self, location: Location, info: dict[str, Any] | None = None) -> None:
        self.location, self._info = location, info

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self.location,)

    def __str__(self) -> str:
        return self.location

    def __repr__(self) -> str:
        return f"RemotePath({str.__str__(self.location)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.location.full == self.location.full

    def __hash__(self) -> int:
        return hash(self.location.full)

    def __truediv__(self, name: object) -> RemotePath:
        return RemotePath(self.location.at(f"{self.location.path}/{name}"))

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.location.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Extension with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """Name without extension."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """The folder around it."""
        return RemotePath(self.location.at(self.location.path.rpartition("/")[0]))

    def with_name(self, name: str) -> RemotePath:
        """Name another file of the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """Name the file with another extension."""
        return self.with_name(self.stem + suffix)

    def absolute(self) -> RemotePath:
        """Addresses are absolute."""
        return self

    @property
    def info(self) -> dict[str, Any]:
        """What its file system says about it; asked once.

        Raises
        ------
        NotFoundError, StorageError
            It is not there, or cannot be asked for.
        """
        if self._info is None:
            with asking(self.location):
                link = link_to(self.location)
                if not is_web(self.location):
                    link.fs.invalidate_cache(link.fs._parent(link.path))
                self._info = dict(link.ask("info", link.at("")))
        return self._info

    @property
    def version(self) -> str:
        """Text that changes when the file does; empty where the server gives no sign."""
        known = [str(self.info[key]) for key in (*_MARKS, *_TIMES) if self.info.get(key)]
        return "".join(known)

    def exists(self) -> bool:
        """Whether there is anything to be read; servers that fail are errors.

        Object stores whose content may be read and not be listed forbid what is not there.
        """
        try:
            return bool(self.info)
        except NotFoundError:
            return False
        except StorageError as error:
            if error.context.get("status") != HTTPStatus.FORBIDDEN:
                raise
            return False

    def is_dir(self) -> bool:
        """Whether it is a folder; on web servers nothing is one, for no server says so."""
        return self.exists() and self.info.get("type") == "directory" and not is_web(self.location)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.exists() and not self.is_dir()

    def stat(self) -> Status:
        """Say size, time of the last change and kind.

        Raises
        ------
        InputError
            The server does not tell how long the file is.
        NotFoundError, StorageError
            It is not there, or cannot be asked for.
        """
        if self.info.get("type") == "directory":
            return Status(0, 0.0, stat.S_IFDIR)
        size = self.info.get("size")
        if is_web(self.location) and self.info.get("partial") is False:
            raise without_parts(self.location)
        if size is None:
            name = str.__str__(self.location)
            msg = f"the server of {name!r} does not tell how long the file is, or packs it; copy the file first"
            raise InputError(msg, url=name)
        return Status(int(size), self._time(), stat.S_IFREG)

    def _time(self) -> float:
        from email.utils import parsedate_to_datetime

        value = next((self.info[key] for key in _TIMES if self.info.get(key)), 0.0)
        try:
            if isinstance(value, str):
                plain = "," in value  # as in the headers of web servers
                value = parsedate_to_datetime(value) if plain else datetime.fromisoformat(value)
            if isinstance(value, datetime):
                value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
            return float(value)
        except (ValueError, TypeError, OverflowError):
            return 0.0

    def open(self, mode: str = "rb", buffering: int = -1) -> RangedFile:
        """Open the file for reading; only headers are looked at so."""
        del buffering
        if mode != "rb":
            msg = f"{str(self)!r} can be opened for reading only, not as {mode!r}"
            raise ValueError(msg)
        return RangedFile(self)

    def read_bytes(self) -> bytes:
        """Read the whole file."""
        return RangedFile(self).read()

    def iterdir(self) -> Iterator[RemotePath]:
        """List the folder; nothing, with a warning, where a web server does not show it."""
        try:
            with asking(self.location):
                link = link_to(self.location)
                if not is_web(self.location):
                    link.fs.invalidate_cache(link.path)
                entries = link.ask("ls", link.at(""), detail=True)
        except NotFoundError:
            if not is_web(self.location):
                raise
            msg = f"the server does not list {str(self)!r}; files beside are not looked for, name all files of a scan"
            warnings.warn(msg, ScanWarning, stacklevel=2)
            return
        for entry in entries:
            name = str(entry["name"]).rstrip("/").partition("?")[0].rpartition("/")[2]
            child = self / name
            if name and child.location != self.location:
                yield RemotePath(child.location, None if is_web(self.location) else dict(entry))

    def glob(self) -> list[RemotePath]:
        """List what the address means as a pattern."""
        with asking(self.location):
            link = link_to(self.location)
            found = [] if is_web(self.location) else link.ask("glob", link.path)
            return [RemotePath(self.location.at(link.fs.unstrip_protocol(name))) for name in found]


Place: TypeAlias = "Path | RemotePath"
"""A file or folder, here or elsewhere."""


def remote_path(path: str | Place) -> RemotePath | None:
    """Give a file on another machine; None for one of this machine, at next to no cost."""
    if isinstance(path, RemotePath):
        return path
    location = location_of(path if isinstance(path, str) else str(path))  # an address is a text with more to it
    return None if location is None else RemotePath(location)


def place(url: str | Place) -> Place:
    """Turn a path, a ``file://`` address or a URL into a place; nothing is looked at."""
    if isinstance(url, Path):
        return url
    return remote_path(url) or local_path(str(url))


@contextmanager
def openable(path: Place) -> Iterator[Path | RangedFile]:
    """Give a file as libraries take it: a path, or an open file for one on another machine."""
    if isinstance(path, Path):
        yield path
    else:
        with path.open() as file:
            yield file


def local_only(path: Place, what: str) -> Path:
    """Refuse a remote file where its bytes cannot be read in parts.

    Parameters
    ----------
    path
        The file or folder.
    what
        What cannot be read so, for the message: ``"compressed NumPy archives"``.

    Raises
    ------
    InputError
        It lies on another machine.
    """
    if isinstance(path, Path):
        return path
    msg = f"{str(path)!r} lies on another machine, from where {what} cannot be read; copy the files first"
    raise InputError(msg, url=str(path))
