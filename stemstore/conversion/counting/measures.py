"""Columns that a store gets: what is measured of every event while it is counted, or what an earlier store has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.conversion.counting.batches import join_columns
from stemstore.conversion.counting.noise import find_peak
from stemstore.conversion.counting.regions import Grid, Region
from stemstore.conversion.counting.sampling import histograms
from stemstore.conversion.counting.thresholds import RegionThresholds
from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels.event_columns import measure_events, smallest_type
from stemstore.kernels.gaps import ESCAPE

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, Int64Array
    from stemstore.conversion.counting.corrections import Corrections
    from stemstore.conversion.counting.thresholds import Thresholds
    from stemstore.kernels.counting import Limits
    from stemstore.scan.stored import EventsOfStore
    from stemstore.sources.contract import Events, FrameSource
    from stemstore.store.event_columns import ColumnBlock, ColumnReader
    from stemstore.store.scratch import BoundedCache

EventColumn = Literal["energy", "position"]
COLUMNS = {"energy": ("energy",), "position": ("offset_ky", "offset_kx")}
"""Arrays of the store by what is asked for."""

NOISE_WIDTHS = 2.0  # above the mean of the pedestal: pixels below are noise rather than charge
BOX = 9  # pixels


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """What is measured of events.

    Attributes
    ----------
    columns
        Name and dtype of every array.
    mean, level : shape (rows, n_spans), ADU
        Mean of the pedestal, and the level above which a pixel belongs to the electron.
    """

    columns: tuple[tuple[str, str], ...]
    mean: FloatArray
    level: FloatArray

    @classmethod
    def of(cls, wanted: tuple[str, ...], source: FrameSource, thresholds: Thresholds, done: Corrections) -> Measures:
        """Prepare what is wanted.

        Parameters
        ----------
        wanted
            Keys of `COLUMNS`, at least one.
        source, done
            Frames, and what is done to them before they are counted.
        thresholds
            From `with_pedestals`.
        """
        peaks = [entry.peak for entry in thresholds.regions if entry.peak is not None]
        grid = Grid.of([entry.region for entry in thresholds.regions], source.frame_shape)
        mean = grid.spread([peak.mean for peak in peaks])
        level = mean + NOISE_WIDTHS * grid.spread([peak.width for peak in peaks])
        largest = BOX * (float(np.max(np.inf if thresholds.xray is None else thresholds.xray)) - float(mean.min()))
        integers = not done.floating and np.dtype(source.dtype).kind in "iu"
        types = dict.fromkeys(COLUMNS["position"], "int8")
        types["energy"] = smallest_type(largest, integers=integers).name
        return cls(tuple((name, types[name]) for key in COLUMNS if key in wanted for name in COLUMNS[key]), mean, level)

    def measure(self, frames: Array, indptr: Int64Array, indices: Array, limits: Limits) -> dict[str, Array]:
        """Measure events of frames that were counted with `limits`; energies of integer type are rounded."""
        energy, offsets = measure_events(frames, indptr, indices, limits, (self.mean, self.level))
        found: dict[str, Array] = {"energy": energy, "offset_ky": offsets[:, 0], "offset_kx": offsets[:, 1]}
        return {
            name: (np.rint(found[name]) if np.dtype(dtype).kind == "u" else found[name]).astype(dtype)
            for name, dtype in self.columns
        }


def check_columns(wanted: Any) -> tuple[str, ...]:
    """Take names of columns, None, one or several, and give them in the order of `COLUMNS`.

    Raises
    ------
    InputError
        There is no such column.
    """
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted or ())
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        msg = f"event_columns has {unknown[0]!r}, which is not known; choose from {', '.join(COLUMNS)}"
        raise InputError(msg, key="event_columns", found=unknown[0], expected=tuple(COLUMNS))
    return tuple(name for name in COLUMNS if name in names)


def with_pedestals(source: FrameSource, thresholds: Thresholds, done: Corrections) -> Thresholds:
    """Fit the noise of every region where stated thresholds made that needless so far.

    Raises
    ------
    CorruptDataError
        There is no complete frame, or no noise peak.
    """
    entries = thresholds.regions
    if entries and all(entry.peak is not None for entry in entries):
        return thresholds
    rows, columns = source.frame_shape
    regions = [entry.region for entry in entries] or [Region("detector", (0, rows), (0, columns))]
    try:
        tables, _, integers = histograms(source, regions, done)
        peaks = [find_peak(table, integers=integers) for table in tables]
    except CorruptDataError as error:
        why = str(error).rpartition("; ")[0] or str(error)  # what to do about thresholds is of no help here
        msg = f"event_columns rest on the pedestal, which cannot be fitted: {why}; leave event_columns out"
        raise CorruptDataError(msg, key="event_columns") from error
    if not entries:
        limits: Any = (thresholds.background, np.inf if thresholds.xray is None else thresholds.xray)
        entries = (RegionThresholds(regions[0], *limits),)
    known = tuple(replace(entry, peak=peak) for entry, peak in zip(entries, peaks, strict=True))
    return replace(thresholds, regions=known)


@dataclass(frozen=True, slots=True, eq=False)
class ColumnsOfStore:
    """Events of a store with their columns, which go over to the store that is made of it."""

    source: EventsOfStore
    reader: ColumnReader
    kept: BoundedCache[ColumnBlock]

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and dtype of every column."""
        return tuple((name, dtype.name) for name, dtype in self.reader.dtypes.items())

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``."""
        parts: list[dict[str, Array]] = [{name: np.zeros(0, dtype) for name, dtype in self.columns}]
        step = self.reader.step
        for number in range(start // step, -(-stop // step)):
            block = self.kept.get_or_make(number, lambda number=number: self._block(number))  # type: ignore[misc]
            first = number * step
            a, b = block.offsets[[max(start - first, 0), min(stop - first, len(block.offsets) - 1)]]
            event = block.gap[a:b] != ESCAPE
            parts.append({name: values[a:b][event] for name, values in block.values.items()})
        return replace(self.source.read_events(start, stop), columns=join_columns(parts))

    def _block(self, number: int) -> tuple[ColumnBlock, int]:
        block = self.reader.block(number)
        return block, block.gap.nbytes + sum(values.nbytes for values in block.values.values())


def columns_of_store(source: Any) -> ColumnsOfStore | None:
    """Give the events of a store together with their columns; None where there are none."""
    from stemstore.scan.stored import EventsOfStore
    from stemstore.store.event_columns import ColumnReader, columns_of
    from stemstore.store.events import BROWSED_BYTES
    from stemstore.store.scratch import BoundedCache

    names = columns_of(source.scan) if isinstance(source, EventsOfStore) else []
    return ColumnsOfStore(source, ColumnReader(source.scan, names), BoundedCache(BROWSED_BYTES)) if names else None
