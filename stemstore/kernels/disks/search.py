"""The disks of one frame: from pixels to a list of positions and intensities.

Order of the steps: background and noise; maxima of the detection map away from the border; visible share; absolute
threshold (from the noise, with the local background); relative threshold; spacing; number. Then every remaining peak is
refined, half of the spacing is checked again, because two candidates may meet, and hot pixels are left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stemstore.kernels import correlation
from stemstore.kernels.disks.frame import loadable, make_ready, offset_of
from stemstore.kernels.disks.likelihood import refine
from stemstore.kernels.disks.newton import newton
from stemstore.kernels.disks.rows import likely_disks, write_disks
from stemstore.kernels.disks.sums import disk_sums
from stemstore.kernels.disks.surroundings import MAD, Rules
from stemstore.kernels.peaks import STEPS, candidates

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array
    from stemstore.kernels.background import Background
    from stemstore.kernels.disks.plan import DiskPlan

COLUMNS = ("ky", "kx", "intensity", "correlation", "sigma_q")
"""Meaning of the last axis of a disk list: row and column in px, counts, counts per pixel, px."""

FILTERS = (*STEPS, "min_spacing after refinement", "hot pixel")
"""What the numbers of `filter_counts` are left after, in this order."""

ROUNDING = 1e-6  # rounding of a float32 transform pair, relative to the norms of frame and kernel


def frame_disks(frame: Array, plan: DiskPlan, out: Array) -> int:
    """Find the disks of one frame.

    Parameters
    ----------
    frame : shape plan.frame_shape, counts
        Any integer or float dtype; a pixel that is not finite is replaced by the mean of its neighbours.
    plan
        From `stemstore.kernels.disks.plan.plan_disks`.
    out : shape (max_peaks, len(COLUMNS)), float32
        Filled with the columns of the disks, see `COLUMNS`, largest correlation first, then NaN.

    Returns
    -------
    n_disks

    Notes
    -----
    Intensity: see `stemstore.kernels.disks.sums.disk_sums`. sigma_q: the standard deviation per axis that a disk of its
    counts on its background can be located with, see `stemstore.kernels.disks.sums.precision`; the mode
    ``"likelihood"`` comes close to it.
    """
    return int(_find(frame, plan, out)[-1])


def filter_counts(frame: Array, plan: DiskPlan) -> dict[str, int]:
    """Count the peaks of one frame that are left after each step.

    Parameters
    ----------
    frame, plan
        As of `frame_disks`.

    Returns
    -------
    counts
        By the names of `FILTERS`, in this order: ``"maxima"`` are those of the detection map that come near the
        absolute threshold on the level of the frame and keep `edge_boundary`, the last one is the number of disks.
    """
    out = np.empty((plan.parameters.max_peaks, len(COLUMNS)), np.float32)
    return dict(zip(FILTERS, _find(frame, plan, out).tolist(), strict=True))


def _find(frame: Array, plan: DiskPlan, out: Array) -> Int64Array:
    """Write the table of the disks; give the numbers of peaks left after each of `FILTERS`."""
    options, shown = plan.parameters, plan.visibility
    frame = loadable(frame)
    offset = offset_of(frame)
    image, binned = correlation.workspace(plan.frame_shape, shown.margin, plan.fft_shape)
    sizes = shown.margin, options.binning, max(4, round(options.radius))
    noise, norm = make_ready(frame, (plan.bad, shown.bins), offset, frame.dtype.kind in "ui", (image, binned), sizes)
    spectrum = correlation.transform(binned)
    score = _detection_map(spectrum, plan)
    floor = ROUNDING * norm * math.sqrt(plan.square) / options.binning
    rules, rest = _rules(score, plan, noise, floor), (offset, options.edge_width)
    visible = shown.good, shown.partial, shown.bins, shown.share
    if plan.bank is not None and options.power == 1:
        return likely_disks((score, binned, image), visible, rules, plan.bank, plan.response, rest, out)
    positions, values, (excess, slopes), tally = candidates(score, binned, shown.bins, shown.share, rules)
    if plan.bank is not None:  # the map has no unit
        heights = disk_sums(image, shown.good, shown.margin, positions, options.radius, options.edge_width).counts
        backgrounds = rules.level + np.maximum(excess, 0.0), slopes
        heights = heights / (math.pi * options.radius**2)
        positions = refine(image, visible[:2], positions, heights, backgrounds, offset, plan.bank)
    elif options.subpixel == "none":
        positions = np.round(positions)
    elif plan.sharp is not None:
        positions = newton(correlation.weighted(spectrum, plan.sharp, options.power), plan.fft_shape, positions)
    return np.append(tally, write_disks(image, shown.good, positions, values, rules, rest, out))


def _detection_map(spectrum: Array, plan: DiskPlan) -> Array:
    """Correlate with the detection kernel; with its parts where their visible shares differ from place to place."""
    power = plan.parameters.power
    maps = [correlation.correlate(spectrum, kernel, plan.fft_shape, power) for kernel in plan.kernels]
    gains = plan.visibility.gains
    if gains is None:
        return maps[0]
    rows, columns = gains.shape[1:]
    score: Array = maps[0][:rows, :columns] * gains[0] - maps[1][:rows, :columns] * gains[1]
    return score


def _rules(score: Array, plan: DiskPlan, noise: Background, floor: float) -> Rules:
    """Put together what a maximum of this frame must be; `floor` is the rounding of its map."""
    options = plan.parameters
    least, local = floor, options.min_abs is None and options.power == 1
    if options.min_abs is not None:
        least = max(options.min_abs, floor)
    elif options.power != 1:  # the map has no unit: its own spread is the noise
        least = max(floor, options.significance * MAD * float(np.median(np.abs(score))))
    return Rules(
        rows=plan.frame_shape[0],
        columns=plan.frame_shape[1],
        binning=options.binning,
        radius=options.radius,
        border=options.edge_boundary,
        spacing=options.min_spacing,
        min_visible=options.min_visible,
        min_rel=options.min_rel,
        relative_to=options.relative_to,
        max_peaks=options.max_peaks,
        significance=options.significance,
        least=least,
        scaled=plan.visibility.gains is not None,
        local=local,
        level=noise.level,
        variance=noise.variance,
        quantum=noise.quantum,
        square=plan.square,
        peak=plan.peak,
    )
