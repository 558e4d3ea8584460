"""Trigger edges of a Timepix3 stream as beginnings of pixels, lines or frames of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Int64Array

Trigger = Literal["pixel", "line", "frame"]
Edge = Literal["tdc1_rising", "tdc1_falling", "tdc2_rising", "tdc2_falling"]

KINDS: dict[Edge, int] = {"tdc1_rising": 0xF, "tdc1_falling": 0xA, "tdc2_rising": 0xE, "tdc2_falling": 0xB}
"""Bits 56 to 59 of a trigger packet."""

COUNTER = 4096
"""Numbers of edges before they begin anew."""

MOST_MISSING = 2**20
"""Edges that are put in for missing ones at most; a stream that lacks more has other faults."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Times of one kind of edge.

    Attributes
    ----------
    times : shape (n,)
        Rising, in units of the kernels.
    interpolated
        Numbers of those that were missing and put in between their neighbours.
    """

    times: Int64Array
    interpolated: Int64Array


def of_kind(edges: Int64Array, edge: Edge) -> Edges:
    """Take the edges of one kind, each once, and put in those that the counter says are missing.

    Every chip reports an edge, with the same number and times that agree to a fine step; the earliest is kept.

    Parameters
    ----------
    edges : shape (n, 3)
        Kind, number and time of every report.
    edge
        The kind.

    Raises
    ------
    InputError
        There are no edges of that kind.
    """
    mine = edges[edges[:, 0] == KINDS[edge]]
    if not len(mine):
        held = [name for name, kind in KINDS.items() if (edges[:, 0] == kind).any()]
        msg = f"the stream has no trigger edges {edge!r}, but {', '.join(held) or 'none at all'}; pass another edge"
        raise InputError(msg, key="edge", found=edge, expected=held)
    mine = mine[np.argsort(mine[:, 2], kind="stable")]
    new = np.ones(len(mine), bool)
    new[1:] = mine[1:, 1] != mine[:-1, 1]
    number, times = mine[new, 1], mine[new, 2]
    steps = np.diff(number) % COUNTER
    usual = int(np.median(steps)) if len(steps) else 1
    missing = np.maximum(steps // max(usual, 1) - 1, 0)
    if not missing.any() or missing.sum() > MOST_MISSING:
        return Edges(times, np.empty(0, np.int64))
    place = np.concatenate([[0], np.cumsum(missing + 1)])
    whole = np.arange(place[-1] + 1)
    filled = np.interp(whole, place, times - times[0]).round().astype(np.int64) + times[0]
    return Edges(filled, np.setdiff1d(whole, place))


def period(edges: Edges) -> float:
    """Usual time from one edge to the next, in units of the kernels; 0 where there is one edge only."""
    return float(np.median(np.diff(edges.times))) if len(edges.times) > 1 else 0.0
