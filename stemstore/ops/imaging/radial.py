"""Radial profiles of diffraction patterns: sum, mean and variance of the intensity over rings around the optic axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.imaging.rings import Rings
from stemstore.ops.labels import intensity_of, parameters_text, without_missing

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray, Int64Array
    from stemstore.ops.corrections import PixelCorrections
    from stemstore.ops.geometry.plane import Centre

Statistic = Literal["sum", "mean", "variance"]
STATISTICS = ("sum", "mean", "variance")


def radial_profile(
    scan: Any,
    *,
    bins: int | None = None,
    edges: Any = None,
    center: Centre | None = None,
    unit: str | None = None,
    statistic: Statistic = "sum",
    mask: Any = None,
    origin: Any = None,
    **corrections: Unpack[PixelCorrections],
) -> xr.DataArray:
    """Sum, average or take the variance of every diffraction pattern over rings around the optic axis.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    bins
        Number of equally wide rings that together hold the whole detector. By default rings are one pixel wide.
    edges : shape (n_rings + 1,)
        Rising edges of the rings instead, in `unit`. A ring owns its inner edge and not its outer one.
    center
        (ky, kx) of the rings' centre, in `unit`, for all positions, in place of any origin; the optic axis by default.
    unit
        Unit of `edges`, `center` and the result's axis; default: the unit of the detector axes.
    statistic
        ``"sum"``, ``"mean"`` (per pixel) or ``"variance"`` (of the pixels of a ring of one pattern).
    mask
        Pixels that take part: a virtual detector such as ``sector(…)``, or a boolean array (ky, kx) that is False at
        dead pixels. Detectors follow the origin of each position, an array belongs to the pixels and stays.
    origin
        Where the optic axis is at each position (descan), as in `virtual_image`: rings move by whole pixels. By default
        that of the scan itself, where `calibrate` gave it one; False keeps the rings at rest.
    **corrections
        ``dark``, ``gain`` and ``bad_pixels``, of shape (ky, kx), as in `virtual_image`; all results are float64 then.

    Returns
    -------
    profile : dims (y, x, k), lazy
        Sums are exact, uint64 or int64, for integer pixels, else float64; means and variances are float64. Coordinates
        along k: ring middles ``k``, ``k_inner``, ``k_outer`` and ``n_pixels``, which is lazy and has the dims of the
        profile where the rings move. Rings without a pixel sum to zero and have no mean (NaN). Missing frames sum to
        zero (NaN where the pixels are floats) and have no mean; the coordinate ``valid`` marks them.

    Raises
    ------
    InputError
        Bins and edges at once, or center and origin; edges that do not rise from 0 or more, no pixel in any ring, an
        unknown statistic, or a mask or an origin that does not fit.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    The rings hold the same pixels as `annulus` with the same radii, so that sums over neighbouring rings equal the
    virtual image of the larger one exactly. Where the scan has an ellipse, distances are those of the corrected
    vectors. variance = sum (I - mean)^2 / n over the n pixels of a ring, in two passes over dense pixels and from exact
    integers for electrons. Any number of rings costs one pass. Memory per thread: one decoded piece of the scan and the
    profiles of one task (at most about 128 MB, or one profile); rings that move are prepared for each move that occurs,
    and 32 MiB of them are kept. Larger results are computed in smaller pieces, and share no pass in
    `stemstore.compute`.
    """
    image = intensity_of(scan)
    if statistic not in STATISTICS:
        msg = f"statistic {statistic!r} is not known; expected one of {', '.join(STATISTICS)}"
        raise InputError(msg, key="statistic", found=statistic, expected=STATISTICS)
    rings = Rings.of(image, bins=bins, edges=edges, center=center, unit=unit, mask=mask, origin=origin, **corrections)
    data = rings.moments(image) if statistic == "sum" else _per_pixel(image, rings, statistic)
    result = rings.label(data, image, parameters_text("radial_profile", statistic=statistic, **rings.text))
    units = image.attrs.get("units", "count")
    result.attrs |= {"units": f"{units}^2" if statistic == "variance" else units, "long_name": f"radial {statistic}"}
    return result.rename("radial_profile")


def radial_variance(
    scan: Any,
    *,
    bins: int | None = None,
    edges: Any = None,
    center: Centre | None = None,
    unit: str | None = None,
    mask: Any = None,
    origin: Any = None,
    **corrections: Unpack[PixelCorrections],
) -> xr.DataArray:
    """Measure the speckle of every diffraction pattern: the normalised variance over rings, <I^2> / <I>^2 - 1.

    It is large where a ring breaks up into spots, as of medium-range order in glasses (fluctuation electron
    microscopy, Treacy, Gibson, Fan, Paterson and McNulty, Rep. Prog. Phys. 68, 2899, 2005: the annular variance of
    single patterns), and 1 / <I> for electrons that follow chance alone.

    Parameters
    ----------
    scan, bins, edges, center, unit, mask, origin, **corrections
        As in `radial_profile`.

    Returns
    -------
    variance : dims (y, x, k), float64, lazy
        NaN in rings without a pixel or without intensity, and in missing frames. Average over y and x for V(k).

    Raises
    ------
    InputError
        As in `radial_profile`.
    CalibrationMissingError
        As in `radial_profile`.

    Notes
    -----
    = variance / mean^2 of `radial_profile`, in one pass; the same memory.
    """
    image = intensity_of(scan)
    rings = Rings.of(image, bins=bins, edges=edges, center=center, unit=unit, mask=mask, origin=origin, **corrections)
    data = _per_pixel(image, rings, "normalised")
    result = rings.label(data, image, parameters_text("radial_variance", **rings.text))
    result.attrs |= {"long_name": "normalised radial variance"}
    return result.rename("radial_variance")


def _per_pixel(image: xr.DataArray, rings: Rings, what: str) -> Any:
    """Mean, variance or normalised variance over rings; NaN in missing frames."""
    if what == "mean":
        sums = rings.moments(image)
        sizes = rings.sizes(sums)
        data = sums / np.where(sizes, sizes, np.nan)
    else:
        sums = rings.moments(image, spread=True)
        sizes = rings.sizes(sums)
        settle: Any = _variance if what == "variance" else _normalised  # dask's annotations know no NumPy arrays
        axis = sums.ndim - 2
        beside = sizes if sizes.ndim == 1 else sizes[..., None, :]
        data = sums.map_blocks(settle, beside, dtype=np.float64, drop_axis=axis, meta=np.empty((0,) * (axis + 1)))
    return without_missing(data, image)


def _variance(sums: FloatArray, sizes: Int64Array) -> FloatArray:
    sizes = _flat(sizes)
    return np.asarray(sums[..., 1, :] / np.where(sizes, sizes, np.nan), dtype=np.float64)


def _normalised(sums: FloatArray, sizes: Int64Array) -> FloatArray:
    total = np.where(sums[..., 0, :] == 0, np.nan, sums[..., 0, :])
    return np.asarray(sums[..., 1, :] / total * (_flat(sizes) / total), dtype=np.float64)


def _flat(sizes: Int64Array) -> Int64Array:
    """Sizes of the rings, of every position where they differ: (rings,) or (…scan, 1, rings)."""
    return sizes if sizes.ndim == 1 else sizes[..., 0, :]
