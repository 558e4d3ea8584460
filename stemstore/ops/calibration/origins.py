"""Measuring where the optic axis meets the detector at every position of a scan, and fitting a smooth model to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.origins import COLUMNS, DiskCentre, InversionCentre, OriginKernel, ThresholdCentre, within
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.geometry.plane import DIMS, pixel_size
from stemstore.ops.geometry.polynomials import N_TERMS, TERMS, fit_maps
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims
from stemstore.ops.phase.com import trusted
from stemstore.scan.blocks import map_kernel
from stemstore.scan.coordinates import axis_in

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray
    from stemstore.ops.geometry.plane import Centre

OriginMethod = Literal["com_disk", "com_threshold", "friedel"]
METHODS = ("com_disk", "com_threshold", "friedel")
MODELS = tuple(name for name in N_TERMS if name != "none")
SAMPLE = 8  # positions per scan axis whose mean pattern gives the radius of the disk, when none is given
NAMES = ("origin_ky", "origin_kx")


def measure_origin(
    scan: Any,
    *,
    method: OriginMethod = "com_disk",
    radius: float | None = None,
    near: Centre | None = None,
    reach: float | None = None,
    mask: Any = None,
    fraction: float = 0.5,
    unit: str | None = None,
) -> xr.Dataset:
    """Measure where the optic axis meets the detector at every position of a scan.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    method
        ``"com_disk"``: centre of mass within 1.2 radii of the brightest disk; the window follows it. Exact for a disk
        that lies apart from others; an even background pulls by less than a tenth of a pixel. ``"com_threshold"``:
        centre of mass of all pixels where the smoothed pattern exceeds `fraction` of its maximum. ``"friedel"``: the
        point about which the pattern is its own inversion, for patterns behind a beam stop (hidden by `mask`).
    radius
        Of the bright-field disk. By default `find_beam` measures it on the mean of up to 64 patterns spread over the
        scan, which are read now. Needed by ``"com_disk"`` alone; ``"com_threshold"`` smooths over a quarter of it.
    near, reach
        (ky, kx) and a distance: the disk (the centre of inversion) is looked for within `reach` of `near` alone, where
        a Bragg disk is brighter than the central one for example. By default on the whole detector.
    mask
        Pixels that take part: a virtual detector, or a boolean array (ky, kx) that is False at hot and dead pixels and
        under a beam stop.
    fraction
        See ``"com_threshold"``.
    unit
        Unit of `radius`, `near`, `reach` and of the result; default: the unit of the detector axes.

    Returns
    -------
    dataset : dims (y, x), lazy
        ``origin_ky``, ``origin_kx``: place of the optic axis *on the detector axes* (not relative to the present
        centre), in the unit given by their attribute ``units``. As the pair ``(d.origin_ky, d.origin_kx)`` they are
        what the argument ``origin`` of `virtual_image` and others takes. ``quality`` from 0 to 1: contrast of the disk
        to its surroundings times the share of it on the detector; for ``"friedel"`` the correlation of the pattern
        with its inversion. ``origin_ky_sigma``, ``origin_kx_sigma``: standard errors that counting statistics leave
        (NaN for ``"friedel"``). Patterns without intensity and missing ones are NaN, with quality 0.

    Raises
    ------
    InputError
        An unknown method, a number out of range, a mask that does not fit, or no disk in the sample of patterns.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    Errors hold for counted data; in detector units multiply them by the square root of the units per electron. For
    ``"com_threshold"`` they are a lower bound: its choice of pixels is noisy itself. Disks are round in pixels. Memory
    per thread: one decoded piece of the scan, and for ``"friedel"`` about ten images of twice the rows and columns of a
    pattern.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> origin = fit_origin(measure_origin(ds), "plane")  # doctest: +SKIP
    >>> image = stemstore.virtual_image(  # doctest: +SKIP
    ...     ds, stemstore.disk(5), origin=(origin.origin_ky, origin.origin_kx)
    ... )
    """
    import xarray as xr

    image = intensity_of(scan)
    good = None if mask is None else _boolean(mask, image)
    if method == "com_disk" and radius is None:
        radius = _sampled_radius(image, good, near, unit)
    kernel = OriginKernel(_method(method, image, good, (radius, near, reach, fraction), unit))
    table = map_kernel(image.data, kernel, recorded(image))
    history = parameters_text(
        "measure_origin",
        method=method,
        radius=radius,
        near=near,
        reach=reach,
        mask=None if mask is None else as_detector(mask).describe(),
        fraction=fraction if method == "com_threshold" else None,
        unit=unit,
    )
    units = unit or _unit_of(image)
    maps: dict[str, tuple[Any, str, str]] = {}
    for number, name in enumerate(DIMS):
        places = _on_axis(table[..., number], axis_in(image, name, unit))
        maps[f"origin_{name}"] = places, units, f"place of the optic axis along {name}"
        sigma = table[..., COLUMNS.index("sigma")] * pixel_size(image, unit)[number]
        maps[f"origin_{name}_sigma"] = sigma, units, f"standard error of origin_{name}"
    maps["quality"] = table[..., COLUMNS.index("quality")], "1", "how well the origin is defined, 0 to 1"
    variables = {}
    for key, (values, own, long_name) in maps.items():
        # an origin that the scan has already would be a coordinate of the same name
        found = labelled(values, image, scan_dims(image), history).drop_vars(NAMES, errors="ignore")
        variables[key] = found.rename(key)
        variables[key].attrs |= {"units": own, "long_name": long_name}
    return xr.Dataset(variables, attrs={"method": method, "history": history})


def fit_origin(
    origin: xr.Dataset, model: str = "plane", *, robust: bool = True, min_quality: float = 0.0
) -> xr.Dataset:
    """Fit a smooth model to the measured origins, and keep both.

    Parameters
    ----------
    origin : dims (y, x)
        From `measure_origin`; lazy ones are computed here, in one pass over the scan. ``origin.where(region)`` keeps to
        a region.
    model
        ``"constant"``, ``"plane"`` or ``"parabola"``: polynomials of order 0, 1 and 2 in the position.
    robust
        Fit again three times without the positions that are further from the fit than twice the RMS.
    min_quality
        Positions with less take no part.

    Returns
    -------
    dataset : dims (y, x) and (term, component), in memory
        ``origin_ky``, ``origin_kx``: the model at every position, also where nothing was measured.
        ``origin_ky_measured``, ``origin_kx_measured`` and ``quality``: what was measured. ``coefficients``: rows
        ``offset``, ``d/dy``, ``d/dx`` … in the unit of the origin per position (index 0 is the first position).
        ``rest``: RMS of measured minus model, over the positions in the fit, per component. ``used``: these positions
        before rejection. The attribute ``n_positions`` is their number after it.

    Raises
    ------
    InputError
        Not the result of `measure_origin` over y and x, an unknown model, or too few positions for it.

    Notes
    -----
    Least squares with positions scaled to [-1, 1]; the rejection has py4DSTEM's numbers. Frames that are missing or
    partial take no part (partial ones do where no frame is complete).
    """
    import xarray as xr
    from dask.base import compute

    if model not in MODELS:
        msg = f"origin model {model!r} is not known; use one of {MODELS}"
        raise InputError(msg, key="model", found=model, expected=MODELS)
    needed = (*NAMES, "quality")
    parts = [origin[name] for name in needed if name in getattr(origin, "data_vars", {})]
    if len(parts) < len(needed) or any(set(part.dims) != {"y", "x"} for part in parts):
        msg = f"expected the result of measure_origin with {needed} over (y, x), got {type(origin).__name__}"
        raise InputError(msg, expected=needed)
    (maps,) = compute([part.transpose("y", "x") for part in parts])
    *places, quality = maps
    vector = np.stack([np.asarray(one.values, np.float64) for one in places])
    usable = trusted(xr.Dataset({"com_y": places[0], "com_x": places[1]})) & (quality.values >= min_quality)
    usable &= np.isfinite(vector).all(axis=0)
    if not usable.any():
        msg = f"no position has a measured origin of quality {min_quality:g} or more, so nothing can be fitted"
        raise InputError(msg, key="origin", found=min_quality)
    fitted = fit_maps(vector, usable, model, robust=robust)
    line = parameters_text("fit_origin", model=model, robust=robust, min_quality=min_quality)
    history = "\n".join([origin.attrs.get("history", ""), line]).strip()
    units = places[0].attrs.get("units", "pixel")
    variables = {"quality": quality}
    for number, one in enumerate(places):
        about = {"history": history, "long_name": f"model of the optic axis along k{str(one.name)[-1]}"}
        variables[str(one.name)] = one.copy(data=fitted.maps[number], deep=False).assign_attrs(about)
        variables[f"{one.name}_measured"] = one
    variables["used"] = (
        places[0].copy(data=usable, deep=False).assign_attrs(units="1", long_name="takes part in the fit")
    )
    result = xr.Dataset(variables, attrs={"model": model, "robust": int(robust), "n_positions": fitted.n_positions})
    result.attrs |= {"method": origin.attrs.get("method", ""), "history": history}
    result["rest"] = ("component", fitted.rest, {"units": units, "long_name": "RMS of measured minus model"})
    about_terms = {"units": units, "long_name": "coefficients of the origin per scan position"}
    result["coefficients"] = (("term", "component"), fitted.coefficients, about_terms)
    return result.assign_coords(term=list(TERMS[: len(fitted.coefficients)]), component=list(NAMES))


def _method(method: str, image: xr.DataArray, good: BoolArray | None, numbers: Any, unit: str | None) -> Any:
    """Turn lengths into pixels and choose the method."""
    radius, near, reach, fraction = numbers
    if method not in METHODS:
        msg = f"method {method!r} is not known; use one of {METHODS}"
        raise InputError(msg, key="method", found=method, expected=METHODS)
    if (near is None) != (reach is None):
        msg = "near and reach belong together: give a place (ky, kx) and a distance, or neither"
        raise InputError(msg, key="near")
    pixel = math.sqrt(math.prod(pixel_size(image, unit)))
    for name, value in (("radius", radius), ("reach", reach)):
        if value is not None and not (math.isfinite(value) and value > 0):
            msg = f"{name} = {value!r} is not a length above zero; give it in {unit or _unit_of(image)}"
            raise InputError(msg, key=name, found=value)
    if not 0 < fraction <= 1:
        msg = f"fraction = {fraction!r} is not a share of the maximum; give a number above 0, up to 1"
        raise InputError(msg, key="fraction", found=fraction)
    place = None if near is None else _index_of(image, near, unit)
    far = math.inf if reach is None else reach / pixel
    if method == "friedel":
        return InversionCentre(good, place, far)
    if method == "com_disk":
        return DiskCentre(max(radius / pixel, 1.0), good, place, far)
    if place is not None:
        close = within((image.shape[-2], image.shape[-1]), place, far)
        good = close if good is None else good & close
    return ThresholdCentre(fraction, 1 if radius is None else max(1, round(radius / pixel / 4)), good)


def _sampled_radius(image: xr.DataArray, good: BoolArray | None, near: Centre | None, unit: str | None) -> float:
    """Radius of the disk in the mean of patterns spread over the scan."""
    from stemstore.ops.calibration.beam import find_beam

    dims = scan_dims(image)
    steps = {dim: slice(None, None, max(1, -(-image.sizes[dim] // SAMPLE))) for dim in dims}
    try:
        return find_beam(image.isel(steps), mask=good, near=near, unit=unit).radius
    except InputError as error:
        msg = f"the radius of the disk cannot be measured ({error}); give radius=…"
        raise InputError(msg, key="radius") from error


def _boolean(mask: Any, image: xr.DataArray) -> BoolArray:
    weights = as_detector(mask).weights(image)
    if weights.dtype != bool:
        msg = f"the mask of an origin is boolean, got weights of type {weights.dtype}; compare them with 0 first"
        raise InputError(msg, key="mask", found=str(weights.dtype))
    return np.asarray(weights)


def _index_of(image: xr.DataArray, place: Centre, unit: str | None) -> tuple[float, float]:
    """Row and column, of the visible detector, of a place on its axes."""
    found = []
    for name, value in zip(DIMS, place, strict=True):
        axis = axis_in(image, name, unit)
        order = np.argsort(axis)
        found.append(float(np.interp(value, axis[order], np.arange(len(axis))[order])))
    return found[0], found[1]


def _on_axis(index: Any, axis: FloatArray) -> Any:
    """Turn rows (columns) of the visible detector into places on its axis; straight on beyond its ends."""
    place: Any = _place  # dask's annotations know no NumPy arrays
    return index.map_blocks(place, axis, dtype=np.float64)


def _place(index: FloatArray, axis: FloatArray) -> FloatArray:
    if len(axis) == 1:
        return np.where(np.isfinite(index), axis[0], np.nan)
    low = np.clip(np.nan_to_num(np.floor(index)), 0, len(axis) - 2).astype(np.int64)
    return np.asarray(axis[low] + (index - low) * (axis[low + 1] - axis[low]), dtype=np.float64)


def _unit_of(image: xr.DataArray) -> str:
    return str(image.coords["ky"].attrs.get("units", "pixel")) if "ky" in image.coords else "pixel"
