"""Tables of a probe for the likelihood of disk positions: the probe and its gradients on a grid of displacements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray
    from stemstore.kernels.disks.probe import Template

CONTRASTS = (1.0, 3.0, 10.0, 30.0, 100.0)
LARGE = 16.0  # px; edges of larger disks are wide enough for a grid of half a pixel
STEP = 1 / 16  # px; of the numerical gradient


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
def table_of(height: float, background: float, contrasts: FloatArray) -> int:
    """Give the number of the table whose contrast is next to the disk's own, on a logarithmic scale."""
    for k in range(len(contrasts) - 1):
        if height < background * math.sqrt(contrasts[k] * contrasts[k + 1]):
            return k
    return len(contrasts) - 1


@numba.njit(nogil=True, cache=True)
def grid_point(place: float, phases: int) -> tuple[int, int, float]:
    """Give the pixel, the number of the displacement and the place of the grid point next to a place on an axis."""
    point = math.floor(place * phases + 0.5)
    pixel = math.floor(point / phases + 0.5)
    return pixel, point - pixel * phases + phases // 2, point / phases
