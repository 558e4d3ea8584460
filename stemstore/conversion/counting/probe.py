"""A few frames of a source, counted: how many electrons to expect, and what the noise looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.sources.contract import EventSource

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.conversion.counting.noise import Histogram
    from stemstore.conversion.counting.thresholds import Thresholds
    from stemstore.sources.contract import FrameSource, Source
    from stemstore_schemas import SourceMetadata

SAMPLED_FRAMES = 8  # about a second on a slow disk


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What a few frames tell.

    Attributes
    ----------
    rate
        Electrons per frame; None where they cannot be counted.
    thresholds
        What they were counted with; None for events, and where no noise was found.
    histogram
        Numbers of the pixels by value; None likewise.
    """

    rate: float | None = None
    thresholds: Thresholds | None = None
    histogram: Histogram | None = None


@dataclass(frozen=True, slots=True)
class FewFrames:
    """A few frames of a source, as a source of their own."""

    source: FrameSource
    chosen: tuple[int, ...]
    validity: None = None

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """One axis."""
        return (len(self.chosen),)

    @property
    def metadata(self) -> SourceMetadata:
        """What the files say."""
        return self.source.metadata

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.source.dtype

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of a run of the few."""
        frames = np.empty((stop - start, *self.frame_shape), self.dtype) if out is None else out
        for frame, number in zip(frames, self.chosen[start:stop], strict=True):
            frame[...] = self.source.read_frames(number, number + 1)[0]
        return frames


def probe(source: Source) -> Probe:
    """Count the electrons of at most 8 complete frames; nothing is told where they cannot be counted."""
    from stemstore.conversion.counting.regions import regions_of
    from stemstore.conversion.counting.sampling import histograms, sampled_frames
    from stemstore.conversion.counting.settings import CountOptions

    if isinstance(source, EventSource):
        n_frames = math.prod(source.scan_shape)
        chosen = sorted({number * n_frames // SAMPLED_FRAMES for number in range(SAMPLED_FRAMES)})
        return Probe(sum(len(source.read_events(number, number + 1).indices) for number in chosen) / len(chosen))
    try:
        complete = sampled_frames(source)
        few: Any = FewFrames(source, tuple(complete[:: max(1, -(-len(complete) // SAMPLED_FRAMES))].tolist()))
        counter = CountOptions().counter(few)
    except CorruptDataError:
        return Probe()
    events = counter.read_events(0, len(few.chosen))
    whole = regions_of("global", source.metadata.detector, source.frame_shape)
    return Probe(len(events.indices) / len(few.chosen), counter.thresholds, histograms(few, whole, None)[0][0])
