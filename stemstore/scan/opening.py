"""Raw files or a finished store opened as a source of frames or events, whichever an address leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, NotFoundError, StorageError, UnknownFormatError
from stemstore.scan.addresses import addresses
from stemstore.scan.stored import source_of_store
from stemstore.sources.remote import place

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from stemstore.sources.contract import Source
    from stemstore.sources.registry import ReaderInfo
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.events import StoredEvents


def open_source_or_store(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], reader: str | None = None, **options: Any
) -> Source:
    """Open raw files or a finished store as frames or events; headers only.

    Parameters
    ----------
    url
        A store (path or URL), a raw file, a folder, or a list of files of one scan.
    reader
        Name of the format of raw data; found by content when left out.
    **options
        Of the reader; a store takes none.

    Raises
    ------
    InputError
        Options were given for a store.
    StemStoreError
        As for `stemstore.open`.
    """
    return open_named(url, reader, **options)[0]


def open_named(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], reader: str | None = None, **options: Any
) -> tuple[Source, ReaderInfo | None]:
    """Open like `open_source_or_store`, and tell which reader was found; None for a store."""
    from stemstore.sources.registry import find_reader, open_source, readers

    paths = addresses(url)
    scan = None if reader is not None else store_at(paths, options)
    if scan is not None:
        return source_of_store(scan), None
    given = paths[0] if len(paths) == 1 else paths
    name = reader or find_reader(given).name
    return open_source(given, reader=name, **options), readers()[name]


def store_at(
    paths: Sequence[str], options: Mapping[str, Any], *, allow_incomplete: bool = False
) -> StoredFrames | StoredEvents | None:
    """Open the store that is meant; None where raw data are.

    A URL is taken for a store first, which costs no request more; what is none may be a raw file.

    Raises
    ------
    InputError
        Options of a reader were given for a store.
    StemStoreError
        As for `stemstore.store.open.open_store`.
    """
    from stemstore.store.metadata import SERIES
    from stemstore.store.open import is_store, open_store
    from stemstore.store.urls import is_local

    if len(paths) != 1 or (is_local(paths[0]) and not is_store(paths[0])):
        return None
    try:
        scan = open_store(paths[0], allow_incomplete=allow_incomplete)
    except (NotFoundError, UnknownFormatError, StorageError) as error:
        if error.context.get("found") == SERIES:
            raise
        missing = isinstance(error, (NotFoundError, UnknownFormatError))
        if is_local(paths[0]) or not (missing or place(paths[0]).is_file()):  # some servers refuse to look below a file
            raise
        return None
    if options:
        msg = f"{paths[0]!r} is a store and takes no options {sorted(options)}; leave them out"
        raise InputError(msg, url=paths[0], found=sorted(options))
    return scan
