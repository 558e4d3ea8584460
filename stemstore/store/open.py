"""Opening a store: two small objects are read, no pixel; from a server in one round with the saved calibration."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from stemstore.errors import (
    ConversionIncompleteError,
    CorruptDataError,
    NotFoundError,
    StemStoreError,
    UnknownFormatError,
)
from stemstore.store.arrays import StoredFrames
from stemstore.store.blocks import cache_at
from stemstore.store.cached import CachedStorage
from stemstore.store.commit import COMMIT, check_root, digest, read_commit
from stemstore.store.destination import parts_of
from stemstore.store.event_columns import column_infos
from stemstore.store.events import StoredEvents
from stemstore.store.head import StoreHead, stale
from stemstore.store.journal import COPY, EDIT, PLAN, read_plan, view_journal
from stemstore.store.layout import CountedLayout
from stemstore.store.metadata import (
    ATTRIBUTE,
    GAP,
    INTENSITY,
    ROOT,
    SAVED,
    gap_info,
    intensity_info,
    load_root,
    parse_arrays,
    parse_document,
    read_root,
)
from stemstore.store.remote import RemoteStorage
from stemstore.store.urls import open_storage
from stemstore.store.zipped import ZippedStorage

if TYPE_CHECKING:
    import os

    from stemstore.store.urls import Storage
    from stemstore_schemas import CommitDocument, ScanDocument

StoredScan = StoredFrames | StoredEvents

_REOPENED = 16
"""Stores that a process keeps open for tasks which arrive by url and identity."""

_open: OrderedDict[tuple[Any, ...], StoredScan] = OrderedDict()
_lock = threading.Lock()


def is_store(url: str | os.PathLike[str]) -> bool:
    """Tell whether `url` leads to a store, finished or not, or to where one is being written; nothing is raised."""
    try:
        storage = open_storage(url)
        if isinstance(storage, ZippedStorage) and storage.claims_store:
            return storage.exists()  # what is wrong with it is told when it is opened
        try:
            return isinstance(read_root(storage).get("attributes", {}).get(ATTRIBUTE), dict)
        except NotFoundError:
            return bool(parts_of(storage.root))
        except UnknownFormatError:
            return storage.size(PLAN) is not None
    except (StemStoreError, OSError, ValueError, ImportError, AttributeError):
        return False


def open_store(url: str | os.PathLike[str], *, allow_incomplete: bool = False, check_digest: bool = True) -> StoredScan:
    """Open a store.

    Parameters
    ----------
    url
        Path, or any URL that fsspec knows.
    allow_incomplete
        Open a store whose conversion did not finish; its validity tells which frames exist, the others are zero.
    check_digest
        Refuse metadata that are not those that were written, unless `stemstore.edit_store` is changing them; without it
        they are taken as they are, for whoever looks for what is wrong with them.

    Returns
    -------
    scan
        Frames or events, lazy.

    Raises
    ------
    NotFoundError
        There is nothing.
    UnknownFormatError
        There is something else.
    ConversionIncompleteError
        The conversion did not finish.
    FormatVersionError
        The store was written by a newer release.
    CorruptDataError, ChecksumError
        Its metadata contradict each other, or are not those that were written.
    """
    storage = open_storage(url)
    storage.expect([ROOT, COMMIT, f"{SAVED}/{ROOT}"])
    try:
        root, body = load_root(storage)
    except NotFoundError:
        parts = parts_of(storage.root)
        if not parts:
            raise
        if not allow_incomplete or len(parts) > 1:
            raise _incomplete(storage.root, f"it is being written as '{parts[-1]}'") from None
        return open_store(parts[0], allow_incomplete=True)
    except UnknownFormatError:
        if storage.size(PLAN) is None and storage.size(COPY) is None:
            raise
        if storage.size(PLAN) is None:
            raise _unproven(storage) from None
        raise _incomplete(storage.root, "it had only begun") from None
    document = parse_document(root, storage.root)
    commit = read_commit(storage)
    if commit is None:
        if storage.size(PLAN) is None:
            raise _unproven(storage)
        if not allow_incomplete:
            raise _incomplete(storage.root, f"it has no {COMMIT}")
        return _open_incomplete(storage)
    if commit.uuid != document.uuid:
        msg = (
            f"'{storage.root}' is a mixture: its document in {ROOT} has uuid {document.uuid}, {COMMIT} {commit.uuid}; "
            "restore the store from a copy or convert the scan again"
        )
        raise CorruptDataError(msg, url=storage.root, expected=commit.uuid, found=document.uuid)
    arrays = parse_arrays(root, storage.root)
    needed = INTENSITY if document.profile == "dense" else GAP
    if needed not in arrays or (needed == INTENSITY and arrays[needed].shape != document.shape):
        msg = (
            f"'{storage.root}' has no array '{needed}' of the scan that its document describes; restore it from a copy"
        )
        raise CorruptDataError(msg, url=storage.root, key=needed)
    _check_digest(storage, body, commit, refuse=check_digest)
    scan = _scan(StoreHead(_cached(storage, document.uuid), document, arrays))
    if isinstance(storage, (RemoteStorage, ZippedStorage)):
        _remember(scan)  # tasks of this process need not ask the server again
    return scan


def finished_store(url: str | os.PathLike[str]) -> StoredScan | None:
    """Open a finished store; None where there is none, or none yet. Errors as of `open_store` otherwise."""
    try:
        return open_store(url)
    except (NotFoundError, UnknownFormatError, ConversionIncompleteError):
        return None


def _check_digest(storage: Storage, root: bytes, commit: CommitDocument, *, refuse: bool) -> None:
    """Make sure that the metadata are those that were written; while they are changed they may be newer or older."""
    if refuse and digest(root) != commit.metadata_digest and storage.size(EDIT) is None:
        now, commit_now = storage.get(ROOT), read_commit(storage)  # a change may have been made since
        check_root(storage.root, now, commit_now or commit)


def _cached(storage: Storage, uuid: str) -> Storage:
    """Put the cache of blocks, where one was asked for, between a finished store and its server."""
    if isinstance(storage, ZippedStorage):
        return storage.cached(uuid)
    if not isinstance(storage, RemoteStorage) or storage.address.cache is None:
        return storage
    return CachedStorage(storage, cache_at(storage.address.cache), uuid)


def reopen(url: str, uuid: str, complete: bool = True) -> StoredScan:
    """Open a store that a pickled scan names, once per process.

    Raises
    ------
    StaleStoreError
        The place holds another store now.
    """
    key = _key(url, uuid, complete)
    with _lock:
        scan = _open.get(key)
        if scan is not None:
            _open.move_to_end(key)
    if scan is not None:
        scan.head.check_fresh()
        return scan
    scan = open_store(url, allow_incomplete=not complete)
    if scan.uuid != uuid:
        raise stale(url, uuid, scan.uuid)
    _remember(scan)
    return scan


def _key(url: str, uuid: str, complete: bool) -> tuple[Any, ...]:
    return (url, getattr(url, "cache", None), uuid, complete)


def _remember(scan: StoredScan) -> None:
    with _lock:
        _open[_key(scan.url, scan.uuid, scan.head.complete)] = scan
        while len(_open) > _REOPENED:
            _open.popitem(last=False)


def _scan(head: StoreHead) -> StoredScan:
    return StoredFrames(head) if head.document.profile == "dense" else StoredEvents(head)


def _open_incomplete(storage: Storage) -> StoredScan:
    document, layout, _, _ = read_plan(storage)
    journal = view_journal(storage, layout, document.uuid)
    dims = _dims(document)
    if isinstance(layout, CountedLayout):
        infos = [gap_info(layout, journal.columns, journal.max_multiplicity), *column_infos(layout, journal.columns)]
    else:
        infos = [intensity_info(layout, dims)]
    return _scan(StoreHead(storage, document, {info.path: info for info in infos}, journal))


def _dims(document: ScanDocument) -> tuple[str, ...]:
    return tuple(axis.name for axis in document.axes)


def _incomplete(url: str, why: str) -> ConversionIncompleteError:
    msg = (
        f"the conversion to '{url}' did not finish: {why}; go on with convert(…, resume=True) or 'stemstore repair "
        "--finish', or open it with allow_incomplete=True to see the frames that exist"
    )
    return ConversionIncompleteError(msg, url=url)


def _unproven(storage: Storage) -> ConversionIncompleteError:
    advice = "nothing proves that it is whole, so restore it from a copy or convert the scan again"
    if storage.size(COPY) is not None:
        advice = "it is a copy that did not arrive whole; 'stemstore copy … --resume' goes on"
    msg = f"'{storage.root}' has no {COMMIT}, and no record of what was written; {advice}"
    return ConversionIncompleteError(msg, url=storage.root)
