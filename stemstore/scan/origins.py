"""Where the optic axis is at each position of a scan, in whatever form it is given: pixels away from where it rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.coordinates import optic_axis, pixel_step, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray

DETECTOR = ("ky", "kx")
ORIGIN = ("origin_ky", "origin_kx")
"""Coordinates of a scan that hold the optic axis of each position, in stored pixels."""
COM = ("com_y", "com_x")


def displacements(image: xr.DataArray, origin: Any) -> tuple[FloatArray, FloatArray]:
    """Tell how far the origin of each position lies from the optic axis of the scan.

    Parameters
    ----------
    image
        The scan, detector axes last.
    origin
        Dataset with ``com_y`` and ``com_x`` (distances from the optic axis) or with ``origin_ky`` and ``origin_kx``
        (places on the detector axes), or a pair of maps (ky, kx) of places. Units are those of the maps' attribute
        ``units``, else of the detector axes.

    Returns
    -------
    displacements : shape (…scan), unit pixel
        Along ky and kx, stored pixels, not rounded; not finite where the maps are not.

    Raises
    ------
    InputError
        The maps have another shape than the scan, or are no maps.
    CalibrationMissingError
        The scan cannot be expressed in the unit of the maps.
    """
    pair, relative = _maps(origin)
    ky, kx = (_along(image, name, values, relative) for name, values in zip(DETECTOR, pair, strict=True))
    return ky, kx


def own_origin(image: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray] | None:
    """Give the coordinates of a scan that hold its optic axis at each position; None where it has none."""
    found = [image.coords[name] for name in ORIGIN if name in image.coords]
    return (found[0], found[1]) if len(found) == len(ORIGIN) else None


def origin_coordinates(image: xr.DataArray, origin: Any) -> dict[str, xr.Variable]:
    """Make these coordinates from an origin in any form.

    Raises
    ------
    InputError
        As for `displacements`; also where a frame was recorded and the origin is not finite.
    """
    import xarray as xr

    made = {}
    for name, own, away in zip(DETECTOR, ORIGIN, displacements(image, origin), strict=True):
        require_finite(away, image, name)
        rest = to_pixel(image, name, None, optic_axis(image, name, None))
        attrs = {"units": "pixel", "long_name": f"optic axis along {name} at each position"}
        made[own] = xr.Variable(image.dims[:-2], away + rest, attrs)
    return made


def require_finite(pixels: FloatArray, image: xr.DataArray, name: str) -> BoolArray:
    """Mark the positions whose origin matters, after checking that it is finite there.

    Raises
    ------
    InputError
        It is not finite where a frame was recorded.
    """
    needed = np.ones(pixels.shape, bool)
    if "valid" in image.coords:
        needed = np.asarray(image.coords["valid"].transpose(*image.dims[:-2]).values != 0)
    wrong = needed & ~np.isfinite(pixels)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        msg = f"the origin along {name} is not finite at {int(wrong.sum())} positions, first at {first}; fit it first"
        raise InputError(msg, key="origin", position=first)
    return needed


def _maps(origin: Any) -> tuple[tuple[Any, Any], bool]:
    """Give the maps along ky and kx, and whether they count from the optic axis."""
    import xarray as xr

    if isinstance(origin, xr.Dataset):
        for names in (ORIGIN, COM):
            if all(name in origin for name in names):
                return (origin[names[0]], origin[names[1]]), names == COM
        missing = [name for name in COM if name not in origin]
        msg = (
            f"the dataset of origins lacks {missing}; give one with com_y and com_x (from center_of_mass or a fit "
            "to it), one with origin_ky and origin_kx, or a pair of maps (ky, kx)"
        )
        raise InputError(msg, key="origin", found=list(origin.data_vars))
    if not isinstance(origin, (tuple, list)) or len(origin) != len(DETECTOR):
        msg = f"an origin is a pair of maps (ky, kx) or a Dataset with com_y and com_x, not {type(origin).__name__}"
        raise InputError(msg, key="origin", found=type(origin).__name__)
    return (origin[0], origin[1]), False


def _along(image: xr.DataArray, name: str, given: Any, relative: bool) -> FloatArray:
    unit = given.attrs.get("units") if hasattr(given, "attrs") else None
    values = _values(given, image, name)
    if relative:
        return np.asarray(values / pixel_step(image, name, unit))
    rest = to_pixel(image, name, unit, optic_axis(image, name, unit))
    return np.asarray(to_pixel(image, name, unit, values) - rest)


def _values(given: Any, image: xr.DataArray, name: str) -> FloatArray:
    """Values for each position; a map that lacks a scan axis (such as repeated frames) holds all along it."""
    import xarray as xr

    scan = image.dims[:-2]
    if isinstance(given, xr.DataArray) and given.dims and set(given.dims) <= set(scan):
        given = given.transpose(*(dim for dim in scan if dim in given.dims))
        extents = tuple(image.sizes[dim] if dim in given.dims else 1 for dim in scan)
        array = np.asarray(given.values, dtype=np.float64)
        if array.size == np.prod(extents):
            return np.broadcast_to(array.reshape(extents), image.shape[:-2])
    array = np.asarray(getattr(given, "values", given), dtype=np.float64)
    if array.shape != image.shape[:-2]:
        hint = "; a place for all positions is given by detector_center" if array.ndim == 0 else ""
        msg = (
            f"the origin along {name} has shape {array.shape}, but the scan is {image.shape[:-2]}; give a value for "
            f"each position, and select the same positions from both{hint}"
        )
        raise InputError(msg, key="origin", found=array.shape, expected=image.shape[:-2])
    return array
