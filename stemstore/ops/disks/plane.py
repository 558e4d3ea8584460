"""Where disks lie on the diffraction plane: from pixels of the visible detector to its axes, and to the optic axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.origin import chosen_origin
from stemstore.ops.geometry.plane import DIMS
from stemstore.ops.roi import VALID
from stemstore.scan.coordinates import optic_axis, pixel_axis, to_pixel
from stemstore.scan.origins import displacements, require_finite

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray
    from stemstore.ops.disks.table import DiskTable


def scan_of(disks: xr.Dataset, table: DiskTable) -> xr.DataArray:
    """Give a stand-in for the scan that disks were found in: its labels alone, no pixels.

    Parameters
    ----------
    disks, table
        The dataset, and what `table_of` made of it.

    Returns
    -------
    image : dims (…scan, ky, kx)
        With the coordinates and attributes of the disks; ``valid`` marks the positions that have disks, so that what is
        not known elsewhere does no harm.
    """
    import xarray as xr

    dims = (*table.scan_dims, *DIMS)
    pixel = np.broadcast_to(np.uint8(0), (*table.scan_shape, *table.detector_shape))
    coords = {name: one for name, one in disks.coords.items() if set(one.dims) <= set(dims) and name != "processed"}
    image = xr.DataArray(pixel, dims=dims, coords=coords, attrs=disks.attrs)
    marks: dict[str, Any] = {"valid": (table.scan_dims, np.where(table.n_disks > 0, VALID, 0))}
    for name in DIMS:
        if f"{name}_pixel" not in coords:
            marks[f"{name}_pixel"] = name, _stored_numbers(image, name)
    return image.assign_coords(marks)


def labels_of(disks: xr.Dataset, image: xr.DataArray) -> xr.DataArray:
    """Give the stand-in with the marks of the disks themselves, for the labels of results."""
    plain = image.drop_vars("valid").assign_coords(processed=disks["processed"])
    return plain.assign_coords(valid=disks.coords["valid"]) if "valid" in disks.coords else plain


def detector_unit(image: xr.DataArray) -> str:
    """Give the unit of the detector axes.

    Raises
    ------
    InputError
        The two differ.
    """
    units = [str(image.coords[name].attrs.get("units", "pixel")) for name in DIMS]
    if units[0] != units[1]:
        msg = f"the detector axes are in {units[0]!r} and {units[1]!r}; name one unit for both with unit=…"
        raise InputError(msg, key="unit", found=units)
    return units[0]


def stored(image: xr.DataArray, name: str, index: Array) -> FloatArray:
    """Turn rows (columns) of the visible detector, not whole, into stored pixel numbers; straight on at its ends."""
    pixels = pixel_axis(image, name)
    index = np.asarray(index, np.float64)
    if len(pixels) == 1:
        return pixels[0] + index
    steps = np.diff(pixels)
    if (steps == steps[0]).all():
        return np.asarray(pixels[0] + steps[0] * index)
    low = np.clip(np.nan_to_num(np.floor(index)), 0, len(steps) - 1).astype(np.int64)
    return np.asarray(pixels[low] + (index - low) * steps[low])


def visible(image: xr.DataArray, name: str, pixels: Any) -> FloatArray:
    """Turn stored pixel numbers into rows (columns) of the visible detector, the inverse of `stored`."""
    own, pixels = pixel_axis(image, name), np.asarray(pixels, np.float64)
    if len(own) == 1:
        return np.asarray(pixels - own[0])
    steps = np.diff(own)
    if (steps == steps[0]).all():
        return np.asarray((pixels - own[0]) / steps[0])
    if not (steps > 0).all():
        msg = f"the detector axis {name!r} goes back and forth, so that places on it have no number; select it in order"
        raise InputError(msg, key=name)
    low = np.clip(np.searchsorted(own, pixels, "right") - 1, 0, len(steps) - 1)
    return np.asarray(low + (pixels - own[low]) / steps[low])


def moves(image: xr.DataArray, origin: Any) -> tuple[FloatArray, FloatArray] | None:
    """Tell how far the origin of every position lies from the optic axis, in stored pixels, flat; None for nowhere.

    Parameters
    ----------
    image
        From `scan_of`.
    origin
        As an argument of operations: None for what the scan carries, False for none, or any form that
        `stemstore.scan.origins.displacements` knows.

    Raises
    ------
    InputError
        The origin is not finite at a position with disks, or does not fit the scan.
    """
    origin = chosen_origin(image, origin)
    if origin is None:
        return None
    ky, kx = displacements(image, origin)
    for name, pixels in zip(DIMS, (ky, kx), strict=True):
        require_finite(pixels, image, name)
    return ky.reshape(-1), kx.reshape(-1)


def from_axis(image: xr.DataArray, table: DiskTable, origin: Any) -> tuple[FloatArray, FloatArray]:
    """Give the distance of every disk from the optic axis at its position, in stored pixels, rows and columns."""
    away = moves(image, origin)
    position = None if away is None else table.position
    found = []
    for number, (name, index) in enumerate(zip(DIMS, (table.qy, table.qx), strict=True)):
        rest = to_pixel(image, name, None, optic_axis(image, name, None))
        places = stored(image, name, index) - rest
        found.append(places if away is None else places - away[number][position])
    return found[0], found[1]


def _stored_numbers(image: xr.DataArray, name: str) -> FloatArray:
    """Work out stored pixel numbers from the step and origin that an axis says it has; count where it says nothing."""
    axis = image.coords.get(name)
    if axis is None or "step" not in axis.attrs:
        return np.arange(image.sizes[name], dtype=np.float64)
    return np.asarray((axis.values - axis.attrs.get("origin", 0.0)) / axis.attrs["step"])
