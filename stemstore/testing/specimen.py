"""A specimen whose every property is known: a smooth phase landscape on a strained crystal.

The phase varies slowly over the probe, so the whole diffraction pattern moves rigidly with the local phase gradient:
``k = grad(phase) / (2 pi)``, averaged over the probe intensity. For the centre of mass this is exact for any phase
object (Ehrenfest's theorem; Müller et al. 2014, Nature Communications 5, 5653); for the shape of the disks it is the
nanobeam limit. Its mass sends electrons out of the disks into a diffuse background, which is the contrast of
bright-field and dark-field images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import FloatArray
    from stemstore.testing.optics import Optics

REACH = 8.0  # widths of a Gaussian after which it is below 1e-13
POINTS_PER_WIDTH = 3  # samples per Gaussian width; its spectrum is then below 1e-19 at the Nyquist frequency
DIFFUSE_BASE = 0.03  # share of diffuse electrons where there are no particles
DIFFUSE_CONTRAST = 0.5  # added on the thickest particle: bright field falls there by a third


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """Gaussian bumps of projected phase; every phase is a sum of them.

    Attributes
    ----------
    centres : shape (n, 2), unit nm
        Row and column, from scan position (0, 0).
    widths : shape (n,), unit nm
        Standard deviations.
    heights : shape (n,), unit rad
        Positive: electrons are attracted, as by atoms.
    """

    centres: FloatArray
    widths: FloatArray
    heights: FloatArray

    def phase(self, y: FloatArray, x: FloatArray) -> FloatArray:
        """Give the projected phase on the grid of `y` and `x`.

        Parameters
        ----------
        y, x : shapes (ny,) and (nx,), unit nm

        Returns
        -------
        phase : shape (ny, nx), unit rad
        """
        rows = np.exp(-0.5 * ((y[:, None] - self.centres[:, 0]) / self.widths) ** 2)
        columns = np.exp(-0.5 * ((x[:, None] - self.centres[:, 1]) / self.widths) ** 2)
        phase: FloatArray = (rows * self.heights) @ columns.T
        return phase


def scatter_particles(
    scan_shape: tuple[int, int], *, scan_step: float, seed: int, width: float = 3.0, height: float = 3.0
) -> Particles:
    """Strew particles over the upper part of a scan; its lower quarter stays flat, for patterns that do not move.

    Parameters
    ----------
    scan_shape
        Rows and columns.
    scan_step : unit nm
    seed
        Of the places, widths and heights.
    width : unit scan positions
        Mean standard deviation.
    height : unit rad
        Mean height.
    """
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, 2**63], np.uint64)))
    pitch = 3.5 * width  # the mass between particles falls to half or less, so that images tell them apart
    low = min(width / 2.0, scan_shape[0] / 2.0)
    high = max(0.625 * scan_shape[0] - 2.8 * width, low)
    rows = np.linspace(low, high, 1 + int((high - low) / pitch))
    n_columns = max(1, round(scan_shape[1] / pitch))
    columns = (np.arange(n_columns) + 0.5) * scan_shape[1] / n_columns
    centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    n = len(centres)
    centres += pitch * rng.uniform(-0.15, 0.15, (n, 2))  # a jittered grid: no clusters, so the largest slope is bounded
    widths, heights = width * rng.uniform(0.85, 1.15, n), height * rng.uniform(0.7, 1.3, n)
    return Particles(centres * scan_step, widths * scan_step, heights)


def diffuse_scattering(
    phase: FloatArray, *, base: float = DIFFUSE_BASE, contrast: float = DIFFUSE_CONTRAST
) -> FloatArray:
    """Compute the share of electrons that particles scatter out of the coherent pattern.

    Parameters
    ----------
    phase : shape (y, x), unit rad
        Projected phase; for one material it is proportional to the mass in the beam.
    base
        Share where the phase is zero.
    contrast
        Added to `base` where the phase is largest.

    Returns
    -------
    share : shape (y, x)
        ``base + contrast * phase / max(phase)``; `base` everywhere when no phase is above zero.

    Notes
    -----
    Thermal diffuse scattering is incoherent: it is proportional to the number of atoms in the beam while that number is
    small (Pennycook and Jesson 1991, Ultramicroscopy 37, 14).
    """
    highest = float(phase.max())
    if highest <= 0:
        return np.full(phase.shape, base)
    return np.asarray(base + contrast * phase / highest)


def deflection(particles: Particles, scan_shape: tuple[int, int], optics: Optics) -> FloatArray:
    """Compute how far the pattern moves at every scan position.

    Parameters
    ----------
    particles
        The phase.
    scan_shape
        Rows and columns.
    optics
        Scan step, probe and detector step.

    Returns
    -------
    shift : shape (y, x, 2), unit pixel
        Gradient of the phase averaged over the probe intensity, over 2 pi and over the detector step: (row, column).
        It points up the gradient.

    Notes
    -----
    Evaluated by Fourier transform on a grid fine and wide enough for the Gaussians to be band-limited and to vanish at
    its border; exact to rounding but for the far tail of the Airy pattern.
    """
    finest = float(particles.widths.min()) / POINTS_PER_WIDTH
    over = max(1, int(np.ceil(optics.scan_step / finest)))
    step = optics.scan_step / over
    pad = int(np.ceil(REACH * float(particles.widths.max()) / step))
    axes = [step * np.arange(-pad, n * over + pad, dtype=np.float64) for n in scan_shape]
    spectrum = np.fft.rfft2(particles.phase(axes[0], axes[1]))
    shape = (len(axes[0]), len(axes[1]))
    q_row = np.fft.fftfreq(shape[0], step)[:, None]
    q_column = np.fft.rfftfreq(shape[1], step)[None, :]
    spectrum *= optics.probe_transfer(np.hypot(q_row, q_column))
    pixel = optics.pixel_step * 10.0  # 1/angstrom -> 1/nm
    visible = tuple(slice(pad, pad + n * over, over) for n in scan_shape)
    parts = [np.fft.irfft2(1j * q * spectrum, shape)[visible] / pixel for q in (q_row, q_column)]
    return np.stack(parts, axis=-1)  # i 2 pi q / (2 pi) = i q


def deformation_gradient(strain: FloatArray, rotation: FloatArray | float) -> FloatArray:
    """Compose a deformation gradient from stretch and rotation: ``F = R (1 + e)``.

    Parameters
    ----------
    strain : shape (..., 2, 2)
        Symmetric (Biot) strain on (row, column); positive = tension.
    rotation : shape (...), unit rad
        Positive from the row axis towards the column axis.
    """
    c, s = np.cos(rotation), np.sin(rotation)
    turn = np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)
    result: FloatArray = turn @ (np.eye(2) + strain)
    return result


def stepped_strain(scan_shape: tuple[int, int], strain: FloatArray | None = None) -> FloatArray:
    """Strain the right half of a scan and leave the left half as it is.

    Parameters
    ----------
    scan_shape
        Rows and columns.
    strain : shape (2, 2), optional
        Symmetric strain of the right half; (row, row) +1.2 %, (column, column) -0.8 %, shear 0.5 % when not given.

    Returns
    -------
    strain : shape (y, x, 2, 2)
    """
    value = np.array([[0.012, 0.005], [0.005, -0.008]]) if strain is None else np.asarray(strain, np.float64)
    field = np.zeros((*scan_shape, 2, 2))
    field[:, scan_shape[1] // 2 :] = value
    return field


@dataclass(frozen=True, slots=True)
class Crystal:
    """A crystal seen along a fourfold axis.

    Attributes
    ----------
    spacing : unit angstrom
        Distance of the lattice planes of the first order.
    rotation : unit deg
        Of the first lattice vector from the row axis towards the column axis.
    max_order
        Orders with ``h^2 + k^2 <= max_order`` are excited.
    decay
        Intensity of a disk is proportional to ``exp(-decay (h^2 + k^2))``.
    """

    spacing: float = 3.905  # cubic SrTiO3
    rotation: float = 6.0
    max_order: int = 4
    decay: float = 0.35

    def __post_init__(self) -> None:
        if self.spacing <= 0 or self.max_order < 1:
            msg = f"crystal has spacing {self.spacing!r} and max_order {self.max_order!r}; expected both above zero"
            raise InputError(msg, key="spacing")

    @property
    def orders(self) -> FloatArray:
        """Indices (h, k) of the excited disks without (0, 0), shape (n, 2)."""
        limit = int(np.sqrt(self.max_order))
        grid = np.stack(np.meshgrid(*[np.arange(-limit, limit + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
        square = (grid**2).sum(axis=1)
        return grid[(square > 0) & (square <= self.max_order)].astype(np.float64)

    @property
    def weights(self) -> FloatArray:
        """Relative intensities of `orders`, sum 1; equal for opposite orders (Friedel)."""
        raw = np.exp(-self.decay * (self.orders**2).sum(axis=1))
        return np.asarray(raw / raw.sum())

    def reference(self, pixel_step: float) -> FloatArray:
        """Give the unstrained reciprocal vectors g1, g2 as rows of (row, column), unit pixel."""
        angle = np.deg2rad(self.rotation)
        length = 1.0 / (self.spacing * pixel_step)
        c, s = np.cos(angle), np.sin(angle)
        return length * np.array([[c, s], [-s, c]])

    def lattice(self, deformation: FloatArray, pixel_step: float) -> FloatArray:
        """Give the reciprocal vectors of a deformed crystal.

        Parameters
        ----------
        deformation : shape (..., 2, 2)
            Deformation gradient F on (row, column).
        pixel_step : unit 1/angstrom

        Returns
        -------
        lattice : shape (..., 2, 2), unit pixel
            ``lattice[..., i, :]`` is g of index i as (row, column): g = F^-T g0.
        """
        # row vectors: g = g0 F^-1
        vectors: FloatArray = self.reference(pixel_step) @ np.linalg.inv(deformation)
        return vectors
