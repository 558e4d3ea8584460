"""Where the disks of finished pieces wait for the end of a run: in memory, or in the store, from where a run goes on.

In the store they lie in the folder ``derived/.part-<name>``, one object per piece, whole or not at all, beside the plan
of the run. No listing of results shows the folder, and the end of the run removes it.
"""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stemstore.errors import CorruptDataError, NotFoundError, StemStoreError
from stemstore.ops.disks.pieces import PieceDisks
from stemstore.store.attached import check_name
from stemstore.store.metadata import DERIVED
from stemstore.store.urls import open_storage

if TYPE_CHECKING:
    from stemstore._types import Array

PLAN = "plan.json"


class Parts(Protocol):
    """Keeps the disks of finished pieces, by number."""

    def counts(self) -> dict[int, Array]:
        """Disks per position of every finished piece."""

    def put(self, number: int, piece: PieceDisks) -> None:
        """Keep the disks of a piece."""

    def rows(self, number: int) -> Array:
        """Give the disks of a finished piece, (disks, columns)."""


class PartsInMemory:
    """Finished pieces of a run without a store."""

    def __init__(self) -> None:
        self._pieces: dict[int, PieceDisks] = {}

    def counts(self) -> dict[int, Array]:
        """Disks per position of every finished piece."""
        return {number: piece.counts for number, piece in self._pieces.items()}

    def put(self, number: int, piece: PieceDisks) -> None:
        """Keep the disks of a piece."""
        self._pieces[number] = piece

    def rows(self, number: int) -> Array:
        """Give the disks of a finished piece."""
        return self._pieces[number].rows


class PartsInStore:
    """Finished pieces of a run whose result goes into a store.

    Parameters
    ----------
    url
        The store.
    name
        Of the result.
    """

    def __init__(self, url: str, name: str) -> None:
        self._storage = open_storage(url)
        self.place = f"{DERIVED}/.part-{check_name(name)}"
        self._counts: dict[int, Array] = {}

    def plan(self) -> dict[str, Any] | None:
        """Read the plan of an unfinished run; None where there is none, or none that can be read."""
        try:
            found = json.loads(self._storage.get(f"{self.place}/{PLAN}"))
        except (NotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def begin(self, plan: dict[str, Any]) -> None:
        """Begin a run anew."""
        self.remove()
        self._storage.put(f"{self.place}/{PLAN}", [json.dumps(plan, indent=2).encode()])

    def load(self) -> None:
        """Look for the pieces that an earlier run has finished; damaged ones are done again."""
        for name in self._storage.children(self.place):
            stem, _, end = name.partition(".")
            if end == "npz" and stem.isdigit():
                try:
                    self._counts[int(stem)] = self._read(int(stem)).counts
                except CorruptDataError:
                    continue

    def counts(self) -> dict[int, Array]:
        """Disks per position of every finished piece."""
        return self._counts

    def put(self, number: int, piece: PieceDisks) -> None:
        """Write the disks of a piece, durable on return."""
        body = BytesIO()
        np.savez(body, counts=piece.counts, rows=piece.rows)
        self._storage.put(self._key(number), [body.getbuffer()])
        self._counts[number] = piece.counts

    def rows(self, number: int) -> Array:
        """Read the disks of a finished piece."""
        return self._read(number).rows

    def remove(self) -> None:
        """Remove the folder."""
        self._storage.delete(self.place)

    def _key(self, number: int) -> str:
        return f"{self.place}/{number:08d}.npz"

    def _read(self, number: int) -> PieceDisks:
        key = self._key(number)
        try:
            with np.load(BytesIO(self._storage.get(key)), allow_pickle=False) as found:
                return PieceDisks(found["counts"], found["rows"])
        except StemStoreError:
            raise  # missing, or the place does not answer
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            msg = (
                f"the finished piece '{self._storage.root}/{key}' is damaged ({error}); resume the run, which makes "
                "it anew"
            )
            raise CorruptDataError(msg, url=self._storage.root, key=key) from error
