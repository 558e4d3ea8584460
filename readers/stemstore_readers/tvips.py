"""TVIPS recordings (EM-Recorder, ``.tvips``): numbered files of frames, each frame with a header of its own.

``name_000.tvips`` begins with the series header of 256 bytes; every file then holds records of a frame header and
``height × width`` pixels of 8 or 16 bit, little-endian, rows as stored. No frame spans two files. The headers are
described in `tvips_headers`, the scan is found in `tvips_scan`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError, StemStoreError, TruncatedFileError
from stemstore.sources.files import describe, exists, expand, file_size, identity, list_beside, unreadable
from stemstore.sources.frame_extents import FrameExtents, Run, extents_of_runs
from stemstore.sources.geometry import check_range, shape_option
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks, swap_bytes, whole_records
from stemstore.sources.remote import place
from stemstore_readers.tvips_headers import SERIES_BYTES, SeriesHeader, is_series, parse_header
from stemstore_readers.tvips_scan import Layout, lay_out, metadata_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_readers.tvips_scan import Serpentine
    from stemstore_schemas import SourceMetadata

NUMBERED = re.compile(r"^(.*_)(\d{3,6})(\.tvips)$", re.IGNORECASE)


class Tvips:
    """Reader of TVIPS recordings; give any file of the series.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of what the frame headers say.
    sync_offset
        Frames to skip before the first position; negative: blank positions before the first frame. By default what
        the frame headers say.
    serpentine
        ``"odd"`` or ``"even"``: rows 1, 3, … or 0, 2, … were scanned backwards.
    hysteresis
        Positions by which the rows scanned backwards are displaced, positive towards higher columns.
    """

    name: ClassVar[str] = "tvips"
    description: ClassVar[str] = "TVIPS recordings, a numbered series of files"
    extensions: ClassVar[tuple[str, ...]] = (".tvips",)

    def __init__(
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        sync_offset: int | None = None,
        serpentine: Serpentine | None = None,
        hysteresis: int = 0,
    ) -> None:
        if serpentine not in (None, "odd", "even"):
            msg = f"option serpentine={serpentine!r} is not known; expected 'odd', 'even' or None"
            raise InputError(msg, key="serpentine", found=serpentine)
        for key, value in (("sync_offset", 0 if sync_offset is None else sync_offset), ("hysteresis", hysteresis)):
            if isinstance(value, bool) or not isinstance(value, int):
                msg = f"option {key}={value!r} is not a whole number; give a number of frames"
                raise InputError(msg, key=key, found=value)
        shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.layout = Layout(shape, sync_offset, serpentine, hysteresis)

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the series header; a later file of a series is known by its name."""
        named = url.lower().endswith(".tvips")
        if is_series(first_bytes):
            return 1.0 if named else 0.5
        return 0.5 if named and first_bytes and NUMBERED.match(place(url).name) else 0.0

    def __call__(self, url: str | list[str]) -> TvipsSource:
        """Open the series: its header and those of the frames, no pixel.

        Raises
        ------
        InputError
            Files of several series, a folder, or an option that does not fit.
        NotFoundError
            The file ``_000`` is missing.
        UnknownFormatError, FormatVersionError, CorruptDataError, TruncatedFileError
            As for `tvips_headers.parse_header`, or there is not one whole frame.
        """
        files, warnings = find_series(expand(url))
        header = _read_series(files[0])
        counts = []
        for path in files:
            count, left = whole_records(file_size(path), header.record, SERIES_BYTES if path == files[0] else 0)
            counts.append(count)
            if left:
                text = f"file {str(path)!r} ends with {left} bytes that make no whole record of {header.record} bytes"
                warnings.append(f"{text}; its {count} whole frames are used")
        if not sum(counts):
            msg = f"file {str(files[0])!r} holds no whole record of {header.record} bytes; copy it again"
            raise TruncatedFileError(msg, url=str(files[0]), found=file_size(files[0]), expected=header.record)
        frames = _read_frame_headers(files, counts, header, every=not self.layout.settled)
        placed = lay_out(self.layout, frames)
        described = describe(files)
        metadata = metadata_of(header, frames, placed, described, warnings + placed.warnings)
        return TvipsSource(
            identity=identity(self.name, described, self.layout),
            scan_shape=placed.scan_shape,
            frame_shape=(header.height, header.width),
            metadata=metadata,
            validity=placed.validity,
            files=tuple(str(path) for path in files),
            counts=tuple(counts),
            header=header,
            frame_of=placed.frame_of,
        )


@dataclass(frozen=True, eq=False)
class TvipsSource:
    """Frames of a recording; position i shows frame ``frame_of[i]``, none where that is negative."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    files: tuple[str, ...]
    counts: tuple[int, ...]
    header: SeriesHeader
    frame_of: Array

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.header.dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        size, wanted = math.prod(self.frame_shape) * self.dtype.itemsize, self.frame_of[start:stop]
        frames[wanted < 0] = 0
        first, before = 0, SERIES_BYTES
        for path, count in zip(self.files, self.counts, strict=True):
            here = np.flatnonzero((wanted >= first) & (wanted < first + count))
            offsets = before + (wanted[here] - first) * self.header.record + self.header.frame_header
            read_blocks(path, offsets, size, as_bytes(frames), here * size)
            first, before = first + count, 0
        if not self.header.dtype.isnative:
            swap_bytes(frames)
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        runs, first, before = [], 0, SERIES_BYTES
        for path, count in zip(self.files, self.counts, strict=True):
            runs.append(Run(path, first, count, before + self.header.frame_header, self.header.record))
            first, before = first + count, 0
        return extents_of_runs(self.frame_of[start:stop], runs, self.frame_shape, self.header.dtype)


def find_series(paths: list[Place]) -> tuple[list[Place], list[str]]:
    """List the files of a series in order, from any of them.

    Returns
    -------
    files, warnings
        Files behind a gap in the numbers are left out and named.

    Raises
    ------
    InputError
        Files of several series, or a folder.
    NotFoundError
        The first file of the series is missing.
    """
    found = [NUMBERED.match(path.name) for path in paths]
    series = {(path.parent, match.group(1) if match else path.name) for path, match in zip(paths, found, strict=True)}
    if len(series) != 1 or paths[0].is_dir():
        msg = f"{[str(path) for path in paths]} are no files of one series; give one file of a recording"
        raise InputError(msg, found=len(series), expected=1)
    match = found[0]
    if match is None:
        return [paths[0]], []
    numbered = {}
    for path in list_beside(paths):
        other = NUMBERED.match(path.name)
        if other is not None and other.group(1) == match.group(1):
            numbered[int(other.group(2))] = path
    if 0 not in numbered or not exists(numbered[0]):
        first = paths[0].with_name(f"{match.group(1)}{0:0{len(match.group(2))}d}{match.group(3)}")
        msg = f"{str(first)!r}, which holds the header of the series, is missing; copy it beside {str(paths[0])!r}"
        raise NotFoundError(msg, url=str(first))
    last = next(number for number in range(len(numbered) + 1) if number not in numbered)
    behind = [numbered[number].name for number in sorted(numbered) if number >= last]
    notes = [f"file number {last} of the series is missing; {', '.join(behind)} are left out"] if behind else []
    return [numbered[number] for number in range(last)], notes


def _read_series(path: Place) -> SeriesHeader:
    try:
        with path.open("rb") as file:
            content = file.read(SERIES_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return parse_header(content)
    except StemStoreError as error:
        error.add_note(f"in the file {str(path)!r}")
        error.context.setdefault("url", str(path))
        raise


def _read_frame_headers(files: list[Place], counts: list[int], header: SeriesHeader, *, every: bool) -> Array:
    """Read the headers of all frames, or of the first and the last one, shape (n,), fields by name."""
    frames, first, before = np.zeros(sum(counts), header.frame_dtype()), 0, SERIES_BYTES
    size, ends = header.frame_header, (0, sum(counts) - 1)
    for path, count in zip(files, counts, strict=True):
        number = np.arange(count, dtype=np.int64)
        number = number if every else np.array([end - first for end in ends if first <= end < first + count], np.int64)
        read_blocks(path, before + number * header.record, size, as_bytes(frames), (first + number) * size)
        first, before = first + count, 0
    return frames
