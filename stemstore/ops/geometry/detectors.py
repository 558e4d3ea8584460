"""Virtual detectors: disks, rings, sectors, rectangles, points, and arrays of weights.

Edges are half-open (inner <= r < outer), so that adjoining rings partition the detector exactly. Other edges and
area-weighted ones are options.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.plane import Centre, axes_in
from stemstore.ops.geometry.regions import CONVENTIONS, TURN, Antialias, Edge, Edges, edges_of
from stemstore.ops.geometry.shapes import Annulus, Detector, Point, Rectangle, Sector, Weights

__all__ = [
    "Centre",
    "Detector",
    "annulus",
    "as_detector",
    "axes_in",
    "disk",
    "point",
    "rectangle",
    "sector",
    "segments",
]


def disk(
    radius: float,
    *,
    center: Centre | None = None,
    unit: str | None = None,
    edge: Edge = "half-open",
    convention: str | None = None,
    antialias: Antialias = False,
) -> Annulus:
    """Describe a round virtual detector (bright field).

    Parameters
    ----------
    radius : unit of the detector axes unless `unit` is given
        Pixels with r < radius belong to the disk.
    center
        (ky, kx) in the same unit; by default the optic axis, which is 0 on calibrated axes and the middle of the
        frame, ``(n - 1) / 2``, on pixel axes.
    unit
        ``"pixel"``, ``"mrad"``, ``"1/angstrom"`` or ``"1/nm"``; default: the unit of the axes.
    edge
        ``"inclusive"``: pixels at exactly the radius belong to the disk, too. ``"half-open"`` and ``"exclusive"``
        leave them out.
    convention
        ``"py4dstem"``, ``"libertem"`` or ``"stempy"``: the edges of that package, pixel for pixel (LiberTEM takes
        r <= radius, the others r < radius).
    antialias
        Weight pixels by the share that the disk covers. True: ``clip(radius - r + 1/2, 0, 1)`` in pixels; measured
        against fine sampling a pixel is off by at most 0.06, the total by at most 2.1 % (radius 3), 0.8 % (5) and 0.2 %
        (10), depending on the centre. ``"exact"``: 8 x 8 samples of each pixel on the border, 0.6 %, 0.2 % and 0.06 %
        in the total. Images are then float64.

    Returns
    -------
    detector
        For `virtual_image` and as the mask of `center_of_mass` (without `antialias`).

    Raises
    ------
    InputError
        The radius is not positive and finite, an option is unknown, or options contradict each other.
    """
    edges = edges_of(edge, convention, antialias)
    return Annulus(*_radii(0.0, radius), center, unit, Edges(inner=True, outer=edges.outer), antialias)


def annulus(
    inner: float,
    outer: float,
    *,
    center: Centre | None = None,
    unit: str | None = None,
    edge: Edge = "half-open",
    convention: str | None = None,
    antialias: Antialias = False,
) -> Annulus:
    """Describe a ring-shaped virtual detector (annular dark field).

    Parameters
    ----------
    inner, outer : unit of the detector axes unless `unit` is given
        Pixels with inner <= r < outer belong to the ring.
    center, unit
        As in `disk`.
    edge
        ``"half-open"``, ``"inclusive"`` (both borders belong to the ring), ``"exclusive"`` (neither), or a pair for
        the inner and the outer border.
    convention
        ``"py4dstem"`` (inner < r < outer), ``"libertem"`` (inner < r <= outer) or ``"stempy"`` (inner <= r < outer).
    antialias
        As in `disk`; the ring is the outer disk less the inner one.

    Returns
    -------
    detector
        As in `disk`.

    Raises
    ------
    InputError
        The radii are not finite, negative, or inner >= outer; or as in `disk`.
    """
    return Annulus(*_radii(inner, outer), center, unit, edges_of(edge, convention, antialias), antialias)


def sector(
    inner: float,
    outer: float,
    start: float,
    stop: float,
    *,
    center: Centre | None = None,
    unit: str | None = None,
    edge: Edge = "half-open",
    antialias: Antialias = False,
) -> Sector:
    """Describe a part of a ring between two directions.

    Parameters
    ----------
    inner, outer : unit of the detector axes unless `unit` is given
        Radii as in `annulus`; an inner radius of 0 gives a piece of a disk.
    start, stop : deg
        Directions with start <= angle < stop belong to the sector. The angle is ``atan2(ky, kx)`` relative to the
        centre: 0 along +kx, 90 along +ky (down on a screen). Angles wrap: 350 to 10 is a sector of 20 degrees.
    center, unit
        As in `disk`.
    edge
        Of the radii, as in `annulus`; directions are always half-open.
    antialias
        As in `disk`. With True, shares of directions are sampled and multiplied by the formula of the ring.

    Returns
    -------
    detector
        As in `disk`.

    Raises
    ------
    InputError
        The radii or angles are impossible; or as in `disk`.
    """
    if not (math.isfinite(start) and math.isfinite(stop)) or not 0 < abs(stop - start) <= TURN:
        msg = (
            f"a sector needs two different directions at most 360 degrees apart, got start={start!r} and stop={stop!r}"
        )
        raise InputError(msg, start=start, stop=stop)
    edges = edges_of(edge, None, antialias)
    return Sector(*_radii(inner, outer), float(start), float(stop), center, unit, edges, antialias)


def segments(
    inner: float,
    outer: float,
    n: int = 4,
    *,
    rotation: float = 0.0,
    center: Centre | None = None,
    unit: str | None = None,
    edge: Edge = "half-open",
    antialias: Antialias = False,
) -> dict[str, Sector]:
    """Describe a segmented ring: `n` equal sectors that partition it (quadrants for DPC by default).

    Parameters
    ----------
    inner, outer : unit of the detector axes unless `unit` is given
        Radii as in `sector`.
    n
        Number of segments.
    rotation : deg
        Direction at which segment 0 begins; the others follow from +kx towards +ky.
    center, unit, edge, antialias
        As in `sector`.

    Returns
    -------
    detectors
        ``{"segment_0": …, …}``, to be given to `virtual_image` as it is. The segments' images add up to that of the
        ring, exactly without `antialias`.

    Raises
    ------
    InputError
        The number of segments is not a positive integer; or as in `sector`.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        msg = f"a ring is cut into a positive number of segments, got n={n!r}"
        raise InputError(msg, key="n", found=n)
    # the last border is the first one itself, so that rounding leaves no gap between the two
    borders = [rotation + i * TURN / n for i in range(n)] + [rotation + TURN if n == 1 else rotation]
    return {
        f"segment_{i}": sector(
            inner, outer, borders[i], borders[i + 1], center=center, unit=unit, edge=edge, antialias=antialias
        )
        for i in range(n)
    }


def rectangle(
    ky: tuple[float, float],
    kx: tuple[float, float],
    *,
    unit: str | None = None,
    edge: Edge = "half-open",
    convention: str | None = None,
    antialias: Antialias = False,
) -> Rectangle:
    """Describe a rectangular virtual detector.

    Parameters
    ----------
    ky, kx : unit of the detector axes unless `unit` is given
        Half-open ranges (first, last) along rows and columns.
    unit
        As in `disk`.
    edge
        Of the ranges, as in `annulus`: for both borders, or a pair (first, last).
    convention
        ``"py4dstem"``: the borders are rounded to whole pixels first, half to even.
    antialias
        Weight pixels by the share that the rectangle covers; exact.

    Returns
    -------
    detector
        As in `disk`.

    Raises
    ------
    InputError
        A range is empty or not finite; or as in `disk`.
    """
    for name, (first, last) in (("ky", ky), ("kx", kx)):
        if not (math.isfinite(first) and math.isfinite(last)) or first >= last:
            msg = f"a rectangle needs first < last along {name}, got {(first, last)}"
            raise InputError(msg, key=name, found=(first, last))
    edges = edges_of(edge, convention, antialias)
    ranges = (float(ky[0]), float(ky[1])), (float(kx[0]), float(kx[1]))
    if convention is not None:
        _only_py4dstem("rectangle", convention)
        return Rectangle(*ranges, unit, rounded=True)
    return Rectangle(*ranges, unit, edges, antialias)


def point(ky: float, kx: float, *, unit: str | None = None, convention: str | None = None) -> Point:
    """Describe a virtual detector of one pixel.

    Parameters
    ----------
    ky, kx : unit of the detector axes unless `unit` is given
        The pixel nearest to this place counts, the even one halfway between two; one outside the detector is refused
        when it is used.
    unit
        As in `disk`.
    convention
        ``"py4dstem"``: fractions of a pixel are cut off instead.

    Returns
    -------
    detector
        As in `disk`.

    Raises
    ------
    InputError
        The place is not finite, or the convention has no points of its own.
    """
    if not (math.isfinite(ky) and math.isfinite(kx)):
        msg = f"a point needs finite ky and kx, got {(ky, kx)}"
        raise InputError(msg, found=(ky, kx))
    if convention is not None:
        edges_of("half-open", convention, antialias=False)
        _only_py4dstem("point", convention)
    return Point(float(ky), float(kx), unit, convention is not None)


def as_detector(given: Any) -> Detector:
    """Take a detector, or an array of weights on the visible detector."""
    if isinstance(given, Detector):
        return given
    values = np.asarray(getattr(given, "values", given))
    if values.dtype.kind not in "biufc":
        msg = (
            "a detector is disk(…), annulus(…), sector(…), rectangle(…), point(…) or an array of weights, "
            f"not {type(given)}"
        )
        raise InputError(msg, found=str(type(given)))
    return Weights(values)


def _radii(inner: float, outer: float) -> tuple[float, float]:
    if not (math.isfinite(inner) and math.isfinite(outer)) or inner < 0 or inner >= outer:
        msg = f"a detector needs 0 <= inner < outer, got inner={inner!r} and outer={outer!r}"
        raise InputError(msg, inner=inner, outer=outer)
    return float(inner), float(outer)


def _only_py4dstem(shape: str, convention: str) -> None:
    if convention != "py4dstem":
        others = ", ".join(sorted(CONVENTIONS))
        msg = f"{convention!r} has no {shape} of its own; leave out convention=… ({others} differ for disks and rings)"
        raise InputError(msg, key="convention", found=convention)
