"""Pictures of vector maps: hue shows the direction, brightness the length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemstore.ops.phase.com import components
from stemstore.scan.drawing.colours import from_hsv, full_brightness, vector_colours

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["com_colours", "from_hsv", "vector_colours"]


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
    longest = full_brightness(field, longest)
    coords = {**maps[0].coords, "rgb": ["red", "green", "blue"]}
    attrs = {"long_name": "direction and length of the centre of mass", "longest": longest}
    attrs["units"] = "1"
    attrs["longest_units"] = maps[0].attrs.get("units", "pixel")
    return xr.DataArray(vector_colours(field, longest), dims=("y", "x", "rgb"), coords=coords, attrs=attrs)
