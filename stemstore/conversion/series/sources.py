"""Which raw scans are meant by a folder, a pattern or a list, and what each of them is made of."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, NotFoundError, StemStoreError
from stemstore.scan.addresses import addresses
from stemstore.scan.calibration import Calibration
from stemstore.scan.opening import open_source_or_store
from stemstore.scan.series.members import label, refuse_namesakes
from stemstore.sources.files import expand, list_folder
from stemstore.sources.registry import explain
from stemstore.sources.remote import place
from stemstore.store.metadata import PLACES
from stemstore.store.open import is_store
from stemstore.store.series.index import child_url, is_series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore_schemas import SourceFile

_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
LONGEST_NAME = 128

Key = tuple[Any, ...]
"""What tells a file apart wherever it lies: its name, size and time; of a store its identity."""


@dataclass(frozen=True, slots=True)
class RawScan:
    """A scan that is to become part of a series.

    Attributes
    ----------
    name
        Its name there, and that of its store.
    source
        Path, URL or several files, as `stemstore.convert` takes them.
    title
        What it was called, where that cannot be a name.
    files
        What it is made of; empty where it could not be opened, which its conversion tells.
    """

    name: str
    source: Any
    title: str | None = None
    files: list[SourceFile] = field(default_factory=list)

    @property
    def keys(self) -> frozenset[Key]:
        """Its files, wherever they lie."""
        return keys_of(self.files)


def keys_of(files: Iterable[SourceFile]) -> frozenset[Key]:
    """Tell files apart wherever they lie."""
    return frozenset(
        (file.uuid,)
        if file.uuid is not None
        else (file.path.replace("\\", "/").rpartition("/")[2], file.size, file.mtime)
        for file in files
    )


def places_of(files: Iterable[SourceFile]) -> frozenset[Key]:
    """Tell files apart by where they lie as well; an empty set tells nothing."""
    return frozenset((file.uuid,) if file.uuid is not None else (file.path, file.size, file.mtime) for file in files)


def raw_scans(sources: Any, options: Mapping[str, Any]) -> tuple[list[RawScan], list[str]]:
    """Find the scans that are meant, in natural order of their names or in the order of a list.

    Parameters
    ----------
    sources
        A folder whose entries are scans, a pattern, a list of scans or a mapping from names to scans.
    options
        Of `stemstore.convert`: the reader and its options are used to look at the scans.

    Returns
    -------
    scans, skipped
        The scans, and the entries of a folder that no reader recognises.

    Raises
    ------
    NotFoundError
        There is nothing, or no scan in it.
    InputError
        Two scans would have the same name, or are the same files.
    """
    opening = _opening(options)
    skipped: list[str] = []
    if isinstance(sources, Mapping):
        given = [(str(name), source) for name, source in sources.items()]
    elif isinstance(sources, (str, os.PathLike)):
        entries, skipped = _entries(addresses(sources)[0], options.get("reader"))
        given = [(label(entry), entry) for entry in entries]
    elif isinstance(sources, Iterable):
        given = [(label(source), source) for source in sources]
    else:
        msg = f"scans are a folder, a list or a mapping from names, not {type(sources).__name__}"
        raise InputError(msg, found=type(sources).__name__)
    if not given:
        msg = "no scans are named; give a folder, a pattern, a list or a mapping from names"
        raise InputError(msg)
    scans = [_described(name, source, opening) for name, source in given]
    if isinstance(sources, (str, os.PathLike)):
        scans = without_companions(scans)
    refuse_twins(scans)
    return scans, skipped


def slug(text: str) -> str:
    """Make of any text a name that a store may have inside of a series."""
    name = _OTHER.sub("_", text).lstrip(".-")[:LONGEST_NAME]
    name = re.sub(r"^__+", "_", name) or "scan"
    return f"{name}_scan" if name in (*PLACES, "zarr.json") else name


def refuse_twins(scans: Sequence[RawScan]) -> None:
    """Refuse scans of one name, and a scan that is named twice.

    Raises
    ------
    InputError
        There are such.
    """
    refuse_namesakes((scan.name, scan.source) for scan in scans)
    made: dict[frozenset[Key], RawScan] = {}
    for scan in scans:
        twin = made.setdefault(places_of(scan.files), scan) if scan.files else scan
        if twin is not scan:
            msg = f"scans {twin.name!r} and {scan.name!r} are made of the same files; leave one out"
            raise InputError(msg, scan=scan.name, found=twin.name)


def _opening(options: Mapping[str, Any]) -> dict[str, Any]:
    """Take from the options of a conversion those with which its source is opened."""
    from stemstore.conversion.run import convert

    _, others = Calibration.split(dict(options))
    named = inspect.signature(convert).parameters
    return {name: value for name, value in others.items() if name not in named or name == "reader"}


def _entries(url: str, reader: str | None) -> tuple[list[str], list[str]]:
    """Find the scans in a folder, or what a pattern matches, and what is none."""
    found = expand(url)
    if len(found) > 1 or not found[0].is_dir():
        return [str(path) for path in found], []
    names = [path.name for path in list_folder(place(url)) if not path.name.startswith(".")]
    entries = [child_url(url, name) for name in names]
    known = [entry for entry in entries if _recognised(entry, reader)]
    if reader is not None and not known:  # formats without any mark are never recognised
        known = entries
    if not known:
        msg = f"no reader recognises an entry of '{url}' as a scan; name the format with reader=…, or list the scans"
        raise NotFoundError(msg, url=url, found=names)
    return known, [entry for entry in entries if entry not in known]


def _recognised(entry: str, reader: str | None) -> bool:
    if reader is None and is_store(entry):
        return not is_series(entry)  # such as the destination, where it lies in the folder itself
    claims = [claim for claim in explain(entry) if reader in (None, claim.reader)]
    return any(claim.confidence > 0 for claim in claims)


def _described(name: str, source: Any, opening: Mapping[str, Any]) -> RawScan:
    """Open a source to see what it is made of; one that does not open is left to its conversion."""
    clean = slug(name)
    try:
        files = list(open_source_or_store(source, **opening).metadata.files)
    except (StemStoreError, OSError):
        files = []
    return RawScan(clean, source, None if clean == name else name, files)


def without_companions(scans: list[RawScan]) -> list[RawScan]:
    """Leave out entries of a folder whose files are all part of another scan: sectors, data behind a master file."""
    kept: list[RawScan] = []
    places = [places_of(scan.files) for scan in scans]
    for number, (scan, mine) in enumerate(zip(scans, places, strict=True)):
        others = [
            theirs for other, theirs in enumerate(places) if (theirs > mine) or (theirs == mine and other < number)
        ]
        if not mine or not others:
            kept.append(scan)
    return kept
