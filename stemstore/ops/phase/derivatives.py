"""Derivatives of the deflection over the scan: divergence and curl, with steps, units and signs in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.labels import parameters_text
from stemstore.ops.phase.com import components

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from stemstore._types import FloatArray

Steps = tuple[float, float]


def divergence(com: xr.Dataset) -> xr.DataArray:
    """Measure the divergence of the deflection, d com_y / dy + d com_x / dx.

    For a thin specimen it is proportional to minus the projected charge density, blurred by the probe: negative at
    atoms.

    Parameters
    ----------
    com
        From `center_of_mass`, with the dims y and x.

    Returns
    -------
    image : dims (y, x), lazy
        In units of the deflection per unit of the scan axes (pixels where these are not calibrated). Positions
        without a deflection and those whose difference needs one of them are NaN.

    Raises
    ------
    InputError
        The scan has a single row or column, or positions at irregular steps.

    Notes
    -----
    Differences are those of `numpy.gradient`: central inside, one-sided at the borders.
    """
    return _derived(com, divergence_of, "divergence")


def curl(com: xr.Dataset) -> xr.DataArray:
    """Measure the curl of the deflection, d com_x / dy - d com_y / dx.

    The gradient of a phase has none, so what is left tells of a wrong rotation between detector and scan, of noise
    or of magnetic fields. The sign is that of py4DSTEM and quantem; LiberTEM's is the opposite.

    Parameters
    ----------
    com
        From `center_of_mass`, with the dims y and x.

    Returns
    -------
    image : dims (y, x), lazy
        In units of the deflection per unit of the scan axes (pixels where these are not calibrated). Positions
        without a deflection and those whose difference needs one of them are NaN.

    Raises
    ------
    InputError
        The scan has a single row or column, or positions at irregular steps.

    Notes
    -----
    Differences are those of `numpy.gradient`: central inside, one-sided at the borders.
    """
    return _derived(com, curl_of, "curl")


def divergence_of(vector: FloatArray, steps: Steps) -> FloatArray:
    """Divergence, (y, x), of components (2, y, x); NaN where a component or a neighbour that is needed is NaN."""
    result = np.gradient(vector[0], steps[0], axis=0) + np.gradient(vector[1], steps[1], axis=1)
    return np.where(np.isfinite(vector).all(axis=0), result, np.nan)  # a central difference skips its own position


def curl_of(vector: FloatArray, steps: Steps) -> FloatArray:
    """Curl, (y, x), of components (2, y, x); NaN where a component or a neighbour that is needed is NaN."""
    result = np.gradient(vector[1], steps[0], axis=0) - np.gradient(vector[0], steps[1], axis=1)
    return np.where(np.isfinite(vector).all(axis=0), result, np.nan)


def scan_steps(image: xr.DataArray, unit: str | None = None) -> tuple[Steps, str]:
    """Give the signed steps along y and x in one unit.

    Parameters
    ----------
    image
        Map with the dims (y, x); axes without coordinates count positions.
    unit
        Wanted unit; default: that of the y axis.

    Returns
    -------
    steps, unit
        A step is negative where a selection runs backwards.

    Raises
    ------
    InputError
        An axis has one position, or irregular or vanishing steps.
    CalibrationMissingError
        An axis cannot be expressed in the unit.
    """
    from stemstore.scan.coordinates import unit_factor

    steps = []
    for name in ("y", "x"):
        n = image.sizes[name]
        if n < 2:  # noqa: PLR2004  # a difference needs two points
            msg = f"derivatives and integration need at least two positions along {name!r}, got {n}"
            raise InputError(msg, key=name, found=n)
        axis = image.coords.get(name)
        own = "pixel" if axis is None else axis.attrs.get("units", "pixel")
        step = np.diff(np.arange(n) if axis is None else axis.values)
        if step[0] == 0 or not np.allclose(step, step[0], rtol=1e-6, atol=0):
            msg = f"scan axis {name!r} is not evenly spaced; select positions with a regular step"
            raise InputError(msg, key=name)
        unit = unit or own
        steps.append(float(step[0]) * (1.0 if own == unit else unit_factor(own, unit, None, name)))
    return (steps[0], steps[1]), unit or "pixel"


def stacked(*maps: xr.DataArray) -> Any:
    """Stack maps of one scan to a dask array (n, y, x) in one piece: a few images, whatever the size of the data."""
    import dask.array as da

    return da.stack([da.asarray(image.data) for image in maps]).rechunk(-1)


def _derived(com: xr.Dataset, function: Callable[..., FloatArray], name: str) -> xr.DataArray:
    com_y, com_x = components(com)
    steps, unit = scan_steps(com_y)
    stack = stacked(com_y, com_x)
    meta = np.empty((0, 0))  # given, so that dask does not try the function on nothing
    data = stack.map_blocks(function, steps, drop_axis=0, chunks=stack.chunks[1:], dtype=np.float64, meta=meta)
    result = com_y.copy(data=data, deep=False).rename(name)
    history = "\n".join([com_y.attrs.get("history", ""), parameters_text(name)]).strip()
    units = f"{com_y.attrs.get('units', 'pixel')}/{unit}"
    result.attrs = {**com_y.attrs, "units": units, "long_name": f"{name} of the centre of mass", "history": history}
    return result
