"""The diffraction pattern of one scan position: as an expected image, and as electrons drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stemstore._types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Disks of equal size and a diffuse background around a common centre.

    Attributes
    ----------
    centres : shape (n, 2), unit pixel
        Disk centres (row, column), the bright-field disk first.
    shares : shape (n,)
        Share of the electrons in each disk; the rest, ``1 - shares.sum()``, is diffuse.
    radius, edge : unit pixel
        Radius of half density, and width over which the density falls linearly to zero.
    diffuse_width : unit pixel
        Standard deviation of the diffuse Gaussian around the bright-field disk.
    """

    centres: FloatArray
    shares: FloatArray
    radius: float
    edge: float
    diffuse_width: float

    @property
    def disk_area(self) -> float:
        """Integral of a disk of unit density: pi (R^2 + w^2 / 12) for a linear edge of width w, unit pixel^2."""
        return float(np.pi * (self.radius**2 + self.edge**2 / 12.0))

    def image(self, shape: tuple[int, int]) -> FloatArray:
        """Integrate the pattern over pixels.

        Returns
        -------
        image : shape `shape`
            Probability that an electron hits the pixel; sums to one but for what misses the detector.
        """
        image = self.diffuse(shape)
        for index in range(len(self.shares)):
            self.add_disk(image, index)
        return image

    def diffuse(self, shape: tuple[int, int]) -> FloatArray:
        """Integrate the diffuse background over pixels."""
        from scipy.special import ndtr

        rows, columns = (
            np.diff(ndtr((np.arange(n + 1) - 0.5 - centre) / self.diffuse_width))
            for n, centre in zip(shape, self.centres[0], strict=True)
        )
        image: FloatArray = np.multiply.outer((1.0 - self.shares.sum()) * rows, columns)
        return image

    def add_disk(self, image: FloatArray, index: int, offset: tuple[float, float] = (0.0, 0.0)) -> None:
        """Add disk `index`, moved by `offset` pixels, to an image."""
        from stemstore.testing.detector_kernels import add_disk

        centre = (float(self.centres[index, 0] + offset[0]), float(self.centres[index, 1] + offset[1]))
        add_disk(image, centre, self.radius, self.edge, float(self.shares[index]) / self.disk_area)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw the places where electrons enter the detector plane.

        Returns
        -------
        positions : shape (n, 2), unit pixel
            Row and column, not confined to the detector. Pixel i reaches from i - 1/2 to i + 1/2.

        Notes
        -----
        A disk with a linear edge is a mixture of sharp disks whose radii r fill the edge with density proportional to
        r^2; both steps are inverted in closed form.
        """
        choice, size, area, turn = rng.random((4, n))
        component = np.searchsorted(np.cumsum(self.shares), choice, side="right")
        low, high = max(self.radius - self.edge / 2, 0.0), self.radius + self.edge / 2
        sharp = np.cbrt(low**3 + size * (high**3 - low**3))
        distance = sharp * np.sqrt(area)
        diffuse = component == len(self.shares)
        distance[diffuse] = self.diffuse_width * np.sqrt(-2.0 * np.log1p(-area[diffuse]))
        centre = self.centres[np.where(diffuse, 0, component)]
        angle = 2.0 * np.pi * turn
        return np.asarray(centre + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What a centre-of-mass measurement on many electrons would find.

    Attributes
    ----------
    share
        Probability that an electron falls inside the mask.
    mean : shape (2,), unit pixel
        Mean position of those electrons (row, column).
    variance : shape (2,), unit pixel^2
        Variance of the position of one of them.
    """

    share: float
    mean: FloatArray
    variance: FloatArray


def moments(image: FloatArray, mask: BoolArray | None = None) -> Moments:
    """Measure sum, mean position and variance of an expected image.

    Parameters
    ----------
    image : shape (ky, kx)
    mask : shape (ky, kx), optional
        Pixels that count; all when not given.
    """
    values = image if mask is None else np.where(mask, image, 0.0)
    share = float(values.sum())
    mean, variance = np.empty(2), np.empty(2)
    for axis in range(2):
        profile = values.sum(axis=1 - axis)
        place = np.arange(profile.size)
        mean[axis] = profile @ place / share
        variance[axis] = profile @ (place - mean[axis]) ** 2 / share
    return Moments(share, mean, variance)


def disk_mask(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> BoolArray:
    """Mark the pixels whose centre is less than `radius` pixels from `centre` (row, column)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    mask: BoolArray = np.hypot(rows - centre[0], columns - centre[1]) < radius
    return mask
