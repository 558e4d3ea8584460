"""Fields of a scan document that may be changed after the scan was stored, and how their new values are read.

What describes the arrays, the identity of the store and what was done to the data are not among them: these are facts
about what lies in the store, which a change would make wrong.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stemstore.errors import InputError
from stemstore.scan.calibration import Calibration, stated_axis
from stemstore_schemas import Axis, Quantity, ScanDocument, Unit, convert_value, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore_schemas.record import Record

AXIS_FIELDS = ("step", "origin", "unit", "source")

FIXED = {
    "acquisition": ("scan_shape", "frames_per_position", "sync_offset"),
    "detector": ("shape", "mask", "gain", "dark"),
}
"""Parts that may be changed, but for these fields, which describe arrays of the store or name them."""

UNITS: dict[str, Unit] = {
    "beam_energy": "keV",
    "semi_convergence_angle": "mrad",
    "camera_length": "mm",
    "defocus": "nm",
    "dwell_time": "s",
    "exposure_time": "s",
    "frame_period": "s",
    "scan_rotation": "deg",
    "thresholds": "keV",
    "pixel_size": "mm",
}
"""Quantities, and the unit in which they are kept."""

SEVERAL = ("thresholds", "pixel_size")
"""Quantities that are lists."""


def editable(document: ScanDocument) -> list[str]:
    """List the fields that may be changed: values of a calibration, and dotted names."""
    found = list(Calibration.names())
    for part, fixed in FIXED.items():
        found += [f"{part}.{name}" for name in type(getattr(document, part)).model_fields if name not in fixed]
    return found + [f"axes.{axis.name}.{name}" for axis in document.axes for name in AXIS_FIELDS]


def changed(document: ScanDocument, wanted: Mapping[str, Any]) -> ScanDocument:
    """Change fields of a document.

    Parameters
    ----------
    document
        As it is.
    wanted
        New values by name; None empties a field.

    Returns
    -------
    document
        Checked as a whole.

    Raises
    ------
    InputError
        A field may not be changed or does not exist, or a value does not fit.
    """
    known = editable(document)
    for name in wanted:
        if name not in known:
            raise _unknown(document, name, known)
    parts: dict[str, Any] = {part: getattr(document, part) for part in FIXED}
    for name, value in wanted.items():
        part, _, field = name.partition(".")
        if part in parts:
            parts[part] = _with(parts[part], field, value, name)
    axes = {axis.name: _axis(axis, wanted) for axis in document.axes}
    stated = Calibration(**{name: wanted[name] for name in Calibration.names() if wanted.get(name) is not None})
    parts["acquisition"] = stated.acquisition(parts["acquisition"])
    parts["axes"] = [stated_axis(axis, stated.values(), parts["acquisition"]) for axis in axes.values()]
    after = document.model_copy(update=parts)
    try:
        return ScanDocument.model_validate(after.model_dump())
    except ValidationError as error:
        raise _refused(error, ", ".join(wanted)) from error


def differences(before: ScanDocument, after: ScanDocument) -> dict[str, dict[str, Any]]:
    """List what differs between two documents: old and new value as JSON, by dotted name."""
    old, new = _flat(before), _flat(after)
    return {name: {"old": old[name], "new": new[name]} for name in old if old[name] != new[name]}


def _flat(document: ScanDocument) -> dict[str, Any]:
    plain = json.loads(document.model_dump_json())
    found = {f"{part}.{name}": value for part in FIXED for name, value in plain[part].items()}
    return found | {f"axes.{axis['name']}.{name}": axis[name] for axis in plain["axes"] for name in AXIS_FIELDS}


def _unknown(document: ScanDocument, name: str, known: list[str]) -> InputError:
    part, _, field = name.partition(".")
    names = {axis.name for axis in document.axes}
    fixed = (
        field in FIXED.get(part, ())
        or (part == "axes" and field.removesuffix(".size").removesuffix(".name") in names)
        or (part in ScanDocument.model_fields and part not in (*FIXED, "axes"))
    )
    if fixed:
        msg = f"'{name}' describes what lies in the store, which an edit leaves as it is; convert the scan again"
        return InputError(msg, key=name)
    near = [one for one in known if one.startswith(f"{part}.")] or known
    msg = f"'{name}' is no field that can be changed; choose one of {', '.join(near)}"
    return InputError(msg, key=name, expected=near)


def _refused(error: ValidationError, name: str) -> InputError:
    first = error.errors()[0]
    msg = f"{name} cannot be changed so: {first['msg']}; correct the value"
    return InputError(msg, key=name, found=first.get("input"))


def _with(part: Record, field: str, value: Any, name: str) -> Record:
    """Change one field of a part of the document; a text is taken as it is, or as JSON where that fits."""
    choices = [value]
    if value is None:
        choices = [type(part).model_fields[field].get_default()]
    elif field in SEVERAL:
        several = value.split(",") if isinstance(value, str) else list(value)
        choices = [[_quantity(one, UNITS[field], name) for one in several]]
    elif field in UNITS:
        choices = [_quantity(value, UNITS[field], name)]
    elif isinstance(value, str):
        with suppress(ValueError):
            choices.append(json.loads(value))
    for choice in choices:
        try:
            return type(part).model_validate({**dict(part), field: choice})
        except ValidationError as error:
            first = _refused(error, name)
    raise first


def _quantity(value: Any, unit: Unit, name: str) -> Quantity:
    """Read a number in `unit`, a text with its unit, or a quantity."""
    try:
        if isinstance(value, Quantity):
            return value.to(unit)
        number, given = parse_quantity(value, unit) if isinstance(value, str) else (float(value), unit)
        return Quantity(value=number, unit=given, source="user").to(unit)
    except (TypeError, ValueError) as error:
        msg = f"{name} = {value!r} is not understood; give a number in {unit} or a text such as '1.5 {unit}' ({error})"
        raise InputError(msg, key=name, found=value) from error


def _axis(axis: Axis, wanted: Mapping[str, Any]) -> Axis:
    """Change an axis. A new step leaves zero at its index, unless the origin is stated too."""
    start = f"axes.{axis.name}."
    mine = {name.removeprefix(start): value for name, value in wanted.items() if name.startswith(start)}
    if not mine:
        return axis
    if mine.keys() & {"step", "origin", "unit"}:
        mine.setdefault("source", "user")
    changes: dict[str, Any] = {name: mine[name] for name in ("unit", "source") if name in mine}
    unit = changes.get("unit", axis.unit)
    try:
        if "step" in mine:
            step, unit = _length(mine["step"], unit)
            changes |= {"step": step, "unit": unit, "origin": axis.origin / axis.step * step}
        if "origin" in mine:
            origin, given = _length(mine["origin"], unit)
            changes["origin"] = convert_value(origin, given, unit)
        return Axis.model_validate({**dict(axis), **changes})
    except ValidationError as error:
        raise _refused(error, start.rstrip(".")) from error
    except (TypeError, ValueError) as error:
        msg = f"axis '{axis.name}' cannot be changed so: {error}; give a number in {unit!r} or a text with its unit"
        raise InputError(msg, key=start.rstrip("."), found=mine) from error


def _length(value: Any, unit: Unit) -> tuple[float, Unit]:
    if isinstance(value, Quantity):
        return value.value, value.unit
    return parse_quantity(value, unit) if isinstance(value, str) else (float(value), unit)
