"""Centre of mass of every diffraction pattern: exact integer moments first, one division last."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore.kernels.contract import sum_dtype
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.kernels.moments import Moments
from stemstore.ops.corrections import PixelCorrections, corrected, corrections_of, corrections_text
from stemstore.ops.geometry.detectors import as_detector, axes_in
from stemstore.ops.geometry.moved import MovedKernel
from stemstore.ops.geometry.plane import ellipse_in, ellipse_text
from stemstore.ops.geometry.reference import Reference
from stemstore.ops.labels import gathered, intensity_of, labelled, parameters_text, recorded, scan_dims
from stemstore.ops.phase.transform import turned
from stemstore.ops.roi import within
from stemstore.scan.blocks import map_kernel
from stemstore.scan.origins import COM as NAMES
from stemstore.scan.origins import ZERO, origin_coordinates

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from stemstore._types import BoolArray, FloatArray
    from stemstore.kernels.corrections import Corrections
    from stemstore.ops.geometry.detectors import Centre

COMPLETE = 2
"""Value of the coordinate ``valid`` where a frame has the whole detector."""


def center_of_mass(
    scan: Any,
    *,
    mask: Any | None = None,
    center: Centre | None = None,
    unit: str | None = None,
    sigma: bool = False,
    origin: Any = None,
    roi: Any = None,
    **corrections: Unpack[PixelCorrections],
) -> xr.Dataset:
    """Measure the centre of mass of every diffraction pattern.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    mask
        Virtual detector (``disk(…)`` …) or boolean array; pixels outside are left out. Detectors follow the origin of
        each position as in `virtual_image`, by whole pixels; an array belongs to the pixels and stays.
    center
        (ky, kx) that counts as zero for all positions, in place of any origin; by default the optic axis, which is 0 on
        calibrated axes and the middle of the frame, ``(n - 1) / 2``, on pixel axes before one is stated.
    unit
        Unit of `center` and of the result; default: the unit of the detector axes.
    sigma
        Add the standard errors that counting statistics leave.
    origin
        Where zero is at each position (descan), as in `virtual_image`: taken off exactly, not by whole pixels. By
        default that of the scan itself, where `calibrate` gave it one; False counts from the optic axis.
    roi : shape (y, x), boolean
        Positions to look at; the others are not read, and count as missing frames.
    **corrections
        ``dark``, ``gain`` and ``bad_pixels``, of shape (ky, kx), as in `virtual_image`; `mask` applies after them.

    Returns
    -------
    dataset : dims (y, x), lazy
        ``com_y`` (along ky) and ``com_x`` (along kx), float64, relative to the centre; ``total`` (electrons or
        counts under the mask, exact for integers). Where the scan has an ellipse, vectors and errors are corrected and
        the attribute ``com_matrix`` holds the matrix. The coordinates ``origin_ky``, ``origin_kx`` and the attribute
        ``com_zero`` tell of origins that were taken off. Frames without intensity and missing frames give NaN. With
        `sigma` also ``com_y_sigma``, ``com_x_sigma`` and ``com_covariance`` (in the unit squared).

    Raises
    ------
    InputError
        The mask, the origin, the region of interest or a correction does not fit; center and origin are given at once.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    com = (sum k I) / (sum I). The sums are exact integers for integer data on an unbroken region of the detector;
    the division comes last. Memory per thread: one decoded piece of the scan.

    sigma² = (sum (k - com)² I) / N², N = sum I: the variance of a mean of N independent electrons. It holds for counted
    data; in detector units multiply it by the square root of the units per electron. A single electron gives 0.
    """
    import dask.array as da
    import xarray as xr

    image = within(intensity_of(scan), roi)
    zero = Reference.of(image, mask, center, unit, origin)
    axes = axes_in(image, unit)
    even = all(_evenly_spaced(axis) for axis in axes)
    pixels = corrections_of(image, corrections)
    known = recorded(image)
    sums = gathered(_sums(image, partial(Moments, positions=None if even else axes, second=sigma), pixels, zero))
    total = sums[..., 0].astype(sum_dtype(image.dtype) if pixels is None else np.float64)
    there = total > 0
    if known is not None:
        there = there & da.from_array(known, chunks=total.chunks)
    units = unit or image.coords["ky"].attrs.get("units", "pixel") if "ky" in image.coords else "pixel"
    history = parameters_text(
        "center_of_mass",
        mask=None if mask is None else as_detector(mask).describe(),
        center=zero.center,
        unit=units,
        sigma=sigma or None,
        origin=None if zero.drift is None else "of each position",
        ellipse=ellipse_text(image),
        roi=None if roi is None else "given",
        **corrections_text(corrections),
    )
    scales = [
        (float(axis[1] - axis[0]) if len(axis) > 1 else 0.0, float(axis[0])) if even else (1.0, 0.0) for axis in axes
    ]
    number = da.where(there, total, 1).astype(np.float64)
    means = [sums[..., k].astype(np.float64) / number for k in (1, 2)]
    maps = {}
    for k, (mean, (step, first), name) in enumerate(zip(means, scales, NAMES, strict=True)):
        place = mean * step + (first - zero.center[k])
        drift = None if zero.drift is None else da.from_array(zero.drift[k], chunks=total.chunks)
        maps[name] = place if drift is None else place - drift, units, f"centre of mass along k{name[-1]}"
    if sigma:
        maps |= _errors(sums, number, means, (scales[0][0], scales[1][0]), units)
    variables = {}
    for name, (values, own, long_name) in maps.items():
        data = da.where(there, values, np.nan)
        variables[name] = labelled(data, image, scan_dims(image), history).rename(name)
        variables[name].attrs |= {"units": own, "long_name": long_name}
    variables["total"] = labelled(total, image, scan_dims(image), history).rename("total")
    variables["total"].attrs |= {"units": image.attrs.get("units", "count"), "long_name": "intensity under the mask"}
    return _corrected(xr.Dataset(variables, attrs={"history": history}), image, unit, zero)


def _corrected(com: xr.Dataset, image: xr.DataArray, unit: str | None, zero: Reference) -> xr.Dataset:
    """Take the ellipse of the scan off the vectors, and say what they count from."""
    matrix = ellipse_in(image, unit)
    com = com if matrix is None else turned(com, matrix)
    if zero.drift is None:
        return com
    for name in NAMES:
        com[name].attrs[ZERO] = "origin"
    return com.assign_coords(origin_coordinates(image, zero.origin))


def _sums(image: xr.DataArray, make: Callable[..., Moments], corrections: Corrections | None, zero: Reference) -> Any:
    """Moments of raw frames, or of corrected ones: these are sums under corrected weights, unless the mask moves."""
    known = recorded(image)
    keep = None if known is None or known.all() else known
    if zero.movement is not None and zero.mask is not None:
        moved = corrected(MovedKernel.of(make, zero.mask, zero.movement), corrections)
        return map_kernel(image.data, moved, keep, zero.movement.shift)
    kernel = make(zero.mask)
    if corrections is None:
        return map_kernel(image.data, kernel, keep)
    weights, offsets = corrections.fold(kernel.weights((image.sizes["ky"], image.sizes["kx"])))
    sums = map_kernel(image.data, DetectorSums(weights), known)
    return sums if offsets is None else sums - offsets


def _errors(
    sums: Any, number: Any, means: list[Any], steps: tuple[float, float], units: str
) -> dict[str, tuple[Any, str, str]]:
    """Compute standard errors and covariance of the mean position of `number` electrons."""
    (row, column), (y, x) = means, steps
    pairs = ((row, row, y * y), (column, column, x * x), (row, column, y * x))
    moments = [sums[..., k] / number - a * b for k, (a, b, _) in enumerate(pairs, 3)]
    spread = [moment * scale / number for moment, (_, _, scale) in zip(moments, pairs, strict=True)]
    found = {}
    for name, variance in zip("yx", spread[:2], strict=True):
        # rounding can leave a little less than nothing
        found[f"com_{name}_sigma"] = np.sqrt(variance.clip(0)), units, f"standard error of com_{name}"
    return found | {"com_covariance": (spread[2], f"{units}^2", "covariance of com_y and com_x")}


def components(com: Any) -> tuple[xr.DataArray, xr.DataArray]:
    """Give com_y and com_x of a two-dimensional scan, rows first.

    Raises
    ------
    InputError
        The object carries no centre of mass, or has other dims than y and x.
    """
    from stemstore.errors import InputError

    variables = getattr(com, "data_vars", {})
    if not {"com_y", "com_x"} <= set(variables):
        msg = f"expected the result of center_of_mass with com_y and com_x, got {type(com).__name__} {list(variables)}"
        raise InputError(msg, expected=("com_y", "com_x"), found=list(variables))
    found = com["com_y"].dims
    if set(found) != {"y", "x"} or set(com["com_x"].dims) != {"y", "x"}:
        msg = (
            f"a map of the scan with dims ('y', 'x') is needed, got {found}; select one frame first, or call "
            "this for each scan of a series (stemstore.map_scans)"
        )
        raise InputError(msg, expected=("y", "x"), found=found)
    return com["com_y"].transpose("y", "x"), com["com_x"].transpose("y", "x")


def trusted(com: xr.Dataset) -> BoolArray:
    """Mark the positions, (y, x), whose frame is complete; partial ones count where no frame is complete.

    A frame that lost a part of the detector has its centre of mass elsewhere, so it takes no part in fits. Whether
    there is a number at all is for the maps to say (NaN).
    """
    image = components(com)[0]
    if "valid" not in image.coords:
        return np.ones(image.shape, bool)
    valid = np.asarray(image.coords["valid"].transpose("y", "x").values)
    complete = valid == COMPLETE
    return complete if complete.any() else valid > 0


def _evenly_spaced(axis: FloatArray) -> bool:
    steps = np.diff(axis)
    return len(steps) == 0 or bool(np.allclose(steps, steps[0], rtol=1e-9, atol=0) and steps[0] != 0)
