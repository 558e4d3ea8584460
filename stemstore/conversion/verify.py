"""Comparing a store with the raw data that it was made from, block by block: the conversion is repeated in memory."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.compare import Difference, compare, states
from stemstore.conversion.job import Job, decide
from stemstore.conversion.plan import CountedPlan, DensePlan
from stemstore.conversion.recorded import last_conversion, options_of, sources_of
from stemstore.errors import InputError, StemStoreError
from stemstore.progress import NoProgress, Progress
from stemstore.store.open import is_store, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.store.open import StoredScan

    PathLike = str | os.PathLike[str]


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
        What it was made from; the files that its history names by default. Another store that should hold the same,
        such as the one that it was rechunked from, is compared as it is.
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
    recorded = _options(scan, source, options)
    more = {"workers": workers, "max_memory": max_memory, "digests": "none"}
    job = _found(scan, recorded | more) if source is None else decide(source, recorded | more)
    notes = _check_alike(scan, job)
    found = list(states(scan, job))
    shown: Progress = progress or NoProgress()
    different, first = compare(scan, job, shown)
    firsts = [one for one in (*found, first) if one is not None]
    lowest = min(firsts, key=lambda one: one[0])[1] if firsts else None
    known = {flat for flat, _ in found}
    n_different = different + len(known)
    inputs = [entry.path for entry in job.document.history[-1].inputs]
    counted, n_frames = isinstance(job.plan, CountedPlan), math.prod(scan.scan_shape)
    return Verification(scan.url, inputs, counted, n_frames, n_different, lowest, notes, time.monotonic() - began)


def _options(scan: StoredScan, source: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options of the conversion; where a store stands for the raw data, they were applied to it already."""
    stands_for = isinstance(source, (str, os.PathLike)) and is_store(source)
    if stands_for and last_conversion(scan.document).parameters.get("reader") is not None:
        return dict(given)
    return options_of(scan.document, given)


def _found(scan: StoredScan, options: Mapping[str, Any]) -> Job:
    """Open the source by what the history says: of several files it has to name the same ones in the same order."""
    inputs = [one.path for one in last_conversion(scan.document).inputs]
    first: Exception | None = None
    candidates = sources_of(scan.document)
    for candidate in candidates:
        try:
            job = decide(candidate, options)
        except StemStoreError as error:
            first = first or error
            continue
        if len(candidates) == 1 or [one.path for one in job.document.history[-1].inputs] == inputs:
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
