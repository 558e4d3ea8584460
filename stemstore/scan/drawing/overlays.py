"""What detectors count on one pattern, and where its optic axis is: the same as in operations on the scan it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.coordinates import axis_in, from_pixel, optic_axis, pixel_axis, to_pixel
from stemstore.scan.origins import DETECTOR, displacements, own_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray, Int64Array


def regions(pattern: xr.DataArray, detectors: Any) -> Iterator[tuple[str, BoolArray]]:
    """Name every detector and mark the pixels that it counts.

    Detectors move with the origin that a pattern carries, by whole pixels, as in operations.

    Parameters
    ----------
    pattern : dims (ky, kx)
        Of one position, or of the scan.
    detectors
        One detector, weights of shape (ky, kx), a dict of them, or None.

    Raises
    ------
    InputError
        A detector does not fit the pattern.
    """
    given = {} if detectors is None else detectors if isinstance(detectors, dict) else {None: detectors}
    shift = [int(np.rint(away)) for away in moved(pattern)]  # half to even, as in operations
    for name, detector in given.items():
        known = hasattr(detector, "weights")
        if known:
            weights = detector.weights(_relabelled(pattern, shift))
        else:
            weights = np.asarray(getattr(detector, "values", detector))
        if weights.shape != pattern.shape or weights.dtype.kind not in "biufc":
            msg = (
                f"a detector has {weights.dtype} weights of shape {weights.shape}, the pattern is {pattern.shape} "
                "(ky, kx); give disk(…), annulus(…) …, numbers of that shape, or a dict of them"
            )
            raise InputError(msg, key="detectors", expected=pattern.shape, found=weights.shape)
        label = str(name or (detector.describe() if known else "detector"))
        yield label, weights != 0 if known else _shifted(weights != 0, pattern, shift)


def moved(pattern: xr.DataArray) -> tuple[float, float]:
    """How far the optic axis of a pattern lies from where that of the scan rests, in stored pixels along ky and kx."""
    origin = own_origin(pattern)
    if origin is None or any(place.ndim for place in origin) or set(pattern.dims) != set(DETECTOR):
        return 0.0, 0.0
    ky, kx = (float(away) for away in displacements(pattern, origin))
    return ky, kx


def centre(pattern: xr.DataArray, dims: tuple[str, str]) -> tuple[float, float]:
    """Give the place of the optic axis on the axes of a pattern."""
    rest = [optic_axis(pattern, dim, None) for dim in dims]
    away = moved(pattern)
    if not any(away):
        return rest[0], rest[1]
    row, column = (
        float(from_pixel(pattern, dim, None, to_pixel(pattern, dim, None, at) + far))
        for dim, at, far in zip(dims, rest, away, strict=True)
    )
    return row, column


def _relabelled(pattern: xr.DataArray, shift: list[int]) -> xr.DataArray:
    """Give a pattern whose pixels are labelled with what they are relative to its own optic axis."""
    axes: dict[str, Any] = {}
    for dim, far in zip(DETECTOR, shift, strict=True):
        if far:
            pixels = pixel_axis(pattern, dim)
            attrs = pattern.coords[dim].attrs if dim in pattern.coords else {"stored_size": pattern.sizes[dim]}
            axes[dim] = (dim, _values_at(pattern, dim, pixels - far), attrs)
            axes[f"{dim}_pixel"] = (dim, pixels - far)
    return pattern.assign_coords(axes)


def _values_at(pattern: xr.DataArray, dim: str, pixels: FloatArray) -> FloatArray:
    """Coordinates of stored pixels; of visible ones to the last bit, so that no border falls differently."""
    own = dict(zip(pixel_axis(pattern, dim).tolist(), axis_in(pattern, dim, None).tolist(), strict=True))
    beyond = np.asarray(from_pixel(pattern, dim, None, pixels))
    return np.array([own.get(pixel, value) for pixel, value in zip(pixels.tolist(), beyond.tolist(), strict=True)])


def _shifted(inside: Array, pattern: xr.DataArray, shift: list[int]) -> BoolArray:
    """Move a region of pixels; what comes from beyond the visible detector is outside."""
    places: list[Int64Array] = []
    for dim, far in zip(DETECTOR, shift, strict=True):
        pixels = pixel_axis(pattern, dim).tolist()
        number = {pixel: i for i, pixel in enumerate(pixels)}
        places.append(np.array([number.get(pixel - far, -1) for pixel in pixels], np.int64))
    padded = np.pad(inside, ((0, 1), (0, 1)))  # what is not found is the row and column added last
    return np.asarray(padded[places[0][:, None], places[1]])
