"""What a store keeps beside its scan, brought over to the same scan laid out anew: calibration and saved results."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.errors import ConversionIncompleteError, CorruptDataError, NotFoundError
from stemstore.store.attached_array import StoredArray
from stemstore.store.metadata import CALIBRATION, DERIVED, ROOT, SAVED, read_root
from stemstore.store.objects import list_objects, read_object

if TYPE_CHECKING:
    from stemstore.conversion.images import Images
    from stemstore.store.objects import StoreObject
    from stemstore.store.open import StoredScan
    from stemstore.store.urls import Storage

_OF_SCAN = ("uuid", "scan", "stemstore_uuid")
"""Keys whose value is the identity of the scan; inputs in a history keep the one that was read."""

_PARENTS = (f"{CALIBRATION}/{ROOT}", f"{DERIVED}/{ROOT}")


@dataclass(frozen=True, slots=True)
class Kept:
    """The calibration and the saved results of a finished store.

    Attributes
    ----------
    scan
        The store.
    warnings
        What stays behind on purpose: nothing.
    """

    scan: StoredScan
    warnings: list[str] = field(default_factory=list)

    def images(self) -> Images:
        """Read what the conversion wrote into the calibration: references of the detector, maps of the scan."""
        infos = {path: info for path, info in self.scan.head.arrays.items() if path.startswith(f"{CALIBRATION}/")}
        return {path: (info.dims, StoredArray(self.scan.url, info).read()) for path, info in infos.items()}

    def bring(self, storage: Storage, uuid: str) -> None:
        """Copy the saved calibration and the saved results, object by object, checked on the way.

        Parameters
        ----------
        storage
            Where the new store grows; what an interrupted call has left of them there is replaced.
        uuid
            Identity of the new scan, which they name from now on.

        Raises
        ------
        ConversionIncompleteError
            An object is missing or damaged; the message names it. What was written stays, for `resume`.

        Notes
        -----
        Memory: one object, at most 64 MiB before compression.
        """
        for place in (SAVED, DERIVED):
            storage.delete(place)
        try:
            for one in self._objects():
                body = read_object(self.scan.head.storage, one)
                if body is not None:
                    body = _renamed(body, self.scan.uuid, uuid) if one.kind == "metadata" else body
                    storage.put(one.key, [body])
        except (CorruptDataError, NotFoundError) as error:
            why = str(error).rpartition("; ")[0] or str(error)  # converting again would not help
            msg = (
                f"all shards are written, but what was saved beside the scan cannot be brought over: {why}; restore "
                "the object or remove its group, and go on with resume=True (--resume)"
            )
            raise ConversionIncompleteError(msg, url=self.scan.url) from error

    def _objects(self) -> list[StoreObject]:
        """Objects of the groups beside the scan."""
        source = self.scan.head.storage
        found = list_objects(source, read_root(source))
        return [one for one in found if one.key.startswith((f"{SAVED}/", f"{DERIVED}/")) or one.key in _PARENTS]


def _renamed(body: bytes, old: str, new: str) -> bytes:
    """Put the identity of the new scan into metadata."""
    return json.dumps(_with(json.loads(body), old, new), indent=2).encode()


def _with(value: Any, old: str, new: str) -> Any:
    if isinstance(value, list):
        return [_with(one, old, new) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: new if name in _OF_SCAN and one == old else one if name == "history" else _with(one, old, new)
        for name, one in value.items()
    }
