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
from stemstore.ops.labels import recorded, scan_dims
from stemstore.ops.plane import DIMS, axis_in, optic_axis_in, pixel_axis, pixel_step, to_pixel
from stemstore.ops.shapes import Detector, Weights

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray, Int64Array

FARTHEST = 4  # detectors that an origin may lie away; further ones are mistakes and would need huge tables
COM = ("com_y", "com_x")


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
    def of(cls, image: xr.DataArray, origin: Any) -> Movement:
        """Read the origin of every position and lay out the plane."""
        if 0 in image.shape[-2:]:
            msg = f"the selection has a detector of {image.shape[-2:]} pixels; select some"
            raise InputError(msg, found=image.shape)
        shift = np.stack([_shift(image, name, part) for name, part in zip(DIMS, _maps(origin), strict=True)], axis=-1)
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


def _maps(origin: Any) -> tuple[tuple[Any, bool], tuple[Any, bool]]:
    """Give the maps along ky and kx, and whether they count from the optic axis."""
    import xarray as xr

    if isinstance(origin, xr.Dataset):
        missing = [name for name in COM if name not in origin]
        if missing:
            msg = (
                f"the dataset of origins lacks {missing}; give one with com_y and com_x (from center_of_mass or a fit "
                "to it), or a pair of maps (ky, kx)"
            )
            raise InputError(msg, key="origin", found=list(origin.data_vars))
        return (origin[COM[0]], True), (origin[COM[1]], True)
    if not isinstance(origin, (tuple, list)) or len(origin) != len(DIMS):
        msg = f"an origin is a pair of maps (ky, kx) or a Dataset with com_y and com_x, not {type(origin).__name__}"
        raise InputError(msg, key="origin", found=type(origin).__name__)
    return (origin[0], False), (origin[1], False)


def _shift(image: xr.DataArray, name: str, given: tuple[Any, bool]) -> Int64Array:
    """Whole pixels that the origin of each position lies away from the optic axis."""
    values, relative = given
    unit = values.attrs.get("units") if hasattr(values, "attrs") else None
    moved = _values(values, image, name)
    if relative:
        pixels = moved / pixel_step(image, name, unit)
    else:
        pixels = to_pixel(image, name, unit, moved) - to_pixel(image, name, unit, optic_axis_in(image, name, unit))
    known = recorded(image)
    needed = np.ones(pixels.shape, bool) if known is None else known
    wrong = needed & ~np.isfinite(pixels)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        msg = f"the origin along {name} is not finite at {int(wrong.sum())} positions, first at {first}; fit it first"
        raise InputError(msg, key="origin", position=first)
    pixels = np.where(needed, pixels, 0.0)
    limit = FARTHEST * max(image.sizes[name], int(_stored_size(image, name)))
    if np.abs(pixels).max(initial=0.0) > limit:
        far = float(pixels.flat[int(np.argmax(np.abs(pixels)))])
        msg = f"an origin lies {far:.6g} pixels from the optic axis along {name}, more than {limit}; check its unit"
        raise InputError(msg, key="origin", found=far, expected=limit)
    return np.rint(pixels).astype(np.int64)


def _values(values: Any, image: xr.DataArray, name: str) -> FloatArray:
    import xarray as xr

    scan = scan_dims(image)
    if isinstance(values, xr.DataArray) and set(values.dims) == set(scan):
        values = values.transpose(*scan)
    array = np.asarray(getattr(values, "values", values), dtype=np.float64)
    if array.shape != image.shape[:-2]:
        msg = (
            f"the origin along {name} has shape {array.shape}, but the scan is {image.shape[:-2]}; give a value for "
            "each position, and select the same positions from both"
        )
        raise InputError(msg, key="origin", found=array.shape, expected=image.shape[:-2])
    return array


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
