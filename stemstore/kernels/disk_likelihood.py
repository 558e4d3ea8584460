"""Positions of disks of maximum Poisson likelihood, on single pixels around candidates.

The counts of a disk at x are Poisson with mean ``b + A S(p - x)``, S the probe. With c = A / b the log-likelihood is,
up to a constant, ``sum_p n_p log(1 + c S(p - x)) - A sum_p S(p - x)`` over the visible pixels p; the second sum is
constant where the whole disk is visible. Fisher's scoring climbs it:

``x += sum_p (n_p - b - A S) psi / (b H)``, ``psi = grad log(1 + c S)``, ``H = sum_p (1 + c S) psi^2``.

The gradients psi are tabulated for displacements on a grid of a fraction of a pixel. A step starts on the grid, at the
point next to the present estimate, and ends anywhere, so that the grid leaves no trace. Each disk takes the table whose
contrast is next to its own; one fixed contrast loses up to 15 % of the precision of strong disks (measured).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.kernels.disk_probe import Template

CONTRASTS = (1.0, 3.0, 10.0, 30.0, 100.0)
LARGE = 16.0  # px; edges of larger disks are wide enough for a grid of half a pixel
STEP = 1 / 16  # px; of the numerical gradient
ROUNDS = 16  # scoring steps; four to six are usual
ENOUGH = 0.02  # px; a step that ends the climb
LONGEST = 1.0  # px; of a step


class Bank(NamedTuple):
    """Tables of a probe.

    Attributes
    ----------
    psi : shape (contrast, phase, phase, 2, n, n), float32
        Gradients of ``log(1 + c S)`` along rows and columns, with the sign of a displacement of the disk.
    shape : shape (phase, phase, n, n), float32
        S itself. The middle pixel is (n - 1) / 2, displacements are (i / phases - 1 / 2).
    rest : shape (contrast, phase, phase, 2)
        Sums of psi, which pixels make small but not zero.
    moment : shape as `rest`
        Sums of psi times the displacement of the pixel along the same axis: the answer to a background that rises.
    information : shape (contrast,)
        H / c^2, mean of both axes and all phases.
    contrast : shape (contrast,)
    """

    psi: Array
    shape: Array
    rest: FloatArray
    moment: FloatArray
    information: FloatArray
    contrast: FloatArray


def reach_of(template: Template) -> int:
    """Half-width of the window around a disk that holds every displacement of the tables."""
    return math.ceil(template.radius + template.edge_width / 2 + 1)


def make_bank(template: Template, contrast: float | None) -> Bank:
    """Tabulate a probe; for one contrast, or for all of `CONTRASTS`."""
    contrasts = np.array(CONTRASTS if contrast is None else (contrast,))
    half = reach_of(template)
    side, phases = 2 * half + 1, 4 if template.radius <= LARGE else 2
    psi = np.zeros((len(contrasts), phases, phases, 2, side, side), np.float32)
    shape = np.zeros((phases, phases, side, side), np.float32)
    information = np.zeros(len(contrasts))
    for a in range(phases):
        for b in range(phases):
            y, x = half + a / phases - 0.5, half + b / phases - 0.5
            here, up, down, left, right = (
                np.clip(template.draw((side, side), (y + dy, x + dx)), 0, None)
                for dy, dx in ((0, 0), (-STEP, 0), (STEP, 0), (0, -STEP), (0, STEP))
            )
            shape[a, b] = here
            for axis, (before, after) in enumerate(((up, down), (left, right))):
                slope = (after - before) / (2 * STEP)
                for k, c in enumerate(contrasts):
                    table = c * slope / (1 + c * here)
                    psi[k, a, b, axis] = table
                    information[k] += (slope * table / c).sum() / (2 * phases**2)
    away = np.arange(side) - half
    sums = [np.einsum(form, psi, away) for form in ("kabcij,i->kabc", "kabcij,j->kabc")]
    moment = np.stack([sums[0][..., 0], sums[1][..., 1]], axis=-1)
    return Bank(psi, shape, psi.sum(axis=(4, 5), dtype=np.float64), moment, information, contrasts)


@numba.njit(nogil=True, cache=True)
def refine(
    image: Array,
    visible: tuple[BoolArray, BoolArray],
    starts: FloatArray,
    heights: FloatArray,
    backgrounds: tuple[FloatArray, FloatArray],
    offset: float,
    bank: Bank,
) -> FloatArray:
    """Climb from every start to the position of maximum likelihood.

    Parameters
    ----------
    image : frame + 2 margins, float32
        Counts; the margin is the half-width of the tables.
    visible
        Good pixels with margins, and whether the window around a pixel of the frame holds bad ones.
    starts : shape (n, 2), px
    heights : shape (n,), counts per pixel
        A.
    backgrounds
        b around every disk, shape (n,), counts per pixel, and its gradient, shape (n, 2), counts per pixel and px. A
        slope g that is not taken out pulls by ``g r w / A`` (of a radius of 8, an edge of 2.5 px and A = 20: by one
        pixel per count and px).
    offset : counts per pixel
        What was taken off the image.
    bank
        Tables of the probe.

    Returns
    -------
    positions : shape (n, 2), px
        The start where the climb leads further away than the half-width of the tables.
    """
    good, partial = visible
    levels, slopes = backgrounds
    phases, half = bank.shape.shape[0], bank.shape.shape[2] // 2
    out = starts.copy()
    for n in range(len(starts)):
        k = _table(heights[n], levels[n], bank.contrast)
        scale = 1 / (max(heights[n], 1e-30) * bank.information[k] * bank.contrast[k])
        y, x, height = starts[n, 0], starts[n, 1], max(heights[n], 1e-30)
        for _ in range(ROUNDS):
            row, column = math.floor(y * phases + 0.5), math.floor(x * phases + 0.5)
            i, j = math.floor(row / phases + 0.5), math.floor(column / phases + 0.5)
            if not (0 <= i < partial.shape[0] and 0 <= j < partial.shape[1]):
                y = np.inf
                break
            a, b = row - i * phases + phases // 2, column - j * phases + phases // 2
            below = levels[n] - offset
            if partial[i, j]:
                tables = bank.psi[k, a, b], bank.shape[a, b]
                down, right, more = _partial_step(image, good, (i, j), tables, (below, height, bank.contrast[k]))
                height = max(height / 4, height + more)
            else:
                down, right = _products(image, (i, j), bank.psi[k, a, b, 0], bank.psi[k, a, b, 1])
                down = (down - below * bank.rest[k, a, b, 0] - slopes[n, 0] * bank.moment[k, a, b, 0]) * scale
                right = (right - below * bank.rest[k, a, b, 1] - slopes[n, 1] * bank.moment[k, a, b, 1]) * scale
            new_y = row / phases + min(LONGEST, max(-LONGEST, down))
            new_x = column / phases + min(LONGEST, max(-LONGEST, right))
            moved = max(abs(new_y - y), abs(new_x - x))
            y, x = new_y, new_x
            if moved < ENOUGH:
                break
        if (y - starts[n, 0]) ** 2 + (x - starts[n, 1]) ** 2 <= half * half:
            out[n, 0], out[n, 1] = y, x
    return out


@numba.njit(nogil=True, cache=True)
def _table(height: float, background: float, contrasts: FloatArray) -> int:
    """Give the number of the table whose contrast is next to the disk's own, on a logarithmic scale."""
    for k in range(len(contrasts) - 1):
        if height < background * math.sqrt(contrasts[k] * contrasts[k + 1]):
            return k
    return len(contrasts) - 1


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _products(image: Array, corner: tuple[int, int], psi_y: Array, psi_x: Array) -> tuple[float, float]:
    """Sum image times both gradients over a window; `reassoc` lets the sums be vectors."""
    down, right = np.float32(0), np.float32(0)
    for i in range(psi_y.shape[0]):
        pixels, along, across = image[corner[0] + i, corner[1] : corner[1] + psi_y.shape[1]], psi_y[i], psi_x[i]
        for j in range(len(along)):
            down += pixels[j] * along[j]
            right += pixels[j] * across[j]
    return np.float64(down), np.float64(right)


@numba.njit(nogil=True, cache=True)
def _partial_step(
    image: Array,
    good: BoolArray,
    corner: tuple[int, int],
    tables: tuple[Array, Array],
    model: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Step of a partly hidden disk, whose height goes along with its position: the third number is added to it.

    The same scoring for three unknowns, on the visible pixels of the window at `corner`; `tables` are psi and S,
    `model` is background, height and contrast. The contrast weights the pixels, as its tables do, by ``1 / (1 + c S)``.
    """
    psi, shape = tables
    below, height, contrast = model
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for i in range(shape.shape[0]):
        for j in range(shape.shape[1]):
            if not good[corner[0] + i, corner[1] + j]:
                continue
            s = shape[i, j]
            mean = height / contrast * (1 + contrast * s)
            rest = image[corner[0] + i, corner[1] + j] - below - height * s
            along, across, up = psi[0, i, j], psi[1, i, j], s / mean
            normal[0, 0] += along * along * mean
            normal[0, 1] += along * across * mean
            normal[0, 2] += along * s
            normal[1, 1] += across * across * mean
            normal[1, 2] += across * s
            normal[2, 2] += up * s
            right[0] += along * rest
            right[1] += across * rest
            right[2] += up * rest
    return _solved(normal, right)


@numba.njit(nogil=True, cache=True)
def _solved(normal: FloatArray, right: FloatArray) -> tuple[float, float, float]:
    """Solve three equations, of which the upper half is given; unknowns that nothing is known of become 0."""
    unknown = np.zeros(3)
    for i in range(3):
        if normal[i, i] <= 0:
            normal[i, i] = 1.0
            right[i] = 0.0
        normal[i, i] *= 1 + 1e-9
    for i in range(3):  # Cholesky-like elimination: the matrix is symmetric and not negative
        for j in range(i + 1, 3):
            factor = normal[i, j] / normal[i, i]
            for k in range(j, 3):
                normal[j, k] -= factor * normal[i, k]
            right[j] -= factor * right[i]
    for i in range(2, -1, -1):
        rest = right[i]
        for j in range(i + 1, 3):
            rest -= normal[i, j] * unknown[j]
        unknown[i] = rest / normal[i, i] if normal[i, i] > 0 else 0.0
    return unknown[0], unknown[1], unknown[2]
