"""Finding the bright-field disk: centre, radius and edge of the undiffracted beam, to a fraction of a pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.edge import EDGE_WIDTH, area_radius, check_disk, first_disk, fit_edge, outliers
from stemstore.ops.geometry.detectors import as_detector, disk
from stemstore.ops.geometry.plane import DIMS
from stemstore.ops.imaging.patterns import mean_pattern
from stemstore.ops.labels import intensity_of, values_of
from stemstore.scan.coordinates import axis_in, pixel_step, to_pixel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray
    from stemstore.ops.geometry.plane import Centre
    from stemstore.ops.geometry.shapes import Annulus


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk on the diffraction plane, measured.

    Attributes
    ----------
    center, center_sigma : unit `unit`
        (ky, kx) on the detector axes, and its standard errors.
    radius, radius_sigma : unit `unit`
        Where the intensity is half way between disk and background.
    edge_width, edge_width_sigma : unit `unit`
        Width of the linear edge, as in `find_disks`, that has the standard deviation of the fitted error function
        (sqrt(12) times that). The size of a pixel is not part of it.
    unit
        Of all of these.
    """

    center: Centre
    center_sigma: Centre
    radius: float
    radius_sigma: float
    edge_width: float
    edge_width_sigma: float
    unit: str

    def detector(self, scale: float = 1.0, **options: Any) -> Annulus:
        """Give the virtual detector with this centre and `scale` times this radius; options as of `disk`."""
        return disk(scale * self.radius, center=self.center, unit=self.unit, **options)


@dataclass(frozen=True, slots=True)
class Beam(Disk):
    """The bright-field disk of a pattern: a `Disk` in the unit of the axes, and in pixels.

    Attributes
    ----------
    pixel
        The same disk in stored pixels. Where pixels are not square the radius is that of a disk of equal area.
    height, background : unit of the pattern, per pixel
        Intensity of the disk above its surroundings, and of the surroundings.
    significance
        Height over its standard error.
    area_radius : unit `unit`
        Radius by counting: ``sqrt(area above half of the height / pi)``, for the part of the disk on the detector.
        It knows nothing of the model; where it is far from `radius`, look at the pattern.
    on_detector
        Share of the disk's edge that lies on good pixels, 0 to 1.
    misfit
        Standard deviation of the pattern about the model, relative to `height`. The errors follow from it.
    """

    pixel: Disk
    height: float
    background: float
    significance: float
    area_radius: float
    on_detector: float
    misfit: float


def find_beam(scan: Any, *, mask: Any = None, near: Centre | None = None, unit: str | None = None) -> Beam:
    """Measure centre, radius and edge width of the bright-field disk.

    Parameters
    ----------
    scan
        A pattern, DataArray with the dims ky and kx, or a scan: its mean pattern is computed, in one pass.
    mask
        Pixels that take part: a virtual detector, or a boolean array (ky, kx) that is False at dead pixels. Single hot
        and dead pixels are found and left out without it.
    near
        (ky, kx) of a place inside the disk; by default the brightest disk is taken.
    unit
        Unit of `near` and of the result; default: the unit of the detector axes.

    Returns
    -------
    beam
        Centre, radius and edge width with standard errors, in `unit` and (attribute ``pixel``) in stored pixels.

    Raises
    ------
    InputError
        There is no disk: a flat, empty or noisy pattern, a spot smaller than a pixel, a slope without an edge, or a
        disk of whose edge less than 15 % lies on the detector.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    A first disk: the area around the brightest place of the smoothed pattern that is above half of its height. Then
    ``b + h / 2 erfc((rho - R) / (sqrt(2) s))`` is fitted to the pixels around its edge, in two dimensions, weighted
    with the noise that the model predicts (variance proportional to intensity). Errors come from the residuals of the
    pixels, so that they hold for sums, means and detector units alike. The disk may be cut by the border of the
    detector. Structure inside the disk that is not noise (Kikuchi lines, overlapping disks) makes the errors too small.
    """
    pattern, values, good = _load(scan, mask)
    pixels = [to_pixel(pattern, name, unit, axis_in(pattern, name, unit)) for name in DIMS]
    steps = [abs(pixel_step(pattern, name, unit)) for name in DIMS]
    mean = math.sqrt(steps[0] * steps[1])
    axes = [one * step / mean for one, step in zip(pixels, steps, strict=True)]  # a circle stays one
    good &= ~outliers(values, good)
    values[~good] = 0.0
    start = None
    if near is not None:
        place = [float(to_pixel(pattern, n, unit, v)) for n, v in zip(DIMS, near, strict=True)]
        start = tuple(int(np.argmin(np.abs(one - at))) for one, at in zip(pixels, place, strict=True))
    first, smooth = first_disk(values, good, axes, start)
    fit = fit_edge(values, good, axes, first)
    check_disk(fit)
    found = area_radius(smooth, good, axes, fit)
    y, x = (fit.values[i] * mean / step for i, step in enumerate(steps))
    errors = [fit.errors[i] * mean / step for i, step in enumerate(steps)]
    width = [EDGE_WIDTH * one[3] for one in (fit.values, fit.errors)]
    in_pixels = Disk((y, x), (errors[0], errors[1]), fit.values[2], fit.errors[2], width[0], width[1], "pixel")
    own = in_pixels if (unit or _unit_of(pattern)) == "pixel" else _in_unit(in_pixels, pattern, unit, mean)
    return Beam(
        own.center,
        own.center_sigma,
        own.radius,
        own.radius_sigma,
        own.edge_width,
        own.edge_width_sigma,
        own.unit,
        pixel=in_pixels,
        height=fit.values[4],
        background=fit.values[5],
        significance=fit.values[4] / fit.errors[4],
        area_radius=found * (1.0 if own is in_pixels else mean),
        on_detector=fit.covered,
        misfit=fit.misfit,
    )


def _load(scan: Any, mask: Any) -> tuple[xr.DataArray, FloatArray, BoolArray]:
    """Give the pattern, its pixels (0 where not finite) and which of them count."""
    image = intensity_of(scan)
    good = np.ones(image.shape[-2:], bool)
    if mask is not None:
        good = np.array(as_detector(mask).weights(image))
        if good.dtype != bool:
            msg = f"the mask of a pattern is boolean, got weights of type {good.dtype}; compare them with 0 first"
            raise InputError(msg, key="mask", found=str(good.dtype))
    pattern = image if image.ndim == len(DIMS) else mean_pattern(image)
    values = np.array(values_of(pattern), dtype=np.float64)
    good &= np.isfinite(values)
    values[~good] = 0.0
    if not good.any() or np.ptp(values[good]) == 0:
        msg = f"the pattern of {values.shape} pixels is empty or flat, so there is no disk in it; select other frames"
        raise InputError(msg, key="pattern", found=values.shape)
    return pattern, values, good


def _in_unit(found: Disk, pattern: xr.DataArray, unit: str | None, mean: float) -> Disk:
    """Express a disk in pixels on the axes of the pattern; `mean` is the mean step of a pixel."""
    steps = [pixel_step(pattern, name, unit) for name in DIMS]
    zero = [float(to_pixel(pattern, name, unit, 0.0)) for name in DIMS]
    y, x = ((place - at) * step for place, at, step in zip(found.center, zero, steps, strict=True))
    errors = [abs(error * step) for error, step in zip(found.center_sigma, steps, strict=True)]
    return replace(
        found,
        center=(y, x),
        center_sigma=(errors[0], errors[1]),
        radius=found.radius * mean,
        radius_sigma=found.radius_sigma * mean,
        edge_width=found.edge_width * mean,
        edge_width_sigma=found.edge_width_sigma * mean,
        unit=unit or _unit_of(pattern),
    )


def _unit_of(image: xr.DataArray) -> str:
    return str(image.coords["ky"].attrs.get("units", "pixel")) if "ky" in image.coords else "pixel"
