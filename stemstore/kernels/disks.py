"""The disks of one frame: from pixels to a list of positions and intensities.

Order of the steps: background and noise; maxima of the detection map above the noise; brightest first; threshold with
the local background; relative threshold; spacing; number. Then every remaining peak climbs the refinement map, is
refined by a parabola, and the spacing is checked again, because two candidates may meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.kernels import background, correlation, peaks

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array
    from stemstore.kernels.disk_plan import DiskPlan

COLUMNS = ("ky", "kx", "intensity", "correlation")
"""Meaning of the last axis of a disk list: row and column in px, counts, counts per pixel."""

HOT_SHARE = 0.5  # one pixel holding more of the net counts than this is a hot pixel, not a disk
ROUNDING = 1e-6  # rounding of a float32 transform pair, relative to the norms of frame and kernel


def frame_disks(frame: Array, plan: DiskPlan, out: Array) -> int:
    """Find the disks of one frame.

    Parameters
    ----------
    frame : shape plan.frame_shape, counts
        Any integer or float dtype; a pixel that is not finite counts as bad.
    plan
        From `stemstore.kernels.disk_plan.plan_disks`.
    out : shape (max_peaks, 4), float32
        Filled with (row px, column px, counts, correlation) of the disks, largest correlation first, then NaN.

    Returns
    -------
    n_disks

    Notes
    -----
    Intensity: counts within the radius minus the mean of the ring from radius + 2 to radius + 5 px (without pixels that
    belong to other disks; its 20 % quantile where less than a quarter of the ring is left) times the area.
    """
    out[...] = np.nan
    options = plan.parameters
    frame = background.loadable(frame)
    level, variance, quantum = background.measure_background(frame, plan.bad, max(4, round(options.radius)))
    image = correlation.workspace(plan.fft_shape)
    if background.load(frame, plan.bad, level, image):
        background.fill(frame, plan.bad, image)
    norm = float(np.linalg.norm(image))
    detection, refinement = correlation.correlate(image, plan.detect, plan.refine)
    rows, columns = plan.frame_shape
    detection, refinement, image = (np.ascontiguousarray(m[:rows, :columns]) for m in (detection, refinement, image))
    noise = Noise(level, variance, quantum, ROUNDING * norm * math.sqrt(plan.detect_square))
    found = _candidates(detection, image, noise, plan)
    centres = peaks.parabola(refinement, peaks.climb(refinement, found, options.climb))
    keep = peaks.space_out(centres, options.min_spacing / 2)
    found, centres = found[keep], centres[keep]
    intensity, share = peaks.disk_sums(image, centres, options.radius, options.edge_width)
    disks = np.column_stack((centres, intensity, detection[found[:, 0], found[:, 1]]))[share <= HOT_SHARE]
    out[: len(disks)] = disks
    return len(disks)


def _candidates(detection: Array, image: Array, noise: Noise, plan: DiskPlan) -> Int64Array:
    """Find maxima, brightest first; then thresholds, spacing and number, in this order."""
    options = plan.parameters
    found = peaks.local_maxima(detection, options.edge_boundary, float(noise.limits(np.zeros(1), plan)[0]))
    score = detection[found[:, 0], found[:, 1]]
    order = np.argsort(-score, kind="stable")
    found, score = found[order], score[order]
    if options.min_abs is None:
        keep = score > noise.limits(peaks.ring_medians(image, found, options.radius), plan)
        found, score = found[keep], score[keep]
    if len(found) > options.relative_to:
        found = found[score >= options.min_rel * score[options.relative_to]]
    found = found[peaks.space_out(found.astype(np.float64), options.min_spacing)]
    return found[: options.max_peaks]


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of one frame, in the units of `background.measure_background`.

    Attributes
    ----------
    level, variance, quantum
        Counts and counts squared per pixel, counts per electron.
    floor : counts per pixel
        Rounding of the detection map.
    """

    level: float
    variance: float
    quantum: float
    floor: float

    def limits(self, excess: FloatArray, plan: DiskPlan) -> FloatArray:
        """Smallest significant correlation where the background is `excess` counts per pixel above the level."""
        options = plan.parameters
        if options.min_abs is not None:
            return np.full(len(excess), max(options.min_abs, self.floor))
        variance = np.maximum(self.variance, self.quantum * (self.level + excess)) * plan.detect_square
        limits = background.noise_limits(variance, self.quantum * plan.detect_peak, options.significance)
        return np.maximum(limits, self.floor)
