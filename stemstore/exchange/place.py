"""The files of an export: whether their places are free, and how all of them appear at once."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from stemstore.errors import DestinationExistsError, InputError, StemStoreError
from stemstore.places.address import local_path
from stemstore.store.local import sync_folder
from stemstore.store.refusal import refused
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from stemstore_schemas import SourceFile


class Format(Protocol):
    """What has to be known of a format to replace its files."""

    @property
    def name(self) -> str:
        """As messages call it."""

    @property
    def owned(self) -> Callable[[Path], set[str]]:
        """Names of the files that an existing file of this format consists of; empty for a file of another kind."""


def local_destination(destination: str | os.PathLike[str]) -> Path:
    """Absolute path of a destination.

    Raises
    ------
    InputError
        It is not on this machine.
    """
    text = os.fspath(destination)
    if not is_local(text):
        msg = f"{text!r} is not on this machine; files of other programs are written locally, copy them afterwards"
        raise InputError(msg, url=text)
    return local_path(text).absolute()


def check_free(target: Format, files: list[Path], *, overwrite: bool) -> None:
    """Refuse places that are taken; only files of an earlier export of the same format may be replaced.

    Raises
    ------
    DestinationExistsError
        Something is there, and overwriting was not asked for or it is something else.
    """
    taken = [path for path in files if os.path.lexists(path)]
    if not taken:
        return
    if not overwrite:
        msg = f"'{taken[0]}' exists; choose another name or pass overwrite=True"
        raise DestinationExistsError(msg, url=str(taken[0]))
    ours = target.owned(files[-1])
    foreign = [path for path in taken if path.name not in ours or not path.is_file() or path.is_symlink()]
    if foreign:
        msg = f"'{foreign[0]}' exists and is no {target.name} file, so it is not overwritten; remove it yourself"
        raise DestinationExistsError(msg, url=str(foreign[0]))


def refuse_own(read: Iterable[SourceFile], written: Iterable[Path]) -> None:
    """Refuse to write over what is being read.

    Raises
    ------
    InputError
        It would be.
    """
    own = {os.path.realpath(file.path) for file in read}
    for path in written:
        if os.path.realpath(path) in own:
            msg = f"'{path}' is read and cannot be written in the same step; choose another destination"
            raise InputError(msg, url=str(path))


@contextmanager
def appearing(files: list[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Give places beside the final ones, and bring what was written there under its names at the end.

    The last file is the one that is opened. It comes last, and an old one of its name goes first, so that it never
    describes files that are not its own. Where anything fails, nothing is left behind.

    Raises
    ------
    DestinationExistsError
        Something appeared under a name meanwhile, and overwriting was not asked for.
    StorageError
        The device refuses to write.
    """
    with _beside(files[-1]) as work:
        yield [work / path.name for path in files]
        for path in files:
            _make_durable(work / path.name)
        for path in files:
            _check_still_free(path, overwrite=overwrite)
        _exchange(work, files)


@contextmanager
def appearing_folder(path: Path, *, overwrite: bool) -> Iterator[list[Path]]:
    """Give a place for a folder beside the final one, and bring what was made there under its name at the end.

    An old folder of that name goes when the new one is whole. Where anything fails, nothing is left behind.

    Raises
    ------
    DestinationExistsError
        Something appeared under the name meanwhile, and overwriting was not asked for.
    StorageError
        The device refuses to write.
    """
    with _beside(path) as work:
        new = work / path.name
        yield [new]
        for file in new.rglob("*"):
            (sync_folder if file.is_dir() else _make_durable)(file)
        _check_still_free(path, overwrite=overwrite)
        if os.path.lexists(path):
            _replace_folder(new, path, work / f"{path.name}.old")
        else:
            new.rename(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside a place to work in, which is gone at the end; a refusal of the device is told."""
    work = path.parent / f".{path.name}.part-{uuid.uuid4()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        yield work
        sync_folder(path.parent)
    except StemStoreError:
        raise
    except OSError as error:
        raise refused(error, path, "write") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_still_free(path: Path, *, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(path):
        msg = f"'{path}' appeared while it was being written; choose another name or pass overwrite=True"
        raise DestinationExistsError(msg, url=str(path))


def _replace_folder(new: Path, path: Path, old: Path) -> None:
    """Put a folder in the place of another, which is kept as `old`; where that fails, or is interrupted, it is back."""
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise


def _exchange(work: Path, files: list[Path]) -> None:
    """Give the new files their names: one replaces its predecessor, several come when theirs are out of the way."""
    old = [path for path in reversed(files) if os.path.lexists(path)] if len(files) > 1 else []
    try:
        for path in old:
            path.rename(work / f"{path.name}.old")
        for path in files:
            (work / path.name).replace(path)
    except OSError:
        for path in old:
            with suppress(OSError):
                (work / f"{path.name}.old").replace(path)
        raise


def _make_durable(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
