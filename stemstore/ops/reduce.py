"""Reductions over the scan: mean, maximum and variance of patterns, and sums over groups of neighbouring positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.contract import sum_dtype
from stemstore.ops.blocks import map_groups, map_kernel
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

EXACT_SQUARES = 2  # bytes of the widest integers whose squares are summed exactly


@dataclass(frozen=True, slots=True, eq=False)
class PatternSum:
    """Kernel: the sum of all frames, exact for integers."""

    reduces: Literal["scan"] = "scan"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> None:
        """Need no weights."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern."""
        return region.shape, sum_dtype(dtype)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed stored pattern."""
        del n_positions
        return np.zeros(region.stored, self.output(dtype, region)[1])

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames."""
        from stemstore.kernels import frames

        frames.add(block, local, out)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames."""
        from stemstore.kernels import events

        events.add(gap, offsets, local, out)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Cut out the visible detector."""
        return region.crop(out)


@dataclass(frozen=True, slots=True, eq=False)
class PatternMax:
    """Kernel: the largest value of every pixel over all frames."""

    reduces: Literal["scan"] = "scan"
    combine: np.ufunc = np.maximum

    def prepare(self, region: DetectorRegion) -> None:
        """Need no weights."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern of the scan's own dtype."""
        return region.shape, dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Start from the smallest value of the type."""
        del n_positions
        lowest = np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf
        return np.full(region.stored, lowest, dtype)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Compare dense frames."""
        from stemstore.kernels import frames

        frames.maximum(block, local, out)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Compare counted frames."""
        from stemstore.kernels import events

        events.maximum(gap, offsets, local, out)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Cut out the visible detector."""
        return region.crop(out)


@dataclass(frozen=True, slots=True, eq=False)
class PatternSquares:
    """Kernel: the sum of all frames and the sum of their squares, exact for integers of 8 and 16 bits."""

    reduces: Literal["scan"] = "scan"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> None:
        """Need no weights."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Two patterns."""
        return (2, *region.shape), sum_dtype(dtype) if dtype.itemsize <= EXACT_SQUARES else np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed stored patterns."""
        del n_positions
        return np.zeros((2, *region.stored), self.output(dtype, region)[1])

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add dense frames."""
        from stemstore.kernels import frames

        frames.add(block, local, out[0])
        frames.add_squares(block, local, out[1])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames."""
        from stemstore.kernels import events

        events.add(gap, offsets, local, out[0])
        events.add_squares(gap, offsets, local, out[1])

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Cut out the visible detector."""
        return region.crop(out)


@dataclass(frozen=True, slots=True, eq=False)
class GroupSum:
    """Kernel: sums of frames over groups of positions; `group` names the group of every position of the work."""

    group: Int64Array
    n_groups: int
    reduces: Literal["scan"] = "scan"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> None:
        """Need no weights."""

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One pattern per group."""
        return (self.n_groups, *region.shape), sum_dtype(dtype)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed stored patterns."""
        del n_positions
        return np.zeros((self.n_groups, *region.stored), self.output(dtype, region)[1])

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

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Cut out the visible detector."""
        return region.crop(out)

    def _by_group(self, place: Int64Array) -> list[tuple[int, Array]]:
        groups = self.group[place]
        return [(int(number), np.flatnonzero(groups == number)) for number in np.unique(groups)]


def mean_pattern(scan: Any, *, roi: Any = None) -> xr.DataArray:
    """Average all diffraction patterns of a scan (position-averaged pattern).

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx; select positions first
        for a region of the scan that is a rectangle or a grid.
    roi : shape (y, x), boolean
        Positions that take part (virtual diffraction); nothing else is read but what shares a chunk with them.

    Returns
    -------
    pattern : dims (ky, kx), float64, lazy
        Missing frames are left out of the sum and of the number it is divided by; that number is the attribute
        ``n_frames``.

    Raises
    ------
    InputError
        No recorded frame takes part, or the region of interest is not boolean or has another shape than the scan.

    Notes
    -----
    The sum is exact for integer data. Memory per thread: one decoded piece of the scan and one pattern.
    """
    image = intensity_of(scan)
    keep, n_frames = _chosen(image, roi, "mean")
    data = map_kernel(image.data, PatternSum(), keep) / n_frames
    return _pattern(data, image, "mean_pattern", "mean pattern", n_frames)


def max_pattern(scan: Any, *, roi: Any = None) -> xr.DataArray:
    """Take the largest value of every detector pixel over all patterns of a scan.

    Parameters
    ----------
    scan, roi
        As in `mean_pattern`.

    Returns
    -------
    pattern : dims (ky, kx), dtype of the scan, lazy
        Missing frames are left out.

    Raises
    ------
    InputError
        As in `mean_pattern`.
    """
    image = intensity_of(scan)
    keep, n_frames = _chosen(image, roi, "maximum")
    return _pattern(map_kernel(image.data, PatternMax(), keep), image, "max_pattern", "maximum pattern", n_frames)


def variance_pattern(scan: Any, *, roi: Any = None) -> xr.DataArray:
    """Measure how much every detector pixel varies from pattern to pattern of a scan.

    For counted electrons without structure the variance equals the mean (Poisson); more tells of speckle or Bragg
    disks that come and go (fluctuation microscopy), less of pile-up.

    Parameters
    ----------
    scan, roi
        As in `mean_pattern`.

    Returns
    -------
    pattern : dims (ky, kx), float64, lazy
        Mean square distance from the mean pattern (divided by the number of frames, as `numpy.var`), in counts
        squared; missing frames are left out, ``n_frames`` is the number of the others.

    Raises
    ------
    InputError
        As in `mean_pattern`; also integers of 64 bits.

    Notes
    -----
    variance = (n sum I^2 - (sum I)^2) / n^2, in one pass. For integers of 8 and 16 bits both sums and the difference
    are exact integers. For wider integers and real frames they are float64, whose rounding leaves an error of about
    1e-16 times the squared mean. Memory per thread: one decoded piece of the scan and two patterns.
    """
    image = intensity_of(scan)
    if image.dtype.kind in "iu" and image.dtype.itemsize == 8:  # noqa: PLR2004 (bytes; their squares fit no type)
        msg = f"the variance of {image.dtype} pixels cannot be summed; convert them with scan.astype('float64')"
        raise InputError(msg, found=str(image.dtype))
    keep, n_frames = _chosen(image, roi, "variance")
    sums = map_kernel(image.data, PatternSquares(), keep)
    settle: Any = _variance  # dask's annotations know no NumPy arrays
    data = sums.map_blocks(settle, n_frames, dtype=np.float64, drop_axis=0, meta=np.empty((0, 0)))
    result = _pattern(data, image, "variance_pattern", "variance of patterns", n_frames)
    result.attrs["units"] = f"{result.attrs['units']}^2"
    return result


def _chosen(image: xr.DataArray, roi: Any, what: str) -> tuple[BoolArray | None, int]:
    """Which positions take part in a pattern (None for all), and how many these are."""
    keep = recorded(image)
    if roi is not None:
        region = _region(image, roi)
        keep = region if keep is None else region & keep
    n_frames = int(np.prod(image.shape[:-2])) if keep is None else int(keep.sum())
    if n_frames == 0:
        where = "the selection" if roi is None else "the region of interest"
        msg = f"{where} holds no recorded frame, so it has no {what} pattern; select other positions"
        raise InputError(msg, found=image.shape)
    return keep, n_frames


def _region(image: xr.DataArray, roi: Any) -> BoolArray:
    import xarray as xr

    if isinstance(roi, xr.DataArray) and set(roi.dims) == set(scan_dims(image)):
        roi = roi.transpose(*scan_dims(image))
    region = np.asarray(getattr(roi, "values", roi))
    if region.dtype != bool or region.shape != image.shape[:-2]:
        msg = (
            f"a region of interest is a boolean map of the scan's shape {image.shape[:-2]}, got {region.dtype} of "
            f"shape {region.shape}; compare an image with a threshold, and select the same positions from both"
        )
        raise InputError(msg, key="roi", found=region.shape, expected=image.shape[:-2])
    return region


def _variance(sums: Array, n_frames: int) -> FloatArray:
    """Variance from the sum and the sum of squares; in Python integers where 64 bits could overflow."""
    total, squares = sums
    if sums.dtype.kind == "f":
        mean = total / n_frames
        return np.maximum(squares / n_frames - mean * mean, 0.0)
    largest = max(abs(int(total.max(initial=0))), abs(int(total.min(initial=0))))
    kind: Any = np.int64
    if max(largest**2, n_frames * int(squares.max(initial=0))) > np.iinfo(np.int64).max:
        kind = object
    total, squares = total.astype(kind), squares.astype(kind)
    divisor: Any = n_frames**2 if kind is object else float(n_frames**2)
    return np.asarray((squares * n_frames - total * total) / divisor, dtype=np.float64)


def _pattern(data: Any, image: xr.DataArray, name: str, title: str, n_frames: int) -> xr.DataArray:
    result = labelled(data, image, ("ky", "kx"), parameters_text(name, n_frames=n_frames))
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": title, "n_frames": n_frames}
    return result.rename(name)


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
        msg = f"bin_scan needs the scan dims ('y', 'x'), got {scan_dims(image)}; select one frame first"
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
    return thin
