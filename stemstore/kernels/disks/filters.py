"""The kernels that detection maps correlate with, in Fourier space, on pixels or on squares of pixels.

A kernel is a *signal* of unit sum minus a *window* of unit sum: the answer to a disk of A counts per pixel is A times
its overlap with the signal, the answer to anything constant is zero. With P the probe, rho the distance from its centre
and N[.] scaling to unit sum:

=============  =========================  ==========================================================================
name           signal                     window
=============  =========================  ==========================================================================
``sigmoid``    N[P]                       N[cos^2(pi / 2 min(rho / window, 1))]
``gaussian``   N[P]                       N[exp(-rho^2 / (2 (window / 2)^2))]
``gradient``   N[P rho / radius]          as ``sigmoid``
``log``        N[log(1 + c P)]            as ``sigmoid``; c = `contrast`, else 10
``flat``       N[P]                       none: not zero-sum, but the level of the frame is taken off before
=============  =========================  ==========================================================================

``sigmoid``, ``gaussian`` and ``flat`` are those of py4DSTEM (Savitzky et al., Microsc. Microanal. 27 (2021) 712);
``gradient``, which answers to edges, is that of LiberTEM-blobfinder (Weber et al., Microsc. Microanal. 26 (2020) 2538).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from stemstore.kernels.disks.options import LOG_CONTRAST

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray
    from stemstore.kernels.disks.options import DiskParameters
    from stemstore.kernels.disks.probe import Template


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Conjugate transforms of one detection kernel, ready to be multiplied with that of a frame.

    Attributes
    ----------
    signal, window : shape (rows, columns / 2 + 1), complex128
        Parts of unit response; smoothed. `window` is zero for a kernel without one.
    sharp : shape as `signal`
        The kernel before smoothing.
    """

    signal: Array
    window: Array
    sharp: Array

    @property
    def detect(self) -> Array:
        """The difference of both parts, exactly zero-sum where there is a window."""
        difference = self.signal - self.window
        if self.window[0, 0] != 0:
            difference[0, 0] = 0
        return difference


def make_kernel(template: Template, parameters: DiskParameters, shape: tuple[int, int]) -> Kernel:
    """Transform the detection kernel for binned frames of a (padded) shape.

    The kernel is drawn on single pixels and then binned as frames are, by sums; its values are divided by the number of
    pixels of a bin, so that the map is in counts per pixel.
    """
    size = parameters.binning
    reach = max(parameters.window, template.radius + parameters.edge_width) + size
    half = math.ceil(reach / size)
    middle = half * size + (size - 1) / 2
    side = (2 * half + 1) * size
    probe = template.draw((side, side), (middle, middle))
    offset = np.arange(side) - middle
    rho = np.hypot(offset[:, None], offset[None, :])
    signal, window = _parts(probe, rho, template.radius, parameters)
    frequency = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2
    smoothing = np.exp(-2 * np.pi**2 * (parameters.sigma_detect / size) ** 2 * frequency)
    transforms = [_transform(part, size, shape) for part in (signal, window)]
    return Kernel(transforms[0] * smoothing, transforms[1] * smoothing, transforms[0] - transforms[1])


def footprint(template: Template, parameters: DiskParameters, shape: tuple[int, int]) -> Array:
    """Conjugate transform of the binned disk itself, of unit sum: its correlation with a mask is the visible share."""
    size = parameters.binning
    half = math.ceil((template.radius + parameters.edge_width) / size) + 1
    middle, side = half * size + (size - 1) / 2, (2 * half + 1) * size
    return _transform(template.draw((side, side), (middle, middle)), size, shape)


def _parts(
    probe: FloatArray, rho: FloatArray, radius: float, parameters: DiskParameters
) -> tuple[FloatArray, FloatArray]:
    name = parameters.kernel
    signal = probe
    if name == "gradient":
        signal = probe * rho / radius
    elif name == "log":
        contrast = LOG_CONTRAST if parameters.contrast is None else parameters.contrast
        signal = np.log1p(contrast * np.clip(probe, 0, None))
    window = np.cos(np.pi / 2 * np.clip(rho / parameters.window, 0, 1)) ** 2
    if name == "gaussian":
        window = np.exp(-(rho**2) / (2 * (parameters.window / 2) ** 2))
    elif name == "flat":
        window = np.zeros_like(rho)
    return signal, window


def _transform(part: FloatArray, size: int, shape: tuple[int, int]) -> Array:
    """Bin, scale to unit response, wrap around the origin (larger kernels fold over) and transform."""
    n = len(part) // size
    binned = part.reshape(n, size, n, size).sum(axis=(1, 3))
    total = binned.sum()
    if total > 0:
        binned /= total * size**2
    image = np.zeros(shape)
    rows, columns = ((np.arange(n) - n // 2) % extent for extent in shape)
    np.add.at(image, (rows[:, None], columns[None, :]), binned)
    return np.conj(fft.rfft2(image))
