"""Where the pixels of a labelled scan lie on the diffraction plane, in the unit that a shape is given in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.coordinates import axis_in, optic_axis, pixel_step

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray

Centre = tuple[float, float]
DIMS = ("ky", "kx")


def axes_in(image: xr.DataArray, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes ky and kx in a unit.

    Raises
    ------
    CalibrationMissingError
        The scan cannot be expressed in that unit.
    """
    return axis_in(image, "ky", unit), axis_in(image, "kx", unit)


def offsets(image: xr.DataArray, center: Centre | None, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes relative to a centre, by default the optic axis."""
    ky, kx = axes_in(image, unit)
    if center is None:
        center = (optic_axis(image, "ky", unit), optic_axis(image, "kx", unit))
    return ky - center[0], kx - center[1]


def pixel_size(image: xr.DataArray, unit: str | None) -> tuple[float, float]:
    """Give height and width of a stored pixel in a unit."""
    return abs(pixel_step(image, "ky", unit)), abs(pixel_step(image, "kx", unit))


def inhabited(mask: Array, detector: Any, image: xr.DataArray) -> Array:
    """Refuse a detector that covers no pixel."""
    if not mask.any():
        spans = [span(axis_in(image, name, None)) for name in DIMS]
        unit = image.coords["ky"].attrs.get("units", "pixel") if "ky" in image.coords else "pixel"
        msg = (
            f"{detector.describe()} covers no pixel; the detector spans ky {spans[0]}, kx {spans[1]} "
            f"in {unit}. Give numbers in that unit, or name theirs with unit='pixel'"
        )
        raise InputError(msg, found=detector.describe())
    return mask


def span(axis: Array) -> str:
    """First and last value of an axis, for messages."""
    return f"{float(np.min(axis)):.4g} … {float(np.max(axis)):.4g}" if len(axis) else "nothing"
