"""Local files as a reader sees them: found, ordered, described and told apart from changed ones."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stemstore.errors import InputError, NotFoundError, StaleStoreError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stemstore_schemas import SourceFile

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_DIGITS = re.compile(r"(\d+)")
_WILD = re.compile(r"[*?\[]")


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sort key under which ``part9`` comes before ``part10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _DIGITS.split(str(path))]


def local_path(url: str | Path) -> Path:
    """Turn a path or a ``file://`` address into a path.

    Raises
    ------
    InputError
        The address names another kind of storage; raw formats are read from local file systems only.
    """
    text = str(url)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(os.path.expanduser(text))  # noqa: PTH111 (a file called ~name, whose user is unknown, stays as it is)
    if scheme.group(1).lower() == "file":
        return Path(text[len("file://") :])
    msg = f"raw data at {text!r} lie on {scheme.group(1)!r} storage, expected a local path; copy the files first"
    raise InputError(msg, url=text)


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


def expand(url: str | Path | Iterable[str | Path]) -> list[Path]:
    """List the files and folders that an argument means.

    A path that exists is taken literally, even when its name contains ``[``, ``*`` or ``?``; otherwise it is a pattern
    whose matches come in natural order. A list keeps its order. All paths become absolute, so that they hold in another
    working directory and in other processes.

    Raises
    ------
    InputError
        The list is empty, an address is not local, or a path is neither file nor folder.
    NotFoundError
        A path does not exist, or a pattern matches nothing.
    """
    given = [url] if isinstance(url, (str, Path)) else list(url)
    if not given:
        msg = "no file was given; pass a path, a list of paths or a pattern"
        raise InputError(msg)
    found: list[Path] = []
    for one in given:
        path = local_path(one).absolute()
        if exists(path):
            found.append(path)
            continue
        matches = [Path(match) for match in glob.glob(str(path))] if _WILD.search(str(path)) else []  # noqa: PTH207 (absolute patterns)
        if not matches:
            msg = f"{str(path)!r} does not exist; check the path and whether its drive is mounted"
            raise NotFoundError(msg, url=str(path))
        found.extend(sorted(matches, key=natural_key))
    for path in found:
        _refuse_special(path)
    return found


def _refuse_special(path: Path) -> None:
    """Refuse pipes, sockets and devices, on which a read may wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        msg = f"{str(path)!r} is a pipe, socket or device, expected a file or folder; copy its content into a file"
        raise InputError(msg, url=str(path))


def exists(path: Path) -> bool:
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
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return True


def unreadable(path: str | Path, error: Exception) -> StorageError | NotFoundError:
    """Make the error for a file or folder that the operating system refuses to open."""
    if isinstance(error, FileNotFoundError):
        return NotFoundError(
            f"{str(path)!r} does not exist; check the path and whether its drive is mounted", url=str(path)
        )
    reason = getattr(error, "strerror", None) or str(error)
    msg = f"{str(path)!r} cannot be read: {reason}; check its permissions and whether its drive is mounted"
    return StorageError(msg, url=str(path))


def list_folder(folder: Path) -> list[Path]:
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


def file_size(path: Path) -> int:
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


def describe(paths: Sequence[Path]) -> list[SourceFile]:
    """Describe files for the metadata: path, size in bytes, modification time (UTC, ISO 8601)."""
    from stemstore_schemas import SourceFile

    described = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        time = datetime.fromtimestamp(status.st_mtime, tz=UTC).isoformat()
        described.append(SourceFile(path=str(path), size=status.st_size, mtime=time))
    return described


def check_unchanged(files: Sequence[SourceFile]) -> None:
    """Make sure that files still are what they were when they were described; one look at each.

    Raises
    ------
    StaleStoreError
        Size or modification time of a file differ.
    NotFoundError, StorageError
        A file is gone or cannot be looked at.
    """
    for known, now in zip(files, describe([Path(file.path) for file in files]), strict=True):
        if (known.size, known.mtime) != (now.size, now.mtime):
            msg = (
                f"{known.path!r} was changed after it was opened ({known.size} bytes then, {now.size} now, changed at "
                f"{now.mtime}); open it again"
            )
            raise StaleStoreError(msg, url=known.path, expected=known.size, found=now.size)


def identity(reader: str, files: Sequence[SourceFile], options: object = None) -> str:
    """Make the text that changes when files or reading options change."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((reader, options)).encode())
    for file in files:
        digest.update(repr((str(Path(file.path).absolute()), file.size, file.mtime)).encode())
    return f"{reader}-{digest.hexdigest()}"
