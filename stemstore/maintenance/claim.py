"""The place of a copy: taken, taken up again after an interruption, named at the end."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.errors import (
    ConversionIncompleteError,
    CorruptDataError,
    DestinationExistsError,
    InputError,
    NotFoundError,
)
from stemstore.store.commit import COMMIT
from stemstore.store.destination import check_free, clear, drop_old_journal
from stemstore.store.finalise import publish
from stemstore.store.journal import COPY
from stemstore.store.urls import is_local, open_storage

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from stemstore.maintenance.opened import Opened
    from stemstore.store.urls import Storage

    PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """The place of a copy.

    Attributes
    ----------
    url, working
        Where the copy will be, and where it grows.
    fresh
        Whether this call began it.
    """

    url: str
    working: str
    fresh: bool

    @classmethod
    def make(cls, opened: Opened, destination: PathLike, *, resume: bool, overwrite: bool) -> Claim:
        """Take the place, or take up what was interrupted there; errors as of `copy_store`."""
        target, uuid = open_storage(destination), opened.document.uuid
        mark = json.dumps({"uuid": uuid, "shards_digest": opened.document.shards_digest}).encode()
        apart = is_local(target.root) and not (resume and held(target, COPY) is not None)  # else it lacks the very end
        working = f"{target.root}.part-{uuid}" if apart else target.root
        storage = open_storage(working)
        begun = held(storage, COPY)
        if begun is not None and not resume:
            msg = (
                f"a copy to '{target.root}' is under way or was interrupted; go on with resume=True (--resume), or "
                f"remove '{working}'"
            )
            raise DestinationExistsError(msg, url=target.root, found=working)
        if begun is not None and begun != mark:
            msg = f"the copy in '{working}' was begun from another store; remove it, or choose another destination"
            raise InputError(msg, url=working, source=opened.storage.root)
        free = begun is not None and not apart
        free = free or check_free(target, overwrite=overwrite)
        if begun is not None:
            if held(storage, COMMIT) not in (None, opened.commit):
                clear(storage)  # of the store that is replaced, or of an earlier state of the source
            return cls(target.root, working, fresh=False)
        replaces = not is_local(working) and not free
        if replaces:
            drop_old_journal(storage)
        storage.create(COPY, [mark])
        if replaces:
            clear(storage)  # only now: the mark stays and tells what the place is for
        return cls(target.root, working, fresh=True)

    def finish(self, *, overwrite: bool) -> None:
        """Give the whole copy its name, and remove the mark."""
        publish(self.working, self.url, overwrite=overwrite)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Remove what was written where the source is wrong, and say how to go on otherwise."""
        try:
            yield
        except (CorruptDataError, NotFoundError):
            if self.fresh:
                with suppress(Exception):  # the first error is the one to report
                    open_storage(self.working).delete()
            raise
        except (DestinationExistsError, ConversionIncompleteError):
            raise
        except BaseException as error:
            error.add_note("what was copied is kept; go on with resume=True (--resume)")
            raise


def held(storage: Storage, key: str) -> bytes | None:
    """Read an object; None where there is none."""
    try:
        return storage.get(key)
    except NotFoundError:
        return None
