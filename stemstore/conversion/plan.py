"""What a conversion will do, decided before a byte is written: profile, layout, partitions, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.count import BATCH_BYTES, CORRECTED_BYTES, Counter
from stemstore.conversion.counting.measures import ColumnsOfStore, columns_of_store
from stemstore.conversion.counting.sampling import sampled_frames
from stemstore.conversion.counting.watch import Watch, doubts
from stemstore.conversion.summary import BINNED, DARK_FROM, BrightField
from stemstore.conversion.together import FEW, bytes_together, shards_together, times_decoded
from stemstore.errors import CorruptDataError, InputError
from stemstore.memory import fitting_workers
from stemstore.scan.stored import events_of_store, frames_of_store
from stemstore.sources.contract import Events, EventSource, FrameSource
from stemstore.store.cut import Cut
from stemstore.store.events import BROWSED_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stemstore._types import Array
    from stemstore.conversion.counting.settings import CountOptions
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.codecs import Profile
    from stemstore.store.layout import CountedLayout, DenseLayout

EVENT_BATCH = 4096  # frames per call of an event source: half a million events at usual doses
OCCUPANCY_SAMPLE = 64  # frames from which the events per frame are estimated
BYTES_PER_WAITING_SLOT = 4  # gaps and the compressed chunks of the blocks of a shard, which is written at once
BYTES_PER_PATTERN_PIXEL = 30  # sum and maximum of a shard, those of a block and their merged copy
BYTES_PER_REFERENCE_PIXEL = 40  # dark, gain and bad pixels as they were given, and as they are applied
BYTES_OF_RECORD = 3 * 4  # pixel of the coarse frame of a position: in its type, and in the journal entry as it grows
RUN_BYTES = 512 * BINNED**2 * 8  # coarse frames of a run as they are summed
COPIES_OF_COLUMN = 3  # pieces, joined, and compressed or behind escapes, while a block is being made
BYTES_PER_SLOT = 12  # indices, their joined copy, gaps and the compressed chunk, while a block is being made


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A conversion ready to run.

    Attributes
    ----------
    bright_field
        Guess of the unscattered disk, for the summary images.
    workers
        Threads, after the memory budget.
    memory : unit bytes
        Projected working memory of all threads.
    """

    bright_field: BrightField
    workers: int
    memory: int

    def summary_attributes(self) -> dict[str, dict[str, Any]]:
        """Say how the summary images were made; the disk they rest on was guessed."""
        disk = {"center_pixel": list(self.bright_field.center), "radius_pixel": self.bright_field.radius}
        ring = {"center_pixel": disk["center_pixel"], "inner_pixel": DARK_FROM * self.bright_field.radius}
        pixel = {"units": "pixel", "long_name": "centre of mass, detector index"}
        return {
            "total": {"units": "count", "long_name": "intensity of the whole frame"},
            "bright_field": {"units": "count", "long_name": "bright field", "source": "guessed", **disk},
            "annular_dark_field": {"units": "count", "long_name": "annular dark field", "source": "guessed", **ring},
            "com_y": pixel,
            "com_x": pixel,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DensePlan(Plan):
    """Frames as they are into shards of frames.

    Attributes
    ----------
    together
        Shards along each scan axis that are made from one reading.
    """

    @property
    def times_decoded(self) -> float:
        """How often a chunk of the source is decoded, on average; 1 where none is known."""
        scan = frames_of_store(self.source)
        return 1.0 if scan is None else times_decoded(self.layout, scan.chunk_extents, self.together)

    source: FrameSource
    layout: DenseLayout
    together: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedPlan(Plan):
    """Events, counted on the way where the source has frames, into shards of events.

    Attributes
    ----------
    doubts
        What speaks against the way they are counted.
    """

    source: FrameSource | EventSource
    events: EventSource | ColumnsOfStore | Counter
    layout: CountedLayout
    doubts: list[str] = field(default_factory=list)

    @property
    def counter(self) -> Counter | None:
        """What counts; None where the source holds events already."""
        return self.events if isinstance(self.events, Counter) else None

    @property
    def watch(self) -> Watch | None:
        """What keeps an eye on the frames that are counted; None where there are none, or nobody."""
        return None if self.counter is None else self.counter.watch

    @property
    def batch(self) -> int:
        """Frames per call of ``read_events``."""
        return EVENT_BATCH if self.counter is None else self.counter.batch


def make_plan(
    source: FrameSource | EventSource,
    *,
    counted: bool,
    counting: CountOptions,
    profile: Profile,
    workers: int,
    budget: int,
    cut: Cut | None = None,
    bright_field: BrightField | None = None,
) -> DensePlan | CountedPlan:
    """Decide how a source becomes a store; the unscattered disk is looked for where none is given.

    Raises
    ------
    ChunkingError
        It cannot be cut as was asked for.
    InputError
        The source holds events and a dense store was asked for, or thresholds are given and nothing is counted.
    MemoryBudgetError
        Not even one thread fits the budget.
    """
    cut = cut or Cut()
    if not counted:
        if isinstance(source, EventSource):
            msg = "the source holds counted events; convert it with count=None or count=True to keep them as events"
            raise InputError(msg, count=False)
        _refuse_unused(counting, "frames are stored as they are; pass count=True to count electrons")
        return _dense(source, profile, (workers, budget), cut, bright_field)
    if isinstance(source, EventSource):
        _refuse_unused(counting, "the source is counted already; leave it out", counting.pixels)
        return _counted(source, columns_of_store(source) or source, profile, (workers, budget), cut, bright_field)
    return _counted(source, counting.counter(source), profile, (workers, budget), cut, bright_field)


def _refuse_unused(counting: CountOptions, why: str, more: Iterable[str] = ()) -> None:
    """Refuse thresholds where nothing is counted; settings with a default may come from anywhere and lie idle."""
    given = [*counting.given, *more]
    if given:
        msg = f"{', '.join(given)} cannot be used: {why}"
        raise InputError(msg, found=given)


def _dense(
    source: FrameSource, profile: Profile, limits: tuple[int, int], cut: Cut, bright_field: BrightField | None
) -> DensePlan:
    from stemstore.store.layout import MAX_SHARD_BYTES

    workers, budget = limits
    # A worker holds one shard of frames and, at worst, as many compressed bytes. The layout follows from the budget
    # alone, so that it does not depend on the number of workers.
    frame_bytes = math.prod(source.frame_shape) * source.dtype.itemsize
    scan = frames_of_store(source)
    beside, noted = (0, 0.0) if scan is None else _beside(scan, frame_bytes)
    largest = min(MAX_SHARD_BYTES, max(frame_bytes, int((budget - beside) / (2 + noted))))
    shape = source.scan_shape, source.frame_shape
    layout = cut.dense(*shape, source.dtype, profile=profile, max_shard_bytes=largest)
    shard = math.prod(layout.shard) * source.dtype.itemsize
    together = (1,) * len(source.scan_shape)
    per_worker = 2 * shard
    if scan is not None:
        per_worker += beside + int(noted * shard)
        together = _read_together(layout, scan.chunk_extents, limits, per_worker, shard)
        if math.prod(together) > 1:
            per_worker += bytes_together(layout, together)  # shards are cut out of it
    workers = fitting_workers(workers, per_worker, budget)
    return DensePlan(
        source=source,
        layout=layout,
        together=together,
        bright_field=bright_field or _look_for_disk(source),
        workers=workers,
        memory=workers * per_worker,
    )


def _kept_blocks(source: FrameSource | EventSource, column_bytes: int) -> int:
    """Memory of the blocks that a counted store keeps while it is read, with what is known of every event."""
    scan = events_of_store(source)
    if scan is None:
        return 0
    columns = min(BROWSED_BYTES, scan.browsing_bytes() * (2 + column_bytes) // 2) if column_bytes else 0
    return scan.browsing_bytes() + columns


def _look_for_disk(source: FrameSource) -> BrightField:
    """Guess the unscattered disk from frames of the whole scan."""
    total = np.zeros(source.frame_shape, np.float64)
    chosen = sampled_frames(source)
    for number in chosen[:: max(1, len(chosen) // OCCUPANCY_SAMPLE)].tolist():
        total += source.read_frames(number, number + 1)[0]
    return BrightField.guess(total)


def _beside(scan: StoredFrames, frame_bytes: int) -> tuple[int, float]:
    """Memory that making shards of a store takes besides frames: bytes for a thread, and per byte of frames."""
    pixels = math.prod(scan.shape[-2:])
    records = BYTES_OF_RECORD * min(BINNED**2, pixels) / frame_bytes
    return scan.reading_bytes() + BYTES_PER_PATTERN_PIXEL * pixels + RUN_BYTES, records


def _read_together(
    layout: DenseLayout, chunk: tuple[int, ...], limits: tuple[int, int], needed: int, shard: int
) -> tuple[int, ...]:
    """Choose the shards of one reading: within the share of a worker, unless one worker alone would spare much."""
    workers, budget = limits
    found = shards_together(layout, chunk, max(shard, budget // workers - needed))
    if times_decoded(layout, chunk, found) <= FEW:
        return found
    return shards_together(layout, chunk, max(shard, budget - needed))


def _counted(
    source: FrameSource | EventSource,
    events: EventSource | ColumnsOfStore | Counter,
    profile: Profile,
    limits: tuple[int, int],
    cut: Cut,
    bright_field: BrightField | None,
) -> CountedPlan:
    from stemstore.store.layout import GAP_BYTES

    per_frame, pattern = sample_events(source, events)
    raw = math.prod(source.frame_shape) * source.dtype.itemsize if isinstance(source, FrameSource) else None
    layout = cut.counted(source.scan_shape, source.frame_shape, per_frame, profile=profile, raw_bytes_per_frame=raw)
    block = max(per_frame, 1.0) * layout.frames_per_block
    patterns = BYTES_PER_PATTERN_PIXEL * math.prod(source.frame_shape)
    layout = replace(layout, columns=events.columns if isinstance(events, (Counter, ColumnsOfStore)) else ())
    more = layout.slot_bytes - GAP_BYTES
    making = 2 * BYTES_PER_SLOT + COPIES_OF_COLUMN * more
    waiting = (BYTES_PER_WAITING_SLOT + 2 * more) * layout.blocks_per_shard
    shared = int((making + waiting) * block) + patterns + _kept_blocks(source, more)
    per_worker = 2 * BATCH_BYTES
    speak: list[str] = []
    if isinstance(events, Counter):
        if not events.done.nothing:
            per_worker += CORRECTED_BYTES
            shared += BYTES_PER_REFERENCE_PIXEL * math.prod(source.frame_shape)
        speak = events.done.notes() + doubts(events.thresholds, per_frame)
        borders = (start for start, _ in layout.partitions)
        events = replace(events, watch=Watch.over(events.source, borders))  # from here on, not for the sample
    workers = fitting_workers(limits[0], per_worker, limits[1], shared=shared)
    return CountedPlan(
        source=source,
        events=events,
        layout=layout,
        doubts=speak,
        bright_field=bright_field or BrightField.guess(pattern),
        workers=workers,
        memory=workers * per_worker + shared,
    )


def sample_events(source: Any, events: EventSource | ColumnsOfStore | Counter) -> tuple[float, Array]:
    """Events per frame and their mean pattern, from frames spread over the scan."""
    n_frames = math.prod(source.scan_shape)
    chosen = np.unique(((np.arange(OCCUPANCY_SAMPLE) + 0.5) * n_frames / OCCUPANCY_SAMPLE).astype(np.int64))
    parts: list[Events] = [events.read_events(number, number + 1) for number in chosen.tolist()]
    indices = np.concatenate([part.indices for part in parts])
    n_pixels = math.prod(source.frame_shape)
    if len(indices) and int(indices.max()) >= n_pixels:
        msg = (
            f"the source has an event in pixel {int(indices.max())} of a detector of {source.frame_shape} with "
            f"{n_pixels} pixels; check the frame shape that was stated, or restore the file"
        )
        raise CorruptDataError(msg, found=int(indices.max()), expected=n_pixels)
    pattern = np.bincount(indices, minlength=n_pixels).reshape(source.frame_shape)
    return len(indices) / len(parts), pattern.astype(np.float64)
