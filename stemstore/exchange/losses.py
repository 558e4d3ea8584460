"""What an export leaves behind, said in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemstore.sources.contract import MISSING, PARTIAL

if TYPE_CHECKING:
    from stemstore.exchange.target import CountedScan, Target
    from stemstore.store.open import StoredScan

QUANTITIES = (
    "beam_energy",
    "semi_convergence_angle",
    "camera_length",
    "defocus",
    "magnification",
    "dwell_time",
    "exposure_time",
    "frame_period",
    "scan_rotation",
    "start_time",
    "scan_number",
    "instrument",
    "operator",
    "sample",
)
"""Fields of the acquisition that are values of their own."""

COUNTED = "n_events"
"""What any file of events tells by itself."""

UNSET: tuple[object, ...] = (None, [], "none")
"""Values of fields that say nothing."""


def losses(scan: CountedScan, target: Target, stored: StoredScan | None) -> list[str]:
    """List what is known of a scan and has no place in a format.

    Parameters
    ----------
    stored
        The store that is exported; None for raw files.
    """
    return [*_states(scan), *_metadata(scan, target), *([] if stored is None else _store(stored))]


def _states(scan: CountedScan) -> list[str]:
    state = scan.source.validity
    if state is None:
        return []
    missing, partial = int(np.sum(state == MISSING)), int(np.sum(state == PARTIAL))
    found = [f"the mark of {missing} missing frames, which are written as empty ones"] if missing else []
    return found + ([f"the mark of {partial} partial frames, which are written with their events"] if partial else [])


def _metadata(scan: CountedScan, target: Target) -> list[str]:
    known = scan.metadata
    axes = [axis.name for axis in known.axes if axis.unit != "pixel"]
    values = [name for name in QUANTITIES if getattr(known.acquisition, name) is not None]
    found = [f"the calibration of the axes {', '.join(axes)}"] if axes else []
    found += [f"{', '.join(values)} of the acquisition"] if values else []
    if known.counting is not None:
        fields = [
            name for name, value in known.counting if value not in UNSET and name not in {*target.carries, COUNTED}
        ]
        found += [f"{', '.join(fields)} of the counting"] if fields else []
    return found


def _store(stored: StoredScan) -> list[str]:
    from stemstore.store.calibration import read_calibration

    columns = [] if stored.document.encoding is None else stored.document.encoding.columns
    found = [f"{len(stored.document.history)} steps of history"]
    if columns:
        found.append(f"{', '.join(columns)} of every event")
    calibration = read_calibration(stored)
    if calibration.document is not None or calibration.arrays:
        arrays = f" with {', '.join(calibration.arrays)}" if calibration.arrays else ""
        found.append(f"the saved calibration{arrays}")
    return found
