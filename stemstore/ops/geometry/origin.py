"""Where the optic axis is at each position of a scan (descan), and the plane on which moved detectors are laid out.

Detectors move by whole pixels: the distance of each position's origin from the optic axis of the scan, rounded half to
even. One plane of weights, larger than the detector by the range of these moves, serves all positions: the weight of
pixel p at a position that is moved by s is that of pixel p - s where nothing is moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.plane import DIMS
from stemstore.ops.geometry.shapes import Detector, Weights
from stemstore.scan.coordinates import axis_in, pixel_axis, pixel_step
from stemstore.scan.origins import displacements, own_origin, require_finite

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray, Int64Array

FARTHEST = 4  # detectors that an origin may lie away; further ones are mistakes and would need huge tables


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """How far detectors move at each position, and the plane on which they are laid out.

    Attributes
    ----------
    shift : shape (…scan, 2)
        Whole stored pixels along ky and kx.
    plane
        Stand-in for the scan whose detector axes reach as far as the moves do; only its labels are used.
    rows, columns
        Row and column of `plane` that each visible row and column of the detector is, where nothing is moved.
    """

    shift: Int64Array
    plane: xr.DataArray
    rows: Int64Array
    columns: Int64Array

    @classmethod
    def chosen(cls, image: xr.DataArray, origin: Any) -> Movement | None:
        """Follow the given origin, that of the scan itself where none is given, or none (False, or there is none)."""
        origin = chosen_origin(image, origin)
        return None if origin is None else cls.of(image, origin)

    @classmethod
    def of(cls, image: xr.DataArray, origin: Any) -> Movement:
        """Read the origin of every position and lay out the plane."""
        if 0 in image.shape[-2:]:
            msg = f"the selection has a detector of {image.shape[-2:]} pixels; select some"
            raise InputError(msg, found=image.shape)
        shift = np.stack(
            [_shift(image, name, part) for name, part in zip(DIMS, displacements(image, origin), strict=True)], axis=-1
        )
        axes: dict[str, Any] = {}
        places = []
        for number, name in enumerate(DIMS):
            pixels = np.rint(pixel_axis(image, name)).astype(np.int64)
            moves = shift[..., number].reshape(-1)
            first, last = pixels.min() - moves.max(initial=0), pixels.max() - moves.min(initial=0)
            places.append(pixels - first)
            axes |= _wider(image, name, np.arange(first, last + 1), pixels)
        return cls(shift, _stand_in(image, axes), *places)

    def weights(self, shape: Detector) -> Array:
        """Weights of a detector on the plane."""
        if not isinstance(shape, Weights):
            return shape.weights(self.plane)
        for name, places in zip(DIMS, (self.rows, self.columns), strict=True):
            if len(places) > 1 and not (np.abs(np.diff(places)) == 1).all():
                msg = f"weights per pixel cannot be moved on a detector with gaps along {name}; select unbroken axes"
                raise InputError(msg, key=name)
        table = np.zeros(self.plane.shape, shape.values.dtype)
        table[self.rows[:, None], self.columns] = shape.values
        return table

    def describe(self) -> str:
        """One line for the history of results: the range of moves in pixels."""
        flat = self.shift.reshape(-1, 2)
        spans = [f"{name} {flat[:, i].min(initial=0)} … {flat[:, i].max(initial=0)}" for i, name in enumerate(DIMS)]
        return f"moved by {', '.join(spans)} pixels"


def chosen_origin(image: xr.DataArray, origin: Any) -> Any:
    """Give what an operation follows: what it was given, else what the scan carries; None for nothing.

    Parameters
    ----------
    image
        The scan.
    origin
        As the argument of an operation: None for the scan's own origin, False for none at all.
    """
    if origin is None:
        return own_origin(image)
    return None if origin is False else origin


def _shift(image: xr.DataArray, name: str, pixels: FloatArray) -> Int64Array:
    """Whole pixels that the origin of each position lies away from the optic axis."""
    pixels = np.where(require_finite(pixels, image, name), pixels, 0.0)
    limit = FARTHEST * max(image.sizes[name], int(_stored_size(image, name)))
    if np.abs(pixels).max(initial=0.0) > limit:
        far = float(pixels.flat[int(np.argmax(np.abs(pixels)))])
        msg = f"an origin lies {far:.6g} pixels from the optic axis along {name}, more than {limit}; check its unit"
        raise InputError(msg, key="origin", found=far, expected=limit)
    return np.rint(pixels).astype(np.int64)


def _stored_size(image: xr.DataArray, name: str) -> int:
    coordinate = image.coords.get(name)
    return int(image.sizes[name] if coordinate is None else coordinate.attrs.get("stored_size", image.sizes[name]))


def _wider(image: xr.DataArray, name: str, pixels: Int64Array, visible: Int64Array) -> dict[str, Any]:
    """Coordinates of an axis that goes on at both ends; visible pixels keep theirs to the last bit."""
    own = axis_in(image, name, None)
    values = own[0] + (pixels - visible[0]) * pixel_step(image, name, None)
    values[visible - pixels[0]] = own
    attrs = {} if image.coords.get(name) is None else image.coords[name].attrs
    attrs = {**attrs, "stored_size": _stored_size(image, name)}
    return {name: (name, values, attrs), f"{name}_pixel": (name, pixels)}


def _stand_in(image: xr.DataArray, axes: dict[str, Any]) -> xr.DataArray:
    import xarray as xr

    shape = tuple(len(axes[name][1]) for name in DIMS)
    return xr.DataArray(np.broadcast_to(np.uint8(0), shape), dims=DIMS, coords=axes, attrs=image.attrs)
