"""Descan: the part of the deflection that belongs to the microscope and not to the specimen.

The beam does not stand quite still on the detector while it is scanned. A smooth function of the position, fitted to
the centre of mass, or a map measured in vacuum describes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.polynomials import N_TERMS, TERMS, FittedMaps, fit_maps
from stemstore.ops.labels import parameters_text
from stemstore.ops.phase.com import components, trusted

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray

Model = Literal["none", "constant", "plane", "parabola"]
NAMES = ("com_y", "com_x")
SIZES = ("descan_variation", "descan_rest")
"""Attributes and variables that say how large a descan is, and what is left without it."""
SLOPE_WARNING = (
    "a slope of the deflection is a curved phase: what was removed may be signal; compare descan_variation with "
    "descan_rest, and prefer 'constant', or a map measured in vacuum, for phases"
)


def fit_descan(com: xr.Dataset, model: Model | xr.Dataset = "constant", *, robust: bool = False) -> xr.Dataset:
    """Fit the deflection that a scan without a specimen would have.

    Parameters
    ----------
    com
        From `center_of_mass`, with the dims y and x. Positions that are NaN, and frames that are missing or partial,
        take no part (partial ones do where no frame is complete); ``com.where(region)`` keeps to a region.
    model
        ``"none"``, ``"constant"``, ``"plane"`` or ``"parabola"``: polynomials of order 0, 1 and 2 in the position. A
        Dataset with com_y and com_x of the same shape, measured in vacuum, is taken as it is.
    robust
        Fit again three times without the positions that are further from the fit than twice the RMS.

    Returns
    -------
    dataset : dims (y, x) and (term, component), in memory
        ``com_y`` and ``com_x``: the fitted maps, at every position. ``coefficients``: at least the rows ``offset``,
        ``d/dy``, ``d/dx``, in units of the deflection per position (index 0 is the first position of `com`).
        ``descan_variation`` (largest minus smallest fitted value) and ``descan_rest`` (RMS of what is left) per
        component, in the attributes of com_y and com_x as well.

    Raises
    ------
    InputError
        The model is not known, too few positions are left for it, or the map does not fit the scan.

    Notes
    -----
    **Removing more than a constant removes signal as well**: a plane in the deflection is a quadratic part of the
    phase, which no fit can tell from descan. Such fits carry the attribute ``warning``. Least squares, with
    positions scaled to [-1, 1]. The maps are computed here, lazy ones by one pass over the data.
    """
    import xarray as xr
    from dask.base import compute

    com_y, com_x = components(com)
    (maps,) = compute([com_y, com_x])
    vector = np.stack([np.asarray(image.values, np.float64) for image in maps])
    usable = trusted(com)
    if isinstance(model, xr.Dataset):
        name = "map"
        reference = np.stack([image.values for image in compute(*same_positions(model, com))])
        left = (vector - reference)[:, usable]
        left = left[:, np.isfinite(left).all(axis=0)]
        if not left.size:
            msg = "the reference map has no position in common with the centre of mass"
            raise InputError(msg, key="model")
        fitted = FittedMaps(reference, np.zeros((0, 2)), np.sqrt((left**2).mean(axis=1)), left.shape[1])
    else:
        name = check_model(model)
        fitted = fit_maps(vector, usable, model, robust=robust)
    return _labelled_fit(fitted, com_y, name, robust=robust)


def subtract_descan(com: xr.Dataset, fit: xr.Dataset) -> xr.Dataset:
    """Take a fitted or measured descan off the centre of mass.

    Parameters
    ----------
    com
        From `center_of_mass`, with the dims y and x.
    fit
        From `fit_descan`, or any Dataset with com_y and com_x of the same positions (in another unit if need be).

    Returns
    -------
    dataset : dims (y, x), lazy where `com` is
        `com` with com_y and com_x reduced; its attributes say which descan and repeat the warning of the fit.

    Raises
    ------
    InputError
        The two belong to different positions.
    """
    name = joined(components(com)[0].attrs, fit.attrs.get("descan", "map"))
    line = parameters_text("subtract_descan", descan=fit.attrs.get("descan", "map"))
    result = com.copy()
    for image, part in zip(components(com), same_positions(fit, com), strict=True):
        reduced = image - part.data
        history = "\n".join([image.attrs.get("history", ""), line]).strip()
        reduced.attrs = {**image.attrs, **_said(fit, part.attrs), "descan": name, "history": history}
        result[image.name] = reduced
    result.attrs = {**com.attrs, "history": "\n".join([com.attrs.get("history", ""), line]).strip()}
    return result


def same_positions(reference: xr.Dataset, com: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Check that a map belongs to the positions of a scan; gives its components in the unit of the scan's.

    Two scans of one shape may differ in step, so positions are compared by their stored indices and not in nm.
    """
    from stemstore.scan.coordinates import unit_factor

    parts, images = components(reference), components(com)
    if parts[0].shape != images[0].shape:
        msg = (
            f"the descan map has {parts[0].shape} positions (y, x) but the scan has {images[0].shape}; "
            "select the same positions from both"
        )
        raise InputError(msg, expected=images[0].shape, found=parts[0].shape)
    for key in ("y_pixel", "x_pixel"):
        stored = [part.coords[key].values for part in (parts[0], images[0]) if key in part.coords]
        if len(stored) > 1 and not np.array_equal(*stored):
            msg = f"descan map and scan are different selections along {key[0]!r}; select the same positions from both"
            raise InputError(msg, key=key)
    result = []
    for part, image in zip(parts, images, strict=True):
        units = [one.attrs.get("units", "pixel") for one in (part, image)]
        energy = image.attrs.get("beam_energy_keV", part.attrs.get("beam_energy_keV"))
        factor = 1.0 if units[0] == units[1] else unit_factor(units[0], units[1], energy, f"k{str(image.name)[-1]}")
        result.append((part * factor).assign_attrs(part.attrs | {"units": units[1]}))
    return result[0], result[1]


def check_model(model: str) -> str:
    """Give the name of a known model.

    Raises
    ------
    InputError
        It is not one.
    """
    if model not in N_TERMS:
        msg = f"descan {model!r} is not known; use one of {tuple(N_TERMS)} or a Dataset with com_y and com_x"
        raise InputError(msg, key="descan", found=model, expected=tuple(N_TERMS))
    return model


def joined(attrs: dict[str, Any], model: str) -> str:
    """Name all descan that was taken off: what attributes tell, and one more."""
    parts = [part for part in (attrs.get("descan", "none"), model) if part != "none"]
    return " + ".join(parts) or "none"


def descan_sizes(stack: FloatArray, model: str) -> FloatArray:
    """Give span of the fit and RMS of the rest, (2, 2), for a stack of both components and the usable positions."""
    fitted = fit_maps(np.asarray(stack[:2], np.float64), stack[2] > 0, model)
    return np.stack([fitted.variation, fitted.rest])


def _labelled_fit(fitted: FittedMaps, like: xr.DataArray, model: str, *, robust: bool) -> xr.Dataset:
    import xarray as xr

    units = like.attrs.get("units", "pixel")
    history = "\n".join(
        [like.attrs.get("history", ""), parameters_text("fit_descan", model=model, robust=robust)]
    ).strip()
    attrs: dict[str, Any] = {
        "descan": model,
        "robust": int(robust),
        "n_positions": fitted.n_positions,
        "history": history,
    }
    if model in ("plane", "parabola"):
        attrs["warning"] = SLOPE_WARNING
    variables = {}
    for number, name in enumerate(NAMES):
        said = {"descan_variation": float(fitted.variation[number]), "descan_rest": float(fitted.rest[number])}
        variables[name] = like.copy(data=fitted.maps[number], deep=False).rename(name)
        variables[name].attrs = {**like.attrs, **attrs, **said, "long_name": f"descan along k{name[-1]}"}
    result = xr.Dataset(variables, attrs=attrs)
    about = ("span of the fitted maps", "RMS of the deflection without descan")
    for key, values, long_name in zip(SIZES, (fitted.variation, fitted.rest), about, strict=True):
        result[key] = ("component", values, {"units": units, "long_name": long_name})
    if len(fitted.coefficients):
        about_terms = {"units": units, "long_name": "coefficients of the descan per scan position"}
        result["coefficients"] = (("term", "component"), fitted.coefficients, about_terms)
        result = result.assign_coords(term=list(TERMS[: len(fitted.coefficients)]))
    return result.assign_coords(component=list(NAMES))


def _said(fit: xr.Dataset, attrs: dict[str, Any]) -> dict[str, Any]:
    """Take from a fit what the result of its subtraction repeats."""
    kept: dict[str, Any] = {key: attrs[key] for key in SIZES if key in attrs}
    if "warning" in fit.attrs:
        kept["warning"] = fit.attrs["warning"]
    return kept
