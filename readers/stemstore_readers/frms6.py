"""FRMS6 of the PNDetector pnCCD: numbered files of folded frames, a dark measurement in the first.

``name_000.frms6`` holds dark frames, ``name_001.frms6`` and so on the scan, ``name.hdr`` describes both. The two halves
of the detector are read out towards opposite sides, which folds a frame of 2 h rows and w / 2 columns into h rows of w:

* row y < h is the left half of stored row y,
* row y ≥ h is the right half of stored row 2 h - 1 - y, columns reversed.

Headers are described in `frms6_header`. Source: LiberTEM/LiberTEM (``src/libertem/io/dataset/frms6.py``).
"""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError, StemStoreError, TruncatedFileError
from stemstore.sources.files import describe, exists, expand, file_size, identity, list_beside, unreadable
from stemstore.sources.geometry import check_range, fit_scan, shape_option
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks, stack_metadata, swap_bytes, whole_records
from stemstore.sources.remote import place
from stemstore_readers.frms6_header import (
    FILE_HEADER,
    FRAME_HEADER,
    FRAME_TIME,
    SECTION,
    FileHeader,
    Measurement,
    begins_file,
    parse_header,
    read_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore._types import Array
    from stemstore.sources.contract import DetectorImage
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

NUMBERED = re.compile(r"^(.*)_(\d{3})(\.frms6)$", re.IGNORECASE)
PIECE = 2**20
"""Bytes that are unfolded at a time: they stay in the second-level cache."""

BATCH = 64
"""Frames that are averaged at a time."""

_DARK_LOCK = threading.Lock()


class Frms6:
    """Reader of FRMS6 measurements; give any of its files.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of what the text file says.
    subtract_dark
        Whether the mean of the dark frames is subtracted; frames are 32-bit floats then and may be negative.
    """

    name: ClassVar[str] = "frms6"
    description: ClassVar[str] = "PNDetector pnCCD measurements (FRMS6), unfolded"
    extensions: ClassVar[tuple[str, ...]] = (".frms6", ".hdr")

    def __init__(self, *, scan_shape: Sequence[int] | None = None, subtract_dark: bool = False) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.subtract_dark = subtract_dark

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the file header, or in a text file for its section."""
        if begins_file(first_bytes):
            return 1.0
        return 0.9 if url.lower().endswith(".hdr") and f"[{SECTION}]".encode() in first_bytes else 0.0

    def __call__(self, url: str | list[str]) -> Frms6Source:
        """Open the measurement: headers and the text file, no pixel.

        Raises
        ------
        InputError
            Files of several measurements, a folder, or files of different frames.
        NotFoundError
            There are no signal frames, or no dark ones that were asked for.
        UnknownFormatError, FormatVersionError, CorruptDataError, TruncatedFileError
            A file is no FRMS6 file, is damaged, or there is not one whole frame.
        """
        dark, signal, text_path = find_files(expand(url))
        measurement = Measurement(warnings=["no text file .hdr lies beside the frames; scan and binning are unknown"])
        if text_path is not None:
            measurement = read_text(text_path)
        header, counts, warnings = _count(signal)
        if self.subtract_dark and dark is None:
            missing = str(signal[0].with_name(_first_name(signal[0])))
            msg = f"the dark frames {missing!r} are missing; copy them there, or leave out subtract_dark"
            raise NotFoundError(msg, url=str(signal[0]))
        shape, notes = self._scan_shape(measurement, sum(counts))
        scan_shape, validity, fit_notes = fit_scan(shape, sum(counts))
        frame_shape = (2 * header.height * measurement.binning, header.width // 2)
        used = [*signal, *([dark] if dark is not None and self.subtract_dark else [])]
        files = describe([*used, *([] if text_path is None else [text_path])])
        metadata = stack_metadata(
            scan_shape,
            frame_shape,
            source="header" if self.scan_shape is None else "user",
            warnings=[*measurement.warnings, *warnings, *notes, *fit_notes],
            files=files,
            vendor={"hdr": measurement.text, "comment": header.comment},
        )
        text = identity(self.name, files, (self.scan_shape, self.subtract_dark))
        return Frms6Source(
            identity=text,
            scan_shape=scan_shape,
            frame_shape=frame_shape,
            metadata=_with_measurement(metadata, measurement, _start(signal[0])),
            validity=validity,
            files=tuple(str(path) for path in signal),
            counts=tuple(counts),
            header=header,
            binning=measurement.binning,
            dark=str(dark) if dark is not None and self.subtract_dark else None,
            references={} if dark is None or self.subtract_dark else {"dark": DarkFrames(str(dark), frame_shape, text)},
        )

    def _scan_shape(self, measurement: Measurement, n_frames: int) -> tuple[tuple[int, ...] | None, list[str]]:
        """Take the size of the scan where it fits the frames, or those that were to be taken."""
        if self.scan_shape is not None or measurement.scan_shape is None:
            return self.scan_shape, []
        rows, columns = measurement.scan_shape
        if rows * columns in (n_frames, measurement.signal_frames):
            return measurement.scan_shape, []
        text = f"the text file states a scan of {rows} rows and {columns} columns, {n_frames} frames were found"
        return None, [f"{text}; no scan shape is assumed, pass scan_shape=(ny, nx)"]


@dataclass(frozen=True, slots=True, eq=False)
class DarkFrames:
    """The mean of the dark frames, unfolded and in the rows of the signal, averaged when it is asked for."""

    path: str
    shape: tuple[int, int]
    identity: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """As frames whose dark is subtracted."""
        return np.dtype(np.float32)

    def read(self) -> Array:
        """Average the frames."""
        mean = _mean_dark(self.path, self.identity)
        return np.repeat(mean, self.shape[0] // mean.shape[0], axis=0)


@dataclass(frozen=True, eq=False)
class Frms6Source:
    """Frames that are unfolded while they are read; files are opened for every read and closed again."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    files: tuple[str, ...]
    counts: tuple[int, ...]
    header: FileHeader
    binning: int
    dark: str | None
    references: Mapping[str, DetectorImage]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixels are 16 bit; 32-bit floats where the dark is subtracted."""
        return np.dtype(np.uint16 if self.dark is None else np.float32)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames, first = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype), 0
        mean: Array | None = None
        if self.dark is not None:
            with _DARK_LOCK:  # threads that come first together average it once
                mean = _mean_dark(self.dark, self.identity)
        step = max(1, min(PIECE // self.header.frame_bytes, stop - start))
        scratch = np.empty((step, self.header.height, self.header.width), np.uint16)
        for path, count in zip(self.files, self.counts, strict=True):
            for begin in range(max(start, first), min(stop, first + count), step):
                end = min(begin + step, stop, first + count)
                folded = _read_folded(path, self.header, begin - first, end - first, scratch)
                target = frames[begin - start : end - start]
                if mean is None and self.binning == 1:
                    unfold(folded, target)
                    continue
                values = unfold(folded) if mean is None else unfold(folded) - mean
                target[:] = np.repeat(values, self.binning, axis=1)
            first += count
        frames[max(first - start, 0) :] = 0 if self.dark is None else np.nan
        return frames


def unfold(frames: Array, out: Array | None = None) -> Array:
    """Bring the two halves of stored frames, (n, h, w), in place: (n, 2 h, w / 2)."""
    n, height, width = frames.shape
    out = np.empty((n, 2 * height, width // 2), frames.dtype) if out is None else out
    out[:, :height] = frames[:, :, : width // 2]
    out[:, height:] = frames[:, ::-1, : width // 2 - 1 : -1]
    return out


def _read_folded(path: str, header: FileHeader, start: int, stop: int, out: Array | None = None) -> Array:
    """Read frames as they are stored, into the first ones of `out`."""
    frames = np.empty((stop - start, header.height, header.width), np.uint16) if out is None else out[: stop - start]
    number = np.arange(stop - start, dtype=np.int64)
    offsets = FILE_HEADER + FRAME_HEADER + (start + number) * header.record
    read_blocks(path, offsets, header.frame_bytes, as_bytes(frames), number * header.frame_bytes)
    if not np.dtype("<u2").isnative:
        swap_bytes(frames)
    return frames


@lru_cache(maxsize=2)  # one per measurement that is open
def _mean_dark(path: str, identity: str) -> Array:
    """Average the unfolded dark frames, float32, in one pass over their file."""
    del identity
    header, (count,), _ = _count([place(path)])
    total = np.zeros((2 * header.height, header.width // 2))
    for start in range(0, count, BATCH):
        total += unfold(_read_folded(path, header, start, min(start + BATCH, count))).sum(axis=0, dtype=np.float64)
    return (total / count).astype(np.float32)


def find_files(paths: list[Place]) -> tuple[Place | None, list[Place], Place | None]:
    """Find the files of a measurement from any of them: dark, signal in order, text.

    Raises
    ------
    InputError
        Files of several measurements, or a folder.
    NotFoundError
        There is no signal file.
    """
    prefixes = set()
    for path in paths:
        match = NUMBERED.match(path.name)
        prefixes.add((path.parent, match.group(1) if match else path.stem))
    if len(prefixes) != 1 or paths[0].is_dir():
        msg = f"{[str(path) for path in paths]} are no files of one measurement; give one of its files"
        raise InputError(msg, found=len(prefixes), expected=1)
    ((folder, prefix),) = prefixes
    numbered = {}
    for path in list_beside(paths):
        match = NUMBERED.match(path.name)
        if match is not None and match.group(1) == prefix:
            numbered[int(match.group(2))] = path
    signal = [numbered[number] for number in sorted(numbered) if number > 0]
    if not signal and paths[0].suffix.lower() == ".frms6" and NUMBERED.match(paths[0].name) is None:
        signal = [paths[0]]  # a file that was renamed is taken for what it is given as
    if not signal:
        msg = f"no file {prefix}_001.frms6 with the frames of the scan lies in {str(folder)!r}; copy it there"
        raise NotFoundError(msg, url=str(folder / f"{prefix}_001.frms6"))
    text = folder / f"{prefix}.hdr"
    return numbered.get(0), signal, text if exists(text) else None


def _first_name(path: Place) -> str:
    match = NUMBERED.match(path.name)
    return f"{match.group(1)}_000{match.group(3)}" if match else path.name


def _count(files: list[Place]) -> tuple[FileHeader, list[int], list[str]]:
    """Read the headers of files, which have to describe the same frames, and count whole frames."""
    counts: list[int] = []
    warnings, headers = [], [_read_header(path) for path in files]
    for path, header in zip(files, headers, strict=True):
        if (header.width, header.height) != (headers[0].width, headers[0].height):
            msg = (
                f"file {str(path)!r} has frames of {header.width} x {header.height}, expected {headers[0].width} x "
                f"{headers[0].height} as in {str(files[0])!r}; open the measurements apart"
            )
            raise InputError(msg, url=str(path))
        found, left = whole_records(file_size(path), header.record, FILE_HEADER)
        counts.append(min(found, header.n_frames) if header.n_frames else found)
        if found < header.n_frames or (left and not header.n_frames):
            stated = f" of {header.n_frames}" if header.n_frames else ""
            warnings.append(f"file {str(path)!r} ends after {found}{stated} whole frames; what follows is missing")
    if not sum(counts):
        msg = f"file {str(files[0])!r} holds no whole frame of {headers[0].record} bytes; copy it again"
        raise TruncatedFileError(msg, url=str(files[0]), found=file_size(files[0]), expected=headers[0].record)
    return headers[0], counts, warnings


def _read_header(path: Place) -> FileHeader:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_HEADER)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return parse_header(content)
    except StemStoreError as error:
        error.add_note(f"in the file {str(path)!r}")
        error.context.setdefault("url", str(path))
        raise


def _start(path: Place) -> str | None:
    """Time of the first frame; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(FILE_HEADER)
            content = file.read(FRAME_HEADER)
    except OSError as error:
        raise unreadable(path, error) from error
    seconds, microseconds, _ = FRAME_TIME.unpack_from(content.ljust(FRAME_HEADER, b"\0"))
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds + min(microseconds, 999_999) / 1e6, tz=UTC).isoformat()


def _with_measurement(metadata: SourceMetadata, measurement: Measurement, start: str | None) -> SourceMetadata:
    from stemstore_schemas import Quantity

    known: dict[str, Any] = {"start_time": start}
    if measurement.dwell_time is not None:
        known["dwell_time"] = Quantity(value=measurement.dwell_time, unit="s", source="header")
    warnings = list(metadata.warnings)
    if measurement.binning > 1:
        text = f"rows were binned by {measurement.binning} on the detector and are repeated as often, not rescaled"
        warnings.append(f"{text}: sums over a pattern are {measurement.binning} times what was counted")
    detector = metadata.detector.model_copy(update={"name": "pnCCD"})
    acquisition = metadata.acquisition.model_copy(update=known)
    return metadata.model_copy(update={"acquisition": acquisition, "detector": detector, "warnings": warnings})
