"""Spatial frequencies of diffraction patterns: where the terms of their transforms lie, and what enters them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.detectors import as_detector
from stemstore.scan.coordinates import axis_in, pixel_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from stemstore._types import Array, FloatArray

Window = Literal["hann"]
UNITS = {"1/pixel": "pixel", "1/mrad": "mrad", "angstrom": "1/angstrom", "nm": "1/nm"}
"""Units of spatial frequencies, and those of the detector axes that they belong to."""
BATCH_BYTES = 4 * 2**20  # frames in double precision that are transformed at a time; stays in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Frequencies:
    """Spatial frequencies of the terms of a transform of real frames.

    Attributes
    ----------
    rows : shape (ky,)
        Along ky, in the order of the transform.
    columns : shape (kx // 2 + 1,)
        Along kx, zero and positive ones.
    n_columns
        Columns of the frames.
    unit
        Of both.
    """

    rows: FloatArray
    columns: FloatArray
    n_columns: int
    unit: str

    @classmethod
    def of(cls, image: xr.DataArray, unit: str | None) -> Frequencies:
        """Take the sampling of the detector axes of a scan.

        Raises
        ------
        InputError
            No unit of a frequency, or pixels at unlike distances.
        CalibrationMissingError
            The unit needs a calibration that the scan lacks.
        """
        own = image.coords["ky"].attrs.get("units", "pixel") if "ky" in image.coords else "pixel"
        if unit is None:
            unit = next((name for name, axis in UNITS.items() if axis == own), "1/pixel")
        elif unit not in UNITS:
            msg = f"{unit!r} is no unit of frequencies on the detector; expected one of {', '.join(UNITS)}"
            raise InputError(msg, key="unit", found=unit, expected=tuple(UNITS))
        steps = [_step(image, name, UNITS[unit]) for name in ("ky", "kx")]
        n_rows, n_columns = image.shape[-2:]
        rows, columns = np.fft.fftfreq(n_rows, steps[0]), np.fft.rfftfreq(n_columns, steps[1])
        return cls(np.asarray(rows, np.float64), np.asarray(columns, np.float64), n_columns, unit)

    @property
    def squares(self) -> FloatArray:
        """Square of the length of every term's frequency, (ky, kx // 2 + 1)."""
        return np.asarray(self.rows[:, None] ** 2 + self.columns**2)

    @property
    def number(self) -> FloatArray:
        """How many terms of the full transform each column stands for: those of negative frequency are left out."""
        twice = np.full(len(self.columns), 2.0)
        twice[0] = 1.0
        if self.n_columns % 2 == 0:
            twice[-1] = 1.0
        return twice

    def coordinates(self) -> dict[str, Any]:
        """Give the axes of the full transform, zero in the middle."""
        columns = np.fft.fftfreq(self.n_columns, 1.0) * (self.columns[1] * self.n_columns if self.n_columns > 1 else 1)
        return {
            dim: (dim, np.fft.fftshift(axis), {"units": self.unit, "long_name": f"frequency along k{dim[-1]}"})
            for dim, axis in (("fy", self.rows), ("fx", columns))
        }

    def whole(self, half: FloatArray) -> FloatArray:
        """Complete the squared moduli of the terms, (ky, kx // 2 + 1), to the full transform, zero in the middle."""
        full = np.empty((len(self.rows), self.n_columns))
        full[:, : half.shape[1]] = half
        rest = np.arange(half.shape[1], self.n_columns)
        # a real frame has the same modulus at opposite frequencies
        full[:, rest] = half[-np.arange(len(self.rows))][:, self.n_columns - rest]
        return np.asarray(np.fft.fftshift(full))


def factors(image: xr.DataArray, exclude: Any, window: Window | None) -> FloatArray:
    """Give what every pixel is multiplied by before a transform, (ky, kx).

    Parameters
    ----------
    image
        The scan.
    exclude
        Detector whose pixels are set to zero, to the share in which it covers them; None for none.
    window
        ``"hann"``: fall to zero towards the borders, with a mean square of 1; None for no window.

    Raises
    ------
    InputError
        An unknown window, or a detector whose weights are no shares.
    """
    shape = image.shape[-2:]
    if window not in {None, "hann"}:
        msg = f"window {window!r} is not known; expected 'hann' or None"
        raise InputError(msg, key="window", found=window)
    result = np.ones(shape)
    if exclude is not None:
        weights = as_detector(exclude).weights(image)
        if weights.dtype.kind == "c" or weights.min(initial=0) < 0 or weights.max(initial=0) > 1:
            msg = (
                f"exclude covers pixels by shares from 0 to 1, got {weights.dtype} weights beyond; give disk(…) or bool"
            )
            raise InputError(msg, key="exclude", found=str(weights.dtype))
        result -= weights
    if window == "hann":
        rows, columns = (1 - np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) if n > 1 else np.ones(1) for n in shape)
        hann = np.multiply.outer(rows, columns)
        result *= hann / np.sqrt(np.mean(hann**2))
    return result


def transforms(frames: Array, pixels: FloatArray) -> Iterator[tuple[slice, Array]]:
    """Transform frames, (n, ky, kx), times `pixels`, some at a time.

    Yields
    ------
    some, terms
        Which of the frames, and their terms of zero and positive frequency along kx, (m, ky, kx // 2 + 1).
    """
    import scipy.fft

    step = max(1, BATCH_BYTES // max(1, pixels.nbytes))
    for first in range(0, len(frames), step):
        some = slice(first, first + step)
        # one thread: the tasks of an operation run side by side already
        yield some, scipy.fft.rfft2(frames[some] * pixels, workers=1)


def _step(image: xr.DataArray, name: str, unit: str) -> float:
    """Distance of neighbouring visible pixels."""
    steps = np.abs(np.diff(axis_in(image, name, unit)))
    if len(steps) == 0:
        return abs(pixel_step(image, name, unit))
    if steps[0] == 0 or not np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        msg = f"the visible pixels along {name!r} lie at unlike distances, so they have no frequencies; select a range"
        raise InputError(msg, key=name)
    return float(steps[0])
