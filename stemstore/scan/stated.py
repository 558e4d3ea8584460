"""Dressing a dataset with stated values: its coordinates and attributes, whatever part of the scan it shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.scan.calibration import DETECTOR_DIMS, PLACE, SCALARS, stated_axis
from stemstore.scan.coordinates import LONG_NAMES, optic_axis, pixel_axis

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore_schemas import Acquisition, Axis, CalibrationValues

    Scan = TypeVar("Scan", xr.Dataset, xr.DataArray)

ATTRIBUTES = {
    "beam_energy": "beam_energy_keV",
    "semi_convergence_angle": "semi_convergence_angle_mrad",
    "camera_length": "camera_length_mm",
    "dwell_time": "dwell_time_s",
    "scan_rotation": "scan_rotation_deg",
}
"""Attributes of a scan that hold a number of its acquisition."""

STATED = "calibration"
"""Attribute that repeats, as JSON, what was stated about a scan, with sources and uncertainties."""

TRANSPOSE = "detector_transpose"
ELLIPSE = "ellipse_matrix"
ELLIPSE_AXES = {"a": "ellipse_a", "b": "ellipse_b", "theta": "ellipse_theta_deg"}


def apply_values(dataset: Scan, values: CalibrationValues) -> Scan:
    """Give a dataset the coordinates and attributes of stated values; see `calibrate`."""
    from stemstore_schemas import CalibrationValues

    if values == CalibrationValues():
        return with_attributes(dataset, {STATED: None})
    dataset = with_attributes(dataset, value_attributes(values))
    image = intensity(dataset)
    acquisition = acquisition_of(image)
    coords: dict[str, Any] = {}
    for name in PLACE:
        if name in image.coords or name in image.dims:
            coords |= _axis_coordinates(image, name, values, acquisition)
    return dataset.assign_coords(coords)


def value_attributes(values: CalibrationValues) -> dict[str, Any]:
    """Make the attributes that a scan carries of stated values; flat, so that every file format takes them."""
    attrs: dict[str, Any] = {STATED: values.model_dump_json(exclude_none=True)}
    for name in SCALARS:
        if (quantity := getattr(values, name)) is not None:
            attrs[ATTRIBUTES[name]] = quantity.value
    if values.detector_transpose is not None:
        attrs[TRANSPOSE] = int(values.detector_transpose)
    if values.ellipse is not None:
        attrs[ELLIPSE] = [one for row in values.ellipse.matrix for one in row]
        attrs |= {name: getattr(values.ellipse, key) for key, name in ELLIPSE_AXES.items()}
    return attrs


def stated_values(dataset: xr.Dataset | xr.DataArray) -> CalibrationValues:
    """Recall what was stated about a scan so far.

    Raises
    ------
    CorruptDataError
        The attribute that repeats it was changed by hand.
    """
    from stemstore_schemas import CalibrationValues

    text = intensity(dataset).attrs.get(STATED)
    if text is None:
        return CalibrationValues()
    try:
        return CalibrationValues.model_validate(json.loads(text))
    except (TypeError, ValueError) as error:
        msg = f"the attribute {STATED!r} of the scan was changed ({error}); delete it and calibrate again"
        raise CorruptDataError(msg, key=STATED) from error


def intensity(dataset: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Give the 4D intensity of a dataset, detector axes last.

    Raises
    ------
    InputError
        There is none.
    """
    import xarray as xr

    image = dataset.get("intensity") if isinstance(dataset, xr.Dataset) else dataset
    if not isinstance(image, xr.DataArray) or not set(DETECTOR_DIMS) <= set(image.dims):
        msg = "only a scan can be calibrated: expected a dataset with the variable 'intensity' (…, ky, kx)"
        raise InputError(msg, found=type(dataset).__name__)
    return image.transpose(..., *DETECTOR_DIMS)


def with_attributes(dataset: Scan, attrs: dict[str, Any]) -> Scan:
    """Give a dataset and its intensity attributes; None takes one away."""
    import xarray as xr

    dataset = dataset.copy(deep=False)
    holders: list[Any] = [dataset]
    if isinstance(dataset, xr.Dataset):
        dataset["intensity"] = dataset["intensity"].copy(deep=False)
        holders.append(dataset["intensity"])
    for holder in holders:
        merged = {**holder.attrs, **attrs}
        holder.attrs = {key: value for key, value in merged.items() if key not in attrs or value is not None}
    return dataset


def acquisition_of(image: xr.DataArray) -> Acquisition:
    """Read from the attributes of a scan what they say about its beam."""
    from stemstore_schemas import Acquisition, Quantity

    energy = image.attrs.get(ATTRIBUTES["beam_energy"])
    return Acquisition(
        beam_energy=None if energy is None else Quantity(value=energy, unit="keV", source="user")  # any source will do
    )


def _axis_coordinates(
    image: xr.DataArray, name: str, values: CalibrationValues, acquisition: Acquisition
) -> dict[str, Any]:
    """Coordinate of one axis as the values say, for the pixels that are visible; nothing where it stays as it is."""
    import xarray as xr

    known, own = _known_axis(image, name), image.coords.get(name)
    about = {} if own is None else dict(own.attrs)
    axis = known
    if name not in DETECTOR_DIMS or known.unit != "pixel" or values.detector_step is not None:
        axis = stated_axis(known, _with_center(values, known, image), acquisition)
        about.pop("optic_axis", None)
    elif values.detector_center is not None:
        about["optic_axis"] = known.origin + known.step * values.detector_center[PLACE[name]].value
    if axis == known and own is not None and about == own.attrs:
        return {}
    about |= {"units": axis.unit, "long_name": LONG_NAMES[name], "step": axis.step, "origin": axis.origin}
    about |= {"stored_size": axis.size} | ({} if axis.source is None else {"source": axis.source})
    places = axis.origin + axis.step * _pixels(image, name)
    dims = (name,) if own is None else own.dims
    return {name: xr.Variable(dims, places if dims else places[0], about)}


def _with_center(values: CalibrationValues, axis: Axis, image: xr.DataArray) -> CalibrationValues:
    """State the pixel of the present optic axis together with a step, where no other is stated."""
    from stemstore_schemas import Quantity

    if axis.name not in DETECTOR_DIMS or values.detector_step is None or values.detector_center is not None:
        return values
    zero = (optic_axis(image, axis.name, None) - axis.origin) / axis.step
    place = Quantity(value=zero, unit="pixel", source="user")
    return values.model_copy(update={"detector_center": (place, place)})


def _known_axis(image: xr.DataArray, name: str) -> Axis:
    """Give an axis of a dataset as the axis of the scan that it shows a part of."""
    from stemstore_schemas import Axis

    coordinate = image.coords.get(name)
    attrs = {} if coordinate is None else coordinate.attrs
    unit = attrs.get("units", "pixel")
    return Axis(
        name=name,
        size=int(attrs.get("stored_size", image.sizes.get(name, 1))),
        unit=unit,
        step=float(attrs.get("step", 1.0)),
        origin=float(attrs.get("origin", 0.0)),
        source=attrs.get("source", None if unit == "pixel" else "user"),
    )


def _pixels(image: xr.DataArray, name: str) -> FloatArray:
    """Give stored pixel numbers along an axis; one number where an index has dropped the axis."""
    if name in image.dims:
        return pixel_axis(image, name)
    number = image.coords.get(f"{name}_pixel")
    return np.zeros(1) if number is None else np.asarray(number.values, np.float64).reshape(1)
