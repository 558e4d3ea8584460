"""Copying a finished store anywhere, object by object; checked on the way, resumable, and never half a store."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.config import memory_budget
from stemstore.errors import CorruptDataError, NotFoundError
from stemstore.maintenance.claim import Claim, held
from stemstore.maintenance.opened import Opened
from stemstore.progress import NoProgress, Progress
from stemstore.scan.addresses import check_apart
from stemstore.store.commit import COMMIT
from stemstore.store.objects import StoreObject, Tally, check_object
from stemstore.store.urls import open_storage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from stemstore.store.urls import Storage

    PathLike = str | os.PathLike[str]

MOST_THREADS = 8
"""Objects on their way at once: enough to hide the latency of a server."""

COPIES_OF_OBJECT = 3
"""An object as it is read, as one body to be sent, and as the client of a server holds it."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What `copy_store` did.

    Attributes
    ----------
    url, source
        The copy, and the store that was copied.
    uuid
        Identity of both.
    n_objects, n_bytes
        In the copy.
    n_kept
        Objects that an interrupted copy had left and that were not written again.
    seconds
        Time it took.
    warnings
        What was left behind.
    """

    url: str
    source: str
    uuid: str
    n_objects: int
    n_bytes: int
    n_kept: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


def copy_store(
    source: PathLike,
    destination: PathLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> CopyReport:
    """Copy a finished store to another place, with its calibration and its saved results.

    Every object arrives as it is, so that the copy has the identity of the store. Chunks are compared with their
    checksums and shards with the commit object on the way.

    Parameters
    ----------
    source
        Path or URL of a store; one packed as ``.zip`` is unpacked.
    destination
        Path or URL of the copy.
    resume
        Go on where an earlier call was interrupted: shards that arrived whole are not read again from the source. Where
        there is none, begin.
    overwrite
        Replace a store: a local one once the copy is whole, one on a server at once.
    progress
        Told about every object.
    storage_options
        For whichever of the two is a URL that brings none of its own; see `stemstore.open`.

    Returns
    -------
    report
        What was copied, and what was left.

    Raises
    ------
    CorruptDataError, ChecksumError, NotFoundError
        The source is damaged; the message names the shard. Nothing stays of a copy that this call began.
    ConversionIncompleteError, UnknownFormatError
        The source is no finished store.
    DestinationExistsError
        Something is there, or a copy to this place was interrupted.
    InputError
        The places overlap, the copy would be packed, or it was begun from another store.
    StaleStoreError
        The source was changed meanwhile.

    Notes
    -----
    Memory: a few threads with three times the largest object each, within ``STEMSTORE_MAX_MEMORY`` but for one thread.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.copy_store("scan_42.zarr", "s3://bucket/scan_42.zarr", resume=True)  # doctest: +SKIP
    """
    began = time.monotonic()
    if storage_options is not None:
        from stemstore.store.address import reach_urls

        source, destination = reach_urls(source, destination, storage_options=storage_options)
    check_apart(source, destination)
    opened = Opened.at(source)
    claim = Claim.make(opened, destination, resume=resume, overwrite=overwrite)
    with claim.keeping():
        sizes, n_kept = _transfer(opened, claim, progress or NoProgress())
        claim.finish(overwrite=overwrite)
    n_bytes, warnings = sum(sizes), opened.left()
    seconds = time.monotonic() - began
    return CopyReport(
        claim.url, opened.storage.root, opened.document.uuid, len(sizes), n_bytes, n_kept, seconds, warnings
    )


def _transfer(opened: Opened, claim: Claim, progress: Progress) -> tuple[list[int], int]:
    """Bring over what lacks: data, then metadata, the commit object at the very end; sizes, and objects kept."""
    target = open_storage(claim.working)
    tally = Tally(opened.storage.root, opened.document)
    progress.start("copying", len(opened.objects))

    def bring(one: StoreObject) -> tuple[int, bool] | None:
        kept = None if claim.fresh else _there(opened, target, one)
        body = opened.read(one) if kept is None else kept
        if body is not None:
            tally.add(one, body)
            if kept is None:
                target.put(one.key, [body])
        progress.advance()
        return None if body is None else (len(body), kept is not None)

    *data, commit = opened.objects
    parallel = opened.storage.parallel and target.parallel
    room = memory_budget() // max(1, COPIES_OF_OBJECT * opened.largest)
    n_threads = max(1, min(MOST_THREADS, room)) if parallel else 1
    moved = [one for one in run_all(bring, data, n_threads) if one is not None]
    tally.check()
    opened.check_unchanged()
    target.sweep()  # temporary files of a copy that was killed
    if held(target, COMMIT) is None:  # else it was killed after the commit
        target.create(commit.key, [opened.commit])
    progress.advance()
    sizes = [size for size, _ in moved] + [len(opened.commit)]
    return sizes, sum(kept for _, kept in moved)


def _there(opened: Opened, target: Storage, one: StoreObject) -> bytes | None:
    """Give a shard that arrived whole before; smaller objects are cheaply brought again."""
    if one.kind != "shard":
        return None
    size = target.size(one.key)
    if size is None or size != opened.storage.size(one.key):
        return None
    with suppress(CorruptDataError, NotFoundError):
        body = target.get(one.key)
        check_object(one, body, one.key)
        return body
    return None


def run_all(call: Callable[[StoreObject], Any], objects: list[StoreObject], n_threads: int) -> list[Any]:
    """Call for every object, several at a time; the first error ends it. Results are in no order."""
    done: list[Any] = []
    if n_threads == 1:
        return [call(one) for one in objects]
    with ThreadPoolExecutor(n_threads, thread_name_prefix="copy") as executor:
        pending: set[Future[Any]] = set()
        try:
            for one in objects:
                if len(pending) >= n_threads:
                    ready, pending = wait(pending, return_when=FIRST_COMPLETED)
                    done += [future.result() for future in ready]
                pending.add(executor.submit(call, one))
            done += [future.result() for future in pending]
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return done
