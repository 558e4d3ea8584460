"""Pointwise selections: ``ds.isel(y=DataArray(…), x=DataArray(…))``, a region drawn by hand, a line, a resampled grid.

xarray hands such an index to ``array.vindex``; `pick` turns it into a lazy array over a `PointSource`. A region is
picked, and a result put back into a map, by the positions where a boolean map (y, x) holds::

    y, x = np.nonzero(region)
    part = ds.isel(y=xr.DataArray(y, dims="point"), x=xr.DataArray(x, dims="point"))
    image[y, x] = part.intensity.sum(("ky", "kx"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.scan.lazy import ScanArray
from stemstore.scan.points import PointSource, block_numbers
from stemstore.selection import DETECTOR_AXES, Selection

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array
    from stemstore.scan.lazy import ScanSource
    from stemstore.selection import Index


def pick(array: ScanArray, key: Any) -> ScanArray | None:
    """Apply the index of ``array.vindex`` to a lazy array.

    Parameters
    ----------
    array
        The lazy array.
    key
        Integers, slices, an Ellipsis, and integer arrays on scan axes, which are broadcast against each other.

    Returns
    -------
    picked : shape (…points, …axes that were sliced)
        None where the inherited way has to do it, or to say what is wrong: other indices, arrays on detector axes,
        indices out of bounds, changed arrays.
    """
    parts = _parts(key, array.ndim)
    if parts is None or array.selection() is None:
        return None
    sliced: Any = array[tuple(slice(None) if isinstance(part, np.ndarray) else part for part in parts)]
    source, selection = sliced._source, sliced.selection()
    kept = [part for part in parts if not isinstance(part, (int, np.integer))]
    arrays = {number: part for number, part in enumerate(kept) if isinstance(part, np.ndarray)}
    numbers = [number for number, is_kept in enumerate(selection.kept) if is_kept]
    scan = len(selection.scan)
    if any(numbers[at] >= scan or not _inside(part, sliced.shape[at]) for at, part in arrays.items()):
        return None
    try:
        picked = dict(zip((numbers[at] for at in arrays), np.broadcast_arrays(*arrays.values()), strict=True))
    except ValueError:
        return None
    points = _flat(selection, picked)
    if points.ndim > 1 or len(points) == 0:
        axes: tuple[Index, ...] = tuple(range(n) for n in points.shape)
    else:
        points, where = _stored_order(points, source)
        axes = (where,)
    stored = PointSource(source, points)
    kept_axes = (True,) * len(axes) + selection.kept[-DETECTOR_AXES:]
    return ScanArray(stored, Selection(stored.shape, (*axes, *selection.detector), kept_axes))


def _parts(key: Any, ndim: int) -> list[Any] | None:
    """Bring a key to one integer, slice or integer array per axis; None where it holds anything else, or no array."""
    parts = list(key) if isinstance(key, tuple) else [key]
    dots = [number for number, part in enumerate(parts) if part is Ellipsis]
    at = dots[0] if dots else len(parts)
    fill = ndim - len(parts) + len(dots)
    if len(dots) > 1 or fill < 0:
        return None
    parts = parts[:at] + [slice(None)] * fill + parts[at + len(dots) :]
    parts = [np.asarray(part) if isinstance(part, list) else part for part in parts]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    plain = all(isinstance(part, (int, np.integer, slice, np.ndarray)) and not isinstance(part, bool) for part in parts)
    return parts if plain and arrays and all(part.dtype.kind in "iu" for part in arrays) else None


def _inside(index: Array, size: int) -> bool:
    return index.size == 0 or bool(-size <= index.min() and index.max() < size)


def _flat(selection: Selection, picked: dict[int, Array]) -> Int64Array:
    """Flat stored positions, (…points, …other scan axes that are kept)."""
    rest = [n for n, kept in enumerate(selection.kept[:-DETECTOR_AXES]) if kept and n not in picked]
    flat, stride = np.zeros((), np.int64), 1
    for number in reversed(range(len(selection.scan))):
        axis = np.asarray(selection.scan[number], np.int64)
        if number in picked:
            axis = axis[picked[number]].reshape(picked[number].shape + (1,) * len(rest))
        elif number in rest:
            axis = axis.reshape((-1,) + (1,) * (len(rest) - 1 - rest.index(number)))
        else:
            axis = axis[0]
        flat = flat + axis * stride
        stride *= selection.stored[number]
    return np.asarray(flat)


def _stored_order(points: Int64Array, source: ScanSource) -> tuple[Int64Array, Index]:
    """Sort points by partition and ever smaller blocks of the source, each once, and find where each given one stands.

    Neighbours in the scan stay neighbours: a run of sorted points touches few chunks, whatever their extents.
    """
    unique, inverse = np.unique(points, return_inverse=True)
    levels, extents = [source.partition], source.chunk
    while max(extents) > 1:
        levels.append(extents)
        extents = tuple(max(1, extent // 2) for extent in extents)
    blocks = [block_numbers(unique, source, extents) for extents in reversed(levels)]
    order = np.lexsort((unique, *blocks))
    where = np.argsort(order)[inverse.reshape(-1)]
    as_given = len(where) == len(order) and bool((np.diff(where) > 0).all())
    return unique[order], range(len(where)) if as_given else where
