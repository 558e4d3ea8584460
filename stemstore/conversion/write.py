"""Writing the partitions of a planned conversion: frames by tiles of the scan, events by runs of it."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.batches import join_columns, read_runs
from stemstore.conversion.summary import Summariser
from stemstore.conversion.together import box_of, readings
from stemstore.scan.corrected import CorrectedFrames
from stemstore.scan.stored import FramesOfStore
from stemstore.selection import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.conversion.plan import CountedPlan, DensePlan
    from stemstore.progress import Progress
    from stemstore.sources.contract import Events, EventSource, FrameSource
    from stemstore.store.journal import PartitionRecords
    from stemstore.store.writer import StoreWriter

RUN = 512  # frames whose events are encoded and summarised at once; small enough that the caches hold them


def write_frames(plan: DensePlan, writer: StoreWriter, indices: Sequence[int], progress: Progress) -> None:
    """Write the shards of frames with these numbers, several at a time."""
    source = plan.source
    summariser = Summariser(source.frame_shape, source.dtype, plan.bright_field)

    def several(numbers: Sequence[int]) -> None:
        parts = [plan.layout.partition(number) for number in numbers]
        box = box_of(parts)
        frames, _ = read_tile(source, box)
        for number, part in zip(numbers, parts, strict=True):
            within = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
            one(number, np.ascontiguousarray(frames[within]), flat_positions(source, part))

    def one(number: int, frames: Array, flat: Int64Array) -> None:
        summary = Summary(len(flat))
        stack = frames.reshape(-1, *source.frame_shape)
        for start in range(0, len(stack), RUN):
            summary.add(summariser.of_frames(stack[start : start + RUN]))
        writer.write_frames(number, frames, _records(source, flat, summary))
        progress.advance()

    with ThreadPoolExecutor(plan.workers, thread_name_prefix="convert") as executor:
        _each(executor, several, readings(plan.layout, indices, plan.together), plan.workers)


def write_events(plan: CountedPlan, writer: StoreWriter, indices: Sequence[int], progress: Progress) -> None:
    """Write the shards of events with these numbers, one after the other.

    The threads of the plan read and count; this one encodes, summarises and writes what they have found meanwhile.
    """
    with (
        ThreadPoolExecutor(plan.workers, thread_name_prefix="count") as executor,
        closing(read_runs(plan.events.read_events, _runs(plan, indices), plan.batch, executor)) as found,
    ):
        for index in indices:
            _write_partition(index, found, plan, writer)
            progress.advance()


def _write_partition(index: int, found: Iterator[Events], plan: CountedPlan, writer: StoreWriter) -> None:
    """Write one shard from the runs of its frames."""
    from stemstore.kernels.event_columns import over_slots
    from stemstore.kernels.events import encode

    source = plan.source
    n_pixels = math.prod(source.frame_shape)
    summariser = Summariser(source.frame_shape, np.dtype(np.uint16), plan.bright_field)
    flat = np.arange(*plan.layout.partitions[index])
    summary = Summary(len(flat))
    blocks, columns = [], []
    for start, stop in plan.layout.blocks(index):
        gaps, slots, further = [], [], []
        for events in itertools.islice(found, len(_cut(start, stop))):
            gap, n_slots = encode(events.indptr, events.indices, n_pixels)
            summary.add(summariser.of_events(gap, np.concatenate([[0], np.cumsum(n_slots, dtype=np.int64)])))
            gaps.append(gap)
            slots.append(n_slots)
            further.append({name: over_slots(gap, values) for name, values in events.columns.items()})
        blocks.append((np.concatenate(gaps), np.concatenate(slots)))
        columns.append(join_columns(further))
    records = _records(source, flat, summary)
    if plan.watch is not None:
        records = replace(records, notes=plan.watch.seen(index).record())
    writer.write_events(index, blocks, records, columns=columns)


def _runs(plan: CountedPlan, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut all blocks of these shards into runs of frames, in order."""
    for index in indices:
        for start, stop in plan.layout.blocks(index):
            yield from _cut(start, stop)


def _cut(start: int, stop: int) -> list[tuple[int, int]]:
    return [(first, min(first + RUN, stop)) for first in range(start, stop, RUN)]


def read_tile(source: FrameSource, slices: tuple[slice, ...]) -> tuple[Array, Int64Array]:
    """Read a rectangular piece of the scan: row by row, or from a store at once, where rows share chunks.

    Returns
    -------
    frames : shape (scan extents of the piece, ky, kx)
    flat : shape (positions,)
        Flat scan positions in the same order.
    """
    lengths = tuple(part.stop - part.start for part in slices)
    flat = flat_positions(source, slices)
    if isinstance(source, CorrectedFrames) and isinstance(source.source, FramesOfStore):
        return source.corrected(source.source.read_grid(slices), flat), flat
    if isinstance(source, FramesOfStore):
        return source.read_grid(slices), flat
    frames = np.empty((*lengths, *source.frame_shape), source.dtype)
    rows = frames.reshape(-1, lengths[-1], *source.frame_shape)
    for row, positions in zip(rows, flat.reshape(-1, lengths[-1]), strict=True):
        source.read_frames(int(positions[0]), int(positions[-1]) + 1, out=row)
    return frames, flat


def flat_positions(source: FrameSource, slices: tuple[slice, ...]) -> Int64Array:
    """Flat scan positions of a rectangular piece of the scan."""
    return flatten(tuple(range(part.start, part.stop) for part in slices), source.scan_shape)


@dataclass(slots=True)
class Summary:
    """Summary of the positions of a partition, put together run by run; nothing is held twice."""

    n_positions: int
    done: int = 0
    maps: dict[str, Array] = field(default_factory=dict)
    sums: dict[str, Array] = field(default_factory=dict)
    maxima: dict[str, Array] = field(default_factory=dict)

    def add(self, part: dict[str, Any]) -> None:
        """Take the summary of the next positions."""
        stop = self.done
        for name, values in part["maps"].items():
            stop = self.done + len(values)
            if len(values) == self.n_positions:
                self.maps[name] = values
                continue
            known = self.maps.get(name)
            if known is None:
                known = self.maps[name] = np.empty((self.n_positions, *values.shape[1:]), values.dtype)
            elif np.result_type(known, values) != known.dtype:
                known = self.maps[name] = known.astype(np.result_type(known, values))
            known[self.done : stop] = values
        self.done = stop
        for name, pattern in part["sums"].items():
            self.sums[name] = self.sums[name] + pattern if name in self.sums else pattern
        for name, pattern in part["maxima"].items():
            np.maximum(self.maxima.setdefault(name, pattern), pattern, out=self.maxima[name])


def _records(source: FrameSource | EventSource, flat: Int64Array, summary: Summary) -> PartitionRecords:
    from stemstore.store.journal import PartitionRecords

    valid = None if source.validity is None else source.validity[flat]
    return PartitionRecords(valid=valid, maps=summary.maps, sums=summary.sums, maxima=summary.maxima)


def _each(executor: ThreadPoolExecutor, call: Callable[[Any], None], pieces: Iterable[Any], ahead: int) -> None:
    """Run `call` for every piece of work, a few at a time; stop at the first error."""
    pending: set[Future[None]] = set()
    try:
        for piece in pieces:
            if len(pending) >= ahead:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            pending.add(executor.submit(call, piece))
        for future in pending:
            future.result()
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
