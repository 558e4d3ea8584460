"""A finished store that is to be read whole: listed once, so that a change meanwhile is noticed."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.errors import StaleStoreError, StorageError
from stemstore.store.commit import COMMIT, check_root, read_commit
from stemstore.store.metadata import ROOT
from stemstore.store.objects import StoreObject, list_objects, read_object, unseen
from stemstore.store.open import open_store

if TYPE_CHECKING:
    import os

    from stemstore.store.urls import Storage
    from stemstore_schemas import CommitDocument

    PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that is to be copied or packed: read once, so that a change meanwhile is noticed.

    Attributes
    ----------
    storage
        Where it lies.
    root, commit
        Its root metadata, and its commit object as bytes and as document.
    objects
        All of it.
    largest : unit bytes
        Most that one object can take.
    """

    storage: Storage
    root: bytes
    commit: bytes
    document: CommitDocument
    objects: list[StoreObject]
    largest: int

    @classmethod
    def at(cls, url: PathLike) -> Opened:
        """Look at a finished store.

        Raises
        ------
        StemStoreError
            There is none, or its metadata are not those that were written.
        """
        storage = open_store(url).head.storage
        root, commit, document = storage.get(ROOT), storage.get(COMMIT), read_commit(storage)
        if document is None:
            msg = f"the commit object of '{storage.root}' disappeared while it was looked at; try again"
            raise StaleStoreError(msg, url=storage.root)
        check_root(storage.root, root, document)
        objects = list_objects(storage, json.loads(root))
        return cls(storage, root, commit, document, objects, max(map(_bound, objects)))

    def read(self, one: StoreObject) -> bytes | None:
        """Read and check an object; root and commit are those that were seen first."""
        held = {ROOT: self.root, COMMIT: self.commit}
        return held[one.key] if one.key in held else read_object(self.storage, one)

    def check_unchanged(self) -> None:
        """Make sure that nobody edited or replaced the store meanwhile.

        Raises
        ------
        StaleStoreError
            Somebody did.
        """
        if (self.storage.get(ROOT), self.storage.get(COMMIT)) != (self.root, self.commit):
            msg = f"'{self.storage.root}' was changed while it was read; run it again"
            raise StaleStoreError(msg, url=self.storage.root)

    def left(self) -> list[str]:
        """Tell what lies in the place of the store and is no part of it, or cannot be seen."""
        url = self.storage.root
        if cannot := unseen(url):
            return cannot
        mine = {one.key for one in self.objects}
        other: list[str] = []
        with suppress(StorageError):  # who may read need not be allowed to list
            other = [key for key in self.storage.keys("") if key not in mine]
        if not other:
            return []
        shown = ", ".join(other[:3]) + (", …" if len(other) > 3 else "")  # noqa: PLR2004 - enough to see what they are
        return [f"{len(other)} objects that are no part of the store were left behind: {shown}"]


def _bound(one: StoreObject) -> int:
    if one.info is None:
        return 0
    n_bytes = one.info.dtype.itemsize
    for extent in one.info.shard or one.info.chunk:
        n_bytes *= extent
    return n_bytes
