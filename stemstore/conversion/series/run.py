"""From many raw scans to one series, which is begun or carried on, scan by scan."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stemstore.conversion.series.report import ScanOutcome, SeriesReport
from stemstore.conversion.series.sources import raw_scans, slug
from stemstore.conversion.series.work import Work
from stemstore.errors import DestinationExistsError, InputError, ScanWarning, StemStoreError
from stemstore.scan.addresses import addresses
from stemstore.store.open import finished_store
from stemstore.store.series.entry import in_parallel, inputs_of, orders_of, settled
from stemstore.store.series.index import Series, change_series, child_url, is_series, open_series_group
from stemstore.store.urls import is_local, open_storage

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from stemstore.conversion.series.sources import RawScan
    from stemstore.progress import Progress
    from stemstore.store.series.entry import Order
    from stemstore_schemas import SourceFile, Unit

    PathLike = str | os.PathLike[str]

log = logging.getLogger(__name__)


def convert_series(  # noqa: PLR0913  # the public door: every option by its name
    sources: PathLike | Sequence[Any] | Mapping[str, Any],
    destination: PathLike,
    *,
    order: Order = None,
    unit: Unit | None = None,
    dim: str | None = None,
    title: str | None = None,
    append: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> SeriesReport:
    """Convert many scans of one experiment to stores of one group, a series.

    Every scan becomes a store of its own, as `stemstore.convert` writes it, and is entered into the index of the series
    when it is finished. A scan that fails does not hold up the others.

    Parameters
    ----------
    sources
        A folder whose entries (files or folders) are scans that readers recognise; a pattern; a list of scans, each as
        `stemstore.convert` takes it; or a mapping from names to scans. Files of one scan that lie in the folder side by
        side are one scan; other entries are listed in the report.
    destination
        Path or URL of the series; usually ends in ``.zarr``.
    order, unit
        Places of the scans along the series, by name or in the order of `sources`, and their unit: ``"s"``, ``"deg"``
        … Left out, the times at which the scans began are shown, where the files tell.
    dim
        Name of the axis along which the scans follow: ``"time"`` by default, ``"tilt"`` …
    title
        What the experiment is called.
    append
        Add scans to a series that exists. Those that are in it already are left alone.
    resume
        The same; conversions of single scans that were interrupted go on.
    progress
        Receives the advance, scan by scan.
    storage_options
        How sources and destination are reached where they are URLs; see `stemstore.convert`.
    **options
        As of `stemstore.convert`, the same for all scans: ``count=True``, ``reader=…``, ``beam_energy=…``.

    Returns
    -------
    report
        What became of each scan.

    Warns
    -----
    ScanWarning
        As for `stemstore.convert`, with the name of the scan.

    Raises
    ------
    SeriesIncompleteError
        Scans failed; it names them, its notes say why, and its context has the ``report``. All others are done.
    DestinationExistsError
        The destination exists, and neither `append` nor `resume` is on; or it is no series.
    InputError
        Two scans have the same name or the same files, or the places do not belong to the scans; nothing is converted.
    NotFoundError
        No scans are found.
    FormatVersionError, CorruptDataError
        The index of the series was written by a newer release, or is damaged.

    Notes
    -----
    Killed at any moment, the series opens with the scans that were entered. A store that was finished and not entered
    is entered by the next call with `append` or `resume`, or by `stemstore.index_series`. Stores that are in the series
    are never written to. Memory as for `stemstore.convert`: one scan is converted at a time, by all threads.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.convert_series("day_3/", "day_3.zarr", count=True, resume=True)  # doctest: +SKIP
    >>> ds = stemstore.open_series("day_3.zarr")  # doctest: +SKIP
    """
    started = time.perf_counter()
    if "overwrite" in options:
        msg = "a series is not overwritten; remove it yourself, or choose another name"
        raise InputError(msg, key="overwrite")
    if storage_options is not None:
        from stemstore.store.address import reach_urls

        sources, destination = reach_urls(sources, destination, storage_options=storage_options)
    target = open_storage(addresses(destination)[0]).root
    series = _present(target, go_on=append or resume)
    scans, skipped = raw_scans(sources, options)
    places = _places(scans, order, series, unit)
    settled(None if series is None else series.document, dim=dim, unit=unit, title=title)  # refuses before any work
    change_series(target, lambda before: settled(before, dim=dim, unit=unit, title=title))
    work = Work(target, places, _sources_of(series, scans), {**options, "resume": resume, "progress": progress})
    report = SeriesReport(target, skipped=skipped)
    for scan in scans:
        try:
            report.scans.append(work.take(scan))
        except (StemStoreError, OSError) as error:
            log.warning("scan %s failed: %s", scan.name, error)
            report.scans.append(ScanOutcome(scan.name, "failed", child_url(target, scan.name), error=str(error)))
        except BaseException as error:
            done = len(report.scans) - len(report.named("failed"))
            error.add_note(f"{done} of {len(scans)} scans are in '{target}'; go on with resume=True (--resume)")
            raise
    report.seconds = time.perf_counter() - started
    for text in report.warnings:
        warnings.warn(text, ScanWarning, stacklevel=2)
    report.check()
    log.info("wrote %s: %d scans in %.1f s", target, len(scans), report.seconds)
    return report


def _present(target: str, *, go_on: bool) -> Series | None:
    """Look what is at the destination; None where a series is to be begun."""
    if is_series(target):
        if go_on:
            return open_series_group(target)
        msg = (
            f"the series '{target}' exists; add scans with append=True, or go on with resume=True (--append, --resume)"
        )
        raise DestinationExistsError(msg, url=target)
    storage = open_storage(target)
    if storage.exists() and (not is_local(target) or storage.children("")):
        msg = (
            f"'{target}' exists and is no series of scans; choose another name (a folder of stores becomes a series by "
            "stemstore.index_series)"
        )
        raise DestinationExistsError(msg, url=target)
    return None


def _places(scans: Sequence[RawScan], order: Order, series: Series | None, unit: Unit | None) -> dict[str, float]:
    """Give the scans their places along the series, and find out before any work whether they can have them.

    Raises
    ------
    InputError
        Places are missing or are given for others, or contradict the index.
    """
    names = [scan.name for scan in scans]
    if isinstance(order, Mapping):  # by the names that were given, or by those that the stores have
        order = {str(name) if name in names else slug(str(name)): place for name, place in order.items()}
    places = orders_of(names, order)
    if unit is not None and not places:
        msg = f"unit={unit!r} without places; give order= as well, a number for each scan"
        raise InputError(msg, key="order")
    entries = [] if series is None else series.document.scans
    known = {entry.name: entry.order for entry in entries}
    for name, place in places.items():
        if known.get(name, place) != place:
            msg = (
                f"scan {name!r} has the place {known[name]} in the series, not {place}; leave it out, or correct order="
            )
            raise InputError(msg, key="order", scan=name, found=place, expected=known[name])
    new = [scan.name for scan in scans if scan.name not in known]
    if entries and new and (entries[0].order is None) != (not places):
        has = "no places" if entries[0].order is None else "places"
        msg = f"the scans of the series have {has} along it; {'leave order= out' if places else 'give order= as well'}"
        raise InputError(msg, key="order", scan=new[0])
    return places


def _sources_of(series: Series | None, scans: Sequence[RawScan]) -> dict[str, list[SourceFile]]:
    """Read what the scans of a series were made of, where there are new ones to compare with."""
    entries = [] if series is None else series.document.scans
    if series is None or {scan.name for scan in scans} <= {entry.name for entry in entries}:
        return {}
    found = in_parallel(finished_store, [series.child(entry.path) for entry in entries])
    return {
        entry.name: inputs_of(store.document) for entry, store in zip(entries, found, strict=True) if store is not None
    }
