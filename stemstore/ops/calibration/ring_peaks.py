"""Rings in a radial profile, to a fraction of a bin."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.background import noise_limits
from stemstore.ops.labels import parameters_text

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray, Int64Array

REACH, WINDOW = 1.3, 15  # full widths, and at most bins, on both sides of a peak that the fit of a ring sees
SHARE = 0.01  # of the range of a profile, added below its smallest value before the logarithm
CLIP_STEPS = 12  # bins up to which peaks are clipped off the background, at most
FEWEST_BINS = 12
FWHM = 2.355  # of a Gaussian, in standard deviations
MEDIAN = 0.455  # of chi^2 with one degree of freedom


def find_rings(profile: xr.DataArray, *, minimum: float = 0.0, significance: float = 8.0) -> xr.Dataset:
    """Find the rings in a radial profile, to a fraction of a bin.

    Parameters
    ----------
    profile : dims (k,)
        From `radial_profile` of a pattern (sums or means); rings narrower than three bins are not resolved.
    minimum : unit of k
        Radius from which rings are looked for; beyond the bright-field disk.
    significance
        Height of a ring above the background in standard deviations of the noise, at least.

    Returns
    -------
    rings : dims (ring,)
        ``radius`` and ``radius_sigma``, ``width`` (standard deviation of the peak), in the unit of k; ``height`` above
        the background, in the unit of the profile per pixel. In order of the radius; possibly none.

    Raises
    ------
    InputError
        The profile has other axes, or fewer than 12 bins with pixels beyond `minimum`.

    Notes
    -----
    The background is found by clipping peaks step by step (after C. G. Ryan et al., Nucl. Instrum. Methods B 34, 396,
    1988), up to 12 bins on each side. Around each peak that stands out of it a Gaussian on a parabola is
    fitted to the profile itself, weighted with its noise (variance proportional to the intensity, measured on the
    profile); a misfit larger than that adds to the errors.
    """
    import xarray as xr
    from scipy.signal import find_peaks, peak_widths

    k, mean, number, units = _profile(profile, minimum)
    smooth = _background(mean)
    q = _quantum(mean, number)
    electron = q / number  # what one adds to the mean of a bin
    electrons = np.maximum(smooth / np.maximum(electron, 1e-300), 1.0) if q > 0 else np.zeros(len(k))
    limits = electron * noise_limits(electrons, 1.0, significance)
    floor = 1e-6 * float(np.ptp(mean))  # rounding
    above = mean - smooth
    peaks, _ = find_peaks(above, height=np.maximum(limits, floor), prominence=limits + floor)
    widths = peak_widths(above, peaks, rel_height=0.5)[0]
    variance = np.maximum(q * np.maximum(mean, floor) / number, (floor / significance) ** 2)
    found = _fit_peaks((k, mean, variance), peaks, widths)
    table = np.array(sorted(found)).reshape(-1, 4)
    about = (
        ("radius", units, "radius of the ring"),
        ("radius_sigma", units, "standard error of the radius"),
        ("width", units, "standard deviation of the peak"),
        ("height", profile.attrs.get("units", "count"), "height above the background, per pixel"),
    )
    variables = {
        name: ("ring", column, {"units": unit, "long_name": text})
        for (name, unit, text), column in zip(about, table.T, strict=True)
    }
    line = parameters_text("find_rings", minimum=minimum, significance=significance)
    return xr.Dataset(variables, attrs={"history": "\n".join([profile.attrs.get("history", ""), line]).strip()})


def _profile(profile: xr.DataArray, minimum: float) -> tuple[FloatArray, FloatArray, FloatArray, str]:
    """Give radii, mean intensity per pixel and number of pixels of the bins beyond `minimum`, and the unit."""
    if getattr(profile, "dims", None) != ("k",) or "k" not in profile.coords:
        msg = (
            f"expected a radial profile over k, got {getattr(profile, 'dims', type(profile).__name__)}; "
            "average over the scan first, or profile its mean pattern"
        )
        raise InputError(msg, key="profile", expected=("k",))
    k, values = np.asarray(profile.coords["k"].values, np.float64), np.asarray(profile.values, np.float64)
    number = (
        np.asarray(profile.coords["n_pixels"].values, np.float64) if "n_pixels" in profile.coords else np.ones(len(k))
    )
    if str(profile.attrs.get("long_name", "")).endswith("sum") and "n_pixels" in profile.coords:
        values = values / np.where(number > 0, number, np.nan)
    some = (number > 0) & np.isfinite(values) & (k >= minimum)
    if np.count_nonzero(some) < FEWEST_BINS:
        msg = (
            f"the profile has {np.count_nonzero(some)} bins with pixels from {minimum:g} on, at least {FEWEST_BINS} "
            "are needed; profile the pattern with more rings, or lower minimum"
        )
        raise InputError(msg, key="profile", found=int(np.count_nonzero(some)), expected=FEWEST_BINS)
    return k[some], values[some], number[some], str(profile.coords["k"].attrs.get("units", "pixel"))


def _background(values: FloatArray) -> FloatArray:
    """Clip peaks off, at growing distances; the logarithm makes a straight line of a background that decays."""
    low = float(values.min()) - SHARE * float(np.ptp(values)) - 1e-300
    level = np.log(values - low)
    for reach in range(1, min(CLIP_STEPS, (len(values) - 1) // 2) + 1):
        middle = (level[: -2 * reach] + level[2 * reach :]) / 2
        level[reach:-reach] = np.minimum(level[reach:-reach], middle)
    return np.asarray(np.exp(level) + low)


def _quantum(mean: FloatArray, number: FloatArray) -> float:
    """Variance over mean of a pixel, from how much bins differ from the line through their neighbours (median)."""
    curved = (mean[:-2] - 2 * mean[1:-1] + mean[2:]) ** 2 / 6
    some = mean[1:-1] > 0
    return float(np.median((curved * number[1:-1])[some] / mean[1:-1][some])) / MEDIAN if some.any() else 0.0


def _fit_peaks(
    profile: tuple[FloatArray, FloatArray, FloatArray], peaks: Int64Array, widths: FloatArray
) -> list[tuple[float, ...]]:
    """Fit every peak in a window that reaches half way to its neighbours at most; leave out what is none."""
    k, mean, variance = profile
    between = np.array([0, *((peaks[1:] + peaks[:-1]) // 2), len(k) - 1])
    fits = []
    for number, (peak, width) in enumerate(zip(peaks, widths, strict=True)):
        reach = round(min(max(2.0, REACH * width), WINDOW)) + 1
        window = slice(max(between[number], peak - reach), min(between[number + 1], peak + reach) + 1)
        part = k[window], mean[window], variance[window]
        fits.append(_fit_peak(*part, (float(k[peak]), float(width))))
    return [fit for fit in fits if fit is not None]


def _fit_peak(
    k: FloatArray, mean: FloatArray, variance: FloatArray, about: tuple[float, float]
) -> tuple[float, ...] | None:
    """Fit a Gaussian on a parabola: radius, its error, width, height; None where the peak is none.

    `about` is the place of the peak and its full width at half height in bins.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    if len(k) < 7:  # noqa: PLR2004 (one more than parameters)
        return None
    bin_width = float(np.median(np.diff(k)))
    x = (k - about[0]) / bin_width

    def model(x: FloatArray, place: float, *rest: float) -> Any:
        width, height, level, slope, bend = rest
        return height * np.exp(-(((x - place) / width) ** 2) / 2) + level + x * (slope + x * bend)

    ends = float(mean[0]), float(mean[-1])
    level = (ends[0] + ends[1]) / 2
    slope = (ends[1] - ends[0]) / len(x)
    guess = [0.0, max(about[1], 1.0) / FWHM, float(mean.max()) - level, level, slope, 0.0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            found, covariance = curve_fit(model, x, mean, guess, np.sqrt(variance), absolute_sigma=True, maxfev=2000)
    except (RuntimeError, OptimizeWarning):
        return None
    inside = x[0] < found[0] < x[-1] and found[2] > 0 and abs(found[1]) < len(x) / 2
    if not inside or not np.isfinite(covariance).all():
        return None
    chi = float(((mean - model(x, *found)) ** 2 / variance).sum()) / (len(x) - len(guess))
    error = math.sqrt(covariance[0, 0] * max(1.0, chi)) * bin_width  # what is no Gaussian adds to the noise
    return float(about[0] + found[0] * bin_width), error, float(abs(found[1]) * bin_width), float(found[2])
