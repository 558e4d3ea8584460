"""Geometry of virtual detectors on plain arrays: which pixels lie in a region, or how much of each does.

Radii are compared as squares, so that whole and half pixels are exact: a pixel at exactly the radius is on the border.
Rows (`ky`) and columns (`kx`) are distances from the centre; they broadcast to the shape of the detector. The `cell` of
a pixel is the matrix whose columns are its edges, one row down and one column on: an ellipse makes pixels askew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array, BoolArray, FloatArray

Side = Literal["half-open", "inclusive", "exclusive"]
Edge = Side | tuple[Side, Side]
Antialias = bool | Literal["exact"]
SAMPLES = 8  # per pixel and direction, on border pixels of an exact area
TURN = 360.0


@dataclass(frozen=True, slots=True)
class Edges:
    """Whether the inner and the outer border themselves belong to a region."""

    inner: bool = True
    outer: bool = False

    @property
    def text(self) -> str:
        """How a description names them; empty for half-open."""
        if self == Edges():
            return ""
        names = ["inclusive" if side else "exclusive" for side in (self.inner, self.outer)]
        return f", edge={names[0]!r}" if names[0] == names[1] else f", edge={tuple(names)}"


CONVENTIONS = {
    "py4dstem": Edges(inner=False, outer=False),
    "libertem": Edges(inner=False, outer=True),
    "stempy": Edges(inner=True, outer=False),
}
"""Borders of rings elsewhere; their disks have the same outer border."""


def edges_of(edge: Any, convention: str | None, antialias: Antialias) -> Edges:
    """Turn the arguments of a shape into what is done with its borders.

    Raises
    ------
    InputError
        An unknown name, or arguments that contradict each other.
    """
    if antialias not in (True, False, "exact"):
        msg = f"antialias={antialias!r} is not known; use True (formula), 'exact' (oversampled borders) or False"
        raise InputError(msg, key="antialias", found=antialias)
    if convention is not None and (edge != "half-open" or antialias):
        msg = "a convention decides about the edges itself; leave out edge=… and antialias=…"
        raise InputError(msg, key="convention", found=convention)
    if convention is not None:
        if convention not in CONVENTIONS:
            msg = f"convention {convention!r} is not known; use one of {', '.join(CONVENTIONS)}"
            raise InputError(msg, key="convention", found=convention, expected=tuple(CONVENTIONS))
        return CONVENTIONS[convention]
    sides = (edge, edge) if isinstance(edge, str) else tuple(edge)
    if len(sides) != 2 or any(side not in ("half-open", "inclusive", "exclusive") for side in sides):  # noqa: PLR2004 (inner, outer)
        msg = f"edge={edge!r} is not known; use 'half-open', 'inclusive', 'exclusive', or a pair (inner, outer) of them"
        raise InputError(msg, key="edge", found=edge)
    if antialias and edge != "half-open":
        msg = "an area-weighted detector has no edge convention; leave out edge=… or antialias=…"
        raise InputError(msg, key="edge", found=edge)
    default = Edges()
    return Edges(
        default.inner if sides[0] == "half-open" else sides[0] == "inclusive",
        default.outer if sides[1] == "half-open" else sides[1] == "inclusive",
    )


def between(values: Array, first: float, last: float, edges: Edges) -> BoolArray:
    """Tell which values lie between two borders."""
    above = values >= first if edges.inner else values > first
    return above & (values <= last if edges.outer else values < last)


def in_ring(ky: Array, kx: Array, radii: tuple[float, float], edges: Edges) -> BoolArray:
    """Tell which places lie in a ring; ky and kx broadcast."""
    return between(ky**2 + kx**2, radii[0] ** 2, radii[1] ** 2, edges)


def in_angles(ky: Array, kx: Array, start: float, stop: float) -> BoolArray:
    """Tell which directions lie in [start, stop) degrees, measured from +kx towards +ky.

    Both borders are brought into one turn before they are compared, so that sectors which share a border share no place
    and leave none out. The centre has the angle 0.
    """
    if abs(stop - start) >= TURN:
        return np.ones(np.broadcast_shapes(np.shape(ky), np.shape(kx)), bool)
    angle = one_turn(np.degrees(np.arctan2(ky, kx)))
    first, last = (float(one_turn(np.float64(border))) for border in (start, stop))
    if first < last:
        return (angle >= first) & (angle < last)
    return (angle >= first) | (angle < last)


def one_turn(angle: Any) -> Any:
    """Bring angles into [0, 360)."""
    turned = np.mod(angle, TURN)
    return np.where(turned == TURN, 0.0, turned)  # a tiny negative angle rounds up to a whole turn


def disk_cover(ky: FloatArray, kx: FloatArray, radius: float, cell: FloatArray) -> FloatArray:
    """Share of every pixel that a disk covers, by the distance of its centre from the border.

    In pixels the weight is ``clip(radius - r + 1/2, 0, 1)``. Where pixels are not square the distance is taken in
    extents of a pixel along the radius.
    """
    r = np.hypot(ky, kx)
    (p, q), (u, v) = cell
    if (p, q) == (v, 0.0) and u == 0:
        extent: Any = p
    else:
        along = np.hypot(ky * p + kx * u, ky * q + kx * v)
        middle = float(np.sqrt(abs(p * v - q * u)))
        extent = np.divide(along, r, out=np.full(r.shape, middle), where=r > 0)
    return np.clip((radius - r) / extent + 0.5, 0.0, 1.0)


def ring_cover(ky: FloatArray, kx: FloatArray, radii: tuple[float, float], cell: FloatArray) -> FloatArray:
    """Share of every pixel that a ring covers: the outer disk less the inner one."""
    outer = disk_cover(ky, kx, radii[1], cell)
    return outer if radii[0] == 0 else outer - disk_cover(ky, kx, radii[0], cell)


def range_cover(axis: FloatArray, first: float, last: float, size: float) -> FloatArray:
    """Share of every pixel of one axis that a range covers; exact."""
    overlap = np.minimum(axis + size / 2, last) - np.maximum(axis - size / 2, first)
    return np.clip(overlap / size, 0.0, 1.0)


def sampled_cover(
    inside: Callable[[Array, Array], BoolArray],
    border: BoolArray,
    places: tuple[FloatArray, FloatArray],
    cell: FloatArray,
) -> FloatArray:
    """Share of every pixel that lies inside, from 8 x 8 places on border pixels and the centre on others.

    Parameters
    ----------
    inside
        Tells which places (ky, kx, broadcast) belong to the region.
    border : shape (rows, columns)
        Pixels that the border may cut.
    places
        Of the pixels relative to the centre, as of `stemstore.ops.geometry.plane.offsets`.
    cell : shape (2, 2)
        Edges of a pixel in its columns: one row down, one column on.
    """
    cover = inside(*places).astype(np.float64)
    ky, kx = (part[border][:, None, None] for part in np.broadcast_arrays(*places))
    across = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    down = across[:, None]
    cover[border] = inside(
        ky + (down * cell[0, 0] + across * cell[0, 1]), kx + (down * cell[1, 0] + across * cell[1, 1])
    ).mean(axis=(1, 2))
    return cover


def near_circles(ky: FloatArray, kx: FloatArray, radii: tuple[float, float], cell: FloatArray) -> BoolArray:
    """Tell which pixels one of two circles may cut."""
    r, reach = np.hypot(ky, kx), _reach(cell)
    return (np.abs(r - radii[0]) <= reach) | (np.abs(r - radii[1]) <= reach)


def near_rays(ky: FloatArray, kx: FloatArray, angles: tuple[float, float], cell: FloatArray) -> BoolArray:
    """Tell which pixels one of two rays from the centre may cut."""
    reach = _reach(cell)
    found = np.zeros(np.broadcast_shapes(ky.shape, kx.shape), bool)
    for angle in np.radians(angles):
        sine, cosine = np.sin(angle), np.cos(angle)
        beside = np.abs(ky * cosine - kx * sine) <= reach
        found |= beside & (ky * sine + kx * cosine >= -reach)
    return found


def _reach(cell: FloatArray) -> float:
    """Distance of the farthest corner of a pixel from its centre."""
    return float(max(np.hypot(*(cell[:, 0] + cell[:, 1])), np.hypot(*(cell[:, 0] - cell[:, 1]))) / 2)
