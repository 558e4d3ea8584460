"""Newton steps on the exact trigonometric interpolant of a correlation map.

The map between its pixels is ``C(y, x) = sum_k M_k exp(2 pi i (k_y y + k_x x))``: all derivatives are sums of the same
kind, so that no finer grid is needed. Two steps from the vertex of a parabola give the maximum that py4DSTEM's
``multicorr`` approaches by up-sampling the map around a peak (Guizar-Sicairos et al., Opt. Lett. 33 (2008) 156).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray

STEPS = 2
LONGEST = 0.6  # px; of a step, about the error of the parabola it starts from


def newton(product: Array, shape: tuple[int, int], positions: FloatArray) -> FloatArray:
    """Move positions to the maximum of the interpolant.

    Parameters
    ----------
    product : shape (ky, kx / 2 + 1), complex64
        Spectrum of the map: transform of the frame times the conjugate one of the kernel.
    shape : px
        Of the map.
    positions : shape (n, 2), px
        Within a pixel of a maximum.

    Returns
    -------
    positions : shape (n, 2), px

    Notes
    -----
    ``x -= H^-1 g`` with gradient g and Hessian H, where H says that there is a maximum, at most 0.6 px along each axis.
    Cost: 24 ky kx operations per disk and step, as products of matrices.
    """
    places = positions.copy()
    rows = 2j * np.pi * fft.fftfreq(shape[0])
    columns = 2j * np.pi * fft.rfftfreq(shape[1])
    weight = np.full(len(columns), 2.0)
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    if shape[0] % 2 == 0:
        rows[shape[0] // 2] = 0.0  # its two halves of opposite sign cancel in every odd derivative
    for _ in range(STEPS if len(places) else 0):
        down = np.exp(places[:, :1] * rows)
        along = weight * np.exp(places[:, 1:] * columns)
        stack = np.concatenate([down, down * rows, down * rows**2]).astype(np.complex64)
        none, once, twice = (stack @ product).reshape(3, len(places), -1)
        g_y = (once * along).sum(axis=1).real
        g_x = (none * along * columns).sum(axis=1).real
        h_yy = (twice * along).sum(axis=1).real
        h_xx = (none * along * columns**2).sum(axis=1).real
        h_xy = (once * along * columns).sum(axis=1).real
        determinant = h_yy * h_xx - h_xy**2
        convex = (determinant > 0) & (h_yy < 0)
        safe = np.where(convex, determinant, 1.0)
        step = np.stack([h_xx * g_y - h_xy * g_x, h_yy * g_x - h_xy * g_y], axis=1) / safe[:, None]
        places -= np.where(convex[:, None], np.clip(step, -LONGEST, LONGEST), 0.0)
    return places
