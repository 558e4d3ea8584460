"""Thresholds that tell electrons from read noise and from X-rays, with the figures that they rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stemstore.conversion.counting.regions import Grid

if TYPE_CHECKING:
    from stemstore.conversion.counting.noise import NoisePeak
    from stemstore.conversion.counting.regions import Region
    from stemstore_schemas import CountingDescription

METHOD = "truncated binned Gaussian, maximum likelihood, version 1"

Level = float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RegionThresholds:
    """Limits of one region, and what they rest on (ADU, after corrections).

    Attributes
    ----------
    region
        Name, rows and columns.
    background, xray
        A pixel is a candidate when background < value < xray; an infinite `xray` is no limit.
    peak
        The fitted noise; None where the background was given.
    mean, spread, minimum, maximum
        Of all sampled pixels, electrons included; None where nothing was sampled.
    n_pixels
        Pixels that were sampled.
    false_events_per_frame
        Expected from noise alone; None where no peak was fitted.
    """

    region: Region
    background: float
    xray: float
    peak: NoisePeak | None = None
    mean: float | None = None
    spread: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    n_pixels: int = 0
    false_events_per_frame: float | None = None

    @property
    def cut(self) -> int | None:
        """Smallest integer above the background."""
        return math.floor(self.background) + 1 if math.isfinite(self.background) else None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits between which a pixel may be an electron, and what they rest on (ADU, pedestal included).

    Attributes
    ----------
    background, xray
        A pixel is a candidate when background < value < xray; `xray` None switches the upper limit off. One number,
        or one per region.
    pedestal_mean, pedestal_sigma
        Fitted mean and width of the noise peak, the rounding to integers included; None when not fitted. Means over
        the regions where there are several.
    background_sigma, xray_sigma
        How far above the peak, and above the mean of all pixels, the limits lie; None when given directly.
    n_frames
        Frames that were sampled.
    false_events_per_frame
        Expected local maxima per frame from noise alone; None when not fitted.
    regions
        Every region with its limits and statistics; empty where limits for the whole detector were stated and
        nothing was fitted.
    """

    background: Level
    xray: Level | None
    pedestal_mean: float | None = None
    pedestal_sigma: float | None = None
    background_sigma: float | None = None
    xray_sigma: float | None = None
    n_frames: int = 0
    false_events_per_frame: float | None = None
    regions: tuple[RegionThresholds, ...] = ()

    @property
    def stated(self) -> bool:
        """Whether the background was given and not estimated."""
        return self.pedestal_mean is None

    def levels(self, frame_shape: tuple[int, int]) -> tuple[Any, Any, Any]:
        """Borders of column spans, and limits of every row and span, as `stemstore.kernels.counting.Limits` takes."""
        if len(self.regions) < 2:  # noqa: PLR2004  # one region is the whole detector
            return None, self.background, self.xray
        grid = Grid.of([entry.region for entry in self.regions], frame_shape)
        backgrounds = grid.spread([entry.background for entry in self.regions])
        return grid.bounds, backgrounds, grid.spread([entry.xray for entry in self.regions])

    def summary(self) -> dict[str, Any]:
        """Give the figures that people ask for, as plain values."""
        return {
            "background": list(self.background) if isinstance(self.background, tuple) else self.background,
            "xray": list(self.xray) if isinstance(self.xray, tuple) else self.xray,
            "pedestal_mean": self.pedestal_mean,
            "pedestal_sigma": self.pedestal_sigma,
            "false_events_per_frame": self.false_events_per_frame,
        }

    def describe(self, rule: Any, n_events: int | None = None) -> CountingDescription:
        """Write the thresholds as metadata of a counted store."""
        from stemstore_schemas import CountingDescription, CountingRegion

        top = math.inf if self.xray is None else self.xray
        entries = [
            CountingRegion(
                name=entry.region.name,
                rows=entry.region.rows,
                columns=entry.region.columns,
                background_threshold=entry.background,
                cut=entry.cut,
                xray_threshold=entry.xray,
                pedestal_mean=entry.peak and entry.peak.mean,
                noise_sigma=entry.peak and entry.peak.sigma,
                pedestal_sigma=entry.peak and entry.peak.width,
                mean=entry.mean,
                standard_deviation=entry.spread,
                minimum=entry.minimum,
                maximum=entry.maximum,
                n_sampled_pixels=entry.n_pixels or None,
                false_events_per_frame=entry.false_events_per_frame,
            )
            for entry in self.regions
        ]
        return CountingDescription(
            rule=rule,
            background_threshold=list(self.background) if isinstance(self.background, tuple) else [self.background],
            xray_threshold=max(top) if isinstance(top, tuple) else top,
            pedestal_mean=self.pedestal_mean,
            pedestal_sigma=self.pedestal_sigma,
            background_sigma=self.background_sigma,
            xray_sigma=self.xray_sigma,
            n_sampled_frames=self.n_frames or None,
            n_events=n_events,
            false_events_per_frame=self.false_events_per_frame,
            method=METHOD if self.pedestal_mean is not None else None,
            regions=entries,
        )
