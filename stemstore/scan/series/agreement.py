"""Whether scans can be shown as one array: what they would have to share, and where they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.scan.calibration import SCALARS, STEP_OF, Calibration, complete_axes, stated_acquisition, stated_axis
from stemstore.scan.origins import ORIGIN
from stemstore.scan.series.source import holds_events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.scan.open import Found
    from stemstore_schemas import Axis

CLOSE = 1e-6
"""Relative difference of calibrated values that is none: files write them with six digits and more."""

PIXELS_APART = 0.01
"""Distance of coordinates of the same pixel, in pixels, that is none."""


@dataclass(frozen=True, slots=True)
class Difference:
    """In what a scan differs from the first of its series.

    Attributes
    ----------
    key
        What differs: ``"shape"``, ``"detector_step"`` …
    scan, first
        Names of the scans.
    found, expected
        What each of them has.
    hint
        What makes them agree.
    """

    key: str
    scan: str
    first: str
    found: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.key} of scan {self.scan!r} is {self.found}, of scan {self.first!r} {self.expected}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What scans of one series share."""

    layout: dict[str, Any]
    axes: list[Axis]
    values: dict[str, Any]


def difference(names: Sequence[str], found: Sequence[Found], given: Calibration) -> Difference | None:
    """Find the first scan that differs from the first one; None where all agree.

    Parameters
    ----------
    names, found
        The scans.
    given
        What the user states about all of them, in place of what they say.
    """
    expected = facts_of(found[0], given)
    for name, one in zip(names[1:], found[1:], strict=True):
        told = _compare(facts_of(one, given), expected)
        if told is not None:
            key, here, there, hint = told
            return Difference(key, name, names[0], here, there, hint)
    return None


def facts_of(found: Found, given: Calibration) -> Facts:
    """Say what a scan has in common with others, or not; nothing of it is read."""
    source, known = found.source, found.known
    values = given.values() if known.values is None else known.values.merged(given.values())
    acquisition = stated_acquisition(found.acquisition, values)
    axes = complete_axes(found.axes, source.shape, found.acquisition)
    stated = {name: value.value for name in SCALARS if (value := getattr(acquisition, name)) is not None}
    if values.detector_center is not None:
        stated["detector_center"] = [pixel.value for pixel in values.detector_center]
    if values.ellipse is not None:
        stated["ellipse"] = [one for row in values.ellipse.matrix for one in row]
    if values.detector_transpose is not None:
        stated["detector_transpose"] = float(values.detector_transpose)
    unpaired = values.model_copy(update={"detector_center": None}) if _uncalibrated(axes, values) else values
    layout = {
        "shape": tuple(source.shape),
        "kind of data": "events" if holds_events(source) else "frames",
        "pixel type": np.dtype(source.dtype),
        "number of flyback columns": found.acquisition.flyback_columns,
        "origin maps": "saved" if all(name in known.arrays for name in ORIGIN) else "none",
    }
    return Facts(layout, [stated_axis(axis, unpaired, acquisition) for axis in axes], stated)


def _uncalibrated(axes: list[Axis], values: Any) -> bool:
    """Whether a stated centre belongs to axes in pixels, which it does not move."""
    return values.detector_step is None and any(axis.unit == "pixel" for axis in axes[-2:])


def _compare(one: Facts, other: Facts) -> tuple[str, str, str, str] | None:
    """Tell what differs, how, and what to do about it."""
    for key, value in one.layout.items():
        if not _same_layout(key, value, other.layout[key]):
            hint = "save a calibration for every scan, or pass calibration=False" if key == "origin maps" else ""
            return key, str(value), str(other.layout[key]), hint
    for mine, theirs in zip(one.axes, other.axes, strict=True):
        if not _same_axis(mine, theirs):
            by = STEP_OF.get(mine.name)
            hint = f"state it for all of them, {by}=…" if by else ""
            return f"axis {mine.name!r}", _axis_text(mine), _axis_text(theirs), hint
    for key in sorted(one.values.keys() | other.values.keys()):
        here, there = one.values.get(key), other.values.get(key)
        if here is None or there is None or not np.allclose(here, there, rtol=CLOSE, atol=1e-9):
            hint = f"state it for all of them, {key}=…" if key in Calibration.names() else ""
            return key, _value_text(key, here), _value_text(key, there), hint or "calibrate the scans alike"
    return None


def _same_layout(key: str, one: Any, other: Any) -> bool:
    if key != "pixel type":
        return bool(one == other)
    return one == other or (one.kind == other.kind and one.kind in "ui")


def _same_axis(one: Axis, other: Axis) -> bool:
    """Whether every pixel has the same coordinate along two axes, but for a hundredth of its size."""
    if (one.name, one.size, one.unit) != (other.name, other.size, other.unit):
        return False
    near, far = one.origin - other.origin, one.coordinates()[-1] - other.coordinates()[-1]
    return max(abs(near), abs(far)) <= PIXELS_APART * abs(one.step) and math.copysign(1, one.step) == math.copysign(
        1, other.step
    )


def _axis_text(axis: Axis) -> str:
    if axis.source is None:
        return "not calibrated"
    return f"{axis.size} steps of {axis.step:.6g} {axis.unit} from {axis.origin:.6g}"


def _value_text(key: str, value: Any) -> str:
    if value is None:
        return "not known"
    numbers = ", ".join(f"{number:.6g}" for number in np.atleast_1d(value))
    unit: Mapping[str, str] = SCALARS
    return f"{numbers} {unit[key]}" if key in unit else numbers
