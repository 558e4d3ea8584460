"""Where the optic axis is at every position, from the disk of the unscattered beam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.peak_lists import NOTHING, highest, inversion_centres, nearest
from stemstore.ops.calibration.origins import NAMES
from stemstore.ops.disks.plane import detector_unit, labels_of, moves, scan_of, stored
from stemstore.ops.disks.table import table_of
from stemstore.ops.geometry.plane import DIMS, SIDE, pixel_size
from stemstore.ops.labels import labelled, parameters_text
from stemstore.scan.coordinates import from_pixel, optic_axis, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore.ops.disks.table import DiskTable

CHOICES = ("nearest", "brightest", "friedel")


def disk_origin(
    disks: Any,
    *,
    guess: Any = None,
    reach: float | None = None,
    choose: Literal["nearest", "brightest", "friedel"] = "nearest",
    tolerance: float | None = None,
    unit: str | None = None,
) -> xr.Dataset:
    """Find the unscattered beam of every position among its disks, or between them.

    Parameters
    ----------
    disks
        What `find_disks` returned.
    guess
        Where it is looked for: (ky, kx) on the detector axes, or an origin for each position in any form that
        `calibrate` takes. By default what the scan carries, else the optic axis of the detector.
    reach
        Distance from the guess within which it has to lie; any by default. ``"friedel"`` needs it, less than a quarter
        of the shortest lattice vector: a lattice is its own inversion about every half vector, too.
    choose
        ``"nearest"`` to the guess; ``"brightest"``: the one with the largest correlation; ``"friedel"``: the place
        about which most disks have a partner, which need not be a disk (behind a beam stop).
    tolerance
        With ``"friedel"``: distance up to which the middles of two pairs agree; default: one pixel.
    unit
        Unit of `guess`, `reach`, `tolerance` and of the result; default: the unit of the detector axes.

    Returns
    -------
    dataset : dims of the scan, in memory
        As from `measure_origin`, so that `fit_origin` takes it: ``origin_ky`` and ``origin_kx``, places on the detector
        axes; ``origin_ky_sigma`` and ``origin_kx_sigma``, the expected precision of the disk, or the standard error of
        the mean of the pairs; ``quality`` from 0 to 1: the disk's correlation relative to the largest one of the
        pattern, or the share of the disks that have a partner. NaN, with quality 0, where no disk lies within reach, or
        fewer than two pairs agree.

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

    _check(choose, reach, tolerance)
    table = table_of(disks)
    image = scan_of(disks, table)
    units = unit or detector_unit(image)
    sizes = pixel_size(image, units)
    start = _start(image, table, guess, units)
    offsets = [
        (stored(image, name, index) - own[table.position]) * size
        for name, index, own, size in zip(DIMS, (table.qy, table.qx), start, sizes, strict=True)
    ]
    if choose == "friedel":
        found = _pairs(table, offsets, reach, min(sizes) if tolerance is None else tolerance)
    else:
        found = _single(table, offsets, reach, choose, sizes)
    text = None if guess is None else guess if _is_place(guess) else "given"
    line = parameters_text("disk_origin", guess=text, reach=reach, choose=choose, tolerance=tolerance, unit=unit)
    maps: dict[str, tuple[FloatArray, str, str]] = {}
    for number, (name, size) in enumerate(zip(DIMS, sizes, strict=True)):
        places = from_pixel(image, name, units, start[number] + found.place[number] / size)
        maps[f"origin_{name}"] = places, units, f"place of the optic axis along {name}"
        maps[f"origin_{name}_sigma"] = found.sigma[number], units, f"standard error of origin_{name}"
    maps["quality"] = found.quality, "1", "how well the origin is defined, 0 to 1"
    labels, variables = labels_of(disks, image), {}
    for key, (values, own, about) in maps.items():
        one = labelled(np.asarray(values).reshape(table.scan_shape), labels, table.scan_dims, line)
        variables[key] = one.drop_vars(NAMES, errors="ignore").rename(key).assign_attrs(units=own, long_name=about)
    attrs = {"method": f"disks: {choose}", "history": "\n".join([disks.attrs.get("history", ""), line]).strip()}
    return xr.Dataset(variables, attrs=attrs)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Offsets from the guess and their errors, (2, positions) in a unit, and quality (positions,)."""

    place: FloatArray
    sigma: FloatArray
    quality: FloatArray


def _check(choose: str, reach: float | None, tolerance: float | None) -> None:
    if choose not in CHOICES:
        msg = f"choose={choose!r} is not known; use one of {CHOICES}"
        raise InputError(msg, key="choose", found=choose, expected=CHOICES)
    for name, value in (("reach", reach), ("tolerance", tolerance)):
        if value is not None and not (math.isfinite(value) and value > 0):
            msg = f"{name} = {value!r} is not a distance above zero; leave it out for the default"
            raise InputError(msg, key=name, found=value)
    if choose == "friedel" and reach is None:
        msg = "Friedel pairs agree about every half lattice vector; give reach=…, less than a quarter of the shortest"
        raise InputError(msg, key="reach")


def _is_place(guess: Any) -> bool:
    """Tell one place for all positions from maps."""
    return isinstance(guess, (tuple, list)) and len(guess) == SIDE and all(np.ndim(part) == 0 for part in guess)


def _start(image: xr.DataArray, table: DiskTable, guess: Any, unit: str) -> list[FloatArray]:
    """Give the stored pixels of the guess at every position, flat."""
    n = len(table.offset) - 1
    if _is_place(guess):
        rest = [to_pixel(image, name, unit, float(part)) for name, part in zip(DIMS, guess, strict=True)]
        if not np.isfinite(rest).all():
            msg = f"the guess {guess!r} is not finite; give a place (ky, kx) on the detector axes"
            raise InputError(msg, key="guess", found=str(guess))
        return [np.full(n, place) for place in rest]
    away = moves(image, guess) or (np.zeros(n), np.zeros(n))
    rest = [to_pixel(image, name, None, optic_axis(image, name, None)) for name in DIMS]
    return [place + shift for place, shift in zip(rest, away, strict=True)]


def _single(
    table: DiskTable, offsets: list[FloatArray], reach: float | None, choose: str, sizes: tuple[float, float]
) -> _Found:
    """Choose one disk of every position."""
    squares, limit = offsets[0] ** 2 + offsets[1] ** 2, math.inf if reach is None else reach**2
    if choose == "nearest":
        chosen = nearest(table.offset, squares, limit)
    else:
        chosen = highest(table.offset, table.correlation, squares, limit)
    there = chosen != NOTHING
    own = chosen[there]
    place, sigma = np.full((SIDE, len(chosen)), np.nan), np.full((SIDE, len(chosen)), np.nan)
    place[:, there] = [part[own] for part in offsets]
    if table.sigma_q is not None:
        sigma[:, there] = np.outer(sizes, table.sigma_q[own])
    quality = np.zeros(len(chosen))
    best = highest(table.offset, table.correlation, np.zeros(len(table.qy)), 0.0)
    top = table.correlation[best[there]].astype(np.float64)
    quality[there] = np.divide(table.correlation[own], top, out=np.zeros(len(own)), where=top > 0)
    return _Found(place, sigma, quality)


def _pairs(table: DiskTable, offsets: list[FloatArray], reach: float | None, near: float) -> _Found:
    """Find the centre of inversion of the disks of every position."""
    centres, errors, pairs = inversion_centres(table.offset, offsets[0], offsets[1], (reach or 0.0) ** 2, near**2)
    counts = np.maximum(np.diff(table.offset), 1)
    return _Found(centres.T, np.stack([errors, errors]), np.minimum(2 * pairs / counts, 1.0))
