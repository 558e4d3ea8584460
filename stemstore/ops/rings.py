"""Rings around a place on the diffraction plane, and the ring that every visible detector pixel belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.detectors import as_detector
from stemstore.ops.labels import labelled, scan_dims
from stemstore.ops.plane import Centre, offsets, pixel_size, span

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray, Int64Array

NOISE = 1e-9  # share of a pixel by which rounding may move the farthest pixel


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """Half-open rings around a centre, and the ring of every visible pixel (-1: in none)."""

    edges: FloatArray
    labels: Int64Array
    unit: str
    text: dict[str, Any]

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
    ) -> Rings:
        """Sort the pixels into `bins` rings that hold them all, into those between `edges`, or into narrow ones."""
        ky, kx = offsets(image, center, unit)
        distance = ky**2 + kx**2
        own = image.coords["ky"].attrs.get("units", "pixel") if "ky" in image.coords else "pixel"
        farthest, pixel = float(np.sqrt(distance.max(initial=0.0))), max(pixel_size(image, unit))
        found = _even(bins, farthest, pixel) if edges is None else _given(edges, bins)
        # squares are compared, as virtual detectors do: a ring here and an annulus there hold the same pixels
        labels = np.searchsorted(np.array([float(edge) ** 2 for edge in found]), distance, side="right") - 1
        labels[labels == len(found) - 1] = -1
        if mask is not None:
            labels[~_boolean(mask, image)] = -1
        if not (labels >= 0).any():
            reach = span(np.sqrt(distance))
            msg = f"the rings {span(found)} hold no pixel; pixels lie at {reach} {unit or own} from the centre"
            raise InputError(msg, key="bins", found=span(found), expected=reach)
        shown = None if mask is None else as_detector(mask).describe()
        text: dict[str, Any] = {"rings": len(found) - 1, "inner": float(found[0]), "outer": float(found[-1])}
        text |= {"center": center, "unit": unit or own, "mask": shown}
        return cls(found, labels.astype(np.int64), unit or own, text)

    @property
    def sizes(self) -> Int64Array:
        """Number of pixels in every ring."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def label(self, data: Any, image: xr.DataArray, history: str) -> xr.DataArray:
        """Name the axes of a result (…scan, rings) and describe the rings."""
        result = labelled(data, image, (*scan_dims(image), "k"), history)
        about = {"units": "count", "long_name": "detector pixels in the ring"}
        return result.assign_coords(self.coordinates() | {"n_pixels": ("k", self.sizes, about)})

    def coordinates(self) -> dict[str, Any]:
        """Middles and edges of the rings, along k."""
        about = {"units": self.unit, "long_name": "distance from the centre, middle of the ring"}
        inner, outer = self.edges[:-1], self.edges[1:]
        return {
            "k": ("k", (inner + outer) / 2, about),
            "k_inner": ("k", inner, {"units": self.unit, "long_name": "inner edge, part of the ring"}),
            "k_outer": ("k", outer, {"units": self.unit, "long_name": "outer edge, not part of the ring"}),
        }


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


def _boolean(mask: Any, image: xr.DataArray) -> BoolArray:
    weights = as_detector(mask).weights(image)
    if weights.dtype != bool:
        msg = f"the mask of a radial profile is boolean, got weights of type {weights.dtype}; compare them with 0 first"
        raise InputError(msg, key="mask", found=str(weights.dtype))
    return weights
