"""Counted frames as dense ones, some at a time, for kernels that need whole frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stemstore.kernels import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array, UInt16Array

BATCH_PIXELS = 2**22  # dense pixels at a time, 8 MiB


def densified(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, stored: tuple[int, int]
) -> Iterator[tuple[Array, Int64Array, slice]]:
    """Make frames ``local[i]`` of a block of events dense, some at a time.

    Parameters
    ----------
    gap, offsets, local
        As a kernel's `events` takes them.
    stored
        Rows and columns of the stored detector.

    Yields
    ------
    frames : shape (n, ky, kx)
        uint8 where it holds the counts, else uint16; valid until the next ones are asked for.
    rows : shape (n,)
        Numbers of the frames, 0 … n - 1.
    some
        Which entries of `local` they are.
    """
    n_pixels = math.prod(stored)
    step = max(1, min(len(local), BATCH_PIXELS // n_pixels))
    dense = np.zeros((step, n_pixels), np.uint16)
    for first in range(0, len(local), step):
        some = slice(first, min(first + step, len(local)))
        rows = np.arange(some.stop - first, dtype=np.int64)
        wide = dense[: len(rows)]
        wide[...] = 0
        events.densify(gap, offsets, local[some], wide, rows)
        frames = wide.astype(np.uint8) if wide.max(initial=0) <= np.iinfo(np.uint8).max else wide
        yield frames.reshape(-1, *stored), rows, some
