"""Events in batches: read on several threads in the order of the scan, and put one behind the other."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from stemstore.sources.contract import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Executor, Future

    from stemstore._types import Array, Int64Array

Found = tuple["Int64Array", "Array", "Int64Array", dict[str, "Array"]]
"""Pointers, indices, tallies of every frame, and columns of events."""


def join(parts: list[Found]) -> Found:
    """Put the results of batches one behind the other."""
    lengths = np.concatenate([np.diff(part[0]) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    columns = join_columns([part[3] for part in parts])
    return indptr, np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts]), columns


def join_columns(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """Put the columns of batches one behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_runs(
    read_events: Callable[[int, int], Events], runs: Iterable[tuple[int, int]], batch: int, executor: Executor
) -> Generator[Events, None, None]:
    """Read the events of runs of frames, batch by batch; the next run is being read while the caller works on one.

    Parameters
    ----------
    read_events
        Method of an event source.
    runs
        First and last flat scan position (exclusive) of every run.
    batch
        Frames per call.
    executor
        Where the calls run. The result does not depend on it.
    """
    waiting: deque[list[Future[Events]]] = deque()
    try:
        for start, stop in runs:
            borders = [(first, min(first + batch, stop)) for first in range(start, stop, batch)]
            waiting.append([executor.submit(read_events, *border) for border in borders])
            if len(waiting) > 1:
                yield _joined(waiting[0])
                waiting.popleft()
        while waiting:
            yield _joined(waiting[0])
            waiting.popleft()
    finally:
        for future in itertools.chain(*waiting):  # none, unless something went wrong
            future.cancel()


def _joined(futures: list[Future[Events]]) -> Events:
    """Put the events of batches one behind the other."""
    parts = [future.result() for future in futures]
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    indices, columns = np.concatenate([part.indices for part in parts]), join_columns([part.columns for part in parts])
    return Events(indptr, indices, parts[0].frame_shape, columns)
