"""Pictures of the demonstration: images with scale bars, patterns with detectors, phases beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import OptionalDependencyError
from stemstore.ops.phase.colours import vector_colours

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from stemstore._types import Array

DPI = 110
NICE = (1, 2, 5)


def pyplot() -> Any:
    """Give matplotlib without a display.

    Raises
    ------
    OptionalDependencyError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "pictures need matplotlib, which is not installed; run: pip install 'stemstore[view]'"
        raise OptionalDependencyError(msg, package="matplotlib") from error
    return Figure


def save_images(path: Path, images: dict[str, Any], *, step: tuple[float, str], cmap: str = "gray") -> Path:
    """Draw maps of the scan side by side with one scale bar each.

    Parameters
    ----------
    path
        PNG to write.
    images
        Title and array (y, x); dict order is left to right.
    step
        Size of a pixel and its unit.
    """
    figure = pyplot()(figsize=(3.1 * len(images), 3.3), dpi=DPI, layout="constrained")
    for axes, (title, image) in zip(np.atleast_1d(figure.subplots(1, len(images))), images.items(), strict=True):
        shown = axes.imshow(np.asarray(image), cmap=cmap)
        bar = figure.colorbar(shown, ax=axes, shrink=0.8)
        bar.ax.tick_params(labelsize=7)
        add_scale_bar(axes, np.shape(image)[1], *step)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path)
    return path


def save_vectors(path: Path, com: xr.Dataset, truth: Array, *, step: tuple[float, str]) -> Path:
    """Draw measured and true deflections as colours: hue is the direction, brightness the length.

    Parameters
    ----------
    com
        With ``com_y`` and ``com_x``.
    truth : shape (y, x, 2)
        Known deflection, same unit.
    """
    measured = np.stack([com.com_y.values, com.com_x.values], axis=-1)
    longest = float(np.quantile(np.hypot(*np.moveaxis(truth, -1, 0)), 0.995))
    figure = pyplot()(figsize=(7.6, 3.3), dpi=DPI, layout="constrained")
    panels = {"centre of mass (counted)": measured, "phase gradient (truth)": truth, "direction": _wheel(longest)}
    for axes, (title, field) in zip(figure.subplots(1, 3, width_ratios=[3, 3, 1]), panels.items(), strict=True):
        axes.imshow(vector_colours(field, longest))
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        if title != "direction":
            add_scale_bar(axes, field.shape[1], *step)
    figure.savefig(path)
    return path


def save_pattern(path: Path, pattern: xr.DataArray, rings: dict[str, tuple[float, str]], disks: xr.Dataset) -> Path:
    """Draw the mean pattern with detectors, and one summed pattern with the disks that were found.

    Parameters
    ----------
    pattern
        Mean pattern (ky, kx) with calibrated axes.
    rings
        Name, radius in pixels and colour of circles around the optic axis.
    disks
        One group: ``qy``, ``qx`` and the pattern itself as ``pattern``.
    """
    from matplotlib.patches import Circle

    figure = pyplot()(figsize=(9.2, 4.5), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    step = sampling(pattern.kx)
    row, column = ((n - 1) / 2 for n in pattern.shape)
    left.imshow(np.log1p(100 * pattern.values), cmap="magma")
    for name, (radius, colour) in rings.items():
        left.add_patch(Circle((column, row), radius, fill=False, color=colour, lw=1.2, label=name))
    left.legend(fontsize=7, loc="upper right")
    left.set_title("mean pattern (log) and detectors", fontsize=9)
    right.imshow(np.log1p(disks.pattern.values), cmap="magma")
    right.plot(disks.qx, disks.qy, "c+", ms=9, mew=1.4)
    right.set_title("summed pattern (log) and disks found", fontsize=9)
    for axes in (left, right):
        add_scale_bar(axes, pattern.shape[1], *step)
        axes.set_axis_off()
    figure.savefig(path)
    return path


def save_overview(path: Path, panels: dict[str, Any], *, step: tuple[float, str], pixel: tuple[float, str]) -> Path:
    """Draw the whole job in one row: a pattern with its disks, then maps of the scan.

    Parameters
    ----------
    path
        PNG to write.
    panels
        Title and content, left to right: first a Dataset of one group as in `save_pattern`, then maps (y, x) or
        colours (y, x, 3).
    step, pixel
        Sampling of scan and detector with their units.
    """
    figure = pyplot()(figsize=(2.9 * len(panels), 3.35), dpi=DPI, layout="constrained")
    for number, (axes, (title, content)) in enumerate(
        zip(figure.subplots(1, len(panels)), panels.items(), strict=True)
    ):
        if number == 0:
            image, scale, cmap = np.log1p(content.pattern.values), pixel, "magma"
            axes.plot(content.qx, content.qy, "c+", ms=7, mew=1.2)
        else:
            image, scale, cmap = np.asarray(content), step, "gray" if number == 1 else "inferno"
        axes.imshow(image, cmap=cmap)
        add_scale_bar(axes, image.shape[1], *scale)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    figure.savefig(path)
    return path


def add_scale_bar(axes: Any, n_pixels: int, step: float, unit: str) -> None:
    """Draw a bar of a round length, about a quarter of the image wide, with its length written above."""
    wanted = n_pixels * step / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    length = max((n * power for n in NICE if n * power <= wanted), default=power)
    left, bottom = 0.05 * n_pixels, axes.get_ylim()[0] * 0.95
    axes.plot([left, left + length / step], [bottom, bottom], color="white", lw=3, solid_capstyle="butt")
    axes.plot([left, left + length / step], [bottom, bottom], color="black", lw=1, solid_capstyle="butt")
    text = axes.text(left, bottom - 0.03 * n_pixels, f"{length:g} {unit}", color="white", fontsize=8)
    text.set_bbox({"facecolor": "black", "alpha": 0.5, "pad": 1, "edgecolor": "none"})


def sampling(axis: xr.DataArray) -> tuple[float, str]:
    """Give step and unit of a coordinate."""
    return abs(float(axis[1] - axis[0])), str(axis.attrs["units"])


def _wheel(longest: float, size: int = 65) -> Array:
    row, column = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j] * longest
    field = np.stack([row, column], axis=-1)
    field[np.hypot(row, column) > longest] = 0
    return field
