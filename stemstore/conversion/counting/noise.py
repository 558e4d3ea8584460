"""The noise peak of pixel values: a Gaussian that was rounded, cut off before the tail of the electrons begins.

Estimates are deterministic: the same histogram gives the same figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import CorruptDataError

if TYPE_CHECKING:
    from stemstore._types import FloatArray, Int64Array

MIN_PIXELS = 1000  # fewer pixels in the fit window carry no peak
MIN_SIGMA = 0.2  # bins; narrower than the rounding to integers: constant frames
ROUNDS = 6  # the window follows the fit; it stands still after three to five
SIMPLEX = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.1]])  # mean and logarithm of the width to begin with
FINE = {"initial_simplex": SIMPLEX, "xatol": 1e-6, "fatol": 1e-12, "maxiter": 1000}
BELOW, ABOVE = 3.0, 1.5  # widths of the window below and above the mean: electrons only add to the upper side


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Numbers of pixels by value.

    Attributes
    ----------
    origin, width : unit ADU
        Middle of the first bin, and width of a bin; 1 for integers.
    counts : shape (n,), int64
    """

    origin: float
    width: float
    counts: Int64Array

    @property
    def values(self) -> FloatArray:
        """Middle of every bin, ADU."""
        return self.origin + self.width * np.arange(len(self.counts), dtype=np.float64)

    @property
    def n_pixels(self) -> int:
        """Number of all pixels."""
        return int(self.counts.sum())

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of all pixels, electrons included."""
        places = np.arange(len(self.counts), dtype=np.float64)
        mean = float((self.counts * places).sum() / self.counts.sum())
        spread = math.sqrt(float((self.counts * (places - mean) ** 2).sum() / self.counts.sum()))
        return self.origin + self.width * mean, self.width * spread

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value."""
        filled = np.flatnonzero(self.counts)
        return float(self.values[filled[0]]), float(self.values[filled[-1]])


@dataclass(frozen=True, slots=True)
class NoisePeak:
    """What was fitted, ADU.

    Attributes
    ----------
    mean
        Of the peak.
    sigma
        Its standard deviation before values were rounded.
    width
        With the rounding: what a plain fit to the pixel values would give.
    step
        Distance between values: 1 for integers, 0 for real numbers.
    """

    mean: float
    sigma: float
    width: float
    step: float

    def false_events(self, background: float, n_pixels: int) -> float:
        """Expect so many of `n_pixels` pixels above a threshold from noise alone.

        Of integers the smallest one above the threshold counts with its half step below:
        ``n Phi(-(cut - 1/2 - mean) / sigma)``.
        """
        level = math.floor(background) + 1 - self.step / 2 if self.step else background
        return n_pixels * 0.5 * math.erfc((level - self.mean) / self.sigma / math.sqrt(2))

    def background_for(self, false_events: float, n_pixels: int) -> float:
        """Smallest threshold above which no more than `false_events` are expected; between two integers for these."""
        from scipy.special import ndtri

        share = min(max(false_events / n_pixels, 1e-300), 0.5)
        level = self.mean - self.sigma * float(ndtri(share))
        if not self.step:
            return level
        cut = math.ceil(level + 0.5)
        while self.false_events(cut - 0.5, n_pixels) > false_events:  # rounding of the last digit
            cut += 1
        return cut - 0.5


def fit_noise_peak(histogram: Int64Array, scale: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float]:
    """Fit mean and standard deviation, in bins, of the noise before it was put into bins.

    Maximum likelihood of a binned Gaussian truncated to [mu - 3 sigma, mu + 1.5 sigma], so that the tail of the
    electrons stays outside; the window follows the fit for six rounds.

    Parameters
    ----------
    histogram : shape (n,)
        Number of pixels in every bin.
    scale : unit ADU
        Middle of the first bin and width of a bin, for the message of the error.

    Raises
    ------
    CorruptDataError
        The histogram has no noise peak (constant frames, an excluded range, too few pixels), or the fit does not end.
    """
    from scipy.optimize import minimize

    cumulative = np.cumsum(histogram)
    total = int(cumulative[-1])
    mu = float(np.searchsorted(cumulative, 0.5 * total))
    sigma = max(mu - float(np.searchsorted(cumulative, 0.1587 * total)), 1.0)
    for _ in range(ROUNDS):
        low, high = _window(mu, sigma, len(histogram))
        window = histogram[low : high + 1]
        if window.sum() < MIN_PIXELS or np.count_nonzero(window) < 3:  # noqa: PLR2004  # a Gaussian has two parameters
            _no_peak(histogram, scale, f"only {int(window.sum())} pixels with {np.count_nonzero(window)} values in it")
        edges = np.arange(low, high + 2) - 0.5
        # in units of the last round, so that the fit does not depend on where the histogram begins
        steps = (edges - mu) / sigma
        found = minimize(_misfit, SIMPLEX[0], args=(steps, window), method="Nelder-Mead", options=FINE)
        if not found.success:
            _no_peak(histogram, scale, f"the fit does not converge: {found.message}")
        mu, sigma = mu + sigma * float(found.x[0]), sigma * math.exp(float(found.x[1]))
        if not MIN_SIGMA <= sigma <= len(histogram) / 4 or not low <= mu <= high:
            _no_peak(histogram, scale, f"the fit went to mean {mu:.4g} and width {sigma:.4g}")
    return mu, sigma


def find_peak(histogram: Histogram, *, integers: bool) -> NoisePeak:
    """Fit the noise peak of a histogram in ADU; errors as of `fit_noise_peak`."""
    mu, sigma = fit_noise_peak(histogram.counts, (histogram.origin, histogram.width))
    sigma *= histogram.width
    # rounding to integers adds the variance of a unit interval
    width = math.sqrt(sigma**2 + 1 / 12) if integers else sigma
    return NoisePeak(histogram.origin + histogram.width * mu, sigma, width, 1.0 if integers else 0.0)


def fit_level(histogram: Int64Array, sigma: float) -> float:
    """Fit the mean alone, in bins, with a width that is known; quick enough for hundreds of histograms.

    Raises
    ------
    CorruptDataError
        Too few pixels.
    """
    from scipy.optimize import minimize_scalar

    cumulative = np.cumsum(histogram)
    mu = float(np.searchsorted(cumulative, 0.5 * int(cumulative[-1])))
    for _ in range(3):
        low, high = _window(mu, sigma, len(histogram))
        window = histogram[low : high + 1]
        if window.sum() < MIN_PIXELS:
            _no_peak(histogram, (0.0, 1.0), f"only {int(window.sum())} pixels in it")
        edges = np.arange(low, high + 2) - 0.5
        found = minimize_scalar(
            lambda at, steps=(edges - mu) / sigma, window=window: _misfit(np.array([at, 0.0]), steps, window),
            bounds=(-2, 2),
            method="bounded",
            options={"xatol": 1e-3},
        )
        mu += sigma * float(found.x)
    return mu


def _window(mu: float, sigma: float, n: int) -> tuple[int, int]:
    return max(0, math.floor(mu - BELOW * sigma)), min(n - 1, math.ceil(mu + ABOVE * sigma))


def _misfit(parameters: FloatArray, edges: FloatArray, window: Int64Array) -> float:
    from scipy.special import ndtr

    cumulative = ndtr((edges - parameters[0]) / math.exp(parameters[1]))
    share = np.diff(cumulative) / max(cumulative[-1] - cumulative[0], 1e-300)
    return -float((window * np.log(np.maximum(share, 1e-300))).sum()) / float(window.sum())


def _no_peak(histogram: Int64Array, scale: tuple[float, float], why: str) -> None:
    cumulative = np.cumsum(histogram)
    places = np.searchsorted(cumulative, np.array([0.01, 0.5, 0.99, 1.0]) * cumulative[-1])
    quantiles = [scale[0] + scale[1] * int(place) for place in places]
    listed = ", ".join(f"{quantile:.6g}" for quantile in quantiles)
    msg = (
        f"the pixel values show no noise peak ({why}; quantiles 1 %, 50 %, 99 %, 100 % are {listed} ADU); "
        "give background_threshold= and xray_threshold="
    )
    raise CorruptDataError(msg, quantiles=quantiles)
