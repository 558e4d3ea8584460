"""Entering stores into the index of a series: those that lie in its group and are finished."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stemstore.config import concurrency
from stemstore.errors import DestinationExistsError, InputError, NotFoundError
from stemstore.store.commit import digest
from stemstore.store.metadata import PLACES
from stemstore.store.open import finished_store
from stemstore.store.series.index import change_series, child_url, is_series, new_document, now
from stemstore.store.urls import open_storage
from stemstore_schemas import SeriesScan

if TYPE_CHECKING:
    import os

    from stemstore.store.open import StoredScan
    from stemstore_schemas import ScanDocument, SeriesDocument, SourceFile, Unit

    Order = Mapping[str, float] | Sequence[float] | None

_DIGITS = re.compile(r"(\d+)")
SUFFIXES = (".zarr.zip", ".zarr")
"""Endings of the names of stores, which are no part of the names of scans."""


def index_series(
    url: str | os.PathLike[str],
    *,
    order: Order = None,
    unit: Unit | None = None,
    dim: str | None = None,
    title: str | None = None,
    renew: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> SeriesDocument:
    """Enter the finished stores that lie in a folder or group into its index, which makes it a series.

    Stores are neither read through nor touched; those that are in the index already stay as they are in it.

    Parameters
    ----------
    url
        Folder (or its URL) whose entries are stores.
    order
        Places of the scans that are new along the series: by name, or one after the other in the order of their names
        (``scan_9`` before ``scan_10``). Left out, the times at which the scans began are shown, or their numbers.
    unit
        Of `order`, such as ``"s"`` or ``"deg"``.
    dim
        Name of the axis along which the scans follow, ``"time"`` by default; stays for good.
    title
        What the experiment is called.
    renew
        Take the stores as they are now: scans that are missing leave the index, and those that another scan has
        replaced are entered anew.
    storage_options
        How a URL is reached; see `stemstore.open`.

    Returns
    -------
    document
        The index. Its ``scans`` are in the order in which they were entered.

    Raises
    ------
    NotFoundError
        There is nothing, or no finished store in it.
    InputError
        `order` names scans that are not there, or leaves some out; or `dim` or `unit` are those of another series.
    UnknownFormatError, FormatVersionError, CorruptDataError
        As for `stemstore.open_series`.

    Notes
    -----
    The index is one object, ``zarr.json`` of the group, and replaced as a whole.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.index_series("experiment.zarr", order=[-10, 0, 10], unit="deg", dim="tilt")  # doctest: +SKIP
    """
    if storage_options is not None:
        from stemstore.store.address import remote

        url = remote(url, **storage_options)
    root = open_storage(url).root
    found = dict(stores_in(root))
    if not found and not is_series(root):
        there = "no finished store lies in it" if open_storage(root).exists() else "there is no such place"
        msg = f"'{root}' is no series and cannot become one: {there}; convert scans with stemstore.convert_series"
        raise NotFoundError(msg, url=root)

    def change(before: SeriesDocument | None) -> SeriesDocument:
        document = settled(before, dim=dim, unit=unit, title=title)
        kept = [scan for scan in document.scans if not renew or _same(scan, found)]
        new = {path: scan for path, scan in found.items() if path not in {known.path for known in kept}}
        lost = {scan.path: scan for scan in document.scans}
        places = orders_of([without_ending(path) for path in new], order, lost if renew else {})
        entries = [entry_of(scan, path=path, order=places.get(without_ending(path))) for path, scan in new.items()]
        return with_scans(document, kept, entries, root)

    return change_series(root, change)


def stores_in(url: str) -> list[tuple[str, StoredScan]]:
    """Open the finished stores that lie in a folder or group, in natural order of their names.

    Returns
    -------
    stores
        Names of the entries, and what lies there.
    """
    names = [name for name in open_storage(url).children("") if not name.startswith((".", "__")) and name not in PLACES]
    names = sorted((name for name in names if name != "zarr.json"), key=natural)
    found = in_parallel(finished_store, [child_url(url, name) for name in names])
    return [(name, scan) for name, scan in zip(names, found, strict=True) if scan is not None]


def in_parallel(function: Any, items: Sequence[Any]) -> list[Any]:
    """Apply a function that waits for answers to several items at a time; results in order, the first error raised."""
    if len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(len(items), concurrency()), thread_name_prefix="series") as pool:
        return list(pool.map(function, items))


def settled(before: SeriesDocument | None, *, dim: str | None, unit: Unit | None, title: str | None) -> SeriesDocument:
    """Give the index to begin with: the one that is there, with another title where one is given, or a new one.

    Raises
    ------
    InputError
        It is there, with another axis.
    """
    if before is None:
        try:
            return new_document(dim=dim or "time", unit=unit, title=title)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            msg = f"dim={dim!r} or unit={unit!r} cannot be stored: {reason}"
            raise InputError(msg, key="dim", found=dim) from error
    changes: dict[str, Any] = {} if title is None else {"title": title}
    for name, given in (("dim", dim), ("unit", unit)):
        known = getattr(before, name)
        if given is None or given == known:
            continue
        if before.scans:
            msg = f"the series has {name} {known!r}, not {given!r}; leave {name}= out, or make another series"
            raise InputError(msg, key=name, found=given, expected=known)
        changes[name] = given
    return before.model_copy(update=changes)


def with_scans(document: SeriesDocument, kept: list[SeriesScan], entries: list[SeriesScan], url: str) -> SeriesDocument:
    """Give the index with some of its scans and some new ones.

    Raises
    ------
    InputError
        New scans have a place along the series and others have none, or two share a name or a source.
    """
    if not entries and kept == document.scans:
        return document
    for entry in entries:
        refuse_same(kept, entry, url)
    scans = [*kept, *entries]
    placed = [scan for scan in scans if scan.order is not None]
    if placed and len(placed) < len(scans):
        without = next(scan.name for scan in scans if scan.order is None)
        msg = (
            f"scan {placed[0].name!r} of '{url}' has a place along {document.dim!r}, {without!r} has none; give order="
        )
        raise InputError(msg, url=url, key="order", scan=without)
    if document.unit is not None and scans and not placed:
        msg = f"unit={document.unit!r} without places; give order= as well, a number for each scan"
        raise InputError(msg, url=url, key="order")
    facts = {**document.model_dump(), "scans": [scan.model_dump() for scan in scans], "time": now()}
    return type(document).model_validate(facts)


def refuse_same(known: Sequence[SeriesScan], entry: SeriesScan, url: str) -> None:
    """Refuse a scan that is in a series already, by name, identity, or what it was made from.

    Raises
    ------
    DestinationExistsError
        It is.
    """
    for scan in known:
        shared = next((name for name in ("name", "uuid", "source") if _equal(scan, entry, name)), None)
        if shared is None:
            continue
        what = {"name": "a scan of this name", "uuid": f"it, as scan {scan.name!r}"}
        text = what.get(shared, f"scan {scan.name!r}, which was made from the same raw data")
        msg = (
            f"scan {entry.name!r} cannot be entered: '{url}' holds {text} already; leave it out, or move its store "
            "elsewhere"
        )
        raise DestinationExistsError(msg, url=url, scan=entry.name, found=scan.name, key=shared)


def entry_of(scan: StoredScan, *, path: str, order: float | None = None, title: str | None = None) -> SeriesScan:
    """Describe a store for the index."""
    document = scan.document
    return SeriesScan(
        name=without_ending(path),
        path=path,
        uuid=document.uuid,
        order=order,
        start_time=document.acquisition.start_time,
        title=title,
        source=source_digest(document),
        added=now(),
    )


def inputs_of(document: ScanDocument) -> list[SourceFile]:
    """List what a store was last made from; changes of its metadata since then read nothing."""
    made = [entry.inputs for entry in document.history if entry.inputs]
    return made[-1] if made else []


def source_digest(document: ScanDocument) -> str | None:
    """Digest of the digests of what a store was made from; None where one of them is not known."""
    known = sorted(file.digest or "" for file in inputs_of(document))
    if not known or not all(known):
        return None
    return digest("\n".join(known).encode())


def orders_of(names: Sequence[str], order: Order, known: Mapping[str, SeriesScan] | None = None) -> dict[str, float]:
    """Give every new scan its place along the series, none where none is given.

    Parameters
    ----------
    names
        Of the new scans.
    order
        By name, or in the order of the names.
    known
        Scans whose place stays where `order` says nothing.

    Raises
    ------
    InputError
        A scan is left out, is not there, or its place is no finite number.
    """
    if order is None:
        kept = {without_ending(path): scan.order for path, scan in (known or {}).items()}
        return {name: place for name in names if (place := kept.get(name)) is not None}
    if isinstance(order, Mapping):
        given = dict(order)
    else:
        values = list(order)
        if len(values) != len(names):
            msg = f"order has {len(values)} places for {len(names)} scans ({', '.join(names)}); give one for each"
            raise InputError(msg, key="order", found=len(values), expected=len(names))
        given = dict(zip(names, values, strict=True))
    if odd := sorted(map(str, given.keys() ^ set(names))):
        msg = f"order and scans differ in {', '.join(odd)}; give a place to each of {', '.join(names) or 'none'}"
        raise InputError(msg, key="order", found=odd, expected=list(names))
    for name, value in given.items():
        try:
            given[name] = float(value)
        except (TypeError, ValueError):
            given[name] = math.nan
        if not math.isfinite(given[name]):
            msg = f"the place of scan {name!r} is {value!r}; give a finite number"
            raise InputError(msg, key="order", scan=name, found=value)
    return given


def natural(name: str) -> list[Any]:
    """Key that sorts ``scan_9`` before ``scan_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)]


def without_ending(name: str) -> str:
    """Give the name of a store without its ending."""
    ending = next((ending for ending in SUFFIXES if name.endswith(ending)), "")
    return name.removesuffix(ending) or name


def _equal(scan: SeriesScan, entry: SeriesScan, name: str) -> bool:
    return getattr(scan, name) is not None and getattr(scan, name) == getattr(entry, name)


def _same(scan: SeriesScan, found: Mapping[str, StoredScan]) -> bool:
    return scan.path in found and found[scan.path].uuid == scan.uuid
