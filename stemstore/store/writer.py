"""Writing a store in three steps, each of which any process may take: init, write partition i, finalise.

Nothing appears under the final name before everything is there. A local store grows in a folder beside it and is
renamed at the end; on an object store the commit object, written last, is what makes the other objects a store.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, DestinationExistsError, InputError, NotFoundError, UnknownFormatError
from stemstore.store.codecs import object_checksum
from stemstore.store.commit import COMMIT, read_commit
from stemstore.store.destination import check_free, clear, drop_old_journal, only_part
from stemstore.store.event_columns import check_columns
from stemstore.store.finalise import finish, publish
from stemstore.store.journal import (
    JOURNAL,
    PLAN,
    Entry,
    EntryFile,
    PartitionRecords,
    check_ours,
    finished,
    read_plan,
    write_entry,
    write_plan,
)
from stemstore.store.layout import CountedLayout, DenseLayout, Layout
from stemstore.store.metadata import COLUMNS, GAP, INTENSITY, ROOT, metadata_objects, parse_document, read_root
from stemstore.store.shards import encode_shard
from stemstore.store.slots import ESCAPE, check_blocks, encode_slots, max_multiplicity
from stemstore.store.summary import chunk_bytes
from stemstore.store.urls import Storage, is_local, open_storage
from stemstore_schemas import EventEncoding, ScanDocument

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence

    from stemstore._types import Array, UInt16Array, UInt32Array


@dataclass(frozen=True)
class StoreWriter:
    """A conversion under way; picklable, holds nothing open.

    Attributes
    ----------
    url
        Where the finished store will be.
    working
        Where it grows.
    document
        What it says about its scan.
    layout
        Its chunks, shards and partitions.
    overwrite
        Whether a store under `url` is replaced at the end.
    """

    url: str
    working: str
    document: ScanDocument
    layout: Layout
    overwrite: bool

    @classmethod
    def init(
        cls,
        url: str | os.PathLike[str],
        document: ScanDocument,
        layout: Layout,
        *,
        overwrite: bool = False,
    ) -> StoreWriter:
        """Begin a store.

        Parameters
        ----------
        url
            Path or URL of the finished store.
        document
            What it says about its scan; `finalise` may give a fuller one of the same uuid.
        layout
            From `dense_layout` or `counted_layout`.
        overwrite
            Replace a store that is there: a local one at the very end, a remote one now.

        Raises
        ------
        DestinationExistsError
            There is something under `url`, and overwriting was not asked for or it is not a store; or another
            conversion to this place is under way.
        InputError
            Document and layout describe different scans.
        StorageError
            The place cannot be written.
        """
        document = match(document, layout)
        target = open_storage(url)
        free = check_free(target, overwrite=overwrite)
        working = f"{target.root}.part-{document.uuid}" if is_local(target.root) else target.root
        storage = open_storage(working)
        if not free and not is_local(working):
            drop_old_journal(storage)
        writer = cls(target.root, working, document, layout, overwrite)
        try:
            write_plan(storage, document, layout, target.root, overwrite=overwrite)
            writer._begin()
        except DestinationExistsError:
            raise  # nothing there is ours
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                writer.abort()
            raise
        return writer

    @classmethod
    def attach(cls, url: str | os.PathLike[str]) -> StoreWriter:
        """Take part in a conversion that another process began, or resume one.

        Parameters
        ----------
        url
            The destination, or the working folder itself.

        Raises
        ------
        NotFoundError
            No conversion is under way there.
        InputError
            Several are; name the working folder.
        """
        storage = open_storage(url)
        if storage.size(PLAN) is None:
            storage = open_storage(only_part(storage.root))
        document, layout, final, overwrite = read_plan(storage)
        writer = cls(final if is_local(final) else storage.root, storage.root, document, layout, overwrite)
        if not is_local(storage.root):
            writer._begin()
        return writer

    @property
    def uuid(self) -> str:
        """Identity of the store."""
        return self.document.uuid

    def finished(self, among: Collection[int] | None = None, *, check: bool = True) -> set[int]:
        """Find the partitions that are done, so that a resumed conversion skips them.

        Parameters
        ----------
        among
            Partitions to look at; all by default.
        check
            Compare the checksum of every shard with the journal, not only its size.
        """
        numbers = range(self.layout.n_partitions)
        done = finished(open_storage(self.working), self.uuid, check=check, among=numbers if among is None else among)
        return {*done} & {*numbers}

    def committed(self) -> ScanDocument | None:
        """Give the document of a store that is whole, and lacks at most its name or the removal of its journal."""
        storage = open_storage(self.working)
        commit = read_commit(storage)
        if commit is None or commit.uuid != self.uuid:
            return None
        return parse_document(read_root(storage), self.url)

    def publish(self) -> str:
        """Give a store that is committed its name, and remove its journal; errors as for `finalise`."""
        publish(self.working, self.url, overwrite=self.overwrite)
        return self.url

    def recorded(self, index: int) -> tuple[Entry, dict[str, Array]]:
        """Give the journal entry of a partition that is done, and its notes.

        Raises
        ------
        NotFoundError, CorruptDataError
            There is no entry, or it is damaged.
        """
        with EntryFile(open_storage(self.working), index) as found:
            return found.entry, {name: found.array(f"notes/{name}") for name in found.names("notes")}

    def write_frames(self, index: int, frames: Array, records: PartitionRecords | None = None) -> None:
        """Write partition `index` of a dense scan: its shard, then its journal entry.

        Parameters
        ----------
        index
            Number in ``layout.partitions``.
        frames : shape (positions, ky, kx) or (extents…, ky, kx)
            Frames of the partition in C order; any byte order, same kind and size as the layout's dtype.
        records
            Small results of the partition.

        Raises
        ------
        InputError
            Shape or type do not fit the layout.
        StorageError
            The device refused; nothing half-written counts as done.
        """
        layout = self.layout
        if not isinstance(layout, DenseLayout):
            msg = f"the store '{self.url}' is counted; use write_events"
            raise InputError(msg, url=self.url)
        part = layout.partition(index)
        shape = tuple(s.stop - s.start for s in part) + layout.shape[-2:]
        if frames.size != np.prod(shape) or frames.shape[-2:] != shape[-2:] or frames.dtype.name != layout.dtype:
            msg = (
                f"partition {index} of '{self.url}' got frames {frames.shape} {frames.dtype.name}, "
                f"expected {shape} {layout.dtype}; read the frames of layout.partitions[{index}]"
            )
            raise InputError(msg, partition=index, found=frames.shape, expected=shape)
        records = records or PartitionRecords()
        records.check(int(np.prod(shape[:-2])), shape[-2:])
        key = "/".join([INTENSITY, "c", *map(str, layout.place(index))])
        storage = self._ours()
        sizes, checksums = _put_shard(storage, key, encode_shard(chunk_bytes(frames.reshape(shape), layout)))
        write_entry(storage, Entry(index, self.uuid, sizes, checksums), records)

    def write_events(
        self,
        index: int,
        blocks: Sequence[tuple[UInt16Array, UInt32Array]],
        records: PartitionRecords | None = None,
        *,
        columns: Sequence[Mapping[str, Array]] = (),
    ) -> None:
        """Write partition `index` of a counted scan: its shards, then its journal entry.

        Parameters
        ----------
        index
            Number in ``layout.partitions``.
        blocks
            For every block of ``layout.blocks(index)`` the gaps (uint16) and the slots of every frame (uint32).
        records
            Small results of the partition.
        columns
            For every block the further values of ``layout.columns`` by name, one per slot; empty where there are none.

        Raises
        ------
        InputError
            The blocks do not fit the layout.
        StorageError
            The device refused; nothing half-written counts as done.
        """
        layout = self.layout
        if not isinstance(layout, CountedLayout):
            msg = f"the store '{self.url}' is dense; use write_frames"
            raise InputError(msg, url=self.url)
        check_blocks(layout, index, blocks)
        check_columns(layout, index, blocks, columns or [{} for _ in blocks])
        records = records or PartitionRecords()
        start, stop = layout.partition(index)
        records.check(stop - start, layout.frame_shape)
        width = layout.slots_per_chunk
        n_chunks = max(max(1, -(-len(gap) // width)) for gap, _ in blocks)
        storage = self._ours()
        sizes: dict[str, int] = {}
        checksums: dict[str, int] = {}
        arrays = {GAP: [gap for gap, _ in blocks]}
        arrays |= {COLUMNS[name]: [block[name] for block in columns] for name, _ in layout.columns}
        for (path, slots), at in itertools.product(arrays.items(), range(n_chunks)):
            chunks = [encode_slots(layout, block, at) for block in slots]
            chunks += [None] * (layout.blocks_per_shard - len(chunks))
            written = _put_shard(storage, f"{path}/c/{index}/{at}", encode_shard(chunks))
            sizes |= written[0]
            checksums |= written[1]
        entry = Entry(
            partition=index,
            uuid=self.uuid,
            sizes=sizes,
            checksums=checksums,
            columns=n_chunks,
            max_multiplicity=max(max_multiplicity(gap, slots) for gap, slots in blocks),
            n_events=sum(int(np.count_nonzero(gap != ESCAPE)) for gap, _ in blocks),
        )
        n_slots = np.concatenate([slots for _, slots in blocks]).astype(np.uint32)
        write_entry(storage, entry, records, n_slots)

    def finalise(
        self,
        document: ScanDocument | None = None,
        *,
        attributes: Mapping[str, dict[str, Any]] | None = None,
        arrays: Mapping[str, tuple[tuple[str, ...], Array]] | None = None,
    ) -> str:
        """Check that all partitions are there, write what describes them, commit, and give the store its name.

        Parameters
        ----------
        document
            The final document, e.g. with its history; frame counts and encoding are filled in here.
        attributes
            Plain attributes (``units``, ``long_name``) of summary images by name.
        arrays
            Further small arrays by path (``"calibration/dark"``): axis names and values.

        Returns
        -------
        url
            Where the store is now.

        Raises
        ------
        ConversionIncompleteError
            Partitions are missing; the message and ``context["missing"]`` list them.
        DestinationExistsError
            Something appeared under the url meanwhile.
        """
        final = match(document or self.document, self.layout)
        if final.uuid != self.uuid:
            msg = f"the final document has uuid {final.uuid}, expected {self.uuid}; change a copy of the first one"
            raise InputError(msg, found=final.uuid, expected=self.uuid)
        storage = open_storage(self.working)
        if storage.size(COMMIT) is None:
            check_ours(storage, self.uuid)
        finish(storage, final, self.layout, attributes=dict(attributes or {}), arrays=dict(arrays or {}))
        return self.publish()

    def abort(self) -> None:
        """Remove everything that was written; a store under the url, if any, stays.

        On a server the plan goes last: what a failing server keeps of the others is still told to be unfinished.

        Raises
        ------
        ConversionIncompleteError
            The place belongs to another conversion now.
        """
        storage = open_storage(self.working)
        if not is_local(self.working):
            if storage.size(PLAN) is not None:
                check_ours(storage, self.uuid)
            commit = read_commit(storage)
            if commit is not None and commit.uuid != self.uuid:
                storage.delete(JOURNAL)  # what is there was finished by another conversion
                return
            clear(storage)
        storage.delete()

    def _begin(self) -> None:
        """Write the document of the new store; until it is there, a place on a server may hold an old one."""
        storage = open_storage(self.working)
        if not is_local(self.working):
            with suppress(NotFoundError, UnknownFormatError, CorruptDataError):
                if parse_document(read_root(storage), self.url).uuid == self.uuid:
                    return
            clear(storage)
        storage.put(ROOT, [metadata_objects(self.document, [])[ROOT]])

    def _ours(self) -> Storage:
        """Reach what was written; somebody may have removed or finished it meanwhile, or taken its place."""
        storage = open_storage(self.working)
        check_ours(storage, self.uuid)
        return storage


def match(document: ScanDocument, layout: Layout) -> ScanDocument:
    """Check that document and layout describe the same scan, and note the encoding of the events.

    Raises
    ------
    InputError
        Shapes or profiles differ.
    """
    counted = isinstance(layout, CountedLayout)
    shape = layout.scan_shape + layout.frame_shape if isinstance(layout, CountedLayout) else layout.shape
    profile = "counted" if counted else "dense"
    if document.shape != shape or document.profile != profile:
        msg = (
            f"the document describes a {document.profile} scan {document.shape}, the layout a {profile} one {shape}; "
            "make both from the same source"
        )
        raise InputError(msg, found=document.shape, expected=shape)
    if not isinstance(layout, CountedLayout):
        return document
    encoding = EventEncoding(
        frames_per_block=layout.frames_per_block,
        slots_per_chunk=layout.slots_per_chunk,
        columns=[name for name, _ in layout.columns],
    )
    return document.model_copy(update={"encoding": encoding})


def _put_shard(storage: Storage, key: str, parts: list[bytes]) -> tuple[dict[str, int], dict[str, int]]:
    return {key: storage.put(key, parts)}, {key: object_checksum(parts)}
