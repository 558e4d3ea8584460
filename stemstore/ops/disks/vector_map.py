"""The Bragg vector map: all disks of a scan laid out on one plane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.peak_map import place, spread
from stemstore.ops.disks.calibration import VECTORS, calibrated
from stemstore.ops.disks.plane import scan_of, stored
from stemstore.ops.disks.table import table_of
from stemstore.ops.geometry.plane import DIMS, SIDE
from stemstore.ops.labels import INHERITED, parameters_text
from stemstore.ops.roi import map_of
from stemstore.scan.coordinates import from_pixel, optic_axis, to_pixel
from stemstore.scan.stated import ELLIPSE, ELLIPSE_AXES, TRANSPOSE

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray
    from stemstore.ops.disks.table import DiskTable

Column = Literal["intensity", "correlation"]
COLUMNS = ("intensity", "correlation")
METHODS: dict[str, Any] = {"bilinear": spread, "nearest": place}
MOST_BINS = 2**28
"""Of a map: 2 GiB."""

OF_THE_DETECTOR = (ELLIPSE, *ELLIPSE_AXES.values(), TRANSPOSE, "scan_rotation_deg")
"""Attributes of a scan that hold for vectors as measured only."""


def bragg_vector_map(
    disks: Any,
    *,
    sampling: float = 1,
    weights: Column | None = "intensity",
    method: Literal["bilinear", "nearest"] = "bilinear",
    centred: bool = False,
    roi: Any = None,
) -> xr.DataArray:
    """Add up the disks of all positions on one diffraction plane.

    Parameters
    ----------
    disks
        What `find_disks` returned, with the calibrated vectors of `calibrate_disks` or without.
    sampling
        Bins per detector pixel.
    weights
        What a disk counts: ``"intensity"``, ``"correlation"`` (what py4DSTEM adds up), or None: one.
    method
        ``"bilinear"``: shared among the four bins around it. ``"nearest"``: given to one bin.
    centred
        False: positions on the detector as measured. True: calibrated vectors, with the optic axis in the middle; those
        of `calibrate_disks` where `disks` has them, else with everything that the scan carries.
    roi : shape of the scan, bool
        Positions to add up; all by default.

    Returns
    -------
    map : dims (ky, kx), float64
        Coordinates are those of the detector axes, or of the calibrated vectors; units as there. Bin 0 of a map on the
        detector is its first visible pixel, bin ``sampling`` the second. Attributes: ``n_disks`` that were added up,
        ``n_outside`` that lie outside of the map, ``n_unweighted`` whose weight is not finite.

    Raises
    ------
    InputError
        No dataset of disks; an option is not known; the map would be too large; no disk has a finite weight.

    Notes
    -----
    The map of calibrated vectors holds the whole detector as it lies around its optic axis, so that disks are outside
    only where the origin moves. Memory: 32 bytes per disk and 8 per bin.

    Examples
    --------
    >>> import stemstore
    >>> plane = stemstore.bragg_vector_map(disks, sampling=4)  # doctest: +SKIP
    >>> stemstore.fit_ellipse(plane, 40, 60)  # doctest: +SKIP
    """
    import xarray as xr

    if method not in METHODS:
        msg = f"method {method!r} is not known; use one of {tuple(METHODS)}"
        raise InputError(msg, key="method", found=method, expected=tuple(METHODS))
    if not (math.isfinite(sampling) and sampling > 0):
        msg = f"sampling = {sampling!r} is no number of bins per pixel; give one above zero"
        raise InputError(msg, key="sampling", found=sampling)
    table = table_of(disks)
    image = scan_of(disks, table)
    if centred:
        places, axes = _around_the_axis(calibrated(disks), image, sampling)
    else:
        places, axes = _on_the_detector(image, table, sampling)
    columns = [*places, _weights(table, weights)]
    if roi is not None:
        inside = map_of(image, roi, "roi", bool).reshape(-1)[table.position]
        columns = [one if len(one) != len(inside) else one[inside] for one in columns]
    shape = tuple(len(axis) for axis in axes.values())
    if math.prod(shape) > MOST_BINS:
        msg = f"the map would have {shape} bins, more than {MOST_BINS}; choose a smaller sampling than {sampling:g}"
        raise InputError(msg, key="sampling", found=shape, expected=MOST_BINS)
    bins = np.zeros(shape)
    outside, unweighted = METHODS[method](*columns, bins)
    total = len(columns[0])
    if total and unweighted == total - outside > 0:
        msg = f"no disk has a finite {weights}; pass weights='correlation' or weights=None"
        raise InputError(msg, key="weights", found=weights)
    line = parameters_text(
        "bragg_vector_map",
        sampling=sampling,
        weights=weights,
        method=method,
        centred=centred,
        roi=None if roi is None else "given",
    )
    gone = OF_THE_DETECTOR if centred else ()
    attrs = {key: image.attrs[key] for key in INHERITED if key in image.attrs and key not in gone} | {
        "units": "count" if weights is None else str(disks[weights].attrs.get("units", "count")),
        "long_name": "Bragg vector map",
        "n_disks": total - outside - unweighted,
        "n_outside": outside,
        "n_unweighted": unweighted,
        "history": "\n".join([disks.attrs.get("history", ""), line]).strip(),
    }
    numbers = {f"{name}_pixel": (name, np.arange(len(axis))) for name, axis in axes.items()}
    return xr.DataArray(bins, dims=DIMS, coords={**axes, **numbers}, attrs=attrs, name="bragg_vector_map")


def _weights(table: DiskTable, weights: str | None) -> Array:
    """Give the weight of every disk; one value for all where they count equally."""
    if weights is None:
        return np.ones(1)
    if weights not in COLUMNS:
        msg = f"weights {weights!r} are not known; use one of {COLUMNS}, or None"
        raise InputError(msg, key="weights", found=weights, expected=COLUMNS)
    return np.asarray(getattr(table, weights))


def _on_the_detector(
    image: xr.DataArray, table: DiskTable, sampling: float
) -> tuple[list[FloatArray], dict[str, xr.Variable]]:
    """Bins of the disks on a grid over the visible detector, and its axes."""
    axes = {}
    for name in DIMS:
        index = np.arange(max(1, round(image.sizes[name] * sampling))) / sampling
        unit = image.coords[name].attrs.get("units", "pixel")
        values = from_pixel(image, name, None, stored(image, name, index))
        axes[name] = _axis(name, values, (str(unit), optic_axis(image, name, None)))
    return [one.astype(np.float64) * sampling for one in (table.qy, table.qx)], axes


def _around_the_axis(
    disks: xr.Dataset, image: xr.DataArray, sampling: float
) -> tuple[list[FloatArray], dict[str, xr.Variable]]:
    """Bins of the calibrated vectors on a grid around zero that holds the whole detector, and its axes."""
    about = disks[VECTORS[0]].attrs
    ends = []
    for name in DIMS:
        rest = to_pixel(image, name, None, optic_axis(image, name, None))
        ends.append(stored(image, name, np.array([-0.5, image.sizes[name] - 0.5])) - rest)
    corners = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, SIDE)
    reach = np.abs(corners @ np.reshape(about["matrix"], (SIDE, SIDE)).T).max(axis=0)
    axes, places = {}, []
    for name, own, far, step in zip(DIMS, VECTORS, reach, about["step"], strict=True):
        width = step / sampling
        half = max(1, math.ceil(far / width - 0.5))  # bins on either side of the one in the middle
        values = (np.arange(2 * half + 1) - half) * width
        axes[name] = _axis(name, values, (str(about["units"]), 0.0))
        places.append(disks[own].values / width + half)
    return places, axes


def _axis(name: str, values: FloatArray, about: tuple[str, float]) -> xr.Variable:
    """Make a coordinate from which operations on patterns learn where the optic axis is."""
    import xarray as xr

    unit, zero = about
    step = float(values[1] - values[0]) if len(values) > 1 else 1.0
    attrs: dict[str, Any] = {"units": unit, "long_name": "detector rows" if name == "ky" else "detector columns"}
    attrs |= {"step": step, "origin": float(values[0]), "stored_size": len(values)}
    return xr.Variable((name,), values, attrs | ({"optic_axis": zero} if unit == "pixel" else {}))
