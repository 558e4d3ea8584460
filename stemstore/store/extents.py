"""Runs of bytes of objects, and how to ask for many of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MERGE_GAP = 64 * 1024
"""Bytes between two wanted ranges that cost less to read than a further request costs to send."""

LONGEST = 2 * 2**20
"""Bytes of one request: many at a time hide the latency, one that fails costs little, and asyncio's clients take more
processor time per byte for longer ones, whose memory is fresh each time."""

BATCH = 32 * 2**20
"""Bytes asked for in one round of concurrent requests; bounds the memory of a remote read."""


class Extent(NamedTuple):
    """A run of bytes of one object."""

    key: str
    start: int
    length: int

    @property
    def stop(self) -> int:
        """First byte behind the run."""
        return self.start + self.length


def merge(extents: Sequence[Extent]) -> tuple[list[Extent], list[tuple[int, int]]]:
    """Join extents of one object that lie close together, up to `LONGEST`.

    Returns
    -------
    merged, home
        The extents to ask for, and for each given extent the merged one that holds it and its offset therein.
    """
    order = sorted(range(len(extents)), key=lambda number: extents[number][:2])
    merged: list[Extent] = []
    home: list[tuple[int, int]] = [(0, 0)] * len(extents)
    for number in order:
        one = extents[number]
        last = merged[-1] if merged else None
        stop = one.stop if last is None else max(last.stop, one.stop)
        near = last is not None and last.key == one.key and one.start <= last.stop + MERGE_GAP
        if last is not None and near and (stop == last.stop or stop - last.start <= LONGEST):
            merged[-1] = Extent(one.key, last.start, stop - last.start)
        else:
            merged.append(one)
        home[number] = (len(merged) - 1, one.start - merged[-1].start)
    return merged, home


def batches(extents: Sequence[Extent]) -> Iterator[Sequence[Extent]]:
    """Cut a list of extents where the sum of their lengths passes `BATCH`."""
    first, n_bytes = 0, 0
    for number, extent in enumerate(extents):
        if n_bytes and n_bytes + extent.length > BATCH:
            yield extents[first:number]
            first, n_bytes = number, 0
        n_bytes += extent.length
    if first < len(extents):
        yield extents[first:]
