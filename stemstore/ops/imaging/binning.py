"""Binning of the detector: sums over boxes of detector pixels, with the coordinates of the boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.labels import intensity_of, labelled, parameters_text, scan_dims
from stemstore.scan.blocks import map_kernel
from stemstore.scan.origins import in_pixels_of

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

Partial = Literal["drop", "keep"]


@dataclass(frozen=True, slots=True, eq=False)
class BoxSums:
    """Kernel: every frame summed over boxes of `factor` visible pixels, exact for integers.

    `partial` says what becomes of rows and columns that do not fill a box.
    """

    factor: tuple[int, int]
    partial: Partial
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[DetectorRegion, Any]:
        """Make a table of boxes where electrons cannot be told their box by division."""
        from stemstore.kernels import groups

        if region.whole:
            return region, None
        rows, columns = self._boxes(region, full=True)
        labels = np.arange(region.shape[0])[:, None] // self.factor[0] * columns
        labels = labels + np.arange(region.shape[1]) // self.factor[1]
        return region, groups.prepare_groups(labels.astype(np.int64), rows * columns, region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per box, of the smallest type that holds any sum."""
        return self._boxes(region), box_dtype(dtype, math.prod(self.factor))

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed boxes, those that are not full included."""
        return np.zeros((n_positions, *self._boxes(region, full=True)), self.output(dtype, region)[1])

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Add the boxes of dense frames."""
        from stemstore.kernels import frames

        region, _ = prepared
        if not region.whole:
            block, local = _visible(block, local, region), np.arange(len(local), dtype=np.int64)
        frames.bin_detector(block, local, out, place, self.factor)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add the boxes of counted frames."""
        from stemstore.kernels import events, groups

        region, table = prepared
        if table is None:
            events.bin_detector(gap, offsets, local, out, place, region.stored, self.factor)
        else:
            groups.event_sums(gap, offsets, local, out.reshape(len(out), -1), place, table)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave out boxes that are not full, where asked."""
        rows, columns = self._boxes(region)
        return np.ascontiguousarray(out[:, :rows, :columns])

    def _boxes(self, region: DetectorRegion, *, full: bool = False) -> tuple[int, int]:
        """Rows and columns of boxes; `full` counts those at the border as well."""
        keep = full or self.partial == "keep"
        rows, columns = (-(-n // f) if keep else n // f for n, f in zip(region.shape, self.factor, strict=True))
        return rows, columns


def bin_detector(scan: Any, factor: int | tuple[int, int], *, partial: Partial = "drop") -> xr.DataArray:
    """Sum boxes of neighbouring detector pixels of every diffraction pattern.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx. Boxes are counted from
        the first visible pixel, so that a cropped detector is binned as it is seen.
    factor
        Rows and columns of a box; one number for squares.
    partial
        What becomes of rows and columns at the end that do not fill a box: ``"drop"`` leaves them out, ``"keep"``
        sums what there is.

    Returns
    -------
    patterns : dims (y, x, ky, kx), lazy
        Exact sums in the smallest unsigned (signed for signed pixels) integer type that holds every possible sum, such
        as uint16 for 2 x 2 boxes of uint8; at most 64 bits. Sums of floats are float64. Detector coordinates are the
        means over each box, their attribute ``step`` that of the boxes. Missing frames are zero, NaN where the pixels
        are floats, and marked by the coordinate ``valid``.

    Raises
    ------
    InputError
        A factor is not a whole number from 1 on, or is larger than the detector; `partial` is neither word.

    Notes
    -----
    Electrons of counted scans are counted per box; frames are not made dense. Memory per thread: one decoded piece of
    the scan, and the boxes of one task (at most about 128 MB, or one frame). Larger results are computed in smaller
    pieces, and share no pass in `stemstore.compute`.
    """
    image = intensity_of(scan)
    factors = _factors(factor, image)
    if partial not in {"drop", "keep"}:
        msg = f"partial is {partial!r}; expected 'drop' or 'keep' for boxes that the detector does not fill"
        raise InputError(msg, key="partial", found=partial, expected=("drop", "keep"))
    kernel = BoxSums(factors, partial)
    data = map_kernel(image.data, kernel)
    shown = _box_coordinates(image, factors, data.shape[-2:])
    result = labelled(
        data, shown, (*scan_dims(image), "ky", "kx"), parameters_text("bin_detector", factor=factors, partial=partial)
    )
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": "intensity summed over detector pixels"}
    return result.rename("intensity")


def box_dtype(dtype: np.dtype[Any], n_pixels: int) -> np.dtype[Any]:
    """Smallest integer type that holds every sum of `n_pixels` pixels, 64 bits at most; float64 for floats.

    Sums of 64-bit pixels stay 64 bits wide and wrap around where NumPy's would.
    """
    if dtype.kind not in "bui":
        return np.dtype(np.float64)
    limits = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    for width in (1, 2, 4):
        kind = np.dtype(f"{'i' if dtype.kind == 'i' else 'u'}{width}")
        if limits.max * n_pixels <= np.iinfo(kind).max and limits.min * n_pixels >= np.iinfo(kind).min:
            return kind
    return np.dtype(np.int64 if dtype.kind == "i" else np.uint64)


def _visible(block: Array, local: Int64Array, region: DetectorRegion) -> Array:
    """Copy the visible part of some frames."""
    if region.contiguous:
        rows, columns = (slice(axis[0], axis[-1] + 1) for axis in (region.rows, region.columns))
        return np.ascontiguousarray(block[local, rows, columns])
    return np.ascontiguousarray(region.crop(block[local]))


def _factors(factor: Any, image: xr.DataArray) -> tuple[int, int]:
    pair = tuple(factor) if isinstance(factor, (tuple, list)) else (factor, factor)
    whole = len(pair) == 2 and all(isinstance(f, (int, np.integer)) and not isinstance(f, bool) for f in pair)  # noqa: PLR2004 (rows, columns)
    if not whole or any(not 1 <= f <= n for f, n in zip(pair, image.shape[-2:], strict=True)):
        msg = f"factor {factor!r} does not fit a detector of {image.shape[-2:]}; give whole numbers from 1 to its size"
        raise InputError(msg, key="factor", found=factor, expected=image.shape[-2:])
    return int(pair[0]), int(pair[1])


def _box_coordinates(image: xr.DataArray, factors: tuple[int, int], boxes: tuple[int, ...]) -> xr.DataArray:
    """Give a stand-in that has the detector coordinates of the boxes; only its labels are used."""
    along = dict(zip(("ky", "kx"), zip(factors, boxes, strict=True), strict=True))
    thin = image.isel({dim: slice(0, n) for dim, (_, n) in along.items()})
    thin = thin.drop_vars([name for name, c in image.coords.items() if {"ky", "kx"} & set(c.dims)])
    for dim, (factor, n_boxes) in along.items():
        if dim not in image.coords:
            continue
        coordinate = image.coords[dim]
        values = np.asarray(coordinate.values, np.float64)[: n_boxes * factor]
        middles = np.array([values[i : i + factor].mean() for i in range(0, len(values), factor)])
        step = float(middles[1] - middles[0]) if len(middles) > 1 else coordinate.attrs.get("step", 1.0) * factor
        # boxes are the pixels of the result: its pixel numbers, origin and step belong to them
        attrs = {**coordinate.attrs, "step": step, "origin": float(middles[0])}
        thin = thin.assign_coords({dim: (dim, middles, attrs)})
        if f"{dim}_pixel" in image.coords:
            attrs = {"units": "pixel", "long_name": f"number of the box along {dim}"}
            thin = thin.assign_coords({f"{dim}_pixel": (dim, np.arange(n_boxes), attrs)})
    return in_pixels_of(image, thin)
