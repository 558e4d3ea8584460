"""The index of a group of scans: which stores belong to it, and in what order.

A series is a Zarr group whose children are finished stores. Its ``zarr.json`` carries the index and is the only object
that changes when scans are added: it is replaced as a whole, after the new scans are there. The scans know nothing of
it, so that what is not in the index yet is a store like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
import uuid as uuids
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stemstore.errors import (
    CorruptDataError,
    DestinationExistsError,
    FormatVersionError,
    NotFoundError,
    StemStoreError,
    UnknownFormatError,
)
from stemstore.store.address import StoreUrl
from stemstore.store.local import LocalStorage, make_folder
from stemstore.store.metadata import ATTRIBUTE, ROOT, SERIES, read_root
from stemstore.store.urls import is_local, open_storage
from stemstore.store.zipped import ZippedStorage, read_only
from stemstore_schemas import DocumentError, SchemaVersionError, SeriesDocument, dump_document, load_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stemstore.store.urls import Storage

LOCK = ".stemstore.lock"
"""Object that is there while an index is changed where folders cannot be locked."""

LEASE = 30.0
"""Seconds after which a lock that nobody has renewed is that of a process that died; a change takes less than one."""


@dataclass(frozen=True, slots=True)
class Series:
    """A group of scans.

    Attributes
    ----------
    url
        Where it lies.
    document
        Its index.
    """

    url: str
    document: SeriesDocument

    def child(self, path: str) -> str:
        """Address of one of its stores."""
        return child_url(self.url, path)


def open_series_group(url: str | os.PathLike[str]) -> Series:
    """Read the index of a series; one request.

    Raises
    ------
    NotFoundError, UnknownFormatError
        There is nothing, or something else.
    FormatVersionError
        It was written by a newer release.
    CorruptDataError
        It is damaged.
    """
    storage = open_storage(url)
    return Series(storage.root, _parse(read_root(storage), storage.root))


def series_at(url: str | os.PathLike[str]) -> Series | None:
    """Read the index of a series, in the same one request; None where there is no series. Errors as above."""
    storage = open_storage(url)
    root = _root(storage)
    return Series(storage.root, _parse(root, storage.root)) if root is not None and says_series(root) else None


def is_series(url: str | os.PathLike[str]) -> bool:
    """Tell whether `url` leads to a series, also a damaged one; nothing is raised."""
    try:
        return says_series(read_root(open_storage(url)))
    except (StemStoreError, OSError, ValueError, ImportError, AttributeError):
        return False


def says_series(root: dict[str, Any]) -> bool:
    """Tell whether a root ``zarr.json`` is that of a series."""
    found = root.get("attributes", {}).get(ATTRIBUTE)
    return isinstance(found, dict) and found.get("kind") == SERIES


def change_series(
    url: str | os.PathLike[str], change: Callable[[SeriesDocument | None], SeriesDocument]
) -> SeriesDocument:
    """Replace the index of a series by another one; it is there at every moment, the old one or the new one.

    Parameters
    ----------
    url
        The group; made where there is none.
    change
        Makes the new document from the present one, None where there is none; what it raises is handed on.

    Returns
    -------
    document
        As written.

    Raises
    ------
    UnknownFormatError, FormatVersionError, CorruptDataError
        There is something else, or what is there cannot be carried on.
    StorageError
        The place refuses.

    Notes
    -----
    Changes wait for each other: where the file system can lock a folder, by that, which a process that dies lets go of;
    elsewhere by an object written under the condition that there is none, which is removed after 30 s where its writer
    died.
    """
    storage = open_storage(url)
    if isinstance(storage, ZippedStorage):
        raise read_only(storage.root)
    with _alone(storage):
        root = _root(storage)
        before = None if root is None else _parse(root, storage.root)
        after = change(before)
        if before is None or after != before:
            storage.put(ROOT, [_body(root or {}, after)])
    return after


def new_document(*, dim: str = "time", unit: Any = None, title: str | None = None) -> SeriesDocument:
    """Make the index of a series without scans."""
    return SeriesDocument(uuid=str(uuids.uuid4()), dim=dim, unit=unit, title=title, time=now())


def now() -> str:
    """Time as documents write it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def child_url(url: str, path: str) -> str:
    """Address of a store in a group; what is needed to reach the group stays with it."""
    if is_local(url):
        return os.path.join(url, path)  # noqa: PTH118  # the text of the group stays as it was given
    address = StoreUrl(url)
    return StoreUrl(address.joined(path), address.options, address.cache)


def _root(storage: Storage) -> dict[str, Any] | None:
    """Read the metadata of the group; None where there is none yet, in a folder of whatever content."""
    try:
        return read_root(storage)
    except NotFoundError:
        return None
    except UnknownFormatError as error:
        if error.context.get("key") is not None:
            raise
        return None  # a folder without metadata


def _parse(root: dict[str, Any], url: str) -> SeriesDocument:
    found = root.get("attributes", {}).get(ATTRIBUTE)
    if not isinstance(found, dict):
        msg = f"'{url}' is a Zarr group without the attribute {ATTRIBUTE!r}, so no series of scans; use zarr.open"
        raise UnknownFormatError(msg, url=url)
    try:
        return load_series(found)
    except SchemaVersionError as error:
        msg = f"cannot open '{url}': {error}"
        raise FormatVersionError(msg, url=url, found=error.found, expected=error.known) from error
    except DocumentError as error:
        msg = f"'{url}' is no series of scans ({error}); a single scan is opened by stemstore.open"
        raise UnknownFormatError(msg, url=url, found=error.found, expected=error.known) from error
    except ValueError as error:
        msg = (
            f"the index of the series '{url}' is damaged: {error}; the scans in it are whole: move {ROOT} away and let "
            "stemstore.index_series make a new one"
        )
        raise CorruptDataError(msg, url=url, key=ROOT) from error


def _body(root: dict[str, Any], document: SeriesDocument) -> bytes:
    """Write the metadata of the group; what others keep in its attributes stays."""
    attributes = {**root.get("attributes", {}), ATTRIBUTE: dump_document(document)}
    # A list of all nodes, which other programs may have put there, would hide the scans that are new
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=2).encode()


@contextlib.contextmanager
def _alone(storage: Storage) -> Iterator[None]:
    """Keep others from changing the index meanwhile."""
    handle, locked = None, False
    if isinstance(storage, LocalStorage):
        make_folder(storage.folder)
        with contextlib.suppress(ImportError, OSError):  # Windows, and file systems without such locks
            import fcntl

            handle = os.open(storage.folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
    try:
        if locked:
            yield
        else:
            with _leased(storage):
                yield
    finally:
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def _leased(storage: Storage) -> Iterator[None]:
    """Hold the lock object of a series; one that stays the same for too long belongs to nobody any more."""
    mine, seen, since, pause = str(uuids.uuid4()).encode(), b"", time.monotonic(), 0.02
    while True:
        try:
            storage.create(LOCK, [mine])
            break
        except DestinationExistsError:
            with contextlib.suppress(NotFoundError):  # let go of meanwhile
                held = storage.get(LOCK)
                if held != seen:
                    seen, since = held, time.monotonic()
                elif time.monotonic() - since > LEASE:
                    storage.delete(LOCK)
        pause = min(2 * pause, 1.0)
        time.sleep(pause * (0.5 + random.random()))  # so that those who wait do not come back together
    try:
        yield
    finally:
        with contextlib.suppress(StemStoreError):
            if storage.get(LOCK) == mine:
                storage.delete(LOCK)
