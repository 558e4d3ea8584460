"""Settings of Bragg-disk detection: names, defaults and what they must be.

All lengths follow from the radius of the probe. Names of the settings and the order of the filters follow py4DSTEM's
``find_Bragg_disks`` (Savitzky et al., Microsc. Microanal. 27 (2021) 712).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore.kernels.disks.probe import Template

DiskKernelName = Literal["sigmoid", "gaussian", "gradient", "log", "flat"]
Subpixel = Literal["likelihood", "newton", "poly", "none"]

SMALLEST_RADIUS = 1.5  # px; below it a disk has no edge to find
FEWEST_PEAKS = 70  # py4DSTEM's default of the largest number of peaks
WINDOW = 2.5  # radii; of 2 to 8 the best recall of weak disks at spacings from 2.9 radii
COARSEST = 4.0  # px; the radius in binned pixels at which recall and precision are still those of single pixels
LOG_CONTRAST = 10.0  # of a logarithmic detection kernel; 3 to 30 work alike

_LEAST = {
    "edge_width": 0.1,  # px; the edge is a division
    "min_spacing": 0,
    "edge_boundary": 1,  # a maximum needs a neighbour on every side
    "sigma_detect": 0,
    "window": 1,
    "significance": 0,
    "min_rel": 0,
    "relative_to": 0,
    "max_peaks": 1,
    "min_visible": 0.05,  # the correlation is divided by it
    "binning": 1,
    "power": 0,
}
_CHOICES = {"kernel": DiskKernelName.__args__, "subpixel": Subpixel.__args__}  # type: ignore[attr-defined] # typing's own


class DiskOptions(TypedDict, total=False):
    """Settings of disk detection; whatever is left out follows from the probe radius.

    Attributes
    ----------
    edge_width : px
        Width of the linear edge of a synthetic probe (default 2).
    kernel
        What the detection map correlates with, see `stemstore.kernels.disks.filters`: ``"sigmoid"`` (default),
        ``"gaussian"``, ``"gradient"``, ``"log"`` or ``"flat"``.
    window : px
        Outer radius of the kernel's compensating window (default 2.5 radii; wider ones hide weak disks between strong
        ones); twice the standard deviation of the Gaussian of ``"gaussian"``.
    sigma_detect : px
        Gaussian smoothing of the detection map (default a quarter of the radius).
    power
        Exponent of the modulus of the correlation's spectrum: 1 (default) cross-correlation, 0 phase correlation,
        between them hybrid. Below 1 the values of the map have no unit.
    binning : px
        Side of the squares of pixels in which disks are looked for. Default for ``"likelihood"``: the largest power of
        two that leaves a radius of 4, which finds the same disks in a fraction of the time; else 1, and always 1 for
        positions that come from the map.
    subpixel
        Where the position comes from: ``"likelihood"`` (default), the maximum of the Poisson likelihood of the disk on
        single pixels, see `stemstore.kernels.disks.likelihood`; ``"none"``, the maximum of the detection map;
        ``"poly"``, the vertex of a parabola on it; ``"newton"``, from there two Newton steps on the exact trigonometric
        interpolant of the unsmoothed map (py4DSTEM's ``multicorr`` without its grid).
    contrast : None, or at least 0.001
        Counts in the disk over background counts, which the likelihood needs. None: of every disk itself, from 1 to
        100. A fixed one (1, say) leans on the area of the disks instead of their edge: less precise for ideal disks,
        but less biased where the edges are distorted.
    edge_boundary : px
        No peak is reported closer to the detector's edge (default the radius, rounded up; at least 1).
    min_visible
        No peak is reported of whose disk a smaller share lies on good pixels of the detector (default 0.5).
    min_abs : counts per pixel, or None
        Smallest correlation of a peak. None: from the noise of every frame, see `significance`.
    significance
        Gaussian-equivalent level in standard deviations of that noise threshold (default 5).
    min_rel
        Smallest correlation relative to the peak of rank `relative_to` (default 0.005).
    relative_to
        Rank of the reference peak, 0 the brightest (default 1: the brightest one next to the unscattered beam).
    min_spacing : px
        Of two peaks closer than this the weaker is dropped (default twice the radius).
    max_peaks
        Most peaks of one frame (default four times the number of disks of spacing 2 r that fit, at least 70).
    """

    edge_width: float
    kernel: DiskKernelName
    window: float
    sigma_detect: float
    power: float
    binning: int
    subpixel: Subpixel
    contrast: float | None
    edge_boundary: int
    min_visible: float
    min_abs: float | None
    significance: float
    min_rel: float
    relative_to: int
    min_spacing: float
    max_peaks: int


@dataclass(frozen=True, slots=True)
class DiskParameters:
    """All settings of disk detection after defaults; names and units as in `DiskOptions`, radius in px."""

    radius: float
    edge_width: float
    kernel: DiskKernelName
    window: float
    sigma_detect: float
    power: float
    binning: int
    subpixel: Subpixel
    contrast: float | None
    edge_boundary: int
    min_visible: float
    min_abs: float | None
    significance: float
    min_rel: float
    relative_to: int
    min_spacing: float
    max_peaks: int

    @classmethod
    def of(cls, frame_shape: tuple[int, int], template: Template, options: DiskOptions) -> DiskParameters:
        """Fill the settings that were left out and refuse those that cannot work.

        Raises
        ------
        InputError
            The disk does not fit the frame, or an option is unknown or out of range.
        """
        radius = float(template.radius)
        if not (radius >= SMALLEST_RADIUS and 2 * radius <= min(frame_shape)):
            msg = (
                f"a probe radius of {radius:.4g} px does not work on frames of {frame_shape[0]} x {frame_shape[1]} px: "
                f"it must be at least {SMALLEST_RADIUS} px and the disk must fit the frame; check radius= or the "
                "binning"
            )
            raise InputError(msg, radius=radius, frame_shape=frame_shape)
        values = _defaults(frame_shape, radius, template.edge_width)
        unknown = sorted(set(options) - set(values))
        if unknown:
            msg = f"unknown option {unknown[0]!r} of disk detection; known are {', '.join(sorted(values))}"
            raise InputError(msg, option=unknown[0])
        values.update(options)
        _check(values)
        if values["binning"] is None:
            values["binning"] = _binning(radius) if values["subpixel"] == "likelihood" else 1
        return cls(radius=radius, **values)


def _defaults(frame_shape: tuple[int, int], radius: float, edge_width: float) -> dict[str, Any]:
    fitting = frame_shape[0] * frame_shape[1] / (math.pi * (2 * radius) ** 2)
    return {
        "edge_width": edge_width,
        "kernel": "sigmoid",
        "window": WINDOW * radius,
        "sigma_detect": radius / 4,
        "power": 1.0,
        "binning": None,
        "subpixel": "likelihood",
        "contrast": None,
        "edge_boundary": math.ceil(radius),
        "min_visible": 0.5,
        "min_abs": None,
        "significance": 5.0,
        "min_rel": 0.005,
        "relative_to": 1,
        "min_spacing": 2 * radius,
        "max_peaks": max(FEWEST_PEAKS, math.ceil(4 * fitting)),
    }


def _check(values: dict[str, Any]) -> None:
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            msg = f"option {name!r} of disk detection is one of {', '.join(choices)}, got {values[name]!r}"
            raise InputError(msg, option=name)
    least: dict[str, float] = _LEAST | ({} if values["contrast"] is None else {"contrast": 1e-3})
    for name, limit in least.items():
        if name == "binning" and values[name] is None:
            continue
        if not values[name] >= limit:
            msg = f"option {name!r} of disk detection must be at least {limit}, got {values[name]!r}"
            raise InputError(msg, option=name)
    for name in ("power", "min_visible"):
        if values[name] > 1:
            msg = f"option {name!r} of disk detection must be at most 1, got {values[name]!r}"
            raise InputError(msg, option=name)
    if values["subpixel"] != "likelihood" and values["binning"] not in {None, 1}:
        msg = f"subpixel={values['subpixel']!r} takes positions from the map, which needs binning=1; leave binning out"
        raise InputError(msg, option="binning")


def _binning(radius: float) -> int:
    return 2 ** max(0, math.floor(math.log2(radius / COARSEST)))
