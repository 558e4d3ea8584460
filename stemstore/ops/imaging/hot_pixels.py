"""Pixels of the detector that are not to be trusted: hot ones, which stand out, and dead ones, which stay dark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.imaging.patterns import mean_pattern, variance_pattern
from stemstore.ops.labels import DETECTOR_DIMS, intensity_of, labelled, parameters_text
from stemstore.ops.shared import compute

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray

Kind = Literal["hot", "dead", "both"]
REACH = 2  # pixels on each side: a box of 5 x 5
RANK = 3  # a pixel must pass all but two of its neighbours, so that clusters of up to three are found
CONTRAST = 3.0  # times the third neighbour: no pixel of a spot of 1.9 pixels (FWHM) and more is hot
DARK = 0.1  # share of the value around below which a pixel is dead
NORMAL = 1.4826  # standard deviation over median absolute deviation, for a normal distribution
STRIP = 2**16  # pixels whose neighbours are sorted at a time, about 13 MB
BRIGHT = 0.9  # quantile of the mean above which pixels are bright
HITS = 3  # a pixel that few X-rays or cosmic particles hit is not hot


def find_hot_pixels(
    scan_or_pattern: Any, *, variance: Any = None, threshold: float = 6.0, kind: Kind = "hot"
) -> xr.DataArray:
    """Find the pixels of the detector that stand out from their neighbours, or stay dark among bright ones.

    Parameters
    ----------
    scan_or_pattern
        A scan, whose mean and variance are computed in one pass, or a mean pattern (ky, kx). A part of a large scan is
        enough: ``ds.isel(y=slice(None, None, 8))``.
    variance : shape (ky, kx), optional
        Of the pattern, as `variance_pattern` gives it; for a mean pattern only.
    threshold : unit standard deviations
        By which a hot pixel exceeds, and a dead pixel undercuts, its third brightest or darkest neighbour.
    kind
        ``"hot"``, ``"dead"`` or ``"both"``.

    Returns
    -------
    mask : dims (ky, kx), bool, in memory
        True for pixels found; to be given as `bad_pixels`, or as ``mask=~found``. Attribute ``n_found``.

    Raises
    ------
    InputError
        No scan and no pattern, a variance that does not fit, a threshold that is not positive, an unknown kind, or
        64-bit integers in a scan.

    Notes
    -----
    A pixel of value v is compared with the other pixels of its 5 x 5 box: with their median m, and with the third
    brightest, c (the second or first at the border of the detector, where the box holds fewer). It is hot if
    ``v > c + threshold * sigma`` and ``v - m > 3 (c - m)``. A disk, its edge, a ring, or a spot of at least 1.9 pixels
    (full width at half maximum) has three pixels like any of its own within the box, so that none of them is hot; up to
    three hot pixels side by side are. Dead pixels have less than a tenth of their third darkest neighbour, f, and
    ``v < f - threshold * sigma``. Rows and columns of bad pixels, and spots of a single pixel, cannot be told from
    features of the pattern in this way.

    sigma^2 = max(s^2, V / n, g (c - b) / n) + (g / n)^2 for the mean of n frames. s is the robust scatter: 1.4826 times
    the median of abs(v - m) over the box. V is the median variance of the neighbours, g the signal of one electron and
    b the value without any, so that g (c - b) / n is the noise of counting: variance = g (mean - b) is the line through
    the darker half of the pixels and the brightest tenth. Without a variance V = 0, g = 1, b = 0. The last term, one
    electron, keeps single counts in the dark from being hot. n is the attribute ``n_frames`` of the pattern, 1 where
    there is none.

    With a variance, pixels are hot, too, whose variance stands out by the same two rules and exceeds (c - m)^2, which
    features may have that move: those that flicker. For variances, with their own c, sigma^2 = max(s^2, 2 c^2 / n
    + g^2 c / n) + (g^2 / n)^2. And an excess e = v - c over the mean must come from more than three hits,
    ``n e^2 > 3 (variance - V)``: what X-rays hit once is not hot.

    Memory: about ten patterns and 13 MB.
    """
    if not (math.isfinite(threshold) and threshold > 0) or kind not in {"hot", "dead", "both"}:
        msg = f"threshold={threshold!r} and kind={kind!r}; expected a positive number, and 'hot', 'dead' or 'both'"
        raise InputError(msg, threshold=threshold, kind=kind)
    mean, spread = _statistics(scan_or_pattern, variance)
    n_frames = int(mean.attrs.get("n_frames", 1))
    pattern = Pattern.of(np.asarray(mean.values, np.float64), spread, n_frames)
    found = np.zeros(mean.shape, bool)
    if kind != "dead":
        found |= pattern.hot(threshold)
    if kind != "hot":
        found |= pattern.dead(threshold)
    history = parameters_text("find_hot_pixels", n_frames=n_frames, threshold=threshold, kind=kind)
    result = labelled(found, mean, DETECTOR_DIMS, history).rename("bad_pixels")
    name = "hot or dead" if kind == "both" else kind
    result.attrs |= {"long_name": f"{name} pixels", "n_found": int(found.sum())}
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """What surrounds every pixel: median, third brightest and third darkest neighbour, and the robust scatter."""

    median: FloatArray
    bright: FloatArray
    dark: FloatArray
    scatter: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> Around:
        """Look around every pixel; pixels that hold no number are nobody's neighbours."""
        middle, bright, dark = _by_rank(values)
        scatter = NORMAL * _by_rank(np.abs(values - middle), own=True)[0]
        return cls(middle, bright, dark, scatter)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A mean pattern with its surroundings, and what is known of its noise.

    Attributes
    ----------
    mean : shape (ky, kx)
        Of `n_frames` frames.
    variance, usual : shape (ky, kx)
        Variance of the frames, and the median of that of the neighbours; None where nothing is known.
    electron, dark
        Signal of one electron, and value of a pixel without any.
    around
        Surroundings in the mean.
    """

    mean: FloatArray
    variance: FloatArray | None
    usual: FloatArray | None
    n_frames: int
    electron: float
    dark: float
    around: Around

    @classmethod
    def of(cls, mean: FloatArray, variance: FloatArray | None, n_frames: int) -> Pattern:
        """Estimate the signal of one electron and the noise."""
        if variance is None:
            return cls(mean, None, None, n_frames, 1.0, 0.0, Around.of(mean))
        return cls(mean, variance, _by_rank(variance)[0], n_frames, *_electron(mean, variance), Around.of(mean))

    def hot(self, threshold: float) -> BoolArray:
        """Mark pixels that are too bright, flicker, or hold no number."""
        found = _stands_out(self.mean, self.around, self._sigma(self.around.bright), threshold)
        if self.variance is not None and self.usual is not None:
            found |= self._flickers(self.variance, threshold)
            excess = np.maximum(self.mean - self.around.bright, 0.0)
            found &= self.n_frames * excess**2 > HITS * (self.variance - self.usual)
        return found | ~np.isfinite(self.mean)

    def dead(self, threshold: float) -> BoolArray:
        """Mark pixels that are dark among bright ones."""
        level = self.around.dark
        marked: BoolArray = (self.mean < level - threshold * self._sigma(level)) & (self.mean < DARK * level)
        return marked

    def _sigma(self, level: FloatArray) -> FloatArray:
        """Uncertainty of the mean at a level."""
        counting = self.electron * np.maximum(level - self.dark, 0.0)
        chance = (counting if self.usual is None else np.maximum(self.usual, counting)) / self.n_frames
        return np.sqrt(np.maximum(self.around.scatter**2, chance) + (self.electron / self.n_frames) ** 2)

    def _flickers(self, variance: FloatArray, threshold: float) -> BoolArray:
        """Mark pixels whose variance stands out."""
        around, quantum, n = Around.of(variance), self.electron**2, self.n_frames
        level = around.bright
        chance = 2 * level**2 / n + quantum * level / n
        sigma = np.sqrt(np.maximum(around.scatter**2, chance) + (quantum / n) ** 2)
        contrast = self.around.bright - self.around.median  # features that move vary, too, by about their contrast
        return _stands_out(variance, around, sigma, threshold) & (variance > contrast**2)


def _stands_out(values: FloatArray, around: Around, sigma: FloatArray, threshold: float) -> BoolArray:
    """Mark values above the third brightest neighbour by both rules; comparisons with NaN are False."""
    over = values > around.bright + threshold * sigma
    marked: BoolArray = over & (values - around.median > CONTRAST * (around.bright - around.median))
    return marked


def _electron(mean: FloatArray, variance: FloatArray) -> tuple[float, float]:
    """Signal of one electron and value without any: variance = signal * (mean - value) for dark and bright pixels."""
    known = np.isfinite(mean) & np.isfinite(variance)
    if not known.any():
        return 1.0, 0.0
    mean, variance = mean[known], variance[known]
    dark, bright = mean <= np.median(mean), mean >= np.quantile(mean, BRIGHT)
    (low, little), (high, much) = ((float(np.median(part)) for part in (mean[g], variance[g])) for g in (dark, bright))
    return (max((much - little) / (high - low), 0.0) if high > low else 1.0), low


def _by_rank(values: FloatArray, *, own: bool = False) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Median, third brightest and third darkest of the neighbours of every pixel (with itself if `own`)."""
    size = 2 * REACH + 1
    padded = np.pad(np.where(np.isfinite(values), values, np.nan), REACH, constant_values=np.nan)
    boxes = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    out = np.full((3, *values.shape), np.nan)
    rows = max(1, STRIP // max(1, values.shape[1]))
    chosen = np.ones(size * size, bool)
    chosen[size * size // 2] = own
    for first in range(0, len(values), rows):
        part = boxes[first : first + rows].reshape(-1, size * size)[:, chosen]
        out[:, first : first + rows] = _ranked(np.sort(part, axis=1)).reshape(3, -1, values.shape[1])
    return out[0], out[1], out[2]


def _ranked(rising: Array) -> FloatArray:
    """Median, third largest and third smallest of rows that hold numbers, then NaN; the second or first of few."""
    n = np.isfinite(rising).sum(axis=1)
    last = np.maximum(n - 1, 0)
    # where the border of the detector cuts a feature, fewer of its pixels are in the box
    beyond = (RANK - 1) * n // (4 * REACH * (REACH + 1))
    places = np.stack([last // 2, n // 2, last - beyond, beyond])
    low, high, bright, dark = np.take_along_axis(rising, np.clip(places, 0, last).T, axis=1).T
    return np.stack([(low + high) / 2, bright, dark])


def _statistics(given: Any, variance: Any) -> tuple[xr.DataArray, FloatArray | None]:
    """Give the mean pattern, and the variance where it is known."""
    import xarray as xr

    image = given if isinstance(given, xr.DataArray) and set(given.dims) == set(DETECTOR_DIMS) else intensity_of(given)
    if image.ndim > len(DETECTOR_DIMS):
        if variance is not None:
            msg = "a scan has a variance of its own; give variance=… with a mean pattern only"
            raise InputError(msg, key="variance")
        mean, spread = compute(mean_pattern(image), variance_pattern(image))
        return mean, np.asarray(spread.values, np.float64)
    mean = image.transpose(*DETECTOR_DIMS).compute()
    if variance is None:
        return mean, None
    if isinstance(variance, xr.DataArray) and set(variance.dims) == set(DETECTOR_DIMS):
        variance = variance.transpose(*DETECTOR_DIMS)
    spread = np.asarray(getattr(variance, "values", variance), np.float64)
    if spread.shape != mean.shape:
        msg = f"the variance has shape {spread.shape}, the pattern {mean.shape}; give variance_pattern of the same scan"
        raise InputError(msg, key="variance", found=spread.shape, expected=mean.shape)
    return mean, spread
