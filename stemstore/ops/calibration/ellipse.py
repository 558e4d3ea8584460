"""Elliptic distortion of diffraction patterns, from a ring that should be round."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError, ScanWarning
from stemstore.kernels.edge import noise_quantum, outliers
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.imaging.patterns import mean_pattern
from stemstore.ops.labels import intensity_of, values_of
from stemstore.scan.coordinates import axis_in, optic_axis

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray
    from stemstore.ops.geometry.plane import Centre

METHODS = ("ring", "amorphous")
PRESERVED = ("minor", "area")
LARGE = 0.05  # a / b - 1 above which a distortion is hardly one of the lenses
ROUNDS = 30  # of the ring fit, whose annulus follows the ellipse
SETTLED = 1e-7
SECTORS = 36  # in which the place of the ring is compared with the ellipse
BORDER = 0.15  # of the annulus' width, on both sides, where the background is measured
FEWEST = 30  # pixels of an annulus
ROUND = 1e-6  # a / b - 1 below which there is no direction


@dataclass(frozen=True, slots=True)
class EllipseFit:
    """An elliptic ring, and the matrix that makes it round.

    Attributes
    ----------
    a, b, a_sigma, b_sigma : unit `unit`
        Major and minor semi-axis, a >= b, with standard errors. They run through the mean of the ring's profile
        (``"ring"``) or through its maximum (``"amorphous"``).
    theta, theta_sigma : deg
        Direction of the major axis, from the row axis (ky) towards the column axis (kx): it points along
        ``(cos theta, sin theta)`` in (ky, kx). Above -90, up to 90; 0 where a equals b.
    ratio, ratio_sigma
        a / b, at least 1, and its standard error. Where ratio - 1 is not much larger than the error it is biased
        upwards, and the direction means nothing.
    center : unit `unit`
        (ky, kx) of the ring on the detector axes.
    residual : unit `unit`
        RMS distance of the ring from the ellipse, over 36 directions: noise, and distortion of another kind.
    method
        ``"ring"`` or ``"amorphous"``.
    preserve
        ``"minor"``: `matrix` leaves the minor axis as it is; ``"area"``: it leaves areas as they are.
    unit
        Of the lengths.
    """

    a: float
    a_sigma: float
    b: float
    b_sigma: float
    theta: float
    theta_sigma: float
    ratio: float
    ratio_sigma: float
    center: Centre
    residual: float
    method: str
    preserve: str
    unit: str

    @property
    def matrix(self) -> FloatArray:
        """Corrected vector = matrix times measured vector, (2, 2), for (row, column) vectors from the centre.

        1 - (1 - b / a) u u' with u along the major axis, as py4DSTEM has it; its determinant is b / a. Divided by
        sqrt(b / a) with ``preserve="area"``.
        """
        u = np.array([math.cos(math.radians(self.theta)), math.sin(math.radians(self.theta))])
        shrink = self.b / self.a
        return (np.eye(2) - (1 - shrink) * np.outer(u, u)) / (math.sqrt(shrink) if self.preserve == "area" else 1.0)


def fit_ellipse(
    scan: Any,
    inner: float,
    outer: float,
    *,
    method: Literal["ring", "amorphous"] = "ring",
    center: Centre | None = None,
    mask: Any = None,
    unit: str | None = None,
    preserve: Literal["minor", "area"] = "minor",
) -> EllipseFit:
    """Measure the elliptic distortion of a ring in a diffraction pattern.

    Parameters
    ----------
    scan
        A pattern, DataArray with the dims ky and kx (a powder or amorphous ring, a map of Bragg peaks), or a scan: its
        mean pattern is computed.
    inner, outer
        Annulus that holds one ring, and some background on both sides of it.
    method
        ``"ring"``: least squares of ``A y^2 + B y x + C x^2 = 1``, weighted with the intensity above the background; no
        assumption about the ring's profile. ``"amorphous"``: a ring with a Gaussian profile, of different widths inside
        and outside, on a background that changes linearly with the radius; for broad halos.
    center
        (ky, kx) where the search begins; the optic axis by default. The centre is fitted, too.
    mask
        Pixels that take part: a virtual detector, or a boolean array (ky, kx). Single hot and dead pixels are left out
        without it.
    unit
        Unit of `inner`, `outer`, `center` and of the result; default: the unit of the detector axes. Pixels that are
        not square should be calibrated first: their ratio is part of the ellipse otherwise.
    preserve
        What the correction keeps, see `EllipseFit`.

    Returns
    -------
    ellipse

    Raises
    ------
    InputError
        The annulus is impossible or holds too few pixels, there is no ring in it, or the fit is no ellipse.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Warns
    -----
    ScanWarning
        a / b exceeds 1.05.

    Notes
    -----
    The annulus follows the ellipse, so that its borders do not pull towards a circle. Errors come from noise whose
    variance is proportional to the intensity, measured on the pattern; speckle and texture are not in them (the
    `residual` shows these). Parametrisation and correction follow py4DSTEM (Savitzky et al., Microsc. Microanal. 27,
    712, 2021).
    """
    pattern, values, good = _load(scan, mask, (inner, outer), (method, preserve))
    axes = axis_in(pattern, "ky", unit), axis_in(pattern, "kx", unit)
    if center is None:
        center = optic_axis(pattern, "ky", unit), optic_axis(pattern, "kx", unit)
    quantum = noise_quantum(values, good)
    found = _fit_ring(values, good, axes, (inner, outer, *center), quantum)
    if method == "amorphous":
        found = _fit_halo(values, good, axes, found, (inner, outer))
    units = unit or (pattern.coords["ky"].attrs.get("units", "pixel") if "ky" in pattern.coords else "pixel")
    result = _result(found, _residual(values, good, axes, found, (inner, outer)), (method, preserve, str(units)))
    if result.ratio > 1 + LARGE:
        text = f"the ring is elliptic by {result.ratio - 1:.1%}, more than lenses do; check the annulus and the ring"
        warnings.warn(text, ScanWarning, stacklevel=2)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Ring:
    """Quadratic form (A, B, C) of the ellipse, its covariance, and the centre; rows first."""

    form: FloatArray
    covariance: FloatArray
    center: tuple[float, float]

    def radius(self, axes: tuple[FloatArray, FloatArray]) -> FloatArray:
        """Elliptic radius of every pixel, relative to the ellipse."""
        y, x = axes[0][:, None] - self.center[0], axes[1][None, :] - self.center[1]
        a, b, c = self.form
        return np.asarray(np.sqrt(np.maximum(a * y * y + b * y * x + c * x * x, 0.0)))

    @property
    def size(self) -> float:
        """Geometric mean of the semi-axes."""
        return float((self.form[0] * self.form[2] - self.form[1] ** 2 / 4) ** -0.25)


def _load(
    scan: Any, mask: Any, radii: tuple[float, float], choices: tuple[str, str]
) -> tuple[xr.DataArray, FloatArray, BoolArray]:
    """Check what was asked for; give the pattern, its pixels and which of them count."""
    for name, found, known in zip(("method", "preserve"), choices, (METHODS, PRESERVED), strict=True):
        if found not in known:
            msg = f"{name} {found!r} is not known; use one of {known}"
            raise InputError(msg, key=name, found=found, expected=known)
    if not (0 <= radii[0] < radii[1] and math.isfinite(radii[1])):
        msg = f"an annulus needs 0 <= inner < outer, got {radii}; give the radii around one ring"
        raise InputError(msg, key="inner", found=radii)
    image = intensity_of(scan)
    pattern = image if image.ndim == 2 else mean_pattern(image)  # noqa: PLR2004 (ky and kx)
    good = np.ones(pattern.shape, bool) if mask is None else np.array(as_detector(mask).weights(image)) != 0
    values = np.array(values_of(pattern), dtype=np.float64)
    good &= np.isfinite(values)
    if not good.any():
        msg = "no pixel of the pattern is finite and wanted; look at the pattern and at the mask"
        raise InputError(msg, key="pattern")
    values[~good] = 0.0
    good &= ~outliers(values, good)
    return pattern, values, good


def _fit_ring(
    values: FloatArray, good: BoolArray, axes: tuple[FloatArray, FloatArray], start: Any, quantum: float
) -> _Ring:
    """Solve A y^2 + B y x + C x^2 + D y + E x = 1 by weighted least squares until annulus and centre stay."""
    inner, outer, *center = start
    middle = (inner + outer) / 2
    ring = _Ring(np.array([1.0, 0.0, 1.0]) / middle**2, np.zeros((3, 3)), (float(center[0]), float(center[1])))
    edges = inner / middle, outer / middle
    for _ in range(ROUNDS):
        rho = ring.radius(axes) * (ring.size / middle)  # keeps the area of the annulus
        weight, near = _above_background(values, good, rho, edges)
        y, x = (np.broadcast_to(one, values.shape)[near] for one in (axes[0][:, None], axes[1][None, :]))
        y, x = (y - ring.center[0]) / middle, (x - ring.center[1]) / middle
        terms = np.stack([y * y, y * x, x * x, y, x], axis=1)
        normal = terms.T @ (terms * weight[:, None])
        if not weight.sum() > 0 or np.linalg.matrix_rank(normal) < len(normal):
            _no_ring("the annulus is not brighter than its borders")
        solved = np.asarray(np.linalg.solve(normal, terms.T @ weight), dtype=np.float64)
        form, shift = _centred(solved)
        if not (form[0] > 0 and 4 * form[0] * form[2] > form[1] ** 2):
            _no_ring(f"the best quadratic form {tuple(np.round(form, 3))} is no ellipse")
        inverse = np.linalg.inv(normal)
        variance = quantum * np.maximum(values[near], 0.0)
        scores = terms * (terms @ solved - 1)[:, None]
        covariance = inverse @ (scores.T @ (scores * variance[:, None])) @ inverse
        before = ring
        # the form is not sensitive to a small shift, so that the covariance of A, B and C is that at the old centre
        place = float(ring.center[0] + shift[0] * middle), float(ring.center[1] + shift[1] * middle)
        ring = _Ring(form / middle**2, covariance[:3, :3] / middle**4, place)
        moved = max(np.abs(ring.form - before.form).max() * middle**2, float(np.hypot(*shift)))
        if moved < SETTLED:
            break
        if not (inner <= ring.size <= outer and np.hypot(*(np.subtract(place, center))) < outer):
            _no_ring("the fit leaves the annulus")
    significance = weight.sum() / math.sqrt(max(quantum * np.maximum(values[near], 0).sum(), 1e-300))
    if not significance > 5:  # noqa: PLR2004 (standard deviations: less is noise)
        _no_ring(f"the ring is {significance:.2g} standard deviations above its background")
    rho = ring.radius(axes)
    edges = inner / ring.size, outer / ring.size
    weight, near = _above_background(values, good, rho, edges)
    # squares favour what lies outside: put the size where the radial profile, free of the area, has its mean
    scale = float(weight.sum() / (weight / rho[near]).sum())
    if not edges[0] < scale < edges[1]:
        _no_ring("its profile has no mean within the annulus")
    return _Ring(ring.form / scale**2, ring.covariance / scale**4, ring.center)


def _centred(solved: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Move the origin of A y^2 + B y x + C x^2 + D y + E x = 1 to its centre: (A, B, C) = 1, and the shift."""
    a, b, c, d, e = solved.tolist()
    matrix = np.array([[a, b / 2], [b / 2, c]])
    shift = -np.linalg.solve(matrix, np.array([d, e]) / 2)
    return np.asarray(solved[:3] / (1 + shift @ matrix @ shift)), shift


def _above_background(
    values: FloatArray, good: BoolArray, rho: FloatArray, edges: tuple[float, float]
) -> tuple[FloatArray, BoolArray]:
    """Intensity in the annulus less a line in the radius through both of its borders."""
    near = good & (rho >= edges[0]) & (rho < edges[1])
    if np.count_nonzero(near) < FEWEST:
        msg = f"the annulus holds {np.count_nonzero(near)} good pixels, at least {FEWEST} are needed; widen it"
        raise InputError(msg, key="inner", found=edges)
    border = BORDER * (edges[1] - edges[0])
    radius, data = rho[near], values[near]
    outside = (radius < edges[0] + border) | (radius >= edges[1] - border)
    terms = np.stack([np.ones_like(radius), radius], axis=1)
    line, *_ = np.linalg.lstsq(terms[outside], data[outside], rcond=None)
    return data - terms @ line, near


def _fit_halo(
    values: FloatArray, good: BoolArray, axes: tuple[FloatArray, FloatArray], start: _Ring, radii: tuple[float, float]
) -> _Ring:
    """Fit a two-sided Gaussian in the elliptic radius on a linear background, weighted with the model before."""
    from scipy.optimize import least_squares

    size = start.size
    edges = radii[0] / size, radii[1] / size
    near = good & (start.radius(axes) >= edges[0]) & (start.radius(axes) < edges[1])
    y, x = (np.broadcast_to(one, values.shape)[near] for one in (axes[0][:, None], axes[1][None, :]))
    y, x, data = (y - start.center[0]) / size, (x - start.center[1]) / size, values[near]
    low = float(np.quantile(data, 0.1))
    width = (edges[1] - edges[0]) / 6
    guess = np.array([*(start.form * size**2), 0.0, 0.0, float(np.quantile(data, 0.9)) - low, width, width, low, 0.0])
    weight = np.ones_like(data)
    for _ in range(3):  # weights settle after two
        root = np.sqrt(weight)
        found = least_squares(lambda p, w=root: (_halo(p, y, x) - data) * w, guess, x_scale="jac", max_nfev=100)
        guess = found.x
        model = _halo(guess, y, x)
        weight = 1 / np.maximum(model, 1e-3 * float(np.abs(model).max()))
    a, b, c = guess[:3]
    if not (a > 0 and 4 * a * c > b * b and guess[5] > 0 and edges[0] < (a * c - b * b / 4) ** -0.25 < edges[1]):
        _no_ring("the best halo is none, or lies outside the annulus")
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * (2 * found.cost / (len(data) - len(guess)))
    center = float(start.center[0] + guess[3] * size), float(start.center[1] + guess[4] * size)
    return _Ring(guess[:3] / size**2, covariance[:3, :3] / size**4, center)


def _halo(p: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
    """Model: A, B, C, centre (2), height, width inside, width outside, background and its slope."""
    dy, dx = y - p[3], x - p[4]
    rho = np.sqrt(np.maximum(p[0] * dy * dy + p[1] * dy * dx + p[2] * dx * dx, 0.0)) - 1
    return np.asarray(p[5] * np.exp(-((rho / np.where(rho < 0, p[6], p[7])) ** 2) / 2) + p[8] + p[9] * rho)


def _residual(
    values: FloatArray, good: BoolArray, axes: tuple[FloatArray, FloatArray], ring: _Ring, radii: tuple[float, float]
) -> float:
    """RMS distance of the ring from the ellipse over directions, in the unit of the axes."""
    rho = ring.radius(axes)
    weight, near = _above_background(values, good, rho, (radii[0] / ring.size, radii[1] / ring.size))
    y, x = (np.broadcast_to(one, values.shape)[near] for one in (axes[0][:, None], axes[1][None, :]))
    angle = np.arctan2(y - ring.center[0], x - ring.center[1])
    sector = np.minimum(((angle + np.pi) / (2 * np.pi) * SECTORS).astype(np.int64), SECTORS - 1)
    total = np.bincount(sector, weight, SECTORS)
    moment = np.bincount(sector, weight * rho[near], SECTORS)
    some = total > 0.1 * total.max()  # a direction without the ring says nothing
    place = moment[some] / total[some]
    return float(place.std() * ring.size)


def _axes_of(form: FloatArray) -> FloatArray:
    """Major and minor semi-axis, direction (rad) and ratio of an ellipse."""
    p, q, r = form
    lengths, vectors = np.linalg.eigh(np.array([[p, q / 2], [q / 2, r]]))
    a, b = 1 / np.sqrt(lengths)
    theta = math.atan2(vectors[1, 0], vectors[0, 0])
    theta = theta - math.pi * math.ceil(theta / math.pi - 0.5)  # above -90 degrees, up to 90
    return np.array([a, b, theta if a / b - 1 > ROUND else 0.0, a / b])


def _result(ring: _Ring, residual: float, about: tuple[str, str, str]) -> EllipseFit:
    """Turn the form and its covariance into axes and their errors, by small steps along its eigenvectors."""
    here = _axes_of(ring.form)
    sizes, directions = np.linalg.eigh(ring.covariance)
    slopes = []
    for size, direction in zip(np.sqrt(np.maximum(sizes, 0.0)), directions.T, strict=True):
        ends = [_axes_of(ring.form + sign * 1e-3 * size * direction) for sign in (1, -1)]
        change = ends[0] - ends[1]
        change[2] = (change[2] + math.pi / 2) % math.pi - math.pi / 2  # directions repeat
        slopes.append(change / 2e-3)
    sigma = np.sqrt((np.array(slopes) ** 2).sum(axis=0))
    # no direction at all: the spread of an even distribution over 180 degrees
    theta_sigma = min(math.degrees(sigma[2]), 180 / math.sqrt(12)) if here[3] - 1 > ROUND else 180 / math.sqrt(12)
    return EllipseFit(
        a=float(here[0]),
        a_sigma=float(sigma[0]),
        b=float(here[1]),
        b_sigma=float(sigma[1]),
        theta=math.degrees(here[2]),
        theta_sigma=theta_sigma,
        ratio=float(here[3]),
        ratio_sigma=float(sigma[3]),
        center=ring.center,
        residual=residual,
        method=about[0],
        preserve=about[1],
        unit=about[2],
    )


def _no_ring(why: str) -> None:
    msg = f"no elliptic ring was found: {why}; choose inner and outer around one ring, and its center"
    raise InputError(msg, key="inner", found=why)
