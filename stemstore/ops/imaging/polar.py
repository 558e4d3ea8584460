"""Polar profiles of diffraction patterns: intensity by distance and direction from the optic axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.plane import offsets
from stemstore.ops.geometry.regions import one_turn
from stemstore.ops.imaging.rings import RingOptions, Rings
from stemstore.ops.labels import intensity_of, labelled, parameters_text, scan_dims, without_missing

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray, Int64Array

TURN = 360.0
Statistic = Literal["sum", "mean"]


def polar_profile(
    scan: Any,
    n_angles: int,
    *,
    statistic: Statistic = "sum",
    **options: Unpack[RingOptions],
) -> xr.DataArray:
    """Sum or average every diffraction pattern over cells of rings and directions around the optic axis.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    n_angles
        Number of equal directions in one turn. The first begins at +kx; they go on towards +ky.
    statistic
        ``"sum"``, or ``"mean"`` per pixel.
    **options
        ``bins``, ``edges``, ``center``, ``unit``, ``mask`` and ``origin``: the rings, as in `radial_profile`; ``dark``,
        ``gain`` and ``bad_pixels``.

    Returns
    -------
    profile : dims (y, x, k, angle), lazy
        Sums are exact, uint64 or int64, for integer pixels, else float64; means are float64. Coordinates: ``k``,
        ``k_inner``, ``k_outer``, ``angle`` (middles, degrees) and ``n_pixels`` (k, angle), which is lazy and has the
        dims of the profile where the cells move. Cells without a pixel, as there are near the centre, sum to zero and
        have no mean (NaN). Missing frames sum to zero (NaN where the pixels are floats) and have no mean; the
        coordinate ``valid`` marks them.

    Raises
    ------
    InputError
        The number of directions is not a whole number from 1 on, an unknown statistic, or as in `radial_profile`.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    Every pixel belongs to one cell: nothing is interpolated, and the sums over all directions are the radial profile. A
    cell holds the same pixels as the one of ``segments(inner, outer, n_angles)``. Any number of cells costs one pass.
    Memory per thread: as for `radial_profile`.
    """
    image = intensity_of(scan)
    if isinstance(n_angles, bool) or not isinstance(n_angles, (int, np.integer)) or n_angles < 1:
        msg = f"a turn is cut into a positive number of directions, got n_angles={n_angles!r}"
        raise InputError(msg, key="n_angles", found=n_angles)
    if statistic not in {"sum", "mean"}:
        msg = f"statistic {statistic!r} is not known; expected 'sum' or 'mean'"
        raise InputError(msg, key="statistic", found=statistic, expected=("sum", "mean"))
    rings = Rings.of(image, **options)
    places = offsets(rings.grid, options.get("center"), options.get("unit"))
    labels = _cells(rings.labels, places, int(n_angles))
    shape = (len(rings), int(n_angles))
    n_cells = shape[0] * shape[1]
    sums = rings.group_moments(image, labels, n_cells)
    data = sums.reshape((*sums.shape[:-1], *shape))
    sizes = rings.sizes(sums, labels, n_cells)
    sizes = sizes.reshape((*sizes.shape[:-1], *shape))
    if statistic == "mean":
        data = without_missing(data / np.where(sizes, sizes, np.nan), image)
    history = parameters_text("polar_profile", n_angles=int(n_angles), statistic=statistic, **rings.text)
    dims = (*scan_dims(image), "k", "angle")
    result = labelled(data, image, dims, history)
    middles = (np.arange(n_angles) + 0.5) * (TURN / n_angles)
    about = {"units": "count", "long_name": "detector pixels in the cell"}
    result = result.assign_coords(
        rings.coordinates()
        | {
            "angle": ("angle", middles, {"units": "deg", "long_name": "direction from +kx towards +ky, middle"}),
            "n_pixels": (dims[-sizes.ndim :], sizes, about),
        }
    )
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": f"polar {statistic}"}
    return result.rename("polar_profile")


def _cells(rings: Int64Array, places: tuple[FloatArray, FloatArray], n_angles: int) -> Int64Array:
    """Cell of every pixel, ring by ring; -1 for pixels in no ring."""
    ky, kx = places
    angle = one_turn(np.degrees(np.arctan2(ky, kx)))
    # the borders are computed as those of segments are, so that both cut between the same pixels
    borders = np.array([i * TURN / n_angles for i in range(n_angles)])
    direction = np.searchsorted(borders, angle, side="right") - 1
    return np.where(rings < 0, -1, rings * n_angles + direction).astype(np.int64)
