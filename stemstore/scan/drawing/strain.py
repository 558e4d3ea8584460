"""The figure of a strain map: three components and the rotation, with symmetric colours and the axes they refer to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError, OptionalDependencyError
from stemstore.scan.drawing.canvas import SMALL, Grid

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

STRAIN = {"e_yy": "%", "e_xx": "%", "e_xy": "%", "theta": "deg"}
"""Maps of the figure, and the units that they are drawn in."""
FACTORS = {"%": 100.0, "deg": math.degrees(1.0)}
SHARE = 99.0  # percent of the values that lie within the colours
ARROW = 22  # points
MAP, BAR, HEAD, HEIGHTS = 2.4, 0.9, 0.4, (1.0, 6.0)  # inches: width of a map, its colour bar, its title, its height
SCAN = ("y", "x")


def draw_strain(
    strain: Any,
    image: Callable[..., Any],
    axes: Any,
    limits: tuple[float | None, float | None],
    *,
    scale_bar: bool,
) -> Any:
    """Draw the four maps side by side, or on four axes that are given.

    Parameters
    ----------
    strain
        From `strain_map`, with the dims y and x.
    image
        Draws one map: ``image(array, ax, **options)``.
    axes
        Four axes of matplotlib, or None for a new figure.
    limits
        Largest strain (1) and rotation (rad) of the colours; None for the 99 % of the values closest to zero.
    scale_bar
        Show a scale bar in the first map.

    Returns
    -------
    axes : shape (4,)

    Raises
    ------
    InputError
        A map is missing, there are not four axes, or a limit is not positive.
    OptionalDependencyError
        matplotlib is not installed.
    """
    variables = getattr(strain, "data_vars", {})
    missing = [name for name in STRAIN if name not in variables or set(variables[name].dims) != set(SCAN)]
    if missing:
        msg = (
            f"a figure of strain needs {tuple(STRAIN)} with the dims {SCAN}, as strain_map gives them; {missing} are "
            "missing or have others"
        )
        raise InputError(msg, expected=tuple(STRAIN), found=missing)
    largest = _limits(strain, limits)
    places = _axes(axes, strain)
    for number, ((name, unit), ax) in enumerate(zip(STRAIN.items(), places, strict=True)):
        top = largest[unit] * FACTORS[unit]
        shown = (strain[name] * FACTORS[unit]).assign_attrs(strain[name].attrs | {"units": unit, "long_name": name})
        options = {"cmap": "RdBu_r", "vmin": -top, "vmax": top, "title": strain[name].attrs.get("long_name", name)}
        image(shown, ax, scale_bar=scale_bar and number == 0, **options)
        if scale_bar and number:
            ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    if scale_bar:
        _darken(places[0])
    _draw_axes(places[0], strain.attrs)
    return places


def _limits(strain: xr.Dataset, given: tuple[float | None, float | None]) -> dict[str, float]:
    """Colour limits by unit: one for the three strains, one for the rotation."""
    found = {}
    for unit, limit in zip(FACTORS, given, strict=True):
        if limit is not None and not limit > 0:
            msg = f"the largest value of the colours is above zero, got {limit!r}; leave it out for a range that fits"
            raise InputError(msg, key="limit", found=limit)
        values = np.concatenate([np.abs(strain[name].values).ravel() for name, own in STRAIN.items() if own == unit])
        values = values[np.isfinite(values)]
        auto = float(np.percentile(values, SHARE)) if len(values) else 0.0
        found[unit] = limit or auto or 1e-3  # a map of zeros
    return found


def _axes(given: Any, strain: xr.Dataset) -> Any:
    """Give four axes, in a row of a new figure where none are given."""
    if given is not None:
        places = np.asarray(given, object).ravel()
        if len(places) != len(STRAIN):
            msg = f"a figure of strain needs {len(STRAIN)} axes, got {len(places)}; make them with plt.subplots(1, 4)"
            raise InputError(msg, key="axes", found=len(places), expected=len(STRAIN))
        return places
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        msg = "pictures need matplotlib, which is not installed; run: pip install 'stemstore[view]'"
        raise OptionalDependencyError(msg, package="matplotlib") from error
    grid = Grid.of(strain["e_yy"], SCAN)
    rows, columns = (abs(float(axis[-1] - axis[0])) for axis in grid.axes)
    height = min(max(MAP * rows * grid.aspect / columns, HEIGHTS[0]), HEIGHTS[1])
    size = (len(STRAIN) * (MAP + BAR), height + HEAD)
    return plt.subplots(1, len(STRAIN), figsize=size, layout="constrained")[1]


def _darken(ax: Any) -> None:
    """Turn a scale bar, which is white, black: near zero the colours are light."""
    from matplotlib.patheffects import withStroke

    for artist in (*(line for line in ax.lines if line.get_gid() == "scale-bar"), *ax.texts):
        artist.set(color="black", path_effects=[withStroke(linewidth=2.0, foreground="white", alpha=0.9)])


def _draw_axes(ax: Any, about: dict[str, Any]) -> None:
    """Draw the axes of the components as arrows; rows are downwards, as in the picture."""
    from matplotlib.patheffects import withStroke

    turn = math.radians(about.get("axes_rotation_deg", 0.0))
    names = ("y", "x") if about.get("axes", "scan") == "scan" else ("ky", "kx")
    edge = [withStroke(linewidth=2.0, foreground="white", alpha=0.9)]
    for name, angle in zip(names, (turn, turn + math.pi / 2), strict=True):
        arrow = ax.annotate(
            name,
            (0.12, 0.9),
            xycoords="axes fraction",
            xytext=(ARROW * math.sin(angle), -ARROW * math.cos(angle)),
            textcoords="offset points",
            arrowprops={"arrowstyle": "<-", "shrinkA": 1.0, "shrinkB": 0.0, "path_effects": edge},
            ha="center",
            va="center",
            fontsize=SMALL,
            path_effects=edge,
        )
        arrow.set_gid(f"axis-{name}")
