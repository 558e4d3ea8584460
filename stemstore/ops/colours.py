"""Pictures of vector maps: hue shows the direction, brightness the length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.com import components

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray

SATURATION = 0.9
UNKNOWN = 0.5  # grey
QUANTILE = 0.995  # of the lengths: a few outliers do not darken the picture


def com_colours(com: xr.Dataset, *, longest: float | None = None) -> xr.DataArray:
    """Draw a centre of mass as a colour wheel: hue for direction, brightness for length.

    Parameters
    ----------
    com
        From `center_of_mass` or `dpc`, with the dims y and x.
    longest
        Length of full brightness, in the unit of the deflection; default: 99.5 % of the lengths are shorter.

    Returns
    -------
    image : dims (y, x, rgb), in memory, values 0 … 1
        Red points along +x (columns), and the hue turns towards +y (rows) through yellow and green. Positions
        without a deflection are grey. The attribute ``longest`` holds the length of full brightness.

    Raises
    ------
    InputError
        `com` is no map of deflections, or `longest` is not positive.
    """
    import xarray as xr
    from dask.base import compute

    maps = compute(*components(com))
    field = np.stack([np.asarray(image.values, np.float64) for image in maps], axis=-1)
    lengths = np.hypot(field[..., 0], field[..., 1])
    if longest is None:
        known = lengths[np.isfinite(lengths)]
        longest = float(np.quantile(known, QUANTILE)) if known.size else 1.0
        longest = longest or 1.0  # no deflection anywhere: black
    elif not longest > 0:
        msg = f"longest is the length shown at full brightness and must be positive, got {longest}"
        raise InputError(msg, key="longest", found=longest)
    coords = {**maps[0].coords, "rgb": ["red", "green", "blue"]}
    attrs = {"long_name": "direction and length of the centre of mass", "longest": longest}
    attrs["units"] = "1"
    attrs["longest_units"] = maps[0].attrs.get("units", "pixel")
    return xr.DataArray(vector_colours(field, longest), dims=("y", "x", "rgb"), coords=coords, attrs=attrs)


def vector_colours(field: Array, longest: float) -> FloatArray:
    """Colours, (y, x, 3) in 0 … 1, of a field (y, x, 2) of rows and columns; NaN is grey."""
    row, column = field[..., 0], field[..., 1]
    known = np.isfinite(row) & np.isfinite(column)
    hue = np.where(known, (np.arctan2(row, column) / (2 * np.pi)) % 1.0, 0.0)
    value = np.where(known, np.clip(np.hypot(row, column) / longest, 0, 1), 0.0)
    colours = from_hsv(hue, SATURATION, value)
    colours[~known] = UNKNOWN
    return colours


def from_hsv(hue: FloatArray, saturation: float, value: FloatArray) -> FloatArray:
    """Convert hue, saturation and value (0 … 1) to red, green and blue in a last axis.

    Each colour is ``value`` less ``value * saturation`` times a trapezoid of the hue, shifted by a third of the circle
    (A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978, in its closed form).
    """
    sixth = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue[..., None]) % 6.0
    less = np.clip(np.minimum(sixth, 4.0 - sixth), 0.0, 1.0)
    result: FloatArray = value[..., None] * (1.0 - saturation * less)
    return result
