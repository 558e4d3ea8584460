"""Sums, means and maxima as users of NumPy, xarray and dask write them, at the speed of the built-in operations.

``ds.intensity.mean(("ky", "kx"))`` ends in ``np.mean`` of the lazy array, and so in its ``__array_function__``. Where
the array is a plain selection of integers and the axes cover the detector or the scan, the source streams; the numbers
and their type are those of the inherited way. Everything else goes that way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.kernels.patterns import PatternMax, PatternSum
from stemstore.scan.blocks import map_kernel
from stemstore.scan.lazy import selection_of
from stemstore.selection import DETECTOR_AXES

if TYPE_CHECKING:
    import dask.array as da

    from stemstore.kernels.contract import Kernel

_EXACT_BYTES = 4
"""Widest integers of which 2³² fit a sum of 64 bits, more than any detector or scan has."""


def streamed(array: da.Array, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> da.Array | None:
    """Reduce a lazy array while streaming its source.

    Parameters
    ----------
    array
        The lazy array.
    name
        ``"sum"``, ``"mean"`` or ``"max"``.
    args, keywords
        As given to the NumPy function behind the array.

    Returns
    -------
    result
        None where only the inherited way will do: changed arrays, floats (which have rules for NaN and rounding),
        integers of 64 bits (whose sums wrap), axes that cover neither detector nor scan, and keywords such as
        ``dtype``.

    Notes
    -----
    Axes beyond the detector (or the scan) are reduced from its result. Missing frames count as the zeros they show.
    """
    found = selection_of(array)
    others = dict(keywords)
    axis, keepdims = args[0] if args else others.pop("axis", None), others.pop("keepdims", False)
    if found is None or len(args) > 1 or any(value is not None for value in others.values()):
        return None
    axes, region = _axes(axis, array.ndim), DetectorRegion.of(found[1])
    whole = all(found[1].kept[-DETECTOR_AXES:])
    narrow = array.dtype.kind in "iu" and array.dtype.itemsize <= _EXACT_BYTES
    kernel = _kernel(name, axes, array.ndim, region) if whole and narrow and array.size else None
    if kernel is None:
        return None
    result = _finished(map_kernel(array, kernel), kernel, name, array, axes)
    return result[tuple(None if i in axes else slice(None) for i in range(array.ndim))] if keepdims else result


def _axes(axis: Any, ndim: int) -> frozenset[int]:
    """Axes that are reduced, counted from the front; none where they are not plain numbers of axes."""
    given = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(one, (int, np.integer)) and -ndim <= one < ndim for one in given):
        return frozenset()
    axes = frozenset(int(one) % ndim for one in given)
    return axes if len(axes) == len(given) else frozenset()


def _kernel(name: str, axes: frozenset[int], ndim: int, region: DetectorRegion) -> Kernel | None:
    """Choose the operation that takes the detector or the scan away, None where the axes cover neither."""
    scan = frozenset(range(ndim - DETECTOR_AXES))
    if name != "max" and axes >= set(range(ndim)) - scan and not region.repeats:
        return DetectorSums(np.ones((1, *region.shape), bool))
    if scan and axes >= scan:
        return PatternMax() if name == "max" else PatternSum()
    return None


def _finished(result: da.Array, kernel: Kernel, name: str, array: da.Array, axes: frozenset[int]) -> da.Array:
    """Reduce the axes that the kernel has left, and give the result the type that NumPy would."""
    scan = array.ndim - DETECTOR_AXES
    if kernel.reduces == "detector":
        result, left = result[..., 0], tuple(axis for axis in axes if axis < scan)
    else:
        left = tuple(axis - scan for axis in axes if axis >= scan)
    if name == "max":
        return result.max(axis=left) if left else result
    if left:  # averages are summed in floats, as NumPy does
        result = result.sum(axis=left, dtype=np.float64 if name == "mean" else result.dtype)
    if name == "mean":
        return result / math.prod(array.shape[axis] for axis in axes)
    return result.astype(np.zeros(1, array.dtype).sum().dtype)
