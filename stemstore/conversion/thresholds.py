"""Thresholds that tell electrons from read noise and from X-rays, estimated from frames of the whole scan.

The noise peak of the pixel values is fitted by maximum likelihood as a Gaussian that was rounded to integers and cut
off before the electrons' tail begins. Sampling is deterministic: two runs give the same thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.contract import VALID

if TYPE_CHECKING:
    from stemstore._types import FloatArray, Int64Array
    from stemstore.sources.contract import FrameSource
    from stemstore_schemas import CountingDescription

BACKGROUND_SIGMA = 5.0  # against 4.5 this loses 0.3 % of the electrons and a tenth of the false events
XRAY_SIGMA = 175.0  # in standard deviations of all pixels; far above what one electron deposits
MIN_SAMPLES, MAX_SAMPLES = 64, 1024
N_VALUES = 2**16
MIN_PIXELS = 1000  # fewer pixels in the fit window carry no peak
MIN_SIGMA = 0.2  # narrower than the rounding to integers: constant frames


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits between which a pixel may be an electron, and what they rest on (ADU, pedestal included).

    Attributes
    ----------
    background, xray
        A pixel is a candidate when background < value < xray; `xray` None switches the upper limit off.
    pedestal_mean, pedestal_sigma
        Fitted mean and width of the noise peak, the rounding to integers included; None when not fitted.
    background_sigma, xray_sigma
        How far above the peak, and above the mean of all pixels, the limits lie; None when given directly.
    n_frames
        Frames that were sampled.
    false_events_per_frame
        Expected local maxima per frame from noise alone; None when not fitted.
    """

    background: float
    xray: float | None
    pedestal_mean: float | None = None
    pedestal_sigma: float | None = None
    background_sigma: float | None = None
    xray_sigma: float | None = None
    n_frames: int = 0
    false_events_per_frame: float | None = None

    def describe(self, rule: Any, n_events: int | None = None) -> CountingDescription:
        """Write the thresholds as metadata of a counted store."""
        from stemstore_schemas import CountingDescription

        return CountingDescription(
            rule=rule,
            background_threshold=[self.background],
            xray_threshold=math.inf if self.xray is None else self.xray,
            pedestal_mean=self.pedestal_mean,
            pedestal_sigma=self.pedestal_sigma,
            background_sigma=self.background_sigma,
            xray_sigma=self.xray_sigma,
            n_sampled_frames=self.n_frames or None,
            n_events=n_events,
            false_events_per_frame=self.false_events_per_frame,
        )


def estimate(
    source: FrameSource,
    *,
    background: float | None = None,
    xray: float | None = None,
    background_sigma: float = BACKGROUND_SIGMA,
    xray_sigma: float = XRAY_SIGMA,
) -> Thresholds:
    """Choose the thresholds of a scan from its own pixel values, or take those that are given.

    Parameters
    ----------
    source
        Frames of unsigned 8- or 16-bit pixels when something has to be estimated.
    background, xray : unit ADU
        Given limits; each one left out is estimated.
    background_sigma
        Background limit above the fitted mean, in fitted widths.
    xray_sigma
        X-ray limit above the mean of all sampled pixels, in their standard deviations.

    Raises
    ------
    InputError
        The pixels are neither uint8 nor uint16, or the limits exclude everything.
    CorruptDataError
        No complete frame, or no noise peak that could be fitted.
    """
    if background is not None and xray is not None:
        return _checked(Thresholds(float(background), float(xray)))
    histogram, n_frames = pixel_histogram(source)
    values = np.arange(len(histogram))
    mean = float((histogram * values).sum() / histogram.sum())
    spread = math.sqrt(float((histogram * (values - mean) ** 2).sum() / histogram.sum()))
    limit = mean + xray_sigma * spread if xray is None else float(xray)
    estimated = xray_sigma if xray is None else None
    if background is not None:
        return _checked(Thresholds(float(background), limit, xray_sigma=estimated, n_frames=n_frames))
    mu, sigma = fit_noise_peak(histogram)
    width = math.sqrt(sigma**2 + 1 / 12)  # rounding to integers adds the variance of a unit interval
    background = mu + background_sigma * width
    false = math.prod(source.frame_shape) * _upper_tail((math.floor(background) + 0.5 - mu) / sigma)
    return _checked(
        Thresholds(
            background,
            limit,
            pedestal_mean=mu,
            pedestal_sigma=width,
            background_sigma=background_sigma,
            xray_sigma=estimated,
            n_frames=n_frames,
            false_events_per_frame=false,
        )
    )


def sampled_frames(source: FrameSource) -> Int64Array:
    """Flat positions of complete frames spread evenly over the whole scan, the same ones in every run.

    Raises
    ------
    CorruptDataError
        Not a single frame is complete.
    """
    n_frames = math.prod(source.scan_shape)
    complete = np.arange(n_frames) if source.validity is None else np.flatnonzero(source.validity == VALID)
    if len(complete) == 0:
        msg = f"none of the {n_frames} frames is complete, so no threshold can be estimated; give background_threshold="
        raise CorruptDataError(msg, n_frames=n_frames)
    n_samples = min(len(complete), max(MIN_SAMPLES, min(MAX_SAMPLES, n_frames // 100)))
    at = ((np.arange(n_samples) + 0.5) * len(complete) / n_samples).astype(np.int64)
    return complete[at].astype(np.int64)


def pixel_histogram(source: FrameSource) -> tuple[Int64Array, int]:
    """Count the pixel values of the sampled frames.

    Returns
    -------
    histogram : shape (65536,), int64
    n_frames
        Number of frames sampled.
    """
    from stemstore.kernels import frames

    if source.dtype not in (np.uint8, np.uint16):
        msg = (
            f"thresholds are estimated from uint8 or uint16 pixels, these are {source.dtype}; "
            "give background_threshold= and xray_threshold="
        )
        raise InputError(msg, found=str(source.dtype))
    histogram = np.zeros(N_VALUES, np.int64)
    chosen = sampled_frames(source)
    scratch = np.empty((1, *source.frame_shape), source.dtype)
    for number in chosen.tolist():
        frames.histogram(source.read_frames(number, number + 1, out=scratch), histogram)
    return histogram, len(chosen)


def fit_noise_peak(histogram: Int64Array) -> tuple[float, float]:
    """Fit mean and standard deviation of the noise before it was rounded to integers.

    Maximum likelihood of a binned Gaussian truncated to [mu - 3 sigma, mu + 1.5 sigma], so that the tail of the
    electrons stays outside; the window follows the fit for six rounds.

    Raises
    ------
    CorruptDataError
        The histogram has no noise peak (constant frames, an excluded range, too few pixels).
    """
    from scipy.optimize import minimize

    cumulative = np.cumsum(histogram)
    total = int(cumulative[-1])
    mu = float(np.searchsorted(cumulative, 0.5 * total))
    sigma = max(mu - float(np.searchsorted(cumulative, 0.1587 * total)), 1.0)
    for _ in range(6):
        low, high = max(0, math.floor(mu - 3 * sigma)), min(N_VALUES - 1, math.ceil(mu + 1.5 * sigma))
        window = histogram[low : high + 1]
        if window.sum() < MIN_PIXELS or np.count_nonzero(window) < 3:  # noqa: PLR2004  # a Gaussian has two parameters
            _no_peak(histogram, f"only {int(window.sum())} pixels with {np.count_nonzero(window)} values in it")
        edges = np.arange(low, high + 2) - 0.5
        found = minimize(_misfit, [mu, math.log(sigma)], args=(edges, window), method="Nelder-Mead")
        mu, sigma = float(found.x[0]), math.exp(float(found.x[1]))
        if not MIN_SIGMA <= sigma <= N_VALUES / 4 or not low <= mu <= high:
            _no_peak(histogram, f"the fit went to mean {mu:.4g} and width {sigma:.4g}")
    return mu, sigma


def _misfit(parameters: FloatArray, edges: FloatArray, window: Int64Array) -> float:
    from scipy.special import ndtr

    cumulative = ndtr((edges - parameters[0]) / math.exp(parameters[1]))
    share = np.diff(cumulative) / max(cumulative[-1] - cumulative[0], 1e-300)
    return -float((window * np.log(np.maximum(share, 1e-300))).sum()) / float(window.sum())


def _upper_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))


def _no_peak(histogram: Int64Array, why: str) -> None:
    cumulative = np.cumsum(histogram)
    quantiles = [int(np.searchsorted(cumulative, q * cumulative[-1])) for q in (0.01, 0.5, 0.99, 1.0)]
    msg = (
        f"the pixel values show no noise peak ({why}; quantiles 1 %, 50 %, 99 %, 100 % are {quantiles} ADU); "
        "give background_threshold= and xray_threshold="
    )
    raise CorruptDataError(msg, quantiles=quantiles)


def _checked(thresholds: Thresholds) -> Thresholds:
    if thresholds.xray is not None and not thresholds.background < thresholds.xray:
        msg = (
            f"the background threshold {thresholds.background:g} is not below the X-ray threshold {thresholds.xray:g}, "
            "so no pixel could be an electron; change background_threshold= or xray_threshold="
        )
        raise InputError(msg, background=thresholds.background, xray=thresholds.xray)
    return thresholds
