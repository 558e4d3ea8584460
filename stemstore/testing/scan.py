"""A synthetic scan: any frame of it, as expectation, electrons or detector values, computed on demand.

Every frame has its own random generator (Philox, a counter-based generator: Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), keyed by seed and frame number. A frame is therefore the same however a scan is cut into
blocks, whichever frames are asked for and by how many threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError
from stemstore.testing.camera import Camera, entry_pixels
from stemstore.testing.diffraction import Pattern
from stemstore.testing.optics import Optics
from stemstore.testing.specimen import (
    DIFFUSE_BASE,
    Crystal,
    Particles,
    deflection,
    deformation_gradient,
    diffuse_scattering,
    scatter_particles,
    stepped_strain,
)

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, UInt16Array, UInt32Array

ELECTRON_STREAM, CAMERA_STREAM = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """What stands in the beam, and how it shares out the electrons.

    Attributes
    ----------
    particles
        Phase landscape; moves the whole pattern.
    crystal
        Lattice that gives the Bragg disks.
    strain : shape (y, x, 2, 2)
        Symmetric strain on (row, column); positive = tension.
    rotation : shape (y, x), unit rad
        Rotation of the lattice, from the row axis towards the column axis.
    bright_share
        Share of the coherent electrons, those outside the diffuse background, in the bright-field disk; the rest of
        them is in Bragg disks.
    diffuse_share : number or shape (y, x)
        Share of all electrons in the diffuse background: one for a uniform specimen, or one per scan position.
    diffuse_width : unit pixel
        Standard deviation of the diffuse background.
    """

    particles: Particles
    crystal: Crystal
    strain: FloatArray
    rotation: FloatArray
    bright_share: float = 0.4433  # 0.43 of all electrons beside the particles
    diffuse_share: float | FloatArray = DIFFUSE_BASE
    diffuse_width: float = 80.0

    def __post_init__(self) -> None:
        for key in ("bright_share", "diffuse_share"):
            values = np.asarray(getattr(self, key))
            if not (values.min() >= 0 and values.max() <= 1):  # also refuses NaN
                found = (float(values.min()), float(values.max()))
                msg = f"{key} of the specimen spans {found[0]} to {found[1]}; expected shares from 0 to 1"
                raise InputError(msg, key=key, found=found)

    @classmethod
    def default(cls, scan_shape: tuple[int, int], *, scan_step: float, seed: int) -> Specimen:
        """Make particles, visible by phase and by mass, on the upper part of a crystal whose right half is strained."""
        particles = scatter_particles(scan_shape, scan_step=scan_step, seed=seed)
        y, x = (scan_step * np.arange(n, dtype=np.float64) for n in scan_shape)
        diffuse = diffuse_scattering(particles.phase(y, x))
        rotation = np.zeros(scan_shape)
        rotation[:, scan_shape[1] // 2 :] = 0.004
        return cls(particles, Crystal(), stepped_strain(scan_shape), rotation, diffuse_share=diffuse)

    @property
    def coherent_shares(self) -> FloatArray:
        """Share of the coherent electrons in each disk, sum 1: bright field, then the orders of the crystal."""
        return np.concatenate([[self.bright_share], (1.0 - self.bright_share) * self.crystal.weights])


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A scan whose truth is known; nothing is computed until a frame is asked for.

    A frame is addressed by its number: ``(row * width + column) * frames_per_position + exposure``, where ``width``
    counts the flyback columns. While the beam flies back it sees the mean of its row.

    Attributes
    ----------
    scan_shape
        Rows and columns without flyback.
    dose
        Mean number of electrons per frame.
    seed
        Of everything random.
    optics, camera
        Microscope and detector.
    specimen
        `Specimen.default` when not given.
    flyback_columns
        Columns after the last one in which the beam returns.
    frames_per_position
        Exposures of every position.
    """

    scan_shape: tuple[int, int] = (40, 40)
    dose: float = 120.0
    seed: int = 0
    optics: Optics = field(default_factory=Optics)
    camera: Camera = field(default_factory=Camera)
    specimen: Specimen | None = None
    flyback_columns: int = 0
    frames_per_position: int = 1

    def __post_init__(self) -> None:
        if min(*self.scan_shape, self.frames_per_position) < 1 or self.flyback_columns < 0 or self.dose < 0:
            msg = (
                f"synthetic scan of shape {self.scan_shape}, {self.frames_per_position} frames per position, "
                f"{self.flyback_columns} flyback columns and dose {self.dose!r}; expected extents of at least 1 and "
                "no negative number"
            )
            raise InputError(msg, key="scan_shape", found=self.scan_shape)
        sample = self.specimen or Specimen.default(self.scan_shape, scan_step=self.optics.scan_step, seed=self.seed)
        if sample.strain.shape != (*self.scan_shape, 2, 2) or sample.rotation.shape != self.scan_shape:
            msg = (
                f"strain of shape {sample.strain.shape} and rotation of shape {sample.rotation.shape} do not cover the "
                f"scan of shape {self.scan_shape}; expected {(*self.scan_shape, 2, 2)} and {self.scan_shape}"
            )
            raise InputError(msg, key="strain", found=sample.strain.shape)
        if np.shape(sample.diffuse_share) not in ((), self.scan_shape):
            msg = (
                f"diffuse_share of shape {np.shape(sample.diffuse_share)} does not cover the scan of shape "
                f"{self.scan_shape}; expected that shape, or one number"
            )
            raise InputError(msg, key="diffuse_share", found=np.shape(sample.diffuse_share))
        object.__setattr__(self, "sample", sample)
        gradient = deformation_gradient(sample.strain, sample.rotation)
        object.__setattr__(self, "deformation", gradient)
        object.__setattr__(self, "deflection", deflection(sample.particles, self.scan_shape, self.optics))
        object.__setattr__(self, "diffuse", np.broadcast_to(sample.diffuse_share, self.scan_shape).astype(np.float64))
        object.__setattr__(self, "lattice", sample.crystal.lattice(gradient, self.optics.pixel_step))

    sample: Specimen = field(init=False)
    deformation: FloatArray = field(init=False)
    """Deformation gradient on (row, column), shape (y, x, 2, 2)."""
    deflection: FloatArray = field(init=False)
    """Shift of the pattern (row, column), shape (y, x, 2), unit pixel."""
    diffuse: FloatArray = field(init=False)
    """Share of the electrons in the diffuse background, shape (y, x)."""
    lattice: FloatArray = field(init=False)
    """Reciprocal vectors, shape (y, x, 2, 2): ``[..., i, :]`` is g of index i, unit pixel."""

    @property
    def width(self) -> int:
        """Columns of the scan, flyback included."""
        return self.scan_shape[1] + self.flyback_columns

    @property
    def n_frames(self) -> int:
        """Number of frames, exposures and flyback included."""
        return self.scan_shape[0] * self.width * self.frames_per_position

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.optics.detector_shape

    @property
    def phase(self) -> FloatArray:
        """Projected phase at the scan positions, shape (y, x), unit rad."""
        y, x = (self.optics.scan_step * np.arange(n, dtype=np.float64) for n in self.scan_shape)
        return self.sample.particles.phase(y, x)

    @property
    def mask_radius(self) -> float:
        """Radius that separates the bright-field disk from its neighbours: half the shortest lattice vector, pixel."""
        return 0.5 * float(np.linalg.norm(self.lattice, axis=-1).min())

    def frame_number(self, row: int, column: int, exposure: int = 0) -> int:
        """Give the number of the frame at a scan position."""
        return (row * self.width + column) * self.frames_per_position + exposure

    def pattern(self, number: int) -> Pattern:
        """Describe the diffraction pattern of one frame."""
        row, column = divmod(self._position(number), self.width)
        seen = slice(None) if column >= self.scan_shape[1] else slice(column, column + 1)
        shift, vectors = self.deflection[row, seen].mean(axis=0), self.lattice[row, seen].mean(axis=0)
        centre = np.asarray(self.optics.centre) + shift
        centres = np.concatenate([centre[None], centre + self.sample.crystal.orders @ vectors])
        optics, sample = self.optics, self.sample
        shares = (1.0 - self.diffuse[row, seen].mean()) * sample.coherent_shares
        return Pattern(centres, shares, optics.disk_radius, optics.disk_edge, sample.diffuse_width)

    def expected(self, number: int) -> FloatArray:
        """Compute the mean number of electrons in every pixel of one frame, shape (ky, kx)."""
        return self.dose * self.pattern(number).image(self.frame_shape)

    def positions(self, number: int) -> FloatArray:
        """Draw the electrons of one frame: entry points (row, column), shape (m, 2), unit pixel."""
        rng = self._generator(number, ELECTRON_STREAM)
        return self.pattern(number).draw(int(rng.poisson(self.dose)), rng)

    def electrons(self, number: int) -> UInt32Array:
        """Give the flat pixel index of every electron of one frame, ascending: the truth of counting."""
        return entry_pixels(self.positions(number), self.frame_shape)

    def frame(self, number: int) -> UInt16Array:
        """Read out one frame of the camera, shape (ky, kx), unit ADU."""
        return self.exposure(number)[1]

    def exposure(self, number: int) -> tuple[UInt32Array, UInt16Array]:
        """Give `electrons` and `frame` of one frame from one draw."""
        positions, rng = self.positions(number), self._generator(number, CAMERA_STREAM)
        image = self.camera.read_out(positions, self.frame_shape, self.seed, rng)
        return entry_pixels(positions, self.frame_shape), image

    def counted(self, number: int) -> Array:
        """Give one frame as a perfect counting detector would: electrons per pixel, shape (ky, kx), uint16."""
        n_pixels = self.frame_shape[0] * self.frame_shape[1]
        return np.bincount(self.electrons(number), minlength=n_pixels).astype(np.uint16).reshape(self.frame_shape)

    def _position(self, number: int) -> int:
        if not 0 <= number < self.n_frames:
            msg = f"frame {number} is outside the synthetic scan of {self.n_frames} frames"
            raise InputError(msg, frame=number, expected=self.n_frames)
        return number // self.frames_per_position

    def _generator(self, number: int, stream: int) -> np.random.Generator:
        key = np.array([self.seed, number], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
