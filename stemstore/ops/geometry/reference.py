"""What a centre of mass counts from, and which pixels it looks at, where the optic axis may move with the scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.geometry.origin import Movement, chosen_origin
from stemstore.ops.geometry.plane import DIMS
from stemstore.ops.geometry.shapes import Weights
from stemstore.scan.coordinates import optic_axis, pixel_step
from stemstore.scan.origins import displacements, require_finite

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.ops.geometry.plane import Centre


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The zero of a centre of mass, and its mask.

    Attributes
    ----------
    mask
        Pixels that count, visible ones, or those of the plane of `movement`; None for all.
    center
        Place on the detector axes that is zero at rest.
    drift
        How far zero lies from there at each position, along ky and kx; None where it is at rest.
    movement
        How the mask moves; None where it is at rest.
    origin
        What is followed, as it was given; None for nothing.
    """

    mask: BoolArray | None
    center: Centre
    drift: tuple[FloatArray, FloatArray] | None = None
    movement: Movement | None = None
    origin: Any = None

    @classmethod
    def of(cls, image: xr.DataArray, mask: Any, center: Centre | None, unit: str | None, origin: Any) -> Reference:
        """Take the arguments of `center_of_mass`.

        Raises
        ------
        InputError
            Centre and origin are given at once, or the mask or the origin does not fit.
        """
        if center is not None and origin is not None and origin is not False:
            msg = "both center and origin are given; a centre of mass counts from one of them, so leave one out"
            raise InputError(msg, key="origin")
        shape = None if mask is None else as_detector(mask)
        rest = (optic_axis(image, "ky", unit), optic_axis(image, "kx", unit)) if center is None else center
        followed = None if center is not None else chosen_origin(image, origin)
        if followed is None:
            return cls(None if shape is None else _boolean(shape.weights(image)), rest)
        away = displacements(image, followed)
        for name, pixels in zip(DIMS, away, strict=True):
            require_finite(pixels, image, name)
        region, movement = None, None
        if isinstance(shape, Weights):  # flags of pixels stay with the pixels
            region = _boolean(shape.weights(image))
        elif shape is not None:
            movement = Movement.of(image, followed)
            region = _boolean(movement.weights(shape))
        steps = [pixel_step(image, name, unit) for name in DIMS]
        return cls(region, rest, (away[0] * steps[0], away[1] * steps[1]), movement, followed)


def _boolean(weights: Array) -> BoolArray:
    if weights.dtype != bool:
        msg = f"the mask of a centre of mass is boolean, got weights of type {weights.dtype}; compare them with 0 first"
        raise InputError(msg, found=str(weights.dtype))
    return np.asarray(weights, bool)
