"""The plan of Bragg-disk detection: everything that all frames of a detector share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import numpy as np
from scipy import fft

from stemstore.errors import InputError
from stemstore.kernels.correlation import transform_size
from stemstore.kernels.disks.bank import Bank, make_bank, reach_of
from stemstore.kernels.disks.filters import footprint, make_kernel
from stemstore.kernels.disks.options import DiskOptions, DiskParameters
from stemstore.kernels.disks.probe import EDGE_WIDTH, Template, template_of
from stemstore.kernels.disks.visible import Visibility

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray

__all__ = ["DiskOptions", "DiskParameters", "DiskPlan", "plan_disks"]


@dataclass(frozen=True, slots=True, eq=False)
class DiskPlan:
    """Everything one frame needs, in plain arrays; picklable.

    Attributes
    ----------
    frame_shape, fft_shape : px, bins
        Detector as seen by the user, and the size of the transforms of its bins. Where `fft_shape` is larger than the
        binned frame, the frame continues as background; where both agree the correlation is periodic.
    parameters
        Settings after defaults.
    template
        Where the probe comes from, in words.
    kernels : shape (fft rows, fft columns / 2 + 1), complex64
        Conjugate transforms: the detection kernel alone, or its signal and its window where hidden pixels make their
        shares differ from place to place.
    sharp : shape as `kernels`, complex64, or None
        The unsmoothed kernel of ``subpixel="newton"``.
    square, peak
        Sum of squares and maximum of the detection kernel in real space, per counts per pixel.
    response
        Answer of the map to a disk of one count per pixel.
    bank
        Tables of the likelihood; None for other ways to refine.
    bad : shape frame_shape, bool
        Hidden detector pixels.
    visibility
        What follows from them and from the borders.
    """

    frame_shape: tuple[int, int]
    fft_shape: tuple[int, int]
    parameters: DiskParameters
    template: str
    kernels: tuple[Array, ...]
    sharp: Array | None
    square: float
    peak: float
    response: float
    bank: Bank | None
    bad: BoolArray
    visibility: Visibility


def plan_disks(
    frame_shape: tuple[int, int],
    *,
    radius: float | None = None,
    template: Template | Array | None = None,
    bad_pixels: Array | None = None,
    **options: Unpack[DiskOptions],
) -> DiskPlan:
    """Derive kernels and settings of disk detection for one detector shape.

    Parameters
    ----------
    frame_shape : px
        Rows and columns of the frames.
    radius : px
        Radius of the disks. Required without a template; with one it replaces the measured radius.
    template
        A probe, or an image (ky, kx) of one: the brightest disk is cut out of it, see
        `stemstore.kernels.disks.probe.template_of`. None: a synthetic disk.
    bad_pixels : shape frame_shape, bool
        Pixels that do not count: beam stops, dead sectors, hot pixels.
    **options
        See `DiskOptions`.

    Returns
    -------
    plan

    Raises
    ------
    InputError
        Neither radius nor template is given, an option is unknown or out of range, the disk does not fit the frame, or
        no pixel counts.

    Notes
    -----
    Memory: two or three transforms of a binned frame, 80 (20 for radii above 16 px) windows of ``2 (radius + 4)``
    squared for the likelihood, and three maps of the frame.
    """
    probe = _probe(radius, template, options)
    parameters = DiskParameters.of(frame_shape, probe, options)
    bad = _bad_pixels(bad_pixels, frame_shape)
    shape = _transform_shape(frame_shape, parameters, hidden=bool(bad.any()))
    kernel = make_kernel(probe, parameters, shape)
    detect = kernel.detect
    visibility = Visibility.of(bad, probe, parameters, kernel, shape, reach_of(probe))
    parts = (detect,) if visibility.gains is None else (kernel.signal, kernel.window)
    real = fft.irfft2(detect, s=shape)
    area = parameters.binning**2
    return DiskPlan(
        frame_shape=frame_shape,
        fft_shape=shape,
        parameters=parameters,
        template=probe.source,
        kernels=tuple(part.astype(np.complex64) for part in parts),
        sharp=kernel.sharp.astype(np.complex64) if parameters.subpixel == "newton" else None,
        square=float((real**2).sum()) * area,
        peak=float(real.max()),
        response=_response(detect, probe, parameters, shape),
        bank=make_bank(probe, parameters.contrast) if parameters.subpixel == "likelihood" else None,
        bad=bad,
        visibility=visibility,
    )


def _probe(radius: float | None, template: Template | Array | None, options: DiskOptions) -> Template:
    """Give the probe that is asked for, with the radius that is asked for."""
    if template is not None:
        probe = template if isinstance(template, Template) else template_of(template)
        return probe.with_radius(radius)
    if radius is None:
        msg = "disk detection needs the size of the disks; pass radius= in pixels, or a template image of the probe"
        raise InputError(msg)
    edge_width = options.get("edge_width", EDGE_WIDTH)
    return Template(float(radius), float(edge_width))


def _transform_shape(frame_shape: tuple[int, int], parameters: DiskParameters, *, hidden: bool) -> tuple[int, int]:
    """Bins of the transform: room for the kernel beyond the border, but none where py4DSTEM's maps are periodic."""
    beyond = 0.0
    if parameters.subpixel == "likelihood" or hidden or parameters.edge_boundary < parameters.radius:
        beyond = max(0.0, parameters.window - parameters.edge_boundary) / parameters.binning
    rows, columns = (transform_size(math.ceil(-(-n // parameters.binning) + beyond)) for n in frame_shape)
    return rows, columns


def _response(detect: Array, probe: Template, parameters: DiskParameters, shape: tuple[int, int]) -> float:
    half = math.ceil(probe.radius + probe.edge_width) + 1
    total = probe.draw((2 * half + 1, 2 * half + 1), (float(half), float(half))).sum() * parameters.binning**2
    disk = np.conj(footprint(probe, parameters, shape))
    return float(fft.irfft2(disk * detect, s=shape)[0, 0] * total)


def _bad_pixels(bad_pixels: Array | None, frame_shape: tuple[int, int]) -> BoolArray:
    if bad_pixels is None:
        return np.zeros(frame_shape, dtype=np.bool_)
    bad = np.ascontiguousarray(bad_pixels, dtype=np.bool_)
    if bad.shape != frame_shape:
        msg = f"bad_pixels has shape {bad.shape}, but the frames have {frame_shape}; pass one flag per detector pixel"
        raise InputError(msg, found=bad.shape, expected=frame_shape)
    if bad.all():
        msg = "bad_pixels hides the whole detector; it is True for pixels that do not count"
        raise InputError(msg, key="bad_pixels")
    return bad
