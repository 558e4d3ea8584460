"""Parts of the detector that have thresholds of their own: all of it, its modules, or halves of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array
    from stemstore_schemas import Detector

Division = Literal["global", "module", "half-row"]
DIVISIONS = ("global", "module", "half-row")


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the detector.

    Attributes
    ----------
    name
        That of the module; halves of rows add ``"/left"`` and ``"/right"``.
    rows, columns
        Half-open ranges.
    """

    name: str
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def n_pixels(self) -> int:
        """Number of its pixels."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])


def modules_of(detector: Detector, frame_shape: tuple[int, int]) -> list[Region]:
    """Give the modules that a detector tells of; the whole detector where it tells of none."""
    if not detector.sectors:
        return [Region("detector", (0, frame_shape[0]), (0, frame_shape[1]))]
    return [Region(sector.name, sector.rows, sector.columns) for sector in detector.sectors]


def regions_of(division: Division, detector: Detector, frame_shape: tuple[int, int]) -> list[Region]:
    """Divide the detector.

    Parameters
    ----------
    division
        ``"global"``, ``"module"`` (the sectors of the detector), or ``"half-row"`` (modules, each divided where the
        middle of the detector's columns lies).
    detector
        As the reader describes it.
    frame_shape
        Detector rows and columns.

    Raises
    ------
    InputError
        There is no such division, or the detector tells of no modules that cover it.
    """
    whole = Region("detector", (0, frame_shape[0]), (0, frame_shape[1]))
    if division == "global":
        return [whole]
    if division not in DIVISIONS:
        msg = f"threshold={division!r} is no way to divide a detector; choose one of {', '.join(DIVISIONS)}"
        raise InputError(msg, key="threshold", found=division)
    regions = modules_of(detector, frame_shape)
    if division == "module" and regions == [whole]:
        msg = "the source tells of no modules of its detector, so threshold='module' has no meaning; use 'global'"
        raise InputError(msg, key="threshold", found=division)
    if division == "half-row":
        regions = [half for region in regions for half in _halves(region, frame_shape[1] // 2)]
    covered = np.zeros(frame_shape, np.uint8)
    for region in regions:
        covered[slice(*region.rows), slice(*region.columns)] += 1
    if (covered != 1).any():
        msg = "the modules of the detector overlap or leave pixels out, so they can have no thresholds; use 'global'"
        raise InputError(msg, key="threshold", found=division)
    return regions


def _halves(region: Region, middle: int) -> list[Region]:
    first, end = region.columns
    if not first < middle < end:
        return [region]
    left, right = (first, middle), (middle, end)
    return [Region(f"{region.name}/left", region.rows, left), Region(f"{region.name}/right", region.rows, right)]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Regions as compiled loops take them.

    Attributes
    ----------
    bounds : shape (n_spans + 1,)
        Borders of the column spans.
    number : shape (rows, n_spans)
        Number of the region.
    """

    bounds: Int64Array
    number: Int64Array

    @classmethod
    def of(cls, regions: Sequence[Region], frame_shape: tuple[int, int]) -> Grid:
        """Make the grid of regions that cover the detector."""
        bounds = np.unique([edge for region in regions for edge in region.columns]).astype(np.int64)
        number = np.zeros((frame_shape[0], len(bounds) - 1), np.int64)
        for place, region in enumerate(regions):
            first, end = np.searchsorted(bounds, region.columns)
            number[slice(*region.rows), first:end] = place
        return cls(bounds, number)

    def spread(self, values: Sequence[float]) -> Array:
        """Give every row and span the value of its region, shape (rows, n_spans)."""
        return np.asarray(values, np.float64)[self.number]
