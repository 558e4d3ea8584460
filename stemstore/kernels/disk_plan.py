"""Settings of Bragg-disk detection and the plan that all frames of a detector share.

All defaults follow from the radius of the probe. Names of the settings and the order of the filters follow py4DSTEM's
``find_Bragg_disks`` (Savitzky et al., Microsc. Microanal. 27 (2021) 712).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from scipy import fft

from stemstore.errors import InputError
from stemstore.kernels import correlation

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray
    from stemstore.kernels.correlation import Probe

LARGEST_PRIME = 11  # sizes with larger prime factors leave the fast code of scipy.fft
SMALLEST_RADIUS = 1.5  # px; below it a disk has no edge to find
FEWEST_PEAKS = 70  # py4DSTEM's default of the largest number of peaks
WINDOW = 2.5  # radii; of 2 to 8 the best recall of weak disks at spacings from 2.9 radii
CONTRAST = 10.0  # counts in the disk over background counts; 3 to 30 work alike

_LEAST = {
    "edge_width": 0.1,  # px; the edge is a division
    "min_spacing": 0,
    "edge_boundary": 1,  # a maximum needs a neighbour on every side
    "sigma_detect": 0,
    "window": 1,
    "climb": 1,
    "significance": 0,
    "min_rel": 0,
    "relative_to": 0,
    "max_peaks": 1,
    "contrast": 1e-3,  # the kernel tends to the plain disk
}


class DiskOptions(TypedDict, total=False):
    """Settings of disk detection; whatever is left out follows from the probe radius.

    Attributes
    ----------
    edge_width : px
        Width of the linear edge of a synthetic probe (default 2).
    min_spacing : px
        Of two peaks closer than this the weaker is dropped (default twice the radius).
    edge_boundary : px
        No peak is reported closer to the detector's edge (default the radius, rounded up; at least 1).
    sigma_detect : px
        Gaussian smoothing of the detection map (default a quarter of the radius).
    window : px
        Outer radius of the kernel's compensating window (default 2.5 radii; wider ones hide weak disks between strong
        ones).
    climb : px
        Half-width of the box in which the refinement map is climbed (default a quarter of the radius, at least 2).
    min_abs : counts per pixel, or None
        Smallest correlation of a peak. None: from the noise of every frame, see `significance`.
    significance
        Gaussian-equivalent level in standard deviations of that noise threshold (default 5).
    min_rel
        Smallest correlation relative to the peak of rank `relative_to` (default 0.005).
    relative_to
        Rank of the reference peak, 0 the brightest (default 1: the brightest one next to the unscattered beam).
    max_peaks
        Most peaks of one frame (default four times the number of disks of spacing 2 r that fit, at least 70).
    contrast
        c of the refinement kernel (default 10). Smaller values lean on the area of the disks instead of their edge:
        up to 10 % less precise for ideal disks, but less biased where the edges are distorted.
    """

    edge_width: float
    min_spacing: float
    edge_boundary: int
    sigma_detect: float
    window: float
    climb: int
    min_abs: float | None
    significance: float
    min_rel: float
    relative_to: int
    max_peaks: int
    contrast: float


@dataclass(frozen=True, slots=True)
class DiskParameters:
    """All settings of disk detection after defaults; names and units as in `DiskOptions`, radius in px."""

    radius: float
    edge_width: float
    min_spacing: float
    edge_boundary: int
    sigma_detect: float
    window: float
    climb: int
    min_abs: float | None
    significance: float
    min_rel: float
    relative_to: int
    max_peaks: int
    contrast: float


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """Everything one frame needs, in plain arrays; picklable.

    Attributes
    ----------
    frame_shape, fft_shape : px
        Detector as seen by the user, and the (possibly larger) size of the transforms. Where both agree the correlation
        is periodic; where they differ the frame continues as background.
    parameters
        Settings after defaults.
    detect, refine : shape (fft rows, fft columns / 2 + 1), complex64
        Conjugate transforms of the two kernels.
    detect_square, detect_peak
        Sum of squares and maximum of the smoothed detection kernel in real space; they turn noise per pixel into noise
        of the detection map.
    bad : shape frame_shape, bool
        Detector pixels to be replaced by the mean of their good neighbours.
    """

    frame_shape: tuple[int, int]
    fft_shape: tuple[int, int]
    parameters: DiskParameters
    detect: Array
    refine: Array
    detect_square: float
    detect_peak: float
    bad: BoolArray


def plan_disks(
    frame_shape: tuple[int, int],
    *,
    radius: float | None = None,
    template: Array | None = None,
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
    template : shape (ky, kx)
        Image of the probe; the brightest disk is cut out of it, its surrounding background removed and its centre of
        mass moved to the origin. None: a synthetic disk.
    bad_pixels : shape frame_shape, bool
        Pixels to be replaced by the mean of their good neighbours.
    **options
        See `DiskOptions`.

    Returns
    -------
    plan

    Raises
    ------
    InputError
        Neither radius nor template is given, an option is unknown or out of range, or the disk does not fit the frame.
    """
    probe = None if template is None else correlation.measure_probe(template)
    if probe is not None and radius is not None:
        probe = replace(probe, radius=radius)
    if probe is not None:
        radius = probe.radius
    if radius is None:
        msg = "disk detection needs the size of the disks; pass radius= in pixels, or a template image of the probe"
        raise InputError(msg)
    parameters = _parameters(frame_shape, radius, probe, options)
    shape = (_transform_size(frame_shape[0]), _transform_size(frame_shape[1]))
    if probe is None or template is None:
        image = correlation.disk_at_origin(shape, parameters.radius, parameters.edge_width)
    else:
        image = correlation.probe_at_origin(template, probe, shape)
    detect, refine = correlation.make_kernels(image, parameters.window, parameters.sigma_detect, parameters.contrast)
    real = fft.irfft2(detect, s=shape)
    return DiskPlan(
        frame_shape=frame_shape,
        fft_shape=shape,
        parameters=parameters,
        detect=detect.astype(np.complex64),
        refine=refine.astype(np.complex64),
        detect_square=float((real**2).sum()),
        detect_peak=float(real.max()),
        bad=_bad_pixels(bad_pixels, frame_shape),
    )


def _parameters(
    frame_shape: tuple[int, int], radius: float, probe: Probe | None, options: DiskOptions
) -> DiskParameters:
    """Fill the settings that were left out and refuse those that cannot work."""
    if not (radius >= SMALLEST_RADIUS and 2 * radius <= min(frame_shape)):
        msg = (
            f"a probe radius of {radius:.4g} px does not work on frames of {frame_shape[0]} x {frame_shape[1]} px: it "
            f"must be at least {SMALLEST_RADIUS} px and the disk must fit the frame; check radius= or the binning"
        )
        raise InputError(msg, radius=radius, frame_shape=frame_shape)
    values = _defaults(frame_shape, float(radius), 2.0 if probe is None else probe.edge_width)
    unknown = sorted(set(options) - set(values))
    if unknown:
        msg = f"unknown option {unknown[0]!r} of disk detection; known are {', '.join(sorted(values))}"
        raise InputError(msg, option=unknown[0])
    values.update(options)
    for name, least in _LEAST.items():
        if not values[name] >= least:
            msg = f"option {name!r} of disk detection must be at least {least}, got {values[name]!r}"
            raise InputError(msg, option=name)
    return DiskParameters(radius=float(radius), **values)


def _defaults(frame_shape: tuple[int, int], radius: float, edge_width: float) -> dict[str, Any]:
    fitting = frame_shape[0] * frame_shape[1] / (math.pi * (2 * radius) ** 2)
    return {
        "edge_width": edge_width,
        "min_spacing": 2 * radius,
        "edge_boundary": math.ceil(radius),
        "sigma_detect": radius / 4,
        "window": WINDOW * radius,
        "climb": max(2, math.ceil(radius / 4)),
        "min_abs": None,
        "significance": 5.0,
        "min_rel": 0.005,
        "relative_to": 1,
        "max_peaks": max(FEWEST_PEAKS, math.ceil(4 * fitting)),
        "contrast": CONTRAST,
    }


def _transform_size(size: int) -> int:
    rest = size
    for prime in (2, 3, 5, 7, LARGEST_PRIME):
        while rest % prime == 0:
            rest //= prime
    return size if rest == 1 else int(fft.next_fast_len(size, real=True))


def _bad_pixels(bad_pixels: Array | None, frame_shape: tuple[int, int]) -> BoolArray:
    if bad_pixels is None:
        return np.zeros(frame_shape, dtype=np.bool_)
    bad = np.ascontiguousarray(bad_pixels, dtype=np.bool_)
    if bad.shape != frame_shape:
        msg = f"bad_pixels has shape {bad.shape}, but the frames have {frame_shape}; pass one flag per detector pixel"
        raise InputError(msg, found=bad.shape, expected=frame_shape)
    return bad
