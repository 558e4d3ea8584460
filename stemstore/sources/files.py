"""Files as a reader sees them, here or elsewhere: found, ordered, described and told apart from changed ones."""

from __future__ import annotations

import glob
import hashlib
import math
import os
import re
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stemstore.errors import InputError, NotFoundError, StaleStoreError, StemStoreError, StorageError
from stemstore.sources.location import location_of
from stemstore.sources.remote import RemotePath, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceFile

LOOK_AGAIN = 60.0
"""Seconds after which a file on another machine is looked at again."""

_looked_at: dict[tuple[str, int, str | None], float] = {}
_DIGITS = re.compile(r"(\d+)")
_WILD = re.compile(r"[*?\[]")


def natural_key(path: Place) -> list[tuple[int, int | str]]:
    """Sort key under which ``part9`` comes before ``part10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in _DIGITS.split(str(path))]


def path_texts(url: object) -> list[str]:
    """List what a user gave as a path, or as several, as texts.

    Raises
    ------
    InputError
        It is neither a path nor a list of paths.
    """
    try:
        given = [url] if isinstance(url, (str, os.PathLike)) else list(cast("Iterable[str]", url))
        return [os.fspath(one) for one in given]
    except TypeError as error:
        msg = f"{url!r} is no path; give a path, a URL or a list of paths"
        raise InputError(msg, found=url) from error


def expand(url: str | Place | Iterable[str | Place]) -> list[Place]:
    """List the files and folders that an argument means: on this machine, or at URLs that fsspec knows.

    A path that exists is taken literally, even when its name contains ``[``, ``*`` or ``?``; otherwise it is a pattern
    whose matches come in natural order. A list keeps its order. All paths become absolute, so that they hold in another
    working directory and in other processes.

    Raises
    ------
    InputError
        The list is empty, the kind of an address is not known, or a path is neither file nor folder.
    NotFoundError
        A path does not exist, or a pattern matches nothing.
    """
    given = [url] if isinstance(url, (str, Path, RemotePath)) else list(url)
    if not given:
        msg = "no file was given; pass a path, a list of paths or a pattern"
        raise InputError(msg)
    found: list[Place] = []
    for one in given:
        path = place(one).absolute()
        if exists(path):
            found.append(path)
            continue
        matches = _matches(path) if _WILD.search(str(path)) else []
        if not matches:
            msg = f"{str(path)!r} does not exist; check the path and whether its drive is mounted"
            raise NotFoundError(msg, url=str(path))
        found.extend(sorted(matches, key=natural_key))
    for path in found:
        _refuse_special(path)
    return found


def _matches(pattern: Place) -> list[Place]:
    if isinstance(pattern, RemotePath):
        return list(pattern.glob())
    return [Path(match) for match in glob.glob(str(pattern))]  # noqa: PTH207 (absolute patterns)


def _refuse_special(path: Place) -> None:
    """Refuse pipes, sockets and devices, on which a read may wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        msg = f"{str(path)!r} is a pipe, socket or device, expected a file or folder; copy its content into a file"
        raise InputError(msg, url=str(path))


def exists(path: Place) -> bool:
    """Whether `path` exists, a folder that may not be searched being an error and not an absence.

    Raises
    ------
    StorageError
        The path cannot be looked at.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except StemStoreError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return True


def unreadable(path: str | Place, error: Exception) -> StorageError | NotFoundError:
    """Make the error for a file or folder that the operating system refuses to open; our own errors stay."""
    if isinstance(error, (StorageError, NotFoundError)):
        return error
    if isinstance(error, FileNotFoundError):
        return NotFoundError(
            f"{str(path)!r} does not exist; check the path and whether its drive is mounted", url=str(path)
        )
    reason = getattr(error, "strerror", None) or str(error)
    msg = f"{str(path)!r} cannot be read: {reason}; check its permissions and whether its drive is mounted"
    return StorageError(msg, url=str(path))


def list_folder(folder: Place) -> list[Place]:
    """List the files and folders inside `folder` in natural order.

    Raises
    ------
    StorageError
        The folder cannot be read.
    """
    try:
        return sorted(folder.iterdir(), key=natural_key)
    except OSError as error:
        raise unreadable(folder, error) from error


def list_beside(given: Sequence[Place]) -> list[Place]:
    """List the files and folders around files that were given, these included, in natural order.

    A web server that shows no folder leaves those that were given.
    """
    return sorted({*list_folder(given[0].parent), *given}, key=natural_key)


def file_size(path: Place) -> int:
    """Size of a file in bytes.

    Raises
    ------
    StorageError, NotFoundError
        The file cannot be looked at.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error


def describe(paths: Sequence[Place]) -> list[SourceFile]:
    """Describe files for the metadata: path, size in bytes, modification time (UTC, ISO 8601) where it is known."""
    from stemstore_schemas import SourceFile

    described = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        known = status.st_mtime or isinstance(path, Path)
        changed = datetime.fromtimestamp(status.st_mtime, tz=UTC).isoformat() if known else None
        described.append(SourceFile(path=str(path), size=status.st_size, mtime=changed))
    return described


def check_unchanged(files: Sequence[SourceFile]) -> None:
    """Make sure that files still are what they were when they were described; one look at each.

    Files on other machines are looked at once a minute at most.

    Raises
    ------
    StaleStoreError
        Size or modification time of a file differ.
    NotFoundError, StorageError
        A file is gone or cannot be looked at.
    """
    due = [file for file in files if _is_due(file)]
    for known, now in zip(due, describe([place(file.path) for file in due]), strict=True):
        if (known.size, known.mtime) != (now.size, now.mtime):
            msg = (
                f"{known.path!r} was changed after it was opened ({known.size} bytes then, {now.size} now, changed at "
                f"{now.mtime}); open it again"
            )
            raise StaleStoreError(msg, url=known.path, expected=known.size, found=now.size)


def _is_due(file: SourceFile) -> bool:
    """Whether a file is to be looked at again; a look at another machine is remembered for a while."""
    if location_of(file.path) is None:
        return True
    known, now = (file.path, file.size, file.mtime), time.monotonic()
    if _looked_at.get(known, -math.inf) > now - LOOK_AGAIN:
        return False
    _looked_at[known] = now
    return True


def identity(reader: str, files: Sequence[SourceFile], options: object = None) -> str:
    """Make the text that changes when files or reading options change."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((reader, options)).encode())
    for file in files:
        digest.update(repr((str.__str__(str(place(file.path).absolute())), file.size, file.mtime)).encode())
    return f"{reader}-{digest.hexdigest()}"
