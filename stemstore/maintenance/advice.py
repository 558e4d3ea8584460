"""What a scan's document lacks, or holds as a guess: told by `validate`, never an obstacle to opening."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore_schemas import ScanDocument

WANTED = ("beam_energy", "semi_convergence_angle", "scan_rotation")
"""Quantities without which some operations cannot give physical units."""


def advise(document: ScanDocument) -> Iterator[tuple[str, str]]:
    """Give a field and a sentence for everything that is missing or was guessed.

    Parameters
    ----------
    document
        Of a finished store.
    """
    acquisition = document.acquisition
    if acquisition.scan_shape_source == "guessed":
        others = ", ".join(" x ".join(map(str, shape)) for shape in acquisition.scan_shape_alternatives)
        yield "acquisition.scan_shape", f"the scan shape was guessed{f'; others that fit: {others}' if others else ''}"
    for axis in document.axes:
        if axis.source is None and axis.name != "frame":
            yield f"axes.{axis.name}", "the axis is not calibrated; stemstore.save_calibration adds its step"
        elif axis.source == "guessed":
            yield f"axes.{axis.name}", "the calibration of the axis was guessed"
    for name in WANTED:
        quantity = getattr(acquisition, name)
        if quantity is None:
            yield f"acquisition.{name}", "it is not known; stemstore.save_calibration adds it"
        elif quantity.source == "guessed":
            yield f"acquisition.{name}", f"its value {quantity.value:g} {quantity.unit} was guessed"
    frames = document.frames
    if frames.missing or frames.partial:
        yield "frames", f"{frames.missing} frames are missing and {frames.partial} are partial"
    if not document.history:
        yield "history", "nothing tells where the data come from"
    for entry in document.history:
        for warning in entry.warnings:
            yield f"history.{entry.operation}", warning
