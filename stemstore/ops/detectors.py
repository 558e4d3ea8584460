"""Virtual detectors: shapes on the diffraction plane and the weights they give on a scan's detector axes.

Edges are half-open (inner <= r < outer), so that adjoining annuli partition the detector exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from stemstore.errors import CalibrationMissingError, InputError

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray

Centre = tuple[float, float]


@runtime_checkable
class Detector(Protocol):
    """A shape that gives weights on the detector axes of a scan."""

    def weights(self, image: xr.DataArray) -> Array:
        """Weights of shape (ky, kx); boolean for a plain region."""

    def describe(self) -> str:
        """One line for the history of results."""


@dataclass(frozen=True, slots=True)
class Annulus:
    """Pixels whose distance from the centre is at least `inner` and less than `outer`."""

    inner: float
    outer: float
    center: Centre | None = None
    unit: str | None = None

    def weights(self, image: xr.DataArray) -> Array:
        """Boolean mask of shape (ky, kx)."""
        ky, kx = offsets(image, self.center, self.unit)
        distance = np.hypot(ky[:, None], kx[None, :])
        return inhabited((distance >= self.inner) & (distance < self.outer), self, image)

    def describe(self) -> str:
        """One line for the history of results."""
        shape = (
            f"disk(radius={self.outer:g}" if self.inner == 0 else f"annulus(inner={self.inner:g}, outer={self.outer:g}"
        )
        return f"{shape}{_suffix(self.center, self.unit)})"


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Pixels with ``ky[0] <= ky < ky[1]`` and ``kx[0] <= kx < kx[1]``."""

    ky: tuple[float, float]
    kx: tuple[float, float]
    unit: str | None = None

    def weights(self, image: xr.DataArray) -> Array:
        """Boolean mask of shape (ky, kx)."""
        ky, kx = axes_in(image, self.unit)
        rows = (ky >= self.ky[0]) & (ky < self.ky[1])
        columns = (kx >= self.kx[0]) & (kx < self.kx[1])
        return inhabited(rows[:, None] & columns[None, :], self, image)

    def describe(self) -> str:
        """One line for the history of results."""
        return f"rectangle(ky={self.ky}, kx={self.kx}{_suffix(None, self.unit)})"


@dataclass(frozen=True, slots=True)
class Point:
    """The one pixel nearest to (ky, kx)."""

    ky: float
    kx: float
    unit: str | None = None

    def weights(self, image: xr.DataArray) -> Array:
        """Boolean mask of shape (ky, kx)."""
        axes = axes_in(image, self.unit)
        nearest = []
        for name, axis, at in zip(("ky", "kx"), axes, (self.ky, self.kx), strict=True):
            step = abs(axis[1] - axis[0]) if len(axis) > 1 else 1.0
            nearest.append(int(np.argmin(np.abs(axis - at))))
            if abs(axis[nearest[-1]] - at) > step:
                msg = f"{self.describe()}: {name} = {at:g} lies outside the detector, which spans {_span(axis)}"
                raise InputError(msg, key=name, found=at, expected=_span(axis))
        mask = np.zeros(image.shape[-2:], bool)
        mask[nearest[0], nearest[1]] = True
        return mask

    def describe(self) -> str:
        """One line for the history of results."""
        return f"point(ky={self.ky:g}, kx={self.kx:g}{_suffix(None, self.unit)})"


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


def disk(radius: float, *, center: Centre | None = None, unit: str | None = None) -> Annulus:
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

    Returns
    -------
    detector
        For `virtual_image` and as the mask of `center_of_mass`.

    Raises
    ------
    InputError
        The radius is not positive and finite.
    """
    return annulus(0.0, radius, center=center, unit=unit)


def annulus(inner: float, outer: float, *, center: Centre | None = None, unit: str | None = None) -> Annulus:
    """Describe a ring-shaped virtual detector (annular dark field).

    Parameters
    ----------
    inner, outer : unit of the detector axes unless `unit` is given
        Pixels with inner <= r < outer belong to the ring.
    center, unit
        As in `disk`.

    Returns
    -------
    detector
        As in `disk`.

    Raises
    ------
    InputError
        The radii are not finite, negative, or inner >= outer.
    """
    if not (math.isfinite(inner) and math.isfinite(outer)) or inner < 0 or inner >= outer:
        msg = f"a detector needs 0 <= inner < outer, got inner={inner!r} and outer={outer!r}"
        raise InputError(msg, inner=inner, outer=outer)
    return Annulus(float(inner), float(outer), center, unit)


def rectangle(ky: tuple[float, float], kx: tuple[float, float], *, unit: str | None = None) -> Rectangle:
    """Describe a rectangular virtual detector.

    Parameters
    ----------
    ky, kx : unit of the detector axes unless `unit` is given
        Half-open ranges (first, last) along rows and columns.
    unit
        As in `disk`.

    Returns
    -------
    detector
        As in `disk`.

    Raises
    ------
    InputError
        A range is empty or not finite.
    """
    for name, (first, last) in (("ky", ky), ("kx", kx)):
        if not (math.isfinite(first) and math.isfinite(last)) or first >= last:
            msg = f"a rectangle needs first < last along {name}, got {(first, last)}"
            raise InputError(msg, key=name, found=(first, last))
    return Rectangle((float(ky[0]), float(ky[1])), (float(kx[0]), float(kx[1])), unit)


def point(ky: float, kx: float, *, unit: str | None = None) -> Point:
    """Describe a virtual detector of one pixel.

    Parameters
    ----------
    ky, kx : unit of the detector axes unless `unit` is given
        The pixel nearest to this place counts; one outside the detector is refused when it is used.
    unit
        As in `disk`.

    Returns
    -------
    detector
        As in `disk`.
    """
    return Point(float(ky), float(kx), unit)


def as_detector(given: Any) -> Detector:
    """Take a detector, or an array of weights on the visible detector."""
    if isinstance(given, Detector):
        return given
    values = np.asarray(getattr(given, "values", given))
    if values.dtype.kind not in "biufc":
        msg = f"a detector is disk(…), annulus(…), rectangle(…), point(…) or an array of weights, not {type(given)}"
        raise InputError(msg, found=str(type(given)))
    return Weights(values)


def axes_in(image: xr.DataArray, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes ky and kx in a unit.

    Raises
    ------
    CalibrationMissingError
        The scan cannot be expressed in that unit.
    """
    return _axis_in(image, "ky", unit), _axis_in(image, "kx", unit)


def offsets(image: xr.DataArray, center: Centre | None, unit: str | None) -> tuple[FloatArray, FloatArray]:
    """Give the detector axes relative to a centre, by default the optic axis."""
    ky, kx = axes_in(image, unit)
    if center is None:
        center = (_optic_axis(image, "ky", unit), _optic_axis(image, "kx", unit))
    return ky - center[0], kx - center[1]


def inhabited(mask: Array, detector: Any, image: xr.DataArray) -> Array:
    """Refuse a detector that covers no pixel."""
    if not mask.any():
        ky, kx = image.coords["ky"], image.coords["kx"]
        msg = (
            f"{detector.describe()} covers no pixel; the detector spans ky {_span(ky.values)}, kx {_span(kx.values)} "
            f"in {ky.attrs.get('units', 'pixel')}. Give numbers in that unit, or name theirs with unit='pixel'"
        )
        raise InputError(msg, found=detector.describe())
    return mask


def _axis_in(image: xr.DataArray, name: str, unit: str | None) -> FloatArray:
    from stemstore.scan.coordinates import convert_axis

    coordinate = image.coords.get(name)
    if coordinate is None:
        size = image.sizes[name]
        if unit in (None, "pixel"):
            return np.arange(size, dtype=np.float64)
        msg = f"axis {name!r} has no coordinate, so {unit!r} cannot be used; give the numbers with unit='pixel'"
        raise CalibrationMissingError(msg, key=name)
    return convert_axis(coordinate, image, unit)


def _optic_axis(image: xr.DataArray, name: str, unit: str | None) -> float:
    from stemstore.scan.coordinates import optic_axis

    return optic_axis(image, name, unit)


def _span(axis: Array) -> str:
    return f"{float(np.min(axis)):.4g} … {float(np.max(axis)):.4g}"


def _suffix(center: Centre | None, unit: str | None) -> str:
    text = "" if center is None else f", center=({center[0]:g}, {center[1]:g})"
    return text if unit is None else f"{text}, unit={unit!r}"
