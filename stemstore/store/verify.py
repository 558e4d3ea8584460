"""Reading a finished store again, byte for byte, against what its commit object says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.errors import CorruptDataError, NotFoundError, StorageError
from stemstore.progress import NoProgress, Progress
from stemstore.store.agreement import disagreements
from stemstore.store.codecs import object_checksum
from stemstore.store.commit import COMMIT, digest, read_commit, shards_digest
from stemstore.store.maps import read_map
from stemstore.store.metadata import ROOT, read_root
from stemstore.store.objects import listed_arrays
from stemstore.store.open import open_store
from stemstore.store.stream import ShardedArray

if TYPE_CHECKING:
    import os

    from stemstore.store.metadata import ArrayInfo
    from stemstore.store.urls import Storage


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store.

    Attributes
    ----------
    key
        Object or array that is concerned.
    message
        What is wrong with it.
    """

    key: str
    message: str


def verify_store(url: str | os.PathLike[str], *, progress: Progress | None = None) -> list[Problem]:
    """Read every object of a finished store and compare it with its checksums.

    Parameters
    ----------
    url
        The store.
    progress
        Told about every shard.

    Returns
    -------
    problems
        Empty when the store is as it was written. Metadata that were changed on purpose afterwards are reported too.

    Raises
    ------
    NotFoundError, UnknownFormatError, ConversionIncompleteError, FormatVersionError, CorruptDataError
        The store does not even open.
    """
    storage = open_store(url, check_digest=False).head.storage
    root = read_root(storage)
    arrays = listed_arrays(root)
    sharded = [info for info in arrays if info.shard is not None]
    problems = [problem for info in arrays if info.shard is None for problem in _check_small(storage, info)]
    shown: Progress = progress or NoProgress()
    keys = [key for info in sharded for key in storage.keys(f"{info.path}/c")]
    shown.start("verify", len(keys))
    checksums, n_bytes = {}, 0
    for key in keys:
        body = storage.get(key)
        checksums[key] = object_checksum([body])
        n_bytes += len(body)
        shown.advance()
    problems += _check_commit(storage, checksums, n_bytes)
    for info in sharded:
        problems += _check_shards(storage, info, keys)
    known = {problem.key for problem in problems}
    return problems + [Problem(key, message) for key, message in disagreements(storage, root, known)]


def _check_small(storage: Storage, info: ArrayInfo) -> list[Problem]:
    try:
        read_map(storage, info)
    except (CorruptDataError, NotFoundError, StorageError) as error:
        return [Problem(info.path, str(error))]
    return []


def _check_commit(storage: Storage, checksums: dict[str, int], n_bytes: int) -> list[Problem]:
    commit = read_commit(storage)
    if commit is None:
        return [Problem(COMMIT, "the commit object disappeared while the store was read")]
    expected = {
        "number of shards": (len(checksums), commit.n_shards),
        "bytes of all shards": (n_bytes, commit.n_bytes),
        "digest of the shard checksums": (shards_digest(checksums), commit.shards_digest),
        f"digest of {ROOT}": (digest(storage.get(ROOT)), commit.metadata_digest),
    }
    return [
        Problem(COMMIT, f"{what} is {found}, expected {stated}")
        for what, (found, stated) in expected.items()
        if found != stated
    ]


def _check_shards(storage: Storage, info: ArrayInfo, keys: list[str]) -> list[Problem]:
    """Decode all chunks of every shard of an array; one problem per damaged shard."""
    array = ShardedArray(storage, info, complete=True)
    there = set(keys)
    grid = [range(-(-n // s)) for n, s in zip(info.shape, info.shard or info.chunk, strict=True)]
    problems = []
    for place in itertools.product(*grid):
        key = info.key(place)
        if key not in there and any(place[1:]) and info.path.startswith("events/"):
            continue  # a further column that no block of this row needed
        try:
            array.stream([(place, number) for number in range(array.n_chunks)], lambda *_: None)
        except (CorruptDataError, NotFoundError, StorageError) as error:
            problems.append(Problem(key, str(error)))
    return problems
