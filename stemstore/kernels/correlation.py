"""The probe, the two kernels that Bragg-disk detection correlates frames with, and the correlation itself.

Two maps are made from one forward transform. The *detection* map uses a zero-sum sigmoid kernel and a Gaussian: it
answers where disks are. The *refinement* map uses the logarithm of the probe: for Poisson counts with mean
``b + A S(p - x)`` the log-likelihood of a disk position x is ``sum n_p log(1 + (A / b) S(p - x))`` up to a constant, so
that correlating with ``log(1 + c S)``, c = A / b, is the maximum-likelihood estimate. It is not smoothed, because the
position lives on the sharp edge of the disk, and its kernel is the disk alone, so that strong neighbours do not pull.

The detection kernel follows py4DSTEM (Savitzky et al., Microsc. Microanal. 27 (2021) 712).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray

THRESHOLDS = (0.25, 0.4, 0.45, 0.5, 0.55, 0.6, 0.75)  # of the plateau

_scratch = threading.local()


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe on an image: radius and edge width in px, centre as (row, column) in px."""

    radius: float
    edge_width: float
    centre: tuple[float, float]


def disk(shape: tuple[int, int], centre: tuple[float, float], radius: float, edge_width: float) -> FloatArray:
    """Draw a disk of height 1 whose edge falls linearly over `edge_width` px.

    Parameters
    ----------
    shape, centre, radius, edge_width : px
        The value at distance rho from the centre is ``clip((radius - rho) / edge_width + 1/2, 0, 1)``.

    Returns
    -------
    image : shape `shape`, float64
    """
    rows = np.arange(shape[0])[:, None] - centre[0]
    columns = np.arange(shape[1])[None, :] - centre[1]
    return np.clip((radius - np.hypot(rows, columns)) / edge_width + 0.5, 0.0, 1.0)


def measure_probe(image: Array) -> Probe:
    """Measure radius, edge width and centre of the brightest disk of an image.

    The plateau is the median of the pixels above half of the (3 x 3 median-filtered) maximum, so that noise and hot
    pixels do not lift it. The radius at threshold t is ``sqrt(number of pixels above t / pi)``, averaged over t from
    0.4 to 0.6 of the plateau; the edge width is twice the difference of the radii at 1/4 and 3/4; the centre is the
    centre of mass of the pixels above half of the plateau. py4DSTEM's ``get_probe_size`` takes thresholds relative to
    the maximum instead, which noise biases towards small radii.

    Parameters
    ----------
    image : shape (ky, kx)
        Vacuum probe, or mean pattern in which the unscattered disk is the brightest.

    Returns
    -------
    probe
        Radius, edge width and centre in px.

    Raises
    ------
    InputError
        The image is not two-dimensional, not finite or empty of counts.
    """
    values = np.asarray(image, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all() or values.max(initial=0.0) <= 0:  # noqa: PLR2004 (an image)
        msg = (
            f"the probe template must be a finite two-dimensional image with counts, got shape {values.shape}; "
            "pass a vacuum or mean pattern, or radius= for a synthetic probe"
        )
        raise InputError(msg, shape=values.shape)
    smooth = ndimage.median_filter(values, size=3)
    bright = smooth > smooth.max() / 2 if smooth.max() > 0 else values > 0
    plateau = float(np.median(values[bright]))
    radius = {t: math.sqrt(np.count_nonzero(values > t * plateau) / math.pi) for t in THRESHOLDS}
    rows, columns = np.nonzero(values > plateau / 2)
    weight = values[rows, columns]
    centre = (float(np.average(rows, weights=weight)), float(np.average(columns, weights=weight)))
    return Probe(
        float(np.mean([radius[t] for t in THRESHOLDS[1:-1]])), max(1.0, 2 * (radius[0.25] - radius[0.75])), centre
    )


def probe_at_origin(image: Array, probe: Probe, shape: tuple[int, int]) -> FloatArray:
    """Cut a measured disk out of its image and move its centre to pixel (0, 0) of a periodic image of `shape`.

    Background is the median between 1.5 and 2 radii. A cosine taper, 2 px or a quarter of the radius wide, starts where
    the edge ends and keeps neighbouring disks of a mean pattern out. The sub-pixel part of the shift is done in Fourier
    space.
    """
    rows, columns = (np.arange(n) - c for n, c in zip(image.shape, probe.centre, strict=True))
    distance = np.hypot(rows[:, None], columns[None, :])
    image, radius = np.asarray(image, dtype=np.float64), probe.radius
    ring = image[(distance >= 1.5 * radius) & (distance < 2 * radius)]
    beyond = (distance - radius - probe.edge_width / 2) / max(2.0, radius / 4)
    taper = np.cos(np.pi / 2 * np.clip(beyond, 0, 1)) ** 2
    clean = np.clip(image - (np.median(ring) if ring.size else 0.0), 0, None) * taper
    whole = [round(c) for c in probe.centre]
    placed = np.zeros(shape)
    source = np.argwhere(taper > 0)
    np.add.at(placed, tuple(((source - whole) % shape).T), clean[tuple(source.T)])
    shift = [c - w for c, w in zip(probe.centre, whole, strict=True)]
    phase = np.exp(2j * np.pi * (fft.fftfreq(shape[0])[:, None] * shift[0] + fft.rfftfreq(shape[1])[None] * shift[1]))
    return np.clip(fft.irfft2(fft.rfft2(placed) * phase, s=shape), 0, None)


def disk_at_origin(shape: tuple[int, int], radius: float, edge_width: float) -> FloatArray:
    """Draw a disk of height 1 around pixel (0, 0) of a periodic image; parameters as in `disk`."""
    return np.clip((radius - _wrapped_distance(shape)) / edge_width + 0.5, 0.0, 1.0)


def make_kernels(image: FloatArray, window: float, sigma: float, contrast: float) -> tuple[Array, Array]:
    """Transform the zero-sum detection kernel and the refinement kernel of a probe at pixel (0, 0).

    Parameters
    ----------
    image : shape (ky, kx)
        Probe, see `disk_at_origin` and `probe_at_origin`.
    window : px
        Outer radius of the cosine window that is subtracted from the detection kernel.
    sigma : px
        Gaussian smoothing of the detection kernel.
    contrast
        c of the refinement kernel ``log(1 + c S)``.

    Returns
    -------
    detect, refine : shape (ky, kx / 2 + 1), complex128
        Conjugate transforms, ready to be multiplied with that of a frame.

    Notes
    -----
    The refinement kernel has no window: the likelihood compares the disk alone, and a window's slope next to a strong
    disk pushes positions away from it (by up to several pixels, measured).
    """
    shape = (image.shape[0], image.shape[1])
    compensation = np.cos(np.pi / 2 * np.clip(_wrapped_distance(shape) / window, 0, 1)) ** 2
    logarithm = np.log1p(contrast * image / image.max())
    detect = np.conj(fft.rfft2(image / image.sum() - compensation / compensation.sum()))
    frequency = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2
    detect *= np.exp(-2 * np.pi**2 * sigma**2 * frequency)
    detect[0, 0] = 0  # exactly zero-sum
    return detect, np.conj(fft.rfft2(logarithm / logarithm.sum()))


def workspace(shape: tuple[int, int]) -> Array:
    """Lend this thread's frame buffer of a transform size (float32); zero at first, valid until the next call."""
    buffers: dict[tuple[int, int], Array] = _scratch.__dict__.setdefault("frames", {})
    if shape not in buffers:
        buffers.clear()  # a thread works on one detector at a time: do not hoard
        buffers[shape] = np.zeros(shape, dtype=np.float32)
    return buffers[shape]


def correlate(image: Array, detect: Array, refine: Array) -> tuple[Array, Array]:
    """Correlate one frame with both kernels.

    Parameters
    ----------
    image : shape (ky, kx), float32, counts
        Frame minus its background level, zero where it was enlarged for the transform.
    detect, refine : shape (ky, kx / 2 + 1), complex64
        From `make_kernels`.

    Returns
    -------
    detection, refinement : shape (ky, kx), float32
        Detection is in counts per pixel: a disk of A counts per pixel gives A times its overlap with the kernel.

    Notes
    -----
    One frame at a time and in single precision: batches leave the processor's cache.
    """
    spectrum = fft.rfft2(image, workers=1)
    detection = fft.irfft2(spectrum * detect, s=image.shape, workers=1, overwrite_x=True)
    spectrum *= refine
    return detection, fft.irfft2(spectrum, s=image.shape, workers=1, overwrite_x=True)


def position_limit(radius: float, edge_width: float, counts: float, background: float) -> float:
    """Smallest standard deviation that any unbiased estimate of a disk's position can have.

    Parameters
    ----------
    radius, edge_width : px
        Shape of the disk, as in `disk`.
    counts
        Counts in the disk, without background.
    background : counts per pixel
        Flat background, known to the estimator; larger than zero.

    Returns
    -------
    sigma : px, per axis

    Raises
    ------
    InputError
        Counts or background are not positive.

    Notes
    -----
    Cramér-Rao: ``1 / sigma^2 = sum_p (d mu_p / dx)^2 / mu_p`` with ``mu = b + A S``, S integrated over pixels (8 x 8
    sub-pixels) and averaged over two positions on the pixel grid. For a thin edge this tends to
    ``sigma = sqrt(r w / (N ln(1 + A / b)))``.
    """
    if counts <= 0 or background <= 0:
        msg = f"the position limit needs counts and background above zero, got {counts!r} and {background!r}"
        raise InputError(msg, counts=counts, background=background)
    information = []
    for offset in (0.0, 0.5):
        below, shape, above = (_pixel_disk(radius, edge_width, offset + step) for step in (-0.05, 0.0, 0.05))
        height = counts / shape.sum()
        slope = height * (above - below) / 0.1
        information.append(float((slope**2 / (background + height * shape)).sum()))
    return 1.0 / math.sqrt(sum(information) / len(information))


def _pixel_disk(radius: float, edge_width: float, offset: float, fine: int = 8) -> FloatArray:
    size = 2 * math.ceil(radius + edge_width + 2) + 1
    middle = (size * fine - 1) / 2
    image = disk((size * fine, size * fine), (middle + offset * fine, middle), radius * fine, edge_width * fine)
    return image.reshape(size, fine, size, fine).mean(axis=(1, 3))


def _wrapped_distance(shape: tuple[int, int]) -> FloatArray:
    """Distance of every pixel to pixel (0, 0) of a periodic image."""
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in shape)
    return np.hypot(rows[:, None], columns[None, :])
