"""From axes in the metadata to coordinates on labelled arrays, and from one unit to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CalibrationMissingError

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore_schemas import Axis

LONG_NAMES = {
    "y": "slow scan axis",
    "x": "fast scan axis",
    "ky": "detector rows",
    "kx": "detector columns",
    "frame": "frame",
}
ANGLES = ("mrad", "rad", "deg")
RECIPROCAL = ("1/angstrom", "1/nm")


def scan_coordinates(axes: list[Axis]) -> dict[str, xr.Variable]:
    """Make index coordinates in the unit of each axis, and pixel numbers as non-index coordinates.

    Parameters
    ----------
    axes
        Scan axes first, then ky and kx.

    Returns
    -------
    coordinates
        ``y, x, ky, kx`` (physical where calibrated) and ``y_pixel, x_pixel, ky_pixel, kx_pixel``.
    """
    import xarray as xr

    coordinates = {}
    for axis in axes:
        attrs: dict[str, Any] = {"units": axis.unit, "long_name": LONG_NAMES.get(axis.name, axis.name)}
        attrs |= {"step": axis.step, "origin": axis.origin, "stored_size": axis.size}
        if axis.source is not None:
            attrs["source"] = axis.source
        coordinates[axis.name] = xr.Variable((axis.name,), axis.coordinates(), attrs)
        pixels = {"units": "pixel", "long_name": f"stored index along {axis.name}"}
        coordinates[f"{axis.name}_pixel"] = xr.Variable((axis.name,), np.arange(axis.size), pixels)
    return coordinates


def convert_axis(coordinate: xr.DataArray, image: xr.DataArray, unit: str | None) -> FloatArray:
    """Give the values of a coordinate in another unit.

    Parameters
    ----------
    coordinate
        Coordinate of the axis, with its attribute ``units``.
    image
        The scan it belongs to: carries the pixel numbers and the beam energy.
    unit
        None for the coordinate's own.

    Raises
    ------
    CalibrationMissingError
        The axis is not calibrated, or the beam energy needed to go between angles and reciprocal lengths is unknown.
    """
    values = np.asarray(coordinate.values, dtype=np.float64)
    own = coordinate.attrs.get("units", "pixel")
    if unit is None or unit == own:
        return values
    pixels = f"{coordinate.name}_pixel"
    if unit == "pixel" and pixels in image.coords:
        return np.asarray(image.coords[pixels].values, dtype=np.float64)
    return values * unit_factor(own, unit, image.attrs.get("beam_energy_keV"), str(coordinate.name))


def unit_factor(own: str, unit: str, beam_energy: float | None, axis: str) -> float:
    """Factor that turns values in `own` into values in `unit`.

    Angles and reciprocal lengths are related by angle = wavelength x k (small angles).

    Raises
    ------
    CalibrationMissingError
        No such factor is known for this scan.
    """
    from stemstore_schemas import convert_value, parse_unit, wavelength

    try:
        here, there = parse_unit(own), parse_unit(unit)
        if here in ANGLES and there in RECIPROCAL and beam_energy:
            return convert_value(1e-3 / wavelength(beam_energy), "1/angstrom", there) * convert_value(1.0, here, "mrad")
        if here in RECIPROCAL and there in ANGLES and beam_energy:
            return convert_value(1e3 * wavelength(beam_energy), "mrad", there) * convert_value(1.0, here, "1/angstrom")
        return convert_value(1.0, here, there)
    except ValueError as error:
        hint = (
            "give beam_energy=… to stemstore.open"
            if own in ANGLES + RECIPROCAL and unit in ANGLES + RECIPROCAL
            else "give detector_step='0.5 mrad' (or scan_step='0.5 nm') to stemstore.open, or use unit='pixel'"
        )
        msg = f"axis {axis!r} is in {own!r} and cannot be expressed in {unit!r} for this scan; {hint}"
        raise CalibrationMissingError(msg, key=axis, found=own, expected=unit) from error


def optic_axis(image: xr.DataArray, name: str, unit: str | None) -> float:
    """Where the optic axis lies on a detector axis.

    Zero once calibrated; before, the pixel that was stated (attribute ``optic_axis``), else the middle of the frame.
    """
    coordinate = image.coords.get(name)
    attrs = {} if coordinate is None else coordinate.attrs
    own = attrs.get("units", "pixel")
    if own == "pixel":
        if "optic_axis" in attrs:
            return float(attrs["optic_axis"])
        return (int(attrs.get("stored_size", image.sizes[name])) - 1) / 2
    if unit == "pixel":
        return float(-attrs["origin"] / attrs["step"])
    return 0.0


def axis_in(image: xr.DataArray, name: str, unit: str | None) -> FloatArray:
    """Give one detector axis in a unit; without a coordinate it counts pixels.

    Raises
    ------
    CalibrationMissingError
        The scan cannot be expressed in that unit.
    """
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


def from_pixel(image: xr.DataArray, name: str, unit: str | None, pixels: Any) -> Any:
    """Turn stored pixel numbers (not whole) of a detector axis into places in a unit."""
    axis, own = axis_in(image, name, unit), pixel_axis(image, name)
    if not len(axis):
        return pixels
    return axis[0] + (pixels - own[0]) * pixel_step(image, name, unit)
