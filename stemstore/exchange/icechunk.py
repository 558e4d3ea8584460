"""References as the first snapshot of an Icechunk repository, Zarr format 3."""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np

from stemstore.errors import InputError, OptionalDependencyError
from stemstore.exchange.reference_labels import MARK
from stemstore.places.address import local_path
from stemstore.sources.frame_extents import NOWHERE
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import xarray as xr

    from stemstore.exchange.references import References

BRANCH = "main"

BATCH = 50_000
"""References that are handed over at once; each is an object of Python until then."""


def write_repository(folder: Path, references: References, labels: xr.Dataset) -> None:
    """Write a repository with one commit.

    Of files that are where they will be read, Icechunk keeps the time of their last change, and refuses to read what
    was changed later.

    Parameters
    ----------
    folder
        Of the repository.
    references, labels
        Chunks in files that are named by their URLs, and what stands beside them.

    Raises
    ------
    InputError
        A URL is not absolute, or of a kind that Icechunk does not read.
    """
    import icechunk

    locations = [_location(file) for file in references.files]
    prefix = container_prefix(references)
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, _store_of(prefix)))
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)), config=config)
    session = repository.writable_session(BRANCH)
    labels.to_zarr(session.store, zarr_format=3, consolidated=False)
    references.array.declare(session.store)
    for batch in _specs(references, locations):
        refused = session.store.set_virtual_refs(references.array.name, batch)
        if refused:
            msg = f"icechunk takes no reference to {batch[0].location!r}; export the references to 'kerchunk'"
            raise InputError(msg, url=batch[0].location)
    session.commit(f"references to {references.n_chunks} pieces of files")


def require_icechunk() -> None:
    """Make sure that repositories can be written.

    Raises
    ------
    OptionalDependencyError
        The package icechunk is not installed.
    """
    if importlib.util.find_spec("icechunk") is None:
        msg = 'repositories of Icechunk need the package icechunk; pip install "stemstore[icechunk]", or write a .json'
        raise OptionalDependencyError(msg, package="icechunk")


def owns_repository(folder: Path) -> bool:
    """Whether a folder is a repository that was exported from here."""
    if not (folder / "snapshots").is_dir():
        return False
    import icechunk
    import xarray as xr

    try:
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder)))
        if len(list(islice(repository.ancestry(branch=BRANCH), 3))) > 2:  # noqa: PLR2004  # the empty one, and ours
            return False
        store = repository.readonly_session(BRANCH).store
        return MARK in xr.open_zarr(store, consolidated=False, chunks=None).attrs
    except (icechunk.IcechunkError, OSError, ValueError, KeyError):
        return False


def container_prefix(references: References) -> str:
    """Give the URL below which all files lie, by which users allow the reading of them.

    Icechunk compares it with quoted URLs as it stands, so it ends before the first part that has to be quoted.
    """
    parts = _location(references.base).rstrip("/").split("/")
    plain = next((at for at, part in enumerate(parts) if "%" in part), len(parts))
    return "/".join([*parts[:plain], ""])


def _location(link: str) -> str:
    """Quote a URL as Icechunk wants it."""
    scheme, mark, rest = link.partition("://")
    if not mark:
        msg = f"icechunk reads absolute URLs only, not {link!r}; pass prefix='file:///…' or the URL of a server"
        raise InputError(msg, key="prefix", found=link)
    return f"{scheme}://{quote(rest)}"


def _store_of(prefix: str) -> Any:
    import icechunk

    parts = urlsplit(prefix)
    if parts.scheme == "file":
        return icechunk.local_filesystem_store(parts.path)
    makers: dict[str, Callable[[], Any]] = {
        "s3": icechunk.s3_store,
        "gs": icechunk.gcs_store,
        "gcs": icechunk.gcs_store,
        "http": icechunk.http_store,
        "https": icechunk.http_store,
    }
    if parts.scheme not in makers:
        msg = f"icechunk reads files, http, s3 and gs, not {parts.scheme!r}; export the references to 'kerchunk'"
        raise InputError(msg, key="prefix", found=prefix)
    return makers[parts.scheme]()


def _specs(references: References, locations: list[str]) -> Iterator[list[Any]]:
    """Describe the chunks that are there, so many at a time."""
    import icechunk

    changed = [_changed(file) for file in references.files]
    number, offset, length = (x.reshape(-1) for x in (references.number, references.offset, references.length))
    there = np.flatnonzero(offset != NOWHERE)
    for start in range(0, len(there), BATCH):
        part = there[start : start + BATCH]
        places = np.stack(np.unravel_index(part, references.offset.shape), axis=1).tolist()
        columns = zip(places, number[part].tolist(), offset[part].tolist(), length[part].tolist(), strict=True)
        yield [
            icechunk.VirtualChunkSpec(place, locations[file], first, n_bytes, last_updated_at_checksum=changed[file])
            for place, file, first, n_bytes in columns
        ]


def _changed(url: str) -> dt.datetime | None:
    """Time of the last change of a file of this machine, up to the next second; None where it is not there."""
    path = local_path(url) if is_local(url) else None
    return dt.datetime.fromtimestamp(math.ceil(path.stat().st_mtime), dt.UTC) if path and path.is_file() else None
