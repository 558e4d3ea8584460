"""Event lists by pixel: how many electrons each pixel of a frame holds, in batches of bounded size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stemstore.progress import NoProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stemstore._types import Array, Int64Array, UInt32Array
    from stemstore.progress import Progress
    from stemstore.sources.contract import Events, EventSource

BATCH_EVENTS = 2**20
"""Events of a batch that is aimed at: some ten megabytes with all that is worked out about them."""

FIRST_BATCH, MOST_FRAMES = 16, 512
"""Frames of the first batch, before it is known how many events a frame has, and of any batch: what is read where
dense frames follow on sparse ones without warning."""


def in_batches(read: Callable[[int, int], list[Events]], n_frames: int) -> Iterator[tuple[int, int, list[Events]]]:
    """Read a range of frames in batches of about `BATCH_EVENTS` events.

    The length of a batch follows from the events of the one before; it at most doubles and never exceeds
    `MOST_FRAMES`.

    Parameters
    ----------
    read
        Gives the events of frames ``start <= i < stop``, in one or several pieces.
    n_frames
        Length of the range, which begins at 0.

    Yields
    ------
    start, stop, pieces
    """
    start, size = 0, FIRST_BATCH
    while start < n_frames:
        stop = min(start + size, n_frames)
        pieces = read(start, stop)
        yield start, stop, pieces
        met = sum(len(piece.indices) for piece in pieces)
        start, size = stop, max(1, min(2 * size, MOST_FRAMES, BATCH_EVENTS * (stop - start) // max(met, 1)))


def by_pixel(events: Events) -> tuple[Int64Array, UInt32Array, Int64Array]:
    """List every pixel that was hit once, with its electrons.

    Parameters
    ----------
    events
        Ascending inside each frame, as every source gives them.

    Returns
    -------
    indptr : shape (n_frames + 1,)
    pixels, electrons : shape (n,)
        Frame i owns the entries ``indptr[i] <= k < indptr[i + 1]``.
    """
    n = len(events.indices)
    new = np.ones(n, bool)
    new[1:] = events.indices[1:] != events.indices[:-1]
    heads = events.indptr[:-1]
    new[heads[heads < n]] = True
    first = np.flatnonzero(new)
    return np.searchsorted(first, events.indptr), events.indices[first], np.diff(first, append=n)


def multiplicity(source: EventSource, progress: Progress | None = None) -> Array:
    """Count the electrons of the fullest pixel of every frame, in one pass over the events.

    Parameters
    ----------
    source
        The events.
    progress
        Receives the advance.

    Returns
    -------
    most : shape (n_frames,), uint32
        0 for an empty frame.
    """
    n_frames = math.prod(source.scan_shape)
    most = np.zeros(n_frames, np.uint32)
    progress = progress or NoProgress()
    progress.start("looking for full pixels", n_frames)
    for start, stop, (events,) in in_batches(lambda a, b: [source.read_events(a, b)], n_frames):
        indptr, _, electrons = by_pixel(events)
        frame = np.repeat(np.arange(start, stop), np.diff(indptr))
        np.maximum.at(most, frame, electrons.astype(np.uint32))
        progress.advance(stop - start)
    return most
