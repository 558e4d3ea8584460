"""Functions of the user on every pattern, by the same road as the built-in operations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.densified import densified
from stemstore.ops.corrections import CorrectionOptions, corrected, corrections_of, corrections_text
from stemstore.ops.labels import (
    intensity_of,
    labelled,
    parameters_text,
    recorded,
    scan_dims,
    values_of,
    without_missing,
)
from stemstore.ops.roi import within
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


@dataclass(frozen=True, slots=True, eq=False)
class FunctionKernel:
    """A user's function as a kernel: called with one frame, or with a block of frames."""

    function: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    per_block: bool
    n_scan: int = 0
    values: tuple[Array, ...] = ()
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def at(self, values: tuple[Array, ...]) -> FunctionKernel:
        """Give the kernel for positions with these further arguments, each (…positions, …)."""
        return replace(self, values=tuple(one.reshape(-1, *one.shape[self.n_scan :]) for one in values))

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region: the function sees the visible detector."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Take what the user declared."""
        del dtype, region
        return self.shape, self.dtype

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """One row of the declared shape per position."""
        del dtype, region
        return np.zeros((n_positions, *self.shape), self.dtype)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Call the function on a copy of the visible frames, so that it may keep or change them."""
        visible = np.array(prepared.crop(block[local]))
        if self.per_block:
            more = (one[place] for one in self.values)
            out[place] = self._checked(self.function(visible, *more), (len(place), *self.shape))
            return
        for frame, row in zip(visible, place, strict=True):
            out[row] = self._checked(self.function(frame, *(one[row] for one in self.values)), self.shape)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Densify some frames at a time and call the function on them."""
        for frames, rows, some in densified(gap, offsets, local, prepared.stored):
            self.frames(frames, rows, out, place[some], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Nothing is left to do."""
        del region
        return out

    def _checked(self, value: Any, shape: tuple[int, ...]) -> Array:
        result = np.asarray(value)
        if result.shape != shape:
            msg = (
                f"function {getattr(self.function, '__name__', 'given')!r} returned shape {result.shape}, "
                f"expected {shape}; declare the shape of one frame's result with shape=…"
            )
            raise InputError(msg, expected=shape, found=result.shape)
        return result


def map_frames(
    scan: Any,
    function: Callable[..., Any],
    *,
    args: Sequence[Any] = (),
    shape: tuple[int, ...] = (),
    dtype: Any = np.float64,
    dims: tuple[str, ...] | None = None,
    per_block: bool = False,
    roi: Any = None,
    **corrections: Unpack[CorrectionOptions],
) -> xr.DataArray:
    """Apply a function to every diffraction pattern of a scan, lazily.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose last dims are (ky, kx).
    function
        Called with one pattern ``(ky, kx)``, or with a stack ``(n, ky, kx)`` when `per_block`. It must not depend on
        other patterns and must be picklable for use on a cluster.
    args
        Further arguments that differ from position to position: arrays whose first axes are those of the scan, such as
        an image, or two maps of an origin. The function is called with the entry of its pattern, or with the ``n``
        entries of its stack. What is the same everywhere goes into the function (`functools.partial`).
    shape, dtype
        Shape and dtype of the result for one pattern.
    dims
        Names of the result's own axes; ``("out_0", …)`` by default.
    per_block
        Hand over blocks of patterns; the function returns ``(n, *shape)``.
    roi : shape (y, x), boolean
        Positions to look at; the others are not read, and count as missing frames.
    **corrections
        ``dark``, ``gain``, ``bad_pixels`` and ``mask``, as in `virtual_image`: the function gets corrected patterns,
        float64.

    Returns
    -------
    result : dims (…scan dims, …dims)
        Lazy; nothing is read until it is computed. Missing frames give 0, NaN where the result is of floats, and are
        marked by the coordinate ``valid``; the function is not called for them.

    Raises
    ------
    InputError
        The function's result has another shape than declared (raised when computed); an argument, the region of
        interest or a correction does not fit.

    Notes
    -----
    Memory per thread: one decoded piece of the scan (about 8 MB) and its copy, besides what the function takes, and
    the results of one task.
    """
    image = within(intensity_of(scan), roi)
    names = tuple(f"out_{i}" for i in range(len(shape))) if dims is None else tuple(dims)
    if len(names) != len(shape):
        msg = f"dims {names} name {len(names)} axes, but shape {tuple(shape)} has {len(shape)}; give one name per axis"
        raise InputError(msg, expected=len(shape), found=names)
    values = tuple(_per_position(image, one, number) for number, one in enumerate(args)) or None
    kernel = FunctionKernel(function, tuple(shape), np.dtype(dtype), per_block, image.ndim - 2)
    known = recorded(image)
    keep = None if known is None or known.all() else known
    whole = corrected(kernel, corrections_of(image, corrections))
    data = map_kernel(image.data, whole, keep, values)
    text = parameters_text("map_frames", function=getattr(function, "__name__", "?"), **corrections_text(corrections))
    data = without_missing(data, image) if data.dtype.kind in "fc" else data
    return labelled(data, image, (*scan_dims(image), *names), text)


def _per_position(image: xr.DataArray, given: Any, number: int) -> Array:
    """Give the values of an argument with the scan axes first."""
    import xarray as xr

    if isinstance(given, xr.DataArray) and set(scan_dims(image)) <= set(given.dims):
        given = given.transpose(*scan_dims(image), ...)
    values = values_of(given)
    if values.shape[: image.ndim - 2] != image.shape[:-2]:
        msg = (
            f"argument {number} of the function has shape {values.shape}, expected one entry for each of the "
            f"{image.shape[:-2]} positions; put what is the same everywhere into the function with functools.partial"
        )
        raise InputError(msg, key=f"args[{number}]", found=values.shape, expected=image.shape[:-2])
    return values
