"""What data are, before anything is done with them: read from headers, said in plain text."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.config import format_size
from stemstore.conversion.run import count_frames_by_state
from stemstore.errors import CorruptDataError, InputError, StemStoreError
from stemstore.scan.calibration import Calibration, complete_axes, stated_acquisition, stated_axis
from stemstore.sources.contract import EventSource
from stemstore.sources.files import path_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore.sources.contract import FrameSource, Source
    from stemstore.store.open import StoredScan
    from stemstore_schemas import Acquisition, Axis, CalibrationValues, FrameCounts, SourceMetadata

SAMPLED_FRAMES = 8  # read when a sample is asked for: about a second on a slow disk
SPARSE = 0.1  # events per pixel below which a list of events is smaller than compressed frames
SHOWN = 5  # files and alternatives that the text shows
QUANTITIES = ("beam_energy", "semi_convergence_angle", "camera_length", "dwell_time", "scan_rotation")
STEPS = {"scan_step": ("y", "x"), "detector_step": ("ky", "kx")}


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
            ("electrons", "" if self.events_per_frame is None else f"about {self.events_per_frame:.3g} per frame"),
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

    def _scan_text(self) -> str:
        origin = f"from {self.scan_shape_source}" if self.scan_shape_source else "a flat stack, scan shape unknown"
        return f"{shape_text(self.scan_shape)} positions ({origin})"


def inspect(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    reader: str | None = None,
    *,
    sample: bool = False,
    **options: Any,
) -> Inspection:
    """Tell what data are from their headers, without reading a pixel.

    Parameters
    ----------
    url
        A store (path or URL), a raw file, a folder, or a list of files of one scan.
    reader
        Name of the format of raw data; found by content when left out.
    sample
        Read at most 8 frames as well, to estimate how many electrons a frame holds.
    **options
        Calibration and options of the reader, as in `stemstore.open`.

    Returns
    -------
    inspection
        Prints as plain text.

    Raises
    ------
    InputError
        An option is not understood, or a store was given one.
    UnknownFormatError, AmbiguousFormatError, NotFoundError, CorruptDataError, FormatVersionError
        The data cannot be read.

    Examples
    --------
    >>> import stemstore
    >>> print(stemstore.inspect("scan_42/"))  # doctest: +SKIP
    """
    from stemstore.sources.registry import explain, open_source
    from stemstore.store.open import is_store, open_store
    from stemstore.store.urls import is_local

    calibration, reader_options = Calibration.split(options)
    paths = path_texts(url)
    if reader is None and len(paths) == 1 and (not is_local(paths[0]) or is_store(paths[0])):
        if reader_options:
            msg = f"{paths[0]!r} is a store and takes no options {sorted(reader_options)}; leave them out"
            raise InputError(msg, url=paths[0], found=sorted(reader_options))
        return _of_store(paths[0], open_store(paths[0], allow_incomplete=True), calibration)
    place = paths[0] if len(paths) == 1 else paths
    claims = {} if reader is not None else {claim.reader: claim.confidence for claim in explain(place)}
    source = open_source(place, reader=reader, **reader_options)
    chosen = reader or max(claims, key=lambda name: claims[name])
    return _of_source(paths[0], source, chosen, claims, calibration, sample=sample)


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as ``'40 x 41'``."""
    return " x ".join(str(extent) for extent in shape)


def _of_store(url: str, stored: StoredScan, calibration: Calibration) -> Inspection:
    from stemstore.store.commit import read_commit

    document = stored.document
    saved, told = _saved_values(stored)
    values = saved.merged(calibration.values())
    acquisition = stated_acquisition(document.acquisition, values)
    shape = document.shape
    frames = document.frames
    commit = read_commit(stored.head.storage) if stored.head.complete else None
    known, missing = _calibrated(document.axes, shape, acquisition, values)
    counted = document.profile == "counted"
    itemsize = 2 if counted else np.dtype(stored.dtype).itemsize
    advice = [] if stored.head.complete else ["run the conversion again; the frames so far open with allow_incomplete"]
    return Inspection(
        url=url,
        kind="store",
        reader=None,
        claims={},
        scan_shape=shape[:-2],
        frame_shape=(shape[-2], shape[-1]),
        scan_shape_source=acquisition.scan_shape_source,
        scan_shape_alternatives=[tuple(other) for other in acquisition.scan_shape_alternatives],
        flyback_columns=acquisition.flyback_columns,
        dtype=None if counted else str(stored.dtype),
        raw_bytes=math.prod(shape) * itemsize,
        file_bytes=None if commit is None else commit.n_bytes,
        files=[],
        frames=frames.model_dump(),
        complete=stored.head.complete,
        known=known,
        missing=missing,
        events_per_frame=_stored_rate(stored, frames),
        warnings=[text for entry in document.history for text in entry.warnings] + told,
        advice=advice + _calibration_advice(missing),
    )


def _saved_values(stored: StoredScan) -> tuple[CalibrationValues, list[str]]:
    """Read what was saved about the scan; a calibration that cannot be read is told and does not count."""
    from stemstore.store.calibration import read_calibration
    from stemstore_schemas import CalibrationValues

    try:
        return read_calibration(stored).values, []
    except StemStoreError as error:
        return CalibrationValues(), [str(error)]


def _stored_rate(stored: StoredScan, frames: FrameCounts) -> float | None:
    counting = stored.document.counting
    recorded = frames.valid + frames.partial
    return None if counting is None or counting.n_events is None or not recorded else counting.n_events / recorded


def _of_source(
    url: str, source: Source, reader: str, claims: dict[str, float], calibration: Calibration, *, sample: bool
) -> Inspection:
    metadata = source.metadata
    acquisition = calibration.acquisition(metadata.acquisition)
    shape = (*source.scan_shape, *source.frame_shape)
    known, missing = _calibrated(metadata.axes, shape, acquisition, calibration.values())
    counted = isinstance(source, EventSource)
    dtype = None if counted else np.dtype(getattr(source, "dtype", np.uint16))
    rate = _sampled_rate(source) if sample else None
    return Inspection(
        url=url,
        kind="events" if counted else "frames",
        reader=reader,
        claims=claims,
        scan_shape=tuple(source.scan_shape),
        frame_shape=source.frame_shape,
        scan_shape_source=acquisition.scan_shape_source,
        scan_shape_alternatives=[tuple(other) for other in acquisition.scan_shape_alternatives],
        flyback_columns=acquisition.flyback_columns,
        dtype=None if dtype is None else str(dtype),
        raw_bytes=math.prod(shape) * (2 if dtype is None else dtype.itemsize),
        file_bytes=sum(file.size for file in metadata.files) if metadata.files else None,
        files=[file.path for file in metadata.files],
        frames=count_frames_by_state(source).model_dump(),
        complete=True,
        known=known,
        missing=missing,
        events_per_frame=rate,
        warnings=list(metadata.warnings),
        advice=_advice(source, metadata, rate) + _calibration_advice(missing),
    )


def _calibrated(
    axes: list[Axis], shape: tuple[int, ...], acquisition: Acquisition, values: CalibrationValues
) -> tuple[dict[str, str], list[str]]:
    """Split the physical values into those that are known, as text, and the names of the others."""
    known: dict[str, str] = {}
    for name in QUANTITIES:
        quantity = getattr(acquisition, name)
        if quantity is not None:
            known[name] = f"{quantity.value:g} {quantity.unit} (from {quantity.source})"
    steps_alone = values.model_copy(update={"detector_center": None})  # a centre may be stated before any step is
    bare = complete_axes(axes, shape, acquisition)
    complete = {axis.name: stated_axis(axis, steps_alone, acquisition) for axis in bare}
    for name, pair in STEPS.items():
        found = [complete[axis] for axis in pair if axis in complete and complete[axis].unit != "pixel"]
        if found:
            steps = dict.fromkeys(f"{axis.step:.4g} {axis.unit}" for axis in found)
            known[name] = f"{' and '.join(steps)} (from {found[0].source})"
    return known, [name for name in (*QUANTITIES, *STEPS) if name not in known]


def _calibration_advice(missing: list[str]) -> list[str]:
    needed = [name for name in ("beam_energy", "scan_step", "detector_step") if name in missing]
    if not needed:
        return []
    return [f"state {', '.join(needed)} when opening or converting; without them axes are in pixels or angles"]


def _advice(source: Source, metadata: SourceMetadata, rate: float | None) -> list[str]:
    advice = []
    if metadata.acquisition.scan_shape_source == "guessed":
        advice.append("the scan shape is a guess; state it with scan_shape")
    elif len(source.scan_shape) == 1:
        advice.append("the frames are a flat stack; state the scan shape with scan_shape")
    if rate and rate < SPARSE * math.prod(source.frame_shape):
        advice.append(f"about {rate:.3g} electrons per frame: converting with counting gives a small store")
    return advice


@dataclass(frozen=True, slots=True)
class _Sample:
    """A few frames of a source, as a source of their own."""

    source: FrameSource
    chosen: tuple[int, ...]
    validity: None = None

    @property
    def scan_shape(self) -> tuple[int, ...]:
        return (len(self.chosen),)

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.source.frame_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        frames = np.empty((stop - start, *self.frame_shape), self.dtype) if out is None else out
        for frame, number in zip(frames, self.chosen[start:stop], strict=True):
            frame[...] = self.source.read_frames(number, number + 1)[0]
        return frames


def _sampled_rate(source: Source) -> float | None:
    """Electrons per frame of at most 8 complete frames; None where they cannot be counted."""
    from stemstore.conversion.thresholds import estimate, sampled_frames
    from stemstore.kernels.counting import count_frames

    if isinstance(source, EventSource):
        n_frames = math.prod(source.scan_shape)
        chosen = sorted({number * n_frames // SAMPLED_FRAMES for number in range(SAMPLED_FRAMES)})
        return sum(len(source.read_events(number, number + 1).indices) for number in chosen) / len(chosen)
    if np.dtype(source.dtype) not in (np.uint8, np.uint16):
        return None
    try:
        complete = sampled_frames(source)
        few = _Sample(source, tuple(complete[:: max(1, -(-len(complete) // SAMPLED_FRAMES))].tolist()))
        limits = estimate(few)  # type: ignore[arg-type]  # estimating needs neither identity nor metadata
    except CorruptDataError:
        return None
    indptr, _ = count_frames(few.read_frames(0, len(few.chosen)), limits.background, limits.xray, "stemstore")
    return float(indptr[-1]) / len(few.chosen)


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
