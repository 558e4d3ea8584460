"""Converting a store: what goes over to the new one besides the pixels or events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.conversion.plan import CountedPlan
from stemstore.scan.corrected import CorrectedFrames
from stemstore.scan.stored import FramesOfEvents, store_of

if TYPE_CHECKING:
    from stemstore.conversion.images import Images
    from stemstore.conversion.plan import DensePlan
    from stemstore.scan.calibration import Calibration
    from stemstore.store.attached_array import AttachedArray
    from stemstore.store.urls import Storage
    from stemstore_schemas import CalibrationDocument, HistoryEntry

OF_FRAMES = ("dark", "gain")
"""References in the units of pixels before counting; electrons need none."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The calibration that the old store kept beside its scan, in memory.

    Attributes
    ----------
    document
        Its values, with those that were stated for the conversion in their place; None where nothing was saved.
    arrays
        Maps over the scan, and frames of the detector.
    warnings
        What stays behind.
    """

    document: CalibrationDocument | None = None
    arrays: dict[str, AttachedArray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: DensePlan | CountedPlan, given: Calibration) -> Carried:
        """Read the saved calibration of the store that is converted; empty for raw data.

        Raises
        ------
        CorruptDataError, FormatVersionError
            It cannot be read; nothing is written then.
        """
        from stemstore.store.attached_array import AttachedArray
        from stemstore.store.calibration import read_calibration
        from stemstore_schemas import CalibrationDocument

        scan = store_of(plan.source)
        if scan is None:
            return cls()
        saved = read_calibration(scan)
        columns = scan.document.encoding.columns if scan.document.encoding is not None else []
        warnings = []
        if columns and not isinstance(plan, CountedPlan):
            warnings.append(f"{', '.join(columns)} of every event of '{scan.url}' stay: frames have no place for them")
        if saved.document is None and not saved.arrays:
            return cls(warnings=warnings)
        anew = isinstance(plan, CountedPlan) == (
            scan.document.profile == "dense"
        )  # frames became events, or events frames
        done = set(plan.source.asked.references) if isinstance(plan.source, CorrectedFrames) else set()
        left = [name for name in OF_FRAMES if (anew or name in done) and name in saved.arrays]
        arrays = {
            name: AttachedArray(stored.info.dims, stored.read(), stored.attributes)
            for name, stored in saved.arrays.items()
            if name not in left
        }
        values = saved.values.merged(given.values())
        document = saved.document or CalibrationDocument(uuid=scan.uuid)
        changes = {name: getattr(values, name) for name in type(values).model_fields}
        if left:
            warnings.append(
                f"the saved {' and '.join(left)} of '{scan.url}' stay: they belong to pixels as they were before"
            )
        return cls(document.model_copy(update=changes | {"arrays": sorted(arrays)}), arrays, warnings)

    def images(self) -> Images:
        """Give nothing: what the old conversion wrote into the calibration is in `arrays`."""
        return {}

    def bring(self, storage: Storage, uuid: str) -> None:
        """Put the calibration beside the new scan, which is not finished yet."""
        from stemstore.store.calibration import put_calibration

        if self.document is not None:
            put_calibration(storage, self.document.model_copy(update={"uuid": uuid}), self.arrays)


def earlier_history(source: Any) -> list[HistoryEntry]:
    """List what was done before, oldest first; nothing for raw data."""
    scan = store_of(source)
    return [] if scan is None else scan.document.history


def earlier_counting(source: Any) -> dict[str, Any]:
    """How the electrons of frames that are made of events were counted, as parameters of the conversion."""
    inner = source.source if isinstance(source, CorrectedFrames) else source
    known = inner.source.metadata.counting if isinstance(inner, FramesOfEvents) else None
    return {} if known is None else {"counting": known.model_dump(mode="json")}
