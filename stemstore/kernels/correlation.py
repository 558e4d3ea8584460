"""Correlation of one frame with kernels in Fourier space, and the buffers that a thread keeps for it.

One frame at a time and in single precision: batches leave the processor's cache.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from stemstore._types import Array

LARGEST_PRIME = 11  # sizes with larger prime factors leave the fast code of scipy.fft

_scratch = threading.local()


def workspace(shape: tuple[int, int], margin: int, transform: tuple[int, int]) -> tuple[Array, Array]:
    """Lend this thread's two buffers (float32), valid until the next call with other shapes.

    Parameters
    ----------
    shape, margin : px
        Frame and the empty rim around it.
    transform : px
        Padded binned frame.

    Returns
    -------
    image : shape + 2 margin
        The rim is zero and must stay so.
    binned : shape `transform`
        What the binned frame does not cover is zero and must stay so.
    """
    key = (shape, margin, transform)
    buffers: dict[tuple[object, ...], tuple[Array, Array]] = _scratch.__dict__.setdefault("disks", {})
    if key not in buffers:
        buffers.clear()  # a thread works on one detector at a time: do not hoard
        image = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), np.float32)
        buffers[key] = image, np.zeros(transform, np.float32)
    return buffers[key]


def transform_size(size: int) -> int:
    """Give the next size without large prime factors: `size` itself where it has none."""
    rest = size
    for prime in (2, 3, 5, 7, LARGEST_PRIME):
        while rest % prime == 0:
            rest //= prime
    return size if rest == 1 else int(fft.next_fast_len(size, real=True))


def transform(image: Array) -> Array:
    """Transform a binned frame, float32, to a spectrum of shape (ky, kx / 2 + 1), complex64."""
    spectrum: Array = fft.rfft2(image, workers=1)
    return spectrum


def correlate(spectrum: Array, kernel: Array, shape: tuple[int, int], power: float = 1.0) -> Array:
    """Correlate a frame with a kernel.

    Parameters
    ----------
    spectrum, kernel : shape (ky, kx / 2 + 1), complex64
        Transform of the frame, and the conjugate one of the kernel.
    shape : px
        Of the transformed frame.
    power
        Exponent of the modulus of the product: 1 cross-correlation, 0 phase correlation, between them hybrid.

    Returns
    -------
    map : shape `shape`, float32
    """
    found: Array = fft.irfft2(weighted(spectrum, kernel, power), s=shape, workers=1, overwrite_x=True)
    return found


def weighted(spectrum: Array, kernel: Array, power: float) -> Array:
    """Multiply two spectra and raise the modulus of the product to a power, its phase kept."""
    product: Array = spectrum * kernel
    if power != 1:
        _weaken(product, np.float32(power - 1), np.float32(1e-7 * np.abs(product).max(initial=0)))
    return product


@numba.njit(nogil=True, cache=True)
def _weaken(product: Array, exponent: Any, least: Any) -> None:
    """Multiply every element by its own modulus to the power `exponent`; those of pure rounding become zero."""
    for i in range(product.shape[0]):
        for j in range(product.shape[1]):
            modulus = abs(product[i, j])
            product[i, j] = product[i, j] * modulus**exponent if modulus > least else np.complex64(0)
