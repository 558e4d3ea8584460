"""An eye on the frames while they are counted: drifting pedestal, dead and saturated frames, a poor choice of limits.

Of every frame one row per module is looked at, which costs a few microseconds. What is gathered are sums, so that the
findings do not depend on the number of threads.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.noise import MIN_PIXELS, Histogram, find_peak, fit_level, fit_noise_peak
from stemstore.conversion.counting.regions import modules_of
from stemstore.conversion.counting.seen import Seen, told
from stemstore.errors import CorruptDataError
from stemstore.kernels.counting_corrections import row_histogram
from stemstore.sources.contract import VALID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stemstore._types import Array, Int64Array
    from stemstore.conversion.counting.regions import Region
    from stemstore.conversion.counting.thresholds import Thresholds
    from stemstore.sources.contract import FrameSource

N_BINS = 256  # values around the pedestal that are looked at
MAX_GROUPS = 32  # runs of scan lines whose pedestals are compared
PIXELS_PER_GROUP = 4 * MIN_PIXELS  # the mean of a group is then known to 0.02 widths, the range of 32 groups to 0.1
DRIFT = 0.25  # widths of the noise; a drift of one width changes the false events by a factor of a hundred
CROWDED = 0.3  # share of candidates that no counted frame should have
SATURATED = 0.001  # share of pixels at or above the upper limit that is worth a word
XRAY_DISTANCE = 60.0  # widths of the noise above the pedestal; one electron leaves up to about 50
FALSE_SHARE, FALSE_LEAST = 0.02, 0.01  # share of false events among all, and number per frame, worth a word


def doubts(thresholds: Thresholds, events_per_frame: float) -> list[str]:
    """Tell what speaks against the thresholds before anything is counted.

    Parameters
    ----------
    thresholds
        As they will be used.
    events_per_frame
        Mean of a sample, false ones included.
    """
    texts = []
    if thresholds.false_events_per_frame is not None:
        texts += false_texts(thresholds.false_events_per_frame, events_per_frame)
    for entry in thresholds.regions:
        if entry.peak is None or entry.xray > entry.peak.mean + XRAY_DISTANCE * entry.peak.width:
            continue
        texts.append(
            f"the X-ray threshold of {entry.region.name!r}, {entry.xray:.4g} ADU, lies inside the distribution of "
            f"single electrons (below {entry.peak.mean + XRAY_DISTANCE * entry.peak.width:.4g} ADU); raise "
            "xray_sigma= or give xray_threshold="
        )
    return texts


def false_texts(false: float, events_per_frame: float) -> list[str]:
    """Tell how many events are none, where they are many."""
    if false <= max(FALSE_LEAST, FALSE_SHARE * events_per_frame):
        return []
    text = f"noise alone is expected to make {false:.3g} of about {events_per_frame:.3g} events per frame"
    return [f"{text}; raise background_sigma= or give false_events_per_frame="]


@dataclass(slots=True)
class Watch:
    """What was seen so far, by parts of the scan.

    Attributes
    ----------
    modules
        Parts of the detector that are watched.
    low
        Pixel value of the first bin.
    group_size
        Frames of one group: whole scan lines.
    line
        Positions of a scan line.
    n_frames, n_pixels
        Frames of the scan, and pixels of a frame.
    borders
        First frame of every part.
    parts
        What was seen of every part, by its number.
    """

    modules: list[Region]
    low: int
    group_size: int
    line: int
    n_frames: int
    n_pixels: int
    borders: list[int]
    parts: dict[int, Seen] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def bands(self) -> Int64Array:
        """Rows and columns of every module."""
        return np.array([(*module.rows, *module.columns) for module in self.modules], np.int64)

    @classmethod
    def over(cls, source: FrameSource, borders: Iterable[int] = (0,)) -> Watch | None:
        """Get ready for a scan in these parts; None where its pixels are no integers or no frame is complete."""
        complete = np.arange(1) if source.validity is None else np.flatnonzero(source.validity == VALID)
        if source.dtype.kind not in "iu" or source.dtype.itemsize > 4 or len(complete) == 0:  # noqa: PLR2004  # bytes; wider ones are no detector values
            return None
        number = int(complete[len(complete) // 2])
        middle = int(np.median(source.read_frames(number, number + 1)))
        modules = modules_of(source.metadata.detector, source.frame_shape)
        n_frames, line = math.prod(source.scan_shape), source.scan_shape[-1]
        seen = min(module.columns[1] - module.columns[0] for module in modules)
        # every group sees every row, so that rows of another level do not look like a drift
        least = max(-(-PIXELS_PER_GROUP // seen), *(module.rows[1] - module.rows[0] for module in modules))
        n_lines = -(-n_frames // line)
        per_group = max(-(-n_lines // MAX_GROUPS), -(-least // line))
        low = max(int(np.iinfo(source.dtype).min), middle - N_BINS // 2)
        return cls(modules, low, per_group * line, line, n_frames, math.prod(source.frame_shape), list(borders))

    def seen(self, part: int) -> Seen:
        """Give what was seen of a part; nothing at first."""
        if part not in self.parts:
            last = (self.borders[part + 1] if part + 1 < len(self.borders) else self.n_frames) - 1
            self.parts[part] = self._nothing(self.borders[part] // self.group_size, last // self.group_size)
        return self.parts[part]

    def whole(self) -> Seen:
        """Give what was seen of the whole scan."""
        seen = self._nothing(0, (self.n_frames - 1) // self.group_size)
        for part in self.parts.values():
            seen.merge(part)
        return seen

    def _nothing(self, first: int, last: int) -> Seen:
        return Seen(first, np.zeros((last - first + 1, len(self.modules), N_BINS), np.int64))

    def look(self, frames: Array, start: int, state: Array | None, tallies: Array) -> None:
        """Look at a batch of frames of one part that was counted.

        Parameters
        ----------
        frames : shape (n, ky, kx)
            As read.
        start
            Flat position of the first.
        state : shape (n,)
            States of the frames; None where all are complete.
        tallies : shape (n, 2 or 3)
            Candidates, pixels above the upper limit, and half rows without a level.
        """
        stop = start + len(frames)
        whole = np.ones(len(frames), np.bool_) if state is None else state == VALID
        constant = np.zeros(len(frames), np.bool_)
        found = {}
        for group in range(start // self.group_size, (stop - 1) // self.group_size + 1):
            first = max(start, group * self.group_size)
            part = slice(first - start, min(stop, (group + 1) * self.group_size) - start)
            found[group] = np.zeros((len(self.modules), N_BINS), np.int64)
            constant[part] = row_histogram(frames[part], (first, self.low), whole[part], self.bands, found[group])
        for number in np.flatnonzero(constant & whole).tolist():
            constant[number] = frames[number].min() == frames[number].max()
        numbers = np.arange(start, stop)
        with self._lock:
            seen = self.seen(bisect_right(self.borders, start) - 1)
            for group, counts in found.items():
                seen.counts[group - seen.first_group] += counts
            seen.note("dead", numbers[constant & whole])
            seen.note("crowded", numbers[tallies[:, 0] > CROWDED * self.n_pixels])
            seen.note("saturated", numbers[tallies[:, 1] > SATURATED * self.n_pixels])
            if tallies.shape[1] > 2:  # noqa: PLR2004  # row dark was asked for
                seen.note("levelless", numbers[(tallies[:, 2] > 0) & whole])

    def findings(self) -> list[str]:
        """Tell what was odd, one line each."""
        meaning = {
            "dead": "frames with one value in all pixels, which hold no electrons",
            "saturated": "frames with more than 0.1 % of their pixels at or above the X-ray threshold",
            "levelless": "frames with half rows without a level, which row_dark left as they were",
        }
        whole = self.whole()
        return [line for what, text in meaning.items() for line in told(whole, what, text)]

    def crowded(self) -> list[str]:
        """Tell of frames in which too many pixels pass for electrons: no line, or one."""
        text = "frames with more than 30 % of their pixels between the thresholds, which may be too low"
        return told(self.whole(), "crowded", text)

    def false_events(self, background: float) -> float | None:
        """Expect so many false events per frame from the noise that was seen; None where too little was seen."""
        total, counts = 0.0, self.whole().counts
        for number, module in enumerate(self.modules):
            try:
                peak = find_peak(Histogram(self.low, 1.0, counts[:, number].sum(axis=0)), integers=True)
            except CorruptDataError:
                return None
            total += peak.false_events(background, module.n_pixels)
        return total

    def drifts(self) -> tuple[dict[str, float], list[str]]:
        """Compare the pedestals of the groups.

        Returns
        -------
        drifts : unit ADU
            Largest minus smallest mean of the noise peak, by module; those of which too little was seen are left out.
        texts
            A line about the worst one, where it exceeds a quarter of the width of the noise.
        """
        found, worst = {}, (DRIFT, "")
        counts = self.whole().counts
        for number, module in enumerate(self.modules):
            try:
                _, sigma = fit_noise_peak(counts[:, number].sum(axis=0))
                levels = [
                    (fit_level(table, sigma), group)
                    for group, table in enumerate(counts[:, number])
                    if table.sum() >= MIN_PIXELS
                ]
            except CorruptDataError:
                continue
            if len(levels) < 2:  # noqa: PLR2004  # nothing to compare
                continue
            (low, first), (high, last) = min(levels), max(levels)
            found[module.name] = high - low
            lines = " and ".join(str(group * self.group_size // self.line) for group in sorted((first, last)))
            text = (
                f"the pedestal of {module.name!r} drifts by {high - low:.3g} ADU ({(high - low) / sigma:.2g} widths of "
                f"the noise) between the scan lines from {lines} on; give more background_sigma=, or row_dark='mean'"
            )
            worst = max(worst, ((high - low) / sigma, text))
        return found, [worst[1]] if worst[1] else []
