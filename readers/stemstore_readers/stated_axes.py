"""Axes as headers state them, brought to the vocabulary of the store.

Headers state a step, an origin and a unit per axis, in many spellings and not always rightly. What cannot be an axis of
its kind is left out and reported; the header itself stays in the vendor's part of the metadata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stemstore_schemas import Axis, UnitError, parse_scaled_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore_schemas import Unit

SCAN_NAMES = {1: ("frame",), 2: ("y", "x"), 3: ("frame", "y", "x"), 4: ("time", "frame", "y", "x")}
"""Names of the scan axes by their number."""

_LENGTHS: tuple[Unit, ...] = ("nm", "angstrom", "mm")
_DIFFRACTION: tuple[Unit, ...] = ("1/angstrom", "1/nm", "mrad", "rad", "deg")
_ALLOWED: dict[str, tuple[tuple[Unit, ...], str]] = {
    **dict.fromkeys(("y", "x"), (_LENGTHS, "a length")),
    **dict.fromkeys(("ky", "kx"), (_DIFFRACTION, "an angle or a reciprocal length")),
}
"""Units that a scan and a detector axis may have."""

_KINDS: dict[str, str] = {
    **dict.fromkeys(_LENGTHS, "length"),
    **dict.fromkeys(_DIFFRACTION, "diffraction"),
    "keV": "energy",
}
"""Listed unit -> what an axis in it is."""

EVEN = 1e-3
"""Part of a step by which coordinates of an evenly spaced axis may be off; single precision is seldom worse."""

BELIEVED = (1e-6, 1e6)
"""Steps outside these are reported, in whatever unit: one of them is 7.8e-20 1/nm in a published file."""

NM_PER_MM = 1e6


@dataclass(frozen=True, slots=True)
class StatedAxis:
    """One axis as a header states it: coordinate = origin + step * index, in `unit`; `label` is empty for no name."""

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
        label = repr(self.label or name)
        try:
            factor, unit = parse_scaled_unit(self.unit)
        except UnitError:
            notes.append(f"axis {label} is in {self.unit!r}, which is no known unit; its steps are left out")
            return None
        if unit == "mm":
            factor, unit = factor * NM_PER_MM, "nm"
        step, origin = self.step * factor, self.origin * factor
        if unit == "pixel":
            if (self.step, self.origin) not in ((1.0, 0.0), (0.0, 0.0)):
                notes.append(f"axis {label} has the step {self.step:g} but no unit; the step is left out")
            return None
        if not (math.isfinite(step) and math.isfinite(origin) and step and math.isfinite(origin + step * size)):
            notes.append(f"axis {label} has the step {self.step!r} {self.unit}, which cannot be; it is left out")
            return None
        allowed, kind = _ALLOWED.get(name, ((unit,), ""))
        if unit not in allowed:
            called = label if self.label in ("", name) else f"{label} ({name})"
            notes.append(f"axis {called} is in {self.unit!r}, expected {kind}; its steps are left out")
            return None
        if not BELIEVED[0] <= abs(step) <= BELIEVED[1]:
            notes.append(f"axis {label} has the step {self.step:g} {self.unit}, which is hard to believe")
        return Axis(name=name, size=size, unit=unit, step=step, origin=origin, source="header")


def kind_of_unit(text: str) -> str:
    """Tell what an axis in a unit measures: ``"length"``, ``"diffraction"``, ``"energy"``, or nothing of these."""
    try:
        return _KINDS.get(parse_scaled_unit(text)[1], "")
    except UnitError:
        return ""


def bring_axes(shape: tuple[int, ...], stated: Sequence[StatedAxis | None], notes: list[str]) -> list[Axis]:
    """Make the axes of a scan from what the header states of each axis of the array.

    See `centred` for detector axes that start at zero.

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
    return centred(axes, notes)


def centred(axes: Sequence[Axis], notes: list[str]) -> list[Axis]:
    """Put the zero of detector axes that start at zero in the middle of the frame.

    They were never centred. The middle is where the house takes the optic axis to be as long as nobody says otherwise,
    and a note says so.
    """
    detector = [axis for axis in axes if axis.name in ("ky", "kx")]
    if not detector or any(axis.origin for axis in detector):
        return list(axes)
    notes.append(
        "the detector axes start at zero; the middle of the frame is taken for the optic axis, "
        "pass detector_center=… to settle it"
    )
    middle = {axis.name: axis.model_copy(update={"origin": -axis.step * (axis.size - 1) / 2}) for axis in detector}
    return [middle.get(axis.name, axis) for axis in axes]
