"""The probe that disks are compared with: a synthetic disk, or one measured on an image; and the limit of precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from stemstore.errors import InputError
from stemstore.kernels import edge

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray

THRESHOLDS = (0.25, 0.4, 0.45, 0.5, 0.55, 0.6, 0.75)  # of the plateau
EDGE_WIDTH = 2.0  # px; of a synthetic disk
SURROUNDINGS = 1.6  # radii; disks of a lattice are two radii apart and more
NARROWEST = 1.0  # px; a measured edge is not taken for sharper, noise sees to that
FINE = 8  # sub-pixels per direction over which a synthetic disk is averaged
LARGE = 24.0  # px; larger disks are averaged over half as many, which is as exact relative to their size


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A probe, ready to be drawn anywhere.

    Attributes
    ----------
    radius, edge_width : px
        Half height, and width of the linear edge from 0 to the full height.
    centre : px
        (row, column) on the image it was measured on; None for a synthetic disk.
    stamp : shape (n, n), n odd
        The disk alone, of height 1, its centre in the middle; None for a synthetic disk.
    source
        Where it comes from, in words.
    """

    radius: float
    edge_width: float = EDGE_WIDTH
    centre: tuple[float, float] | None = None
    stamp: FloatArray | None = None
    source: str = "synthetic disk"

    def with_radius(self, radius: float | None) -> Template:
        """Give the template with another radius for everything that follows from it; the image stays."""
        return self if radius is None else replace(self, radius=float(radius))

    def draw(self, shape: tuple[int, int], centre: tuple[float, float]) -> FloatArray:
        """Draw the probe, of height 1, with its centre at (row, column) on an empty image of `shape`.

        A synthetic disk is averaged over the area of every pixel; the image of a measured one is moved in Fourier
        space, which is exact for what pixels can resolve.
        """
        if self.stamp is None:
            fine = FINE if self.radius <= LARGE else FINE // 2
            middle = (centre[0] * fine + (fine - 1) / 2, centre[1] * fine + (fine - 1) / 2)
            large = disk((shape[0] * fine, shape[1] * fine), middle, self.radius * fine, self.edge_width * fine)
            return large.reshape(shape[0], fine, shape[1], fine).mean(axis=(1, 3))
        whole = [round(c) for c in centre]
        moved = moved_by(self.stamp, (centre[0] - whole[0], centre[1] - whole[1]))
        image = np.zeros(shape)
        half = len(moved) // 2
        first = [w - half for w in whole]
        own = [slice(max(0, -f), max(0, min(len(moved), n - f))) for f, n in zip(first, shape, strict=True)]
        place = [slice(max(0, f), max(0, f + len(moved))) for f in first]
        image[place[0], place[1]] = moved[own[0], own[1]]
        return image


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe on an image: radius and edge width in px, centre as (row, column) in px, height of its plateau."""

    radius: float
    edge_width: float
    centre: tuple[float, float]
    height: float = 1.0


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

    The round edge is fitted, see `stemstore.kernels.edge.fit_edge`. What the fit starts from, and what remains where
    there is no such edge: the plateau is the median of the pixels above half of the (3 x 3 median-filtered) maximum, so
    that noise and hot pixels do not lift it; the radius at threshold t is ``sqrt(number of pixels above t / pi)``,
    averaged over t from 0.4 to 0.6 of the plateau; the edge width is twice the difference of the radii at 1/4 and 3/4;
    the centre is the centre of mass of the pixels above half of the plateau. py4DSTEM's ``get_probe_size`` takes
    thresholds relative to the maximum instead, which noise biases towards small radii.

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
    near = _around_brightest(values)
    values = np.where(near, values, 0.0)
    smooth = ndimage.median_filter(values, size=3)
    bright = smooth > smooth.max() / 2 if smooth.max() > 0 else values > 0
    plateau = float(np.median(values[bright]))
    radius = {t: math.sqrt(np.count_nonzero(values > t * plateau) / math.pi) for t in THRESHOLDS}
    rows, columns = np.nonzero(values > plateau / 2)
    weight = values[rows, columns]
    centre = (float(np.average(rows, weights=weight)), float(np.average(columns, weights=weight)))
    middle = float(np.mean([radius[t] for t in THRESHOLDS[1:-1]]))
    rough = Probe(middle, max(NARROWEST, 2 * (radius[0.25] - radius[0.75])), centre, plateau)
    return _fitted(values, near, rough)


def _around_brightest(values: FloatArray) -> BoolArray:
    """Mark the brightest disk with its surroundings, up to 1.6 radii: other disks may be as bright."""
    smooth = ndimage.median_filter(values, size=3)
    smooth = smooth if smooth.max() > 0 else values
    areas, _ = ndimage.label(smooth > smooth.max() / 2)
    own = np.argwhere(areas == areas[np.unravel_index(smooth.argmax(), smooth.shape)])
    radius, centre = math.sqrt(len(own) / math.pi), own.mean(axis=0)
    rows, columns = np.ogrid[: values.shape[0], : values.shape[1]]
    return np.asarray(np.hypot(rows - centre[0], columns - centre[1]) <= max(SURROUNDINGS * radius, radius + 3))


def _fitted(values: FloatArray, near: BoolArray, rough: Probe) -> Probe:
    """Fit the edge of a probe; give the rough one back where the fit fails or finds something else."""
    axes = [np.arange(n * 1.0) for n in values.shape]
    try:
        fit = edge.fit_edge(values, near, axes, (*rough.centre, rough.radius))
    except InputError:
        return rough
    ky, kx, radius, sigma = fit.values[:4]
    away = math.hypot(ky - rough.centre[0], kx - rough.centre[1])
    if not (away < rough.radius / 2 and abs(radius - rough.radius) < rough.radius / 3 and sigma < rough.radius / 2):
        return rough
    return Probe(radius, max(NARROWEST, edge.EDGE_WIDTH * sigma), (ky, kx), rough.height)


def template_of(image: Array, source: str | None = None) -> Template:
    """Cut the brightest disk out of an image.

    Background is the median between 1.5 and 2 radii. A cosine taper, 2 px or a quarter of the radius wide, starts where
    the edge ends and keeps neighbouring disks of a mean pattern out.

    Raises
    ------
    InputError
        As `measure_probe`.
    """
    probe = measure_probe(image)
    values, radius = np.asarray(image, dtype=np.float64), probe.radius
    rows, columns = (np.arange(n) - c for n, c in zip(values.shape, probe.centre, strict=True))
    distance = np.hypot(rows[:, None], columns[None, :])
    ring = values[(distance >= 1.5 * radius) & (distance < 2 * radius)]
    width = max(2.0, radius / 4)
    beyond = (distance - radius - probe.edge_width / 2) / width
    taper = np.cos(np.pi / 2 * np.clip(beyond, 0, 1)) ** 2
    background = float(np.median(ring)) if ring.size else 0.0
    clean = np.clip((values - background) / max(probe.height - background, 1e-300), 0, None) * taper
    half = math.ceil(radius + probe.edge_width / 2 + width) + 2  # empty rim: moved in Fourier space it does not wrap
    whole = [round(c) for c in probe.centre]
    stamp = np.pad(clean, half)[whole[0] : whole[0] + 2 * half + 1, whole[1] : whole[1] + 2 * half + 1]
    stamp = np.clip(moved_by(stamp, (whole[0] - probe.centre[0], whole[1] - probe.centre[1])), 0, None)
    text = f"image of shape {values.shape}" if source is None else source
    return Template(radius, probe.edge_width, probe.centre, stamp, text)


def moved_by(image: FloatArray, shift: tuple[float, float]) -> FloatArray:
    """Move an image by less than a pixel in Fourier space."""
    if shift == (0.0, 0.0):
        return image
    frequencies = fft.fftfreq(image.shape[0])[:, None] * shift[0] + fft.rfftfreq(image.shape[1])[None, :] * shift[1]
    moved: FloatArray = fft.irfft2(fft.rfft2(image) * np.exp(-2j * np.pi * frequencies), s=image.shape)
    return moved


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
    Cramér-Rao: ``1 / sigma^2 = sum_p (d mu_p / dx)^2 / mu_p`` with ``mu = b + A S``, S integrated over pixels and
    averaged over two positions on the pixel grid. For a thin edge this tends to
    ``sigma = sqrt(r w / (N ln(1 + A / b)))``.
    """
    if counts <= 0 or background <= 0:
        msg = f"the position limit needs counts and background above zero, got {counts!r} and {background!r}"
        raise InputError(msg, counts=counts, background=background)
    template, half = Template(radius, edge_width), math.ceil(radius + edge_width + 2)
    information = []
    for offset in (0.0, 0.5):
        places = (half + offset + step for step in (-0.05, 0.0, 0.05))
        below, shape, above = (template.draw((2 * half + 1, 2 * half + 1), (place, float(half))) for place in places)
        height = counts / shape.sum()
        slope = height * (above - below) / 0.1
        information.append(float((slope**2 / (background + height * shape)).sum()))
    return 1.0 / math.sqrt(sum(information) / len(information))
