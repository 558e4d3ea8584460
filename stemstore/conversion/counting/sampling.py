"""Which frames of a scan thresholds rest on, and the histograms of their corrected values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stemstore.conversion.counting.noise import Histogram
from stemstore.conversion.counting.regions import Grid, Region
from stemstore.errors import CorruptDataError
from stemstore.kernels.counting_corrections import value_histogram
from stemstore.sources.contract import VALID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.conversion.counting.corrections import Corrections
    from stemstore.sources.contract import FrameSource

MIN_SAMPLES, MAX_SAMPLES = 64, 1024
N_VALUES = 2**16
N_BINS = 2**17  # for values that are no 16-bit integers: 8192 widths of the noise at 8 bins each, in both directions
BINS_PER_WIDTH = 8
ONE_SIGMA = 0.1587  # share of a Gaussian more than one standard deviation below its mean


def sampled_frames(source: FrameSource) -> Int64Array:
    """Flat positions of complete frames spread evenly over the whole scan, the same ones in every run.

    Raises
    ------
    CorruptDataError
        Not a single frame is complete.
    """
    n_frames = math.prod(source.scan_shape)
    complete = np.arange(n_frames) if source.validity is None else np.flatnonzero(source.validity == VALID)
    if len(complete) == 0:
        msg = (
            f"none of the {n_frames} frames is complete, so no threshold can be estimated; give background_threshold= "
            "and xray_threshold="
        )
        raise CorruptDataError(msg, n_frames=n_frames)
    n_samples = min(len(complete), max(MIN_SAMPLES, min(MAX_SAMPLES, n_frames // 100)))
    at = ((np.arange(n_samples) + 0.5) * len(complete) / n_samples).astype(np.int64)
    return complete[at].astype(np.int64)


def histograms(
    source: FrameSource, regions: Sequence[Region], corrections: Corrections | None
) -> tuple[list[Histogram], int, bool]:
    """Count the corrected pixel values of the sampled frames, region by region.

    Returns
    -------
    histograms
        One per region.
    n_frames
        Frames sampled.
    integers
        Whether the values are whole numbers.

    Raises
    ------
    CorruptDataError
        Not a single frame is complete, or none of their pixels is a number.

    Notes
    -----
    Memory: 8 bytes for each of at most 131 072 bins per region, one frame and its corrected copy.
    """
    numbers = sampled_frames(source).tolist()
    scratch = np.empty((1, *source.frame_shape), source.dtype)
    prepare = _prepared(source, corrections)
    values = prepare(source.read_frames(numbers[len(numbers) // 2], numbers[len(numbers) // 2] + 1, out=scratch))
    (origin, width), integers = _scale(values, plain=values is scratch)
    n_bins = N_VALUES if values is scratch and source.dtype.kind == "u" and source.dtype.itemsize <= 2 else N_BINS  # noqa: PLR2004  # bytes of the values
    counts = np.zeros((len(regions), n_bins), np.int64)
    grid = Grid.of(regions, source.frame_shape)
    for number in numbers:
        values = prepare(source.read_frames(number, number + 1, out=scratch))
        value_histogram(values, (grid.bounds, grid.number), (origin, width), counts)
    return [Histogram(origin, width, table) for table in counts], len(numbers), integers


def _prepared(source: FrameSource, corrections: Corrections | None) -> Callable[[Array], Array]:
    """Make the function that gives what a frame is counted by."""
    if corrections is None or corrections.nothing:
        return lambda frames: frames
    factors = corrections.factors()
    out = np.empty((1, *source.frame_shape), corrections.work_dtype)

    def prepare(frames: Array) -> Array:
        corrections.apply(frames, out, factors)
        return out

    return prepare


def _scale(frames: Array, *, plain: bool) -> tuple[tuple[float, float], bool]:
    """Choose the bins from one frame: whole numbers where values are such, else an eighth of the noise."""
    if plain and frames.dtype in (np.uint8, np.uint16):
        return (0.0, 1.0), True
    values = frames[np.isfinite(frames)] if frames.dtype.kind == "f" else frames.reshape(-1)
    if len(values) == 0:
        msg = "none of the sampled pixels is a number after corrections; check dark, gain and bad_pixels"
        raise CorruptDataError(msg)
    middle, below = (float(value) for value in np.quantile(values, (0.5, ONE_SIGMA)))
    if frames.dtype.kind in "iu" or bool((values == np.rint(values)).all()):
        return (math.floor(middle) - N_BINS / 4, 1.0), True
    width = (middle - below) / BINS_PER_WIDTH or 1.0
    return (middle - width * N_BINS / 4, width), False
