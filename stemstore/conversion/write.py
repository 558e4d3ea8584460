"""Writing the partitions of a planned conversion: frames by tiles of the scan, events by runs of it."""

from __future__ import annotations

import math
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.count import read_block
from stemstore.conversion.summary import Summariser
from stemstore.scan.stored import FramesOfStore
from stemstore.selection import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stemstore._types import Array, Int64Array
    from stemstore.conversion.plan import CountedPlan, DensePlan
    from stemstore.progress import Progress
    from stemstore.sources.contract import EventSource, FrameSource
    from stemstore.store.journal import PartitionRecords
    from stemstore.store.writer import StoreWriter


def write_frames(plan: DensePlan, writer: StoreWriter, progress: Progress) -> None:
    """Write every shard of frames, several at a time."""
    source = plan.source
    summariser = Summariser(source.frame_shape, source.dtype, plan.bright_field)

    def one(index: int) -> None:
        slices = plan.layout.partitions[index]
        frames, flat = read_tile(source, slices)
        summary = Summary()
        summary.add(summariser.of_frames(frames.reshape(-1, *source.frame_shape)))
        records = _records(source, flat, summary)
        writer.write_frames(index, frames, records)
        progress.advance()

    with ThreadPoolExecutor(plan.workers, thread_name_prefix="convert") as executor:
        _each(executor, one, range(len(plan.layout.partitions)), plan.workers)


def write_events(plan: CountedPlan, writer: StoreWriter, progress: Progress) -> int:
    """Write every shard of events, one after the other; the frames of a shard are counted by all threads.

    Returns
    -------
    n_events
        Electrons in the whole scan.
    """
    from stemstore.kernels import events
    from stemstore.kernels.event_columns import over_slots

    source = plan.source
    summariser = Summariser(source.frame_shape, np.dtype(np.uint16), plan.bright_field)
    n_pixels = math.prod(source.frame_shape)
    n_events = 0
    with ThreadPoolExecutor(plan.workers, thread_name_prefix="count") as executor:
        for index in range(len(plan.layout.partitions)):
            blocks, columns, summary = [], [], Summary()
            for start, stop in plan.layout.blocks(index):
                found = read_block(plan.events.read_events, start, stop, plan.batch, executor)
                gap, slots = events.encode(found.indptr, found.indices, n_pixels)
                offsets = np.concatenate([[0], np.cumsum(slots, dtype=np.int64)])
                summary.add(summariser.of_events(gap, offsets))
                blocks.append((gap, slots))
                columns.append({name: over_slots(gap, values) for name, values in found.columns.items()})
                n_events += len(found.indices)
            flat = np.arange(*plan.layout.partitions[index])
            writer.write_events(index, blocks, _records(source, flat, summary), columns=columns)
            progress.advance()
    return n_events


def read_tile(source: FrameSource, slices: tuple[slice, ...]) -> tuple[Array, Int64Array]:
    """Read a rectangular piece of the scan: row by row, or from a store at once, where rows share chunks.

    Returns
    -------
    frames : shape (scan extents of the piece, ky, kx)
    flat : shape (positions,)
        Flat scan positions in the same order.
    """
    lengths = tuple(part.stop - part.start for part in slices)
    flat = flatten(tuple(range(part.start, part.stop) for part in slices), source.scan_shape)
    if isinstance(source, FramesOfStore):
        return source.read_grid(slices), flat
    frames = np.empty((*lengths, *source.frame_shape), source.dtype)
    rows = frames.reshape(-1, lengths[-1], *source.frame_shape)
    for row, positions in zip(rows, flat.reshape(-1, lengths[-1]), strict=True):
        source.read_frames(int(positions[0]), int(positions[-1]) + 1, out=row)
    return frames, flat


@dataclass(slots=True)
class Summary:
    """Summary of a partition, block by block; patterns are merged at once, for each is larger than a frame."""

    maps: dict[str, list[Array]] = field(default_factory=dict)
    sums: dict[str, Array] = field(default_factory=dict)
    maxima: dict[str, Array] = field(default_factory=dict)

    def add(self, part: dict[str, Any]) -> None:
        """Take the summary of the next block."""
        for name, values in part["maps"].items():
            self.maps.setdefault(name, []).append(values)
        for name, pattern in part["sums"].items():
            self.sums[name] = self.sums[name] + pattern if name in self.sums else pattern
        for name, pattern in part["maxima"].items():
            self.maxima[name] = np.maximum(self.maxima[name], pattern) if name in self.maxima else pattern


def _records(source: FrameSource | EventSource, flat: Int64Array, summary: Summary) -> PartitionRecords:
    from stemstore.store.journal import PartitionRecords

    maps = {name: np.concatenate(parts) for name, parts in summary.maps.items()}
    valid = None if source.validity is None else source.validity[flat]
    return PartitionRecords(valid=valid, maps=maps, sums=summary.sums, maxima=summary.maxima)


def _each(executor: ThreadPoolExecutor, call: Callable[[int], None], indices: Iterable[int], ahead: int) -> None:
    """Run `call` for every index, a few at a time; stop at the first error."""
    pending: set[Future[None]] = set()
    try:
        for index in indices:
            if len(pending) >= ahead:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            pending.add(executor.submit(call, index))
        for future in pending:
            future.result()
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
