"""A model of a direct electron detector read out as counts on a pedestal, with the figures of the NCEM 4D Camera.

Pedestal and noise follow the threshold records of public production scans (swelborn/streaming-paper-with-code); the
energy that an electron leaves is drawn from a Moyal distribution (Moyal 1955, Philosophical Magazine 46, 263), the
usual approximation of Landau's straggling curve in a thin sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, UInt16Array, UInt32Array

SAMPLE_MAXIMUM = np.iinfo(np.uint16).max
PEDESTAL_STREAM = 2**64 - 1  # Philox key that no frame number reaches


@dataclass(frozen=True, slots=True)
class Camera:
    """Detector response; all values in ADU unless stated.

    Attributes
    ----------
    pedestal, pedestal_spread
        Mean and standard deviation of the fixed pattern.
    read_noise
        Standard deviation of a pixel before rounding.
    deposit_mode, deposit_width
        Most probable energy of an electron, and scale of the Moyal distribution.
    deposit_range
        Energies are clipped to this range.
    sharing : unit pixel
        Standard deviation of the charge cloud, collected by 3 x 3 pixels.
    xrays, xray_energy
        Mean number of X-ray hits per frame, each in one pixel, and their energy.
    gain_spread
        Standard deviation of the pixels' relative gain.
    row_drift
        Standard deviation of an offset common to half a row of one frame.
    saturation
        Largest value of a pixel.
    """

    pedestal: float = 20.5
    pedestal_spread: float = 0.5
    read_noise: float = 1.72
    deposit_mode: float = 60.0
    deposit_width: float = 18.0
    deposit_range: tuple[float, float] = (4.0, 400.0)
    sharing: float = 0.42
    xrays: float = 0.02
    xray_energy: float = 3000.0
    gain_spread: float = 0.0
    row_drift: float = 0.0
    saturation: int = 4095

    def __post_init__(self) -> None:
        if not 0 < self.saturation <= SAMPLE_MAXIMUM:
            msg = f"saturation of the synthetic camera is {self.saturation!r}; expected 1 to {SAMPLE_MAXIMUM} (uint16)"
            raise InputError(msg, key="saturation", found=self.saturation)
        if self.sharing <= 0:
            msg = f"sharing of the synthetic camera is {self.sharing!r} pixel; expected a width above zero"
            raise InputError(msg, key="sharing", found=self.sharing)

    def fixed_pattern(self, shape: tuple[int, int], seed: int) -> tuple[Array, Array]:
        """Give pedestal (ADU) and relative gain of every pixel, the same for all frames of a seed.

        Returns
        -------
        pedestal, gain : shape `shape`, float32
        """
        return _fixed_pattern(self, shape, seed)

    def read_out(
        self, positions: FloatArray, shape: tuple[int, int], seed: int, rng: np.random.Generator
    ) -> UInt16Array:
        """Turn electrons into one detector frame.

        Parameters
        ----------
        positions : shape (m, 2), unit pixel
            Entry points (row, column).
        shape
            Detector rows and columns.
        seed
            Of the fixed pattern.
        rng
            Generator of this frame.

        Returns
        -------
        frame : shape `shape`, uint16, ADU
        """
        from stemstore.testing.detector_kernels import expose, normal_tables, share_charge

        pedestal, gain = self.fixed_pattern(shape, seed)
        signal = np.zeros(shape, np.float32)
        # Moyal variate: -ln Z^2 of a standard normal Z has its mode at zero and unit scale
        energies = self.deposit_mode - self.deposit_width * np.log(rng.standard_normal(len(positions)) ** 2)
        share_charge(signal, positions, np.clip(energies, *self.deposit_range), gain, self.sharing)
        n_xrays = rng.poisson(self.xrays)
        hits = rng.integers(0, shape, (n_xrays, 2))
        np.add.at(signal, (hits[:, 0], hits[:, 1]), self.xray_energy)
        if self.row_drift > 0:
            halves = self.row_drift * rng.standard_normal((shape[0], 2))
            signal += np.repeat(halves, (shape[1] // 2, shape[1] - shape[1] // 2), axis=1)
        noise_seed = rng.integers(0, 2**64, dtype=np.uint64)
        frame = np.empty(shape, np.uint16)
        expose(signal, pedestal, self.read_noise, self.saturation, noise_seed, normal_tables(), frame)
        return frame


@lru_cache(maxsize=4)
def _fixed_pattern(camera: Camera, shape: tuple[int, int], seed: int) -> tuple[Array, Array]:
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, PEDESTAL_STREAM], np.uint64)))
    pedestal = camera.pedestal + camera.pedestal_spread * rng.standard_normal(shape)
    gain = 1.0 + camera.gain_spread * rng.standard_normal(shape)
    return pedestal.astype(np.float32), gain.astype(np.float32)


def entry_pixels(positions: FloatArray, shape: tuple[int, int]) -> UInt32Array:
    """Give the flat pixel index of every electron that hits the detector, ascending.

    Parameters
    ----------
    positions : shape (m, 2), unit pixel
    shape
        Detector rows and columns.

    Returns
    -------
    indices : shape (at most m,), uint32
        ``row * columns + column``; an index repeats when several electrons enter one pixel.
    """
    pixels = np.floor(positions + 0.5).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < shape)).all(axis=1)
    flat = pixels[inside, 0] * shape[1] + pixels[inside, 1]
    return np.sort(flat).astype(np.uint32)
