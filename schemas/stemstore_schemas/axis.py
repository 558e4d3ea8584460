"""Axes of a scan: their names, sizes and coordinates."""

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stemstore_schemas.record import Finite, Integer, Record, ValueSource
from stemstore_schemas.units import Unit

DIMS = ("y", "x", "ky", "kx")
"""Axes of a scan in array order: slow scan, fast scan, detector row, detector column; y and ky grow downwards."""

FRAME_DIM = "frame"
"""Leading axis of repeated frames at one position, or the only scan axis of a stack whose scan shape is unknown."""

SCAN_DIMS, DETECTOR_DIMS = DIMS[:2], DIMS[2:]


class Axis(Record):
    """An evenly spaced axis: ``coordinate = origin + step * index``."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="Name of the axis: y, x, ky, kx, frame, time, tilt."
    )
    size: Integer = Field(gt=0, description="Number of indices.")
    unit: Unit = Field(default="pixel", description="Unit of step and origin.")
    step: Finite = Field(default=1.0, description="Distance from one index to the next, in `unit`; never zero.")
    origin: Finite = Field(default=0.0, description="Coordinate of index 0, in `unit`.")
    source: ValueSource | None = Field(
        default=None, description="Where the calibration comes from; null for a plain pixel index."
    )

    @model_validator(mode="after")
    def _check(self) -> "Axis":
        if self.step == 0:
            msg = f"axis {self.name!r} has step 0, expected a finite step that is not zero; leave step out if unknown"
            raise ValueError(msg)
        if not math.isfinite(self.origin + self.step * (self.size - 1)):
            msg = f"axis {self.name!r} ends beyond the largest number; step {self.step!r} cannot be right"
            raise ValueError(msg)
        if self.source is None and self.unit != "pixel":
            msg = f"axis {self.name!r} is in {self.unit!r} but does not say where that comes from; give its source"
            raise ValueError(msg)
        return self

    def coordinates(self) -> NDArray[np.float64]:
        """Coordinates of all indices, shape (size,), in `unit`."""
        return self.origin + self.step * np.arange(self.size, dtype=np.float64)


def check_axes(axes: list[Axis]) -> list[Axis]:
    """Check that axes describe an array of scan and detector axes in the order of this format.

    Raises
    ------
    ValueError
        A name occurs twice, the detector axes are not last, there is no scan axis, or y and x are apart.
    """
    names = tuple(axis.name for axis in axes)
    scan = names[:-2]
    scanned = set(scan) & set(SCAN_DIMS)
    ordered = not scanned or scan[-2:] == SCAN_DIMS
    if len(set(names)) != len(names) or names[-2:] != DETECTOR_DIMS or not scan or not ordered:
        msg = (
            f"axes are {names}, expected each name once, scan axes first with 'y', 'x' as the last of them, "
            "then 'ky', 'kx'; reorder or rename the axes"
        )
        raise ValueError(msg)
    return axes
