"""The calibration that a store keeps beside its scan: one document and a few small arrays."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, FormatVersionError, StorageError
from stemstore.store.attached import put_group, read_group, write_group
from stemstore.store.attached_array import StoredArray
from stemstore.store.metadata import ATTRIBUTE, CALIBRATION, SAVED
from stemstore_schemas import CalibrationValues, SchemaVersionError, dump_document, load_calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore.store.attached_array import AttachedArray
    from stemstore.store.open import StoredScan
    from stemstore.store.urls import Storage
    from stemstore_schemas import CalibrationDocument

log = logging.getLogger(__name__)

MAPS = ("origin_ky", "origin_kx")
"""Arrays over the scan: place of the optic axis, stored pixels."""

FRAMES = ("dark", "gain", "mask")
"""Arrays over the detector: dark reference, gain reference, and usable pixels."""


@dataclass(frozen=True, slots=True)
class SavedCalibration:
    """What is known beside the scan.

    Attributes
    ----------
    document
        What was saved; None where nothing was.
    arrays
        By name, as of `MAPS` and `FRAMES`; read when they are indexed.
    """

    document: CalibrationDocument | None = None
    arrays: dict[str, StoredArray] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """Text that changes when something is saved."""
        return self.document.history[-1].time if self.document is not None and self.document.history else ""

    @property
    def values(self) -> CalibrationValues:
        """What was stated."""
        if self.document is None:
            return CalibrationValues()
        return CalibrationValues.model_validate(
            {name: getattr(self.document, name) for name in CalibrationValues.model_fields}
        )


def _saved(scan: StoredScan) -> Any:
    """Read the group; None where there is none.

    Object stores whose content may be read and not be listed answer 403 for what is not there. The store itself could
    be read, so nobody is locked out.
    """
    try:
        return read_group(scan.head.storage, SAVED)
    except StorageError as error:
        if error.context.get("status") != HTTPStatus.FORBIDDEN:
            raise
        log.info("the server of '%s' refuses to say whether a calibration was saved: taken for none", scan.head.url)
        return None


def read_calibration(scan: StoredScan) -> SavedCalibration:
    """Read the calibration of a store, in one request and without any array.

    Parameters
    ----------
    scan
        The open store. Arrays that its conversion wrote are given as well; saved ones come before them.

    Raises
    ------
    FormatVersionError
        It was saved by a newer release.
    CorruptDataError
        It is damaged, or belongs to another scan.
    """
    url, arrays = scan.head.url, _converted(scan)
    found = _saved(scan)
    if found is None:
        return SavedCalibration(None, arrays)
    attributes, saved = found
    hint = "open the store with calibration=False and save its calibration again"
    try:
        document = load_calibration(attributes.get(ATTRIBUTE) or {})
    except SchemaVersionError as error:
        msg = f"the calibration of '{url}' cannot be read: {error}; or open the store with calibration=False"
        raise FormatVersionError(msg, url=url, found=error.found, expected=error.known) from error
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"the calibration of '{url}' is damaged: {error}; {hint}"
        raise CorruptDataError(msg, url=url, key=SAVED) from error
    if document.uuid != scan.uuid:
        msg = f"'{url}/{SAVED}' belongs to scan {document.uuid}, but the store holds {scan.uuid}; {hint}"
        raise CorruptDataError(msg, url=url, key=SAVED, found=document.uuid, expected=scan.uuid)
    shape = scan.document.shape
    for name in document.arrays:
        expected = shape[:-2] if name in MAPS else shape[-2:]
        if name not in saved or saved[name].shape != expected:
            got = saved[name].shape if name in saved else "nothing"
            msg = f"array '{name}' of the calibration of '{url}' is {got}, expected {expected}; {hint}"
            raise CorruptDataError(msg, url=url, key=f"{SAVED}/{name}")
    return SavedCalibration(document, arrays | {name: saved[name] for name in document.arrays})


def write_calibration(url: str, document: CalibrationDocument, arrays: Mapping[str, AttachedArray]) -> None:
    """Put a calibration in the place of the one that was saved before; the scan is not touched.

    Raises
    ------
    NotFoundError, UnknownFormatError, ConversionIncompleteError
        There is no finished store.
    StorageError
        The device refuses; the old calibration stays.
    """
    write_group(url, SAVED, arrays, {ATTRIBUTE: dump_document(document)}, replace=True)


def put_calibration(storage: Storage, document: CalibrationDocument, arrays: Mapping[str, AttachedArray]) -> None:
    """Put a calibration into a store that is still being written; it becomes readable with the store."""
    put_group(storage, SAVED, arrays, {ATTRIBUTE: dump_document(document)})


def _converted(scan: StoredScan) -> dict[str, StoredArray]:
    """Arrays that the conversion wrote, under the names that the document of the scan gives them."""
    found, shape = {}, scan.document.shape
    for name in (*MAPS, *FRAMES):
        path = f"{CALIBRATION}/{getattr(scan.document.detector, name, None) or name}"
        info = scan.head.arrays.get(path)
        if info is not None and info.shape == (shape[:-2] if name in MAPS else shape[-2:]):
            found[name] = StoredArray(scan.head.url, info)
    return found
