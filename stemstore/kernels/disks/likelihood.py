"""Positions of disks of maximum Poisson likelihood, on single pixels around candidates.

The counts of a disk at x are Poisson with mean ``b + A S(p - x)``, S the probe. With c = A / b the log-likelihood is,
up to a constant, ``sum_p n_p log(1 + c S(p - x)) - A sum_p S(p - x)`` over the visible pixels p; the second sum is
constant where the whole disk is visible. Fisher's scoring climbs it:

``x += sum_p (n_p - b - A S) psi / (b H)``, ``psi = grad log(1 + c S)``, ``H = sum_p (1 + c S) psi^2``.

The gradients psi are tabulated for displacements on a grid of a fraction of a pixel. A step starts on the grid, at the
point next to the present estimate, and ends anywhere, so that the grid leaves no trace. Each disk takes the table whose
contrast is next to its own; one fixed contrast loses up to 15 % of the precision of strong disks (measured). Disks that
are partly hidden or touch others are left to `stemstore.kernels.disks.joint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.disks.bank import grid_point, table_of
from stemstore.kernels.disks.joint import joint_step, separate

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.kernels.disks.bank import Bank

ROUNDS = 16  # scoring steps; four to six are usual
ENOUGH = 0.02  # px; a step that ends the climb
LONGEST = 1.0  # px; of a step


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
    out, alone = starts.copy(), np.zeros(bank.shape.shape[2:])
    for n in range(len(starts)):
        k = table_of(heights[n], levels[n], bank.contrast)
        below, contrast, height = levels[n] - offset, bank.contrast[k], max(heights[n], 1e-30)
        scale = 1 / (height * bank.information[k] * contrast)
        y, x = starts[n, 0], starts[n, 1]
        for _ in range(ROUNDS):
            i, a, row = grid_point(y, phases)
            j, b, column = grid_point(x, phases)
            if not (0 <= i < partial.shape[0] and 0 <= j < partial.shape[1]):
                y = np.inf
                break
            if partial[i, j]:
                tables = bank.psi[k, a, b], bank.shape[a, b]
                down, right, more = joint_step(image, good, (i, j), tables, (below, height, contrast), alone)
                height = max(height / 4, height + more)
            else:
                down, right = _products(image, (i, j), bank.psi[k, a, b, 0], bank.psi[k, a, b, 1])
                down = (down - below * bank.rest[k, a, b, 0] - slopes[n, 0] * bank.moment[k, a, b, 0]) * scale
                right = (right - below * bank.rest[k, a, b, 1] - slopes[n, 1] * bank.moment[k, a, b, 1]) * scale
            new_y, new_x = row + min(LONGEST, max(-LONGEST, down)), column + min(LONGEST, max(-LONGEST, right))
            moved = max(abs(new_y - y), abs(new_x - x))
            y, x = new_y, new_x
            if moved < ENOUGH:
                break
        if (y - starts[n, 0]) ** 2 + (x - starts[n, 1]) ** 2 <= half * half:
            out[n, 0], out[n, 1] = y, x
    separate(image, good, out, starts, heights, (levels, offset), bank)
    return out


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
