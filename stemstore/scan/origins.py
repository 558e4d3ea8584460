"""Where the optic axis is at each position of a scan, in whatever form it is given: pixels away from where it rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.coordinates import from_pixel, optic_axis, pixel_step, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray

DETECTOR = ("ky", "kx")
ORIGIN = ("origin_ky", "origin_kx")
"""Coordinates of a scan that hold the optic axis of each position, in stored pixels."""
COM = ("com_y", "com_x")
MATRIX = "com_matrix"
"""Attribute of deflections: the matrix, row by row, that was applied to them."""
ZERO = "com_zero"
"""Attribute of deflections: ``"origin"`` where they count from the coordinates `ORIGIN` that they carry."""


def displacements(image: xr.DataArray, origin: Any) -> tuple[FloatArray, FloatArray]:
    """Tell how far the origin of each position lies from the optic axis of the scan.

    Parameters
    ----------
    image
        The scan, detector axes last.
    origin
        Dataset with ``com_y`` and ``com_x`` (distances from the optic axis, or from the origins that the result of
        `center_of_mass` carries; matrices that were applied are taken back) or with ``origin_ky`` and ``origin_kx``
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
    import xarray as xr
    from dask.base import compute

    if isinstance(origin, xr.Dataset):
        if all(name in origin.data_vars for name in COM):
            return _deflected(image, *compute(*(origin[name] for name in COM)))
        if not all(name in origin for name in ORIGIN):
            msg = (
                f"the dataset of origins lacks {[name for name in COM if name not in origin]}; give one with com_y and "
                "com_x (from center_of_mass or a fit to it), with origin_ky and origin_kx, or a pair of maps (ky, kx)"
            )
            raise InputError(msg, key="origin", found=list(origin.data_vars))
        origin = tuple(origin[name] for name in ORIGIN)
    if not isinstance(origin, (tuple, list)) or len(origin) != len(DETECTOR):
        msg = f"an origin is a pair of maps (ky, kx) or a Dataset with com_y and com_x, not {type(origin).__name__}"
        raise InputError(msg, key="origin", found=type(origin).__name__)
    ky, kx = compute(*origin)  # both in one pass, where they are lazy
    return _placed(image, ky, "ky"), _placed(image, kx, "kx")


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


def in_pixels_of(image: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Express origin and ellipse of a scan in the pixels of another view of it.

    Parameters
    ----------
    image
        The scan.
    other
        The same scan on other pixels, such as boxes; its axes are in the unit of those of `image`.
    """
    from stemstore.scan.stated import ELLIPSE

    scale = []
    for name, own in zip(DETECTOR, ORIGIN, strict=True):
        scale.append(pixel_step(other, name, None) / pixel_step(image, name, None))
        if own in image.coords:
            place = from_pixel(image, name, None, to_pixel(image, name, "pixel", image.coords[own]))
            moved = from_pixel(other, name, "pixel", to_pixel(other, name, None, place))
            other = other.assign_coords({own: moved.variable.copy(deep=False)})
            other.coords[own].attrs = image.coords[own].attrs
    if ELLIPSE in image.attrs:
        p, q, r, s = image.attrs[ELLIPSE]
        other = other.assign_attrs({ELLIPSE: [p, q * scale[1] / scale[0], r * scale[0] / scale[1], s]})
    return other


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


def _placed(image: xr.DataArray, given: Any, name: str) -> FloatArray:
    """Distances of places on a detector axis from the optic axis, in stored pixels."""
    unit = given.attrs.get("units") if hasattr(given, "attrs") else None
    rest = to_pixel(image, name, unit, optic_axis(image, name, unit))
    return np.asarray(to_pixel(image, name, unit, _values(given, image, name)) - rest)


def _deflected(image: xr.DataArray, *parts: xr.DataArray) -> tuple[FloatArray, FloatArray]:
    """Distances from the optic axis, in stored pixels, that com_y and com_x tell."""
    vectors = np.stack([_values(part, image, name) for part, name in zip(parts, DETECTOR, strict=True)], axis=-1)
    if MATRIX in parts[0].attrs:
        vectors = vectors @ np.linalg.inv(np.reshape(parts[0].attrs[MATRIX], (len(COM), len(COM)))).T
    steps = [pixel_step(image, name, part.attrs.get("units")) for part, name in zip(parts, DETECTOR, strict=True)]
    ky, kx = (vectors[..., number] / step for number, step in enumerate(steps))
    zero = own_origin(parts[0]) if parts[0].attrs.get(ZERO) == "origin" else None
    if zero is None:
        return ky, kx
    return ky + _placed(image, zero[0], "ky"), kx + _placed(image, zero[1], "kx")


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
