"""Comparing the frames or events of a store with those that a planned conversion gives."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.measures import columns_of_store
from stemstore.conversion.plan import CountedPlan, DensePlan
from stemstore.conversion.write import read_tile
from stemstore.scan.stored import EventsOfStore
from stemstore.selection import Selection
from stemstore.sources.contract import MISSING, VALID
from stemstore_schemas import SourceMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.conversion.job import Job
    from stemstore.progress import Progress
    from stemstore.sources.contract import Events
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.events import StoredEvents
    from stemstore.store.open import StoredScan


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


Found = tuple[int, "tuple[int, Difference] | None"]
"""Number of frames that differ, and flat position and description of the first."""


def states(scan: StoredScan, job: Job) -> Iterator[tuple[int, Difference]]:
    """Give the positions whose frames are missing or partial in one of the two only."""
    n_frames = math.prod(scan.scan_shape)
    whole = np.full(n_frames, VALID, np.uint8)
    stored = whole if scan.validity is None else scan.validity
    expected = whole if job.plan.source.validity is None else np.asarray(job.plan.source.validity)
    for flat in np.flatnonzero(stored != expected).tolist():
        yield flat, Difference("state", _place(scan, flat), None, float(stored[flat]), float(expected[flat]))


def compare(scan: StoredScan, job: Job, progress: Progress) -> Found:
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
