"""What is known of an open store before any pixel is read, and the watch that it is still the same store."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from stemstore.errors import InputError, NotFoundError, StaleStoreError
from stemstore.store.commit import COMMIT
from stemstore.store.journal import PLAN
from stemstore.store.maps import read_map
from stemstore.store.metadata import VALID, parse_document, read_root
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.selection import Selection
    from stemstore.store.journal import JournalView
    from stemstore.store.metadata import ArrayInfo
    from stemstore.store.urls import Storage
    from stemstore_schemas import ScanDocument

LOOK_AFTER = 60.0
"""Seconds for which a store on a server is taken to be still the same."""


class StoreHead:
    """Metadata of an open store.

    Parameters
    ----------
    storage
        Where the store lies.
    document
        What it says about its scan.
    arrays
        Arrays that are read lazily, by path.
    journal
        What an unfinished store has recorded so far; None for a finished one.
    """

    def __init__(
        self,
        storage: Storage,
        document: ScanDocument,
        arrays: dict[str, ArrayInfo],
        journal: JournalView | None = None,
    ) -> None:
        self.storage = storage
        self.document = document
        self.arrays = arrays
        self.journal = journal
        self._watched = COMMIT if journal is None else PLAN
        self._stamp = storage.stamp(self._watched)
        self._looked = time.monotonic()
        self._small: dict[str, Array] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Absolute path or URL of the store."""
        return self.storage.root

    @property
    def complete(self) -> bool:
        """Whether the store was finished."""
        return self.journal is None

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Extents of the scan axes."""
        return self.document.shape[:-2]

    def validity(self) -> Array | None:
        """State of every flat scan position (uint8), or None when all frames are valid; read once."""
        if self.journal is not None:
            return self.journal.validity
        return self.small(VALID).reshape(-1) if VALID in self.arrays else None

    def expect(self, path: str) -> bool:
        """Begin to read a small array of a finished store; tells whether it is still to be read."""
        with self._lock:
            if path in self._small:
                return False
        info = self.arrays[path]
        self.storage.expect([info.key((0,) * len(info.shape))])
        return True

    def small(self, path: str) -> Array:
        """Read a small array of a finished store, once."""
        with self._lock:
            if path not in self._small:
                values = read_map(self.storage, self.arrays[path])
                values.setflags(write=False)
                self._small[path] = values
            return self._small[path]

    def check_selection(self, selection: Selection) -> None:
        """Make sure that a selection was made for this scan, and that the scan is still there.

        Raises
        ------
        InputError
            It selects from an array of another shape.
        StaleStoreError
            As for `check_fresh`.
        """
        if selection.stored != self.document.shape:
            msg = f"the selection is of an array {selection.stored}, the scan '{self.url}' is {self.document.shape}"
            raise InputError(msg, found=selection.stored, expected=self.document.shape)
        self.check_fresh()

    def check_fresh(self) -> None:
        """Make sure that nobody has put another store in this place.

        Costs one look at a local file. Where a look is a request, it is taken once a minute.

        Raises
        ------
        StaleStoreError
            The place holds another store now, or none.
        """
        stamp = self.storage.stamp(self._watched)
        if stamp == self._stamp and (is_local(self.url) or time.monotonic() - self._looked < LOOK_AFTER):
            return
        try:
            found: str | None = parse_document(read_root(self.storage), self.url).uuid
        except NotFoundError:
            found = None
        if found != self.document.uuid:
            raise stale(self.url, self.document.uuid, found)
        self._stamp, self._looked = stamp, time.monotonic()


def stale(url: str, expected: str, found: str | None) -> StaleStoreError:
    """Describe a store that was replaced behind an open scan."""
    now = f"holds scan {found} now" if found else "is gone"
    msg = f"the store '{url}' was opened as scan {expected} and {now}; open it again"
    return StaleStoreError(msg, url=url, expected=expected, found=found)
