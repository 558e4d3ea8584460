"""Comparing a store with the raw data that it was made from, block by block: the conversion is repeated in memory."""

from __future__ import annotations

import itertools
import math
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.job import Job, decide
from stemstore.conversion.measures import columns_of_store
from stemstore.conversion.plan import CountedPlan, DensePlan
from stemstore.conversion.recorded import last_conversion, options_of, sources_of
from stemstore.conversion.write import read_tile
from stemstore.errors import InputError, StemStoreError
from stemstore.progress import NoProgress, Progress
from stemstore.scan.stored import EventsOfStore
from stemstore.selection import Selection
from stemstore.sources.contract import MISSING, VALID
from stemstore.store.open import open_store
from stemstore_schemas import SourceMetadata

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.contract import Events
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.events import StoredEvents
    from stemstore.store.open import StoredScan

    PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a store and its source are not the same.

    Attributes
    ----------
    what
        ``"pixel"``, ``"state"`` of a frame (0 missing, 1 partial, 2 valid), or the name of a value of events.
    position
        Indices along the scan axes as stored.
    pixel
        Detector row and column; None for a state.
    stored, expected
        What the store holds, and what the source gives; electrons for events.
    """

    what: str
    position: tuple[int, ...]
    pixel: tuple[int, int] | None
    stored: float
    expected: float

    def __str__(self) -> str:
        """Say it in a sentence."""
        where = f"position {self.position}" + ("" if self.pixel is None else f", pixel {self.pixel}")
        return f"{self.what} at {where}: the store holds {self.stored:g}, the source {self.expected:g}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    url, source
        What was compared.
    counted
        Whether events were compared rather than frames.
    n_frames, n_different
        Frames of the scan, and how many differ.
    first
        First difference in the order of the scan; None where there is none.
    notes
        What was not as at the conversion: another time of a file, other thresholds.
    seconds
        Time it took.
    """

    url: str
    source: list[str]
    counted: bool
    n_frames: int
    n_different: int
    first: Difference | None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether store and source hold the same."""
        return self.n_different == 0


Found = tuple[int, "tuple[int, Difference] | None"]
"""Number of frames that differ, and flat position and description of the first."""


def verify(
    store: PathLike,
    source: PathLike | Sequence[PathLike] | None = None,
    *,
    workers: int | None = None,
    max_memory: str | int | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Verification:
    """Compare a finished store with its source: every pixel of a dense one, every electron of a counted one.

    Frames are read, corrected and counted again as the history of the store says of its last conversion.

    Parameters
    ----------
    store
        Path or URL.
    source
        What it was made from; the files that its history names by default.
    workers, max_memory
        As in `stemstore.convert`.
    progress
        Told about every block.
    storage_options
        For whichever is a URL that brings none of its own; see `stemstore.open`.
    **options
        Options of the conversion, in place of what the history says. Arrays (``dark``, ``gain``, ``bad_pixels``,
        ``mask``) are not kept there and have to be given again.

    Returns
    -------
    verification
        Number of frames that differ, and the first difference.

    Raises
    ------
    InputError
        The history does not tell how the store was made, an array has to be given again, or the source is of another
        shape or kind.
    NotFoundError, UnknownFormatError
        Store or source are not there or not recognised.
    ChecksumError, CorruptDataError
        The store is damaged.

    Notes
    -----
    Memory: two blocks per thread, of about 8 MiB of frames or one block of events (a million) and a batch of frames.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.verify("scan_42.zarr").equal  # doctest: +SKIP
    """
    began = time.monotonic()
    if storage_options is not None:
        from stemstore.store.address import reach_urls

        store, source = reach_urls(store, source, storage_options=storage_options)
    scan = open_store(store)
    recorded = options_of(scan.document, options)
    more = {"workers": workers, "max_memory": max_memory, "digests": "none"}
    job = _found(scan, recorded | more) if source is None else decide(source, recorded | more)
    notes = _check_alike(scan, job)
    found = list(_states(scan, job))
    shown: Progress = progress or NoProgress()
    different, first = _compare(scan, job, shown)
    firsts = [one for one in (*found, first) if one is not None]
    lowest = min(firsts, key=lambda one: one[0])[1] if firsts else None
    known = {flat for flat, _ in found}
    n_different = different + len(known)
    inputs = [entry.path for entry in job.document.history[-1].inputs]
    counted, n_frames = isinstance(job.plan, CountedPlan), math.prod(scan.scan_shape)
    return Verification(scan.url, inputs, counted, n_frames, n_different, lowest, notes, time.monotonic() - began)


def _found(scan: StoredScan, options: Mapping[str, Any]) -> Job:
    """Open the source by what the history says: what is opened has to name the same files in the same order."""
    inputs = [one.path for one in last_conversion(scan.document).inputs]
    first: Exception | None = None
    for candidate in sources_of(scan.document):
        try:
            job = decide(candidate, options)
        except StemStoreError as error:
            first = first or error
            continue
        if [one.path for one in job.document.history[-1].inputs] == inputs:
            return job
    if first is None:
        msg = f"the files that the history of '{scan.url}' names do not lead to each other; name the source"
        first = InputError(msg, url=scan.url)
    first.add_note("the source was looked for where the history says; name it as it was given to convert")
    raise first


def _check_alike(scan: StoredScan, job: Job) -> list[str]:
    """Refuse a source that cannot be the one; tell what else is not as it was."""
    plan = job.plan
    shape = (*plan.source.scan_shape, *plan.source.frame_shape)
    kind = "counted" if isinstance(plan, CountedPlan) else "dense"
    if shape != scan.shape or kind != scan.document.profile:
        msg = (
            f"the source gives a {kind} scan {shape}, the store '{scan.url}' is a {scan.document.profile} one "
            f"{scan.shape}; name the source and the options of the conversion"
        )
        raise InputError(msg, found=shape, expected=scan.shape)
    if isinstance(plan, DensePlan) and np.dtype(plan.source.dtype).newbyteorder("=") != scan.dtype:
        msg = (
            f"the source has pixels of type {plan.source.dtype}, the store '{scan.url}' of type {scan.dtype}; "
            "name the source and the options of the conversion"
        )
        raise InputError(msg, url=scan.url)
    return _changes(scan, job)


def _changes(scan: StoredScan, job: Job) -> list[str]:
    """Tell what is not as it was at the conversion."""
    before, now = last_conversion(scan.document), job.document.history[-1]
    known = {one.path.rpartition("/")[2]: (one.size, one.mtime) for one in before.inputs}
    notes = [
        f"'{one.path}' has another size or time than at the conversion"
        for one in now.inputs
        if known.get(one.path.rpartition("/")[2], (one.size, one.mtime)) != (one.size, one.mtime)
    ]
    old, new = scan.document.counting, job.document.counting
    if old is None or new is None:
        return notes
    limits = {name: (getattr(new, name), getattr(old, name)) for name in ("background_threshold", "xray_threshold")}
    texts = [f"{name} is {one} now, and was {other} at the conversion" for name, (one, other) in limits.items()]
    return notes + [text for text, (one, other) in zip(texts, limits.values(), strict=True) if one != other]


def _states(scan: StoredScan, job: Job) -> Iterator[tuple[int, Difference]]:
    """Give the positions whose frames are missing or partial in one of the two only."""
    n_frames = math.prod(scan.scan_shape)
    whole = np.full(n_frames, VALID, np.uint8)
    stored = whole if scan.validity is None else scan.validity
    expected = whole if job.plan.source.validity is None else np.asarray(job.plan.source.validity)
    for flat in np.flatnonzero(stored != expected).tolist():
        yield flat, Difference("state", _place(scan, flat), None, float(stored[flat]), float(expected[flat]))


def _compare(scan: StoredScan, job: Job, progress: Progress) -> Found:
    """Compare all frames whose state is the same, several blocks at a time."""
    work: Callable[[Any], Found]
    blocks: Sequence[Any]
    if isinstance(job.plan, CountedPlan):
        work, blocks = _events_of(scan, job.plan), _blocks(scan)  # type: ignore[arg-type]  # profiles were compared
    else:
        work, blocks = _frames_of(scan, job.plan), _tiles(scan)  # type: ignore[arg-type]  # as above
    progress.start("comparing", len(blocks))
    n_different, first = 0, None
    for count, one in _each(work, blocks, job.plan.workers):
        n_different += count
        first = min((found for found in (first, one) if found is not None), key=lambda found: found[0], default=None)
        progress.advance()
    return n_different, first


def _each(work: Callable[[Any], Found], blocks: Iterable[Any], n_threads: int) -> Iterator[Found]:
    """Call for every block, a few at a time; in no order."""
    with ThreadPoolExecutor(n_threads, thread_name_prefix="verify") as executor:
        pending: set[Future[Found]] = set()
        try:
            for block in blocks:
                if len(pending) >= n_threads:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                pending.add(executor.submit(work, block))
            yield from (future.result() for future in pending)
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def _comparable(scan: StoredScan, plan: DensePlan | CountedPlan, flat: Int64Array) -> Array:
    """Tell of which positions the frames are to be compared: there in both, and in the same state."""
    stored, expected = scan.validity, plan.source.validity
    one = VALID if stored is None else stored[flat]
    other = VALID if expected is None else np.asarray(expected)[flat]
    return np.broadcast_to((one == other) & (np.asarray(one) != MISSING), flat.shape)


def _tiles(scan: StoredFrames) -> list[tuple[slice, ...]]:
    """Cut the scan into rectangles of whole chunks."""
    along = [
        [slice(at, min(at + step, n)) for at in range(0, n, step)]
        for n, step in zip(scan.scan_shape, scan.chunk, strict=True)
    ]
    return list(itertools.product(*along))


def _frames_of(scan: StoredFrames, plan: DensePlan) -> Callable[[tuple[slice, ...]], Found]:
    """Make what compares the frames of a rectangle."""

    def work(tile: tuple[slice, ...]) -> Found:
        stored = scan.read(Selection.full(scan.shape).cut_scan(tile)).reshape(-1, *scan.shape[-2:])
        frames, flat = read_tile(plan.source, tile)
        expected = frames.reshape(stored.shape)
        unlike = stored != expected
        if stored.dtype.kind == "f":
            unlike &= ~(np.isnan(stored) & np.isnan(expected))
        bad = np.flatnonzero(unlike.any(axis=(1, 2)) & _comparable(scan, plan, flat))
        if not bad.size:
            return 0, None
        at = int(bad[np.argmin(flat[bad])])
        row, column = np.argwhere(unlike[at])[0].tolist()
        values = float(stored[at, row, column]), float(expected[at, row, column])
        position = int(flat[at])
        return len(bad), (position, Difference("pixel", _place(scan, position), (row, column), *values))

    return work


def _blocks(scan: StoredEvents) -> list[tuple[int, int]]:
    """List runs of flat positions whose events are stored together."""
    n_frames, step = math.prod(scan.scan_shape), scan.frames_per_block
    return [(start, min(start + step, n_frames)) for start in range(0, n_frames, step)]


def _events_of(scan: StoredEvents, plan: CountedPlan) -> Callable[[tuple[int, int]], Found]:
    """Make what compares the events of a block."""
    inside = EventsOfStore(scan, SourceMetadata())
    events = columns_of_store(inside) or inside

    def work(block: tuple[int, int]) -> Found:
        start, stop = block
        stored = events.read_events(start, stop)
        n_different, first = 0, None
        for low in range(start, stop, plan.batch):
            high = min(low + plan.batch, stop)
            expected = plan.events.read_events(low, high)
            compared = _comparable(scan, plan, np.arange(low, high))
            for at in _unlike(stored, low - start, expected):
                found = _look(scan, low + at, _frame(stored, low + at - start), _frame(expected, at))
                if found is not None and compared[at]:
                    n_different += 1
                    first = first or (low + at, found)
        return n_different, first

    return work


def _unlike(stored: Events, offset: int, expected: Events) -> list[int]:
    """List the frames of a batch that may differ."""
    n_frames = len(expected.indptr) - 1
    begin, end = int(stored.indptr[offset]), int(stored.indptr[offset + n_frames])
    lengths = np.diff(stored.indptr[offset : offset + n_frames + 1])
    same = np.array_equal(lengths, np.diff(expected.indptr))
    same = same and np.array_equal(stored.indices[begin:end], expected.indices)
    same = same and stored.columns.keys() == expected.columns.keys()
    if same and all(np.array_equal(stored.columns[n][begin:end], v) for n, v in expected.columns.items()):
        return []
    return list(range(n_frames))


def _frame(events: Events, number: int) -> tuple[Array, dict[str, Array]]:
    """Events of one frame, ascending, with their further values."""
    part = slice(int(events.indptr[number]), int(events.indptr[number + 1]))
    order = np.argsort(events.indices[part], kind="stable")
    return events.indices[part][order], {name: values[part][order] for name, values in events.columns.items()}


def _look(
    scan: StoredEvents, flat: int, stored: tuple[Array, dict[str, Array]], expected: tuple[Array, dict[str, Array]]
) -> Difference | None:
    """Find the first pixel of a frame in which two lists of events differ."""
    position, width = _place(scan, flat), scan.shape[-1]
    if not np.array_equal(stored[0], expected[0]):
        n_pixels = math.prod(scan.shape[-2:])
        ours, theirs = (np.bincount(one[0], minlength=n_pixels) for one in (stored, expected))
        at = int(np.flatnonzero(ours != theirs)[0])
        return Difference("pixel", position, divmod(at, width), float(ours[at]), float(theirs[at]))
    for name, values in expected[1].items():
        held = stored[1].get(name)
        if held is None:
            return Difference(name, position, None, math.nan, float(len(values)))
        unlike = np.flatnonzero(held != values)
        if unlike.size:
            at = int(unlike[0])
            place = divmod(int(expected[0][at]), width)
            return Difference(name, position, place, float(held[at]), float(values[at]))
    return None


def _place(scan: StoredScan, flat: int) -> tuple[int, ...]:
    return tuple(int(one) for one in np.unravel_index(flat, scan.scan_shape))
