"""Every object of a finished store, listed from its metadata, and the check that one is as it was written.

Nothing is decoded: chunks and indices of shards end in checksums of their own. What lies in the folder of a store and
is named nowhere (the journal, what killed writers left, files of other programs) is no part of it.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import ChecksumError, CorruptDataError, NotFoundError
from stemstore.places.address import is_web
from stemstore.store.attached import list_groups
from stemstore.store.codecs import CRC_BYTES, object_checksum, verify
from stemstore.store.commit import COMMIT, shards_digest
from stemstore.store.metadata import CALIBRATION, DERIVED, ROOT, SAVED, parse_array
from stemstore.store.shards import ABSENT, decode_index, index_bytes
from stemstore.store.zipped import is_packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore.store.metadata import ArrayInfo
    from stemstore.store.urls import Storage
    from stemstore_schemas import CommitDocument

Kind = Literal["shard", "chunk", "metadata"]


@dataclass(frozen=True, slots=True)
class StoreObject:
    """One object of a store.

    Attributes
    ----------
    key
        Its name.
    kind
        ``"shard"``, ``"chunk"`` of a small array, or ``"metadata"``.
    info
        The array that it belongs to; None for metadata.
    optional
        Whether it may lack: a further column of events that no block of its row needed.
    """

    key: str
    kind: Kind
    info: ArrayInfo | None = None
    optional: bool = False

    @property
    def counted(self) -> bool:
        """Whether its checksum is in the table that the commit object vouches for."""
        return self.kind == "shard"


def list_objects(storage: Storage, root: dict[str, Any]) -> list[StoreObject]:
    """List the objects of a finished store: data first, then metadata; the commit object is the last.

    Parameters
    ----------
    storage
        The store.
    root
        Content of its root ``zarr.json``.

    Raises
    ------
    CorruptDataError
        The metadata of the store or of a group beside its scan are damaged, or name objects outside of it.

    Notes
    -----
    Saved results are found by listing `derived`, which plain web servers cannot: there they are not seen.
    """
    found = [*_nodes("", root)]
    groups = [SAVED, *(f"{DERIVED}/{name}" for name in list_groups(storage, DERIVED))]
    for path in groups:
        if storage.size(f"{path}/{ROOT}") is not None:
            found += _nodes(path, _group(storage, path))
    known = {one.key for one in found}
    parents = [f"{name}/{ROOT}" for name in (CALIBRATION, DERIVED)]
    found += [StoreObject(key, "metadata") for key in parents if key not in known and storage.size(key) is not None]
    for one in found:
        _check_key(one.key, storage.root)
    found.sort(key=lambda one: (one.kind == "metadata", one.kind == "chunk", one.key == ROOT))
    return [*found, StoreObject(COMMIT, "metadata")]


def unseen(url: str) -> list[str]:
    """Warn of what `list_objects` cannot find in a place, where there is any such thing."""
    if not is_web(url) or is_packed(url):
        return []
    return [f"'{url}' is on a web server, which lists nothing: saved results were not looked for"]


def listed_arrays(root: dict[str, Any]) -> list[ArrayInfo]:
    """Describe all arrays that the root of a finished store lists, sorted by path."""
    nodes = (root.get("consolidated_metadata") or {}).get("metadata", {})
    return [parse_array(path, node) for path, node in sorted(nodes.items()) if node.get("node_type") == "array"]


def _check_key(key: str, url: str) -> None:
    """Refuse names that lead out of the store."""
    parts = key.split("/")
    if "\\" in key or "\0" in key or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        msg = f"the metadata of '{url}' name an object {key!r}, which is no key of a store; restore {ROOT} from a copy"
        raise CorruptDataError(msg, url=url, key=key)


def _nodes(path: str, root: dict[str, Any]) -> Iterator[StoreObject]:
    """List the objects of a group that its consolidated metadata name, and those metadata."""
    start = f"{path}/" if path else ""
    nodes = (root.get("consolidated_metadata") or {}).get("metadata", {})
    infos = [parse_array(f"{start}{name}", node) for name, node in nodes.items() if node.get("node_type") == "array"]
    for info in infos if path else listed_arrays(root):
        yield from _pieces(info)
    for name in nodes:
        yield StoreObject(f"{start}{name}/{ROOT}", "metadata")
    yield StoreObject(f"{start}{ROOT}", "metadata")


def _pieces(info: ArrayInfo) -> Iterator[StoreObject]:
    extents = info.shard or info.chunk
    kind: Kind = "chunk" if info.shard is None else "shard"
    events = kind == "shard" and info.path.startswith("events/")
    for place in itertools.product(*(range(-(-n // s)) for n, s in zip(info.shape, extents, strict=True))):
        yield StoreObject(info.key(place), kind, info, optional=events and any(place[1:]))


def _group(storage: Storage, path: str) -> dict[str, Any]:
    key = f"{path}/{ROOT}"
    body = storage.get(key)
    try:
        found = json.loads(body)
        if isinstance(found["consolidated_metadata"]["metadata"], dict):
            return dict(found)
        reason = "no list of arrays"
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = repr(error)
    msg = f"'{storage.root}/{key}' is damaged ({reason}); restore it from a copy, or remove the group"
    raise CorruptDataError(msg, url=storage.root, key=key)


def read_object(storage: Storage, one: StoreObject) -> bytes | None:
    """Read an object and check it; None where an optional one lacks.

    Raises
    ------
    NotFoundError, CorruptDataError, ChecksumError
        It is missing or damaged; the message names it.
    """
    try:
        body = storage.get(one.key)
    except NotFoundError:
        if one.optional:
            return None
        raise
    check_object(one, body, f"{storage.root}/{one.key}")
    return body


def check_object(one: StoreObject, body: bytes, where: str) -> None:
    """Compare the chunks in an object with their checksums.

    Raises
    ------
    CorruptDataError, ChecksumError
        A chunk is not as it was written, or the object was cut.
    """
    if one.info is None:
        return
    values = np.frombuffer(body, np.uint8)
    if one.info.shard is None:
        if len(values) <= CRC_BYTES:
            msg = f"'{where}' has {len(values)} bytes, no chunk is so short; restore it from a copy"
            raise CorruptDataError(msg, key=where, found=len(values))
        verify(values[:-CRC_BYTES], _stored(values), f"'{where}'")
        return
    n_chunks = 1
    for shard, chunk in zip(one.info.shard, one.info.chunk, strict=True):
        n_chunks *= shard // chunk
    tail = index_bytes(n_chunks)
    index = decode_index(body[-tail:], n_chunks, where)
    for number, (start, length) in enumerate(index.tolist()):
        if start == ABSENT:
            continue
        if length < CRC_BYTES or start + length > len(values) - tail:
            msg = f"the index of shard '{where}' places chunk {number} outside of it; restore it from a copy"
            raise CorruptDataError(msg, key=where, chunk=number)
        part = values[start : start + length]
        verify(part[:-CRC_BYTES], _stored(part), f"chunk {number} of shard '{where}'")


def _stored(values: Any) -> int:
    return int.from_bytes(values[-CRC_BYTES:].tobytes(), "little")


class Tally:
    """Shards of a store as they were read, to be compared with what its commit object says.

    Parameters
    ----------
    url
        The store, for messages.
    commit
        Its commit object.
    """

    def __init__(self, url: str, commit: CommitDocument) -> None:
        self._url, self._commit = url, commit
        self._checksums: dict[str, int] = {}

    def add(self, one: StoreObject, body: bytes) -> None:
        """Take note of a shard; nothing happens for other objects. Safe for threads."""
        if one.counted:
            self._checksums[one.key] = object_checksum([body])

    def check(self) -> None:
        """Compare all shards with the commit object.

        Raises
        ------
        ChecksumError
            They are not those that were written, though each of them is sound: exchanged, or of another store.
        """
        found, expected = shards_digest(self._checksums), self._commit.shards_digest
        if found != expected:
            msg = (
                f"the shards of '{self._url}' are sound, but not those that were written: {len(self._checksums)} with "
                f"the digest {found}, expected {self._commit.n_shards} with {expected}; some were exchanged or are "
                "missing, so restore the store from a copy or convert the scan again"
            )
            raise ChecksumError(msg, url=self._url, found=found, expected=expected)
