"""Counting a partition: frames in small batches through the counting kernel, in scan order, on several threads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.batches import join
from stemstore.conversion.counting.corrections import FULL_SCALE, Corrections
from stemstore.conversion.counting.regions import modules_of
from stemstore.kernels.counting import Limits, Rule
from stemstore.sources.contract import MISSING, PARTIAL, VALID, Events

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.conversion.counting.batches import Found
    from stemstore.conversion.counting.measures import Measures
    from stemstore.conversion.counting.regions import Region
    from stemstore.conversion.counting.thresholds import Thresholds
    from stemstore.conversion.counting.watch import Watch
    from stemstore.sources.contract import FrameSource

BATCH_BYTES = 10 * 2**20  # frames read and counted at once by a thread; stays in the last-level cache
CORRECTED_BYTES = 4 * 2**20  # corrected frames at a time, so that they are counted while they are in the cache


@dataclass(frozen=True, slots=True)
class Counter:
    """An event source made of a frame source: counting happens when events are read.

    Attributes
    ----------
    source
        The frames.
    thresholds, rule
        What an electron is.
    corrections
        What is done to frames before; None for nothing.
    watch
        Keeps an eye on the frames that are counted; None for nobody.
    measures
        What is measured of every event; None for nothing.
    done
        The corrections, also where nothing is done.
    """

    source: FrameSource
    thresholds: Thresholds
    rule: Rule = "stemstore"
    corrections: Corrections | None = None
    watch: Watch | None = None
    measures: Measures | None = None
    done: Corrections = field(init=False, repr=False, compare=False)
    _by_integers: Limits | None = field(init=False, repr=False, compare=False)
    _by_floats: Limits = field(init=False, repr=False, compare=False)
    _factors: Any = field(init=False, repr=False, compare=False)
    _mark_full: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        source = self.source
        done = self.corrections or Corrections(source.frame_shape, np.dtype(source.dtype))
        bounds, background, xray = self.thresholds.levels(source.frame_shape)

        def limits(dtype: np.dtype[Any], offset: Array | None = None) -> Limits:
            return Limits.make(source.frame_shape, dtype, background, xray, self.rule, bounds=bounds, offset=offset)

        plain = None if done.floating else limits(np.dtype(source.dtype), done.offset)
        object.__setattr__(self, "done", done)
        object.__setattr__(self, "_by_integers", plain)
        object.__setattr__(self, "_by_floats", limits(done.work_dtype))
        object.__setattr__(self, "_factors", done.factors() if done.floating else None)
        full = self.rule == "stemstore" and source.dtype == np.uint16
        object.__setattr__(
            self, "_mark_full", full and (not done.floating or done.hides_full(float(self._by_floats.last.max())))
        )

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and dtype of what is measured of every event."""
        return () if self.measures is None else self.measures.columns

    @property
    def batch(self) -> int:
        """Frames per batch."""
        return max(1, BATCH_BYTES // max(1, math.prod(self.source.frame_shape) * self.source.dtype.itemsize))

    def read_events(self, start: int, stop: int) -> Events:
        """Read and count the frames of flat scan positions ``start <= i < stop``."""
        from stemstore.store.scratch import lease

        source = self.source
        state = None if source.validity is None else source.validity[start:stop]
        n_bytes = (stop - start) * math.prod(source.frame_shape) * source.dtype.itemsize
        with lease(n_bytes) as buffer:  # reused by the thread: fresh pages cost as much as reading them
            frames = buffer[:n_bytes].view(source.dtype).reshape(stop - start, *source.frame_shape)
            source.read_frames(start, stop, out=frames)
            indptr, indices, tallies, columns = self._count(frames, state)
            if self.watch is not None:
                self.watch.look(frames, start, state, tallies)
        return Events(indptr, indices, source.frame_shape, columns)

    def _count(self, frames: Array, state: Array | None) -> Found:
        """Count a batch; frames of which something was lost by themselves, where its zeros could pass for pixels."""
        plain = self._by_integers
        if plain is None:
            return self._count_corrected(frames, state)
        whole = state is None or bool((state == VALID).all()) or not accepts_zero(plain)
        return self._count_by(plain, frames) if whole else self._count_corrected(frames, state)

    def _count_by(self, limits: Limits, frames: Array) -> Found:
        """Count frames that the limits are for, and measure their events while the frames are in the cache."""
        indptr, indices, tallies = limits.count(frames)
        measures = self.measures
        columns = {} if measures is None else measures.measure(frames, indptr, indices, limits)
        return indptr, indices, tallies, columns

    def _count_corrected(self, frames: Array, state: Array | None) -> Found:
        """Count corrected frames, in which lost pixels are not a number and thereby absent."""
        from stemstore.store.scratch import lease

        done = self.done
        factors = self._factors or done.factors()
        modules = modules_of(self.source.metadata.detector, self.frame_shape)
        frame_bytes = math.prod(self.frame_shape) * done.work_dtype.itemsize
        step = max(1, CORRECTED_BYTES // max(1, frame_bytes))
        parts = []
        with lease(step * frame_bytes) as buffer:
            for first in range(0, max(1, len(frames)), step):
                some = frames[first : first + step]
                values = buffer[: len(some) * frame_bytes].view(done.work_dtype).reshape(some.shape)
                levelless = done.apply(some, values, factors)
                if self._mark_full and (some == FULL_SCALE).any():
                    values[(some == FULL_SCALE) & ~np.isnan(values)] = np.inf  # an X-ray, whatever it is corrected to
                if state is not None:
                    erase_lost(some, values, state[first : first + step], modules)
                indptr, indices, tallies, columns = self._count_by(self._by_floats, values)
                parts.append((indptr, indices, np.column_stack([tallies, levelless]), columns))
        return join(parts)

    def findings(self, n_events: int) -> tuple[dict[str, float], list[str], list[str]]:
        """Tell what was odd about the frames that were counted.

        Parameters
        ----------
        n_events
            Events of the whole scan.

        Returns
        -------
        drifts : unit ADU
            Of the pedestal over the scan, by module; those where it was not seen are left out.
        warned, noted
            One line for each oddity; what stated thresholds bring with them is noted and not warned of.
        """
        from stemstore.conversion.counting.watch import false_texts

        watch, chosen = self.watch, self.thresholds
        if watch is None:
            return {}, [], []
        drifts, texts = watch.drifts()
        crowded = watch.crowded()
        texts = watch.findings() + ([] if chosen.stated else crowded) + texts
        per_frame = n_events / max(1, math.prod(self.source.scan_shape))
        if chosen.false_events_per_frame is None and self.done.nothing and isinstance(chosen.background, float):
            false = watch.false_events(chosen.background)
            texts += [] if false is None else false_texts(false, per_frame)
        return drifts, texts, crowded if chosen.stated else []


def accepts_zero(limits: Limits) -> bool:
    """Tell whether a pixel that holds zero, as lost ones do, might be an event or beat one."""
    lowest = limits.low[~limits.never].min() if not limits.never.all() else np.inf
    return bool(lowest <= 0) if limits.offset is None else bool(-limits.offset.min() >= lowest)


def erase_lost(frames: Array, values: Array, state: Array, modules: list[Region]) -> None:
    """Put NaN where nothing was recorded: all of a missing frame, and modules of a partial one that hold only zeros.

    Parameters
    ----------
    frames, values : shape (n, ky, kx)
        As read, and as corrected; the latter are changed.
    state : shape (n,)
        State of every frame.
    modules
        Parts that are lost as a whole; where there is only one, single rows are looked at.
    """
    values[state == MISSING] = np.nan
    for number in np.flatnonzero(state == PARTIAL).tolist():
        if len(modules) == 1:
            values[number, ~frames[number].any(axis=1)] = np.nan
        for module in modules if len(modules) > 1 else ():
            part = slice(*module.rows), slice(*module.columns)
            if not frames[number][part].any():
                values[number][part] = np.nan
