"""A disk on an image: found, and its round edge fitted, with noise, hot pixels and cut disks in mind.

Plain arrays; `stemstore.ops.calibration.beam` names their axes and units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_fill_holes, gaussian_filter, label, rank_filter
from scipy.special import erfc

from stemstore.errors import InputError
from stemstore.kernels import background

if TYPE_CHECKING:
    from stemstore._types import BoolArray, FloatArray

SIGNIFICANCE = 6.0  # standard errors of its height by which a disk must stand out; 4.5 happen by chance in 10^5 pixels
SCALES = (0.7, 1.5, 3.0, 6.0, 12.0)  # px, Gaussians with which weaker and weaker disks are looked for
CLEAR = 8.0  # standard deviations of a smoothed pattern at which half the height of a disk is a safe threshold
FAR_OFF = 1e-3  # share of a smoothing window with good pixels, below which nothing is known
TILE = 8  # px, squares whose means tell background from disks
HOT = 4.0  # times its third brightest neighbour: what no disk of more than a few pixels does
BORDER = 0.3  # radii on both sides of the edge that the fit sees, at least MARGIN pixels
MARGIN = 4.0
WIDEST = 12.0  # px, at most: what lies further inside or outside has structure of its own
SAMPLES = tuple(
    (y, x) for y in (-0.5 / math.sqrt(3), 0.5 / math.sqrt(3)) for x in (-0.5 / math.sqrt(3), 0.5 / math.sqrt(3))
)
"""Places within a pixel whose mean is its integral, up to third order (Gauss)."""
ROUNDS = 3  # of fits, each to the pixels around the edge that the one before has found
STEPS, HALVINGS = 30, 6
SETTLED = 1e-4  # px
DARKEST = 1e-2  # of the brightest pixel of the model: the least variance that is believed
THINNEST = 0.2  # px, standard deviation of an edge
EDGE_WIDTH = math.sqrt(12)  # width of a linear edge, in its standard deviations
SMALLEST = 0.7  # px, radius of a disk
LEAST_BORDER = 0.15  # of the edge that must lie on the detector


@dataclass(frozen=True, slots=True)
class EdgeFit:
    """Values and standard errors of (ky, kx, radius, sigma, height, background); px and unit of the pattern."""

    values: tuple[float, ...]
    errors: tuple[float, ...]
    covered: float
    misfit: float


def outliers(values: FloatArray, good: BoolArray) -> BoolArray:
    """Mark single pixels, or pairs, that are far brighter or darker than all others around them.

    Parameters
    ----------
    values, good : shape (ky, kx)
        Pattern and the pixels of it that count.

    Returns
    -------
    marks : shape (ky, kx)
        Pixels above four times the third brightest, or below a quarter of the third darkest, of the 5 x 5 pixels
        around them, by more than the noise of the pattern explains.
    """
    quantum = noise_quantum(values, good)
    filled = np.where(good, values, np.median(values[good]))
    third, low = (rank_filter(filled, rank, size=5, mode="mirror") for rank in (-3, 2))
    noise = background.noise_limits(quantum * np.maximum(third, quantum).ravel(), quantum, SIGNIFICANCE)
    hot = (filled - HOT * np.maximum(third, 0) > noise.reshape(values.shape)) & (filled > third)
    noise = background.noise_limits(quantum * np.maximum(low, quantum).ravel(), quantum, SIGNIFICANCE)
    dead = (low - filled > noise.reshape(values.shape)) & (HOT * filled < low)
    return np.asarray(good & (hot | dead))


def noise_quantum(values: FloatArray, good: BoolArray) -> float:
    """Estimate variance over mean of the noise: 1 for counts, 1 / n for the mean of n patterns of counts.

    The median over squares of 8 x 8 pixels with intensity, so that edges and hot pixels have no say.
    """
    count, total, square, _ = background.tile_sums(np.ascontiguousarray(values), good, TILE)
    some = (count > 1) & (total > 0)
    if not some.any():
        return 0.0
    count, total, square = count[some], total[some], square[some]
    variance = np.maximum(square - total**2 / count, 0.0) / (count - 1)
    return float(np.median(variance * count / total))


def first_disk(
    values: FloatArray, good: BoolArray, axes: list[FloatArray], start: tuple[int, ...] | None
) -> tuple[tuple[float, float, float], FloatArray]:
    """Find centre and radius roughly, on the finest scale at which a disk stands out of the noise.

    Parameters
    ----------
    values, good : shape (ky, kx)
        Pattern, zero where it is not good.
    axes : px
        Places of the rows and of the columns.
    start
        Row and column of a pixel inside the disk; None for the brightest.

    Returns
    -------
    disk : px
        ky, kx, radius.
    smooth : shape (ky, kx)
        The smoothed pattern in which it was found.
    """
    quantum = noise_quantum(values, good)
    best, found = SIGNIFICANCE, None
    for scale in SCALES[: 1 + int(np.searchsorted(SCALES[1:], max(values.shape) / 4))]:
        weight = gaussian_filter(good.astype(np.float64), scale, mode="constant")
        smooth = gaussian_filter(values, scale, mode="constant") / np.where(weight > FAR_OFF, weight, np.inf)
        smooth[~good] = -np.inf
        level = float(np.quantile(smooth[good], 0.2))
        at = np.unravel_index(int(np.argmax(smooth)), smooth.shape) if start is None else start
        area = _area_around(smooth, (int(at[0]), int(at[1])), level)
        radius = math.sqrt(np.count_nonzero(area) / math.pi)
        if radius < max(scale, SMALLEST):
            continue
        plateau = float(np.median(smooth[area])) - level
        noise = math.sqrt(quantum * max(plateau + level, quantum) / (4 * math.pi * scale**2))
        if plateau > best * noise:
            rows, columns = np.nonzero(area)
            best = min(plateau / max(noise, 1e-300), CLEAR)
            found = (float(axes[0][rows].mean()), float(axes[1][columns].mean()), radius), smooth
        if best >= CLEAR:
            break
    if found is None:
        msg = f"no disk stands out of the noise of the pattern of {values.shape} pixels; sum more frames, or look at it"
        raise InputError(msg, key="pattern", found=values.shape)
    return found


def _area_around(smooth: FloatArray, at: tuple[int, int], level: float) -> BoolArray:
    """Pixels joined to a place that are above half of the height there; then of the median height, without holes."""
    half = (smooth[at] + level) / 2
    area = np.zeros(smooth.shape, bool)
    for _ in range(3):
        names, _ = label(smooth > half)
        if names[at] == 0:
            break
        area = np.asarray(names == names[at])
        half = (float(np.median(smooth[area])) + level) / 2
    return np.asarray(binary_fill_holes(area))


def fit_edge(values: FloatArray, good: BoolArray, axes: list[FloatArray], first: tuple[float, float, float]) -> EdgeFit:
    """Fit centre, radius, edge, height and background to the pixels around the edge, which follow the fit.

    Parameters
    ----------
    values, good, axes
        As in `first_disk`.
    first : px
        ky, kx, radius.
    """
    y, x = axes[0][:, None], axes[1][None, :]
    guess = np.array([*first, 1.0, 0.0, 0.0])
    for number in range(ROUNDS):
        rho = np.hypot(y - guess[0], x - guess[1])
        reach = min(max(MARGIN, BORDER * guess[2]), WIDEST) + 3 * guess[3] + (guess[2] / 4 if number == 0 else 0)
        near = good & (np.abs(rho - guess[2]) < reach)
        inside = near & (rho < guess[2])
        if np.count_nonzero(near) < 12 or not inside.any() or not (near & ~inside).any():  # noqa: PLR2004 (twice the number of parameters)
            _no_disk("too few good pixels lie on one side of its edge")
        ky, kx = (np.broadcast_to(one, values.shape)[near] for one in (y, x))
        if number == 0:
            guess[5] = values[near & ~inside].mean()
            guess[4] = values[inside].mean() - guess[5]
        guess = _settle(guess, values[near], ky, kx)
        if not (guess[4] > 0 and guess[2] < 2 * max(values.shape)):
            _no_disk("the intensity does not fall at a round edge")
    model, slopes = _edge(guess, ky, kx)
    left = values[near] - model
    weight = _weights(model)
    # each pixel's own residual stands for its noise, so that the errors hold for any weights and any kind of noise
    inner = np.linalg.pinv(slopes.T @ (slopes * weight[:, None]))
    spread = slopes.T @ (slopes * ((weight * left) ** 2 * len(left) / (len(left) - len(guess)))[:, None])
    errors = np.sqrt(np.maximum(np.diag(inner @ spread @ inner), np.finfo(float).tiny))
    misfit = math.sqrt(float((left**2).mean())) / float(guess[4])
    return EdgeFit(tuple(map(float, guess)), tuple(map(float, errors)), _covered(good, axes, guess), misfit)


def _weights(model: FloatArray) -> FloatArray:
    """One over the variance of counts, up to a factor; dark surroundings do not outweigh everything."""
    return np.asarray(1 / np.maximum(model, DARKEST * max(float(model.max()), 1e-300)))


def _settle(guess: FloatArray, data: FloatArray, ky: FloatArray, kx: FloatArray) -> FloatArray:
    """Improve a guess by weighted least squares, in steps that do not leave the disk; weights follow the model."""
    model, slopes = _edge(guess, ky, kx)
    for _ in range(STEPS):
        weight = _weights(model)
        cost = float((weight * (data - model) ** 2).sum())
        normal = slopes.T @ (slopes * weight[:, None])
        step = np.linalg.pinv(normal) @ (slopes.T @ (weight * (data - model)))
        limit = np.array([guess[2] / 2, guess[2] / 2, guess[2] / 2, guess[3] / 2])
        step *= min(1.0, float((limit / np.maximum(np.abs(step[:4]), 1e-300)).min()))
        for _ in range(HALVINGS):
            trial = guess + step
            trial[3] = max(trial[3], THINNEST)
            model, slopes = _edge(trial, ky, kx)
            if float((weight * (data - model) ** 2).sum()) <= cost * (1 + 1e-9):
                break
            step /= 2
        moved, guess = float(np.abs(trial - guess)[:4].max()), trial
        if moved < SETTLED:
            break
    return guess


def _edge(p: FloatArray, ky: FloatArray, kx: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Model and its derivatives by (ky, kx, radius, sigma, height, background)."""
    model, derivatives = np.zeros(len(ky)), np.zeros((len(ky), 6))
    for down, right in SAMPLES:
        dy, dx = ky + down - p[0], kx + right - p[1]
        rho = np.hypot(dy, dx)
        t = (rho - p[2]) / p[3]
        step = erfc(t / math.sqrt(2)) / 2
        slope = p[4] / p[3] / math.sqrt(2 * math.pi) * np.exp(-t * t / 2)
        away = slope / np.maximum(rho, 1e-9)
        model += p[5] + p[4] * step
        for column, part in enumerate((away * dy, away * dx, slope, slope * t, step, 1.0)):
            derivatives[:, column] += part
    return model / len(SAMPLES), derivatives / len(SAMPLES)


def _covered(good: BoolArray, axes: list[FloatArray], p: FloatArray) -> float:
    """Share of the circle that runs over good pixels."""
    angles = np.arange(360) * (2 * np.pi / 360)
    on = np.ones(360, bool)
    where = []
    for axis, place, direction in zip(axes, p[:2], (np.sin(angles), np.cos(angles)), strict=True):
        at = place + p[2] * direction
        order = np.argsort(axis)
        index = np.rint(np.interp(at, axis[order], order.astype(np.float64))).astype(np.int64)
        half = abs(axis[-1] - axis[0]) / max(1, len(axis) - 1) / 2
        on &= np.abs(axis[index] - at) <= half * (1 + 1e-9)
        where.append(index)
    return float((on & good[where[0], where[1]]).mean())


def check_disk(fit: EdgeFit) -> None:
    """Refuse what is not a disk."""
    _, _, radius, sigma, height, _ = fit.values
    if not height > SIGNIFICANCE * fit.errors[4]:
        _no_disk(f"the best one is {height / fit.errors[4]:.2g} standard errors high, less than {SIGNIFICANCE:g}")
    if radius < SMALLEST:
        _no_disk(f"the brightest spot has a radius of {radius:.2g} pixels")
    if EDGE_WIDTH * sigma > 2 * radius:
        _no_disk(f"the edge of the brightest area, {EDGE_WIDTH * sigma:.3g} pixels, is wider than the area")
    if fit.covered < LEAST_BORDER:
        _no_disk(f"only {fit.covered:.0%} of the edge of the brightest area lies on good pixels")


def _no_disk(why: str) -> None:
    msg = f"the pattern has no disk: {why}; look at it, give near=…, or mask=… without bad pixels"
    raise InputError(msg, key="pattern", found=why)


def area_radius(smooth: FloatArray, good: BoolArray, axes: list[FloatArray], fit: EdgeFit) -> float:
    """Radius from the number of pixels above half of the height."""
    y, x, radius, sigma, height, level = fit.values
    rho = np.hypot(axes[0][:, None] - y, axes[1][None, :] - x)
    reach = radius + max(MARGIN, 3 * sigma)
    above = int(np.count_nonzero(good & (rho < reach) & (smooth > level + height / 2)))
    on_detector = int(np.count_nonzero(good & (rho < radius)))
    return radius * math.sqrt(above / max(1, on_detector))
