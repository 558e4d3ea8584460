"""Running a disk detection piece by piece, in memory or into a store, and ending early."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import dask
import numpy as np

from stemstore.config import memory_budget, n_workers
from stemstore.errors import DestinationExistsError, InputError
from stemstore.memory import fitting_workers
from stemstore.ops.disks.assembly import Assembly, lazy_columns
from stemstore.ops.disks.detection import NAMES, digest_of, dims_of
from stemstore.ops.disks.parts import PartsInMemory, PartsInStore
from stemstore.ops.disks.table import DiskTable, dataset_of_table
from stemstore.ops.disks.tasks import run_tasks, runs_here
from stemstore.ops.disks.verdict import judge
from stemstore.ops.saved.results import open_result, results, url_of
from stemstore.ops.saved.save import check_scan, save
from stemstore.progress import NoProgress
from stemstore.store.series.holder import open_holder

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray
    from stemstore.ops.disks.detection import Detection
    from stemstore.ops.disks.parts import Parts
    from stemstore.ops.disks.pieces import DiskPieces
    from stemstore.progress import Progress

DIGEST = "detection_digest"
"""Attribute of saved disks: digest of everything that decided about them."""


class DisksInterrupted(KeyboardInterrupt):
    """Disk detection was interrupted by the user.

    Attributes
    ----------
    disks
        Without a store: what was found so far, with ``processed`` false elsewhere. With one: None; the finished pieces
        lie in the store.
    """

    def __init__(self, message: str, disks: xr.Dataset | None) -> None:
        super().__init__(message)
        self.disks = disks


def find_in_memory(detection: Detection, progress: Progress | None) -> xr.Dataset:
    """Find all disks and give them as a dataset in memory; warn, or refuse, where it is of little use."""
    disks = search(detection, progress)
    judge(detection, disks)
    return disks


def search(detection: Detection, progress: Progress | None = None) -> xr.Dataset:
    """Find all disks and give them as a dataset in memory, whatever they are."""
    pieces, parts = detection.pieces(), PartsInMemory()
    try:
        _run(detection, pieces, parts, progress or NoProgress())
    except KeyboardInterrupt as interrupt:
        disks = _dataset(detection, pieces, parts, lazy=False)
        msg = (
            f"interrupted after {int(disks.processed.sum())} of {sum(pieces.wanted)} patterns; their disks are the "
            "attribute 'disks' of this error (sys.last_value.disks). With store=… a run goes on where it stopped"
        )
        raise DisksInterrupted(msg, disks) from interrupt
    return _dataset(detection, pieces, parts, lazy=False)


def find_in_store(
    detection: Detection, store: Any, name: str, *, resume: bool, overwrite: bool, progress: Progress | None
) -> xr.Dataset:
    """Find all disks, piece by piece into a store, and open the result; parameters as for `find_disks`."""
    url = url_of(store)
    check_scan(detection.image.to_dataset(name="intensity"), open_holder(url).uuid, url)
    pieces, parts = detection.pieces(), PartsInStore(url, name)
    plan = {**detection.fingerprint, "data": pieces.reads}
    if (found := _finished(url, name, digest_of(plan), resume=resume, overwrite=overwrite)) is not None:
        parts.remove()  # of a run that was killed after its end
        return found
    _begin(parts, plan, resume=resume, overwrite=overwrite)
    try:
        _run(detection, pieces, parts, progress or NoProgress())
    except KeyboardInterrupt as interrupt:
        msg = (
            f"interrupted after {len(parts.counts())} of {len(pieces.places)} pieces, which lie in "
            f"'{url}/{parts.place}'; with resume=True (--resume) a run goes on from there"
        )
        raise DisksInterrupted(msg, None) from interrupt
    disks = _dataset(detection, pieces, parts, lazy=True).assign_attrs({DIGEST: digest_of(plan)})
    try:
        judge(detection, disks)
    except InputError:
        parts.remove()  # nothing to go on from
        raise
    with dask.config.set(scheduler="threads"):  # the columns are put together from files of this process's store
        saved = save(disks, url, name, overwrite=overwrite)
    parts.remove()
    return saved  # type: ignore[return-value]  # a dataset was saved


def _run(detection: Detection, pieces: DiskPieces, parts: Parts, progress: Progress) -> None:
    """Run the pieces that are not there yet."""
    done = parts.counts()
    numbers = [number for number in range(len(pieces.places)) if number not in done]
    progress.start("finding disks", sum(pieces.wanted))
    if done:
        progress.advance(sum(pieces.wanted[number] for number in done))
    workers = None
    if runs_here():
        each = pieces.worker_bytes + detection.worker_bytes
        wanted = dask.config.get("num_workers", None) or n_workers()
        workers = fitting_workers(wanted, each, memory_budget(), shared=detection.shared_bytes)

    def take(number: int, piece: Any) -> None:
        parts.put(number, piece)
        progress.advance(pieces.wanted[number])

    if numbers:
        run_tasks(*pieces.graph(numbers), take, workers)


def _finished(url: str, name: str, digest: str, *, resume: bool, overwrite: bool) -> xr.Dataset | None:
    """Give the finished result of the same detection, if there is one; refuse to replace another unasked."""
    if name not in results(url) or (overwrite and not resume):
        return None
    if not resume:
        msg = (
            f"'{url}' has a result {name!r} already; choose another name=, pass overwrite=True to replace it, or "
            "resume=True to open it where it was found with the same parameters"
        )
        raise DestinationExistsError(msg, url=url, key=name)
    found = open_result(url, name)
    if found.attrs.get(DIGEST) == digest:
        return found  # type: ignore[return-value]  # other results have no digest
    if overwrite:
        return None
    msg = (
        f"the result {name!r} of '{url}' was found with other parameters, in other data or by another version; choose "
        "another name=, or pass overwrite=True to replace it"
    )
    raise DestinationExistsError(msg, url=url, key=name)


def _begin(parts: PartsInStore, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Begin a run, or go on with one of the same plan."""
    found = parts.plan()
    if found is None or (overwrite and not resume):
        parts.begin(plan)
    elif found == plan and resume:
        parts.load()
    elif resume:
        other = sorted(key for key in {*plan, *found} if plan.get(key) != found.get(key))
        told = ", ".join(f"{key} ({_short(found.get(key))} then, {_short(plan.get(key))} now)" for key in other)
        msg = (
            f"the unfinished run in '{parts.place}' differs in {told}; pass the same to go on, choose another name=, "
            "or begin anew with resume=False, overwrite=True"
        )
        raise InputError(msg, key=other[0], found=found.get(other[0]), expected=plan.get(other[0]))
    else:
        msg = (
            f"'{parts.place}' holds an unfinished run; pass resume=True to go on with it, overwrite=True to begin "
            "anew, or choose another name="
        )
        raise DestinationExistsError(msg, key=parts.place)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 12 else f"{text[:8]}…"  # noqa: PLR2004  # digests need not be read to the end


def _dataset(detection: Detection, pieces: DiskPieces, parts: Parts, *, lazy: bool) -> xr.Dataset:
    """Put the disks of the finished pieces together."""
    shape, found = detection.scan_shape, parts.counts()
    counts = [found.get(number) for number in range(len(pieces.places))]
    assembly = Assembly(pieces.places, counts, parts.rows, math.prod(shape), len(NAMES))
    if lazy:
        columns = lazy_columns(assembly)
    else:
        columns = [assembly.column(number, 0, assembly.n_disks) for number in range(len(NAMES))]
    values: dict[str, Any] = {"sigma_q": None, **dict(zip(NAMES, columns, strict=True))}
    image = detection.image
    table = DiskTable(
        scan_shape=shape,
        scan_dims=dims_of(detection),
        offset=assembly.offset,
        processed=_processed(detection, pieces, found),
        detector_shape=detection.plan.frame_shape,
        units=str(image.attrs.get("units", "count")),
        **values,
    )
    full = int((table.n_disks >= detection.plan.parameters.max_peaks).sum())
    return dataset_of_table(table, image.coords, detection.attributes | {"n_full": full})


def _processed(detection: Detection, pieces: DiskPieces, found: dict[int, Any]) -> BoolArray:
    """Positions that were looked at."""
    done = np.zeros(math.prod(detection.scan_shape), np.bool_)
    for number in found:
        done[pieces.places[number]] = True
    done = done.reshape(detection.scan_shape)
    return done if detection.keep is None else done & detection.keep
