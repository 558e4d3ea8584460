"""Turning a complete set of partitions into a finished store."""

from __future__ import annotations

import glob
import logging
import shutil
import uuid as uuids
from typing import TYPE_CHECKING, Any

from stemstore.errors import ConversionIncompleteError, DestinationExistsError, StorageError
from stemstore.places.address import local_path
from stemstore.store.commit import COMMIT, read_commit, write_commit
from stemstore.store.event_columns import column_infos
from stemstore.store.journal import JOURNAL, PLAN_NAME, VALID_FRAME, finished
from stemstore.store.layout import CountedLayout, Layout
from stemstore.store.local import sync_folder
from stemstore.store.maps import map_info, write_map
from stemstore.store.metadata import N_SLOTS, ROOT, VALID, ArrayInfo, gap_info, intensity_info, metadata_objects
from stemstore.store.refusal import refused, taken
from stemstore.store.summary import Assembled, assemble, summary_maps, write_binned
from stemstore.store.urls import is_local, open_storage
from stemstore_schemas import FrameCounts

if TYPE_CHECKING:
    from pathlib import Path

    from stemstore._types import Array
    from stemstore.store.urls import Storage
    from stemstore_schemas import ScanDocument

log = logging.getLogger(__name__)

_OLD = ".DELETING-"
"""Between the name of a store that is being replaced and a random part."""

_LISTED = 20
"""Missing partitions that a message names one by one."""


def finish(
    storage: Storage,
    document: ScanDocument,
    layout: Layout,
    *,
    attributes: dict[str, dict[str, Any]],
    arrays: dict[str, tuple[tuple[str, ...], Array]],
) -> None:
    """Write everything but the data, and the commit object last; nothing happens to a store that has one.

    Raises
    ------
    ConversionIncompleteError
        Partitions are missing.
    DestinationExistsError
        Another store was finished in this place.
    """
    commit = read_commit(storage)
    if commit is not None and commit.uuid == document.uuid:
        return  # killed between commit and rename
    if commit is not None:
        where = f"{storage.root}/{COMMIT}"
        raise taken(where)
    check_all(storage, document.uuid, layout)
    storage.sweep()
    whole = assemble(storage, layout)
    dims = tuple(axis.name for axis in document.axes)
    valid, partial, missing = whole.counts
    document = document.model_copy(update={"frames": FrameCounts(valid=valid, partial=partial, missing=missing)})
    small = coordinates(document)
    if partial or missing:
        small.append(_state(whole, layout, dims))
    if isinstance(layout, CountedLayout):
        small.append(_slots(whole, layout, dims))
    small += summary_maps(whole, layout.scan_shape, dims, attributes)
    small += [(map_info(path, values, axes), values) for path, (axes, values) in arrays.items()]
    for info, values in small:
        write_map(storage, info, values)
    sizes = {key: size for entry in whole.entries for key, size in entry.sizes.items()}
    checksums = {key: crc for entry in whole.entries for key, crc in entry.checksums.items()}
    infos = [*_data_infos(whole, layout, dims), *(info for info, _ in small)]
    for name in whole.binned:
        info, more_sizes, more_checksums = write_binned(storage, layout, name, whole, dims)
        infos.append(info)
        sizes |= more_sizes
        checksums |= more_checksums
    objects = metadata_objects(document, infos)
    root = objects.pop(ROOT)
    for key, body in objects.items():
        storage.put(key, [body])
    storage.put(ROOT, [root])
    write_commit(storage, document.uuid, root, sizes=sizes, checksums=checksums)


def check_all(storage: Storage, uuid: str, layout: Layout) -> None:
    """Make sure that every partition was written.

    Raises
    ------
    ConversionIncompleteError
        Some were not; ``context["missing"]`` has their numbers.
    """
    there = set(finished(storage, uuid, check=False))
    n_partitions = layout.n_partitions
    missing = [number for number in range(n_partitions) if number not in there]
    if missing:
        listed = ", ".join(map(str, missing[:_LISTED])) + (", …" if len(missing) > _LISTED else "")
        msg = (
            f"{len(missing)} of {n_partitions} partitions of '{storage.root}' are missing ({listed}); "
            "write them and finalise again"
        )
        raise ConversionIncompleteError(msg, url=storage.root, missing=missing)


def publish(working: str, url: str, *, overwrite: bool) -> None:
    """Give a finished local store its name, and remove what it replaces and the journal.

    Raises
    ------
    DestinationExistsError
        Something is under the name, and overwriting was not asked for.
    """
    if working != url and is_local(url):
        source, target = local_path(working), local_path(url)
        old = target.with_name(f"{target.name}{_OLD}{uuids.uuid4()}")
        there = open_storage(url).exists()
        if there and not overwrite:
            raise _appeared(working, url)
        try:
            if there:
                target.rename(old)
            try:
                source.rename(target)
            except OSError:
                if there:
                    old.rename(target)
                raise
            sync_folder(target.parent)
        except OSError as error:
            if target.exists() and source.exists() and not overwrite:
                raise _appeared(working, url) from error
            raise refused(error, target, "rename") from error
    if overwrite and is_local(url):
        _remove_old(local_path(url))
    try:
        open_storage(url).delete(JOURNAL, last=PLAN_NAME)  # as long as there is a plan, somebody comes to end this
    except StorageError as error:
        if is_local(url):
            raise
        log.warning("'%s' is finished, but its journal could not be removed: %s", url, error)


def _appeared(working: str, url: str) -> DestinationExistsError:
    msg = f"'{url}' appeared while it was being converted; the new store is '{working}', rename it by hand"
    return DestinationExistsError(msg, url=url)


def _remove_old(target: Path) -> None:
    """Remove what a new store has replaced, now or before its process was killed."""
    for old in target.parent.glob(f"{glob.escape(target.name)}{_OLD}*"):
        try:
            if old.is_symlink():
                old.unlink()  # what it led to is not ours to remove
            else:
                shutil.rmtree(old)
        except FileNotFoundError:
            continue  # somebody else removes it as well
        except OSError as error:
            raise refused(error, old, "remove") from error


def coordinates(document: ScanDocument) -> list[tuple[ArrayInfo, Array]]:
    """Coordinate array of every axis: what foreign tools show along the axes."""
    return [
        (map_info(axis.name, values, (axis.name,), {"units": axis.unit}), values)
        for axis in document.axes
        for values in [axis.coordinates()]
    ]


def _data_infos(whole: Assembled, layout: Layout, dims: tuple[str, ...]) -> list[ArrayInfo]:
    if not isinstance(layout, CountedLayout):
        return [intensity_info(layout, dims)]
    chunks = max(entry.columns for entry in whole.entries)
    multiplicity = max(entry.max_multiplicity for entry in whole.entries)
    return [gap_info(layout, chunks, multiplicity), *column_infos(layout, chunks)]


def _state(whole: Assembled, layout: Layout, dims: tuple[str, ...]) -> tuple[ArrayInfo, Array]:
    values = whole.valid.reshape(layout.scan_shape)
    meaning = {
        "long_name": "state of the frame",
        "flag_values": list(range(VALID_FRAME + 1)),
        "flag_meanings": "missing partial valid",
    }
    return map_info(VALID, values, dims[:-2], meaning), values


def _slots(whole: Assembled, layout: Layout, dims: tuple[str, ...]) -> tuple[ArrayInfo, Array]:
    values = whole.n_slots.reshape(layout.scan_shape)
    meaning = {"long_name": "slots of the frame in events/gap, escapes included"}
    return map_info(N_SLOTS, values, dims[:-2], meaning), values
