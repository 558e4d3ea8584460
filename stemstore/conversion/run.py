"""From raw data to a finished store: plan, write every partition, finalise."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import math
import os
import platform
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.config import format_size, memory_budget, n_workers, parse_size
from stemstore.conversion.count import read_block
from stemstore.conversion.plan import CountOptions, Plan, Profile, make_plan
from stemstore.conversion.summary import Summariser
from stemstore.errors import InputError
from stemstore.progress import NoProgress, Progress
from stemstore.scan.calibration import Calibration, complete_axes
from stemstore.sources.contract import MISSING, PARTIAL, VALID, EventSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stemstore.conversion.count import Rule
    from stemstore.sources.contract import FrameSource
    from stemstore.store.writer import StoreWriter
    from stemstore_schemas import FrameCounts, ScanDocument

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    url
        The finished store.
    profile
        ``"dense"`` or ``"counted"``.
    shape
        Scan axes, ky, kx, flyback included.
    raw_bytes, stored_bytes
        Pixels of the source (uncompressed) and size of the store's shards.
    frames
        Numbers of valid, partial and missing frames.
    n_events
        Electrons; None for a dense store.
    thresholds
        What the electrons were counted with; None when nothing was counted.
    workers, memory
        Threads used, and their projected working memory in bytes.
    seconds
        Wall time.
    warnings
        What was odd about the source.
    """

    url: str
    profile: str
    shape: tuple[int, ...]
    raw_bytes: int
    stored_bytes: int
    frames: dict[str, int]
    n_events: int | None
    thresholds: dict[str, Any] | None
    workers: int
    memory: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


def convert(  # noqa: PLR0913  # the public door: every option by its name
    source: PathLike | Sequence[PathLike],
    destination: PathLike,
    *,
    reader: str | None = None,
    count: bool | None = None,
    rule: Rule = "stemstore",
    background_threshold: float | None = None,
    xray_threshold: float | None = None,
    background_sigma: float = 5.0,
    xray_sigma: float = 175.0,
    profile: Profile = "fast",
    overwrite: bool = False,
    workers: int | None = None,
    max_memory: str | int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ConversionReport:
    """Convert raw detector data to a store.

    Parameters
    ----------
    source
        File, folder or list of files that a reader understands.
    destination
        Path or URL of the new store; usually ends in ``.zarr``.
    reader
        Name of the source's format; found by content when left out.
    count
        Count electrons and store events (True), or store frames (False). By default data that are counted already
        stay events, and frames stay frames.
    rule
        Counting rule: ``"stemstore"``, or ``"stempy"`` for the events that stempy would find.
    background_threshold, xray_threshold : unit ADU
        Given thresholds; those left out are estimated from frames of the whole scan.
    background_sigma, xray_sigma
        Where estimated thresholds lie, see `stemstore.conversion.thresholds`.
    profile
        Compression: ``"fast"``, ``"balanced"``, ``"small"`` (dense only) or ``"raw"``.
    overwrite
        Replace an existing store, once the new one is finished.
    workers, max_memory
        Threads (all processors by default) and their working memory, such as ``"512MiB"`` (768 MiB by default). The
        result does not depend on them.
    progress
        Receives the advance.
    **options
        Calibration (as in `stemstore.open`) and options of the reader (``scan_shape``, ``version`` …).

    Returns
    -------
    report

    Raises
    ------
    UnknownFormatError, AmbiguousFormatError, NotFoundError, CorruptDataError
        The source cannot be read.
    DestinationExistsError
        The destination exists and `overwrite` is off.
    StorageError
        The device is full or refuses to write; nothing is left behind.
    MemoryBudgetError
        The work does not fit `max_memory`.

    Notes
    -----
    Memory: a dense conversion holds two copies of a shard (at most 128 MB) per thread, a counted one two batches of
    frames (20 MiB) per thread and one block of events. The destination appears under its name only when it is finished.
    """
    from stemstore.sources.registry import open_source

    started, progress = time.perf_counter(), progress or NoProgress()
    calibration, reader_options = Calibration.split(options)
    paths = [os.fspath(source)] if isinstance(source, (str, os.PathLike)) else [os.fspath(part) for part in source]
    opened = open_source(paths[0] if len(paths) == 1 else paths, reader=reader, **reader_options)
    counting = CountOptions(rule, background_threshold, xray_threshold, background_sigma, xray_sigma)
    plan = make_plan(
        opened,
        counted=isinstance(opened, EventSource) if count is None else count,
        counting=counting,
        profile=profile,
        workers=_positive(workers) if workers is not None else n_workers(),
        budget=parse_size(max_memory) if max_memory is not None else memory_budget(),
    )
    parameters = {"reader": reader, "count": count, "profile": profile, **asdict(counting)}
    document = describe(opened, plan, calibration, parameters | {k: _plain(v) for k, v in options.items()})
    written = write(opened, plan, document, os.fspath(destination), overwrite=overwrite, progress=progress)
    report = _report(opened, plan, written, os.fspath(destination), time.perf_counter() - started)
    log.info("wrote %s: %s in %.1f s", report.url, format_size(report.stored_bytes), report.seconds)
    return report


def describe(
    source: FrameSource | EventSource, plan: Plan, calibration: Calibration, parameters: dict[str, Any]
) -> ScanDocument:
    """Compose the metadata document of the new store."""
    from stemstore import __version__
    from stemstore_schemas import EventEncoding, HistoryEntry, ScanDocument

    known = source.metadata
    acquisition = calibration.acquisition(known.acquisition)
    counted = plan.events is not None
    foreign = known.counting if plan.thresholds is None else plan.thresholds.describe(plan.rule)
    entry = HistoryEntry(
        operation="convert",
        parameters=parameters,
        inputs=known.files,
        software={"stemstore": __version__, "numpy": np.__version__, "python": platform.python_version()},
        environment={"platform": platform.system(), "workers": plan.workers},
        time=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        host=platform.machine(),
        warnings=known.warnings,
    )
    return ScanDocument(
        uuid=str(uuid.uuid4()),
        profile="counted" if counted else "dense",
        axes=complete_axes(known.axes, (*source.scan_shape, *source.frame_shape), acquisition, calibration),
        acquisition=acquisition,
        detector=known.detector.model_copy(update={"shape": source.frame_shape}),
        counting=foreign if counted else None,
        encoding=EventEncoding(
            frames_per_block=plan.layout.frames_per_block, slots_per_chunk=plan.layout.slots_per_chunk
        )
        if counted
        else None,
        frames=count_frames_by_state(source),
        history=[entry],
        vendor=known.vendor,
    )


def count_frames_by_state(source: FrameSource | EventSource) -> FrameCounts:
    """Count valid, partial and missing frames."""
    from stemstore_schemas import FrameCounts

    if source.validity is None:
        return FrameCounts(valid=math.prod(source.scan_shape))
    numbers = np.bincount(source.validity, minlength=3)
    return FrameCounts(valid=int(numbers[VALID]), partial=int(numbers[PARTIAL]), missing=int(numbers[MISSING]))


def write(
    source: FrameSource | EventSource,
    plan: Plan,
    document: ScanDocument,
    destination: str,
    *,
    overwrite: bool,
    progress: Progress,
) -> ScanDocument:
    """Write all partitions and finish the store; leave nothing behind where that fails.

    Returns
    -------
    document
        As stored, with the number of events.
    """
    from stemstore.store.writer import StoreWriter

    writer = StoreWriter.init(destination, document, plan.layout, overwrite=overwrite)
    try:
        progress.start("counting" if plan.thresholds else "writing", len(plan.layout.partitions))
        run = _write_events if plan.events is not None else _write_frames
        n_events = run(source, plan, writer, progress)
        if document.counting is not None:
            counting = document.counting.model_copy(update={"n_events": n_events})
            document = document.model_copy(update={"counting": counting})
        writer.finalise(document, attributes=plan.summary_attributes())
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to report
            writer.abort()
        raise
    return document


def _write_frames(source: FrameSource, plan: Plan, writer: StoreWriter, progress: Progress) -> int:
    summariser = Summariser(source.frame_shape, source.dtype, plan.bright_field)

    def one(index: int) -> None:
        slices = plan.layout.partitions[index]
        frames, flat = read_tile(source, slices)
        records = _records(source, flat, summariser.of_frames(frames.reshape(-1, *source.frame_shape)))
        writer.write_frames(index, frames, records)
        progress.advance()

    with ThreadPoolExecutor(plan.workers, thread_name_prefix="convert") as executor:
        _each(executor, one, range(len(plan.layout.partitions)), plan.workers)
    return 0


def _write_events(source: FrameSource | EventSource, plan: Plan, writer: StoreWriter, progress: Progress) -> int:
    from stemstore.kernels import events

    summariser = Summariser(source.frame_shape, np.dtype(np.uint16), plan.bright_field)
    n_pixels = math.prod(source.frame_shape)
    n_events = 0
    with ThreadPoolExecutor(plan.workers, thread_name_prefix="count") as executor:
        for index in range(len(plan.layout.partitions)):
            blocks, parts = [], []
            for start, stop in plan.layout.blocks(index):
                found = read_block(plan.events.read_events, start, stop, plan.batch, executor)
                gap, slots = events.encode(found.indptr, found.indices, n_pixels)
                offsets = np.concatenate([[0], np.cumsum(slots, dtype=np.int64)])
                parts.append(summariser.of_events(gap, offsets))
                blocks.append((gap, slots))
                n_events += len(found.indices)
            flat = np.arange(*plan.layout.partitions[index])
            writer.write_events(index, blocks, _records(source, flat, *parts))
            progress.advance()
    return n_events


def read_tile(source: FrameSource, slices: tuple[slice, ...]) -> tuple[Any, Any]:
    """Read a rectangular piece of the scan, row by row.

    Returns
    -------
    frames : shape (scan extents of the piece, ky, kx)
    flat : shape (positions,)
        Flat scan positions in the same order.
    """
    lengths = tuple(part.stop - part.start for part in slices)
    frames = np.empty((*lengths, *source.frame_shape), source.dtype)
    rows = frames.reshape(-1, lengths[-1], *source.frame_shape)
    grid = np.arange(math.prod(source.scan_shape)).reshape(source.scan_shape)[slices].reshape(-1, lengths[-1])
    for row, positions in zip(rows, grid, strict=True):
        source.read_frames(int(positions[0]), int(positions[-1]) + 1, out=row)
    return frames, grid.reshape(-1)


def _records(source: FrameSource | EventSource, flat: Any, *parts: dict[str, Any]) -> Any:
    from stemstore.store.writer import PartitionRecords

    maps = {name: np.concatenate([part["maps"][name] for part in parts]) for name in parts[0]["maps"]}
    sums = {name: sum(part["sums"][name] for part in parts) for name in parts[0]["sums"]}
    maxima = {name: np.maximum.reduce([part["maxima"][name] for part in parts]) for name in parts[0]["maxima"]}
    valid = None if source.validity is None else source.validity[flat]
    return PartitionRecords(valid=valid, maps=maps, sums=sums, maxima=maxima)


def _each(executor: ThreadPoolExecutor, call: Callable[[int], None], indices: Iterable[int], ahead: int) -> None:
    """Run `call` for every index, a few at a time; stop at the first error."""
    pending = set()
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


def _report(
    source: FrameSource | EventSource, plan: Plan, document: ScanDocument, url: str, seconds: float
) -> ConversionReport:
    from stemstore.store.commit import read_commit
    from stemstore.store.urls import open_storage

    commit = read_commit(open_storage(url))
    itemsize = np.dtype(getattr(source, "dtype", np.uint8)).itemsize
    shape = (*source.scan_shape, *source.frame_shape)
    return ConversionReport(
        url=url,
        profile=document.profile,
        shape=shape,
        raw_bytes=math.prod(shape) * itemsize,
        stored_bytes=0 if commit is None else commit.n_bytes,
        frames=document.frames.model_dump(),
        n_events=None if document.counting is None else document.counting.n_events,
        thresholds=None if plan.thresholds is None else asdict(plan.thresholds),
        workers=plan.workers,
        memory=plan.memory,
        seconds=seconds,
        warnings=list(source.metadata.warnings),
    )


def _positive(workers: int) -> int:
    if workers < 1:
        msg = f"workers={workers!r}; expected a whole number of at least 1"
        raise InputError(msg, found=workers)
    return workers


def _plain(value: Any) -> Any:
    """Options as JSON values for the history."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
