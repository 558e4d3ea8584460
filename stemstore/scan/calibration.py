"""Reading what a user states about a scan, and completing with it what a file says about its axes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore_schemas import Acquisition, Axis, CalibrationValues, Quantity, Unit, ValueSource

SCALARS: dict[str, Unit] = {
    "beam_energy": "keV",
    "semi_convergence_angle": "mrad",
    "camera_length": "mm",
    "scan_rotation": "deg",
}
"""Values that are one number, and the units in which they are kept."""

DETECTOR_DIMS = ("ky", "kx")
PLACE = {"y": 0, "x": 1, "ky": 0, "kx": 1}
STEP_OF = {"y": "scan_step", "x": "scan_step", "ky": "detector_step", "kx": "detector_step"}
"""By which value the step of an axis is stated."""

SCAN_DIMS = {1: ("frame",), 2: ("y", "x"), 3: ("frame", "y", "x"), 4: ("time", "frame", "y", "x")}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a user may state about a scan.

    Every value is a number in the named unit, a text with its own unit, or a `stemstore_schemas.Quantity`, which says
    its source and uncertainty too.

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

    beam_energy: Any = None
    semi_convergence_angle: Any = None
    camera_length: Any = None
    scan_rotation: Any = None
    scan_step: Any = None
    detector_step: Any = None
    detector_center: Any = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all values."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def split(cls, options: dict[str, Any]) -> tuple[Calibration, dict[str, Any]]:
        """Take the calibration out of a mixed set of options; the rest belongs to the reader."""
        mine = {name: options[name] for name in cls.names() if options.get(name) is not None}
        return cls(**mine), {key: value for key, value in options.items() if key not in cls.names()}

    def values(self) -> CalibrationValues:
        """Check all values and bring them to the units in which they are kept.

        Raises
        ------
        InputError
            One is not a quantity of the right kind, not finite, or not above zero where it has to be.
        """
        from stemstore_schemas import CalibrationValues

        stated: dict[str, Any] = {}
        for name, unit in SCALARS.items():
            stated[name] = _quantity(getattr(self, name), unit, name)
            if stated[name] is not None and name != "scan_rotation" and stated[name].value <= 0:
                msg = f"{name} = {getattr(self, name)!r} is not a length, angle or energy above zero; correct it"
                raise InputError(msg, key=name, found=getattr(self, name))
        stated["scan_step"] = _steps(self.scan_step, ("y", "x"), "nm")
        stated["detector_step"] = _steps(self.detector_step, ("ky", "kx"), "mrad")
        stated["detector_center"] = _center(self.detector_center)
        return CalibrationValues(**stated)

    def acquisition(self, known: Acquisition) -> Acquisition:
        """Acquisition with the user's values in place of the file's."""
        return stated_acquisition(known, self.values())


def stated_acquisition(known: Acquisition, values: CalibrationValues) -> Acquisition:
    """Acquisition with the stated values in place of the known ones."""
    changes = {name: getattr(values, name) for name in SCALARS}
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

    if len(shape) - 2 not in SCAN_DIMS:
        msg = f"a scan has 1 to 4 scan axes, got shape {shape}; reshape it with scan_shape=…"
        raise InputError(msg, found=shape)
    names = (*SCAN_DIMS[len(shape) - 2], "ky", "kx")
    stated = {axis.name: axis for axis in known}
    axes = [
        stated[name].model_copy(update={"size": size}) if name in stated else Axis(name=name, size=size)
        for name, size in zip(names, shape, strict=True)
    ]
    values = (given or Calibration()).values()
    return [stated_axis(axis, values, acquisition) for axis in axes]


def stated_axis(axis: Axis, values: CalibrationValues, acquisition: Acquisition) -> Axis:
    """Calibrate one axis: a stated step and centre take the place of the axis' own; what is not stated stays.

    Parameters
    ----------
    axis
        As it is known: from a file, or plain pixel numbers.
    values
        What is stated.
    acquisition
        Supplies the beam energy, with which angles become reciprocal lengths.

    Raises
    ------
    InputError
        A centre is stated for an axis without a step, which has no other zero than pixel 0.
    """
    step, center = (_part(pair, axis.name) for pair in (_stated_step(values, axis.name), values.detector_center))
    changes: dict[str, Any] = {}
    if step is not None:
        changes = {"step": step.value, "unit": step.unit, "source": step.source, "origin": 0.0}
    if axis.name in DETECTOR_DIMS and (step is not None or center is not None):
        if step is None and axis.unit == "pixel":
            msg = (
                f"detector_center is given, but axis {axis.name!r} is not calibrated; "
                "give detector_step as well, or use stemstore.calibrate on the open dataset"
            )
            raise InputError(msg, key="detector_center")
        known = (axis.size - 1) / 2 if axis.unit == "pixel" else -axis.origin / axis.step
        changes["origin"] = -(known if center is None else center.value) * changes.get("step", axis.step)
    axis = axis.model_copy(update=changes)
    return _in_nanometre(axis) if axis.name in ("y", "x") else _reciprocal(axis, acquisition)


def _stated_step(values: CalibrationValues, name: str) -> tuple[Quantity, Quantity] | None:
    return values.detector_step if name in DETECTOR_DIMS else values.scan_step


def _part(pair: tuple[Quantity, Quantity] | None, name: str) -> Quantity | None:
    """Give the member of a pair that belongs to an axis."""
    return None if pair is None or name not in PLACE else pair[PLACE[name]]


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


def _center(value: Any) -> tuple[Quantity, Quantity] | None:
    if value is None:
        return None
    try:
        row, column = value
        found = _quantity(row, "pixel", "detector_center"), _quantity(column, "pixel", "detector_center")
    except (TypeError, ValueError) as error:
        msg = f"detector_center = {value!r} is not understood; give two finite numbers in pixel, (ky, kx)"
        raise InputError(msg, key="detector_center", found=value) from error
    if found[0] is None or found[1] is None:
        msg = f"detector_center = {value!r} is not understood; give two finite numbers in pixel, (ky, kx)"
        raise InputError(msg, key="detector_center", found=value)
    return found[0], found[1]


def _steps(value: Any, names: tuple[str, str], unit: Unit) -> tuple[Quantity, Quantity] | None:
    if value is None:
        return None
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != len(names):
        msg = f"expected one step or a pair for {names}, got {value!r}"
        raise InputError(msg, found=value)
    found = [_quantity(one, unit, f"step of {' and '.join(names)}") for one in values]
    for name, one in zip(names, found, strict=True):
        if one is None or not one.value > 0:
            msg = (
                f"the step of {name!r} must be positive, got {value!r}; flips are stated by detector_flip, not by sign"
            )
            raise InputError(msg, key=name, found=value)
    first, second = (one for one in found if one is not None)
    return first, second


def _quantity(value: Any, unit: Unit, name: str, source: ValueSource = "user") -> Quantity | None:
    """Read a value and bring it to `unit`; sizes on the detector may stay in 1/angstrom."""
    from stemstore_schemas import Quantity, parse_quantity

    if value is None:
        return None
    try:
        if isinstance(value, Quantity):
            quantity = value
        else:
            number, given = (float(value), unit) if not isinstance(value, str) else parse_quantity(value, unit)
            quantity = Quantity(value=number, unit=given, source=source)
        reciprocal = unit == "mrad" and quantity.unit in ("1/angstrom", "1/nm") and name.startswith("step")
        quantity = quantity.to("1/angstrom" if reciprocal else unit)
    except (TypeError, ValueError) as error:
        msg = f"{name} = {value!r} is not understood; give a number in {unit} or a text such as '1.5 {unit}' ({error})"
        raise InputError(msg, key=name, found=value) from error
    if not math.isfinite(quantity.value):
        msg = f"{name} = {value!r} is not finite; give a number in {unit}"
        raise InputError(msg, key=name, found=value)
    return quantity
