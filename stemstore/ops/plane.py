"""Where the pixels of a labelled scan lie on the diffraction plane, in the unit that a shape is given in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CalibrationMissingError, InputError

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray

Centre = tuple[float, float]
DIMS = ("ky", "kx")


def axes_in(image: xr.DataArray, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes ky and kx in a unit.

    Raises
    ------
    CalibrationMissingError
        The scan cannot be expressed in that unit.
    """
    return axis_in(image, "ky", unit), axis_in(image, "kx", unit)


def axis_in(image: xr.DataArray, name: str, unit: str | None) -> FloatArray:
    """Give one detector axis in a unit; without a coordinate it counts pixels."""
    from stemstore.scan.coordinates import convert_axis

    coordinate = image.coords.get(name)
    if coordinate is None:
        size = image.sizes[name]
        if unit in (None, "pixel"):
            return np.arange(size, dtype=np.float64)
        msg = f"axis {name!r} has no coordinate, so {unit!r} cannot be used; give the numbers with unit='pixel'"
        raise CalibrationMissingError(msg, key=name)
    return convert_axis(coordinate, image, unit)


def pixel_axis(image: xr.DataArray, name: str) -> FloatArray:
    """Give the stored pixel number of every visible row or column, or plain counting where it is not known."""
    number = image.coords.get(f"{name}_pixel")
    if number is not None:
        return np.asarray(number.values, dtype=np.float64)
    return np.arange(image.sizes[name], dtype=np.float64)


def pixel_step(image: xr.DataArray, name: str, unit: str | None) -> float:
    """Give the distance of neighbouring stored pixels in a unit; negative where the axis runs backwards."""
    axis, pixels = axis_in(image, name, unit), pixel_axis(image, name)
    far = int(np.argmax(np.abs(pixels - pixels[0]))) if len(pixels) else 0
    if far:
        return float((axis[far] - axis[0]) / (pixels[far] - pixels[0]))
    from stemstore.scan.coordinates import unit_factor

    attrs = image.coords[name].attrs if name in image.coords else {}
    own = attrs.get("units", "pixel")
    if unit == "pixel" or own == "pixel":
        return 1.0
    factor = 1.0 if unit in (None, own) else unit_factor(own, str(unit), image.attrs.get("beam_energy_keV"), name)
    return float(attrs.get("step", 1.0)) * factor


def to_pixel(image: xr.DataArray, name: str, unit: str | None, values: Any) -> Any:
    """Turn places on a detector axis, given in a unit, into stored pixel numbers (not rounded)."""
    axis, pixels = axis_in(image, name, unit), pixel_axis(image, name)
    if not len(axis):
        return values
    return (values - axis[0]) / pixel_step(image, name, unit) + pixels[0]


def optic_axis_in(image: xr.DataArray, name: str, unit: str | None) -> float:
    """Where the optic axis lies on a detector axis, in a unit."""
    from stemstore.scan.coordinates import optic_axis

    return optic_axis(image, name, unit)


def offsets(image: xr.DataArray, center: Centre | None, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes relative to a centre, by default the optic axis."""
    ky, kx = axes_in(image, unit)
    if center is None:
        center = (optic_axis_in(image, "ky", unit), optic_axis_in(image, "kx", unit))
    return ky - center[0], kx - center[1]


def pixel_size(image: xr.DataArray, unit: str | None) -> tuple[float, float]:
    """Give height and width of a stored pixel in a unit."""
    return abs(pixel_step(image, "ky", unit)), abs(pixel_step(image, "kx", unit))


def inhabited(mask: Array, detector: Any, image: xr.DataArray) -> Array:
    """Refuse a detector that covers no pixel."""
    if not mask.any():
        spans = [span(axis_in(image, name, None)) for name in DIMS]
        unit = image.coords["ky"].attrs.get("units", "pixel") if "ky" in image.coords else "pixel"
        msg = (
            f"{detector.describe()} covers no pixel; the detector spans ky {spans[0]}, kx {spans[1]} "
            f"in {unit}. Give numbers in that unit, or name theirs with unit='pixel'"
        )
        raise InputError(msg, found=detector.describe())
    return mask


def span(axis: Array) -> str:
    """First and last value of an axis, for messages."""
    return f"{float(np.min(axis)):.4g} … {float(np.max(axis)):.4g}" if len(axis) else "nothing"
