"""Is a store what it claims to be? Structure, metadata, calibration and results; on request every byte."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stemstore.errors import (
    ChecksumError,
    ChunkingError,
    ConversionIncompleteError,
    CorruptDataError,
    FormatVersionError,
    InputError,
    NotFoundError,
    StorageError,
    UnknownFormatError,
)
from stemstore.maintenance.advice import advise
from stemstore.store.calibration import MAPS, read_calibration
from stemstore.store.commit import COMMIT, digest, read_commit
from stemstore.store.journal import EDIT
from stemstore.store.maps import read_map
from stemstore.store.metadata import DERIVED, GAP, N_SLOTS, ROOT, SUMMARY, VALID, read_root
from stemstore.store.objects import listed_arrays
from stemstore.store.open import open_store
from stemstore.store.verify import verify_store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from stemstore._types import Array
    from stemstore.progress import Progress
    from stemstore.store.metadata import ArrayInfo
    from stemstore.store.open import StoredScan

Severity = Literal["error", "warning"]
Profile = Literal["core", "web"]

TOTAL, BINNED = f"{SUMMARY}/total", f"{SUMMARY}/binned"
LARGEST_WEB_CHUNK = 16 * 2**20  # bytes that a browser decodes at once without a visible pause
LARGEST_WEB_INDEX = 2**20  # bytes of a shard index, which is the second request of every look at a store


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    severity
        ``"error"``: the store is not what it claims to be. ``"warning"``: it is, but something is missing or doubtful.
    key
        Object, array or field that is concerned.
    message
        What is wrong with it, and what to do.
    """

    severity: Severity
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found.

    Attributes
    ----------
    url
        The store.
    deep
        Whether every byte was read.
    profile
        What else was asked for.
    findings
        Errors first.
    """

    url: str
    deep: bool
    profile: Profile
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """Findings that make the store invalid."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that do not."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def valid(self) -> bool:
        """Whether there are no errors."""
        return not self.errors


def validate(
    store: str | os.PathLike[str],
    *,
    deep: bool = False,
    profile: Profile = "core",
    progress: Progress | None = None,
) -> Validation:
    """Check that a store is whole and that what it says fits together.

    Parameters
    ----------
    store
        Path or URL.
    deep
        Read every shard and compare it with its checksums; without it no pixel is read, only names, sizes, metadata
        and small arrays.
    profile
        ``"core"``, or ``"web"``: also whether browsers and other readers of Zarr get on with it.
    progress
        Told about every shard that is read.

    Returns
    -------
    validation
        Errors and warnings.

    Raises
    ------
    NotFoundError, UnknownFormatError
        There is no store.
    InputError
        The profile is not known.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.validate("scan_42.zarr", deep=True).valid  # doctest: +SKIP
    """
    if profile not in ("core", "web"):
        msg = f"profile {profile!r} is not known; choose 'core' or 'web'"
        raise InputError(msg, key="profile", found=profile)
    findings: list[Finding] = []
    try:
        scan = open_store(store, check_digest=False)
    except (ConversionIncompleteError, CorruptDataError, FormatVersionError, ChunkingError) as error:
        return Validation(str(store), deep, profile, [Finding("error", ROOT, str(error))])
    try:
        findings.extend(_findings(scan, profile))
        if deep:
            known = {finding.key for finding in findings}
            broken = verify_store(store, progress=progress)
            findings += [Finding("error", one.key, one.message) for one in broken if one.key not in known]
    except (CorruptDataError, NotFoundError, UnknownFormatError, FormatVersionError, ChunkingError) as error:
        findings.append(Finding("error", ROOT, str(error)))  # metadata that lead nowhere: there is no going on
    findings.sort(key=lambda finding: finding.severity)  # "error" comes before "warning"
    return Validation(scan.head.url, deep, profile, findings)


def _findings(scan: StoredScan, profile: Profile) -> Iterator[Finding]:
    arrays = {info.path: info for info in listed_arrays(read_root(scan.head.storage))}
    yield from _objects(scan, arrays)
    small = {}
    for info in arrays.values():
        if info.shard is None:
            try:
                small[info.path] = read_map(scan.head.storage, info)
            except (CorruptDataError, StorageError) as error:
                yield Finding("error", info.path, str(error))
    if scan.head.storage.size(EDIT) is not None:
        yield Finding("warning", EDIT, "a change of the metadata was interrupted; 'stemstore edit STORE' finishes it")
    yield from _agreement(scan, small)
    yield from _calibration(scan)
    yield from _results(scan)
    if profile == "web":
        yield from _web(scan, arrays)
    for key, message in advise(scan.document):
        yield Finding("warning", key, message)


def _objects(scan: StoredScan, arrays: dict[str, ArrayInfo]) -> Iterator[Finding]:
    """Compare names and sizes of the shards, and the metadata, with the commit object."""
    storage = scan.head.storage
    commit = read_commit(storage)
    if commit is None:
        yield Finding("error", COMMIT, "the commit object disappeared while the store was looked at")
        return
    stated = {f"digest of {ROOT}": (digest(storage.get(ROOT)), commit.metadata_digest)}
    keys = [key for info in arrays.values() if info.shard is not None for key in storage.keys(f"{info.path}/c")]
    stated["number of shards"] = (str(len(keys)), str(commit.n_shards))
    stated["bytes of all shards"] = (str(sum(storage.size(key) or 0 for key in keys)), str(commit.n_bytes))
    for what, (found, expected) in stated.items():
        if found != expected:
            yield Finding("error", COMMIT, f"the {what} is {found}, the commit object says {expected}")
    there = set(keys)
    for info in arrays.values():
        if info.shard is None:
            continue
        rows = [range(-(-n // s)) for n, s in zip(info.shape, info.shard, strict=True)]
        if info.path.startswith("events/"):
            rows[1] = range(1)  # further columns exist only where a block has so many events
        for place in itertools.product(*rows):
            if info.key(place) not in there:
                yield Finding("error", info.key(place), "the shard is missing; restore it from a copy or convert again")


def _agreement(scan: StoredScan, small: dict[str, Array]) -> Iterator[Finding]:
    """Compare the small arrays with the document."""
    document = scan.document
    for axis in document.axes:
        if axis.name in small and not np.array_equal(small[axis.name], axis.coordinates()):
            yield Finding("error", axis.name, "the coordinates are not those that the document describes")
    states = np.bincount(small[VALID].reshape(-1), minlength=3) if VALID in small else None
    counts = document.frames
    told = (counts.missing, counts.partial, counts.valid)
    if states is not None and tuple(states.tolist()) != told:
        message = f"{states.tolist()} frames are missing, partial and valid, the document says {list(told)}"
        yield Finding("error", VALID, message)
    if states is None and counts.valid != math.prod(document.shape[:-2]):
        yield Finding("error", VALID, f"the document knows {counts.valid} valid frames, but no states are stored")
    n_events = None if document.counting is None else document.counting.n_events
    if n_events is not None and TOTAL in small and int(small[TOTAL].sum()) != n_events:
        message = f"the images of the summary hold {int(small[TOTAL].sum())} electrons, the document says {n_events}"
        yield Finding("error", TOTAL, message)
    if N_SLOTS in small and TOTAL in small and (small[N_SLOTS] < small[TOTAL]).any():
        yield Finding("error", N_SLOTS, "some frames have fewer slots than electrons")


def _calibration(scan: StoredScan) -> Iterator[Finding]:
    try:
        saved = read_calibration(scan)
    except (CorruptDataError, FormatVersionError, StorageError) as error:
        yield Finding("error", "calibration", str(error))
        return
    for name, array in saved.arrays.items():
        expected = scan.scan_shape if name in MAPS else scan.shape[-2:]
        if tuple(array.shape) != tuple(expected):
            yield Finding("error", f"calibration/{name}", f"its shape is {array.shape}, that of the scan {expected}")
            continue
        values = np.asarray(array[...])
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            yield Finding("error", f"calibration/{name}", "it has no finite value; save the calibration again")


def _results(scan: StoredScan) -> Iterator[Finding]:
    from stemstore.ops.saved.results import results

    try:
        listed = results(scan.head.url)
    except ChecksumError:
        return  # of the metadata, which was told
    for name, saved in listed.items():
        if saved.problem is not None:
            yield Finding("error", f"{DERIVED}/{name}", saved.problem)
    for name in scan.head.storage.children(DERIVED):
        if name.startswith("."):
            yield Finding("warning", f"{DERIVED}/{name}", "a killed process left it behind; it may be removed")


def _web(scan: StoredScan, arrays: dict[str, ArrayInfo]) -> Iterator[Finding]:
    """Look for what makes a store slow or unreadable in a browser."""
    if not read_root(scan.head.storage).get("consolidated_metadata"):
        yield Finding("error", ROOT, "there are no consolidated metadata, so that every array costs a request")
    if BINNED not in arrays:
        yield Finding("error", BINNED, "there are no coarse frames for browsing; convert the scan again")
    for info in arrays.values():
        size = math.prod(info.chunk) * info.dtype.itemsize
        if size > LARGEST_WEB_CHUNK and info.path != GAP:
            message = f"a chunk has {size / 2**20:.3g} MiB, more than the {LARGEST_WEB_CHUNK // 2**20} of a quick look"
            yield Finding("error", info.path, message)
        if info.shard is not None:
            index = 16 * math.prod(s // c for s, c in zip(info.shard, info.chunk, strict=True))
            if index > LARGEST_WEB_INDEX:
                yield Finding("error", info.path, f"the index of a shard has {index} bytes; use larger chunks")
