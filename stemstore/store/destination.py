"""The place where a store will be: whether it is free, and which conversions to it are under way."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from stemstore.errors import DestinationExistsError, InputError, NotFoundError, StemStoreError
from stemstore.places.address import local_path
from stemstore.store.commit import COMMIT, read_commit
from stemstore.store.journal import COPY, JOURNAL, PLAN, read_plan
from stemstore.store.metadata import ATTRIBUTE, PLACES, SERIES, read_root
from stemstore.store.refusal import begun
from stemstore.store.urls import Storage, is_local, open_storage
from stemstore.store.zipped import ZippedStorage, read_only


def clear(storage: Storage) -> None:
    """Remove a store from a server, but for the journal; its commit object goes first, so that it opens no more."""
    storage.delete(COMMIT)
    for name in storage.children(""):
        if name != JOURNAL:
            storage.delete(name)


def drop_old_journal(storage: Storage) -> None:
    """Remove the journal of a finished store, which a conversion or copy that was killed at its very end left."""
    commit = read_commit(storage)
    if commit is None:
        return
    if storage.size(PLAN) is None:
        storage.delete(COPY)
    elif read_plan(storage)[0].uuid == commit.uuid:
        storage.delete(JOURNAL)


def check_free(target: Storage, *, overwrite: bool) -> bool:
    """Refuse a destination that may not be used, without touching it.

    Returns
    -------
    free
        True where nothing is there, False where a store may be replaced.

    Raises
    ------
    DestinationExistsError
        Something is there, and overwriting was not asked for or it is not a store.
    InputError
        It is to be a ``.zip``, in which nothing can be written piece by piece, or lies inside of a local store.
    """
    if isinstance(target, ZippedStorage):
        raise read_only(target.root)
    _refuse_inside(target.root)
    if not target.exists():
        return True
    if not is_local(target.root) and target.size(COMMIT) is None:
        if target.size(PLAN) is not None:
            raise begun(target.root)
        if target.size(COPY) is not None:
            msg = (
                f"a copy to '{target.root}' is under way or was interrupted; go on with stemstore copy --resume, or "
                "choose another name"
            )
            raise DestinationExistsError(msg, url=target.root)
    if not overwrite:
        msg = f"'{target.root}' exists; choose another name or pass overwrite=True"
        raise DestinationExistsError(msg, url=target.root)
    document = _document(target)
    if document is None or _kind(document) == SERIES:
        what = "not a stemstore store" if document is None else "a series of scans"
        msg = f"'{target.root}' exists and is {what}, so it is not overwritten; remove it yourself"
        raise DestinationExistsError(msg, url=target.root)
    return False


def _document(storage: Storage) -> Any:
    """Read what a place says of itself; None where it says nothing or nothing can be read."""
    try:
        return read_root(storage).get("attributes", {}).get(ATTRIBUTE)
    except StemStoreError:
        return None


def _kind(document: Any) -> Any:
    return document.get("kind") if isinstance(document, dict) else None


def _refuse_inside(url: str) -> None:
    """Refuse a place inside of a store, which would carry it along as something foreign, and where results lie."""
    if not is_local(url):
        return
    path = local_path(url).absolute()
    for parent in path.parents:
        if (parent / COMMIT).is_file():
            msg = f"'{url}' lies inside of the store '{parent}'; choose a place beside it"
            raise InputError(msg, url=url, found=str(parent))
    if path.name in PLACES and _kind(_document(open_storage(path.parent))) == SERIES:
        msg = f"'{url}' is where '{path.parent}' keeps {path.name} data of its own; choose another name"
        raise InputError(msg, url=url, found=path.name)


def parts_of(url: str) -> list[str]:
    """Working folders of conversions to a local `url` that did not finish."""
    if not is_local(url):
        return []
    path = local_path(url)
    if not path.parent.is_dir():
        return []
    found = path.parent.glob(f"{glob.escape(path.name)}.part-*")
    return sorted(str(part) for part in found if (part / PLAN).is_file())


def only_part(url: str) -> str:
    """Find the working folder of the one conversion to `url` that is under way.

    Raises
    ------
    NotFoundError
        There is none.
    InputError
        There are several.
    """
    parts = parts_of(url)
    if not parts:
        msg = f"no conversion to '{url}' is under way; begin one with stemstore.convert or stemstore.plan_conversion"
        raise NotFoundError(msg, url=url)
    if len(parts) > 1:
        names = ", ".join(Path(part).name for part in parts)
        msg = f"several conversions to '{url}' are under way ({names}); name one of these folders"
        raise InputError(msg, url=url, found=parts)
    return parts[0]
