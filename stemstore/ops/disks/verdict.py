"""What a disk detection says about its result: lists that may be cut, and why there is nothing at all."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.corrections import CorrectedKernel
from stemstore.kernels.disks.search import FILTERS, filter_counts
from stemstore.ops.disks.sample import patterns_at, some_positions

if TYPE_CHECKING:
    import xarray as xr

    from stemstore.ops.disks.detection import Detection

LOOKED_AT = 8
"""Patterns in which the filters are counted where nothing was found."""


class DiskWarning(UserWarning):
    """The list of disks is empty or may be cut; it is returned all the same."""


def judge(detection: Detection, disks: xr.Dataset) -> None:
    """Warn about lists that may be cut and about patterns without any maximum.

    Raises
    ------
    InputError
        There are maxima, but the filters removed all of them.
    """
    full, most = disks.attrs["n_full"], disks.attrs["max_peaks"]
    if full:
        msg = f"{full} patterns have as many disks as max_peaks={most} allows; raise it to see whether there are more"
        warnings.warn(msg, DiskWarning, stacklevel=4)
    processed = disks["processed"].values
    if disks.sizes["peak"] or not processed.any():
        return
    looked = some_positions(processed, LOOKED_AT)
    left = counts_after_filters(detection, looked)
    which = f"no disks in {int(processed.sum())} patterns"
    if not left["maxima"]:
        limit = (
            f"min_abs={disks.attrs['min_abs']:g}"
            if "min_abs" in disks.attrs
            else f"significance={disks.attrs['significance']:g}"
        )
        msg = (
            f"{which}: in {len(looked)} of them no maximum of the detection map exceeds {limit} further than "
            f"edge_boundary={disks.attrs['edge_boundary']} px from the edge; check radius={disks.attrs['radius']:g}, "
            "or look at them with preview_disks"
        )
        warnings.warn(msg, DiskWarning, stacklevel=4)
        return
    steps = ", ".join(f"{count} after {name}" for name, count in left.items() if name != "maxima")
    last = next(name for name, count in left.items() if not count)
    msg = (
        f"{which}: of {left['maxima']} maxima in {len(looked)} of them the filters leave {steps}; relax {last!r}, or "
        "look at them with preview_disks"
    )
    raise InputError(msg, key=last, found=left)


def counts_after_filters(detection: Detection, positions: list[tuple[int, ...]]) -> dict[str, int]:
    """Count what is left after every filter in some patterns, see `stemstore.kernels.disks.search.filter_counts`."""
    frames = np.ascontiguousarray(patterns_at(detection.image, positions).values)
    if isinstance(detection.kernel, CorrectedKernel):
        frames = detection.kernel.corrections.apply(frames)
    total: Counter[str] = Counter()
    for frame in frames:
        total.update(filter_counts(frame, detection.plan))
    return {name: total[name] for name in FILTERS}
