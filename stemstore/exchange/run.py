"""Writing a scan for another program: its events, or references to its frames."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from stemstore.config import format_size
from stemstore.errors import InputError
from stemstore.exchange.losses import losses
from stemstore.exchange.place import appearing, check_free, local_destination, refuse_own
from stemstore.exchange.raw_csr import RAW_CSR
from stemstore.exchange.reference_export import FORMS, NAMES, ReferenceReport, export_references, form_of
from stemstore.exchange.stempy import STEMPY
from stemstore.exchange.target import CountedScan, ShownColumns
from stemstore.progress import NoProgress, Progress
from stemstore.scan.addresses import addresses, check_apart
from stemstore.scan.opening import open_source_or_store
from stemstore.scan.stored import EventsOfStore, store_of
from stemstore.sources.contract import EventSource
from stemstore.sources.electrons import multiplicity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore.exchange.target import Target

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]
Format = Literal["stempy", "raw-csr", "kerchunk", "icechunk"]

TARGETS: dict[str, Target] = {target.name: target for target in (STEMPY, RAW_CSR)}
"""Formats that events are exported to, by name."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes
    ----------
    url
        The file to open.
    format
        ``"stempy"`` or ``"raw-csr"``.
    files
        All files that were written, the one to open last.
    shape
        Scan axes, ky, kx, as written.
    n_events
        Electrons.
    n_bytes
        Size of the files.
    not_carried
        What is known of the scan and has no place in the format.
    notes
        What a reader of the files should know.
    seconds
        Wall time.
    warnings
        What is odd about the source.
    """

    url: str
    format: str
    files: list[str]
    shape: tuple[int, ...]
    n_events: int
    n_bytes: int
    not_carried: list[str]
    notes: list[str]
    seconds: float
    warnings: list[str] = field(default_factory=list)


def export(
    source: PathLike | Sequence[PathLike],
    destination: PathLike,
    *,
    to: Format | None = None,
    reader: str | None = None,
    flyback: bool = True,
    overwrite: bool = False,
    prefix: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ExportReport | ReferenceReport:
    """Write a counted scan for stempy or LiberTEM, or references to frames for any program that reads Zarr.

    Of events, how they were counted is written as well where the format has a place for it; the report lists what is
    known and has no place there. Nothing is rounded, merged or left out otherwise.

    References say which bytes of which files the frames are; no pixel is copied. Raw files whose pixels are neither
    packed nor compressed, and finished dense stores, whose compressed chunks become chunks of their own, can be
    referred to. Coordinates, the states of the frames and attributes are written out, among them what the references
    were made from.

    Parameters
    ----------
    source
        A counted store (path or URL) or raw files of events; for references a dense store or raw files of frames.
    destination
        File to write: ``….h5`` for stempy, ``….toml`` for RAW_CSR, whose three flat files get names that begin alike,
        ``….json`` for kerchunk; or folder to write: ``….parquet`` for kerchunk's other form, ``….icechunk``.
    to
        ``"stempy"`` (counted HDF5, version 3), ``"raw-csr"`` (LiberTEM), ``"kerchunk"`` (references, Zarr format 2) or
        ``"icechunk"`` (references in a repository, Zarr format 3); by the extension of the destination when left out.
    reader
        Name of the format of raw data; found by content when left out.
    flyback
        Write the columns recorded while the beam flew back as well; no format can mark them.
    overwrite
        Replace files of an earlier export of the same format, once the new ones are finished.
    prefix
        Of references: what URLs of files begin with in the place of the folder that all of them lie in (of a store: in
        which it lies), such as ``"s3://bucket/raw"`` where they will be moved; ``""`` for relative paths. Left out,
        files are referred to where they are.
    progress
        Receives the advance; references take none.
    **options
        Of the reader (``scan_shape``, ``version`` …); of references the calibration of `stemstore.open` as well.

    Returns
    -------
    report

    Raises
    ------
    InputError
        The source holds what the format cannot hold: frames, where it is one of events; events, or packed or compressed
        frames, where references are asked for. The destination is not local, or the source itself.
    OptionalDependencyError
        A package that writes the format is not installed.
    DestinationExistsError
        The destination exists and `overwrite` is off, or something else lies there.
    StorageError
        The device is full or refuses to write; nothing is left behind.
    NotFoundError, UnknownFormatError, CorruptDataError
        The source cannot be read.

    Notes
    -----
    Memory: about a million events at a time and, of a store, 64 MiB of decoded blocks, some 130 MB in all, and 4 bytes
    per frame. The events are read twice where it is not known beforehand that no pixel holds several electrons of a
    frame. Files appear under their names when all of them are finished; a process that is killed leaves a hidden folder
    ``.….part-…`` beside them, which may be removed.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.export("scan_42.zarr", "scan_42.h5")  # doctest: +SKIP
    >>> stemstore.export("scan_42.mib", "scan_42.json", prefix="s3://bucket/raw")  # doctest: +SKIP
    """
    form = form_of(to, destination)
    if form is not None:
        known: dict[str, Any] = {"reader": reader, "flyback": flyback, "overwrite": overwrite, "prefix": prefix}
        return export_references(source, destination, form, **known, **options)
    started = time.perf_counter()
    target = _target(to, destination)
    if prefix is not None:
        msg = f"prefix={prefix!r} is for references, not for {target.name} files; leave it out"
        raise InputError(msg, key="prefix", found=prefix)
    files = target.files(local_destination(destination))
    check_apart(source, files[-1])
    opened = open_source_or_store(source, reader, **options)
    url, stored = addresses(source)[0], store_of(opened)
    if not isinstance(opened, EventSource):
        raise _dense(url, target)
    refuse_own(opened.metadata.files, files)
    hidden = 0 if flyback else opened.metadata.acquisition.flyback_columns
    shown = cast("EventSource", ShownColumns(opened, hidden)) if hidden else opened
    uuid = None if stored is None else stored.uuid
    scan = CountedScan(url, uuid, shown, np.zeros(0, np.uint32))
    target.check(scan)
    check_free(target, files, overwrite=overwrite)
    progress = progress or NoProgress()
    scan = replace(scan, most=_most(opened, shown, progress))
    with appearing(files, overwrite=overwrite) as places:
        n_events, notes = target.write(scan, places, progress)
    report = ExportReport(
        url=str(files[-1]),
        format=target.name,
        files=[str(path) for path in files],
        shape=(*shown.scan_shape, *shown.frame_shape),
        n_events=n_events,
        n_bytes=sum(path.stat().st_size for path in files),
        not_carried=losses(scan, target, stored),
        notes=notes,
        seconds=time.perf_counter() - started,
        warnings=list(opened.metadata.warnings),
    )
    log.info("wrote %s: %s in %.1f s", report.url, format_size(report.n_bytes), report.seconds)
    return report


def _target(name: str | None, destination: PathLike) -> Target:
    """Find the format by its name, or by the extension of the destination."""
    if name is not None:
        if name not in TARGETS:
            names = [*TARGETS, *NAMES]
            msg = f"to={name!r} is no format to export to; expected {' or '.join(map(repr, names))}"
            raise InputError(msg, key="to", found=name, expected=names)
        return TARGETS[name]
    extension = Path(os.fspath(destination)).suffix.lower()
    for target in TARGETS.values():
        if extension in target.extensions:
            return target
    endings = [(target.extensions, target.name) for target in TARGETS.values()]
    endings += [(form.extensions, form.name) for form in FORMS]
    known = "; ".join(f"{' or '.join(extensions)} for {name}" for extensions, name in endings)
    msg = f"the extension of {os.fspath(destination)!r} names no format to export to ({known}); pass to=…"
    raise InputError(msg, key="to", found=extension)


def _dense(url: str, target: Target) -> InputError:
    msg = (
        f"{url!r} holds frames, but {target.name} files hold electron events; count them first with "
        f"stemstore.convert({url!r}, 'counted.zarr', count=True), then export that store"
    )
    return InputError(msg, url=url)


def _most(opened: EventSource, shown: EventSource, progress: Progress) -> Array:
    """Electrons in the fullest pixel of every frame, from the store where it knows that none holds several."""
    if isinstance(opened, EventsOfStore) and opened.most_electrons == 1:
        return np.ones(math.prod(shown.scan_shape), np.uint32)
    return multiplicity(shown, progress)
