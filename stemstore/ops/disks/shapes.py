"""Virtual detectors applied to disks: a disk is a point, wherever it lies between the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.disks.plane import from_axis, visible
from stemstore.ops.geometry import regions
from stemstore.ops.geometry.plane import DIMS, ellipse_in
from stemstore.ops.geometry.shapes import Annulus, Rectangle, Sector
from stemstore.scan.coordinates import from_pixel, optic_axis, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.ops.disks.table import DiskTable
    from stemstore.ops.geometry.shapes import Detector


def weights_at(detector: Detector, image: xr.DataArray, table: DiskTable, origin: Any) -> Array:
    """Give the weight of a detector at every disk.

    Parameters
    ----------
    detector
        Disks, rings, sectors and rectangles are compared with the exact place of a disk; of points and arrays the pixel
        counts in which it lies.
    image
        From `scan_of`.
    table
        The disks.
    origin
        Where the optic axis is at each position; the detector moves with it. See
        `stemstore.ops.disks.plane.moves`.

    Returns
    -------
    weights : shape (disks,)
        Boolean for a plain region; 0 for disks that lie outside of an array.

    Raises
    ------
    InputError
        The detector is area-weighted or complex, or does not fit; or the origin does not.
    """
    places = tuple(
        offset + to_pixel(image, name, None, optic_axis(image, name, None))
        for name, offset in zip(DIMS, from_axis(image, table, origin), strict=True)
    )
    if not isinstance(detector, (Annulus, Rectangle, Sector)):
        return _in_pixels(detector, image, places)
    if detector.antialias:
        msg = f"{detector.describe()} weights pixels, but a disk is a point; leave out antialias"
        raise InputError(msg, key="antialias", found=detector.describe())
    if isinstance(detector, Rectangle):
        return _in_rectangle(detector, image, places)
    ky, kx = _from_centre(detector, image, places)
    inside = regions.in_ring(ky, kx, (detector.inner, detector.outer), detector.edges)
    if isinstance(detector, Sector):
        inside &= regions.in_angles(ky, kx, detector.start, detector.stop)
    return inside


def _from_centre(
    detector: Annulus | Sector, image: xr.DataArray, places: tuple[FloatArray, ...]
) -> tuple[FloatArray, FloatArray]:
    """Distance of stored pixels from the centre of a shape in its unit, the ellipse taken away."""
    unit = detector.unit
    found = []
    for number, name in enumerate(DIMS):
        middle = optic_axis(image, name, unit) if detector.center is None else detector.center[number]
        found.append(np.asarray(from_pixel(image, name, unit, places[number]) - middle))
    matrix = ellipse_in(image, unit)
    if matrix is None:
        return found[0], found[1]
    (p, q), (r, s) = matrix
    return p * found[0] + q * found[1], r * found[0] + s * found[1]


def _in_rectangle(detector: Rectangle, image: xr.DataArray, places: tuple[FloatArray, ...]) -> BoolArray:
    inside = np.ones(places[0].shape, bool)
    for name, borders, own in zip(DIMS, (detector.ky, detector.kx), places, strict=True):
        first, last = borders
        values = from_pixel(image, name, detector.unit, own)
        if detector.rounded:
            first, last = (float(np.rint(to_pixel(image, name, detector.unit, border))) for border in borders)
            values = own
        inside &= regions.between(values, first, last, detector.edges)
    return inside


def _in_pixels(detector: Detector, image: xr.DataArray, places: tuple[FloatArray, ...]) -> Array:
    """Weight of the pixel in which each place lies."""
    table = detector.weights(image)
    if table.dtype.kind == "c":
        msg = f"{detector.describe()} is complex; give real weights for disks"
        raise InputError(msg, key="weights", found=str(table.dtype))
    row, column = (np.rint(visible(image, name, own)).astype(np.int64) for name, own in zip(DIMS, places, strict=True))
    there = (row >= 0) & (row < table.shape[0]) & (column >= 0) & (column < table.shape[1])
    found = np.zeros(row.shape, table.dtype)
    found[there] = table[row[there], column[there]]
    return found
