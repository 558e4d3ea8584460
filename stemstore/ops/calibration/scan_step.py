"""Distance of scan positions from the image of a crystal lattice of known spacing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore_schemas import Quantity, convert_value

if TYPE_CHECKING:
    from stemstore._types import FloatArray
    from stemstore_schemas import Unit

LOWEST = 3.0  # periods in the image: fewer are thickness, drift and edges of the image
HEIGHT = 30.0  # times the median power: chance gives exp(-30 ln 2) per frequency
FAMILY = 0.1  # of the strongest frequency: peaks of one spacing lie closer together than this share
WEAKEST = 0.05  # of the power of the strongest peak
MOST = 6  # peaks of a family: those of a hexagonal lattice are three
STEPS = 15
SETTLED = 1e-9  # cycles per position
APART = 0.05  # smallest determinant of the equations for both steps, 1 for peaks along y and along x


@dataclass(frozen=True, slots=True, eq=False)
class LatticeScale:
    """Distance of scan positions, and the lattice peaks that it comes from.

    Attributes
    ----------
    step_y, step_x
        Quantities in nm with standard uncertainties.
    separate
        Whether the two were measured apart; where all peaks lie in one direction they are taken as equal.
    frequencies, frequencies_sigma : shape (n, 2), unit 1/pixel
        Peaks of the lattice, cycles per position along y and x, and standard errors.
    misfit
        RMS of (measured - expected) / expected spacing over the peaks: zero for a single peak, large for a sheared or
        drifting scan, or where the peaks do not all have the spacing.
    """

    step_y: Quantity
    step_x: Quantity
    separate: bool
    frequencies: FloatArray
    frequencies_sigma: FloatArray
    misfit: float


def scan_step_from_lattice(image: Any, spacing: float, *, unit: Unit = "angstrom") -> LatticeScale:
    """Measure the distance of scan positions from an image that shows lattice fringes of known spacing.

    Parameters
    ----------
    image : dims (y, x)
        A virtual image of the whole scan, or of a crystal in it.
    spacing : unit `unit`
        Of the strongest fringes in the image: the plane distance d, not the lattice parameter.
    unit
        ``"angstrom"`` or ``"nm"``.

    Returns
    -------
    scale

    Raises
    ------
    InputError
        The image is no finite map of at least 16 x 16 positions, the spacing is not positive, or there are no fringes.

    Notes
    -----
    Peaks are found in the power spectrum (Hann window), and their frequencies fitted to the image itself as plane
    waves, all together, weighted with the window, so that other waves do not leak in. All peaks whose frequency is
    within 10 % of the strongest one's belong to the same spacing d:
    (f_y / s_y)^2 + (f_x / s_x)^2 = 1 / d^2 is linear in 1 / s_y^2
    and 1 / s_x^2. Noise is taken as white; errors follow from the scatter about the waves.
    """
    values = np.asarray(getattr(image, "values", image), dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 16 or not np.isfinite(values).all():  # noqa: PLR2004 (a map of some size)
        msg = (
            f"expected a finite image of at least 16 x 16 positions, got shape {values.shape}; fill or cut missing ones"
        )
        raise InputError(msg, key="image", found=values.shape)
    if not (math.isfinite(spacing) and spacing > 0):
        msg = f"spacing = {spacing!r} is not a length above zero; give the distance of the lattice planes in {unit}"
        raise InputError(msg, key="spacing", found=spacing)
    window = np.multiply.outer(*(np.hanning(n + 2)[1:-1] for n in values.shape))
    start = _peaks(values, window)
    frequencies, covariance = _waves(values, window, start)
    length = spacing * convert_value(1.0, unit, "nm")
    steps, errors, separate, misfit = _steps(frequencies, covariance, length)
    y, x = (
        Quantity(value=float(step), unit="nm", source="measured", uncertainty=float(error))
        for step, error in zip(steps, errors, strict=True)
    )
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return LatticeScale(y, x, separate, frequencies, sigma, misfit)


def _peaks(values: FloatArray, window: FloatArray) -> FloatArray:
    """Frequencies of the strongest family of peaks in the power spectrum, half a plane, to a part of a pixel."""
    from scipy import fft
    from scipy.ndimage import maximum_filter

    mean = (values * window).sum() / window.sum()
    power = np.abs(fft.fft2((values - mean) * window)) ** 2
    fy, fx = np.meshgrid(*(fft.fftfreq(n) for n in values.shape), indexing="ij")
    periods = np.hypot(fy * values.shape[0], fx * values.shape[1])
    tops = (maximum_filter(power, size=3, mode="wrap") == power) & (periods >= LOWEST)
    tops &= (fx > 0) | ((fx == 0) & (fy > 0))
    tops &= power > HEIGHT * np.median(power[periods >= LOWEST])
    found = np.argwhere(tops)
    if not len(found):
        msg = f"the image of {values.shape} positions shows no lattice fringes; use another detector or a larger field"
        raise InputError(msg, key="image", found=values.shape)
    found = found[np.argsort(-power[found[:, 0], found[:, 1]])]
    first = tuple(found[0])
    length = np.hypot(fy, fx)
    same = [
        (row, column)
        for row, column in found
        if abs(length[row, column] / length[first] - 1) < FAMILY and power[row, column] > WEAKEST * power[first]
    ]
    amplitude = np.sqrt(power)
    refined = []
    for row, column in same[:MOST]:
        place = []
        for n, axis_frequency, line, index in (
            (values.shape[0], fy[row, column], amplitude[:, column], row),
            (values.shape[1], fx[row, column], amplitude[row], column),
        ):
            before, here, after = line[index - 1], line[index], line[(index + 1) % n]
            place.append(axis_frequency + (after - before) / (2 * (2 * here - before - after)) / n)
        refined.append(place)
    return np.array(refined)


def _waves(values: FloatArray, window: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit plane waves to the image, all together; gives frequencies (n, 2) and their covariances (n, 2, 2)."""
    y, x = (m.ravel() for m in np.indices(values.shape, dtype=np.float64))
    data, weight = values.ravel(), window.ravel()
    frequencies = start.copy()
    n = len(start)
    for _ in range(STEPS):
        turns = 2 * np.pi * (np.outer(y, frequencies[:, 0]) + np.outer(x, frequencies[:, 1]))
        cosine, sine = np.cos(turns), np.sin(turns)
        linear = np.concatenate([np.ones((len(data), 1)), cosine, sine], axis=1)
        # the waves' heights first, then one step of Gauss and Newton for everything
        heights = np.linalg.solve(linear.T @ (linear * weight[:, None]), linear.T @ (weight * data))
        slope = 2 * np.pi * (heights[1 + n :] * cosine - heights[1 : 1 + n] * sine)
        terms = np.concatenate([linear, slope * y[:, None], slope * x[:, None]], axis=1)
        left = data - linear @ heights
        normal = np.linalg.pinv(terms.T @ (terms * weight[:, None]))
        step = (normal @ (terms.T @ (weight * left)))[1 + 2 * n :].reshape(2, n).T
        # a wave that leaves its peak has lost it
        step = np.clip(step, -0.5 / np.array(values.shape), 0.5 / np.array(values.shape))
        frequencies = frequencies + step
        if np.abs(step).max() < SETTLED:
            break
    if not (np.abs(frequencies - start) < 2 / np.array(values.shape)).all():
        msg = "the lattice fringes of the image do not keep one frequency; use a field with a single crystal"
        raise InputError(msg, key="image")
    scatter = float((weight * left**2).sum() / weight.sum())
    covariance = normal @ (terms.T @ (terms * (weight**2)[:, None])) @ normal * scatter
    index = 1 + 2 * n + np.arange(n)
    rows, columns = np.stack([index, index + n])[:, None], np.stack([index, index + n])[None]
    return frequencies, np.moveaxis(covariance[rows, columns], -1, 0)


def _steps(
    frequencies: FloatArray, covariance: FloatArray, spacing: float
) -> tuple[FloatArray, FloatArray, bool, float]:
    """Solve (f_y / s_y)^2 + (f_x / s_x)^2 = 1 / d^2; gives steps, their errors, whether both are known, and misfit."""
    terms = frequencies**2 * spacing**2
    length = terms.sum(axis=1)
    directions = terms / length[:, None]
    separate = len(terms) > 1 and float(np.linalg.det(directions.T @ directions)) > APART
    if not separate:
        terms = length[:, None]
    solver = np.linalg.pinv(terms)
    inverse = solver.sum(axis=1)  # 1 / s^2
    if not (inverse > 0).all():
        msg = (
            f"fringes {np.round(frequencies, 4).tolist()} do not share one spacing; crop the image to a single crystal"
        )
        raise InputError(msg, key="image")
    steps = inverse**-0.5
    model = (frequencies**2 * (inverse if separate else inverse[0])).sum(axis=1) * spacing**2
    # change of a peak's equation with its frequency, at the solution
    change = 2 * frequencies * (inverse if separate else np.full(2, inverse[0])) * spacing**2
    variance = np.einsum("ni,nij,nj->n", change, covariance, change)
    errors = np.sqrt((solver**2) @ variance) * steps**3 / 2
    if not separate:
        steps, errors = np.repeat(steps, 2), np.repeat(errors, 2)
    return steps, errors, separate, float(np.sqrt(((np.sqrt(model) - 1) ** 2).mean()))
