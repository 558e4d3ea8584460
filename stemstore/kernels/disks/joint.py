"""Positions of disks that are partly hidden, or that touch others: position and height are scored together.

Where the whole disk is visible and alone, its height has no say in its position (`stemstore.kernels.disks.likelihood`).
Where a part is hidden it has; and where other disks reach into the window, what they are expected to give there belongs
to the background. Disks that touch are scored one after the other, the brightest first, until none moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.disks.bank import grid_point, table_of

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.kernels.disks.bank import Bank

ROUNDS = 12  # over all disks that touch; three to six are usual
ENOUGH = 0.02  # px; the largest step of a round that ends the climb
LONGEST = 1.0  # px; of a step


@numba.njit(nogil=True, cache=True)
def joint_step(
    image: Array,
    good: BoolArray,
    corner: tuple[int, int],
    tables: tuple[Array, Array],
    model: tuple[float, float, float],
    others: FloatArray,
) -> tuple[float, float, float]:
    """Score displacement along rows and columns, and height, together.

    Parameters
    ----------
    image, good : frame + 2 margins
        Counts, and which pixels count.
    corner : px
        Of the window.
    tables
        psi and S of the grid point, see `stemstore.kernels.disks.bank.Bank`.
    model
        Background (as the image has it), height, and contrast: the expected counts, whose variance weights the pixels,
        are ``height (1 / contrast + S) + others``.
    others : shape of the window
        Expected counts of other disks.

    Returns
    -------
    down, right : px
    more : counts per pixel
        What is to be added to the height.
    """
    psi, shape = tables
    below, height, contrast = model
    yy, yx, yh, xx, xh, hh = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    down, right, more = 0.0, 0.0, 0.0
    for i in range(shape.shape[0]):
        shown, pixels = good[corner[0] + i, corner[1] :], image[corner[0] + i, corner[1] :]
        for j in range(shape.shape[1]):
            s = np.float64(shape[i, j])
            if s == 0 or not shown[j]:
                continue
            own = height * (1 / contrast + s)
            weight = 1 / (own + others[i, j])
            rest = (pixels[j] - below - height * s - others[i, j]) * weight
            along, across = psi[0, i, j] * own, psi[1, i, j] * own
            yy += along * along * weight
            yx += along * across * weight
            yh += along * s * weight
            xx += across * across * weight
            xh += across * s * weight
            hh += s * s * weight
            down += along * rest
            right += across * rest
            more += s * rest
    normal = np.array([[yy, yx, yh], [yx, xx, xh], [yh, xh, hh]])
    return _solved(normal, np.array([down, right, more]))


@numba.njit(nogil=True, cache=True)
def separate(
    image: Array,
    good: BoolArray,
    places: FloatArray,
    starts: FloatArray,
    heights: FloatArray,
    backgrounds: tuple[FloatArray, float],
    bank: Bank,
) -> None:
    """Refine the disks that others touch again, each with the others taken into account.

    Parameters
    ----------
    image, good : frame + 2 margins
        The margin is the half-width of the tables.
    places : shape (n, 2), px
        Overwritten where disks touch.
    starts : shape (n, 2), px
        Where these begin; the brightest first. None ends further away than the half-width of the tables.
    heights : shape (n,), counts per pixel
    backgrounds
        Around every disk, shape (n,), counts per pixel, and what was taken off the image.
    bank
        Tables of the probe.
    """
    levels, offset = backgrounds
    half = bank.shape.shape[2] // 2
    rows, columns = image.shape[0] - 2 * half, image.shape[1] - 2 * half
    near = _touching(starts, 2.0 * half)
    order = np.flatnonzero(near.sum(axis=1))
    moved = np.full(len(starts), np.inf)
    now, height = starts.copy(), np.maximum(heights, 1e-30)
    others = np.zeros(bank.shape.shape[2:])
    for _ in range(ROUNDS if len(order) else 0):
        before = moved.copy()
        for n in order:
            if before[n] < ENOUGH and before[near[n]].max() < ENOUGH:
                continue
            moved[n] = 0.0
            i, a, y = grid_point(now[n, 0], bank.shape.shape[0])
            j, b, x = grid_point(now[n, 1], bank.shape.shape[0])
            k = table_of(height[n], levels[n], bank.contrast)
            others[:] = 0.0
            for m in np.flatnonzero(near[n]):
                _add(others, (i, j), now[m, 0], now[m, 1], height[m], bank)
            model = levels[n] - offset, height[n], bank.contrast[k]
            down, right, more = joint_step(image, good, (i, j), (bank.psi[k, a, b], bank.shape[a, b]), model, others)
            y += min(LONGEST, max(-LONGEST, down))
            x += min(LONGEST, max(-LONGEST, right))
            away = (y - starts[n, 0]) ** 2 + (x - starts[n, 1]) ** 2
            if away > half * half or not (0 <= y <= rows - 1 and 0 <= x <= columns - 1):
                continue
            moved[n] = max(abs(y - now[n, 0]), abs(x - now[n, 1]))
            now[n, 0], now[n, 1] = y, x
            height[n] = max(height[n] / 4, height[n] + more)
        if moved[order].max() < ENOUGH:
            break
    places[order] = now[order]


@numba.njit(nogil=True, cache=True)
def _touching(places: FloatArray, distance: float) -> BoolArray:
    near = np.zeros((len(places), len(places)), np.bool_)
    for n in range(len(places)):
        for m in range(n):
            if (places[n, 0] - places[m, 0]) ** 2 + (places[n, 1] - places[m, 1]) ** 2 < distance * distance:
                near[n, m] = near[m, n] = True
    return near


@numba.njit(nogil=True, cache=True)
def _add(window: FloatArray, corner: tuple[int, int], y: float, x: float, height: float, bank: Bank) -> None:
    """Add the expected counts of a disk at (y, x) to a window whose first pixel is at `corner` of the padded image."""
    i, a, _ = grid_point(y, bank.shape.shape[0])
    j, b, _ = grid_point(x, bank.shape.shape[0])
    down, right, side = i - corner[0], j - corner[1], len(window)
    if abs(down) >= side or abs(right) >= side:
        return
    for row in range(max(0, down), min(side, side + down)):
        for column in range(max(0, right), min(side, side + right)):
            window[row, column] += height * bank.shape[a, b, row - down, column - right]


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
