"""What a counted store keeps of every electron beside its pixel: energies, and places inside the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.config import format_size, memory_budget
from stemstore.errors import InputError, MemoryBudgetError
from stemstore.kernels.gaps import ESCAPE, decode
from stemstore.ops.labels import intensity_of, scan_dims
from stemstore.scan.lazy import selection_of
from stemstore.selection import groups
from stemstore.store.event_columns import ATTRIBUTES, STEPS_PER_PIXEL, ColumnReader, columns_of
from stemstore.store.events import StoredEvents

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from stemstore._types import Array, Int64Array
    from stemstore.selection import Selection

BYTES_PER_EVENT = 48
"""Pieces and what they are joined to, with the order of frames: 34 were measured, 47 for frames in reverse."""

TEXTS: dict[str, dict[str, Any]] = {
    "frame": {"long_name": "number of the frame in the selection, scan axes in C order"},
    "ky": {"units": "pixel", "long_name": "detector row, as stored"},
    "kx": {"units": "pixel", "long_name": "detector column, as stored"},
    **{name: {key: texts[key] for key in ("units", "long_name")} for name, texts in ATTRIBUTES.items()},
}


def event_columns(scan: Any, names: str | Sequence[str] | None = None) -> xr.Dataset:
    """List the electrons of a counted scan, or of a part of one, with what was measured of each of them.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or that variable, of a store that was counted with
        ``stemstore.convert(…, event_columns=…)``; any selection. Only blocks of events that it touches are read.
    names
        Some of ``"energy"``, ``"offset_ky"``, ``"offset_kx"``; by default all that the store has.

    Returns
    -------
    events : dims (event,)
        In the order of the selected frames, inside a frame by pixel:

        ``frame``
            Number of the frame in the selection, C order; ``np.bincount(events.frame, minlength=…)`` counts per frame.
            The attributes ``scan_dims`` and ``scan_shape`` tell of what.
        ``ky``, ``kx``
            Detector pixel, as stored.
        ``energy`` : ADU
            Sum of the corrected pixels of the 3 x 3 box minus the pedestal, of those above the noise.
        ``offset_ky``, ``offset_kx`` : pixel
            Centroid of the same charge from the centre of the event's pixel, float32 in steps of 1/128.

    Raises
    ------
    InputError
        The scan is not a selection of a counted store (thinned, moved or changed arrays are none), or the store has no
        such column.
    MemoryBudgetError
        The list exceeds the budget (``STEMSTORE_MAX_MEMORY``); nothing is read.
    CorruptDataError
        The store is damaged.

    Notes
    -----
    Memory: 48 bytes per electron of the selected frames, and one decoded block.
    """
    import xarray as xr

    image = intensity_of(scan)
    source, selection = selection_of(image.data) or (None, None)
    if selection is None or not isinstance(source, StoredEvents):
        msg = (
            "this scan is no selection of a counted store, so nothing is known of its single electrons; pass what "
            "stemstore.open gives for a store, before its pixels, electrons or the order of its axes are changed"
        )
        raise InputError(msg, key="scan")
    wanted = _wanted(source, names)
    source.head.check_selection(selection)
    flat = selection.flat_positions()
    _check_budget(int(source.n_slots[flat].sum(dtype=np.int64)))
    columns = _read(source, selection, flat, wanted)
    variables = {name: ("event", values, TEXTS[name]) for name, values in columns.items()}
    shape = [len(axis) for axis, kept in zip(selection.scan, selection.kept, strict=False) if kept]
    attributes = {"scan_dims": list(scan_dims(image)), "scan_shape": shape, "stemstore_uuid": source.uuid}
    return xr.Dataset(variables, attrs=attributes)


def _wanted(source: StoredEvents, names: str | Sequence[str] | None) -> list[str]:
    there = columns_of(source)
    wanted = there if names is None else [names] if isinstance(names, str) else list(names)
    missing = [name for name in wanted if name not in there]
    if missing or not there:
        has = f"only {', '.join(there)}" if there else "no event columns"
        msg = (
            f"the store '{source.url}' has {has}{f', not {missing[0]!r}' if missing else ''}; count the raw frames "
            "again with stemstore.convert(…, count=True, event_columns=…)"
        )
        raise InputError(msg, url=source.url, found=there, expected=wanted)
    return [name for name in there if name in wanted]


def _check_budget(n_slots: int) -> None:
    needed, budget = BYTES_PER_EVENT * n_slots, memory_budget()
    if needed > budget:
        msg = (
            f"up to {n_slots} electrons with their columns need {format_size(needed)}, which exceeds the budget of "
            f"{format_size(budget)}; select fewer frames or raise STEMSTORE_MAX_MEMORY"
        )
        raise MemoryBudgetError(msg, needed=needed, budget=budget)


def _read(source: StoredEvents, selection: Selection, flat: Int64Array, names: list[str]) -> dict[str, Array]:
    """Read the blocks that hold the positions, one after the other, and put their events into the order of these."""
    reader = ColumnReader(source, names)
    seen = _visible(selection)
    types: dict[str, Any] = {"frame": np.uint32, "ky": np.int32, "kx": np.int32, **reader.dtypes}
    parts: list[dict[str, Array]] = [{name: np.zeros(0, dtype) for name, dtype in types.items()}]
    for number, local, place in groups(flat, reader.step):
        block = reader.block(number)
        indptr, indices = decode(block.gap, block.offsets)
        lengths = np.diff(indptr)[local]
        chosen = _ranges(indptr[local], lengths)
        ky, kx = np.divmod(indices[chosen].astype(np.int32), np.int32(selection.stored[-1]))
        part = {"frame": np.repeat(place.astype(np.uint32), lengths), "ky": ky, "kx": kx}
        part |= {name: values[block.gap != ESCAPE][chosen] for name, values in block.values.items()}
        kept = None if seen is None else seen[0][ky] & seen[1][kx]
        parts.append(part if kept is None else {name: values[kept] for name, values in part.items()})
    return _joined(parts)


def _visible(selection: Selection) -> tuple[Array, Array] | None:
    """Tell of every stored row and column whether it is selected; None where all are."""
    if selection.whole_detector:
        return None
    flags = [np.zeros(n, np.bool_) for n in selection.stored[-2:]]
    for flag, axis in zip(flags, selection.detector, strict=True):
        flag[np.asarray(axis, np.int64)] = True
    return flags[0], flags[1]


def _ranges(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Give all numbers of runs one behind the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - ends + lengths, lengths)


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """Put blocks together, frames in the order of the selection, and offsets into pixels."""
    table = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    frame = table["frame"]
    order = None if (frame[1:] >= frame[:-1]).all() else np.argsort(frame, kind="stable")
    scale = np.float32(1 / STEPS_PER_PIXEL)
    for name, values in table.items():
        ordered = values if order is None else values[order]
        table[name] = ordered * scale if name.startswith("offset_") else ordered
    return table
