"""Groups attached to a finished store: its saved results and its calibration.

A store never changes after its commit; what is worked out later lies beside the scan in groups of its own, in
``calibration`` or below ``derived/``. The metadata of the store and its commit object do not mention them, so that they
stay as they were written. A group is plain Zarr of format 3 and is there whole or not at all: its ``zarr.json``, which
lists all its arrays, is the last object written, and no group opens without it.
"""

from __future__ import annotations

import json
import re
import uuid as uuids
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, DestinationExistsError, InputError, NotFoundError, StemStoreError
from stemstore.store.attached_array import AttachedArray, StoredArray, Target, array_info
from stemstore.store.metadata import PLACES, ROOT, group_objects, parse_array
from stemstore.store.series.holder import open_holder
from stemstore.store.urls import is_local, open_storage

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from stemstore.store.urls import Storage

_NAME = re.compile(r"(?!__)[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class GroupWriter:
    """A group that is being written.

    Made by `create_group`. Write the blocks of every array to its target, then `finish`, or `abort`.

    Attributes
    ----------
    targets
        Where the blocks of each array go, by name.
    """

    def __init__(self, storage: Storage, path: str, arrays: Mapping[str, AttachedArray], *, replace: bool) -> None:
        self._storage, self._path, self._replace = storage, path, replace
        self._whole = False
        parent = path.rpartition("/")[0]
        aside = f"{parent}/.part-{uuids.uuid4()}".lstrip("/")
        # objects of a server cannot be renamed; a new group is written in its place and does not open before its end
        self._place = aside if is_local(storage.root) or _holds(storage, path) else path
        self._infos = [array_info(check_name(key), array) for key, array in arrays.items()]
        self.targets = {
            info.path: Target(storage.root, array_info(f"{self._place}/{info.path}", arrays[info.path]))
            for info in self._infos
        }
        if self._place == path:
            storage.delete(path)  # what a killed writer left

    def finish(self, attributes: dict[str, Any]) -> None:
        """Make the group readable, in place of one of the same name where that was asked for.

        Parameters
        ----------
        attributes
            Of the group; JSON values.

        Raises
        ------
        DestinationExistsError
            A group of this name appeared meanwhile.
        InputError
            The attributes are not JSON.
        """
        check_json(attributes, self._path)
        objects = group_objects(attributes, self._infos)
        root = objects.pop(ROOT)
        for key, body in objects.items():
            self._storage.put(f"{self._place}/{key}", [body])
        parent = self._path.rpartition("/")[0]
        if parent and self._storage.size(f"{parent}/{ROOT}") is None:
            self._storage.put(f"{parent}/{ROOT}", [group_objects({}, [])[ROOT]])
        self._storage.put(f"{self._place}/{ROOT}", [root])
        if self._place != self._path:
            _check_free(self._storage, self._path, replace=self._replace)
            self._whole = True
            self._storage.move(self._place, self._path, ROOT)

    def abort(self) -> None:
        """Remove what was written; a group that was to be replaced stays.

        A group that was whole and failed to get its name is kept, because on a server the old one may be gone by then.
        """
        if not self._whole:
            self._storage.delete(self._place)


def create_group(
    url: str | os.PathLike[str], path: str, arrays: Mapping[str, AttachedArray], *, replace: bool
) -> GroupWriter:
    """Begin a group whose arrays are written block by block.

    Parameters
    ----------
    url
        A finished store, or a series.
    path
        ``calibration`` or ``derived/<name>``; names are made of letters, digits, ``_``, ``-`` and ``.``.
    arrays
        Arrays by name; of their values only ``shape`` and ``dtype`` are looked at.
    replace
        Whether a group of this name may be replaced; it stays until the new one is whole.

    Returns
    -------
    writer
        Has a target for every array.

    Raises
    ------
    InputError
        A name or a type of values cannot be stored.
    DestinationExistsError
        The group is there already, and `replace` is off.
    NotFoundError, UnknownFormatError, ConversionIncompleteError
        There is neither.
    """
    check_path(path)
    for name, array in arrays.items():
        check_json(array.attributes, f"{path}/{name}")
    storage = open_holder(url).storage
    _check_free(storage, path, replace=replace)
    return GroupWriter(storage, path, arrays, replace=replace)


def write_group(
    url: str | os.PathLike[str],
    path: str,
    arrays: Mapping[str, AttachedArray],
    attributes: dict[str, Any],
    *,
    replace: bool,
) -> None:
    """Write a group of arrays that are in memory; parameters and errors as for `create_group`."""
    check_json(attributes, path)
    _fill(create_group(url, path, arrays, replace=replace), arrays, attributes)


def put_group(storage: Storage, path: str, arrays: Mapping[str, AttachedArray], attributes: dict[str, Any]) -> None:
    """Write a group into a store that is not finished yet, in place of one that an interrupted call left there."""
    _fill(GroupWriter(storage, check_path(path), arrays, replace=True), arrays, attributes)


def _fill(writer: GroupWriter, arrays: Mapping[str, AttachedArray], attributes: dict[str, Any]) -> None:
    """Write all arrays of a group and finish it."""
    try:
        for name, target in writer.targets.items():
            target.write((0,) * len(target.info.shape), arrays[name].values)
        writer.finish(attributes)
    except BaseException:
        writer.abort()
        raise


def read_group(
    url: str | os.PathLike[str] | Storage, path: str
) -> tuple[dict[str, Any], dict[str, StoredArray]] | None:
    """Read what a group holds, in one request and without any value.

    Returns
    -------
    attributes, arrays
        Attributes of the group, and its arrays by name; None where there is no such group.

    Raises
    ------
    CorruptDataError
        The metadata of the group are damaged.
    """
    check_path(path)
    storage = open_storage(url)
    key = f"{path}/{ROOT}"
    stamp = storage.stamp(key)
    try:
        found = json.loads(storage.get(key))
        nodes = found["consolidated_metadata"]["metadata"]
        infos = {name: parse_array(f"{path}/{name}", node) for name, node in nodes.items()}
        attributes = dict(found.get("attributes", {}))
    except NotFoundError:
        return None
    except StemStoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"'{storage.root}/{key}' is damaged ({error!r}); restore it from a copy or save the group again"
        raise CorruptDataError(msg, url=storage.root, key=path) from error
    return attributes, {name: StoredArray(storage.root, info, stamp) for name, info in infos.items()}


def list_groups(url: str | os.PathLike[str] | Storage, parent: str) -> list[str]:
    """Names of the finished groups directly below `parent`, sorted."""
    storage = open_storage(url)
    names = [name for name in storage.children(check_path(parent)) if _NAME.fullmatch(name)]
    tails = storage.tails([f"{parent}/{name}/{ROOT}" for name in names], 1)
    return [name for name, tail in zip(names, tails, strict=True) if tail is not None]


def check_name(name: str) -> str:
    """Give a name back that can be part of a path.

    Raises
    ------
    InputError
        It has other characters than letters, digits, ``_``, ``-`` and ``.``, or means something else to Zarr.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == ROOT:
        msg = (
            f"name {name!r} cannot be stored; begin with a letter, a digit or one '_', go on with these, '-' and '.', "
            "128 characters at most"
        )
        raise InputError(msg, found=name)
    return name


def check_path(path: str) -> str:
    """Give a path back below which something may be attached; `InputError` otherwise."""
    first, *further = path.split("/")
    if first not in PLACES:
        msg = f"nothing can be attached at '{path}'; expected a path below one of {', '.join(PLACES)}"
        raise InputError(msg, found=path, expected=PLACES)
    for name in further:
        check_name(name)
    return path


def check_json(attributes: dict[str, Any], where: str) -> None:
    """Make sure that attributes can be written as JSON.

    Raises
    ------
    InputError
        A value is neither text, number, bool, None nor a list or dict of these, or is NaN or infinite.
    """
    for key, value in attributes.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            msg = f"attribute {key!r} of '{where}' cannot be JSON ({error}); give text, finite numbers or lists of them"
            raise InputError(msg, key=key) from error


def _holds(storage: Storage, path: str) -> bool:
    return storage.size(f"{path}/{ROOT}") is not None


def _check_free(storage: Storage, path: str, *, replace: bool) -> None:
    if not replace and _holds(storage, path):
        msg = f"'{storage.root}/{path}' exists; choose another name or pass overwrite=True"
        raise DestinationExistsError(msg, url=storage.root, key=path)
