"""What Dectris masters and the sidecars of microscopes say, brought to the vocabulary of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.files import exists
from stemstore.sources.hdf5 import DAMAGE, attribute, number, open_hdf5, quote, text, value_of
from stemstore_schemas import Axis, Quantity

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import Unit

DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
SIDECAR_GROUP = "STEM Metadata"

QUANTITIES: dict[str, tuple[str, Unit, float]] = {
    "beam_energy": (f"{SPECIFIC}/photon_energy", "keV", 1e-3),
    "exposure_time": (f"{DETECTOR}/count_time", "s", 1.0),
    "frame_period": (f"{DETECTOR}/frame_time", "s", 1.0),
}
"""Field of the acquisition -> dataset of the master, unit, factor."""

SIDECAR_QUANTITIES: dict[str, tuple[str, Unit, float]] = {
    "beam_energy": ("High Tension", "keV", 1e-3),
    "camera_length": ("Camera Length", "mm", 1e3),
    "dwell_time": ("ScanDwellTime", "s", 1.0),
}
"""Field of the acquisition -> attribute of the sidecar, unit, factor."""

MAX_MASK_BYTES = 2**27
"""Largest pixel mask that is read: four times the one of a detector of 16 million pixels."""

LISTED_PIXELS = 1024
"""Masked pixels listed by row and column."""


@dataclass(slots=True)
class Header:
    """What master and sidecar state.

    Attributes
    ----------
    optics
        Fields of the acquisition.
    detector
        Fields of the detector besides its shape.
    vendor
        Both headers, as they are.
    notes
        What is odd.
    n_images, n_triggers
        Frames per trigger and triggers; 0 where the master does not say.
    scan
        Rows, columns and frames before each row that the sidecar states.
    step : unit nm
        Scan step of the sidecar, and whether it is calibrated.
    files
        Files that were read besides those of the frames.
    mask : shape (ky, kx), bool
        True at usable pixels; None where the master says nothing about them.
    """

    optics: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    vendor: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    n_images: int = 0
    n_triggers: int = 0
    scan: tuple[int, int, int] | None = None
    step: tuple[float, bool] | None = None
    files: list[Place] = field(default_factory=list)
    mask: BoolArray | None = None

    def axes(self, scan_shape: tuple[int, ...]) -> list[Axis]:
        """Scan axes with the step of the sidecar, for a scan of rows and columns."""
        if self.step is None or len(scan_shape) < 2:  # noqa: PLR2004 (rows and columns)
            return []
        step, calibrated = self.step
        if not calibrated:
            self.notes.append(f"the scan step of {step:g} nm is nominal, the microscope calls it uncalibrated")
        source = "header" if calibrated else "guessed"
        sizes = zip(("y", "x"), scan_shape[-2:], strict=True)
        return [Axis(name=name, size=size, unit="nm", step=step, source=source) for name, size in sizes]


def read_master(file: Any, frame_shape: tuple[int, int]) -> Header:
    """Read what a master states; a data file that is opened alone states nothing.

    Raises
    ------
    CorruptDataError
        The header is damaged.
    """
    header = Header()
    for name, (path, unit, factor) in QUANTITIES.items():
        _take(header.optics, name, value_of(file, path), unit, factor)
    header.n_images, header.n_triggers = (whole(value_of(file, f"{SPECIFIC}/{key}")) for key in ("nimages", "ntrigger"))
    started = value_of(file, f"{SPECIFIC}/data_collection_date")
    if started is not None:
        header.optics.update(_time(text(started), header.notes))
    _describe_detector(file, header)
    instrument = file.get("entry/instrument")
    if instrument is not None:
        header.vendor["instrument"] = quote(instrument)
        header.vendor["definition"] = text(value_of(file, "entry/definition") or "")
        _describe_mask(file, frame_shape, header)
    return header


def _describe_detector(file: Any, header: Header) -> None:
    name = value_of(file, f"{DETECTOR}/description")
    if name is not None:
        header.detector["name"] = text(name)
    depth = whole(value_of(file, f"{DETECTOR}/bit_depth_readout"))
    if depth:
        header.detector["counter_depth"] = depth
    threshold = _quantity(value_of(file, f"{DETECTOR}/threshold_energy"), "keV", 1e-3)
    if threshold is not None:
        header.detector["thresholds"] = [threshold]
    pitch = [_quantity(value_of(file, f"{DETECTOR}/{axis}_pixel_size"), "mm", 1e3) for axis in "yx"]
    if all(pitch):
        header.detector["pixel_size"] = tuple(pitch)


def _describe_mask(file: Any, frame_shape: tuple[int, int], header: Header) -> None:
    """List the pixels that the detector masks; they hold the largest value of the type where the mask is applied."""
    mask = _read_mask(file, frame_shape)
    if mask is None:
        return
    header.mask = mask == 0
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return
    header.vendor["masked_pixels"] = {
        "count": len(rows),
        "row_column_bits": [
            [int(row), int(column), int(mask[row, column])]
            for row, column in zip(rows[:LISTED_PIXELS], columns[:LISTED_PIXELS], strict=True)
        ],
    }
    applied = whole(value_of(file, f"{DETECTOR}/pixel_mask_applied"))
    holds = "hold the largest value of their type" if applied else "are not marked in the frames"
    header.notes.append(
        f"{len(rows)} pixels are masked by the detector and {holds}; leave them out with mask='detector'"
    )


def _read_mask(file: Any, frame_shape: tuple[int, int]) -> Array | None:
    try:
        stored = file.get(f"{SPECIFIC}/pixel_mask")
        if stored is None or stored.shape != frame_shape or stored.dtype.kind not in "uib":
            return None
        return stored[...] if stored.size * stored.dtype.itemsize <= MAX_MASK_BYTES else None
    except (*DAMAGE, AttributeError):  # AttributeError: a group of that name
        return None


def read_sidecar(path: Place, header: Header) -> None:
    """Add what the file of the microscope states, where there is one; contradictions are reported.

    Raises
    ------
    CorruptDataError, StorageError
        It is damaged.
    """
    if not exists(path):
        return
    with open_hdf5(path) as file:
        group = file.get(SIDECAR_GROUP)
        if group is None:
            return
        header.files.append(path)
        header.vendor["sidecar"] = quote(file)
        found: dict[str, Any] = {}
        for name, (key, unit, factor) in SIDECAR_QUANTITIES.items():
            _take(found, name, attribute(group, key), unit, factor)
        magnification = number(attribute(group, "Magnification"))
        if magnification:
            found["magnification"] = magnification
        rows, columns, before = (whole(attribute(group, f"NumPixels{key}")) for key in ("Y", "X", "Prescan"))
        if rows and columns:
            header.scan = rows, columns, before
        step = number(attribute(group, "Pixel Size"))
        if step and step > 0:
            header.step = step, bool(whole(attribute(group, "IsPixelSizeCalibrated")))
    _join(header, found, path)


def _join(header: Header, found: dict[str, Any], path: Place) -> None:
    energy, other = header.optics.get("beam_energy"), found.get("beam_energy")
    if energy is not None and other is not None and abs(energy.value - other.value) > 1e-3 * energy.value:
        header.notes.append(
            f"the detector states a beam of {energy.value:g} keV, {path.name!r} one of {other.value:g} keV; "
            "the first is used, pass beam_energy=… if it is wrong"
        )
    header.optics = {**found, **header.optics}


def _take(fields: dict[str, Any], name: str, value: Any, unit: Unit, factor: float) -> None:
    found = _quantity(value, unit, factor)
    if found is not None:
        fields[name] = found


def _quantity(value: Any, unit: Unit, factor: float) -> Quantity | None:
    """Make a quantity of a number above zero; zero means that nobody set it."""
    found = None if value is None else number(value)
    return Quantity(value=found * factor, unit=unit, source="header") if found and found > 0 else None


def whole(value: Any) -> int:
    """Read a whole number; 0 where there is none."""
    found = None if value is None else number(value)
    return int(found) if found is not None and 0 <= found < 2**53 and found == int(found) else 0


def _time(stated: str, notes: list[str]) -> dict[str, str]:
    try:
        datetime.fromisoformat(stated)
    except ValueError:
        notes.append(f"data_collection_date {stated[:40]!r} is no date and left out")
        return {}
    return {"start_time": stated}
