"""The job that writes virtual references: no pixel is copied."""

from __future__ import annotations

import logging
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemstore.config import format_size
from stemstore.errors import DestinationExistsError, ScanWarning
from stemstore.exchange import icechunk, kerchunk
from stemstore.exchange.place import appearing, appearing_folder, local_destination, refuse_own
from stemstore.exchange.reference_labels import coordinate_names, labels_of, plain
from stemstore.exchange.references import references_of
from stemstore.scan.addresses import addresses, check_apart
from stemstore.scan.open import open_scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from stemstore.exchange.references import References

log = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Form:
    """A form that references are written in.

    Attributes
    ----------
    name, extensions
        As in ``to="…"``, and extensions of a destination.
    folder
        Whether it is a folder of files.
    require
        Makes sure that what is needed is installed.
    write
        Writes the references to a place that is free.
    owned
        Whether what lies somewhere was written by `write` and may be replaced.
    """

    name: str
    extensions: tuple[str, ...]
    folder: bool
    require: Callable[[], None]
    write: Callable[[Path, References, xr.Dataset], None]
    owned: Callable[[Path], bool]


FORMS = (
    Form("kerchunk", (".json",), False, lambda: None, kerchunk.write_json, kerchunk.owns_json),
    Form(
        "kerchunk",
        (".parquet", ".parq"),
        True,
        kerchunk.require_parquet,
        kerchunk.write_parquet,
        kerchunk.owns_parquet,
    ),
    Form(
        "icechunk",
        (".icechunk",),
        True,
        icechunk.require_icechunk,
        icechunk.write_repository,
        icechunk.owns_repository,
    ),
)
"""The first one of a name is meant where the extension of a destination is none of its own."""

NAMES = tuple(dict.fromkeys(form.name for form in FORMS))


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """What an export of references did.

    Attributes
    ----------
    url
        The file or folder to open.
    format
        ``"kerchunk"`` or ``"icechunk"``.
    files
        URLs that are referred to.
    shape, chunk
        Scan axes, ky, kx; extents of what one reference leads to.
    n_references, n_missing
        Pieces of files, and pieces that no file has.
    n_bytes
        Size of the references.
    notes
        What a reader of them should know.
    seconds
        Wall time.
    warnings
        What is odd about the source.
    """

    url: str
    format: str
    files: list[str]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    n_references: int
    n_missing: int
    n_bytes: int
    notes: list[str]
    seconds: float
    warnings: list[str] = field(default_factory=list)


def form_of(name: str | None, destination: PathLike) -> Form | None:
    """Find a form by its name and the extension of the destination; None where something else is meant."""
    extension = Path(os.fspath(destination)).suffix.lower()
    fitting = [form for form in FORMS if name in (None, form.name)]
    named = fitting if name is not None else []
    return next((form for form in fitting if extension in form.extensions), named[0] if named else None)


def export_references(
    source: PathLike | Sequence[PathLike],
    destination: PathLike,
    form: Form,
    *,
    reader: str | None = None,
    flyback: bool = True,
    overwrite: bool = False,
    prefix: str | None = None,
    **options: Any,
) -> ReferenceReport:
    """Write references to the frames of a scan; parameters, errors and examples as of `stemstore.exchange.run.export`.

    Notes
    -----
    Memory: 24 bytes per piece that is referred to and, for Icechunk, objects for 50 000 pieces.
    """
    started = time.perf_counter()
    form.require()
    path = local_destination(destination)
    check_apart(source, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)  # they stand in the report
        dataset = open_scan(
            source if isinstance(source, (str, os.PathLike)) else list(source),
            reader=reader,
            flyback=flyback,
            **options,
        )
    image = dataset["intensity"]
    image = image.assign_attrs(plain(image.attrs), coordinates=coordinate_names(dataset))
    references = references_of(image, addresses(source)[0])
    _check_free(form, path, references, overwrite=overwrite)
    labels, references = labels_of(dataset, references), references.at(prefix)
    place = appearing_folder(path, overwrite=overwrite) if form.folder else appearing([path], overwrite=overwrite)
    with place as (target,):
        form.write(target, references, labels)
    report = ReferenceReport(
        url=str(path),
        format=form.name,
        files=references.used(),
        shape=image.shape,
        chunk=references.array.chunk,
        n_references=references.n_chunks,
        n_missing=references.n_missing,
        n_bytes=sum(file.stat().st_size for file in ([path, *path.rglob("*")]) if file.is_file()),
        notes=_notes(dataset, references, form),
        seconds=time.perf_counter() - started,
        warnings=list(dataset.attrs.get("warnings", [])),
    )
    log.info("wrote %s: %d references in %s", report.url, report.n_references, format_size(report.n_bytes))
    return report


def _check_free(form: Form, path: Path, references: References, *, overwrite: bool) -> None:
    """Refuse a place that is taken; only references that were exported earlier may be replaced."""
    taken = os.path.lexists(path)
    refuse_own(references.sources, [path])
    if taken and not overwrite:
        msg = f"'{path}' exists; choose another name or pass overwrite=True"
        raise DestinationExistsError(msg, url=str(path))
    if taken and (path.is_symlink() or not form.owned(path)):
        msg = f"'{path}' exists and was not exported from here, so it is not overwritten; remove it yourself"
        raise DestinationExistsError(msg, url=str(path))


def _notes(dataset: xr.Dataset, references: References, form: Form) -> list[str]:
    notes = []
    if references.n_missing:
        value = "NaN" if references.array.fill is not None else "zero (by zarr-python 2 as anything)"
        notes.append(f"{references.n_missing} pieces are in no file and read as {value}; valid says which")
    if references.rows_reversed:
        notes.append(
            "the files hold the last detector row first, and so do ky and ky_pixel; sortby('ky_pixel') turns it"
        )
    if references.array.suffix and form.name == "kerchunk":
        notes.append("the checksums of the store are left out; stemstore.validate looks at them")
    left = [name for name in dataset.data_vars if name != "intensity"]
    if left:
        notes.append(f"{', '.join(map(str, left))} of the detector are not written")
    if form.name == "icechunk":
        prefix = icechunk.container_prefix(references)
        notes.append(
            f"open the repository with authorize_virtual_chunk_access={{{prefix!r}: None}}, or credentials for None"
        )
    return notes
