"""Selections that jump about, put into stored order for the time of an operation.

A shuffled axis, or positions picked at random, would come back to the same partition of the source again and again,
and each task would read it anew. Sorted, every partition is read once; the result is put back into the order asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.kernels.contract import DetectorRegion
from stemstore.scan.lazy import ScanArray, selection_of
from stemstore.selection import Selection, runs

if TYPE_CHECKING:
    import dask.array as da

    from stemstore._types import Int64Array
    from stemstore.kernels.contract import Kernel
    from stemstore.selection import Index


TURNED_BYTES = 256 * 2**20
"""Results per position that are put back into order; larger ones are better made piece by piece in the given order."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """How the scan axes of an array were sorted.

    Attributes
    ----------
    axes
        For each sorted axis of the array: which of the given indices stands at every sorted place.
    """

    axes: dict[int, Int64Array]

    def sort(self, values: Any) -> Any:
        """Put what belongs to positions, (…scan, …), into sorted order: an array, several arrays, or None."""
        if isinstance(values, tuple):
            return tuple(self.sort(one) for one in values)
        for axis, order in self.axes.items():
            values = None if values is None else np.take(values, order, axis=axis)
        return values

    def restore(self, result: da.Array) -> da.Array:
        """Put a result, (…scan, …), back into the given order."""
        for axis, order in self.axes.items():
            back = np.argsort(order)
            result = result[(slice(None),) * axis + (back,)]
        return result


def in_stored_order(array: da.Array, kernel: Kernel) -> tuple[da.Array, Order]:
    """Sort the scan axes of a lazy array that come back to partitions of the source which they have left before.

    Parameters
    ----------
    array
        The lazy array; any other dask array stays as it is.
    kernel
        What is to run over it: large results per position are not worth turning over.

    Returns
    -------
    array, order
        The same positions, and how to put their values and results in step.
    """
    found = selection_of(array)
    if found is None or _turned_bytes(kernel, array.dtype, found[1]) > TURNED_BYTES:
        return array, Order({})
    source, selection = found
    axes, sorted_axes = list(selection.axes), {}
    kept = [number for number, is_kept in enumerate(selection.kept) if is_kept]
    for number, extent in enumerate(source.partition):
        axis = axes[number]
        if isinstance(axis, np.ndarray) and _returns(axis, extent):
            order = np.argsort(axis, kind="stable")
            axes[number] = _regular(axis[order])
            sorted_axes[kept.index(number)] = order
    if not sorted_axes:
        return array, Order({})
    return ScanArray(source, Selection(selection.stored, tuple(axes), selection.kept)), Order(sorted_axes)


def _turned_bytes(kernel: Kernel, dtype: np.dtype[Any], selection: Selection) -> int:
    """Bytes of the result that would have to be put back into order."""
    if kernel.reduces == "scan":
        return 0
    shape, own = kernel.output(dtype, DetectorRegion.of(selection))
    return math.prod(shape) * own.itemsize * selection.n_positions


def _returns(axis: Int64Array, extent: int) -> bool:
    """Whether an axis comes back to a partition that it has left."""
    return len(list(runs(axis, extent))) > len(np.unique(axis // extent))


def _regular(axis: Int64Array) -> Index:
    """Give sorted indices as a range where they are evenly spaced: it travels lighter."""
    steps = np.diff(axis)
    if len(steps) and steps[0] > 0 and (steps == steps[0]).all():
        return range(int(axis[0]), int(axis[-1]) + 1, int(steps[0]))
    return axis
