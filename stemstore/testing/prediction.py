"""What the best possible measurement on a synthetic scan can reach, before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError
from stemstore.testing.diffraction import Moments, disk_mask, moments
from stemstore.testing.workers import map_ordered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stemstore._types import BoolArray, FloatArray
    from stemstore.testing.scan import SyntheticScan

DISPLACEMENT = 0.25  # pixels either way for the derivative of a disk's edge, well below its width


@dataclass(frozen=True, slots=True, eq=False)
class CentreOfMass:
    """Expected centre of mass of every position, and the noise of one frame.

    Attributes
    ----------
    expected : shape (y, x, 2), unit pixel
        Mean over the expected pattern relative to the optic axis (row, column).
    variance : shape (y, x, 2), unit pixel^2
        Variance of the position of one electron.
    electrons : shape (y, x)
        Mean number of electrons per frame that count.
    mask_radius : unit pixel
        Radius of the disk around the optic axis that counts; infinite: the whole detector.
    """

    expected: FloatArray
    variance: FloatArray
    electrons: FloatArray
    mask_radius: float

    @property
    def noise(self) -> FloatArray:
        """Standard deviation of the centre of mass of one frame, shape (y, x, 2), unit pixel."""
        return np.sqrt(self.variance * mean_inverse(self.electrons)[..., None])

    @property
    def correlation(self) -> FloatArray:
        """Correlation of measured and true centre of mass over the scan, (row, column).

        ``sqrt(T / (T + V))`` with the variance T of the truth over the scan and the mean variance V of the noise.
        """
        truth = self.expected.var(axis=(0, 1))
        noise = (self.noise**2).mean(axis=(0, 1))
        with np.errstate(invalid="ignore"):  # a scan without electrons and without deflection has no correlation
            result: FloatArray = np.sqrt(truth / (truth + noise))
        return result


def mean_inverse(mean: FloatArray) -> FloatArray:
    """Give the mean of 1/N over Poisson numbers N > 0 of the given mean, by summing the series."""
    from scipy.special import gammaln

    rate = np.atleast_1d(np.asarray(mean, np.float64))
    grid = np.unique(np.concatenate([[rate.min(), rate.max()], np.linspace(rate.min(), rate.max(), 65)]))
    n = np.arange(1, int(grid[-1] + 12 * np.sqrt(grid[-1]) + 32))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.exp(n * np.log(grid[:, None]) - grid[:, None] - gammaln(n + 1.0))
        value = (weight / n).sum(axis=1) / -np.expm1(-grid)
    result: FloatArray = np.interp(rate, grid, value).reshape(np.shape(mean))
    return result


def predict_centre_of_mass(scan: SyntheticScan) -> tuple[CentreOfMass, CentreOfMass]:
    """Compute the expected centre of mass of every position from the expected patterns.

    Returns
    -------
    whole
        Over the whole detector; Bragg disks make it noisy.
    bright_field
        Over the disk of radius `SyntheticScan.mask_radius`, which holds the bright-field disk alone.
    """
    centre = np.asarray(scan.optics.centre)
    mask = disk_mask(scan.frame_shape, scan.optics.centre, scan.mask_radius)
    rows, columns = scan.scan_shape

    def measure(position: int) -> tuple[Moments, Moments]:
        row, column = divmod(position, columns)
        image = scan.pattern(scan.frame_number(row, column)).image(scan.frame_shape)
        return moments(image), moments(image, mask)

    found = list(map_ordered(measure, range(rows * columns)))
    maps = []
    for index, radius in ((0, np.inf), (1, scan.mask_radius)):
        chosen = [pair[index] for pair in found]
        expected = np.array([item.mean for item in chosen]).reshape(rows, columns, 2) - centre
        variance = np.array([item.variance for item in chosen]).reshape(rows, columns, 2)
        electrons = scan.dose * np.array([item.share for item in chosen]).reshape(rows, columns)
        maps.append(CentreOfMass(expected, variance, electrons, float(radius)))
    return maps[0], maps[1]


def predict_image(scan: SyntheticScan, mask: BoolArray) -> tuple[FloatArray, float]:
    """Compute the expected virtual image of a detector mask, and how well one exposure can show it.

    Parameters
    ----------
    scan
        The scan.
    mask : shape (ky, kx), bool
        Pixels whose electrons are summed.

    Returns
    -------
    expected : shape (y, x)
        Mean number of electrons per frame at every visible scan position.
    correlation
        Pearson correlation of the image counted in one exposure with `expected`: ``sqrt(T / (T + V))`` with the
        variance T of `expected` over the scan and the mean variance V of the noise, which for Poisson numbers is the
        mean of `expected`. NaN when nothing is expected anywhere.

    Raises
    ------
    InputError
        The mask is not boolean or has another shape than the detector.
    """
    if mask.shape != scan.frame_shape or mask.dtype != np.bool_:
        msg = (
            f"mask of shape {mask.shape} and dtype {mask.dtype} does not select pixels of the detector; expected shape "
            f"{scan.frame_shape} and dtype bool"
        )
        raise InputError(msg, key="mask", found=mask.shape, expected=scan.frame_shape)
    weights = mask.astype(np.float64).ravel()
    rows, columns = scan.scan_shape

    def measure(position: int) -> float:
        row, column = divmod(position, columns)
        image = scan.pattern(scan.frame_number(row, column)).image(scan.frame_shape)
        return scan.dose * float(weights @ image.ravel())

    expected = np.array(list(map_ordered(measure, range(rows * columns)))).reshape(scan.scan_shape)
    with np.errstate(invalid="ignore"):  # a mask that no electron reaches has no correlation
        correlation = np.sqrt(expected.var() / (expected.var() + expected.mean()))
    return expected, float(correlation)


def expected_sum(scan: SyntheticScan, numbers: Iterable[int]) -> FloatArray:
    """Sum the expected patterns of some frames, shape (ky, kx), electrons."""
    total = np.zeros(scan.frame_shape)
    for number in numbers:
        total += scan.expected(number)
    return total


def disk_limit(scan: SyntheticScan, numbers: Iterable[int], order: tuple[int, int]) -> FloatArray:
    """Give the Cramér-Rao limit of the position of a disk in the sum of some frames.

    Parameters
    ----------
    scan
        The scan.
    numbers
        Frames that are summed.
    order
        Indices (h, k) of the disk; (0, 0) is the bright-field disk.

    Returns
    -------
    limit : shape (2,), unit pixel
        Smallest standard deviation along rows and columns that an unbiased measurement by counting electrons can
        have when the shape of the pattern is known: ``1 / sqrt(sum (d mu / d x)^2 / mu)``.

    Raises
    ------
    InputError
        The crystal has no such disk.
    """
    numbers = list(numbers)
    orders = [(0, 0), *(tuple(map(int, pair)) for pair in scan.sample.crystal.orders)]
    if order not in orders:
        msg = f"the crystal has no disk of order {order}; it has {orders}"
        raise InputError(msg, key="order", found=order)
    index = orders.index(order)
    mean = expected_sum(scan, numbers)
    limit = np.empty(2)
    for axis in range(2):
        sides = []
        for sign in (-1, 1):
            image = np.zeros(scan.frame_shape)
            offset = (sign * DISPLACEMENT, 0.0) if axis == 0 else (0.0, sign * DISPLACEMENT)
            for number in numbers:
                scan.pattern(number).add_disk(image, index, offset)
            sides.append(image)
        slope = scan.dose * (sides[1] - sides[0]) / (2 * DISPLACEMENT)
        touched = slope != 0
        limit[axis] = 1.0 / np.sqrt((slope[touched] ** 2 / mean[touched]).sum())
    return limit
