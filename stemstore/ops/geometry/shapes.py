"""Shapes on the diffraction plane, and the weights that they give on the detector axes of a scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry import regions
from stemstore.ops.geometry.plane import DIMS, Centre, axes_in, inhabited, offsets, pixel_cell, pixel_size, span
from stemstore.ops.geometry.regions import Antialias, Edges
from stemstore.scan.coordinates import axis_in, pixel_axis, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array


@runtime_checkable
class Detector(Protocol):
    """A shape that gives weights on the detector axes of a scan."""

    def weights(self, image: xr.DataArray) -> Array:
        """Weights of shape (ky, kx); boolean for a plain region."""

    def describe(self) -> str:
        """One line for the history of results."""


@dataclass(frozen=True, slots=True)
class Annulus:
    """Pixels whose distance from the centre is at least `inner` and less than `outer`, or as `edges` says."""

    inner: float
    outer: float
    center: Centre | None = None
    unit: str | None = None
    edges: Edges = field(default_factory=Edges)
    antialias: Antialias = False

    def weights(self, image: xr.DataArray) -> Array:
        """Mask of shape (ky, kx): boolean, or covered shares of pixels."""
        ky, kx = offsets(image, self.center, self.unit)
        radii = (self.inner, self.outer)
        if not self.antialias:
            return inhabited(regions.in_ring(ky, kx, radii, self.edges), self, image)
        cell = pixel_cell(image, self.unit)
        if self.antialias is True:
            return inhabited(regions.ring_cover(ky, kx, radii, cell), self, image)
        border = regions.near_circles(ky, kx, radii, cell)
        cover = regions.sampled_cover(lambda y, x: regions.in_ring(y, x, radii, Edges()), border, (ky, kx), cell)
        return inhabited(cover, self, image)

    def describe(self) -> str:
        """One line for the history of results."""
        disk = self.inner == 0 and self.edges.inner
        shape = f"disk(radius={self.outer:g}" if disk else f"annulus(inner={self.inner:g}, outer={self.outer:g}"
        return f"{shape}{_suffix(self.center, self.unit, self.edges, self.antialias)})"


@dataclass(frozen=True, slots=True)
class Sector:
    """Pixels of a ring whose direction lies in [start, stop) degrees, measured from +kx towards +ky."""

    inner: float
    outer: float
    start: float
    stop: float
    center: Centre | None = None
    unit: str | None = None
    edges: Edges = field(default_factory=Edges)
    antialias: Antialias = False

    def weights(self, image: xr.DataArray) -> Array:
        """Mask of shape (ky, kx): boolean, or covered shares of pixels."""
        ky, kx = offsets(image, self.center, self.unit)
        radii = (self.inner, self.outer)
        if not self.antialias:
            ring = regions.in_ring(ky, kx, radii, self.edges)
            return inhabited(ring & self._turned(ky, kx), self, image)
        cell = pixel_cell(image, self.unit)
        border = regions.near_rays(ky, kx, (self.start, self.stop), cell)
        if self.antialias is True:
            turned = regions.sampled_cover(self._turned, border, (ky, kx), cell)
            return inhabited(turned * regions.ring_cover(ky, kx, radii, cell), self, image)
        border |= regions.near_circles(ky, kx, radii, cell)
        return inhabited(regions.sampled_cover(self._inside, border, (ky, kx), cell), self, image)

    def describe(self) -> str:
        """One line for the history of results."""
        shape = f"sector(inner={self.inner:g}, outer={self.outer:g}, start={self.start:g}, stop={self.stop:g}"
        return f"{shape}{_suffix(self.center, self.unit, self.edges, self.antialias)})"

    def _turned(self, ky: Array, kx: Array) -> Array:
        return regions.in_angles(ky, kx, self.start, self.stop)

    def _inside(self, ky: Array, kx: Array) -> Array:
        return regions.in_ring(ky, kx, (self.inner, self.outer), Edges()) & self._turned(ky, kx)


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Pixels with ``ky[0] <= ky < ky[1]`` and ``kx[0] <= kx < kx[1]``, or as `edges` says.

    `rounded` turns the borders into whole pixels first (half to even).
    """

    ky: tuple[float, float]
    kx: tuple[float, float]
    unit: str | None = None
    edges: Edges = field(default_factory=Edges)
    antialias: Antialias = False
    rounded: bool = False

    def weights(self, image: xr.DataArray) -> Array:
        """Mask of shape (ky, kx): boolean, or covered shares of pixels."""
        sides: list[Array] = []
        for name, borders in zip(DIMS, (self.ky, self.kx), strict=True):
            axis, (first, last) = axis_in(image, name, self.unit), borders
            if self.rounded:
                axis = pixel_axis(image, name)
                first, last = (float(np.rint(to_pixel(image, name, self.unit, border))) for border in borders)
            if self.antialias:
                size = pixel_size(image, self.unit)[DIMS.index(name)]
                sides.append(regions.range_cover(axis, first, last, size))
            else:
                sides.append(regions.between(axis, first, last, self.edges))
        return inhabited(sides[0][:, None] * sides[1][None, :], self, image)

    def describe(self) -> str:
        """One line for the history of results."""
        text = _suffix(None, self.unit, self.edges, self.antialias) + (", rounded" if self.rounded else "")
        return f"rectangle(ky={self.ky}, kx={self.kx}{text})"


@dataclass(frozen=True, slots=True)
class Point:
    """The one pixel nearest to (ky, kx); between two of them the even one, or the lower one if `truncated`."""

    ky: float
    kx: float
    unit: str | None = None
    truncated: bool = False

    def weights(self, image: xr.DataArray) -> Array:
        """Boolean mask of shape (ky, kx)."""
        axes = axes_in(image, self.unit)
        mask = np.ones(image.shape[-2:], bool)
        for name, axis, at in zip(DIMS, axes, (self.ky, self.kx), strict=True):
            pixels = pixel_axis(image, name)
            place = float(np.trunc(to_pixel(image, name, self.unit, at))) if self.truncated else at
            distance = np.abs((pixels if self.truncated else axis) - place)
            nearest = np.flatnonzero(distance == distance.min(initial=np.inf))
            step = 0.0 if self.truncated else float(np.abs(np.diff(axis)).max()) if len(axis) > 1 else 1.0
            if not len(nearest) or distance[nearest[0]] > step:
                msg = f"{self.describe()}: {name} = {at:g} lies outside the detector, which spans {span(axis)}"
                raise InputError(msg, key=name, found=at, expected=span(axis))
            even = nearest[pixels[nearest] % 2 == 0]
            chosen = (even if len(even) else nearest)[0]
            line = np.arange(len(axis)) == chosen
            mask &= line[:, None] if name == "ky" else line[None, :]
        return mask

    def describe(self) -> str:
        """One line for the history of results."""
        text = _suffix(None, self.unit) + (", truncated" if self.truncated else "")
        return f"point(ky={self.ky:g}, kx={self.kx:g}{text})"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Weights given by the user on the visible detector: boolean, integer, real or complex."""

    values: Array

    def weights(self, image: xr.DataArray) -> Array:
        """Give the weights after checking that they fit the detector."""
        if self.values.shape != image.shape[-2:]:
            msg = f"detector weights have shape {self.values.shape}, but the detector is {image.shape[-2:]} (ky, kx)"
            raise InputError(msg, expected=image.shape[-2:], found=self.values.shape)
        if self.values.dtype.kind in "fc" and not np.isfinite(self.values).all():
            msg = "detector weights contain NaN or infinity; replace them by 0 to leave pixels out"
            raise InputError(msg, key="weights")
        return self.values

    def describe(self) -> str:
        """One line for the history of results."""
        return f"weights{self.values.shape} {self.values.dtype}"


def _suffix(center: Centre | None, unit: str | None, edges: Edges | None = None, antialias: Antialias = False) -> str:
    text = "" if center is None else f", center=({center[0]:g}, {center[1]:g})"
    text += "" if unit is None else f", unit={unit!r}"
    text += "" if edges is None else edges.text
    return f"{text}, antialias={antialias!r}" if antialias else text
