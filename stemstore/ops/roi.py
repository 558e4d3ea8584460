"""Regions of interest on the scan, of any shape: positions outside are treated as frames that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.labels import recorded, scan_dims

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array

VALID = 2  # of the coordinate `valid`: the whole frame is there


def map_of(image: xr.DataArray, given: Any, name: str, kind: Any) -> Array:
    """Give the values of a map of the scan; its dims may be in any order.

    Parameters
    ----------
    image
        The scan.
    given
        The map, labelled or not.
    name
        What it is called in messages.
    kind
        ``bool``, or ``np.float64`` for any real numbers.

    Raises
    ------
    InputError
        It has another shape than the scan, or is of another kind.
    """
    import xarray as xr

    if isinstance(given, xr.DataArray) and set(given.dims) == set(scan_dims(image)):
        given = given.transpose(*scan_dims(image))
    values = np.asarray(getattr(given, "values", given))
    fits = values.dtype == bool if kind is bool else values.dtype.kind in "biuf"
    if not fits or values.shape != image.shape[:-2]:
        what = "boolean, such as image > 100" if kind is bool else "of real numbers"
        msg = (
            f"{name} is a map of the scan's shape {image.shape[:-2]}, {what}; got {values.dtype} of shape "
            f"{values.shape}. Select the same positions from both"
        )
        raise InputError(msg, key=name, found=values.shape, expected=image.shape[:-2])
    return values.astype(kind)


def within(image: xr.DataArray, roi: Any) -> xr.DataArray:
    """Give a scan whose positions outside a region count as missing (``valid`` is 0); nothing there is read.

    Parameters
    ----------
    image
        The scan.
    roi : shape (…scan), boolean
        None for all positions.

    Raises
    ------
    InputError
        The region is not boolean or has another shape than the scan.
    """
    if roi is None:
        return image
    region = map_of(image, roi, "roi", bool)
    dims = scan_dims(image)
    state = image.coords["valid"].transpose(*dims).values if recorded(image) is not None else np.uint8(VALID)
    about = image.coords["valid"].attrs if "valid" in image.coords else {"long_name": "2 inside the region, 0 outside"}
    return image.assign_coords(valid=(dims, np.where(region, state, np.uint8(0)).astype(np.uint8), about))
