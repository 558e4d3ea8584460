"""Counting a partition: frames in small batches through the counting kernel, in scan order, on several threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.sources.contract import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from stemstore.conversion.thresholds import Thresholds
    from stemstore.sources.contract import FrameSource

Rule = Literal["stemstore", "stempy"]
BATCH_BYTES = 10 * 2**20  # frames read and counted at once by a thread; stays in the last-level cache


@dataclass(frozen=True, slots=True)
class Counter:
    """An event source made of a frame source: counting happens when events are read."""

    source: FrameSource
    thresholds: Thresholds
    rule: Rule = "stemstore"

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def batch(self) -> int:
        """Frames per batch."""
        return max(1, BATCH_BYTES // max(1, math.prod(self.source.frame_shape) * self.source.dtype.itemsize))

    def read_events(self, start: int, stop: int) -> Events:
        """Read and count the frames of flat scan positions ``start <= i < stop``."""
        from stemstore.kernels.counting import count_frames
        from stemstore.store.scratch import lease

        source = self.source
        n_bytes = (stop - start) * math.prod(source.frame_shape) * source.dtype.itemsize
        with lease(n_bytes) as buffer:  # reused by the thread: fresh pages cost as much as reading them
            frames = buffer[:n_bytes].view(source.dtype).reshape(stop - start, *source.frame_shape)
            source.read_frames(start, stop, out=frames)
            indptr, indices = count_frames(frames, self.thresholds.background, self.thresholds.xray, self.rule)
        return Events(indptr, indices, source.frame_shape)


def read_block(
    read_events: Callable[[int, int], Events], start: int, stop: int, batch: int, executor: Executor | None
) -> Events:
    """Read events of a run of frames batch by batch and join them in scan order.

    Parameters
    ----------
    read_events
        Method of an event source.
    start, stop
        Flat scan positions.
    batch
        Frames per call.
    executor
        Where the calls run; None for this thread. The result does not depend on it.
    """
    borders = [(first, min(first + batch, stop)) for first in range(start, stop, batch)]
    parts = list(_in_order(read_events, borders, executor))
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Events(indptr, np.concatenate([part.indices for part in parts]), parts[0].frame_shape)


def _in_order(
    call: Callable[[int, int], Any], borders: list[tuple[int, int]], executor: Executor | None
) -> Iterator[Any]:
    if executor is None:
        return (call(first, last) for first, last in borders)
    return executor.map(call, *zip(*borders, strict=True))
