"""Many scans as one scan source, with an axis in front that counts them.

Every unit of work lies within one scan, and each scan is opened where it is first read: a graph over sixty stores
travels as sixty addresses, and a task opens the one store that it needs.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.kernels.contract import DetectorRegion
from stemstore.scan.lazy import source_node
from stemstore.selection import DETECTOR_AXES, Selection, indices
from stemstore.sources.contract import VALID
from stemstore.sources.streaming import EventScan
from stemstore.store.events import StoredEvents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import Kernel
    from stemstore.scan.lazy import ScanSource


class Member:
    """A scan of a series, opened where it is first needed.

    Parameters
    ----------
    node
        The source, or the call that opens it, as `stemstore.scan.lazy.source_node` gives it.
    source
        The source, where it is open already.
    has_states
        Whether some of its frames may be missing or partial.
    """

    def __init__(self, node: Any, source: ScanSource | None = None, *, has_states: bool = False) -> None:
        self._node, self._source, self.has_states = node, source, has_states

    @classmethod
    def of(cls, source: ScanSource) -> Member:
        """Take an open source."""
        return cls(source_node(source), source, has_states=may_lack_frames(source))

    @property
    def source(self) -> ScanSource:
        """The scan; threads that come at the same time may open it twice, which costs time and nothing else."""
        if self._source is None:
            self._source = _opened(self._node)
        return self._source

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel closed."""
        return _closed, (self._node, self.has_states)


@dataclass(slots=True, eq=False)
class SeriesSource:
    """Scans of one shape, one after the other; a scan source.

    Attributes
    ----------
    members
        The scans.
    shape, dtype, uuid, partition, chunk
        As of every scan source; the first axis counts the scans, and units of work and blocks hold one of them. Where
        the scans are laid out differently, the largest units count.
    counted
        Whether the scans hold electron events.
    """

    members: tuple[Member, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    uuid: str
    partition: tuple[int, ...]
    chunk: tuple[int, ...]
    counted: bool

    @classmethod
    def of(cls, sources: Sequence[ScanSource], *, counted: bool) -> SeriesSource:
        """Put scans of one shape together; the pixel type is one that holds those of all."""
        first = sources[0]
        digest = hashlib.blake2b("\n".join(source.uuid for source in sources).encode(), digest_size=16)
        return cls(
            members=tuple(Member.of(source) for source in sources),
            shape=(len(sources), *first.shape),
            dtype=np.result_type(*(source.dtype for source in sources)),
            uuid=f"series-{digest.hexdigest()}",
            partition=(1, *max((source.partition for source in sources), key=math.prod)),
            chunk=(1, *max((source.chunk for source in sources), key=math.prod)),
            counted=counted,
        )

    @property
    def validity(self) -> Array | None:
        """State of every flat position, or None when all frames are valid; scans that may lack some are asked."""
        if not any(member.has_states for member in self.members):
            return None
        n_positions = math.prod(self.shape[1:-DETECTOR_AXES])
        states = np.full((len(self.members), n_positions), VALID, np.uint8)
        for row, member in zip(states, self.members, strict=True):
            known = getattr(member.source, "validity", None) if member.has_states else None
            if known is not None:
                row[:] = np.asarray(known).reshape(-1)
        return states.reshape(-1)

    @property
    def n_slots(self) -> Array:
        """Slots of every flat position; `AttributeError` where the scans are no counted stores."""
        return np.concatenate([np.asarray(getattr(member.source, "n_slots")) for member in self.members])  # noqa: B009  # the protocol does not foresee it

    @property
    def frames_per_block(self) -> int:
        """Frames of the largest block of events, at most a scan; `AttributeError` as for `n_slots`."""
        frames = max(getattr(member.source, "frames_per_block") for member in self.members)  # noqa: B009  # as above
        return int(min(frames, math.prod(self.shape[1:-DETECTOR_AXES])))

    def narrowed(self, selection: Selection) -> tuple[ScanSource, Selection]:
        """Give the one scan that a selection has picked, and what is selected of it; or the series as it is."""
        if not selection.kept[0]:
            source = self.members[int(selection.axes[0][0])].source
            if source.dtype == self.dtype:
                return source, _inner(selection)
        return self, selection

    def read(self, selection: Selection) -> Array:
        """Read the selected pixels as an array of ``selection.shape``."""
        inner = _inner(selection)
        parts = [self.members[number].source.read(inner) for number in indices(selection.axes[0])]
        if len(parts) == 1:
            return parts[0].reshape(selection.shape).astype(self.dtype, copy=False)
        whole = np.stack(parts) if parts else np.empty((0, *inner.shape))
        return whole.reshape(selection.shape).astype(self.dtype, copy=False)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions through a kernel, scan by scan."""
        inner, numbers = _inner(selection), indices(selection.axes[0])
        flags = None if keep is None else keep.reshape(selection.scan_lengths)
        if len(numbers) == 1:
            source = self.members[numbers[0]].source
            if source.dtype == self.dtype:
                return source.run(inner, kernel, prepared, None if flags is None else flags[0])
        out = kernel.allocate(selection.n_positions, self.dtype, DetectorRegion.of(selection))
        for place, number in enumerate(numbers):
            into = Into(kernel, out, place * inner.n_positions)
            self.members[number].source.run(inner, into, prepared, None if flags is None else flags[place])
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Into:
    """Kernel: another kernel whose output is there already; rows of this scan begin at `first`."""

    kernel: Kernel
    out: Any
    first: int

    @property
    def reduces(self) -> Any:
        """As the kernel."""
        return self.kernel.reduces

    @property
    def combine(self) -> np.ufunc:
        """As the kernel."""
        return self.kernel.combine

    def prepare(self, region: DetectorRegion) -> Any:
        """Prepare the kernel."""
        return self.kernel.prepare(region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """As the kernel."""
        return self.kernel.output(dtype, region)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Any:
        """Give the output that is there already."""
        del n_positions, dtype, region
        return self.out

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Hand frames on."""
        self.kernel.frames(block, local, out, place + self.first, prepared)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Hand events on."""
        self.kernel.events(gap, offsets, local, out, place + self.first, prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the output to whoever made it."""
        del region
        return out


def holds_events(source: Any) -> bool:
    """Tell whether a source holds electron events, not pixels; those of a series do or do not all together."""
    return source.counted if isinstance(source, SeriesSource) else isinstance(source, (EventScan, StoredEvents))


def may_lack_frames(source: Any) -> bool:
    """Tell whether frames of a source may be missing or partial, without reading which."""
    from stemstore.store.metadata import VALID as STATES

    below = source
    while (head := getattr(below, "head", None)) is None and hasattr(below, "source"):
        below = below.source
    if head is not None and head.journal is None:
        return STATES in head.arrays
    return getattr(source, "validity", None) is not None


def _inner(selection: Selection) -> Selection:
    """Take the axis of the scans away from a selection."""
    return Selection(selection.stored[1:], selection.axes[1:], selection.kept[1:])


def _opened(node: Any) -> Any:
    """Do what a graph would do with a node: call what is a call, innermost first."""
    if isinstance(node, tuple) and node and callable(node[0]):
        return node[0](*map(_opened, node[1:]))
    return node


def _closed(node: Any, has_states: bool) -> Member:
    return Member(node, has_states=has_states)
