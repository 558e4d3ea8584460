"""Rings around a place on the diffraction plane, and the ring that every visible detector pixel belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.group_moments import GroupMoments
from stemstore.ops.corrections import PixelCorrections, corrected, corrections_of, corrections_text
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.geometry.moved import MovedKernel, by_move
from stemstore.ops.geometry.origin import Movement
from stemstore.ops.geometry.plane import Centre, ellipse_text, offsets, pixel_size, span
from stemstore.ops.geometry.shapes import Weights
from stemstore.ops.labels import labelled, scan_dims, without_missing
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray, Int64Array
    from stemstore.kernels.corrections import Corrections

NOISE = 1e-9  # share of a pixel by which rounding may move the farthest pixel


class RingOptions(PixelCorrections, total=False):
    """Arguments that describe rings; see `stemstore.radial_profile`."""

    bins: int | None
    edges: Any
    center: Centre | None
    unit: str | None
    mask: Any
    origin: Any


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """Half-open rings around a centre, and the ring of every pixel (-1: in none).

    Attributes
    ----------
    edges
        Radii between the rings, in `unit`.
    labels
        Ring of every pixel of `grid`.
    unit, text
        Unit, and what the history says.
    grid
        The scan, or the plane of `movement`.
    movement
        How the rings move with the position; None where they are at rest.
    still
        With a movement: visible pixels that take part, wherever the rings are; None for all.
    corrections
        Of the pixels, before they are summed.
    """

    edges: FloatArray
    labels: Int64Array
    unit: str
    text: dict[str, Any]
    grid: xr.DataArray
    movement: Movement | None = None
    still: BoolArray | None = None
    corrections: Corrections | None = None

    @classmethod
    def of(
        cls,
        image: xr.DataArray,
        *,
        bins: int | None = None,
        edges: Any = None,
        center: Centre | None = None,
        unit: str | None = None,
        mask: Any = None,
        origin: Any = None,
        **corrections: Unpack[PixelCorrections],
    ) -> Rings:
        """Sort the pixels into `bins` rings that hold them all, into those between `edges`, or into narrow ones."""
        movement = _movement(image, center, origin)
        grid = image if movement is None else movement.plane
        ky, kx = offsets(grid, center, unit)
        distance = ky**2 + kx**2
        own = image.coords["ky"].attrs.get("units", "pixel") if "ky" in image.coords else "pixel"
        farthest = float(np.sqrt(_farthest(distance, movement)))
        found = _even(bins, farthest, max(pixel_size(image, unit))) if edges is None else _given(edges, bins)
        # squares are compared, as virtual detectors do: a ring here and an annulus there hold the same pixels
        labels = np.searchsorted(np.array([float(edge) ** 2 for edge in found]), distance, side="right") - 1
        labels[labels == len(found) - 1] = -1
        still = None
        if movement is not None and mask is not None and isinstance(as_detector(mask), Weights):
            still = _boolean(as_detector(mask).weights(image))  # flags of pixels stay with the pixels
        elif mask is not None:
            shape = as_detector(mask)
            labels[~_boolean(shape.weights(image) if movement is None else movement.weights(shape))] = -1
        if not (labels >= 0).any() or (still is not None and not still.any()):
            reach = span(np.sqrt(distance))
            msg = f"the rings {span(found)} hold no pixel; pixels lie at {reach} {unit or own} from the centre"
            raise InputError(msg, key="bins", found=span(found), expected=reach)
        shown = None if mask is None else as_detector(mask).describe()
        text: dict[str, Any] = {"rings": len(found) - 1, "inner": float(found[0]), "outer": float(found[-1])}
        text |= {"center": center, "unit": unit or own, "mask": shown, "ellipse": ellipse_text(image)}
        text |= {"origin": None if movement is None else movement.describe()}
        text |= corrections_text(corrections)
        pixels = corrections_of(image, corrections)
        return cls(found, labels.astype(np.int64), unit or own, text, grid, movement, still, pixels)

    def moments(self, image: xr.DataArray, *, spread: bool = False) -> Any:
        """Give sums over rings, (…scan, rings), or sums and squared deviations, (…scan, 2, rings)."""
        return self.group_moments(image, self.labels, len(self), spread=spread)

    def group_moments(self, image: xr.DataArray, labels: Int64Array, n_groups: int, *, spread: bool = False) -> Any:
        """Give the same over any groups of the pixels of the grid, such as parts of the rings."""
        kernel: Any = GroupMoments(labels, n_groups, spread)
        if self.movement is not None:
            kernel = MovedKernel.of(UsableGroups(self.still, n_groups, spread), labels, self.movement)
        shift = None if self.movement is None else self.movement.shift
        sums = map_kernel(image.data, corrected(kernel, self.corrections), values=shift)
        return sums if self.corrections is None else without_missing(sums, image)

    def sizes(self, like: Any, labels: Int64Array | None = None, n_groups: int | None = None) -> Any:
        """Count the pixels of every ring, or of other groups.

        Parameters
        ----------
        like
            Lazy result with the scan axes first, whose chunks along these are taken.
        labels, n_groups
            Groups of the pixels of the grid; the rings by default.

        Returns
        -------
        sizes : shape (n_groups,), or (…scan, n_groups) and lazy where the rings move
        """
        labels, n_groups = (self.labels, len(self)) if labels is None or n_groups is None else (labels, n_groups)
        if self.movement is None:
            return np.bincount(labels[labels >= 0], minlength=n_groups).astype(np.int64)
        import dask.array as da

        kernel = MovedKernel.of(UsableGroups(self.still, n_groups), labels, self.movement)
        shift = self.movement.shift
        moves = da.from_array(shift, chunks=(*like.chunks[: shift.ndim - 1], 2))
        return moves.map_blocks(_sizes, kernel, chunks=(*moves.chunks[:-1], (n_groups,)), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def label(self, data: Any, image: xr.DataArray, history: str) -> xr.DataArray:
        """Name the axes of a result (…scan, rings) and describe the rings."""
        dims = (*scan_dims(image), "k")
        result = labelled(data, image, dims, history)
        about = {"units": "count", "long_name": "detector pixels in the ring"}
        counted = ("k" if self.movement is None else dims, self.sizes(data), about)
        return result.assign_coords(self.coordinates() | {"n_pixels": counted})

    def coordinates(self) -> dict[str, Any]:
        """Middles and edges of the rings, along k."""
        about = {"units": self.unit, "long_name": "distance from the centre, middle of the ring"}
        inner, outer = self.edges[:-1], self.edges[1:]
        return {
            "k": ("k", (inner + outer) / 2, about),
            "k_inner": ("k", inner, {"units": self.unit, "long_name": "inner edge, part of the ring"}),
            "k_outer": ("k", outer, {"units": self.unit, "long_name": "outer edge, not part of the ring"}),
        }


@dataclass(frozen=True, slots=True, eq=False)
class UsableGroups:
    """Makes the kernel for groups that have moved, without the pixels that take no part wherever they are."""

    still: BoolArray | None
    n_groups: int
    spread: bool = False

    def __call__(self, labels: Int64Array) -> GroupMoments:
        """Take the groups of the visible pixels."""
        usable = labels if self.still is None else np.where(self.still, labels, -1)
        return GroupMoments(usable, self.n_groups, self.spread)


def _sizes(shift: Int64Array, kernel: MovedKernel) -> Int64Array:
    """Count the pixels of every group, (…, n_groups), after moves (…, 2)."""
    flat = shift.reshape(-1, 2)
    groups: Any = kernel.make
    found = np.zeros((len(flat), groups.n_groups), np.int64)
    for move, some in by_move(flat):
        labels = groups(kernel.visible(move)).labels
        found[some] = np.bincount(labels[labels >= 0], minlength=groups.n_groups)
    return found.reshape(*shift.shape[:-1], groups.n_groups)


def _even(bins: Any, farthest: float, pixel: float) -> FloatArray:
    """Edges of so many rings up to half a pixel beyond the farthest pixel, or of rings that are one pixel wide."""
    if bins is None:
        return np.arange(int(farthest / pixel + NOISE) + 2, dtype=np.float64) * pixel
    if not isinstance(bins, (int, np.integer)) or isinstance(bins, bool) or bins < 1:
        msg = f"{bins!r} bins were asked for; expected a whole number from 1 on, or edges=…"
        raise InputError(msg, key="bins", found=bins)
    return np.asarray(np.linspace(0.0, farthest + pixel / 2, int(bins) + 1), np.float64)


def _given(edges: Any, bins: Any) -> FloatArray:
    """Check edges that the user gives."""
    if bins is not None:
        msg = "both bins and edges are given; give the number of rings, or their edges"
        raise InputError(msg, key="bins")
    found = np.asarray(edges)
    if found.ndim == 1 and len(found) > 1 and found.dtype.kind in "iuf":
        found = found.astype(np.float64)
        if np.isfinite(found).all() and found[0] >= 0 and (np.diff(found) > 0).all():
            return found
    msg = f"edges of rings are {edges!r}; expected at least two rising numbers from 0 on, or bins=…"
    raise InputError(msg, key="edges", found=str(edges))


def _boolean(weights: Array) -> BoolArray:
    if weights.dtype != bool:
        msg = f"the mask of a radial profile is boolean, got weights of type {weights.dtype}; compare them with 0 first"
        raise InputError(msg, key="mask", found=str(weights.dtype))
    return np.asarray(weights, bool)


def _movement(image: xr.DataArray, center: Centre | None, origin: Any) -> Movement | None:
    """Tell how rings move: not at all where their centre is given."""
    if center is None:
        return Movement.chosen(image, origin)
    if origin is not None and origin is not False:
        msg = "both center and origin are given; rings have one of them as their centre, so leave one out"
        raise InputError(msg, key="origin")
    return None


def _farthest(distance: FloatArray, movement: Movement | None) -> float:
    """Largest squared distance of a visible pixel; where rings move, of a corner of the detector after any move."""
    if movement is None:
        return float(distance.max(initial=0.0))
    moves = np.unique(movement.shift.reshape(-1, 2), axis=0)
    corners = [
        distance[row - moves[:, 0], column - moves[:, 1]]
        for row in (movement.rows.min(), movement.rows.max())
        for column in (movement.columns.min(), movement.columns.max())
    ]
    return float(np.max(corners, initial=0.0))
