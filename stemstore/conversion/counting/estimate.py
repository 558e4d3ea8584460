"""Choosing thresholds from frames of the whole scan, or taking those that are given.

The noise peak of the pixel values is fitted (see `stemstore.conversion.counting.noise`), for the whole detector or for
each of its regions. Sampling is deterministic: two runs give the same thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.conversion.counting.noise import Histogram, find_peak
from stemstore.conversion.counting.regions import Region
from stemstore.conversion.counting.sampling import histograms
from stemstore.conversion.counting.thresholds import RegionThresholds, Thresholds
from stemstore.errors import CorruptDataError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.conversion.counting.corrections import Corrections
    from stemstore.conversion.counting.thresholds import Level
    from stemstore.sources.contract import FrameSource

BACKGROUND_SIGMA = 5.0  # against 4.5 this loses 0.3 % of the electrons and nine tenths of the false events
XRAY_SIGMA = 175.0  # in standard deviations of all pixels; far above what one electron deposits


@dataclass(frozen=True, slots=True)
class Wanted:
    """How limits are to be chosen; see `stemstore.convert`.

    Attributes
    ----------
    background, xray
        Given limits, one or one per region; None: to be estimated.
    background_sigma, xray_sigma
        Where estimated limits lie.
    false_events_per_frame
        Instead of `background_sigma`: the most false events of a frame.
    """

    background: Level | None = None
    xray: Level | None = None
    background_sigma: float = BACKGROUND_SIGMA
    xray_sigma: float = XRAY_SIGMA
    false_events_per_frame: float | None = None


def estimate(
    source: FrameSource,
    wanted: Wanted | None = None,
    *,
    regions: Sequence[Region] = (),
    corrections: Corrections | None = None,
) -> Thresholds:
    """Choose the thresholds of a scan from its own pixel values, or take those that are given.

    Parameters
    ----------
    source
        Frames.
    wanted
        What is given and how the rest is chosen.
    regions
        Parts of the detector that get limits of their own; empty for the whole.
    corrections
        What is done to frames before; the limits are for corrected values.

    Raises
    ------
    InputError
        The limits exclude everything, or are not as many as the regions.
    CorruptDataError
        No complete frame, or no noise peak that could be fitted.
    """
    wanted = wanted or Wanted()
    parts = list(regions) or [Region("detector", (0, source.frame_shape[0]), (0, source.frame_shape[1]))]
    backgrounds = _per_region(wanted.background, len(parts), "background_threshold")
    xrays = _per_region(wanted.xray, len(parts), "xray_threshold")
    found, n_frames = None, 0
    if backgrounds is None or xrays is None:
        found, n_frames, integers = histograms(source, parts, corrections)
    entries = []
    for number, region in enumerate(parts):
        background = None if backgrounds is None else backgrounds[number]
        xray = None if xrays is None else xrays[number]
        if found is None:
            entries.append(RegionThresholds(region, float(background or 0), float(xray or 0)))
        else:
            share = region.n_pixels / math.prod(source.frame_shape)
            entries.append(_of_region(region, found[number], (background, xray), wanted, share, integers=integers))
    return _whole(entries, wanted, n_frames, parts if regions else [])


def _of_region(
    region: Region,
    histogram: Histogram,
    given: tuple[float | None, float | None],
    wanted: Wanted,
    share: float,
    *,
    integers: bool,
) -> RegionThresholds:
    if histogram.n_pixels == 0:
        msg = (
            f"region {region.name!r} has no usable pixel in the sampled frames; give background_threshold= and "
            "xray_threshold="
        )
        raise CorruptDataError(msg, key=region.name)
    mean, spread = histogram.moments()
    background, xray = given
    xray = mean + wanted.xray_sigma * spread if xray is None else xray
    peak, false = None, None
    if background is None:
        peak = find_peak(histogram, integers=integers)
        if wanted.false_events_per_frame is None:
            background = peak.mean + wanted.background_sigma * peak.width
        else:
            background = peak.background_for(wanted.false_events_per_frame * share, region.n_pixels)
        false = peak.false_events(background, region.n_pixels)
    figures = (mean, spread, *histogram.extremes(), histogram.n_pixels)
    return RegionThresholds(region, background, xray, peak, *figures, false_events_per_frame=false)


def _whole(entries: list[RegionThresholds], wanted: Wanted, n_frames: int, regions: list[Region]) -> Thresholds:
    """Put the regions together."""
    for entry in entries:
        if not entry.background < entry.xray:
            where = f" of {entry.region.name!r}" if len(entries) > 1 else ""
            msg = (
                f"the background threshold {entry.background:g}{where} is not below the X-ray threshold "
                f"{entry.xray:g}, so no pixel could be an electron; change background_threshold= or xray_threshold="
            )
            raise InputError(msg, background=entry.background, xray=entry.xray)
    several = len(entries) > 1
    backgrounds, xrays = tuple(entry.background for entry in entries), tuple(entry.xray for entry in entries)
    peaks = [entry.peak for entry in entries if entry.peak is not None]
    false = [entry.false_events_per_frame for entry in entries if entry.false_events_per_frame is not None]
    estimated = wanted.background is None
    by_sigma = estimated and wanted.false_events_per_frame is None
    return Thresholds(
        background=backgrounds if several else backgrounds[0],
        xray=xrays if several else xrays[0],
        pedestal_mean=float(np.mean([peak.mean for peak in peaks])) if peaks else None,
        pedestal_sigma=float(np.mean([peak.width for peak in peaks])) if peaks else None,
        background_sigma=wanted.background_sigma if by_sigma else None,
        xray_sigma=wanted.xray_sigma if wanted.xray is None else None,
        n_frames=n_frames,
        false_events_per_frame=sum(false) if false else None,
        regions=tuple(entries) if n_frames or regions else (),
    )


def _per_region(given: Level | None, n_regions: int, name: str) -> list[float] | None:
    if given is None:
        return None
    values = [float(value) for value in given] if isinstance(given, tuple) else [float(given)] * n_regions
    if len(values) != n_regions:
        msg = (
            f"{name} has {len(values)} values for {n_regions} regions of the detector; give one number or one for each"
        )
        raise InputError(msg, key=name, found=len(values), expected=n_regions)
    return values
