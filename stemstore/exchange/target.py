"""What is exported, and what a format to export to has to offer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.sources.contract import Events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stemstore._types import Array, Int64Array
    from stemstore.progress import Progress
    from stemstore.sources.contract import EventSource
    from stemstore_schemas import SourceMetadata


@dataclass(frozen=True, eq=False)
class CountedScan:
    """A counted scan that is about to be written.

    Attributes
    ----------
    url, uuid
        Where it comes from; the identity of a store, None for raw files.
    source
        Its events, the columns left out that are not to be written.
    most : shape (n_frames,)
        Electrons in the fullest pixel of every frame.
    """

    url: str
    uuid: str | None
    source: EventSource
    most: Array

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Extents of the scan axes."""
        return self.source.scan_shape

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return math.prod(self.source.scan_shape)

    @property
    def metadata(self) -> SourceMetadata:
        """What is known of the scan."""
        return self.source.metadata


@dataclass(frozen=True)
class Target:
    """A format to export to.

    Attributes
    ----------
    name, extensions
        As in ``to="…"``, and the usual extensions of a destination.
    carries
        Fields of the description of the counting for which the format has a place.
    headers
        Keys of the original header that are written back.
    files
        Files that an export to a destination consists of; the last one is what is opened.
    owned
        Names of the files that an existing file of this format consists of; empty for a file of another kind.
    check
        Refuses what the format cannot hold.
    write
        Writes the files; gives the number of electrons, and what a reader of the files should know.
    """

    name: str
    extensions: tuple[str, ...]
    carries: frozenset[str]
    headers: frozenset[str]
    files: Callable[[Path], list[Path]]
    owned: Callable[[Path], set[str]]
    check: Callable[[CountedScan], None]
    write: Callable[[CountedScan, list[Path], Progress], tuple[int, list[str]]]


@dataclass(frozen=True, eq=False)
class ShownColumns:
    """An event source without the last columns of its scan."""

    source: EventSource
    hidden: int

    @property
    def identity(self) -> str:
        """Identity of the source, and what is hidden."""
        return f"{self.source.identity}-{self.hidden}"

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Scan axes without the hidden columns."""
        return (*self.source.scan_shape[:-1], self.source.scan_shape[-1] - self.hidden)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def metadata(self) -> SourceMetadata:
        """Metadata of the source, of a scan without flyback."""
        known = self.source.metadata
        changes = {"flyback_columns": 0}
        if known.acquisition.scan_shape is not None:
            changes["scan_shape"] = self.scan_shape  # type: ignore[assignment]  # a field of another type
        return known.model_copy(update={"acquisition": known.acquisition.model_copy(update=changes)})

    @property
    def validity(self) -> Array | None:
        """State of the shown frames, or None when all are valid."""
        state = self.source.validity
        return None if state is None else state[self._stored(np.arange(math.prod(self.scan_shape)))]

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of shown positions ``start <= i < stop``."""
        if start == stop:
            return self.source.read_events(0, 0)
        stored = self._stored(np.arange(start, stop))
        first = int(stored[0])
        whole = self.source.read_events(first, int(stored[-1]) + 1)
        shown = np.zeros(whole.n_frames, bool)
        shown[stored - first] = True
        lengths = np.diff(whole.indptr)
        indptr = np.concatenate([[0], np.cumsum(lengths[shown], dtype=np.int64)])
        return Events(indptr, whole.indices[np.repeat(shown, lengths)], whole.frame_shape)

    def _stored(self, shown: Int64Array) -> Int64Array:
        return shown + shown // self.scan_shape[-1] * self.hidden
