"""What a conversion has done so far: one object per partition, written after the shards it vouches for.

An entry is written whole or not at all, and again with the same content when a partition is repeated, so partitions may
be written in any order by any process. It also carries the small results of its partition, which the end of the
conversion puts together.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stemstore.errors import (
    ConversionIncompleteError,
    CorruptDataError,
    DestinationExistsError,
    InputError,
    NotFoundError,
)
from stemstore.selection import flatten
from stemstore.store.codecs import object_checksum
from stemstore.store.layout import CountedLayout, Layout, dump_layout, load_layout
from stemstore.store.refusal import begun
from stemstore_schemas import ScanDocument, dump_document, load_document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.store.urls import Storage

JOURNAL = ".journal"
PLAN_NAME = "plan.json"
PLAN = f"{JOURNAL}/{PLAN_NAME}"
_TOGETHER = 32
"""Entries that are asked for at once."""

COPY = f"{JOURNAL}/copy.json"
"""Says of an unfinished place what it is going to be a copy of."""

EDIT = f"{JOURNAL}/edit.json"
"""All objects of a change of metadata that is being made."""

VALID_FRAME = 2
"""State of a complete frame in a validity array (0 missing, 1 partial)."""


@dataclass(frozen=True, slots=True)
class PartitionRecords:
    """Small results of one partition, in the C order of its positions.

    Attributes
    ----------
    valid : shape (positions,), uint8, optional
        State of every frame; None when all are valid.
    maps
        Arrays (positions,) or (positions, by, bx) that become images of the summary.
    sums
        Arrays (ky, kx) that are added up over all partitions.
    maxima
        Arrays (ky, kx) of which the largest values are kept.
    notes
        Arrays of any shape for whoever finishes the conversion; they do not get into the store.
    """

    valid: Array | None = None
    maps: dict[str, Array] = field(default_factory=dict)
    sums: dict[str, Array] = field(default_factory=dict)
    maxima: dict[str, Array] = field(default_factory=dict)
    notes: dict[str, Array] = field(default_factory=dict)

    def check(self, n_positions: int, frame_shape: tuple[int, ...]) -> None:
        """Make sure that the records fit a partition.

        Raises
        ------
        InputError
            A record has another shape than its kind needs.
        """
        states = {} if self.valid is None else {"valid": self.valid}
        for name, values in {**states, **self.maps}.items():
            if len(values) != n_positions or values.ndim not in ((1,) if name == "valid" else (1, 3)):
                msg = f"record {name!r} has shape {values.shape}, expected a value or image for each of {n_positions}"
                raise InputError(msg, key=name, found=values.shape, expected=n_positions)
        for name, values in {**self.sums, **self.maxima}.items():
            if values.shape != frame_shape:
                msg = f"record {name!r} has shape {values.shape}, expected that of the detector, {frame_shape}"
                raise InputError(msg, key=name, found=values.shape, expected=frame_shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says of one partition.

    Attributes
    ----------
    partition, uuid
        Number of the partition, and the store it belongs to.
    sizes, checksums
        Bytes and CRC-32 of its shards by key.
    columns
        Chunks that its widest block takes (counted scans).
    max_multiplicity
        Most electrons that one pixel of one frame got (counted scans).
    n_events
        Number of its events (counted scans).
    """

    partition: int
    uuid: str
    sizes: dict[str, int]
    checksums: dict[str, int]
    columns: int = 0
    max_multiplicity: int = 0
    n_events: int = 0


@dataclass(frozen=True, slots=True)
class JournalView:
    """What an unfinished store holds: state of every flat position, and slots of every one (counted scans)."""

    validity: Array
    n_slots: Array
    columns: int
    max_multiplicity: int


def write_plan(storage: Storage, document: ScanDocument, layout: Layout, url: str, *, overwrite: bool) -> None:
    """Write down what the conversion is about, so that other processes can take part and resume.

    The plan is also what claims a place: there is one, or the place is free.

    Raises
    ------
    DestinationExistsError
        Another conversion to this place is under way, or was interrupted.
    """
    plan = {
        "document": dump_document(document),
        "layout": dump_layout(layout),
        "url": url,
        "overwrite": overwrite,
    }
    try:
        storage.create(PLAN, [json.dumps(plan).encode()])
    except DestinationExistsError as error:
        raise begun(storage.root) from error


def check_ours(storage: Storage, uuid: str) -> None:
    """Make sure that the place still belongs to a conversion.

    Raises
    ------
    ConversionIncompleteError
        It was aborted, or another conversion has the place.
    """
    try:
        found: str | None = read_plan(storage)[0].uuid
    except NotFoundError:
        found = None
    if found != uuid:
        now = f"belongs to the conversion of scan {found}" if found else "belongs to none"
        msg = f"'{storage.root}' {now}, but this is the one of scan {uuid}; convert to another place"
        raise ConversionIncompleteError(msg, url=storage.root, expected=uuid, found=found)


def read_plan(storage: Storage) -> tuple[ScanDocument, Layout, str, bool]:
    """Read what `write_plan` wrote.

    Raises
    ------
    NotFoundError
        There is no conversion under way.
    CorruptDataError
        The plan is damaged.
    """
    body = storage.get(PLAN)
    try:
        plan = json.loads(body)
        return load_document(plan["document"]), load_layout(plan["layout"]), plan["url"], plan["overwrite"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the plan '{storage.root}/{PLAN}' is damaged ({error!r}); remove the folder and convert again"
        raise CorruptDataError(msg, url=storage.root, key=PLAN) from error


def entry_key(partition: int) -> str:
    """Key of the journal entry of a partition."""
    return f"{JOURNAL}/{partition:08d}.npz"


def write_entry(storage: Storage, entry: Entry, records: PartitionRecords, n_slots: Array | None = None) -> None:
    """Vouch for a partition whose shards are durable."""
    arrays = {"valid": records.valid, "n_slots": n_slots}
    for kind in ("maps", "sums", "maxima", "notes"):
        arrays |= {f"{kind}/{name}": value for name, value in getattr(records, kind).items()}
    fields = {name: getattr(entry, name) for name in Entry.__slots__}
    arrays["entry"] = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    body = BytesIO()
    np.savez(body, **{name: value for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    storage.put(entry_key(entry.partition), [body.getbuffer()])


class EntryFile:
    """One journal entry with its records, which are read one by one when asked for."""

    def __init__(self, storage: Storage, partition: int) -> None:
        self.where = f"{storage.root}/{entry_key(partition)}"
        self._file = storage.open(entry_key(partition))
        try:
            self._arrays: Any = np.load(self._file, allow_pickle=False)
            self.entry = Entry(**json.loads(self._arrays["entry"].tobytes()))
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
            self._file.close()
            msg = f"the journal entry '{self.where}' is damaged ({error}); remove it and resume the conversion"
            raise CorruptDataError(msg, key=self.where, partition=partition) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._arrays.close()
        self._file.close()

    def names(self, kind: str) -> list[str]:
        """Names of the records of a kind: ``"maps"``, ``"sums"``, ``"maxima"`` or ``"notes"``."""
        return sorted(name.partition("/")[2] for name in self._arrays.files if name.startswith(f"{kind}/"))

    def get(self, name: str) -> Array | None:
        """One array of the entry, or None where it has no such."""
        return self._arrays[name] if name in self._arrays.files else None

    def array(self, name: str) -> Array:
        """One array that the entry has."""
        return self._arrays[name]


def finished(storage: Storage, uuid: str, *, check: bool, among: Collection[int] | None = None) -> list[int]:
    """List the partitions that are done, sorted; on a server by one listing, and entries that are asked for together.

    Parameters
    ----------
    storage, uuid
        Where the conversion writes, and the identity of its store.
    check
        Compare the checksums of shards with their entries, not only the sizes.
    among
        Partitions to look at; all by default.
    """
    sizes = storage.sizes("")
    names = (key.rpartition("/")[2] for key in sizes if key.startswith(f"{JOURNAL}/") and key.endswith(".npz"))
    entered = sorted(int(name.removesuffix(".npz")) for name in names)
    if among is not None:
        entered = [number for number in entered if number in among]
    return [number for number in ahead(storage, entered) if _holds(storage, number, uuid, sizes, check=check)]


def ahead(storage: Storage, partitions: Sequence[int]) -> Iterator[int]:
    """Give partitions one after the other, whose journal entries are about to be read."""
    for first in range(0, len(partitions), _TOGETHER):
        some = partitions[first : first + _TOGETHER]
        storage.expect([entry_key(number) for number in some])
        yield from some


def _holds(storage: Storage, partition: int, uuid: str, known: Mapping[str, int], *, check: bool) -> bool:
    """Tell whether a partition is done: its entry is ours, its shards have their sizes and (`check`) checksums."""
    try:
        with EntryFile(storage, partition) as found:
            entry = found.entry
    except CorruptDataError:
        return False
    if entry.uuid != uuid or any(known.get(key) != size for key, size in entry.sizes.items()):
        return False
    return not check or all(object_checksum([storage.get(key)]) == crc for key, crc in entry.checksums.items())


def positions(layout: Layout, partition: int) -> Int64Array:
    """Flat scan positions of a partition, in the order of its records."""
    if isinstance(layout, CountedLayout):
        return np.arange(*layout.partition(partition), dtype=np.int64)
    part = layout.partition(partition)
    return flatten(tuple(range(s.start, s.stop) for s in part), layout.scan_shape)


def view_journal(storage: Storage, layout: Layout, uuid: str) -> JournalView:
    """Put together what the finished partitions of an unfinished store say."""
    n_frames = int(np.prod(layout.scan_shape))
    valid, n_slots = np.zeros(n_frames, np.uint8), np.zeros(n_frames, np.uint32)
    columns, multiplicity = 0, 0
    for partition in ahead(storage, finished(storage, uuid, check=False)):
        where = positions(layout, partition)
        with EntryFile(storage, partition) as found:
            state, slots = found.get("valid"), found.get("n_slots")
            valid[where] = VALID_FRAME if state is None else state
            n_slots[where] = 0 if slots is None else slots
            columns = max(columns, found.entry.columns)
            multiplicity = max(multiplicity, found.entry.max_multiplicity)
    return JournalView(valid, n_slots, columns, multiplicity)
