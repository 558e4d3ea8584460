"""Finished stores as sources of frames or events, as readers give raw files.

A store shown so keeps its whole scan, flyback included, with what it says about acquisition, detector and axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stemstore.scan.corrected import CorrectedFrames
from stemstore.sources.geometry import check_range
from stemstore.sources.records import frame_buffer
from stemstore.sources.references import references_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stemstore._types import Array
    from stemstore.sources.contract import DetectorImage, Events, EventSource, FrameSource, Source
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.events import StoredEvents
    from stemstore.store.open import StoredScan
    from stemstore_schemas import SourceMetadata


@dataclass(frozen=True, eq=False)
class FramesOfStore:
    """The frames of a dense store as a `stemstore.sources.contract.FrameSource`."""

    scan: StoredFrames
    metadata: SourceMetadata

    @property
    def identity(self) -> str:
        """Identity of the store."""
        return f"store-{self.scan.uuid}"

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Scan axes as stored."""
        return self.scan.scan_shape

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.scan.shape[-2], self.scan.shape[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.scan.dtype

    @property
    def validity(self) -> Array | None:
        """State of every frame, or None when all are valid."""
        return self.scan.validity

    @property
    def references(self) -> Mapping[str, DetectorImage]:
        """Images of the detector in the calibration of the store."""
        return references_of_store(self.scan)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``.

        A run along a row decodes every chunk that it touches; `read_grid` is the cheaper way to read rectangles.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        at = 0
        for part in boxes(start, stop, self.scan_shape):
            found = self.read_grid(part).reshape(-1, *self.frame_shape)
            frames[at : at + len(found)] = found
            at += len(found)
        return frames

    def read_grid(self, part: tuple[slice, ...]) -> Array:
        """Read a rectangle of the scan, each chunk once.

        Parameters
        ----------
        part
            One slice per scan axis.

        Returns
        -------
        frames : shape (extents of the rectangle, ky, kx)
        """
        from stemstore.selection import Selection

        return self.scan.read(Selection.full(self.scan.shape).cut_scan(part))


@dataclass(frozen=True, eq=False)
class EventsOfStore:
    """The events of a counted store as a `stemstore.sources.contract.EventSource`."""

    scan: StoredEvents
    metadata: SourceMetadata

    @property
    def identity(self) -> str:
        """Identity of the store."""
        return f"store-{self.scan.uuid}"

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Scan axes as stored."""
        return self.scan.scan_shape

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.scan.shape[-2], self.scan.shape[-1]

    @property
    def validity(self) -> Array | None:
        """State of every frame, or None when all are valid."""
        return self.scan.validity

    @property
    def references(self) -> Mapping[str, DetectorImage]:
        """Images of the detector in the calibration of the store."""
        return references_of_store(self.scan)

    @property
    def most_electrons(self) -> int | None:
        """Electrons in the fullest pixel of any frame; None where the store does not tell."""
        from stemstore.store.metadata import GAP

        return self.scan.head.arrays[GAP].attributes.get("max_multiplicity")

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame."""
        return self.scan.read_events(start, stop)


@dataclass(frozen=True, eq=False)
class FramesOfEvents:
    """Events as frames of electrons per pixel, made when they are read.

    Attributes
    ----------
    source
        The events.
    dtype
        Unsigned integers that hold the fullest pixel, see `electrons_dtype`.
    """

    source: EventSource
    dtype: np.dtype[Any]

    @property
    def identity(self) -> str:
        """Identity of the events, and the type that they are shown in."""
        return f"{self.source.identity}-{self.dtype.name}"

    @property
    def metadata(self) -> SourceMetadata:
        """What is known of the events, but how they were counted: frames were not."""
        return self.source.metadata.model_copy(update={"counting": None})

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Scan axes of the events."""
        return self.source.scan_shape

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def validity(self) -> Array | None:
        """State of every frame, or None when all are valid."""
        return self.source.validity

    @property
    def references(self) -> Mapping[str, DetectorImage]:
        """Images of the detector that go with the events."""
        return references_of(self.source)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Make the frames of flat scan positions ``start <= i < stop``; exact."""
        from stemstore.sources.electrons import by_pixel

        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        indptr, pixels, electrons = by_pixel(self.source.read_events(start, stop))
        flat = frames.reshape(stop - start, -1)
        flat[...] = 0
        flat[np.repeat(np.arange(stop - start), np.diff(indptr)), pixels] = electrons
        return frames


def source_of_store(scan: StoredScan, warnings: Sequence[str] | None = None) -> Source:
    """Show an open store as frames or events; `warnings` in place of what does not go over from it."""
    from stemstore.store.arrays import StoredFrames

    known = describe_store(scan)
    if warnings is not None:
        known = known.model_copy(update={"warnings": [*warnings]})
    found = FramesOfStore(scan, known) if isinstance(scan, StoredFrames) else EventsOfStore(scan, known)
    return cast("Source", found)  # its attributes are properties, which the protocol does not foresee


def store_of(source: Any) -> StoredScan | None:
    """Give the store that a source reads; None for raw files."""
    inner = source
    while isinstance(inner, (FramesOfEvents, CorrectedFrames)):
        inner = inner.source
    return inner.scan if isinstance(inner, (FramesOfStore, EventsOfStore)) else None


def frames_of_store(source: Any) -> StoredFrames | None:
    """Give the dense store whose chunks a source decodes; None for events and raw files."""
    inner = source.source if isinstance(source, CorrectedFrames) else source
    return inner.scan if isinstance(inner, FramesOfStore) else None


def events_of_store(source: Any) -> StoredEvents | None:
    """Give the counted store whose blocks a source decodes; None for frames and raw files."""
    return source.scan if isinstance(source, EventsOfStore) else None


def references_of_store(scan: StoredScan) -> Mapping[str, DetectorImage]:
    """List the images of the detector in the calibration of a store."""
    from stemstore.store.calibration import FRAMES, read_calibration

    arrays = read_calibration(scan).arrays
    return {name: arrays[name] for name in FRAMES if name in arrays}


def describe_store(scan: StoredScan) -> SourceMetadata:
    """Say about a store what a reader says about raw files; results kept beside its scan are a warning."""
    from stemstore.store.attached import list_groups
    from stemstore.store.commit import read_commit
    from stemstore.store.metadata import DERIVED
    from stemstore_schemas import SourceFile, SourceMetadata

    document, commit = scan.document, read_commit(scan.head.storage)
    n_bytes, time = (0, None) if commit is None else (commit.n_bytes, commit.time)
    digest = None if commit is None else commit.shards_digest
    results = list_groups(scan.url, DERIVED)
    warnings = []
    if results:
        warnings.append(f"saved results ({', '.join(results)}) stay with '{scan.url}' and are not carried over")
    return SourceMetadata(
        acquisition=document.acquisition,
        detector=document.detector,
        axes=document.axes,
        vendor=document.vendor,
        warnings=warnings,
        files=[SourceFile(path=scan.url, size=n_bytes, mtime=time, digest=digest, uuid=document.uuid)],
        counting=document.counting,
    )


def as_frames(source: EventSource) -> FrameSource:
    """Show events as frames of the smallest unsigned type that holds every pixel.

    The fullest pixel of a store is known; raw files are read once for it.
    """
    from stemstore.sources.electrons import multiplicity

    most = source.most_electrons if isinstance(source, EventsOfStore) else None
    if most is None:
        most = int(multiplicity(source).max(initial=0))
    return cast("FrameSource", FramesOfEvents(source, np.dtype(np.min_scalar_type(most))))


def boxes(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a run of C-order positions into rectangles, in order: a part of a row, whole rows, a part of a row."""
    if len(shape) == 1:
        if stop > start:
            yield (slice(start, stop),)
        return
    inner = math.prod(shape[1:])
    (first, head), (last, tail) = divmod(start, inner), divmod(stop, inner)
    if first == last:
        yield from ((slice(first, first + 1), *part) for part in boxes(head, tail, shape[1:]))
        return
    if head:
        yield from ((slice(first, first + 1), *part) for part in boxes(head, inner, shape[1:]))
        first += 1
    if last > first:
        yield (slice(first, last), *(slice(0, n) for n in shape[1:]))
    if tail:
        yield from ((slice(last, last + 1), *part) for part in boxes(0, tail, shape[1:]))
