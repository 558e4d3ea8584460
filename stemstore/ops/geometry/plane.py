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
SIDE = len(DIMS)


def axes_in(image: xr.DataArray, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes ky and kx in a unit.

    Raises
    ------
    CalibrationMissingError
        The scan cannot be expressed in that unit.
    """
    return axis_in(image, "ky", unit), axis_in(image, "kx", unit)


def offsets(image: xr.DataArray, center: Centre | None, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the places of the pixels relative to a centre, by default the optic axis, with the ellipse taken away.

    Returns
    -------
    ky, kx
        Arrays that broadcast to (rows, columns). A scan without ellipse has a column and a row.
    """
    ky, kx = axes_in(image, unit)
    if center is None:
        center = (optic_axis(image, "ky", unit), optic_axis(image, "kx", unit))
    rows, columns = (ky - center[0])[:, None], (kx - center[1])[None, :]
    matrix = ellipse_in(image, unit)
    if matrix is None:
        return rows, columns
    (p, q), (r, s) = matrix
    return p * rows + q * columns, r * rows + s * columns


def ellipse_in(image: xr.DataArray, unit: str | None) -> FloatArray | None:
    """Give the matrix that corrects (row, column) vectors in a unit; None where the scan has no ellipse.

    Notes
    -----
    A scan carries the matrix T for vectors in stored pixels. With steps D = diag(row, column) it is D T / D in a unit.

    Raises
    ------
    InputError
        The attribute of the scan is no matrix.
    """
    from stemstore.scan.stated import ELLIPSE

    found = image.attrs.get(ELLIPSE)
    if found is None:
        return None
    matrix = np.asarray(found, np.float64)
    if matrix.size != SIDE * SIDE or not np.isfinite(matrix).all():
        msg = f"the attribute {ELLIPSE!r} is {found!r}; expected four numbers, row by row: use stemstore.calibrate"
        raise InputError(msg, key=ELLIPSE, found=found)
    steps = np.array([pixel_step(image, name, unit) for name in DIMS])
    return np.asarray(matrix.reshape(SIDE, SIDE) * steps[:, None] / steps)


def ellipse_text(image: xr.DataArray) -> list[float] | None:
    """Name the ellipse of a scan in the history of results."""
    from stemstore.scan.stated import ELLIPSE

    found = image.attrs.get(ELLIPSE)
    return None if found is None else [round(float(value), 6) for value in np.ravel(found)]


def pixel_cell(image: xr.DataArray, unit: str | None) -> FloatArray:
    """Give the edges of a pixel in a unit, ellipse taken away: in the columns, one row down and one column on."""
    height, width = pixel_size(image, unit)
    matrix = ellipse_in(image, unit)
    cell = np.array([[height, 0.0], [0.0, width]])
    return cell if matrix is None else matrix @ cell


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
