"""Pictures of results: images of the scan, diffraction patterns with detectors, maps of vectors as colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.drawing.canvas import (
    NORMAL,
    SMALL,
    Grid,
    add_colour_bar,
    axes_for,
    draw,
    frame,
    outline,
    unit_text,
    with_unit,
)
from stemstore.scan.drawing.colours import full_brightness, vector_colours
from stemstore.scan.drawing.overlays import centre, regions
from stemstore.scan.drawing.shades import beyond, logarithmic, value_range
from stemstore.scan.drawing.strain import STRAIN, draw_strain

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray

SCAN, DETECTOR, FREQUENCY, COLOUR = ("y", "x"), ("ky", "kx"), ("fy", "fx"), "rgb"
OUTLINES = ("#00e5ff", "#ffca28", "#76ff03", "#ff80ab", "#ffffff", "#b388ff")  # all legible on black, red and yellow
WHEEL_PIXELS = 129


class Plots:
    """Pictures of one labelled result; called, it draws the one that suits the result's dims.

    Every picture is drawn in the coordinates of the result, y and ky downwards, each pixel between its own borders, and
    returns the matplotlib Axes. Lazy results are computed first.
    """

    def __init__(self, result: xr.DataArray | xr.Dataset) -> None:
        self._result = result

    def __call__(self, ax: Any = None, **options: Any) -> Any:
        """Draw the picture that suits the result: vectors, image or pattern.

        Parameters
        ----------
        ax
            Axes of matplotlib to draw on; a new figure by default.
        **options
            Those of `vectors` for a Dataset with ``com_y`` and ``com_x``, of `strain` for one with ``e_yy`` …
            ``theta``, of `image` for dims (y, x), of `pattern` for dims (ky, kx) and (fy, fx).

        Returns
        -------
        ax

        Raises
        ------
        InputError
            No picture suits the dims.
        """
        if {"com_y", "com_x"} <= set(getattr(self._result, "data_vars", ())):
            return self.vectors(ax, **options)
        if set(STRAIN) <= set(getattr(self._result, "data_vars", ())):
            return self.strain(ax, **options)
        array = self._array(SCAN, DETECTOR, FREQUENCY)
        return self.image(ax, **options) if set(SCAN) <= set(array.dims) else self.pattern(ax, **options)

    def image(
        self,
        ax: Any = None,
        *,
        percentile: tuple[float, float] | None = (0.5, 99.5),
        cmap: str = "gray",
        scale_bar: bool = True,
        colorbar: bool = True,
        title: str | None = None,
        **options: Any,
    ) -> Any:
        """Draw a map of the scan.

        Parameters
        ----------
        ax
            Axes of matplotlib to draw on; a new figure by default.
        percentile : unit percent
            Shares of the values that lie below the darkest and below the brightest shade; None for the whole range.
            Arrows on the colour bar tell of values beyond. ``vmin`` and ``vmax`` take precedence.
        cmap
            Colour map of matplotlib.
        scale_bar
            Show a bar of a round length (1, 2, 5 times a power of ten) in place of ticks.
        colorbar
            Show which shade is which value, with the result's name and unit.
        title
            Above the picture.
        **options
            Passed to ``Axes.imshow`` (``Axes.pcolormesh`` for pixels of unlike sizes).

        Returns
        -------
        ax

        Raises
        ------
        InputError
            The result has other dims than y and x (and ``rgb``), is complex, or its coordinates are not in order.
        OptionalDependencyError
            matplotlib is not installed.

        Notes
        -----
        Both axes have one scale, so that rectangular pixels are drawn as rectangles; pixels are square where the units
        of the axes differ. Positions without a number and missing frames (``valid`` is 0) are hatched.
        """
        array = self._array(SCAN)
        values, missing, grid = _plane(array, SCAN)
        colorbar = colorbar and values.ndim == len(SCAN)
        ax = axes_for(ax, grid, ticks=not scale_bar, title=title, beside="colour bar" if colorbar else "")
        if values.ndim > len(SCAN):
            draw(ax, values, missing, grid, **options)
        else:
            low, high = value_range(values[~missing], percentile if array.dtype != bool else None)
            limits = {} if "norm" in options else {"vmin": low, "vmax": high}
            shown = draw(ax, values, missing, grid, cmap=cmap, **limits | options)
            if colorbar:
                add_colour_bar(ax, shown, _label(array), extend=beyond(values[~missing], shown))
        frame(ax, grid, scale_bar=scale_bar, title=title)
        return ax

    def pattern(
        self,
        ax: Any = None,
        *,
        log: bool = True,
        detectors: Any = None,
        center: bool = True,
        percentile: tuple[float, float] | None = (1.0, 100.0),
        colorbar: bool = True,
        title: str | None = None,
        **options: Any,
    ) -> Any:
        """Draw a diffraction pattern, with the outlines of virtual detectors.

        Parameters
        ----------
        ax
            Axes of matplotlib to draw on; a new figure by default.
        log
            Logarithmic shades, from half the smallest value shown. What is zero or negative has the darkest one.
        detectors
            A virtual detector (``annulus(…)`` …), weights of shape (ky, kx), or a dict of them by name. The outline
            runs along the borders of the pixels that the detector counts, whatever their weight.
        center
            Mark the optic axis.
        percentile : unit percent
            As in `image`; with `log` of the positive values.
        colorbar, title
            As in `image`.
        **options
            ``scale_bar`` (True) and ``cmap`` as in `image`; the others are passed to ``Axes.imshow``.

        Returns
        -------
        ax

        Raises
        ------
        InputError
            The result is not a single pattern, or a detector does not fit it.
        OptionalDependencyError
            matplotlib is not installed.

        Notes
        -----
        Outlines show what operations count on the pixels of this pattern: about its own optic axis where the scan
        carries one for each position, and with the scan's ellipse. Scale bars are in 1/Å, mrad or pixels, as the
        axes are.
        """
        array = self._array(DETECTOR, FREQUENCY)
        dims = DETECTOR if set(DETECTOR) == set(array.dims) else FREQUENCY
        array = array.transpose(*dims)
        values, missing, grid = _plane(array, dims)
        found = list(regions(array, detectors))
        scale_bar = options.pop("scale_bar", True)
        ax = axes_for(ax, grid, ticks=not scale_bar, title=title, beside="colour bar" if colorbar else "")
        known = values[~missing]
        if log and "norm" not in options:
            options, values = logarithmic(values, known, percentile, options)
        elif "norm" not in options:
            options = dict(zip(("vmin", "vmax"), value_range(known, percentile), strict=True)) | options
        shown = draw(ax, values, missing, grid, **{"cmap": "inferno"} | options)
        for number, (name, inside) in enumerate(found):
            outline(ax, inside, grid, colour=OUTLINES[number % len(OUTLINES)], label=name)
        if center and dims == DETECTOR:
            _mark_centre(ax, array, grid)
        if found:
            style = {"facecolor": "black", "labelcolor": "white", "framealpha": 0.6, "edgecolor": "none"}
            ax.legend(loc="upper right", fontsize=SMALL, handlelength=1.2, borderpad=0.3, **style)
        if colorbar:
            add_colour_bar(ax, shown, _label(array), extend=beyond(known, shown))
        frame(ax, grid, scale_bar=scale_bar, title=title)
        return ax

    def vectors(
        self,
        ax: Any = None,
        *,
        longest: float | None = None,
        wheel: bool = True,
        scale_bar: bool = True,
        title: str | None = None,
        **options: Any,
    ) -> Any:
        """Draw a map of vectors: hue shows the direction, brightness the length.

        Parameters
        ----------
        ax
            Axes of matplotlib to draw on; a new figure by default.
        longest
            Length of full brightness, in the unit of the vectors; default: 99.5 % of the lengths are shorter.
        wheel
            Show the colours of all directions beside the picture, with the length at the rim.
        scale_bar, title
            As in `image`.
        **options
            Passed to ``Axes.imshow``.

        Returns
        -------
        ax

        Raises
        ------
        InputError
            The result lacks ``com_y`` or ``com_x`` with dims y and x, or `longest` is not positive.
        OptionalDependencyError
            matplotlib is not installed.

        Notes
        -----
        The colours are those of `com_colours`: red is +x, and the hue turns towards +y through yellow and green.
        """
        rows, columns = self._components()
        field = np.stack([rows.values, columns.values], axis=-1).astype(np.float64)
        _, missing, grid = _plane(rows, SCAN)
        missing = missing | ~np.isfinite(field).all(axis=-1)
        longest = full_brightness(field, longest)
        ax = axes_for(ax, grid, ticks=not scale_bar, title=title, beside="wheel" if wheel else "")
        draw(ax, vector_colours(field, longest), missing, grid, **options)
        frame(ax, grid, scale_bar=scale_bar, title=title)
        if wheel:
            _draw_wheel(ax, f"{longest:.3g} {unit_text(rows.attrs.get('units', 'pixel'))}")
        return ax

    def strain(
        self,
        axes: Any = None,
        *,
        limit: float | None = None,
        rotation_limit: float | None = None,
        scale_bar: bool = True,
    ) -> Any:
        """Draw the maps of a strain measurement: ``e_yy``, ``e_xx``, ``e_xy`` and ``theta``.

        Parameters
        ----------
        axes
            Four axes of matplotlib; a new figure by default.
        limit, rotation_limit : unit 1 and rad
            Strain and rotation at the ends of the colours, which are symmetric about zero and the same for the three
            components; by default 99 % of the values lie between them.
        scale_bar
            A scale bar in the first map in place of ticks.

        Returns
        -------
        axes : shape (4,)

        Raises
        ------
        InputError
            The result is none of `strain_map` with dims y and x, or there are not four axes.
        OptionalDependencyError
            matplotlib is not installed.

        Notes
        -----
        Arrows in the first map show the axes of the components: y and x, or ky and kx where the vectors were not turned
        to the scan; turned by ``axes_rotation``.
        """
        return draw_strain(
            self._result,
            lambda array, ax, **options: Plots(array).image(ax, **options),
            axes,
            (limit, rotation_limit),
            scale_bar=scale_bar,
        )

    def _array(self, *planes: tuple[str, str]) -> xr.DataArray:
        """Find the variable that lies in one of the planes."""
        found: Any = self._result
        variables = getattr(found, "data_vars", None)
        if variables is not None:
            fitting = [name for name, v in variables.items() if any(set(plane) <= set(v.dims) for plane in planes)]
            names = fitting or list(variables)
            if len(names) != 1 and "intensity" not in variables:
                msg = f"the dataset has the variables {list(variables)}; choose one, such as ds['name'].stem.plot()"
                raise InputError(msg, found=list(variables))
            found = variables["intensity" if "intensity" in variables else names[0]]
        for plane in planes:
            if set(found.dims) - ({COLOUR} if plane == SCAN else set()) == set(plane):
                return found
        wanted = " or ".join(str(plane) for plane in planes)
        msg = f"a picture needs the dims {wanted}, the result has {tuple(map(str, found.dims))}; {_advice(found)}"
        raise InputError(msg, expected=planes, found=found.dims)

    def _components(self) -> tuple[xr.DataArray, xr.DataArray]:
        """Give com_y and com_x in memory."""
        from dask.base import compute

        variables = getattr(self._result, "data_vars", {})
        names = ("com_y", "com_x")
        if not all(name in variables and set(variables[name].dims) == set(SCAN) for name in names):
            msg = (
                f"a map of vectors needs com_y and com_x with the dims {SCAN}, as center_of_mass gives them; got "
                f"{type(self._result).__name__} {[f'{name}{v.dims}' for name, v in variables.items()]}"
            )
            raise InputError(msg, expected=names, found=list(variables))
        rows, columns = compute(*(variables[name].transpose(*SCAN) for name in names))
        return rows, columns


def _advice(array: xr.DataArray) -> str:
    if {*SCAN, *DETECTOR} <= set(array.dims):
        return "select a position with .isel(y=…, x=…), or reduce first with stemstore.mean_pattern or virtual_image"
    if array.ndim < len(SCAN):
        return "draw lines with xarray's own .plot()"
    return "select along the others with .isel(…) or reduce first"


def _plane(array: xr.DataArray, dims: tuple[str, str]) -> tuple[Array, BoolArray, Grid]:
    """Values of a plane (or its colours), which of them are missing, and where the pixels lie."""
    order = (*dims, COLOUR) if COLOUR in array.dims else dims
    array = array.transpose(*order)
    values = np.asarray(array.values)
    if values.dtype.kind not in "biuf":
        msg = f"a picture shows real numbers, got {values.dtype}; draw abs(result) or one of its parts"
        raise InputError(msg, found=str(values.dtype))
    values = values.astype(np.float64)
    missing = ~np.isfinite(values)
    if COLOUR in array.dims:
        missing = missing.any(axis=-1)
    if "valid" in array.coords and set(array.coords["valid"].dims) <= set(dims):
        gone = array.coords["valid"] == 0
        missing = missing | gone.transpose(*(dim for dim in dims if dim in gone.dims)).values
    return values, missing, Grid.of(array, dims)


def _label(array: xr.DataArray) -> str:
    name = str(array.attrs.get("long_name", array.name or ""))
    return with_unit(name, str(array.attrs.get("units", "1")))


def _mark_centre(ax: Any, array: xr.DataArray, grid: Grid) -> None:
    """Draw a cross on the optic axis, where it is in the picture."""
    from matplotlib.patheffects import withStroke

    row, column = centre(array, grid.dims)
    inside = all(axis.min() <= at <= axis.max() for axis, at in zip(grid.axes, (row, column), strict=True))
    if inside:
        edge = [withStroke(linewidth=2.5, foreground="black", alpha=0.8)]
        ax.plot([column], [row], "+", color="white", markersize=7, path_effects=edge, gid="center")


def _draw_wheel(ax: Any, text: str) -> None:
    """Draw the colours of all directions beside the picture; x is to the right and y downwards, as in the picture."""
    room = ax.inset_axes((1.04, 0.1, 0.25, 0.25), anchor="W")
    row, column = np.mgrid[-1 : 1 : WHEEL_PIXELS * 1j, -1 : 1 : WHEEL_PIXELS * 1j]
    disk = np.hypot(row, column)[..., None] <= 1
    colours = vector_colours(np.stack([row, column], axis=-1), 1.0)
    room.imshow(np.concatenate([colours, disk], axis=-1), extent=(-1, 1, 1, -1))
    for name, at in (("x", (1.22, 0.0)), ("y", (0.0, 1.27))):
        room.text(*at, name, ha="center", va="center", fontsize=SMALL, style="italic")
    room.set_title(text, fontsize=NORMAL, pad=3)
    room.set_axis_off()
    room.set_gid("wheel")
