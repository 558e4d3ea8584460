"""Where the optic axis is at every position, from the disk of the unscattered beam."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.peak_lists import NOTHING, highest, nearest
from stemstore.ops.disk_plane import detector_unit, labels_of, moves, scan_of, stored
from stemstore.ops.disk_table import table_of
from stemstore.ops.labels import labelled, parameters_text
from stemstore.ops.origins import NAMES
from stemstore.ops.plane import DIMS, SIDE, pixel_size
from stemstore.scan.coordinates import from_pixel, optic_axis, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray, Int64Array
    from stemstore.ops.disk_table import DiskTable

CHOICES = ("nearest", "brightest")


def disk_origin(
    disks: Any,
    *,
    guess: Any = None,
    reach: float | None = None,
    choose: Literal["nearest", "brightest"] = "nearest",
    unit: str | None = None,
) -> xr.Dataset:
    """Take one disk of every position for the unscattered beam.

    Parameters
    ----------
    disks
        What `find_disks` returned.
    guess
        Where it is looked for: (ky, kx) on the detector axes, or an origin for each position in any form that
        `calibrate` takes. By default what the scan carries, else the optic axis of the detector.
    reach
        Distance from the guess within which it has to lie; any by default.
    choose
        ``"nearest"`` to the guess, or ``"brightest"``: the one with the largest correlation.
    unit
        Unit of `guess`, `reach` and of the result; default: the unit of the detector axes.

    Returns
    -------
    dataset : dims of the scan, in memory
        As from `measure_origin`, so that `fit_origin` takes it: ``origin_ky`` and ``origin_kx``, places on the detector
        axes; ``origin_ky_sigma`` and ``origin_kx_sigma``, the expected precision of the disk; ``quality``, its
        correlation relative to the largest one of the pattern. NaN, with quality 0, where no disk lies within reach.

    Raises
    ------
    InputError
        No dataset of disks, a number or an option is not understood, or the guess does not fit.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    Single disks are wrong where the unscattered one was missed: give `reach`, and fit a model, whose robust fit leaves
    outliers out.

    Examples
    --------
    >>> import stemstore
    >>> origin = stemstore.fit_origin(stemstore.disk_origin(disks, reach=5), "plane")  # doctest: +SKIP
    >>> disks = stemstore.calibrate_disks(disks, origin=origin)  # doctest: +SKIP
    """
    import xarray as xr

    if choose not in CHOICES:
        msg = f"choose={choose!r} is not known; use one of {CHOICES}"
        raise InputError(msg, key="choose", found=choose, expected=CHOICES)
    if reach is not None and not (math.isfinite(reach) and reach > 0):
        msg = f"reach = {reach!r} is not a distance above zero; leave it out for any"
        raise InputError(msg, key="reach", found=reach)
    table = table_of(disks)
    image = scan_of(disks, table)
    units = unit or detector_unit(image)
    squares = _squares(image, table, guess, units)
    limit = math.inf if reach is None else reach**2
    if choose == "nearest":
        chosen = nearest(table.offset, squares, limit)
    else:
        chosen = highest(table.offset, table.correlation, squares, limit)
    text = None if guess is None else guess if _is_place(guess) else "given"
    history = parameters_text("disk_origin", guess=text, reach=reach, choose=choose, unit=unit)
    labels, found = labels_of(disks, image), {}
    for key, (values, own, about) in _maps(image, table, chosen, units).items():
        one = labelled(values.reshape(table.scan_shape), labels, table.scan_dims, history)
        found[key] = one.drop_vars(NAMES, errors="ignore").rename(key).assign_attrs(units=own, long_name=about)
    attrs = {"method": f"{choose} disk", "history": "\n".join([disks.attrs.get("history", ""), history]).strip()}
    return xr.Dataset(found, attrs=attrs)


def _is_place(guess: Any) -> bool:
    """Tell one place for all positions from maps."""
    return isinstance(guess, (tuple, list)) and len(guess) == SIDE and all(np.ndim(part) == 0 for part in guess)


def _squares(image: xr.DataArray, table: DiskTable, guess: Any, unit: str) -> FloatArray:
    """Squared distance of every disk from the guess, in a unit."""
    away = None if _is_place(guess) else moves(image, guess)
    total = np.zeros(len(table.qy))
    sizes = pixel_size(image, unit)
    for number, (name, index) in enumerate(zip(DIMS, (table.qy, table.qx), strict=True)):
        if _is_place(guess):
            rest = to_pixel(image, name, unit, float(guess[number]))
        else:
            rest = to_pixel(image, name, None, optic_axis(image, name, None))
        if not np.isfinite(rest):
            msg = f"the guess {guess!r} is not finite along {name}; give a place (ky, kx) on the detector axes"
            raise InputError(msg, key="guess", found=str(guess))
        offset = stored(image, name, index) - rest
        if away is not None:
            offset = offset - away[number][table.position]
        total += (offset * sizes[number]) ** 2
    return total


def _maps(
    image: xr.DataArray, table: DiskTable, chosen: Int64Array, unit: str
) -> dict[str, tuple[FloatArray, str, str]]:
    """Place, precision and quality of the chosen disks, flat; NaN and 0 where there is none."""
    there = chosen != NOTHING
    own = chosen[there]
    maps: dict[str, tuple[FloatArray, str, str]] = {}
    for name, index, size in zip(DIMS, (table.qy, table.qx), pixel_size(image, unit), strict=True):
        place, sigma = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
        place[there] = from_pixel(image, name, unit, stored(image, name, index[own]))
        if table.sigma_q is not None:
            sigma[there] = table.sigma_q[own] * size
        maps[f"origin_{name}"] = place, unit, f"place of the optic axis along {name}"
        maps[f"origin_{name}_sigma"] = sigma, unit, f"standard error of origin_{name}"
    quality = np.zeros(len(chosen))
    best = highest(table.offset, table.correlation, np.zeros(len(table.qy)), 0.0)
    top = table.correlation[best[there]].astype(np.float64)
    quality[there] = np.divide(table.correlation[own], top, out=np.zeros(len(own)), where=top > 0)
    maps["quality"] = quality, "1", "correlation relative to the largest one of the pattern"
    return maps
