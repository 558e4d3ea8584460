"""Whether the small objects of a finished store agree with each other, where no checksum of the commit covers them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, NotFoundError, StorageError
from stemstore.store.commit import COMMIT
from stemstore.store.metadata import DERIVED, ROOT, SAVED
from stemstore.store.objects import StoreObject, list_objects, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore.store.urls import Storage

_ZARR = 3
"""Version of the format."""

_INNER = "consolidated_metadata"
"""Key that the root of a store has, and other groups may have."""

_CONSOLIDATED = {"kind": "inline", "must_understand": False, "metadata": None}
"""What stands under that key, but for the nodes themselves."""

_OF_GROUP = {"zarr_format", "node_type", "attributes", _INNER}


def disagreements(storage: Storage, root: dict[str, Any], known: set[str]) -> Iterator[tuple[str, str]]:
    """Look at what the commit object does not vouch for: metadata of single arrays, calibration, saved results.

    Parameters
    ----------
    storage, root
        A finished store, and the content of its root ``zarr.json``.
    known
        Keys and arrays whose damage was told already.

    Yields
    ------
    key, message
        An object that is damaged or missing, or that says something else than the group above it.
    """
    try:
        objects = list_objects(storage, root)
    except (CorruptDataError, NotFoundError, StorageError) as error:
        yield str(error.context.get("key", ROOT)), str(error)
        return
    told = _told(storage, root, objects)
    for one in objects:
        if one.kind == "shard" or one.key in (ROOT, COMMIT) or {one.key, one.info and one.info.path} & known:
            continue
        try:
            body = read_object(storage, one)
            if one.kind == "metadata" and not _agrees(body, told.get(one.key)):
                message = f"'{storage.root}/{one.key}' is not what the group above it says; restore it from a copy"
                yield one.key, message
        except (CorruptDataError, NotFoundError, StorageError) as error:
            yield one.key, str(error)


def _told(storage: Storage, root: dict[str, Any], objects: list[StoreObject]) -> dict[str, Any]:
    """Collect what the roots of groups repeat of the metadata below them, by key."""
    told: dict[str, Any] = {}
    keys = [one.key for one in objects if one.kind == "metadata" and one.key.startswith((f"{SAVED}/", f"{DERIVED}/"))]
    for key in ["", *keys]:
        try:
            nodes = (json.loads(storage.get(key)) if key else root)[_INNER]["metadata"]
        except (ValueError, TypeError, KeyError, NotFoundError):
            continue
        told |= {f"{key.removesuffix(ROOT)}{name}/{ROOT}": node for name, node in nodes.items()}
    return told


def _agrees(body: bytes | None, told: Any) -> bool:
    """Whether metadata are those of a node of Zarr, and what was told of it, where it was."""
    try:
        found = json.loads(body or b"")
        if told is None:
            inner = found.get(_INNER) or _CONSOLIDATED
            same = {**inner, "metadata": None} == _CONSOLIDATED and isinstance(found["attributes"], dict)
            kind = (found["zarr_format"], found["node_type"])
            return same and found.keys() <= _OF_GROUP and kind == (_ZARR, "group")
        groups = ({key: value for key, value in node.items() if key != _INNER} for node in (found, told))
        return bool(next(groups) == next(groups))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
