"""The microscope of a synthetic scan: energy, probe, camera length, scan step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import FloatArray

NM_IN_ANGSTROM = 10.0
MRAD = 1e-3


@dataclass(frozen=True, slots=True)
class Optics:
    """Geometry that turns angles into detector pixels and scan positions into lengths.

    Attributes
    ----------
    beam_energy : unit keV
    disk_radius : unit pixel
        Radius of the bright-field disk on the detector; with `detector_step` it fixes the convergence angle.
    disk_edge : unit pixel
        Width over which the density of a disk falls from full to zero.
    detector_step : unit mrad
        Angle of one detector pixel.
    scan_step : unit nm
        Distance of two scan positions.
    detector_shape
        Rows and columns.
    origin : unit pixel
        Optic axis as (row, column); None: the middle, (n - 1) / 2.
    """

    beam_energy: float = 300.0
    disk_radius: float = 43.0
    disk_edge: float = 1.0
    detector_step: float = 0.044
    scan_step: float = 0.5
    detector_shape: tuple[int, int] = (576, 576)
    origin: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("beam_energy", "disk_radius", "disk_edge", "detector_step", "scan_step"):
            value = getattr(self, name)
            if not value > 0:
                msg = f"{name} of the synthetic microscope is {value!r}; expected a number above zero"
                raise InputError(msg, key=name, found=value)

    @property
    def centre(self) -> tuple[float, float]:
        """Optic axis on the detector (row, column), unit pixel."""
        if self.origin is not None:
            return self.origin
        return (self.detector_shape[0] - 1) / 2, (self.detector_shape[1] - 1) / 2

    @property
    def wavelength(self) -> float:
        """Relativistic electron wavelength, unit angstrom."""
        from stemstore_schemas import wavelength

        return float(wavelength(self.beam_energy))

    @property
    def pixel_step(self) -> float:
        """Spatial frequency of one detector pixel, unit 1/angstrom: angle / wavelength."""
        return self.detector_step * MRAD / self.wavelength

    @property
    def semi_convergence_angle(self) -> float:
        """Half angle of the probe-forming cone, unit mrad."""
        return self.disk_radius * self.detector_step

    @property
    def aperture(self) -> float:
        """Spatial frequency at the edge of the probe-forming aperture, unit 1/nm."""
        return self.disk_radius * self.pixel_step * NM_IN_ANGSTROM

    def probe_transfer(self, frequency: FloatArray) -> FloatArray:
        """Give the Fourier transform of the probe intensity.

        Parameters
        ----------
        frequency : unit 1/nm

        Returns
        -------
        transfer : same shape, 1 at zero frequency
            Autocorrelation of a circular aperture in focus (Goodman, "Introduction to Fourier Optics", eq. for the
            diffraction-limited optical transfer function).
        """
        ratio = np.clip(np.abs(frequency) / (2.0 * self.aperture), 0.0, 1.0)
        transfer: FloatArray = 2.0 / np.pi * (np.arccos(ratio) - ratio * np.sqrt(1.0 - ratio**2))
        return transfer
