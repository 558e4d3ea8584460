"""The calibration of py4DSTEM: what of ours fits it, and ours from it.

Names and units: py4dstem/py4DSTEM (``py4DSTEM/data/calibration.py``). x is the first axis, rows; lengths on the
detector are pixels of the visible detector. It knows one size of a pixel in each space, and an ellipse by its axes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.disks.plane import detector_unit, visible
from stemstore.ops.geometry.plane import DIMS
from stemstore.scan.calibrate import calibrate
from stemstore.scan.coordinates import optic_axis, pixel_axis, pixel_step, scan_coordinates, to_pixel
from stemstore.scan.origins import displacements, own_origin
from stemstore.scan.stated import ATTRIBUTES, ELLIPSE, TRANSPOSE
from stemstore_schemas import Axis, UnitError, convert_value, parse_scaled_unit, parse_unit

if TYPE_CHECKING:
    import xarray as xr

    from stemstore_schemas import Unit

SCAN_DIMS = ("y", "x")
ORIGIN = ("qx0", "qy0")
DEGREES = "QR_rotation_degrees"
ROTATION, ANGLE = ATTRIBUTES["scan_rotation"], ATTRIBUTES["semi_convergence_angle"]
DETECTOR_UNITS: dict[str, tuple[Unit, str]] = {
    "1/angstrom": ("1/angstrom", "A^-1"),
    "1/nm": ("1/angstrom", "A^-1"),
    "mrad": ("mrad", "mrad"),
}
"""Unit of ours -> the one written, and how py4DSTEM spells it."""

EQUAL = 1e-6  # part by which steps of two axes, or elements of a symmetric matrix, may differ


def calibration_items(image: xr.DataArray) -> tuple[dict[str, Any], list[str]]:
    """Express the calibration of a scan.

    Parameters
    ----------
    image : dims (…scan, ky, kx)
        The scan, or a stand-in for it.

    Returns
    -------
    items, not_carried
        Values by py4DSTEM's names, and what is known and has no place.
    """
    lost: list[str] = []
    items: dict[str, Any] = {"Q_pixel_size": 1.0, "Q_pixel_units": "pixels"}
    items |= {"R_pixel_size": 1.0, "R_pixel_units": "pixels", "QR_flip": bool(image.attrs.get(TRANSPOSE, False))}
    strides = [_stride(image, name) for name in DIMS]
    if not all(strides):
        return items, [f"the calibration of a detector with gaps along {DIMS[strides.index(0)]}"]
    shrink = _ellipse_items(image, strides, items, lost)
    _detector_items(image, strides, shrink, items, lost)
    _origin_items(image, items, lost)
    if ROTATION in image.attrs:
        items["QR_rotation"] = math.radians(image.attrs[ROTATION])
        items[DEGREES] = float(image.attrs[ROTATION])
    if ANGLE in image.attrs:
        items["convergence_semiangle_mrad"] = float(image.attrs[ANGLE])
    steps = [step for step in (_step(image, name) for name in SCAN_DIMS if name in image.dims) if step is not None]
    if steps and all(_equal(steps[0], step) for step in steps):
        items |= {"R_pixel_size": steps[0], "R_pixel_units": "nm"}
    elif steps:
        lost.append(f"the scan steps {' and '.join(f'{step:g}' for step in steps)} nm: py4DSTEM has one for both axes")
    return items, lost


def image_of_items(
    items: dict[str, Any], scan_shape: tuple[int, ...], detector_shape: tuple[int, ...], notes: list[str]
) -> xr.DataArray:
    """Make a stand-in for the scan that a calibration of py4DSTEM belongs to.

    Parameters
    ----------
    items
        Values by py4DSTEM's names; what is not understood is left out with a note.
    scan_shape, detector_shape
        (y, x) and (ky, kx).
    notes
        Is added to.
    """
    import xarray as xr

    shape = (*scan_shape, *detector_shape)
    axes = [Axis(name=name, size=size) for name, size in zip((*SCAN_DIMS, *DIMS), shape, strict=True)]
    pixel = np.broadcast_to(np.uint8(0), shape)
    image = xr.DataArray(pixel, dims=(*SCAN_DIMS, *DIMS), coords=scan_coordinates(axes))
    values: dict[str, Any] = {}
    for key, name in (("scan_step", "R"), ("detector_step", "Q")):
        step = _stated_step(items, name, notes)
        values |= {} if step is None else {key: step}
    means = [_mean(items.get(name, items.get(f"{name}_mean"))) for name in ORIGIN]
    if all(mean is not None for mean in means):
        values["detector_center"] = tuple(means)
    degrees, radians, angle = (_mean(items.get(key)) for key in (DEGREES, "QR_rotation", "convergence_semiangle_mrad"))
    if degrees is not None or radians is not None:
        values["scan_rotation"] = math.degrees(radians or 0.0) if degrees is None else degrees
    if angle is not None:
        values["semi_convergence_angle"] = angle
    if _mean(items.get("QR_flip")):
        values["detector_transpose"] = True
    maps = [np.asarray(items.get(name, 0.0)) for name in ORIGIN]
    if all(one.shape == scan_shape and one.dtype.kind in "uif" for one in maps):
        values["origin"] = tuple(xr.DataArray(one, dims=SCAN_DIMS, attrs={"units": "pixel"}) for one in maps)
    elif any(one.ndim for one in maps):
        notes.append(f"{' and '.join(ORIGIN)} are no maps of {scan_shape} positions; their mean is used")
    a, b, theta = (_mean(items.get(name)) for name in ("a", "b", "theta"))
    if a is not None and b is not None and theta is not None:
        values["ellipse"] = {"a": a, "b": b, "theta": math.degrees(theta)}
    return _stated(image, values, notes)


def _stated(image: xr.DataArray, values: dict[str, Any], notes: list[str]) -> xr.DataArray:
    """State values of a file; what cannot be right is left out with a note."""
    for key, value in values.items():
        try:
            image = calibrate(image, **{key: value})
        except InputError as error:
            notes.append(f"{key} of the calibration is left out: {error}")
    return image


def _stated_step(items: dict[str, Any], space: str, notes: list[str]) -> str | None:
    """Text of a size of pixels; None where it is one pixel."""
    size, unit = items.get(f"{space}_pixel_size"), items.get(f"{space}_pixel_units", "pixels")
    if not isinstance(size, (int, float)) or unit == "pixels":
        if isinstance(size, (int, float)) and size != 1:
            notes.append(f"{space}_pixel_size is {size:g} without a unit and is left out")
        return None
    try:
        factor, known = parse_scaled_unit(str(unit))
    except UnitError as error:
        notes.append(f"{space}_pixel_size is left out: {error}")
        return None
    return f"{float(factor) * size:.17g} {known}"


def _mean(value: Any) -> float | None:
    """Mean of the finite numbers of a value; None where there is none."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "uifb":
        return None
    finite = numbers[np.isfinite(numbers)]
    return float(finite.mean()) if finite.size else None


def _stride(image: xr.DataArray, name: str) -> float:
    """Give the stored pixels per visible one; 0 where these lie unevenly."""
    pixels = pixel_axis(image, name)
    steps = np.diff(pixels)
    if not len(steps):
        return 1.0
    return float(steps[0]) if (steps == steps[0]).all() else 0.0


def _step(image: xr.DataArray, name: str) -> float | None:
    """Step of a scan axis in nm; None where it has none."""
    axis = image.coords.get(name)
    if axis is None or axis.attrs.get("units", "pixel") != "nm":
        return None
    values = np.asarray(axis.values, np.float64)
    if values.ndim and len(values) > 1:
        return float(values[-1] - values[0]) / (len(values) - 1)
    return float(axis.attrs.get("step", 1.0))


def _equal(first: float, second: float) -> bool:
    return first > 0 and abs(first - second) <= EQUAL * abs(first)


def _detector_items(
    image: xr.DataArray, strides: list[float], shrink: float, items: dict[str, Any], lost: list[str]
) -> None:
    """Size of a visible pixel, the scale of the ellipse included."""
    items["Q_pixel_size"] = shrink
    units = [image.coords[name].attrs.get("units", "pixel") for name in DIMS]
    if units == ["pixel", "pixel"]:
        return
    if units[0] != units[1] or units[0] not in DETECTOR_UNITS:
        lost.append(f"the detector axes in {' and '.join(sorted(set(units)))}")
        return
    own = detector_unit(image)
    unit, spelling = DETECTOR_UNITS[own]
    steps = [pixel_step(image, name, None) * stride for name, stride in zip(DIMS, strides, strict=True)]
    if not _equal(*steps):
        lost.append(f"pixels of {steps[0]:g} x {steps[1]:g} {units[0]}: py4DSTEM has one size for rows and columns")
        return
    items |= {"Q_pixel_size": shrink * convert_value(steps[0], parse_unit(own), unit), "Q_pixel_units": spelling}


def _ellipse_items(image: xr.DataArray, strides: list[float], items: dict[str, Any], lost: list[str]) -> float:
    """Axes of the ellipse; gives the factor that its correction has besides, which belongs to the size of a pixel."""
    if ELLIPSE not in image.attrs:
        return 1.0
    scale = np.array(strides)
    matrix = np.reshape(np.asarray(image.attrs[ELLIPSE], np.float64), (2, 2)) * scale / scale[:, None]
    if abs(matrix[0, 1] - matrix[1, 0]) > EQUAL or np.linalg.eigvalsh(matrix)[0] <= 0:
        lost.append("the correction of the ellipse, which is not symmetric: py4DSTEM has axes and a direction")
        return 1.0
    (small, large), vectors = np.linalg.eigh(matrix)
    items |= {"a": 1 / small, "b": 1 / large, "theta": math.atan2(vectors[1, 0], vectors[0, 0])}
    return float(large)


def _origin_items(image: xr.DataArray, items: dict[str, Any], lost: list[str]) -> None:
    """Origin of every position, or of all, where it is more than the middle of the detector by default."""
    own = own_origin(image)
    about = [image.coords[name].attrs for name in DIMS]
    if own is None and not all(one.get("units", "pixel") != "pixel" or "optic_axis" in one for one in about):
        return
    away = (np.zeros(()), np.zeros(())) if own is None else displacements(image, own)
    for key, name, shift in zip(ORIGIN, DIMS, away, strict=True):
        rest = to_pixel(image, name, None, optic_axis(image, name, None))
        places = visible(image, name, rest + shift)
        mean = float(np.nanmean(places))
        items[f"{key}_mean"] = mean
        holes = int(np.count_nonzero(np.isnan(places)))
        if holes:
            lost.append(f"that {key} is not known at {holes} positions: its mean is written there")
        if own is None:
            items[key] = mean
        else:
            items[key] = np.where(np.isnan(places), mean, places)
            items[f"{key}_shift"] = items[key] - mean
