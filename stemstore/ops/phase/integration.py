"""The function whose gradient a vector field is: least squares in Fourier space, for several boundaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from stemstore._types import FloatArray

Boundary = Literal["mirror", "periodic", "zero"]
BOUNDARIES = ("mirror", "periodic", "zero")


def integrate(
    gradient: FloatArray, steps: tuple[float, float], *, boundary: Boundary = "mirror", high_pass: float | None = None
) -> FloatArray:
    """Find the function whose gradient is closest to a vector field, by least squares in Fourier space.

    Parameters
    ----------
    gradient : shape (2, n, m)
        Components along rows and columns.
    steps
        Sampling along rows and columns, negative where positions run backwards; the result is in units of gradient x
        step.
    boundary
        ``"mirror"``: even extension of the function (Neumann boundary); ``"periodic"``; ``"zero"`` padding to twice.
    high_pass : unit cycles per field of view

    Returns
    -------
    function : shape (n, m), mean zero
    """
    import scipy.fft

    rows, columns = gradient.shape[-2:]
    extended = _extend(gradient, boundary)
    transformed = scipy.fft.fft2(extended)
    q_row = np.fft.fftfreq(extended.shape[-2], steps[0])[:, None]
    q_column = np.fft.fftfreq(extended.shape[-1], steps[1])[None, :]
    square = q_row**2 + q_column**2
    square[0, 0] = 1.0
    spectrum = -1j * (q_row * transformed[0] + q_column * transformed[1]) / (2 * np.pi * square)
    spectrum[0, 0] = 0.0
    if high_pass:
        cut = (high_pass / max(abs(rows * steps[0]), abs(columns * steps[1]))) ** 2
        spectrum *= square / (square + cut)
    result = scipy.fft.ifft2(spectrum).real[:rows, :columns]
    return result - result.mean()


def _extend(gradient: FloatArray, boundary: Boundary) -> FloatArray:
    """Extend the field as the gradient of the extended function: mirroring turns the normal component's sign."""
    rows, columns = gradient.shape[-2:]
    if boundary == "periodic":
        return gradient
    if boundary == "zero":
        return np.pad(gradient, ((0, 0), (0, rows), (0, columns)))
    along_row, along_column = gradient
    flip_c, flip_r = np.s_[:, ::-1], np.s_[::-1]
    a, b = along_row, along_column
    return np.stack(
        [
            np.block([[a, a[flip_c]], [-a[flip_r], -a[flip_r][flip_c]]]),
            np.block([[b, -b[flip_c]], [b[flip_r], -b[flip_r][flip_c]]]),
        ]
    )
