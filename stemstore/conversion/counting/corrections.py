"""What is done to frames before electrons are looked for: row dark, dark, gain, dead pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.counting import fold_dark
from stemstore.kernels.counting_corrections import RowDark, correct

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array
    from stemstore.scan.references import Reference

ROW_DARKS = ("none", "mean", "median")
EXACT_BYTES = 2  # integers of up to 16 bits are exact in 32-bit floats; wider ones are corrected in 64 bits
OFFSET_BYTES = 4  # differences of wider integers than 32 bits may leave 64 bits
LARGEST_OFFSET = 2**29
FULL_SCALE = 65535


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """Corrections of a scan; those that need no floating point are folded into the limits of counting.

    Attributes
    ----------
    frame_shape, dtype
        Of the frames.
    dark, gain, bad_pixels
        Subtracted; multiplied; true at pixels that are not used.
    row_dark
        Whether half rows of a frame are brought to the pedestal, by their mean or median.
    pedestal : unit ADU
        Level of the half rows.
    """

    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    dark: Reference | None = None
    gain: Reference | None = None
    bad_pixels: Reference | None = None
    row_dark: RowDark = "none"
    pedestal: float = 0.0

    def __post_init__(self) -> None:
        if self.row_dark not in ROW_DARKS:
            msg = f"row_dark={self.row_dark!r} is not known; choose one of {', '.join(ROW_DARKS)}"
            raise InputError(msg, key="row_dark", found=self.row_dark)

    @property
    def nothing(self) -> bool:
        """Whether frames stay as they are."""
        return self.dark is None and self.gain is None and self.bad_pixels is None and self.row_dark == "none"

    @property
    def dead(self) -> BoolArray | None:
        """Pixels that are no events and no neighbours: bad ones, and those without a usable dark or gain."""
        dead = np.zeros(self.frame_shape, np.bool_)
        if self.bad_pixels is not None:
            dead |= self.bad_pixels.values != 0
        if self.dark is not None:
            dead |= ~np.isfinite(self.dark.values)
        if self.gain is not None:
            dead |= ~(np.isfinite(self.gain.values) & (self.gain.values > 0))
        return dead if dead.any() else None

    @property
    def floating(self) -> bool:
        """Whether frames are corrected in floating point; a dark of whole numbers needs none."""
        if self.gain is not None or self.row_dark != "none":
            return True
        integers = self.dtype.kind in "iu" and self.dtype.itemsize <= OFFSET_BYTES
        if integers and self.dark is not None:
            values = self.dark.values[np.isfinite(self.dark.values)]
            integers = bool((values == np.rint(values)).all() and (np.abs(values) < LARGEST_OFFSET).all())
        return not integers and not self.nothing

    @property
    def work_dtype(self) -> np.dtype[Any]:
        """Type of corrected frames in floating point."""
        small = self.dtype.itemsize <= EXACT_BYTES or self.dtype == np.float32
        return np.dtype(np.float32 if small else np.float64)

    @property
    def offset(self) -> Array | None:
        """Integers that are subtracted from every frame when it is counted; None in floating point."""
        if self.floating:
            return None
        dark = None if self.dark is None else np.where(np.isfinite(self.dark.values), self.dark.values, 0)
        return fold_dark(dark, self.dead, self.frame_shape)

    def factors(self) -> tuple[FloatArray, FloatArray]:
        """Dark and gain of every pixel in the type of corrected frames; NaN at dead pixels."""
        dark = np.zeros(self.frame_shape) if self.dark is None else self.dark.values
        gain = np.ones(self.frame_shape) if self.gain is None else self.gain.values.copy()
        if self.dead is not None:
            gain = np.where(self.dead, np.nan, gain)
        return dark.astype(self.work_dtype), gain.astype(self.work_dtype)

    def hides_full(self, last: float) -> bool:
        """Tell whether a 16-bit pixel at full scale might be corrected to `last` or less, and pass for an electron."""
        if self.row_dark != "none":
            return True
        dark, gain = self.factors()
        lowest = (FULL_SCALE - dark) * gain
        return bool((lowest <= last).any())

    def apply(self, frames: Array, out: Array, factors: tuple[FloatArray, FloatArray]) -> Int64Array:
        """Correct frames in floating point.

        Parameters
        ----------
        frames, out : shape (n, ky, kx)
            `out` has the dtype `work_dtype`.
        factors
            From `factors`, made once.

        Returns
        -------
        levelless : shape (n,)
            Half rows without a level that row dark could use.
        """
        return correct(frames, out, *factors, row_dark=self.row_dark, pedestal=self.pedestal)

    def notes(self) -> list[str]:
        """Tell how many pixels the references take away beside those that were named."""
        if self.dead is None:
            return []
        named = 0 if self.bad_pixels is None else int((self.bad_pixels.values != 0).sum())
        more = int(self.dead.sum()) - named
        if not more:
            return []
        return [f"{more} pixels without a finite dark or a positive gain are dead: no events are looked for there"]
