"""A finished store laid out anew: other chunks, shards or codecs, and everything else as it was."""

from __future__ import annotations

import logging
import os
import time
import uuid
from typing import TYPE_CHECKING, Any, get_args

from stemstore.config import format_size, memory_budget, n_workers, parse_size
from stemstore.conversion.counting.settings import CountOptions
from stemstore.conversion.document import Oddities, conversion_entry
from stemstore.conversion.job import Job, positive
from stemstore.conversion.kept import Kept
from stemstore.conversion.plan import make_plan
from stemstore.conversion.report import report_of
from stemstore.conversion.request import Request
from stemstore.conversion.steps import begin_writing, resume_writing, write_all
from stemstore.conversion.summary import BrightField
from stemstore.errors import InputError
from stemstore.progress import NoProgress
from stemstore.scan.addresses import addresses, check_apart
from stemstore.scan.stored import source_of_store
from stemstore.store.arrays import StoredFrames
from stemstore.store.codecs import Profile, frame_codec, gap_codec
from stemstore.store.cut import CUT, Cut
from stemstore.store.metadata import GAP, INTENSITY, SUMMARY, read_root
from stemstore.store.objects import listed_arrays, unseen
from stemstore.store.open import open_store
from stemstore.store.writer import match

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.conversion.report import ConversionReport
    from stemstore.progress import Progress
    from stemstore.store.cut import LayoutName
    from stemstore.store.open import StoredScan

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]

OPERATION = "rechunk"


def rechunk_store(  # noqa: PLR0913  # the public door: every option by its name
    store: PathLike,
    destination: PathLike,
    *,
    profile: Profile | None = None,
    layout: LayoutName | None = None,
    chunks: int | Sequence[int] | None = None,
    shards: int | Sequence[int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    max_memory: str | int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ConversionReport:
    """Write a finished store anew with other chunks, shards or codecs.

    Pixels or events stay what they are, bit for bit, and so do axes, calibration, acquisition and history, the saved
    calibration and the saved results. The new store has an identity of its own; its history ends in an entry that
    names the old one.

    Parameters
    ----------
    store
        Path or URL of a finished store.
    destination
        Path or URL of the new one.
    profile
        Compression, as in `stemstore.convert`; that of the store by default.
    layout
        ``"frames"``: whole frames of neighbouring positions share a chunk of about 2 MB. ``"tiled"``: a chunk holds
        64 x 64 pixels of 8 x 8 positions, so that a small detector reads only the tiles that it touches.
    chunks
        Extents of a chunk along all axes, such as ``(8, 8, 64, 64)``; of a store of events the frames of a block.
    shards
        Extents of a shard: a whole number of chunks along every axis, and whole frames, so that those along the scan
        axes suffice; of a store of events the frames of a shard. Chosen where only chunks or a layout are given.
        Without layout, chunks and shards those of the store stay.
    resume
        Go on with a call to this destination that was interrupted or killed, if there is one.
    overwrite
        Replace an existing store, once the new one is finished.
    max_memory, workers
        As in `stemstore.convert`. Pixels and chunks do not depend on them, where shards are given.
    progress
        Receives the advance.
    storage_options
        For whichever of the two is a URL that brings none of its own; see `stemstore.open`.

    Returns
    -------
    report

    Raises
    ------
    ChunkingError
        Layout, chunks and shards do not fit the scan or each other.
    InputError
        There is no store but raw data, the destination is the store or lies in it, or an interrupted call had other
        options.
    NotFoundError, UnknownFormatError, ConversionIncompleteError, CorruptDataError
        The store cannot be read.
    DestinationExistsError
        The destination exists and `overwrite` is off, or something to it was begun and `resume` is off.
    StorageError
        The device is full or refuses to write.
    MemoryBudgetError
        Not even one thread fits `max_memory`.

    Notes
    -----
    Memory of frames, per thread: the frames of one reading, a compressed shard, the records of its positions, and what
    decoding a chunk takes (of a tiled store whole frames of the positions of a chunk). A reading is one shard; or
    several, and one more that is cut out of them, where the chunks of the old store do not nest in the shards of the
    new one: as many as `max_memory` allows and as spare decoding. Each chunk of the old store is decoded once where
    whole readings fit, and four times at most, on average, where a shard and a chunk side by side do. Events are read
    block by block. At the end putting the summary together takes up to 0.25 GB beyond `max_memory`, as in every
    conversion. The destination appears under its name only when it is finished.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.rechunk_store("scan_42.zarr", "tiles.zarr", layout="tiled")  # doctest: +SKIP
    """
    started = time.perf_counter()
    if storage_options is not None:
        from stemstore.store.address import reach_urls

        store, destination = reach_urls(store, destination, storage_options=storage_options)
    cut = Cut.of(layout, chunks, shards)
    refuse_in_place(store, destination)
    given = {"profile": profile, **cut.given, "max_memory": max_memory}
    job = decide_rechunk(store, {**given, "workers": workers})
    target, request = os.fspath(destination), Request.of(store, given, operation=OPERATION)
    resumed = resume_writing(job, target) if resume else None
    writer = resumed or begin_writing(job, target, request, overwrite)
    document = write_all(job, writer, progress or NoProgress(), fresh=resumed is None)
    report = report_of(job, document, target, time.perf_counter() - started)
    log.info("wrote %s: %s in %.1f s", report.url, format_size(report.stored_bytes), report.seconds)
    return report


def decide_rechunk(store: Any, options: Mapping[str, Any]) -> Job:
    """Prepare it from the keyword arguments of `rechunk_store`; nothing is written.

    Raises
    ------
    StemStoreError
        As for `rechunk_store`.
    """
    cut = Cut.of(*(options.get(name) for name in CUT))
    workers, max_memory = options.get("workers"), options.get("max_memory")
    scan = open_store(addresses(store)[0])
    kept = Kept(scan)
    source = source_of_store(scan, warnings=unseen(scan.url))
    profile = options.get("profile") or profile_of(scan)
    plan = make_plan(
        source,
        counted=not isinstance(scan, StoredFrames),
        counting=CountOptions(),
        profile=profile,
        workers=positive(workers) if workers is not None else n_workers(),
        budget=parse_size(max_memory) if max_memory is not None else memory_budget(),
        cut=cut if cut.given else cut_of(scan),
        bright_field=bright_field_of(scan),
    )
    parameters = {"profile": profile, **cut.given}
    entry = conversion_entry(OPERATION, source.metadata, plan.workers, parameters)
    known = scan.document
    document = known.model_copy(update={"uuid": str(uuid.uuid4()), "history": [*known.history, entry]})
    return Job(plan, match(document, plan.layout), Oddities(), kept, "none")


def refuse_in_place(store: Any, destination: PathLike) -> None:
    """Refuse to write over what is read, and say how two stores change places.

    Raises
    ------
    InputError
        The destination is the store, lies in it, or holds it.
    """
    try:
        check_apart(store, destination)
    except InputError as error:
        msg = (
            f"{error}; the old store stays until the new one is whole: write 'new.zarr', then rename the old one and "
            "give its name to the new one (mv scan.zarr old.zarr && mv new.zarr scan.zarr)"
        )
        raise InputError(msg, **error.context) from None


def profile_of(scan: StoredScan) -> Profile:
    """Name the compression of a store: the profile that makes its codec, else one of the same kind, else ``"fast"``."""
    dense = isinstance(scan, StoredFrames)
    codec = scan.head.arrays[INTENSITY if dense else GAP].codec
    made = {name: frame_codec(name, scan.dtype.itemsize) if dense else gap_codec(name) for name in get_args(Profile)}
    for alike in (lambda one: one == codec, lambda one: (one.cname, one.shuffle) == (codec.cname, codec.shuffle)):
        for name, one in made.items():
            if alike(one):
                return name
    return "fast"


def bright_field_of(scan: StoredScan) -> BrightField | None:
    """Give the disk that the summary of a store rests on, for the new one; None where it tells none."""
    for info in listed_arrays(read_root(scan.head.storage)):
        center, radius = (info.attributes.get(name) for name in ("center_pixel", "radius_pixel"))
        if info.path == f"{SUMMARY}/bright_field" and center is not None and radius is not None:
            return BrightField((float(center[0]), float(center[1])), float(radius))
    return None


def cut_of(scan: StoredScan) -> Cut:
    """Say how a store is cut."""
    if isinstance(scan, StoredFrames):
        info = scan.head.arrays[INTENSITY]
        return Cut(None, info.chunk, info.shard)
    info = scan.head.arrays[GAP]
    frames = scan.frames_per_block
    blocks = (info.shard or info.chunk)[0]
    return Cut(None, (frames,), (frames * blocks,))
