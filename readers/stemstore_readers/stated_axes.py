"""Axes and quantities as the headers of labelled arrays state them, brought to the vocabulary of the store.

Headers of EMD, HyperSpy and Nion files state a step, an origin and a unit per axis, in many spellings and not always
rightly. What cannot be an axis of its kind is left out and reported; the header itself stays in the vendor's part of
the metadata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.hdf5 import number, text
from stemstore_schemas import Axis, Quantity, UnitError, foreign_fields, parse_scaled_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stemstore._types import Array
    from stemstore_schemas import Unit
    from stemstore_schemas.mapping import Target

SCAN_NAMES = {1: ("frame",), 2: ("y", "x"), 3: ("frame", "y", "x"), 4: ("time", "frame", "y", "x")}
"""Names of the scan axes by their number."""

_LENGTHS: tuple[Unit, ...] = ("nm", "angstrom", "mm")
_DIFFRACTION: tuple[Unit, ...] = ("1/angstrom", "1/nm", "mrad", "rad", "deg")
_KINDS: dict[str, tuple[tuple[Unit, ...], str]] = {
    **dict.fromkeys(("y", "x"), (_LENGTHS, "a length")),
    **dict.fromkeys(("ky", "kx"), (_DIFFRACTION, "an angle or a reciprocal length")),
}
"""Units that a scan and a detector axis may have."""

EVEN = 1e-3
"""Part of a step by which coordinates of an evenly spaced axis may be off; single precision is seldom worse."""

BELIEVED = (1e-6, 1e6)
"""Steps outside these are reported, in whatever unit: one of them is 7.8e-20 1/nm in a published file."""

NM_PER_MM = 1e6

LATEST = 4_102_444_800
"""Unix time of the year 2100, in s."""


@dataclass(frozen=True, slots=True)
class StatedAxis:
    """One axis as a header states it: coordinate = origin + step * index, in `unit`."""

    label: str
    step: float
    origin: float
    unit: str

    @classmethod
    def of_values(cls, label: str, values: Array, size: int, unit: str, notes: list[str]) -> StatedAxis | None:
        """Take coordinates for an axis: one per index, or only the first two.

        Returns
        -------
        axis
            None, with a note, where they are neither or are not evenly spaced.
        """
        if values.dtype.kind not in "uif" or values.ndim != 1 or len(values) not in (2, size):
            if values.dtype.kind in "uif" and values.ndim == 1 and len(values) > 1:
                notes.append(
                    f"axis {label!r} has {size} indices but {len(values)} coordinates; the coordinates are left out"
                )
            return None
        points = values.astype(np.float64)
        if len(points) == 1:
            return None
        step = float(points[-1] - points[0]) / (len(points) - 1)
        uneven = np.abs(points - points[0] - step * np.arange(len(points))) > EVEN * abs(step)
        if not np.isfinite(points).all() or uneven.any():
            notes.append(f"axis {label!r} is not evenly spaced; its coordinates are left out, its indices stay")
            return None
        return cls(label, step, float(points[0]), unit)

    def kind(self) -> str:
        """Tell what the unit measures, as `kind_of_unit`."""
        return kind_of_unit(self.unit)

    def in_unit(self, unit: str) -> StatedAxis:
        """Give the same numbers another unit."""
        return replace(self, unit=unit)

    def bring(self, name: str, size: int, notes: list[str]) -> Axis | None:
        """Make the axis `name` of the store; None, with a note, where the header's words cannot be used."""
        try:
            factor, unit = parse_scaled_unit(self.unit)
        except UnitError:
            notes.append(f"axis {self.label!r} is in {self.unit!r}, which is no known unit; its steps are left out")
            return None
        if unit == "mm":
            factor, unit = factor * NM_PER_MM, "nm"
        step, origin = self.step * factor, self.origin * factor
        if unit == "pixel":
            if (self.step, self.origin) not in ((1.0, 0.0), (0.0, 0.0)):
                notes.append(f"axis {self.label!r} has the step {self.step:g} but no unit; the step is left out")
            return None
        if not (math.isfinite(step) and math.isfinite(origin) and step and math.isfinite(origin + step * size)):
            notes.append(f"axis {self.label!r} has the step {self.step!r} {self.unit}, which cannot be; it is left out")
            return None
        allowed, kind = _KINDS.get(name, ((unit,), ""))
        if unit not in allowed:
            notes.append(f"axis {self.label!r} ({name}) is in {self.unit!r}, expected {kind}; its steps are left out")
            return None
        if not BELIEVED[0] <= abs(step) <= BELIEVED[1]:
            notes.append(f"axis {self.label!r} has the step {self.step:g} {self.unit}, which is hard to believe")
        return Axis(name=name, size=size, unit=unit, step=step, origin=origin, source="header")


def kind_of_unit(text: str) -> str:
    """Tell what a unit measures.

    Returns
    -------
    kind
        ``"r"`` a length, ``"k"`` a reciprocal length or an angle, ``"e"`` an energy, empty otherwise.
    """
    try:
        unit = parse_scaled_unit(text)[1]
    except UnitError:
        return ""
    return "r" if unit in _LENGTHS else "k" if unit in _DIFFRACTION else "e" if unit == "keV" else ""


def bring_axes(shape: tuple[int, ...], stated: Sequence[StatedAxis | None], notes: list[str]) -> list[Axis]:
    """Make the axes of a scan from what the header states of each axis of the array.

    Detector axes that start at zero were never centred. Their zero is put in the middle of the frame, where the house
    takes the optic axis to be as long as nobody says otherwise, and a note says so.

    Parameters
    ----------
    shape
        Scan axes, ky, kx.
    stated
        One per axis of `shape`; None where the header is silent.
    notes
        Receives what had to be left out.

    Returns
    -------
    axes
        Those that could be used.
    """
    names = (*SCAN_NAMES[len(shape) - 2], "ky", "kx")
    axes = [
        axis
        for name, size, one in zip(names, shape, stated, strict=True)
        if one is not None and (axis := one.bring(name, size, notes)) is not None
    ]
    detector = [axis for axis in axes if axis.name in ("ky", "kx")]
    if not detector or any(axis.origin for axis in detector):
        return axes
    notes.append("the detector axes start at zero; the optic axis is taken to be in the middle of the frame")
    middle = {axis.name: axis.model_copy(update={"origin": -axis.step * (axis.size - 1) / 2}) for axis in detector}
    return [middle.get(axis.name, axis) for axis in axes]


def quantity(value: Any, unit: Unit, per_unit: float = 1.0, *, signed: bool = False) -> Quantity | None:
    """Make a quantity of a header's number, which is `per_unit` for one `unit`.

    Returns
    -------
    quantity
        None where there is no number, or none above zero unless it may be `signed`.
    """
    found = number(value) if signed else positive(value)
    if found is None:
        return None
    ours = found / per_unit if per_unit >= 1 else found * round(1 / per_unit)  # by whole numbers: decimals stay clean
    return Quantity(value=ours, unit=unit, source="header") if math.isfinite(ours) else None


def positive(value: Any) -> float | None:
    """Read a number above zero; None for everything else."""
    found = None if isinstance(value, bool) else number(value)
    return found if found is not None and found > 0 else None


def words(value: Any) -> str | None:
    """Read a text that says something; None for everything else."""
    if isinstance(value, np.ndarray) and value.size != 1:
        return None
    return text(value).strip() or None if isinstance(value, str | bytes | np.ndarray) else None


def unix_time(value: Any) -> str | None:
    """Turn seconds since 1970 into ISO 8601 in UTC; None for what is no time of a microscope."""
    seconds = number(value)
    if seconds is None or not 0 < seconds < LATEST:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat()


_UNITS: dict[str, Unit] = {
    "beam_energy": "keV",
    "semi_convergence_angle": "mrad",
    "camera_length": "mm",
    "dwell_time": "s",
    "exposure_time": "s",
}
"""Units of the acquisition's fields that other formats have a place for."""


def mapped_fields(target: Target, look: Callable[[str], Any]) -> dict[str, Any]:
    """Fill fields of the acquisition from the places where another format keeps them.

    Parameters
    ----------
    target
        The other format, as in `stemstore_schemas.foreign_fields`.
    look
        Gives what lies at a path of that format; None where there is nothing.

    Returns
    -------
    fields
        Name of the field -> quantity, number or text; None where nothing usable lies there.
    """
    found: dict[str, Any] = {}
    for field, foreign in foreign_fields(target).items():
        name, value = field.removeprefix("acquisition."), look(foreign.path)
        if name in _UNITS:
            found[name] = quantity(value, _UNITS[name], foreign.factor)
        else:
            found[name] = positive(value) if name == "magnification" else words(value)
    return found
