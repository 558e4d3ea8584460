"""Changing what a store says about its scan, never its pixels: recorded, and safe against a killed process.

A change concerns several objects: coordinates, root metadata, commit object. All new ones are first put down together
in one object, `EDIT`; from then on the change has happened, and whoever comes next carries it through. They then take
the place of the old ones, the commit object last. At every moment in between the store opens with its old or its new
document, each of them whole, and with the same identity, so that scans that are open stay valid.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, DestinationExistsError, NotFoundError, StaleStoreError
from stemstore.maintenance.fields import changed, differences
from stemstore.scan.calibration import SCALARS, STEP_OF
from stemstore.scan.provenance import history_entry
from stemstore.store.calibration import read_calibration
from stemstore.store.commit import COMMIT, check_root, digest, read_commit
from stemstore.store.journal import EDIT, JOURNAL
from stemstore.store.maps import map_objects
from stemstore.store.metadata import ATTRIBUTE, ROOT, parse_array, parse_document
from stemstore.store.open import open_store
from stemstore.store.zipped import ZippedStorage, read_only
from stemstore_schemas import dump_document

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from stemstore.store.open import StoredScan
    from stemstore.store.urls import Storage
    from stemstore_schemas import CommitDocument, ScanDocument

_KEYS = re.compile(r"zarr\.json|stemstore\.commit\.json|\w+/(c/\d+|zarr\.json)")
"""Objects that a change may concern."""


@dataclass(frozen=True, slots=True)
class EditReport:
    """What `edit_store` did.

    Attributes
    ----------
    url
        The store.
    changes
        Old and new value of every field that changed, by dotted name.
    finished
        Whether an earlier change that was interrupted was carried through first.
    warnings
        What comes before the new values when the store is opened, and what may have to follow them.
    """

    url: str
    changes: dict[str, dict[str, Any]]
    finished: bool
    warnings: list[str] = field(default_factory=list)


def edit_store(
    store: str | os.PathLike[str],
    set: Mapping[str, Any] | None = None,  # noqa: A002  # what the command line calls it too
    *,
    note: str | None = None,
    accept: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> EditReport:
    """Change metadata of a finished store; pixels are not touched, and the history keeps the old values.

    Parameters
    ----------
    store
        Path or URL.
    set
        New values by name, None to empty a field. Names are those of a calibration (``beam_energy``,
        ``semi_convergence_angle``, ``camera_length``, ``scan_rotation``, ``scan_step``, ``detector_step``,
        ``detector_center``; meanings as in `stemstore.open`), or dotted: ``acquisition.sample``, ``detector.name``,
        ``axes.kx.step``. Quantities are numbers in the unit in which they are kept, texts with a unit such as
        ``"300 keV"``, or `stemstore_schemas.Quantity`. A new step of an axis leaves its zero at the same index.
        Without any, a change that was interrupted is carried through.
    note
        Why; kept in the history.
    accept
        Take root metadata that another program has changed, such as added attributes, for those of the store, which
        does not open otherwise. Say so only if you know what changed them: damage cannot be told from intention. They
        still have to fit the schema and the arrays; the history gets both digests.
    storage_options
        How a URL is reached; see `stemstore.open`.

    Returns
    -------
    report
        Old and new values.

    Raises
    ------
    InputError
        A field may not be changed, a value does not fit, or the store is packed; nothing is written.
    ChecksumError
        The metadata are not those that were written.
    DestinationExistsError
        Another process changes the store at this moment.
    ConversionIncompleteError, UnknownFormatError, NotFoundError
        There is no finished store.

    Notes
    -----
    Coordinate arrays are written anew where steps, origins or units change. What was saved by
    `stemstore.save_calibration` comes before these values when the store is opened; the report says so.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.edit_store("scan_42.zarr", {"beam_energy": "300 keV", "acquisition.sample": "MoS2"})  # doctest: +SKIP
    """
    if storage_options is not None:
        from stemstore.store.address import remote

        store = remote(store, **storage_options)
    scan = open_store(store, check_digest=not accept)
    storage = scan.head.storage
    if isinstance(storage, ZippedStorage):
        raise read_only(storage.root)
    finished = finish_edit(storage)
    root, commit = storage.get(ROOT), read_commit(storage)
    if commit is None:
        msg = f"the commit object of '{storage.root}' disappeared while it was looked at; try again"
        raise StaleStoreError(msg, url=storage.root)
    if not accept:
        check_root(storage.root, root, commit)
    before = parse_document(json.loads(root), storage.root)
    after = changed(before, set or {})
    changes = differences(before, after)
    if digest(root) != commit.metadata_digest:
        changes[ROOT] = {"old": commit.metadata_digest, "new": digest(root)}
    if not changes:
        return EditReport(storage.root, {}, finished)
    entry = history_entry("edit", {"changes": changes, "note": note})
    after = after.model_copy(update={"history": [*before.history, entry]})
    _begin(storage, _objects(json.loads(root), before, after, commit), before.uuid, digest(root))
    finish_edit(storage)
    return EditReport(storage.root, changes, finished, _warnings(scan, changes))


def _objects(
    root: dict[str, Any], before: ScanDocument, after: ScanDocument, commit: CommitDocument
) -> dict[str, bytes]:
    """Make all objects that change, in the order in which they are replaced."""
    made: dict[str, bytes] = {}
    nodes = (root.get("consolidated_metadata") or {}).get("metadata", {})
    for old, new in zip(before.axes, after.axes, strict=True):
        node = nodes.get(new.name)
        if node is None or (old.step, old.origin, old.unit) == (new.step, new.origin, new.unit):
            continue
        made.update(map_objects(parse_array(new.name, node), new.coordinates()))
        node["attributes"] = {**node.get("attributes", {}), "units": new.unit}
        made[f"{new.name}/{ROOT}"] = _json(node)
    root["attributes"][ATTRIBUTE] = dump_document(after)
    made[ROOT] = _json(root)
    made[COMMIT] = _json(dump_document(commit.model_copy(update={"metadata_digest": digest(made[ROOT])})))
    return made


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()


def _begin(storage: Storage, made: dict[str, bytes], uuid: str, before: str) -> None:
    """Put down a change; from here on it has happened."""
    objects = {key: base64.b64encode(body).decode() for key, body in made.items()}
    try:
        storage.create(EDIT, [json.dumps({"uuid": uuid, "before": before, "objects": objects}).encode()])
    except DestinationExistsError as error:
        msg = f"another process changes the metadata of '{storage.root}' at this moment; try again"
        raise DestinationExistsError(msg, url=storage.root) from error


def finish_edit(storage: Storage) -> bool:
    """Carry a change through that was put down; anybody may, any number of times.

    Returns
    -------
    found
        Whether there was one.

    Raises
    ------
    CorruptDataError
        It belongs to another store, or the metadata were changed otherwise since.
    """
    try:
        body = storage.get(EDIT)
    except NotFoundError:
        storage.sweep()  # of a process that was killed before its change had happened, or after
        return False
    root, commit = storage.get(ROOT), read_commit(storage)
    try:
        change = json.loads(body)
        made = {key: base64.b64decode(text) for key, text in change["objects"].items()}
        fits = commit is not None and commit.uuid == change["uuid"] and all(map(_KEYS.fullmatch, made))
        fits = fits and digest(root) in (change["before"], digest(made[ROOT]))
    except (ValueError, TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        msg = (
            f"'{storage.root}/{EDIT}' is a change that was interrupted, but not of these metadata; "
            f"remove it, and restore {ROOT} from a copy if 'stemstore validate' finds it changed"
        )
        raise CorruptDataError(msg, url=storage.root, key=EDIT)
    storage.sweep()
    for key, content in made.items():
        storage.put(key, [content])
    storage.delete(JOURNAL)
    return True


def _warnings(scan: StoredScan, changes: dict[str, Any]) -> list[str]:
    """Tell what comes before new values, and what may have to follow them."""
    values = read_calibration(scan).values
    names = {name.partition(".")[2] for name in changes if name.startswith("acquisition.")} & SCALARS.keys()
    axes = {name.split(".")[1] for name in changes if name.startswith("axes.")}
    names |= {STEP_OF[axis] for axis in axes & STEP_OF.keys()}
    found = []
    stated = sorted(name for name in names if getattr(values, name) is not None)
    if stated:
        found.append(
            f"{', '.join(stated)} of the saved calibration comes before the new value when the store is opened; "
            "save_calibration changes it"
        )
    energy = changes.get("acquisition.beam_energy")
    reciprocal = any(axis.unit == "1/angstrom" and axis.name not in axes for axis in scan.document.axes)
    if energy is not None and energy["old"] is not None and reciprocal:
        found.append(
            "the detector axes are in 1/angstrom and stay; where they were made of angles with the old beam energy, "
            "state detector_step as well"
        )
    return found
