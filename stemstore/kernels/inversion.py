"""The centre of inversion of a frame, by correlating it with itself turned by 180 degrees.

By Friedel's law a diffraction pattern of a thin specimen equals its inversion about the optic axis. The convolution of
a frame with itself, sum over p of I(p) I(s - p), therefore has its maximum at s = 2 c. Pixels that are hidden (by a
beam stop) are left out of the overlap at every s, as in the masked normalised correlation of D. Padfield, IEEE Trans.
Image Process. 21 (2012) 2706. Both factors are the same frame here, so that their means and variances are equal.

That tells s to a pixel. The fraction comes from a second convolution whose overlap is one fixed set of pixels, its own
inversion about s / 2 and at some distance from hidden ones: only then is the peak of a symmetric frame symmetric, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray

LEAST_OVERLAP = 0.25  # of the largest overlap: less is decided by chance
LEAST_FIXED = 0.02  # of the frame's variance in the fixed overlap, below which the varying one has to do
ROUNDING = 1e-5  # of the largest variance, below which a frame is flat; transforms are float32
LONGEST_ARM = 3  # px from the peak at which its two sides are balanced


@dataclass(frozen=True, slots=True, eq=False)
class Inversion:
    """Tables for frames with one mask of good pixels.

    Attributes
    ----------
    good : shape (ky, kx)
        Pixels that take part.
    far
        Good pixels whose surroundings are good.
    spectrum
        Transform of `good`.
    overlap : shape (2 ky - 1, 2 kx - 1)
        Number of pixels that meet a good one at every s; 0 where s is no candidate.
    size
        Of the transforms.
    """

    good: BoolArray
    far: BoolArray
    spectrum: Array
    overlap: Array
    size: tuple[int, int]

    @classmethod
    def of(cls, good: BoolArray, near: tuple[float, float] | None, reach: float) -> Inversion:
        """Transform the mask, and mark the candidates: enough overlap, and not too far from a place."""
        from scipy.ndimage import minimum_filter

        shape = tuple(2 * n - 1 for n in good.shape)
        rows, columns = (int(fft.next_fast_len(n, real=True)) for n in shape)
        spectrum = fft.rfft2(good.astype(np.float64), s=(rows, columns))
        overlap = np.rint(fft.irfft2(spectrum**2, s=(rows, columns))[: shape[0], : shape[1]])
        wanted = overlap >= max(2.0, LEAST_OVERLAP * overlap.max(initial=0.0))
        if near is not None:
            y, x = np.ogrid[: shape[0], : shape[1]]
            wanted &= np.hypot(y / 2 - near[0], x / 2 - near[1]) <= reach
        far = minimum_filter(good, size=2 * LONGEST_ARM + 3, mode="constant", cval=0)
        overlap = np.where(wanted, overlap, 0.0).astype(np.float32)
        return cls(good, far, spectrum.astype(np.complex64), overlap, (rows, columns))

    def centre(self, frame: Array) -> tuple[float, float, float]:
        """Find the centre of inversion of a frame.

        Returns
        -------
        row, column : px
            NaN for a frame without structure.
        correlation
            Of the frame with its inversion, at most 1.
        """
        values = frame.astype(np.float64)
        good = self.good & np.isfinite(values)
        scale = float(np.ptp(values[good])) if good.any() else 0.0
        if not scale > 0:
            return math.nan, math.nan, 0.0
        # less the mean, and of order one: rounding stays small
        scaled = np.where(good, (np.where(good, values, 0.0) - values[good].mean()) / scale, 0.0).astype(np.float32)
        forward = fft.rfft2(scaled, s=self.size)
        score = self._score(scaled, forward)
        row, column = (int(i) for i in np.unravel_index(int(np.argmax(score)), score.shape))
        top = float(score[row, column])
        if not top > 0:
            return math.nan, math.nan, 0.0
        peak = self._peak(scaled, forward, row, column)
        down, right = balance(score if peak is None else peak, row, column)
        return (row + down) / 2, (column + right) / 2, min(1.0, top)

    def _score(self, values: Array, forward: Array) -> Array:
        """Correlation coefficient of the frame and its inversion at every s; -1 where s is no candidate."""
        squares = fft.rfft2(values**2, s=self.size)
        products = (forward**2, forward * self.spectrum, squares * self.spectrum)
        product, total, square = (self._back(part) for part in products)
        wanted = self.overlap > 0
        number = np.where(wanted, self.overlap, 1.0)
        variance = square - total**2 / number
        wanted &= variance > ROUNDING * square.max(initial=0.0)
        return np.where(wanted, (product - total**2 / number) / np.where(wanted, variance, 1.0), np.float32(-1.0))

    def _peak(self, values: Array, forward: Array, row: int, column: int) -> Array | None:
        """Convolution of the frame with the part of it that is fixed and symmetric about a place, if there is any."""
        inverted = np.zeros_like(self.far)
        rows, columns = (_both_ways(n, s) for n, s in zip(self.far.shape, (row, column), strict=True))
        inverted[rows[0], columns[0]] = self.far[rows[1], columns[1]]
        fixed = np.where(self.far & inverted, values, np.float32(0.0))
        if (fixed**2).sum() < LEAST_FIXED * (values**2).sum():
            return None
        return self._back(forward * fft.rfft2(fixed, s=self.size))

    def _back(self, product: Array) -> Array:
        return np.asarray(fft.irfft2(product, s=self.size)[: self.overlap.shape[0], : self.overlap.shape[1]])


def _both_ways(n: int, s: int) -> tuple[slice, slice]:
    """Pixels p whose partner s - p exists, forwards; and these partners, backwards."""
    first, last = max(0, s - n + 1), min(n - 1, s)
    stop = s - last - 1
    return slice(first, last + 1), slice(s - first, None if stop < 0 else stop, -1)


def balance(score: Array, row: int, column: int) -> tuple[float, float]:
    """Find the middle of a symmetric peak to a fraction of a pixel, whatever its shape.

    ``score(p + h) - score(p - h)`` is zero at the middle, for both axes and any h. Its values at the nine places around
    the highest pixel give a linear map, which is solved for zero. A parabola through the top is wrong for the cone
    that sharp disks make.

    Returns
    -------
    down, right : px
        At most one pixel each; 0 where the peak lies at the border.
    """
    arm = _arm(score, row, column)
    if arm == 0:
        return 0.0, 0.0
    steps = range(-1, 2)
    slopes = np.array(
        [
            [
                (
                    float(score[row + i + arm, column + j] - score[row + i - arm, column + j]),
                    float(score[row + i, column + j + arm] - score[row + i, column + j - arm]),
                )
                for j in steps
            ]
            for i in steps
        ]
    )
    middle = slopes.mean(axis=(0, 1))
    matrix = np.stack([(slopes[2] - slopes[0]).mean(axis=0), (slopes[:, 2] - slopes[:, 0]).mean(axis=0)], axis=1) / 2
    if abs(np.linalg.det(matrix)) < 1e-12 * max(1e-300, float(np.abs(matrix).max()) ** 2):  # a ridge: no middle
        return 0.0, 0.0
    down, right = np.clip(np.linalg.solve(matrix, -middle), -1.0, 1.0)
    return float(down), float(right)


def _arm(score: Array, row: int, column: int) -> int:
    """Distance at which a peak has fallen to about half, as far as it lies on the map with its neighbours."""
    room = min(row, column, score.shape[0] - 1 - row, score.shape[1] - 1 - column) - 1
    half = (score[row, column] + float(np.median(score))) / 2
    for arm in range(1, min(LONGEST_ARM, room) + 1):
        sides = score[[row - arm, row + arm, row, row], [column, column, column - arm, column + arm]]
        if sides.mean() < half:
            return arm
    return max(0, min(LONGEST_ARM, room))
