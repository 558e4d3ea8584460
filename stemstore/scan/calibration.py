"""Completing what a file says about its axes with what the user knows."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore_schemas import Acquisition, Axis, Quantity, Unit, ValueSource

SCAN_DIMS = {1: ("frame",), 2: ("y", "x"), 3: ("frame", "y", "x"), 4: ("time", "frame", "y", "x")}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a user may state about a scan; every value is a number in the named unit or a text with its own unit.

    Attributes
    ----------
    beam_energy : keV
    semi_convergence_angle : mrad
    camera_length : mm
    scan_rotation : deg
    scan_step : nm
        One step for both scan axes, or (y, x).
    detector_step : mrad
        Size of a detector pixel, or (ky, kx); turned into 1/angstrom when the beam energy is known.
    detector_center : pixel
        (ky, kx) of the optic axis; the middle of the frame by default.
    """

    beam_energy: float | str | None = None
    semi_convergence_angle: float | str | None = None
    camera_length: float | str | None = None
    scan_rotation: float | str | None = None
    scan_step: Any = None
    detector_step: Any = None
    detector_center: tuple[float, float] | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all values."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def split(cls, options: dict[str, Any]) -> tuple[Calibration, dict[str, Any]]:
        """Take the calibration out of a mixed set of options; the rest belongs to the reader."""
        mine = {name: options[name] for name in cls.names() if options.get(name) is not None}
        return cls(**mine), {key: value for key, value in options.items() if key not in cls.names()}

    def acquisition(self, known: Acquisition) -> Acquisition:
        """Acquisition with the user's values in place of the file's."""
        units: dict[str, Unit] = {
            "beam_energy": "keV",
            "semi_convergence_angle": "mrad",
            "camera_length": "mm",
            "scan_rotation": "deg",
        }
        changes = {name: _quantity(getattr(self, name), unit, name) for name, unit in units.items()}
        for name, quantity in changes.items():
            if quantity is not None and name != "scan_rotation" and quantity.value <= 0:
                msg = f"{name} = {getattr(self, name)!r} is not a length, angle or energy above zero; correct it"
                raise InputError(msg, key=name, found=getattr(self, name))
        return known.model_copy(update={name: value for name, value in changes.items() if value is not None})


def complete_axes(
    known: list[Axis], shape: tuple[int, ...], acquisition: Acquisition, given: Calibration | None = None
) -> list[Axis]:
    """Give one axis per dimension: the user's values first, then the file's, then plain pixel numbers.

    Parameters
    ----------
    known
        Axes that the file states, any of them.
    shape
        Scan axes, ky, kx.
    acquisition
        Supplies the beam energy, with which angles become reciprocal lengths.
    given
        The user's values.

    Raises
    ------
    InputError
        The scan has an unknown number of axes, or a value of the user is not a quantity of the right kind.
    """
    from stemstore_schemas import Axis

    given = given or Calibration()
    if len(shape) - 2 not in SCAN_DIMS:
        msg = f"a scan has 1 to 4 scan axes, got shape {shape}; reshape it with scan_shape=…"
        raise InputError(msg, found=shape)
    names = (*SCAN_DIMS[len(shape) - 2], "ky", "kx")
    stated = {axis.name: axis for axis in known}
    axes = [
        stated[name].model_copy(update={"size": size}) if name in stated else Axis(name=name, size=size)
        for name, size in zip(names, shape, strict=True)
    ]
    steps = _pair(given.scan_step, ("y", "x"), "nm") | _pair(given.detector_step, ("ky", "kx"), "mrad")
    centers = _center(given.detector_center)
    return [_finish(axis, steps.get(axis.name), centers.get(axis.name), acquisition) for axis in axes]


def _center(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    try:
        row, column = (float(one) for one in value)
    except (TypeError, ValueError):
        row = column = math.nan
    if not (math.isfinite(row) and math.isfinite(column)):
        msg = f"detector_center = {value!r} is not understood; give two finite numbers in pixel, (ky, kx)"
        raise InputError(msg, key="detector_center", found=value)
    return {"ky": row, "kx": column}


def _finish(axis: Axis, step: Quantity | None, center: float | None, acquisition: Acquisition) -> Axis:
    changes: dict[str, Any] = {}
    if step is not None:
        changes = {"step": step.value, "unit": step.unit, "source": step.source, "origin": 0.0}
    if axis.name in ("ky", "kx") and (step is not None or center is not None):
        middle = (axis.size - 1) / 2 if center is None else float(center)
        calibrated = step is not None or axis.unit != "pixel"
        changes["origin"] = -middle * changes.get("step", axis.step) if calibrated else axis.origin
        if not calibrated:
            msg = (
                f"detector_center is given, but axis {axis.name!r} is not calibrated; "
                "give detector_step as well, or pass center=… to the virtual detector"
            )
            raise InputError(msg, key="detector_center")
    axis = axis.model_copy(update=changes)
    return _in_nanometre(axis) if axis.name in ("y", "x") else _reciprocal(axis, acquisition)


def _in_nanometre(axis: Axis) -> Axis:
    """Express a calibrated scan axis in nm."""
    from stemstore.scan.coordinates import unit_factor

    if axis.unit in ("pixel", "nm"):
        return axis
    factor = unit_factor(axis.unit, "nm", None, axis.name)
    return axis.model_copy(update={"unit": "nm", "step": axis.step * factor, "origin": axis.origin * factor})


def _reciprocal(axis: Axis, acquisition: Acquisition) -> Axis:
    """Express a detector axis in 1/angstrom when the wavelength is known."""
    from stemstore.scan.coordinates import ANGLES, unit_factor

    if axis.name not in ("ky", "kx") or axis.unit not in (*ANGLES, "1/nm"):
        return axis
    energy = acquisition.beam_energy
    if energy is None and axis.unit in ANGLES:
        return axis
    factor = unit_factor(axis.unit, "1/angstrom", None if energy is None else energy.value, axis.name)
    return axis.model_copy(update={"unit": "1/angstrom", "step": axis.step * factor, "origin": axis.origin * factor})


def _pair(value: Any, names: tuple[str, str], unit: Unit) -> dict[str, Quantity]:
    if value is None:
        return {}
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != len(names):
        msg = f"expected one step or a pair for {names}, got {value!r}"
        raise InputError(msg, found=value)
    what = f"step of {' and '.join(names)}"
    pairs = {name: _quantity(one, unit, what) for name, one in zip(names, values, strict=True)}
    for name, one in pairs.items():
        if one is None or not one.value > 0:
            msg = (
                f"the step of {name!r} must be positive, got {value!r}; flips are stated by detector_flip, not by sign"
            )
            raise InputError(msg, key=name, found=value)
    return {name: one for name, one in pairs.items() if one is not None}


def _quantity(value: Any, unit: Unit, name: str, source: ValueSource = "user") -> Quantity | None:
    from stemstore_schemas import Quantity, parse_quantity

    if value is None:
        return None
    try:
        number, given = (float(value), unit) if not isinstance(value, str) else parse_quantity(value, unit)
        quantity = Quantity(value=number, unit=given, source=source)
    except (TypeError, ValueError) as error:
        msg = f"{name} = {value!r} is not understood; give a number in {unit} or a text such as '1.5 {unit}' ({error})"
        raise InputError(msg, key=name, found=value) from error
    if not math.isfinite(number):
        msg = f"{name} = {value!r} is not finite; give a number in {unit}"
        raise InputError(msg, key=name, found=value)
    return quantity
