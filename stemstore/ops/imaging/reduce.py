"""Sums over groups of neighbouring positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.contract import sum_dtype
from stemstore.kernels.patterns import PatternKernel
from stemstore.ops.imaging.groups import map_groups
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims
from stemstore.scan.origins import ORIGIN

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


@dataclass(frozen=True, slots=True, eq=False)
class GroupSum(PatternKernel):
    """Kernel: sums of frames over groups of positions; `group` names the group of every position of the work."""

    group: Int64Array
    n_groups: int

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern per group."""
        return (self.n_groups, *region.shape), sum_dtype(dtype)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames, group by group."""
        from stemstore.kernels import frames

        for number, chosen in self._by_group(place):
            frames.add(block, local[chosen], out[number])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames, group by group."""
        from stemstore.kernels import events

        for number, chosen in self._by_group(place):
            events.add(gap, offsets, local[chosen], out[number])

    def _by_group(self, place: Int64Array) -> list[tuple[int, Array]]:
        groups = self.group[place]
        return [(int(number), np.flatnonzero(groups == number)) for number in np.unique(groups)]


def bin_scan(scan: Any, factor: int | tuple[int, int]) -> xr.DataArray:
    """Sum the patterns of groups of neighbouring positions.

    Parameters
    ----------
    scan
        As in `mean_pattern`, with the scan dims (y, x).
    factor
        Positions along y and x that are summed; rows and columns that do not fill a group are left out.

    Returns
    -------
    patterns : dims (y, x, ky, kx), lazy
        uint64 or int64 for integer data (exact sums), float64 for floats. The scan coordinates are those of the
        groups' middles. Missing frames add nothing; ``n_frames`` (y, x) counts the frames in each sum.

    Raises
    ------
    InputError
        A factor is not positive or larger than the scan.

    Notes
    -----
    Memory per thread: the groups of one block (about 32 MB) and one decoded piece of the scan.
    """
    image = intensity_of(scan)
    factors = (factor, factor) if isinstance(factor, int) else (factor[0], factor[1])
    if scan_dims(image) != ("y", "x"):
        msg = (
            f"bin_scan needs the scan dims ('y', 'x'), got {scan_dims(image)}; select one frame first, or call "
            "this for each scan of a series (stemstore.map_scans)"
        )
        raise InputError(msg, found=scan_dims(image))
    groups = tuple(n // f if f > 0 else 0 for n, f in zip(image.shape[:2], factors, strict=True))
    if min(groups) < 1:
        msg = f"factor {factor!r} does not fit a scan of {image.shape[:2]} positions; use 1 to the scan's size"
        raise InputError(msg, found=factor, expected=image.shape[:2])
    image = image.isel(y=slice(0, groups[0] * factors[0]), x=slice(0, groups[1] * factors[1]))
    known = recorded(image)
    keep = np.ones(image.shape[:2], bool) if known is None else known
    data = map_groups(image.data, GroupSum, factors, keep)
    result = labelled(
        data, _middles(image, factors), ("y", "x", "ky", "kx"), parameters_text("bin_scan", factor=factors)
    )
    counted = keep.reshape(groups[0], factors[0], groups[1], factors[1]).sum(axis=(1, 3))
    result = result.assign_coords(n_frames=(("y", "x"), counted))
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": "summed intensity"}
    return result.rename("intensity")


def _middles(image: xr.DataArray, factors: tuple[int, ...]) -> xr.DataArray:
    """Give a stand-in with the coordinates of the groups; only its labels are used."""
    thin = image.isel(y=slice(None, None, factors[0]), x=slice(None, None, factors[1]))
    thin = thin.drop_vars([name for name in ("valid", "y_pixel", "x_pixel") if name in thin.coords])
    for dim, factor in zip(("y", "x"), factors, strict=True):
        if dim in image.coords:
            middle = image.coords[dim].values.reshape(-1, factor).mean(axis=1)
            attrs = {**image.coords[dim].attrs, "step": image.coords[dim].attrs.get("step", 1.0) * factor}
            thin = thin.assign_coords({dim: (dim, middle, attrs)})
    for name in ORIGIN:
        if name in image.coords:
            maps = image.coords[name].transpose("y", "x").data
            groups = maps.reshape(thin.sizes["y"], factors[0], thin.sizes["x"], factors[1])
            thin = thin.assign_coords({name: (("y", "x"), groups.mean(axis=(1, 3)), image.coords[name].attrs)})
    return thin
