"""Radial profiles of diffraction patterns: sum, mean and variance of the intensity over rings around the optic axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.contract import sum_dtype
from stemstore.ops.labels import intensity_of, parameters_text, without_missing
from stemstore.ops.rings import Rings
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion
    from stemstore.ops.plane import Centre

Statistic = Literal["sum", "mean", "variance"]
STATISTICS = ("sum", "mean", "variance")


@dataclass(frozen=True, slots=True, eq=False)
class RingMoments:
    """Kernel: sums of every frame over each of many disjoint groups of pixels, exact for integers.

    `labels` names the group of every visible pixel, -1 for none. With `spread` also the sums of the squared deviations
    from the mean of the group, (positions, 2, groups) in float64.
    """

    labels: Int64Array
    n_rings: int
    spread: bool = False
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> Any:
        """Make the tables of both drivers."""
        from stemstore.kernels import groups

        return groups.prepare_groups(self.labels, self.n_rings, region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per ring, or two."""
        del region
        if self.spread:
            return (2, self.n_rings), np.dtype(np.float64)
        return (self.n_rings,), sum_dtype(dtype)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed sums."""
        shape, wide = self.output(dtype, region)
        return np.zeros((n_positions, *shape), wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add the sums of dense frames."""
        from stemstore.kernels import groups

        (groups.frame_deviations if self.spread else groups.frame_sums)(block, local, out, place, prepared)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the sums of counted frames."""
        from stemstore.kernels import groups

        (groups.event_deviations if self.spread else groups.event_sums)(gap, offsets, local, out, place, prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sums as they are."""
        del region
        return out


def radial_profile(
    scan: Any,
    *,
    bins: int | None = None,
    edges: Any = None,
    center: Centre | None = None,
    unit: str | None = None,
    statistic: Statistic = "sum",
    mask: Any = None,
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
        (ky, kx) of the rings' centre, in `unit`; the optic axis by default.
    unit
        Unit of `edges`, `center` and the result's axis; default: the unit of the detector axes.
    statistic
        ``"sum"``, ``"mean"`` (per pixel) or ``"variance"`` (of the pixels of a ring of one pattern).
    mask
        Pixels that take part: a virtual detector such as ``sector(…)``, or a boolean array (ky, kx) that is False at
        dead pixels.

    Returns
    -------
    profile : dims (y, x, k), lazy
        Sums are exact, uint64 or int64, for integer pixels, else float64; means and variances are float64. Coordinates
        along k: ring middles ``k``, ``k_inner``, ``k_outer`` and ``n_pixels``. Rings without a pixel sum to zero and
        have no mean (NaN). Missing frames sum to zero (NaN where the pixels are floats) and have no mean; the
        coordinate ``valid`` marks them.

    Raises
    ------
    InputError
        Bins and edges at once, edges that do not rise from 0 or more, no pixel in any ring, an unknown statistic, or a
        mask that is not boolean or does not fit.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    The rings hold the same pixels as `annulus` with the same radii, so that sums over neighbouring rings equal the
    virtual image of the larger one exactly. variance = sum (I - mean)^2 / n over the n pixels of a ring, in two passes
    over dense pixels and from exact integers for electrons. Any number of rings costs one pass. Memory per thread: one
    decoded piece of the scan and the profiles of one task (at most about 128 MB, or one profile). Larger results are
    computed in smaller pieces, and share no pass in `stemstore.compute`.
    """
    image = intensity_of(scan)
    if statistic not in STATISTICS:
        msg = f"statistic {statistic!r} is not known; expected one of {', '.join(STATISTICS)}"
        raise InputError(msg, key="statistic", found=statistic, expected=STATISTICS)
    rings = Rings.of(image, bins=bins, edges=edges, center=center, unit=unit, mask=mask)
    data = _moments(image, rings) if statistic == "sum" else _per_pixel(image, rings, statistic)
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
) -> xr.DataArray:
    """Measure the speckle of every diffraction pattern: the normalised variance over rings, <I^2> / <I>^2 - 1.

    It is large where a ring breaks up into spots, as of medium-range order in glasses (fluctuation electron
    microscopy, Treacy, Gibson, Fan, Paterson and McNulty, Rep. Prog. Phys. 68, 2899, 2005: the annular variance of
    single patterns), and 1 / <I> for electrons that follow chance alone.

    Parameters
    ----------
    scan, bins, edges, center, unit, mask
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
    rings = Rings.of(image, bins=bins, edges=edges, center=center, unit=unit, mask=mask)
    data = _per_pixel(image, rings, "normalised")
    result = rings.label(data, image, parameters_text("radial_variance", **rings.text))
    result.attrs |= {"long_name": "normalised radial variance"}
    return result.rename("radial_variance")


def _per_pixel(image: xr.DataArray, rings: Rings, what: str) -> Any:
    """Mean, variance or normalised variance over rings; NaN in missing frames."""
    if what == "mean":
        sums = _moments(image, rings)
        data = sums / np.where(rings.sizes, rings.sizes, np.nan)
    else:
        sums = _moments(image, rings, spread=True)
        settle: Any = _variance if what == "variance" else _normalised  # dask's annotations know no NumPy arrays
        axis = sums.ndim - 2
        data = sums.map_blocks(settle, rings.sizes, dtype=np.float64, drop_axis=axis, meta=np.empty((0,) * (axis + 1)))
    return without_missing(data, image)


def _moments(image: xr.DataArray, rings: Rings, *, spread: bool = False) -> Any:
    """Give sums over rings, (…scan, rings), or sums and squared deviations, (…scan, 2, rings)."""
    return map_kernel(image.data, RingMoments(rings.labels, len(rings), spread))


def _variance(sums: FloatArray, sizes: Int64Array) -> FloatArray:
    return np.asarray(sums[..., 1, :] / np.where(sizes, sizes, np.nan), dtype=np.float64)


def _normalised(sums: FloatArray, sizes: Int64Array) -> FloatArray:
    total = np.where(sums[..., 0, :] == 0, np.nan, sums[..., 0, :])
    return np.asarray(sums[..., 1, :] / total * (sizes / total), dtype=np.float64)
