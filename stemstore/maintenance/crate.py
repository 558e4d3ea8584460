"""Telling other programs where a store and its results come from: as RO-Crate metadata, or as PROV-JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal, get_args

from stemstore.errors import DestinationExistsError, InputError, NotFoundError
from stemstore.maintenance.lineage import read_lineage
from stemstore.maintenance.prov_json import prov_document
from stemstore.maintenance.ro_crate import METADATA, crate_document
from stemstore.places.address import local_path
from stemstore.store.open import is_store
from stemstore.store.refusal import refused
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["ro-crate", "prov-json"]
NAMES = {"ro-crate": METADATA, "prov-json": "prov.json"}


def crate(
    store: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    format: Format = "ro-crate",  # noqa: A002  # what the command line calls it too
    licence: str | None = None,
    overwrite: bool = False,
) -> str:
    """Write where a store and its results come from, for programs that know nothing of stores.

    Parameters
    ----------
    store
        Path or URL of a finished store; nothing is written there.
    destination
        A folder of this machine, or the file: of an RO-Crate it is called ``ro-crate-metadata.json``. Best the folder
        that holds the store, as what lies below is named by its relative path, and all else by its URI.
    format
        ``"ro-crate"``: RO-Crate 1.1 by the profile Process Run Crate 0.5; ``"prov-json"``: W3C PROV.
    licence
        URI of the licence of the data, for an RO-Crate; without it the crate says that none was stated.
    overwrite
        Replace the file.

    Returns
    -------
    path
        The file that was written.

    Raises
    ------
    NotFoundError, UnknownFormatError, ConversionIncompleteError
        There is no finished store, or no such folder.
    CorruptDataError, FormatVersionError
        The store, or one of its results, cannot be read.
    InputError
        The destination lies in a store or is not on this machine, or the format is not known.
    DestinationExistsError
        The file exists and `overwrite` is off.
    StorageError
        The file cannot be written.

    Notes
    -----
    Both are written from the histories alone; no pixel is read, and no other program is needed.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.crate("scans/scan_42.zarr", "scans")  # doctest: +SKIP
    'scans/ro-crate-metadata.json'
    """
    target = _target(destination, format)
    body = _text(describe_crate(store, target.parent, format=format, licence=licence))
    if target.exists() and not overwrite:
        msg = f"'{target}' exists; choose another folder or pass overwrite=True (--overwrite)"
        raise DestinationExistsError(msg, url=str(target))
    aside = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        aside.write_text(body, encoding="utf-8", newline="\n")
        aside.replace(target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise refused(error, target, "write") from error
    return str(target)


def describe_crate(
    store: str | os.PathLike[str],
    folder: Path,
    *,
    format: Format = "ro-crate",  # noqa: A002
    licence: str | None = None,
) -> dict[str, Any]:
    """Make the document that `crate` writes.

    Parameters
    ----------
    store, format, licence
        As for `crate`.
    folder
        Where it will lie.

    Raises
    ------
    StemStoreError
        As for `crate`.
    """
    _check(format)
    if licence is not None and (format != "ro-crate" or ":" not in licence):
        msg = (
            f"licence {licence!r} cannot be used; give a URI such as https://spdx.org/licenses/CC-BY-4.0, for ro-crate"
        )
        raise InputError(msg, key="licence", found=licence)
    lineage = read_lineage(store)
    return prov_document(lineage) if format == "prov-json" else crate_document(lineage, folder.absolute(), licence)


def _check(format: str) -> None:  # noqa: A002
    if format not in get_args(Format):
        msg = f"format {format!r} is not known; choose 'ro-crate' or 'prov-json'"
        raise InputError(msg, key="format", found=format)


def _target(destination: str | os.PathLike[str], format: Format) -> Path:  # noqa: A002
    """Find the file to write."""
    _check(format)
    text = os.fspath(destination)
    if not is_local(text):
        msg = f"{text!r} is not on this machine; write the file locally and copy it"
        raise InputError(msg, url=text)
    path = local_path(text).absolute()
    target = path / NAMES[format] if path.is_dir() else path
    if not target.parent.is_dir():
        msg = f"folder '{target.parent}' does not exist; make it first"
        raise NotFoundError(msg, url=str(target.parent))
    if format == "ro-crate" and target.name != METADATA:
        msg = f"the metadata of an RO-Crate are called {METADATA!r}, got {target.name!r}; give the folder, made before"
        raise InputError(msg, found=target.name, expected=METADATA)
    if inside := [str(one) for one in target.parents if is_store(str(one))]:
        msg = f"'{inside[0]}' is a store, into which nothing foreign is written; choose the folder that holds it"
        raise InputError(msg, url=str(target))
    return target


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
