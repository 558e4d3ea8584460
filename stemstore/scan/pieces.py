"""Units of work cut smaller, for operations whose results are large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stemstore.kernels.contract import DetectorRegion
from stemstore.scan.lazy import ScanArray, ScanSource, selection_of, source_node

if TYPE_CHECKING:
    import numpy as np

    from stemstore._types import Array, BoolArray
    from stemstore.kernels.contract import Kernel
    from stemstore.selection import Selection

OUTPUT_BYTES = 128 * 2**20
"""Results that one task may hold; a single position may take more."""


@dataclass(slots=True)
class SmallPieces:
    """A source whose units of work are smaller, for results that are large.

    Its identity is its own: operations that work in other pieces cannot share a pass with it.
    """

    source: ScanSource
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    uuid: str
    partition: tuple[int, ...]
    chunk: tuple[int, ...]

    @classmethod
    def of(cls, source: ScanSource, positions: int) -> SmallPieces:
        """Halve the units of work, slow axes first, until they hold at most so many positions."""
        partition = list(source.partition)
        while math.prod(partition) > positions:
            axis = next(number for number, extent in enumerate(partition) if extent > 1)
            partition[axis] = -(-partition[axis] // 2)
        uuid = f"{source.uuid} in pieces of {partition}"
        return cls(source, source.shape, source.dtype, uuid, tuple(partition), source.chunk)

    def opening(self) -> tuple[Any, ...]:
        """Give the call that makes this source where the tasks run, function first."""
        return SmallPieces, source_node(self.source), self.shape, self.dtype, self.uuid, self.partition, self.chunk

    def read(self, selection: Selection) -> Array:
        """Read the selected pixels."""
        return self.source.read(selection)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions through a kernel."""
        return self.source.run(selection, kernel, prepared, keep)


def in_small_pieces(array: Any, kernel: Kernel) -> Any:
    """Give an array on smaller units of work where the results of one task would be too large.

    A shard of sparse events may hold a whole scan, whose binned frames, profiles or lists of disks fill the memory.

    Parameters
    ----------
    array
        A scan's lazy array; any other comes back as it is.
    kernel
        The operation.
    """
    found = selection_of(array)
    if found is None or kernel.reduces != "detector":
        return array
    source, selection = found
    behind, dtype = kernel.output(source.dtype, DetectorRegion.of(selection))
    n_bytes = math.prod(behind) * dtype.itemsize
    positions = max(1, OUTPUT_BYTES // max(1, n_bytes))
    if math.prod(source.partition) <= positions:
        return array
    return ScanArray(SmallPieces.of(source, positions), selection)
