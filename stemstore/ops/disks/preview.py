"""A look at the disks of a few patterns before the whole scan is searched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore.errors import InputError, OptionalDependencyError
from stemstore.ops.disks.detection import Detection
from stemstore.ops.disks.run import search
from stemstore.ops.disks.sample import checked_positions, patterns_at, some_positions
from stemstore.ops.disks.table import table_of
from stemstore.ops.labels import intensity_of, recorded, scan_dims
from stemstore.ops.roi import map_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore.ops.disks.detection import DetectionOptions
    from stemstore.ops.disks.table import DiskTable

N_PATTERNS = 6
ACROSS = 3  # pictures side by side
SIZE = 3.2  # inches of a picture

LOOSE = {"min_rel": 0.0, "relative_to": 0, "edge_boundary": 1, "min_visible": 0.2, "significance": 2.5}
"""Filters that let through what the given ones may reject."""

KEPT, REJECTED = "#00e5ff", "#ff5252"


def preview_disks(
    scan: Any,
    positions: Sequence[tuple[int, ...]] | None = None,
    template: Any | None = None,
    *,
    radius: float | None = None,
    **options: Unpack[DetectionOptions],
) -> tuple[Any, xr.Dataset]:
    """Find the disks of a few patterns and draw them, in about a second.

    Circles of the radius of the probe: cyan for the disks that `find_disks` would give, red and dashed for what looser
    filters find beside them (no relative threshold, half the absolute one, up to the edge of the detector, half the
    spacing). Where red circles sit on disks that are meant, loosen the filters; where cyan ones sit on nothing, tighten
    them.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    positions
        Indices along the scan axes, such as ``[(0, 0), (3, 17)]``; by default six at random, always the same, of those
        that have a frame and lie in `roi`.
    template, radius, **options
        As for `find_disks`.

    Returns
    -------
    figure
        Of matplotlib.
    disks : dims pattern, peak, bound
        What `find_disks` gives for these patterns; the scan's coordinates tell where they are.

    Raises
    ------
    InputError
        A position lies outside the scan, or as for `find_disks`.
    OptionalDependencyError
        matplotlib is not installed.

    Notes
    -----
    Reads these patterns only. Memory: the patterns, and about six frames in single precision.

    Examples
    --------
    >>> figure, disks = stemstore.preview_disks(ds, radius=8, min_rel=0.02)  # doctest: +SKIP
    """
    plt = _pyplot()
    settings: Any = dict(options)
    image = intensity_of(scan)
    chosen = _chosen(image, positions, settings.pop("roi", None))
    patterns = patterns_at(image, chosen)
    disks = search(Detection.of(patterns, template, radius, **settings))
    half = {name: disks.attrs[name] / 2 for name in ("min_spacing", "min_abs") if name in disks.attrs}
    more = search(Detection.of(patterns, template, radius, **{**settings, **LOOSE, **half}))
    rows = -(-len(chosen) // ACROSS)
    across = min(ACROSS, len(chosen))
    figure = plt.figure(figsize=(SIZE * across, SIZE * 1.12 * rows), layout="constrained")
    kept, found, radius = table_of(disks), table_of(more), disks.attrs["radius"]
    for number, position in enumerate(chosen):
        ax = figure.add_subplot(rows, across, number + 1)
        where = ", ".join(f"{dim} {index}" for dim, index in zip(scan_dims(image), position, strict=True))
        rejected = _rejected(kept, found, number, radius / 2)
        _draw(ax, patterns[number], _places(kept, number), rejected, radius, where)
    return figure, disks


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        msg = "pictures need matplotlib, which is not installed; run: pip install 'stemstore[view]'"
        raise OptionalDependencyError(msg, package="matplotlib") from error
    return plt


def _chosen(image: xr.DataArray, positions: Any, roi: Any) -> list[tuple[int, ...]]:
    """Give the positions to look at."""
    if positions is not None:
        return checked_positions(image, positions)
    known = recorded(image)
    allowed = np.ones(image.shape[:-2], np.bool_) if known is None else known
    if roi is not None:
        allowed = allowed & map_of(image, roi, "roi", bool)
    if not allowed.any():
        msg = "no position has a frame, or none that lies in roi=; choose positions"
        raise InputError(msg, key="positions")
    return some_positions(allowed, N_PATTERNS)


def _places(table: DiskTable, number: int) -> FloatArray:
    here = table.disks_of((number,))
    return np.stack([table.qy[here], table.qx[here]], axis=1).astype(np.float64)


def _rejected(kept: DiskTable, found: DiskTable, number: int, near: float) -> FloatArray:
    """Disks of the loose search without one of the kept disks near them."""
    ours, theirs = _places(kept, number), _places(found, number)
    if not len(ours):
        return theirs
    away = np.hypot(*(theirs[:, None, :] - ours[None, :, :]).transpose(2, 0, 1)).min(axis=1)
    return theirs[away > near]


def _draw(ax: Any, pattern: Any, kept: FloatArray, rejected: FloatArray, radius: float, where: str) -> None:
    """Draw one pattern with circles on its axes."""
    from matplotlib.patches import Ellipse

    from stemstore.scan.drawing.plot import Plots

    title = f"{where}: {len(kept)} disks" if where else f"{len(kept)} disks"
    if rejected.size:
        title += f", {len(rejected)} rejected"
    Plots(pattern).pattern(ax, colorbar=False, center=False, title=title)
    steps = [abs(_slope(pattern, dim)) for dim in ("ky", "kx")]
    for places, colour, style in ((rejected, REJECTED, "--"), (kept, KEPT, "-")):
        for row, column in places:
            middle = (_at(pattern, "kx", column), _at(pattern, "ky", row))
            circle = Ellipse(middle, 2 * radius * steps[1], 2 * radius * steps[0], fill=False, color=colour)
            circle.set(linewidth=1.0, linestyle=style, gid="kept" if colour == KEPT else "rejected")
            ax.add_patch(circle)


def _at(pattern: Any, dim: str, pixel: float) -> float:
    """Coordinate of a fractional pixel."""
    if dim not in pattern.coords:
        return float(pixel)
    axis = pattern.coords[dim].values
    near = min(max(math.floor(pixel), 0), max(0, len(axis) - 2))
    return float(axis[near] + (pixel - near) * _slope(pattern, dim))


def _slope(pattern: Any, dim: str) -> float:
    if dim not in pattern.coords or pattern.sizes[dim] == 1:
        return 1.0
    axis = pattern.coords[dim].values
    return float(axis[-1] - axis[0]) / (len(axis) - 1)
