"""Drawing on matplotlib axes in the coordinates of labelled arrays: pixels, scale bars, outlines, missing pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray

NICE = (1, 2, 5)
BAR_SHARE = 0.3  # of the picture's width at most
UNIT_TEXTS = {"1/angstrom": "1/Å", "angstrom": "Å", "1": ""}
SMALL, NORMAL = 8, 9  # points
WIDTH, HEIGHTS = 3.6, (1.0, 7.0)  # inches of a picture that gets a figure of its own
EDGE, TITLE, TICKS = 0.08, 0.25, (0.6, 0.42)  # inches around it: nothing, a title, ticks at the left and below
BESIDE = {"": EDGE, "colour bar": 1.05, "wheel": 1.3}  # inches at its right


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the pixels of a plane lie.

    Attributes
    ----------
    dims
        Names of rows and columns.
    rows, columns
        Borders of the pixels, one more than there are pixels, in the units of the axes.
    units
        Of rows and columns.
    """

    dims: tuple[str, str]
    rows: FloatArray
    columns: FloatArray
    units: tuple[str, str]

    @classmethod
    def of(cls, image: xr.DataArray, dims: tuple[str, str]) -> Grid:
        """Take the coordinates of an array; an axis without one counts pixels."""
        units = tuple(image[dim].attrs.get("units", "pixel") if dim in image.coords else "pixel" for dim in dims)
        return cls(dims, _borders(image, dims[0]), _borders(image, dims[1]), (units[0], units[1]))

    @property
    def even(self) -> bool:
        """Whether all pixels have the same size."""
        return all(np.allclose(np.diff(axis), axis[1] - axis[0], rtol=1e-6, atol=0) for axis in self.axes)

    @property
    def axes(self) -> tuple[FloatArray, FloatArray]:
        """Borders along rows and columns."""
        return self.rows, self.columns

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Outer borders: left and right of the first and last column, below the last and above the first row."""
        return float(self.columns[0]), float(self.columns[-1]), float(self.rows[-1]), float(self.rows[0])

    @property
    def aspect(self) -> float:
        """Height of a unit of the rows over the width of a unit of the columns; pixels are square for unlike units."""
        if self.units[0] == self.units[1]:
            return 1.0
        height, width = (float(np.median(np.abs(np.diff(axis)))) for axis in self.axes)
        return width / height


def _borders(image: xr.DataArray, dim: str) -> FloatArray:
    """Borders of the pixels along one axis, halfway between their middles."""
    if dim not in image.coords:
        return np.arange(image.sizes[dim] + 1, dtype=np.float64) - 0.5
    middles = np.asarray(image[dim].values, np.float64)
    steps = np.diff(middles)
    if len(middles) == 0 or not ((steps > 0).all() or (steps < 0).all()):
        msg = (
            f"the coordinate {dim!r} is empty or not in order, so its pixels have no place; select each once, in order"
        )
        raise InputError(msg, key=dim, found=middles.shape)
    if len(steps) == 0:
        steps = np.array([abs(float(image[dim].attrs.get("step", 1.0)))])
    first, last = middles[0] - steps[0] / 2, middles[-1] + steps[-1] / 2
    return np.concatenate([[first], (middles[1:] + middles[:-1]) / 2, [last]])


def axes_for(ax: Any, grid: Grid, *, ticks: bool, title: str | None, beside: str) -> Any:
    """Give the axes to draw on; without any, those of a new figure of pyplot in which all fits without a gap.

    Parameters
    ----------
    ax, grid
        What the user gave, and what is to be drawn.
    ticks, title, beside
        What stands around the picture; `beside` is a key of ``BESIDE``.

    Raises
    ------
    OptionalDependencyError
        matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401  (asks whether it is there)
    except ImportError as error:
        msg = "pictures need matplotlib, which is not installed; run: pip install 'stemstore[view]'"
        raise OptionalDependencyError(msg, package="matplotlib") from error
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    rows, columns = (abs(float(axis[-1] - axis[0])) for axis in grid.axes)
    height = min(max(WIDTH * rows * grid.aspect / columns, HEIGHTS[0]), HEIGHTS[1])
    width = min(WIDTH, height * columns / (rows * grid.aspect))
    left, below = TICKS if ticks else (EDGE, EDGE)
    whole = left + width + BESIDE[beside], below + height + (EDGE if title is None else TITLE)
    figure = plt.figure(figsize=whole)
    return figure.add_axes((left / whole[0], below / whole[1], width / whole[0], height / whole[1]))


def draw(ax: Any, values: Array, missing: BoolArray, grid: Grid, **options: Any) -> Any:
    """Draw a plane, or its colours (rows, columns, 3), at its coordinates, first axis downwards; hatch what is missing.

    Returns
    -------
    shown
        What a colour bar can be made of.
    """
    if values.ndim > missing.ndim:
        shown_values: Any = np.concatenate([values, ~missing[..., None]], axis=-1)
    else:
        shown_values = np.ma.masked_array(values, missing)
    if grid.even:
        shown = ax.imshow(shown_values, extent=grid.extent, origin="upper", **options)
    else:
        shown = ax.pcolormesh(grid.columns, grid.rows, shown_values, **options)
    left, right, bottom, top = grid.extent
    ax.set_xlim(min(left, right), max(left, right))
    ax.set_ylim(max(bottom, top), min(bottom, top))
    ax.set_aspect(grid.aspect)
    if missing.any():
        from matplotlib.patches import Rectangle

        ground = Rectangle((left, bottom), right - left, top - bottom, gid="missing")
        ground.set(facecolor="0.88", edgecolor="0.55", hatch="////", linewidth=0.0)
        ground.set_zorder(-1)  # below everything, seen where nothing is drawn
        ax.add_patch(ground)
    return shown


def frame(ax: Any, grid: Grid, *, scale_bar: bool, title: str | None) -> None:
    """Finish a picture: a scale bar in place of ticks, or ticks with names and units."""
    if title is not None:
        ax.set_title(title, fontsize=NORMAL)
    for side in ax.spines.values():
        side.set_linewidth(0.6)
    if not scale_bar:
        for name, unit, put in zip(grid.dims, grid.units, (ax.set_ylabel, ax.set_xlabel), strict=True):
            put(with_unit(name, unit), fontsize=NORMAL)
        ax.tick_params(labelsize=SMALL, width=0.6)
        return
    ax.set_xticks([])
    ax.set_yticks([])
    add_scale_bar(ax, grid)


def add_scale_bar(ax: Any, grid: Grid) -> None:
    """Draw a bar of a round length along the columns, with its length written above."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    width = abs(float(grid.columns[-1] - grid.columns[0]))
    length = round_length(BAR_SHARE * width)
    if grid.units[1] == "pixel":
        length = max(length, 1.0)
    start, place = float(grid.columns.min()) + 0.05 * width, ax.get_xaxis_transform()
    edge = [withStroke(linewidth=4.5, foreground="black", alpha=0.8)]
    bar = Line2D([start, start + length], [0.06, 0.06], transform=place, color="white", linewidth=3, gid="scale-bar")
    bar.set(solid_capstyle="butt", path_effects=edge)
    ax.add_line(bar)
    ax.annotate(
        f"{length:g} {unit_text(grid.units[1])}",
        (start, 0.06),
        xycoords=place,
        xytext=(0, 4),
        textcoords="offset points",
        color="white",
        fontsize=NORMAL,
        path_effects=[withStroke(linewidth=1.5, foreground="black", alpha=0.8)],
    )


def round_length(most: float) -> float:
    """Largest of … 0.5, 1, 2, 5, 10 … that is not larger than `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return max((n * power for n in NICE if n * power <= most), default=power)


def add_colour_bar(ax: Any, shown: Any, label: str, *, extend: str = "neither") -> None:
    """Draw a colour bar exactly as high as the picture."""
    room = ax.inset_axes((1.03, 0.0, 0.045, 1.0))
    bar = ax.figure.colorbar(shown, cax=room, extend=extend, extendfrac=0.03)
    bar.set_label(label, fontsize=NORMAL)
    bar.outline.set_linewidth(0.6)
    bar.ax.tick_params(which="both", labelsize=SMALL, width=0.6)


def with_unit(name: str, unit: str) -> str:
    """Write a name with its unit."""
    text = unit_text(unit)
    return f"{name} ({text})" if text else name


def unit_text(unit: str) -> str:
    """Write a unit as it is read in a picture."""
    return UNIT_TEXTS.get(unit, unit).replace("^2", "²")


def outline(ax: Any, inside: BoolArray, grid: Grid, *, colour: str, label: str) -> Any:
    """Draw the border of a region along the borders of its pixels."""
    from matplotlib.collections import LineCollection

    flat = [((x, y), (u, y)) for y, x, u in _border_lines(inside, grid.rows, grid.columns)]
    upright = [((x, y), (x, v)) for x, y, v in _border_lines(inside.T, grid.columns, grid.rows)]
    # a dark line below makes the outline legible on bright pixels
    for width, shade, name in ((2.6, "black", "_"), (1.3, colour, label)):
        lines = LineCollection(flat + upright, colors=shade, linewidths=width, label=name, capstyle="projecting")
        ax.add_collection(lines, autolim=False)
    return lines


def _border_lines(inside: BoolArray, across: FloatArray, along: FloatArray) -> list[tuple[float, float, float]]:
    """Straight pieces of a region's border along its rows: place across the rows, begin and end along them."""
    padded = np.pad(inside.astype(np.int8), ((1, 1), (0, 0)))
    border = np.pad(padded[1:] != padded[:-1], ((0, 0), (1, 1))).astype(np.int8)
    turn = np.diff(border, axis=1)
    (number, begin), (_, end) = np.nonzero(turn == 1), np.nonzero(turn == -1)
    return list(zip(across[number].tolist(), along[begin].tolist(), along[end].tolist(), strict=True))
