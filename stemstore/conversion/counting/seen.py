"""What was seen of the frames of a part of a scan: sums, so that parts add up in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore._types import Array, Int64Array

KINDS = ("dead", "saturated", "crowded", "levelless")
"""Kinds of odd frames."""


@dataclass(slots=True)
class Seen:
    """What was seen of a part of the scan.

    Attributes
    ----------
    first_group
        Number of the group of `counts[0]`.
    counts : shape (n_groups, n_modules, n_bins)
        Pixels of the rows that were looked at, by value.
    sums, first : shape (n_kinds,)
        Number of odd frames of each kind, and the first of them; -1 where there is none.
    """

    first_group: int
    counts: Int64Array
    sums: Int64Array = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    first: Int64Array = field(default_factory=lambda: np.full(len(KINDS), -1, np.int64))

    def note(self, kind: str, numbers: Int64Array) -> None:
        """Take note of odd frames."""
        self.merge_odd(KINDS.index(kind), len(numbers), int(numbers[0]) if len(numbers) else -1)

    def merge_odd(self, kind: int, number: int, first: int) -> None:
        """Add so many odd frames, of which this is the first."""
        if number:
            self.sums[kind] += number
            self.first[kind] = first if self.first[kind] < 0 else min(self.first[kind], first)

    def merge(self, other: Seen) -> None:
        """Add what was seen of another part, whose groups lie within these."""
        at = other.first_group - self.first_group
        self.counts[at : at + len(other.counts)] += other.counts
        for kind in range(len(KINDS)):
            self.merge_odd(kind, int(other.sums[kind]), int(other.first[kind]))

    def record(self) -> dict[str, Array]:
        """Give it as arrays, for the journal of a conversion."""
        return {"group": np.array(self.first_group), "counts": self.counts, "odd": np.stack([self.sums, self.first])}

    @classmethod
    def of(cls, record: Mapping[str, Array]) -> Seen:
        """Take it from such arrays."""
        return cls(int(record["group"]), record["counts"], *record["odd"])


def told(seen: Seen, kind: str, text: str) -> list[str]:
    """Tell of odd frames of a kind: no line, or one."""
    number, first = seen.sums[KINDS.index(kind)], seen.first[KINDS.index(kind)]
    return [f"{text}: {number} (first: frame {first})"] if number else []
