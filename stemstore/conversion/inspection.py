"""What an inspection found, and its text."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stemstore.config import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 5  # files and alternatives that the text shows


@dataclass(frozen=True, slots=True)
class Inspection:
    """What data are, as far as their headers tell.

    Attributes
    ----------
    url
        What was inspected; the first of several files.
    kind
        ``"store"``, ``"frames"`` (raw) or ``"events"`` (counted already).
    reader
        Format of raw data; None for a store.
    claims
        Confidence of every reader asked, 0 (not mine) to 1 (the content proves it); empty when none had to be asked.
    scan_shape, frame_shape
        Scan axes (flyback included), and detector rows and columns.
    scan_shape_source
        ``"header"``, ``"user"``, ``"measured"``, ``"guessed"``, or None for a flat stack of frames.
    scan_shape_alternatives
        Other shapes that the number of frames allows.
    flyback_columns
        Columns at the end of each row recorded while the beam flew back.
    dtype
        Pixel type; None for events.
    raw_bytes
        Pixels as frames, uncompressed; events are reckoned with the 16-bit pixels that they stand for.
    file_bytes
        Size of the files, or of a store's shards where it is known.
    files
        Names of the files that were found.
    frames
        Numbers of valid, partial and missing frames.
    complete
        False for a store whose conversion did not finish.
    known
        Physical values with their unit and where they come from, by name.
    missing
        Names of those that neither the data nor the options tell.
    events_per_frame
        Electrons per frame in a small sample; None unless a sample was asked for and could be counted.
    occupancy
        Electrons per pixel and frame, where the electrons are known.
    thresholds
        Of a sample or of a counted store: ``background`` and ``xray`` limit, fitted ``pedestal_mean`` and
        ``pedestal_sigma``, ``false_events_per_frame``; None where a figure or all of them are not known.
    warnings
        What is odd about the data.
    advice
        What to do next, one line each.
    """

    url: str
    kind: Literal["store", "frames", "events"]
    reader: str | None
    claims: dict[str, float]
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    scan_shape_source: str | None
    scan_shape_alternatives: list[tuple[int, ...]]
    flyback_columns: int
    dtype: str | None
    raw_bytes: int
    file_bytes: int | None
    files: list[str]
    frames: dict[str, int]
    complete: bool
    known: dict[str, str]
    missing: list[str]
    events_per_frame: float | None = None
    occupancy: float | None = None
    thresholds: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    def facts(self) -> list[tuple[str, str]]:
        """Label and text of everything worth showing, in order."""
        state = ", ".join(f"{number} {name}" for name, number in self.frames.items() if number)
        held = "unknown" if self.file_bytes is None else format_size(self.file_bytes)
        others = [f"{name} {confidence:g}" for name, confidence in self.claims.items() if name != self.reader]
        rows = [
            ("source", self.url),
            ("kind", self.kind if self.complete else f"{self.kind} (conversion not finished)"),
            ("reader", self._reader_text()),
            ("other readers", ", ".join(others)),
            ("scan", self._scan_text()),
            ("alternatives", _some([shape_text(shape) for shape in self.scan_shape_alternatives])),
            ("flyback", f"columns at the end of each row: {self.flyback_columns}" if self.flyback_columns else ""),
            ("detector", f"{shape_text(self.frame_shape)} pixels, {self.dtype or 'electron events'}"),
            ("frames", state),
            ("size", f"{format_size(self.raw_bytes)} of pixels, {held} on disk"),
            ("files", _files_text(self.files)),
            *((name.replace("_", " "), text) for name, text in self.known.items()),
            ("not known", ", ".join(name.replace("_", " ") for name in self.missing)),
            ("electrons", self._electrons_text()),
            ("noise", self._noise_text()),
            ("thresholds", self._limits_text()),
            *(("warning", text) for text in self.warnings),
            *(("advice", text) for text in self.advice),
        ]
        return [(label, text) for label, text in rows if text]

    def __str__(self) -> str:
        rows = self.facts()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)

    def _reader_text(self) -> str:
        if self.reader is None:
            return ""
        confidence = self.claims.get(self.reader)
        return f"{self.reader} ({'as asked' if confidence is None else f'confidence {confidence:g}'})"

    def _electrons_text(self) -> str:
        if self.events_per_frame is None:
            return ""
        share = "" if self.occupancy is None else f", {100 * self.occupancy:.3g} % of the pixels"
        return f"about {self.events_per_frame:.3g} per frame{share}"

    def _scan_text(self) -> str:
        origin = f"from {self.scan_shape_source}" if self.scan_shape_source else "a flat stack, scan shape unknown"
        return f"{shape_text(self.scan_shape)} positions ({origin})"

    def _noise_text(self) -> str:
        found = self.thresholds or {}
        if found.get("pedestal_mean") is None:
            return ""
        return f"pedestal {found['pedestal_mean']:.4g} ADU, width {found['pedestal_sigma']:.3g} ADU"

    def _limits_text(self) -> str:
        found = self.thresholds or {}
        if not found:
            return ""
        text = f"background {_level(found['background'])} ADU, X-ray {_level(found['xray'])} ADU"
        false = found.get("false_events_per_frame")
        return text if false is None else f"{text}; noise alone makes {false:.2g} events per frame"


def _level(limit: float | list[float] | None) -> str:
    if isinstance(limit, list):
        return ", ".join(f"{one:.4g}" for one in limit)
    return "unknown" if limit is None else f"{limit:.4g}"


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as ``'40 x 41'``."""
    return " x ".join(str(extent) for extent in shape)


def _files_text(files: list[str]) -> str:
    """Names of the first files, with their folder where it is the same."""
    folders = {os.path.dirname(path) for path in files}  # noqa: PTH120  # may be URLs
    if len(files) <= 1 or len(folders) > 1 or folders == {""}:
        return _some(files)
    names = [os.path.basename(path) for path in files]  # noqa: PTH119  # may be URLs
    return f"{len(files)} in {folders.pop()}: {_some(names)}"


def _some(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
