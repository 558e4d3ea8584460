"""Further values of every event, in arrays that are cut like ``events/gap``: one value per slot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels.gaps import check_block
from stemstore.store.metadata import COLUMNS, GAP, ArrayInfo, gap_info
from stemstore.store.stream import ShardedArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore._types import Array, Int64Array, UInt16Array, UInt32Array
    from stemstore.store.events import StoredEvents
    from stemstore.store.layout import CountedLayout

STEPS_PER_PIXEL = 128
"""Unit of offsets: an int8 reaches a pixel to either side."""

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "energy": {"units": "adu", "long_name": "charge in the 3 x 3 pixels of the event, pedestal subtracted"},
    "offset_ky": {
        "units": "pixel",
        "scale_factor": 1 / STEPS_PER_PIXEL,
        "long_name": "centroid of the charge from the centre of the event's pixel, along detector rows",
    },
    "offset_kx": {
        "units": "pixel",
        "scale_factor": 1 / STEPS_PER_PIXEL,
        "long_name": "centroid of the charge from the centre of the event's pixel, along detector columns",
    },
}
"""What is known, and what the arrays say of themselves."""


def column_infos(layout: CountedLayout, chunks: int) -> list[ArrayInfo]:
    """Describe the arrays of a counted scan whose widest block takes so many chunks."""
    like = gap_info(layout, chunks, 1)
    infos = []
    for name, dtype in layout.columns:
        kind = np.dtype(dtype)
        codec = replace(like.codec, itemsize=kind.itemsize)
        infos.append(replace(like, path=COLUMNS[name], dtype=kind, codec=codec, attributes=dict(ATTRIBUTES[name])))
    return infos


def check_columns(
    layout: CountedLayout,
    index: int,
    blocks: Sequence[tuple[UInt16Array, UInt32Array]],
    columns: Sequence[Mapping[str, Array]],
) -> None:
    """Make sure that every block of a partition has the columns of the layout, a value per slot.

    Raises
    ------
    InputError
        Names, types or numbers of values differ.
    """
    expected = dict(layout.columns)
    given = [{name: values.dtype.name for name, values in block.items()} for block in columns]
    if len(given) != len(blocks) or any(block != expected for block in given):
        msg = (
            f"partition {index} got event columns {given[:1]} for {len(given)} of {len(blocks)} blocks, expected "
            f"{expected} for each; measure what layout.columns names"
        )
        raise InputError(msg, partition=index, found=given, expected=expected)
    for (gap, _), block in zip(blocks, columns, strict=True):
        for name, values in block.items():
            if values.shape != gap.shape:
                msg = f"event column {name!r} of partition {index} has shape {values.shape}, its gaps have {gap.shape}"
                raise InputError(msg, partition=index, key=name, found=values.shape, expected=gap.shape)


def columns_of(scan: StoredEvents) -> list[str]:
    """Names of the further columns of a counted scan."""
    encoding = scan.document.encoding
    return [] if encoding is None else list(encoding.columns)


class ColumnBlock(NamedTuple):
    """Slots of one block: the first one of every frame, gaps, and further values by name."""

    offsets: Int64Array
    gap: UInt16Array
    values: dict[str, Array]


class ColumnReader:
    """Gaps and further columns of an open scan, block by block.

    Parameters
    ----------
    scan
        The scan.
    names
        Columns that it has (`columns_of`).

    Raises
    ------
    CorruptDataError
        An array is not there, or is cut in another way than the gaps.
    """

    def __init__(self, scan: StoredEvents, names: Sequence[str]) -> None:
        self.scan = scan
        self.step = scan.frames_per_block
        self.n_pixels = scan.shape[-2] * scan.shape[-1]
        head, like = scan.head, scan.head.arrays[GAP]
        self._arrays: dict[str, ShardedArray] = {}
        for path in (GAP, *(COLUMNS[name] for name in names)):
            info = head.arrays.get(path)
            if info is None or (info.shape, info.chunk, info.shard) != (like.shape, like.chunk, like.shard):
                msg = (
                    f"the array '{path}' of '{head.url}' is missing or is not cut like '{GAP}'; restore the store from "
                    "a copy or convert the scan again"
                )
                raise CorruptDataError(msg, url=head.url, key=path)
            self._arrays[path] = ShardedArray(head.storage, info, complete=head.complete)

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Types of the columns."""
        return {path.rpartition("/")[2]: array.info.dtype for path, array in self._arrays.items() if path != GAP}

    def block(self, number: int) -> ColumnBlock:
        """Read a block; errors as for `ShardedArray.stream`, and CorruptDataError for events outside the detector."""
        slots = self.scan.n_slots[number * self.step : (number + 1) * self.step]
        offsets = np.concatenate([[0], np.cumsum(slots, dtype=np.int64)])
        gap, *values = (self._slots(array, number, int(offsets[-1])) for array in self._arrays.values())
        check_block(gap, offsets, np.arange(len(slots)), self.n_pixels)
        return ColumnBlock(offsets, gap, dict(zip(self.dtypes, values, strict=True)))

    @staticmethod
    def _slots(array: ShardedArray, number: int, n_slots: int) -> Array:
        width, per_shard = array.info.chunk[1], array.per_shard[0]
        chunks = max(1, -(-n_slots // width))
        slots = np.empty(chunks * width, array.info.dtype)

        def place(at: int, chunk: Array) -> None:
            slots[at * width : (at + 1) * width] = chunk.reshape(-1)

        array.stream([((number // per_shard, at), number % per_shard) for at in range(chunks)], place)
        return slots[:n_slots]
