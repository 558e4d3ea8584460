"""Functions of the user on every pattern, by the same road as the built-in operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.labels import intensity_of, labelled, parameters_text, scan_dims
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

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
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

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
            out[place] = self._checked(self.function(visible), (len(place), *self.shape))
            return
        for frame, row in zip(visible, place, strict=True):
            out[row] = self._checked(self.function(frame), self.shape)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Densify some frames at a time and call the function on them."""
        from stemstore.kernels import events

        n_pixels = math.prod(prepared.stored)
        step = max(1, 2**22 // n_pixels)
        for first in range(0, len(local), step):
            some = local[first : first + step]
            rows = np.arange(len(some), dtype=np.int64)
            dense = np.zeros((len(some), n_pixels), np.uint16)
            events.densify(gap, offsets, some, dense, rows)
            frames = dense.astype(np.uint8) if dense.max(initial=0) <= np.iinfo(np.uint8).max else dense
            self.frames(frames.reshape(-1, *prepared.stored), rows, out, place[first : first + step], prepared)

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
    shape: tuple[int, ...] = (),
    dtype: Any = np.float64,
    dims: tuple[str, ...] | None = None,
    per_block: bool = False,
) -> xr.DataArray:
    """Apply a function to every diffraction pattern of a scan, lazily.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose last dims are (ky, kx).
    function
        Called with one pattern ``(ky, kx)``, or with a stack ``(n, ky, kx)`` when `per_block`. It must not depend on
        other patterns and must be picklable for use on a cluster.
    shape, dtype
        Shape and dtype of the result for one pattern.
    dims
        Names of the result's own axes; ``("out_0", …)`` by default.
    per_block
        Hand over blocks of patterns; the function returns ``(n, *shape)``.

    Returns
    -------
    result : dims (…scan dims, …dims)
        Lazy; nothing is read until it is computed. Missing frames are zero, NaN where the
        pixels are floats, and marked by the coordinate ``valid``.

    Raises
    ------
    InputError
        The function's result has another shape than declared (raised when computed).

    Notes
    -----
    Memory per thread: one decoded piece of the scan (about 8 MB) and its copy, besides what the function takes.
    """
    image = intensity_of(scan)
    kernel = FunctionKernel(function, tuple(shape), np.dtype(dtype), per_block)
    names = tuple(f"out_{i}" for i in range(len(shape))) if dims is None else tuple(dims)
    if len(names) != len(shape):
        msg = f"dims {names} name {len(names)} axes, but shape {tuple(shape)} has {len(shape)}; give one name per axis"
        raise InputError(msg, expected=len(shape), found=names)
    data = map_kernel(image.data, kernel)
    return labelled(
        data,
        image,
        (*scan_dims(image), *names),
        parameters_text("map_frames", function=getattr(function, "__name__", "?")),
    )
