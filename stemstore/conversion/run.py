"""From raw data to a finished store: plan, write every partition, finalise."""

from __future__ import annotations

import logging
import os
import time
import warnings
from typing import TYPE_CHECKING, Any

from stemstore.config import format_size
from stemstore.conversion.job import decide
from stemstore.conversion.report import ConversionReport, report_of
from stemstore.conversion.request import Request
from stemstore.conversion.steps import begin_writing, deciding, resume_writing, write_all
from stemstore.errors import ScanWarning
from stemstore.progress import NoProgress, Progress
from stemstore.scan.addresses import check_apart
from stemstore.store.cut import Cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.conversion.counting.measures import EventColumn
    from stemstore.conversion.counting.regions import Division
    from stemstore.conversion.digests import Asked
    from stemstore.kernels.counting import Rule
    from stemstore.kernels.counting_corrections import RowDark
    from stemstore.store.codecs import Profile
    from stemstore.store.cut import LayoutName

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


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
    layout: LayoutName | None = None,
    chunks: int | Sequence[int] | None = None,
    shards: int | Sequence[int] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    max_memory: str | int | None = None,
    digests: Asked | None = None,
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
    layout
        How frames are cut: ``"frames"`` (the default), whole ones of neighbouring positions in a chunk of about 2 MB;
        or ``"tiled"``, 64 x 64 pixels of 8 x 8 positions, so that a small detector reads only the tiles it touches.
    chunks
        In place of a layout the extents of a chunk along all axes, such as ``(8, 8, 64, 64)``; of events one number,
        the frames of a block.
    shards
        Extents of a shard along the scan axes, or along all: whole chunks and whole frames, at most 128 MB and half of
        `max_memory`; of events one number, its frames. Chosen where it is left out.
    overwrite
        Replace an existing store, once the new one is finished.
    resume
        Go on with a conversion to this destination that was interrupted or killed, if there is one. Source and options
        have to be the same, and partitions that are there and whole are not written again.
    workers, max_memory
        Threads (all processors by default) and their working memory, such as ``"512MiB"`` (768 MiB by default). The
        result does not depend on them.
    digests
        Digests of the raw files for the history, taken in threads beside the conversion: ``"crc32c"`` (costs little
        more than reading; finds damage), ``"sha256"`` (cannot be forged; slower than counting) or ``"none"``. By
        default CRC-32C of files on this machine; those on servers are read a second time, and only where it is asked
        for.
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
    ChunkingError
        Layout, chunks and shards do not fit the scan, each other or their limits.
    InputError
        An option cannot be used, or the destination overlaps the store that is read.
    DestinationExistsError
        The destination exists and `overwrite` is off, or a conversion to it was begun and `resume` is off.
    StorageError
        The device is full or refuses to write.
    MemoryBudgetError
        The work does not fit `max_memory`.

    Notes
    -----
    Memory: a dense conversion holds two copies of a shard (at most 128 MB) per thread, a counted one two batches of
    frames (20 MiB) per thread and one block of events. The destination appears under its name only when it is
    finished. After an interruption, a full device or a lost connection the finished partitions stay, for `resume`;
    after other errors, and where nothing was finished yet, nothing is left behind.
    """
    started = time.perf_counter()
    if storage_options is not None:
        from stemstore.store.address import reach_urls

        source, destination = reach_urls(source, destination, storage_options=storage_options)
    check_apart(source, destination)
    given: dict[str, Any] = {
        "reader": reader, "count": count, "rule": rule, "background_threshold": background_threshold,
        "xray_threshold": xray_threshold, "background_sigma": background_sigma, "xray_sigma": xray_sigma,
        "threshold": threshold, "false_events_per_frame": false_events_per_frame, "dark": dark, "gain": gain,
        "row_dark": row_dark, "bad_pixels": bad_pixels, "mask": mask, "event_columns": event_columns,
        "profile": profile, **Cut.of(layout, chunks, shards).given, "max_memory": max_memory, "digests": digests,
        **options,
    }  # fmt: skip
    target, request = os.fspath(destination), Request.of(source, given)
    with deciding(target):
        job = decide(source, {**given, "workers": workers})
    resumed = resume_writing(job, target) if resume else None
    writer = resumed or begin_writing(job, target, request, overwrite)
    document = write_all(job, writer, progress or NoProgress(), fresh=resumed is None)
    report = report_of(job, document, target, time.perf_counter() - started)
    for text in job.odd.warned:
        warnings.warn(text, ScanWarning, stacklevel=2)
    log.info("wrote %s: %s in %.1f s", report.url, format_size(report.stored_bytes), report.seconds)
    return report
