"""Packing a finished store into one ``.zip``, which opens in place like the store itself."""

from __future__ import annotations

import glob
import os
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from stemstore.errors import DestinationExistsError, InputError
from stemstore.maintenance.opened import Opened
from stemstore.places.address import local_path
from stemstore.progress import NoProgress, Progress
from stemstore.scan.addresses import check_apart
from stemstore.store.local import make_folder, sync_folder
from stemstore.store.objects import Tally
from stemstore.store.refusal import refused
from stemstore.store.urls import is_local
from stemstore.store.zipped import EXTENSION, is_packed

if TYPE_CHECKING:
    from pathlib import Path

    PathLike = str | os.PathLike[str]

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Earliest time that a zip knows: the same store gives the same file."""

READABLE = 0o644 << 16
"""Permissions of what is unpacked, as zip keeps them."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """What `pack_store` did.

    Attributes
    ----------
    url, source
        The file, and the store.
    n_objects, n_bytes
        Objects in the file, and its size.
    seconds
        Time it took.
    warnings
        What was left behind.
    """

    url: str
    source: str
    n_objects: int
    n_bytes: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


def pack_store(
    store: PathLike,
    destination: PathLike | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """Pack a finished store into one file, with its calibration and its saved results.

    Objects are stored as they are, so that `stemstore.open` reads them in place, from a disk or a server; Zarr's
    ``ZipStore`` and xarray read the file as well. Everything is compared with its checksums on the way.
    `stemstore.copy_store` unpacks it.

    Parameters
    ----------
    store
        Path or URL.
    destination
        File on this machine that ends in ``.zip``; beside the store with ``.zip`` behind its name by default.
    overwrite
        Replace a file, once the new one is whole.
    progress
        Told about every object.

    Returns
    -------
    report
        What was packed, and what was left.

    Raises
    ------
    CorruptDataError, ChecksumError, NotFoundError
        The store is damaged; the message names the shard. No file is left.
    ConversionIncompleteError, UnknownFormatError
        There is no finished store.
    DestinationExistsError
        The file is there.
    InputError
        The destination is a URL or does not end in ``.zip``.
    StorageError
        The device refuses.

    Notes
    -----
    Memory: one object, at most a shard. The file appears under its name when it is whole and durable.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.pack_store("scan_42.zarr").url  # doctest: +SKIP
    '/data/scan_42.zarr.zip'
    """
    began = time.monotonic()
    target = _target(store, destination)
    check_apart(store, target)
    opened = Opened.at(store)
    if not overwrite and os.path.lexists(target):
        msg = f"'{target}' exists; choose another name or pass overwrite=True"
        raise DestinationExistsError(msg, url=str(target))
    if target.is_dir():
        msg = f"'{target}' is a folder, so it is not overwritten; choose another name"
        raise DestinationExistsError(msg, url=str(target))
    part = target.with_name(f".{target.name}.part-{uuid4().hex[:8]}")
    try:
        make_folder(target.parent)
        _remove_abandoned(target)
        n_objects = _write(opened, part, progress or NoProgress())
        part.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if type(error).__module__.startswith("stemstore"):
            raise
        raise refused(error, target, "write") from error
    finally:
        with suppress(OSError):
            part.unlink()
    n_bytes, seconds = target.stat().st_size, time.monotonic() - began
    return PackReport(str(target), opened.storage.root, n_objects, n_bytes, seconds, opened.left())


def _lock(file: IO[bytes]) -> bool:
    """Mark a file as being written, for as long as this process lives; False where another one writes it."""
    try:
        import fcntl
    except ImportError:  # Windows does not remove files that are open
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # or the device knows no locks: then nothing is taken for abandoned
        return False
    return True


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of files that were to have this name."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.part-*"):
        with suppress(OSError), part.open("rb") as file:
            if _lock(file):
                part.unlink()


def _target(store: PathLike, destination: PathLike | None) -> Path:
    """Find the file that is to be written."""
    text = f"{os.fspath(store).rstrip('/')}{EXTENSION}" if destination is None else os.fspath(destination)
    if not is_local(text):
        msg = f"a packed store is written to this machine, not to '{text}'; name a file, and upload it afterwards"
        raise InputError(msg, found=text)
    if not is_packed(text):
        msg = f"'{text}' does not end in {EXTENSION}, by which packed stores are known; call it {text}{EXTENSION}"
        raise InputError(msg, found=text)
    return local_path(text).absolute()


def _write(opened: Opened, part: Path, progress: Progress) -> int:
    """Write all objects, data first and metadata last: a reader finds these together with the directory."""
    tally = Tally(opened.storage.root, opened.document)
    progress.start("packing", len(opened.objects))
    n_objects = 0
    with part.open("xb") as file:
        _lock(file)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as packed:
            for one in opened.objects:
                body = opened.read(one)
                if body is not None:
                    tally.add(one, body)
                    entry = zipfile.ZipInfo(one.key, EPOCH)
                    entry.external_attr = READABLE
                    packed.writestr(entry, body)
                    n_objects += 1
                progress.advance()
        tally.check()
        opened.check_unchanged()
        file.flush()
        os.fsync(file.fileno())
    return n_objects
