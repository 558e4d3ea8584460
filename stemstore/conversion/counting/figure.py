"""A picture of pixel values: noise peak, tail of the electrons, and the thresholds between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    from stemstore._types import FloatArray
    from stemstore.conversion.counting.noise import NoisePeak
    from stemstore.conversion.counting.probe import Probe

SHOWN_WIDTHS = 120.0  # of the noise above the pedestal: past the most that one electron leaves
DPI = 150


def draw_thresholds(seen: Probe, path: str | os.PathLike[str], title: str) -> None:
    """Save the histogram of a few frames with the fitted noise and the thresholds.

    Parameters
    ----------
    seen
        What the frames told.
    path
        File; its ending decides the format.
    title
        Name of the data.

    Raises
    ------
    InputError
        There are no pixel values, or no noise peak, to show; or the ending is not known.
    OptionalDependencyError
        Matplotlib is not installed.
    """
    chosen, histogram = seen.thresholds, seen.histogram
    entry = chosen.regions[0] if chosen is not None and chosen.regions else None
    if histogram is None or entry is None or entry.peak is None:
        msg = f"{title!r} shows no noise peak, so there is no fit to plot; leave plot out"
        raise InputError(msg, key="plot", url=title)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "a plot needs matplotlib; install it with pip install 'stemstore[view]', or leave plot out"
        raise OptionalDependencyError(msg, extra="view") from error
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    peak = entry.peak
    kept = np.flatnonzero((histogram.counts > 0) & (histogram.values < peak.mean + SHOWN_WIDTHS * peak.width))
    axes.semilogy(histogram.values[kept], histogram.counts[kept], ".", markersize=3, label="pixels")
    model = expected_pixels(peak, histogram.values, histogram.width, histogram.n_pixels)
    fitted = np.flatnonzero(model > 0.1)  # noqa: PLR2004  # a tenth of a pixel: the curve ends at the axis
    axes.semilogy(histogram.values[fitted], model[fitted], label=f"noise {peak.mean:.4g} ± {peak.width:.3g} ADU")
    axes.axvline(entry.background, color="tab:red", label=f"background {entry.background:.4g} ADU")
    if entry.xray < axes.get_xlim()[1]:
        axes.axvline(entry.xray, color="tab:purple", label=f"X-ray {entry.xray:.4g} ADU")
    axes.set(xlabel="pixel value (ADU)", ylabel="pixels", ylim=(0.5, None), title=os.path.basename(title))  # noqa: PTH119  # may be a URL
    axes.legend()
    _save(figure, path)


def expected_pixels(peak: NoisePeak, values: FloatArray, width: float, n_pixels: int) -> FloatArray:
    """Give the number of pixels that the noise alone would have at every value."""
    from scipy.special import ndtr

    low, high = ((values + side * width / 2 - peak.mean) / peak.sigma for side in (-1, 1))
    return np.asarray(n_pixels * (ndtr(high) - ndtr(low)), np.float64)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    try:
        figure.savefig(os.fspath(path), dpi=DPI)
    except ValueError as error:
        msg = (
            f"the plot cannot be written as {os.fspath(path)!r} ({error}); give a name that ends in .png, .pdf or .svg"
        )
        raise InputError(msg, key="plot", found=os.fspath(path)) from error
    except OSError as error:
        from pathlib import Path

        from stemstore.store.refusal import refused

        raise refused(error, Path(path), "write") from error
