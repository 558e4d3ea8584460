"""Patterns over the scan: mean, weighted mean, maximum and variance over all positions or a region of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.patterns import PatternMax, PatternSquares, PatternSum, PatternWeighted
from stemstore.ops.corrections import CorrectionOptions, corrected, corrections_of, corrections_text
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded
from stemstore.ops.roi import map_of
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.kernels.corrections import Corrections


def mean_pattern(
    scan: Any, *, roi: Any = None, weights: Any = None, **corrections: Unpack[CorrectionOptions]
) -> xr.DataArray:
    """Average all diffraction patterns of a scan (position-averaged pattern).

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx; select positions first
        for a region of the scan that is a rectangle or a grid.
    roi : shape (y, x), boolean
        Positions that take part (virtual diffraction); nothing else is read but what shares a chunk with them.
    weights : shape (y, x), real
        How much each position counts, an image for example; the sum of weighted patterns is divided by the sum of the
        weights. Positions of weight 0 take no part.
    **corrections
        ``dark``, ``gain``, ``bad_pixels`` and ``mask``, as in `virtual_image`.

    Returns
    -------
    pattern : dims (ky, kx), float64, lazy
        Missing frames are left out of the sum and of the number it is divided by; that number is the attribute
        ``n_frames`` (with `weights`, ``weight`` is their sum).

    Raises
    ------
    InputError
        No recorded frame takes part, the region of interest is not boolean, the weights are not finite or add up to 0,
        or one of them has another shape than the scan.

    Notes
    -----
    Without weights the sum is exact for integer data, with them it is float64. Memory per thread: one decoded piece of
    the scan and one pattern.
    """
    image = intensity_of(scan)
    pixels, text = corrections_of(image, corrections), corrections_text(corrections)
    if weights is None:
        keep, n_frames = _chosen(image, roi, "mean")
        data = _corrected(map_kernel(image.data, PatternSum(), keep) / n_frames, pixels)
        return _pattern(data, image, "mean_pattern", "mean pattern", n_frames, text)
    weight = _weights(image, weights)
    region = weight != 0 if roi is None else map_of(image, roi, "roi", bool) & (weight != 0)
    keep, n_frames = _chosen(image, region, "mean")
    total = float(weight[keep].sum())
    if not np.isfinite(total) or total == 0:
        msg = f"the weights add up to {total:g}, so that there is no mean; give finite weights with another sum"
        raise InputError(msg, key="weights", found=total)
    data = _corrected(map_kernel(image.data, PatternWeighted(np.zeros(0)), keep, weight) / total, pixels)
    result = _pattern(data, image, "mean_pattern", "weighted mean pattern", n_frames, text)
    result.attrs["weight"] = total
    return result


def max_pattern(scan: Any, *, roi: Any = None, **corrections: Unpack[CorrectionOptions]) -> xr.DataArray:
    """Take the largest value of every detector pixel over all patterns of a scan.

    Parameters
    ----------
    scan, roi, **corrections
        As in `mean_pattern`.

    Returns
    -------
    pattern : dims (ky, kx), dtype of the scan (float64 with corrections), lazy
        Missing frames are left out.

    Raises
    ------
    InputError
        As in `mean_pattern`.
    """
    image = intensity_of(scan)
    keep, n_frames = _chosen(image, roi, "maximum")
    data = map_kernel(image.data, corrected(PatternMax(), corrections_of(image, corrections)), keep)
    return _pattern(data, image, "max_pattern", "maximum pattern", n_frames, corrections_text(corrections))


def variance_pattern(scan: Any, *, roi: Any = None, **corrections: Unpack[CorrectionOptions]) -> xr.DataArray:
    """Measure how much every detector pixel varies from pattern to pattern of a scan.

    For counted electrons without structure the variance equals the mean (Poisson); more tells of speckle or Bragg
    disks that come and go (fluctuation microscopy), less of pile-up.

    Parameters
    ----------
    scan, roi, **corrections
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
    pixels = corrections_of(image, corrections)
    if pixels is None and image.dtype.kind in "iu" and image.dtype.itemsize == 8:  # noqa: PLR2004 (bytes; their squares fit no type)
        msg = f"the variance of {image.dtype} pixels cannot be summed; convert them with scan.astype('float64')"
        raise InputError(msg, found=str(image.dtype))
    keep, n_frames = _chosen(image, roi, "variance")
    sums = map_kernel(image.data, corrected(PatternSquares(), pixels), keep)
    settle: Any = _variance  # dask's annotations know no NumPy arrays
    data = sums.map_blocks(settle, n_frames, dtype=np.float64, drop_axis=0, meta=np.empty((0, 0)))
    result = _pattern(data, image, "variance_pattern", "variance of patterns", n_frames, corrections_text(corrections))
    result.attrs["units"] = f"{result.attrs['units']}^2"
    return result


def _chosen(image: xr.DataArray, roi: Any, what: str) -> tuple[BoolArray | None, int]:
    """Which positions take part in a pattern (None for all), and how many these are."""
    keep = recorded(image)
    if roi is not None:
        region = map_of(image, roi, "roi", bool)
        keep = region if keep is None else region & keep
    n_frames = int(np.prod(image.shape[:-2])) if keep is None else int(keep.sum())
    if n_frames == 0:
        where = "the selection" if roi is None else "the region of interest"
        msg = f"{where} holds no recorded frame, so it has no {what} pattern; select other positions"
        raise InputError(msg, found=image.shape)
    return keep, n_frames


def _weights(image: xr.DataArray, weights: Any) -> FloatArray:
    given = map_of(image, weights, "weights", np.float64)
    known = recorded(image)
    return given if known is None else np.where(known, given, 0.0)


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


def _corrected(pattern: Any, corrections: Corrections | None) -> Any:
    """Correct a mean: corrections are linear, so that the mean of corrected frames is the corrected mean."""
    if corrections is None:
        return pattern
    apply: Any = corrections.apply  # dask's annotations know no NumPy arrays
    return pattern.map_blocks(apply, dtype=np.float64, meta=np.empty((0, 0)))


def _pattern(
    data: Any, image: xr.DataArray, name: str, title: str, n_frames: int, text: dict[str, str]
) -> xr.DataArray:
    result = labelled(data, image, ("ky", "kx"), parameters_text(name, n_frames=n_frames, **text))
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": title, "n_frames": n_frames}
    return result.rename(name)
