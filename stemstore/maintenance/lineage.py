"""What the histories of a store and of its results tell, as things and the steps that made them out of each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from stemstore.ops.saved.results import describe_result
from stemstore.store.attached import list_groups
from stemstore.store.commit import read_commit
from stemstore.store.metadata import DERIVED
from stemstore.store.open import open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from stemstore_schemas import CommitDocument, HistoryEntry, ResultDocument, ScanDocument, SourceFile


@dataclass(frozen=True, slots=True)
class Thing:
    """A file, a store or a result.

    Attributes
    ----------
    key
        By which steps name it: ``uuid:…`` of stores and results, ``file:…`` of files.
    kind
        What it is; a ``"state"`` is what a store said before something was changed in it.
    path
        Path or URL as it was given; of a result that of its group.
    name
        For people.
    description
        For people.
    digest
        Of its content, where one was recorded: algorithm, colon, hexadecimal.
    size
        Bytes; None where nobody wrote them down.
    time
        Last modification of a file, or when a store or result was finished, ISO 8601.
    """

    key: str
    kind: Literal["file", "store", "result", "state"]
    path: str
    name: str
    description: str = ""
    digest: str | None = None
    size: int | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes
    ----------
    key
        By which other steps name it.
    entry
        As the history tells it.
    used, made
        Keys of things. What lies in memory between two operations is no thing.
    after
        Keys of the operations whose results it took from memory.
    finished
        When what it made was finished, where that is known, ISO 8601.
    """

    key: str
    entry: HistoryEntry
    used: list[str]
    made: list[str]
    after: list[str] = field(default_factory=list)
    finished: str | None = None

    @property
    def ended(self) -> str | None:
        """When it ended, ISO 8601; None where nothing tells."""
        if self.entry.wall_seconds is None:
            return self.finished
        began = datetime.fromisoformat(self.entry.time)
        return (began + timedelta(seconds=self.entry.wall_seconds)).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Lineage:
    """A store, its results, and everything that they come from.

    Attributes
    ----------
    document
        Of the scan.
    store
        Key of the store.
    time
        When the store was finished, ISO 8601.
    things, steps
        By key, in the order of the histories.
    """

    document: ScanDocument
    store: str
    time: str
    things: dict[str, Thing] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def named(self, key: str) -> Thing:
        """Give a thing; of a state the store that had it."""
        return self.things[key.partition("/before-")[0]] if self.things[key].kind == "state" else self.things[key]


def read_lineage(store: str | os.PathLike[str]) -> Lineage:
    """Read the histories of a store and of all its results.

    Parameters
    ----------
    store
        Path or URL of a finished store.

    Raises
    ------
    NotFoundError, UnknownFormatError, ConversionIncompleteError
        There is no finished store.
    CorruptDataError, FormatVersionError
        It, or one of its results, cannot be read.
    """
    scan = open_store(store)
    results = [describe_result(scan.url, name) for name in list_groups(scan.url, DERIVED)]
    return trace(scan.url, scan.document, read_commit(scan.head.storage), results)


def trace(
    url: str, document: ScanDocument, commit: CommitDocument | None, results: Iterable[ResultDocument] = ()
) -> Lineage:
    """Put together what documents tell.

    Parameters
    ----------
    url
        Where the store lies.
    document, commit
        Of the store.
    results
        Documents of its results.
    """
    key, time = f"uuid:{document.uuid}", "" if commit is None else commit.time
    lineage = Lineage(document, key, time)
    digest, size = (None, None) if commit is None else (commit.shards_digest, commit.n_bytes)
    what = f"{document.profile} 4D-STEM scan of {' x '.join(map(str, document.shape))}"
    lineage.things[key] = Thing(key, "store", url, _last(url), what, digest, size, time or None)
    _add_scan(lineage)
    for result in results:
        _add_result(lineage, url, result)
    return lineage


def _add_scan(lineage: Lineage) -> None:
    """Add the steps that made the store; a store that several steps made is a state of itself between them."""
    history = lineage.document.history
    stores = [_store_made(lineage, number) for number in range(len(history))]
    for number, (entry, store) in enumerate(zip(history, stores, strict=True)):
        used, made = _inputs(lineage, entry.inputs), store
        if number and stores[number - 1] == store:
            used = [one for one in used if one != store]
            used.append(f"{store}/before-{number}")
        if stores[number + 1 : number + 2] == [store]:
            made, now = f"{store}/before-{number + 1}", lineage.things[store]
            name = f"{now.name} before {history[number + 1].operation}"
            lineage.things[made] = Thing(made, "state", now.path, name)
        step = f"{lineage.store}/step-{number}"
        finished = lineage.time or None if number == len(history) - 1 else None
        lineage.steps[step] = Step(step, entry, used, [made], finished=finished)


def _store_made(lineage: Lineage, number: int) -> str:
    """Key of the store that a step of the scan's history made: the next one that a later step reads, or this one."""
    later = lineage.document.history[number + 1 :]
    read = [f"uuid:{file.uuid}" for entry in later for file in entry.inputs if file.uuid is not None]
    return next((key for key in read if key != lineage.store), lineage.store)


def _add_result(lineage: Lineage, url: str, document: ResultDocument) -> None:
    """Add a result, the operations that gave it, and its saving, which took from memory what they gave.

    A history does not tell which operation took what another one gave, so that no step claims it.
    """
    key = f"uuid:{document.uuid}"
    path = f"{url.rstrip('/')}/{DERIVED}/{document.name}"
    about = f"saved result: {', '.join(document.variables)}"
    lineage.things[key] = Thing(key, "result", path, document.name, about, time=document.time)
    if not document.history:
        return
    *operations, saving = document.history
    used = _inputs(lineage, saving.inputs) or [lineage.store]
    before = [f"{key}/step-{number}" for number in range(len(operations))]
    for step, entry in zip(before, operations, strict=True):
        lineage.steps[step] = Step(step, entry, _inputs(lineage, entry.inputs) or used, [])
    last = f"{key}/step-{len(operations)}"
    lineage.steps[last] = Step(last, saving, used, [key], before)


def _inputs(lineage: Lineage, files: Iterable[SourceFile]) -> list[str]:
    """Keys of what an operation read; what is not known yet becomes a thing."""
    keys = []
    for file in files:
        key = f"uuid:{file.uuid}" if file.uuid else f"file:{file.path}"
        kind: Literal["store", "file"] = "store" if file.uuid else "file"
        known = lineage.things.get(key)
        if known is not None and (known.digest, known.size) != (file.digest, file.size) and kind == "file":
            key = f"{key}#{file.digest or file.size}"  # another content under the same name
        if key not in lineage.things:
            name = _last(file.path)
            lineage.things[key] = Thing(key, kind, file.path, name, "", file.digest, file.size, file.mtime)
        keys.append(key)
    return list(dict.fromkeys(keys))


def _last(path: str) -> str:
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or path
