"""From raw data to a finished store: plan, write every partition, finalise."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stemstore.config import format_size, memory_budget, n_workers, parse_size
from stemstore.conversion.document import Oddities, describe, with_findings
from stemstore.conversion.images import applied, handed_on
from stemstore.conversion.measures import check_columns
from stemstore.conversion.plan import CountedPlan, DensePlan, Profile, make_plan
from stemstore.conversion.settings import CountOptions
from stemstore.conversion.stored import Carried, earlier_counting
from stemstore.conversion.write import write_events, write_frames
from stemstore.errors import DestinationExistsError, InputError, ScanWarning
from stemstore.progress import NoProgress, Progress
from stemstore.scan.calibration import Calibration
from stemstore.scan.corrected import Asked, CorrectedFrames
from stemstore.scan.stored import as_frames, check_apart, open_source_or_store
from stemstore.sources.contract import EventSource
from stemstore.sources.references import references_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.conversion.count import Rule
    from stemstore.conversion.measures import EventColumn
    from stemstore.conversion.regions import Division
    from stemstore.kernels.counting_corrections import RowDark
    from stemstore.sources.contract import FrameSource
    from stemstore_schemas import ScanDocument

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
    background_threshold: float | Sequence[float] | None = None,
    xray_threshold: float | Sequence[float] | None = None,
    background_sigma: float = 5.0,
    xray_sigma: float = 175.0,
    threshold: Division | None = None,
    false_events_per_frame: float | None = None,
    dark: Any = None,
    gain: Any = None,
    row_dark: RowDark = "none",
    bad_pixels: Any = None,
    mask: Any = None,
    event_columns: EventColumn | Sequence[EventColumn] = (),
    profile: Profile = "fast",
    overwrite: bool = False,
    workers: int | None = None,
    max_memory: str | int | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> ConversionReport:
    """Convert raw detector data, or a store, to a new store.

    Parameters
    ----------
    source
        File, folder or list of files that a reader understands; or a finished store, to count its frames, to make
        frames of its events, or to lay it out anew. The history and the saved calibration of a store go over to the
        new one; saved results stay with the old one, and the report says so.
    destination
        Path or URL of the new store; usually ends in ``.zarr``.
    reader
        Name of the source's format; found by content when left out.
    count
        Count electrons and store events (True), or store frames (False); events become frames of the smallest unsigned
        type that holds every pixel. By default data that are counted already stay events, and frames stay frames.
    rule
        Counting rule: ``"stemstore"``, or ``"stempy"`` for the events that stempy would find.
    background_threshold, xray_threshold : unit ADU
        Given thresholds, of values after corrections: a number, or one for each region of `threshold`; an infinite
        `xray_threshold` is no limit. Those left out are estimated from frames of the whole scan.
    background_sigma, xray_sigma
        Where estimated thresholds lie: above the fitted noise peak in its widths, and above the mean of all pixels in
        their standard deviations.
    threshold
        Regions with thresholds of their own: ``"global"`` (the default), ``"module"`` (the sectors that the reader
        knows; the default where a list of thresholds is given), or ``"half-row"`` (left and right half of each).
    false_events_per_frame
        In place of `background_sigma`: the most events per frame that noise alone may make.
    dark, gain : shape (ky, kx)
        Subtracted, and multiplied afterwards: an array; a ``.npy`` file, any file that a reader opens or a store, of
        which the mean frame (of a store its saved calibration) is taken; or ``"detector"``, the image that the source
        carries. Frames that are stored must not be NaN by them and become float32 (float64 for wide pixels); where
        electrons are counted, pixels without a finite dark or a positive gain are dead.
    row_dark
        Bring each half row of a frame to the pedestal of the scan by its ``"mean"`` or ``"median"``.
    bad_pixels : shape (ky, kx)
        True at pixels that are no events and no neighbours where electrons are counted, and that are replaced by the
        mean of their good neighbours where frames are stored; given like `dark`.
    mask : shape (ky, kx)
        False at pixels that are no events and no neighbours, and that are stored as zero; given like `dark`.
    event_columns
        What else is stored of every electron, for `stemstore.event_columns`: ``"energy"`` (charge of its 3 x 3
        pixels above the pedestal) and ``"position"`` (their centroid).
    profile
        Compression: ``"fast"``, ``"balanced"`` (smaller, slower to read), ``"small"`` (slow to write) or ``"raw"``.
    overwrite
        Replace an existing store, once the new one is finished.
    workers, max_memory
        Threads (all processors by default) and their working memory, such as ``"512MiB"`` (768 MiB by default). The
        result does not depend on them.
    progress
        Receives the advance.
    storage_options
        How source and destination are reached where they are URLs, as in `stemstore.open`; where they differ, give
        addresses made by `stemstore.remote`.
    **options
        Calibration (as in `stemstore.open`) and options of the reader (``scan_shape``, ``version`` …).

    Returns
    -------
    report

    Warns
    -----
    ScanWarning
        Counting looks doubtful: false events, an X-ray threshold among the electrons, a pedestal that drifts, frames
        that are dead or saturated. The same lines are in the report and in the history of the store.

    Raises
    ------
    UnknownFormatError, AmbiguousFormatError, NotFoundError, CorruptDataError
        The source cannot be read.
    InputError
        An option cannot be used, or the destination overlaps the store that is read.
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
    started = time.perf_counter()
    if storage_options is not None:
        from stemstore.store.address import reach_urls

        source, destination = reach_urls(source, destination, storage_options=storage_options)
    check_apart(source, destination)
    counting = CountOptions(
        rule, background_threshold, xray_threshold, background_sigma, xray_sigma,
        threshold=threshold, false_events_per_frame=false_events_per_frame,
        dark=dark, gain=gain, row_dark=row_dark, bad_pixels=bad_pixels, mask=mask,
        event_columns=check_columns(event_columns),
    )  # fmt: skip
    job = prepare(
        source, reader=reader, count=count, counting=counting, profile=profile,
        workers=workers, max_memory=max_memory, **options,
    )  # fmt: skip
    carried = Carried.of(job.plan, Calibration.split(options)[0])
    document = write(job, os.fspath(destination), overwrite=overwrite, progress=progress or NoProgress())
    carried.attach(os.fspath(destination), document.uuid)
    report = _report(job, document, os.fspath(destination), time.perf_counter() - started)
    for text in job.odd.warned:
        warnings.warn(text, ScanWarning, stacklevel=2)
    report.warnings.extend(carried.warnings)
    log.info("wrote %s: %s in %.1f s", report.url, format_size(report.stored_bytes), report.seconds)
    return report


@dataclass(frozen=True, slots=True)
class Job:
    """A conversion that is decided but not begun.

    Attributes
    ----------
    plan
        Source, layout, thresholds, threads and memory.
    document
        Metadata of the new store.
    odd
        What is doubtful about the counting; grows while frames are counted.
    """

    plan: DensePlan | CountedPlan
    document: ScanDocument
    odd: Oddities = field(default_factory=Oddities)


def prepare(
    source: PathLike | Sequence[PathLike],
    *,
    reader: str | None = None,
    count: bool | None = None,
    counting: CountOptions | None = None,
    profile: Profile = "fast",
    workers: int | None = None,
    max_memory: str | int | None = None,
    **options: Any,
) -> Job:
    """Open the source, sample its frames and decide everything about a conversion; nothing is written.

    Parameters and errors as in `convert`.
    """
    counting = counting or CountOptions()
    calibration, reader_options = Calibration.split(options)
    opened = open_source_or_store(source, reader, **reader_options)
    if count is False and isinstance(opened, EventSource):
        opened = as_frames(opened)
    counted = isinstance(opened, EventSource) if count is None else count
    asked = None if counted else Asked.of(counting.pixels, opened.frame_shape, references_of(opened))
    if asked is not None:
        opened = cast("FrameSource", CorrectedFrames(cast("FrameSource", opened), asked))
    plan = make_plan(
        opened,
        counted=counted,
        counting=counting,
        profile=profile,
        workers=_positive(workers) if workers is not None else n_workers(),
        budget=parse_size(max_memory) if max_memory is not None else memory_budget(),
    )
    parameters = {
        "reader": reader,
        "count": count,
        "profile": profile,
        **counting.parameters(),
        **({} if asked is None else {"corrections": asked.described}),
        **earlier_counting(opened),
    }
    document = describe(plan, calibration, parameters | {k: _plain(v) for k, v in options.items()})
    return Job(plan, document, Oddities(list(plan.doubts) if isinstance(plan, CountedPlan) else []))


def write(job: Job, destination: str, *, overwrite: bool, progress: Progress) -> ScanDocument:
    """Write all partitions and finish the store; leave nothing behind where that fails.

    One exception: where something took the destination's name meanwhile, the finished store stays beside it.

    Returns
    -------
    document
        As stored, with the number of events.
    """
    from stemstore.store.writer import StoreWriter

    plan, document = job.plan, job.document
    writer = StoreWriter.init(destination, document, plan.layout, overwrite=overwrite)
    try:
        progress.start("writing frames" if isinstance(plan, DensePlan) else "writing events", plan.layout.n_partitions)
        if isinstance(plan, DensePlan):
            write_frames(plan, writer, progress)
        else:
            document = with_findings(document, plan.counter, write_events(plan, writer, progress), job.odd)
        arrays = handed_on(plan) | applied(plan)
        writer.finalise(document, attributes=plan.summary_attributes(), arrays=arrays)
    except DestinationExistsError:
        raise  # the store is finished and only lacks its name; the message tells where it is
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to report
            writer.abort()
        raise
    return document


def _report(job: Job, document: ScanDocument, url: str, seconds: float) -> ConversionReport:
    from stemstore.store.commit import read_commit
    from stemstore.store.urls import open_storage

    plan, source = job.plan, job.plan.source
    commit = read_commit(open_storage(url))
    itemsize = np.dtype(getattr(source, "dtype", np.uint16)).itemsize  # events came from 16-bit pixels
    counter = plan.counter if isinstance(plan, CountedPlan) else None
    return ConversionReport(
        url=url,
        profile=document.profile,
        shape=document.shape,
        raw_bytes=math.prod(document.shape) * itemsize,
        stored_bytes=0 if commit is None else commit.n_bytes,
        frames=document.frames.model_dump(),
        n_events=None if document.counting is None else document.counting.n_events,
        thresholds=None if counter is None else asdict(counter.thresholds),
        workers=plan.workers,
        memory=plan.memory,
        seconds=seconds,
        warnings=[*source.metadata.warnings, *job.odd.all],
    )


def _positive(workers: int) -> int:
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        msg = f"workers={workers!r}; expected a whole number of at least 1"
        raise InputError(msg, found=workers)
    return workers


def _plain(value: Any) -> Any:
    """Options as JSON values for the history."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
