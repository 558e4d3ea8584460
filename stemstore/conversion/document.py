"""The metadata document of a new store: what is known before, and what counting finds out."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.settings import describe_counting
from stemstore.conversion.images import names_handed_on
from stemstore.conversion.plan import CountedPlan, DensePlan
from stemstore.conversion.stored import earlier_history
from stemstore.scan.calibration import Calibration, complete_axes
from stemstore.scan.provenance import PACKAGES, history_entry
from stemstore.sources.contract import MISSING, PARTIAL, VALID, EventSource

if TYPE_CHECKING:
    from stemstore.conversion.counting.count import Counter
    from stemstore.sources.contract import FrameSource
    from stemstore_schemas import FrameCounts, HistoryEntry, ScanDocument, SourceMetadata


@dataclass(frozen=True, slots=True)
class Oddities:
    """What is odd about the counting, one line each.

    Attributes
    ----------
    warned
        What the user is warned of.
    noted
        What only report and history tell.
    """

    warned: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """Every line."""
        return [*self.warned, *self.noted]


def describe(
    plan: DensePlan | CountedPlan, calibration: Calibration, parameters: dict[str, Any], package: str | None = None
) -> ScanDocument:
    """Compose the metadata document of the new store; `package` is that of the reader."""
    from stemstore_schemas import EventEncoding, ScanDocument

    source, known = plan.source, plan.source.metadata
    acquisition = calibration.acquisition(known.acquisition)
    counting, encoding = None, None
    if isinstance(plan, CountedPlan):
        counter, layout = plan.counter, plan.layout
        counting = known.counting if counter is None else describe_counting(counter)
        encoding = EventEncoding(
            frames_per_block=layout.frames_per_block,
            slots_per_chunk=layout.slots_per_chunk,
            columns=[name for name, _ in layout.columns],
        )
    return ScanDocument(
        uuid=str(uuid.uuid4()),
        profile="dense" if encoding is None else "counted",
        axes=complete_axes(known.axes, (*source.scan_shape, *source.frame_shape), acquisition, calibration),
        acquisition=acquisition,
        detector=known.detector.model_copy(
            update={"shape": source.frame_shape} | {name: name for name in names_handed_on(plan)}
        ),
        counting=counting,
        encoding=encoding,
        frames=count_frames_by_state(source),
        history=[*earlier_history(source), conversion_entry("convert", known, plan.workers, parameters, package)],
        vendor=known.vendor,
    )


def conversion_entry(
    operation: str, known: SourceMetadata, workers: int, parameters: dict[str, Any], package: str | None = None
) -> HistoryEntry:
    """Say what is done and to what; `package` is the distribution of the reader, where it is not this one."""
    packages = PACKAGES if package in (None, *PACKAGES) else (*PACKAGES, package)
    return history_entry(
        operation,
        parameters,
        packages=packages,
        inputs=known.files,
        environment={"workers": workers},
        warnings=known.warnings,
    )


def count_frames_by_state(source: FrameSource | EventSource) -> FrameCounts:
    """Count valid, partial and missing frames."""
    from stemstore_schemas import FrameCounts

    if source.validity is None:
        return FrameCounts(valid=math.prod(source.scan_shape))
    numbers = np.bincount(source.validity, minlength=3)
    return FrameCounts(valid=int(numbers[VALID]), partial=int(numbers[PARTIAL]), missing=int(numbers[MISSING]))


def with_findings(document: ScanDocument, counter: Counter | None, n_events: int, odd: Oddities) -> ScanDocument:
    """Complete the document of a counted store: number of events, drift of the pedestal, and what was odd.

    Parameters
    ----------
    document
        As it was planned.
    counter
        What counted; None where the source held events already.
    n_events
        Electrons in the whole scan.
    odd
        What was odd before; what the counter found is added.
    """
    from stemstore_schemas import CountingDescription

    counting = document.counting or CountingDescription(rule="foreign")
    update: dict[str, Any] = {"n_events": n_events}
    if counter is not None:
        drifts, warned, noted = counter.findings(n_events)
        odd.warned.extend(warned)
        odd.noted.extend(noted)
        update["drift"] = max(drifts.values(), default=None)
        update["regions"] = [
            region.model_copy(update={"drift": drifts.get(region.name.partition("/")[0])})
            for region in counting.regions
        ]
    *before, last = document.history
    last = last.model_copy(update={"warnings": [*last.warnings, *odd.all]})
    return document.model_copy(update={"counting": counting.model_copy(update=update), "history": [*before, last]})
