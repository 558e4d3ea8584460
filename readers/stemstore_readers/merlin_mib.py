"""Quantum Detectors Merlin (Medipix3): ``.mib`` frames with their ``.hdr`` file, processed or RAW.

A file is a row of records, each a text header (`stemstore_readers.merlin_mib_header`) and pixels, without a header of
its own:

====  ======================================================  ====================
code  pixels                                                  type
====  ======================================================  ====================
U08   width x height, row by row                              uint8
U16   the same, big-endian                                    uint16
U32   the same, big-endian                                    uint32
R64   as read out, 1, 6, 12 or 24 bit                         uint8, uint16, uint32
====  ======================================================  ====================

Rows come as stored, the first one behind the header first. Sources: LiberTEM (``src/libertem/io/dataset/mib.py``),
RosettaSciIO (``rsciio/quantumdetector``) for what the fields mean, and files of the detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels import merlin_raw
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.files import describe, expand, identity
from stemstore.sources.frame_extents import FrameExtents, Run, extents_of_runs, not_as_they_are, positions
from stemstore.sources.geometry import (
    ValidityArray,
    check_range,
    flyback_of,
    place_frames,
    shape_option,
)
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks, swap_bytes
from stemstore_readers import merlin_mib_description as about
from stemstore_readers import merlin_mib_header as text
from stemstore_readers import merlin_mib_series as series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

RAW_BATCH = 2**20
"""Bytes of RAW frames unpacked at a time, so that they stay in the processor's cache."""


class MerlinMib:
    """Reader of Merlin files.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)``, flyback columns included, instead of what files and time stamps say.
    flyback_columns
        Columns at the end of each row taken during the flight back. None: one where the scan is one column wider than
        high, reported as a guess, else none.
    sync_offset
        Frames skipped before the first position; negative: positions left blank before the first frame.
    series
        Read the files ``name1.mib``, ``name2.mib`` … of one acquisition together; False reads the named file only.
    """

    name: ClassVar[str] = "merlin_mib"
    description: ClassVar[str] = "Quantum Detectors Merlin (Medipix3) frames, processed or RAW (.mib with .hdr)"
    extensions: ClassVar[tuple[str, ...]] = (".mib", ".hdr")

    def __init__(
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        flyback_columns: int | None = None,
        sync_offset: int = 0,
        series: bool = True,
    ) -> None:
        if isinstance(sync_offset, bool) or not isinstance(sync_offset, int):
            msg = f"option sync_offset={sync_offset!r} is not a number of frames; expected a whole number"
            raise InputError(msg, key="sync_offset", found=sync_offset)
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))
        self.flyback_columns = flyback_columns
        self.sync_offset = sync_offset
        self.series = series

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the header of a frame, or for a ``.hdr`` file."""
        if url.lower().endswith(".hdr"):
            return 1.0 if text.parse_sidecar(first_bytes) else 0.0
        return 0.0 if text.header_length(first_bytes) is None else 1.0

    def __call__(self, url: str | list[str]) -> MerlinSource:
        """Open the files: headers of some frames, no pixel.

        Parameters
        ----------
        url
            A file, with the numbered files of its series, or its ``.hdr`` file; or a pattern or list of files, which
            are taken as they are and read in the order of their frame numbers.

        Raises
        ------
        NotFoundError, StorageError
            A file is missing or cannot be read.
        InputError
            A folder was given, or an option does not fit the data.
        TruncatedFileError
            A file holds no whole frame.
        CorruptDataError, SectorMismatchError
            A header is damaged, or frames or files do not belong together.
        FormatVersionError
            RAW frames whose order of pixels is not known.
        """
        paths = list(dict.fromkeys(map(about.frames_beside, expand(url))))
        for path in paths:
            if path.is_dir():
                msg = f"{str(path)!r} is a folder, expected files; pass one of them or {str(path / '*.mib')!r}"
                raise InputError(msg, url=str(path))
        sidecar, found, notes = about.find_sidecar(paths[0])
        depth = about.depth_of(sidecar)
        files = [series.look_at(path, depth) for path in paths]
        if len(files) > 1:
            files = series.arrange(files)
        elif self.series:
            files, more = series.chain(files[0], series.siblings(paths[0], depth))
            notes += more
        return self._source(files, sidecar, found, notes)

    def _source(
        self, files: list[series.MibFile], sidecar: dict[str, str], found: list[Place], notes: list[str]
    ) -> MerlinSource:
        first, n_frames, placed = series.place_files(files)
        layout = files[0].layout
        read = series.stamp_reader(files) if sum(file.count for file in files) == n_frames else None
        scan = about.find_scan(self.scan_shape, sidecar, n_frames, read)
        scan_shape = scan.shape or (max(n_frames - self.sync_offset, 1),)
        validity, unplaced = place_frames(scan_shape, n_frames, self.sync_offset)
        counts = tuple(file.count for file in files)
        validity = _without_holes(validity, math.prod(scan_shape), first, counts, self.sync_offset)
        flyback, guessed = flyback_of(self.flyback_columns, scan_shape)
        described = describe([*(file.path for file in files), *found])
        options = (scan_shape, self.sync_offset)
        return MerlinSource(
            identity=identity(self.name, described, options),
            scan_shape=scan_shape,
            metadata=about.metadata(
                files[0],
                sidecar,
                scan,
                geometry={"flyback_columns": flyback, "sync_offset": self.sync_offset},
                warnings=[*notes, *placed, *scan.notes, *unplaced, *guessed],
                files=described,
            ),
            validity=validity,
            layout=layout,
            files=tuple(str(file.path) for file in files),
            first=tuple(first),
            counts=counts,
            sync_offset=self.sync_offset,
        )


@dataclass(frozen=True, eq=False)
class MerlinSource:
    """Frames of one Merlin acquisition.

    Attributes
    ----------
    layout
        How a frame lies in its record.
    files, first, counts
        Paths, the acquisition's frame with which each starts, and whole frames in each.
    sync_offset
        Frame of the first position.
    """

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    validity: ValidityArray | None
    layout: text.FrameLayout
    files: tuple[str, ...]
    first: tuple[int, ...]
    counts: tuple[int, ...]
    sync_offset: int

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.layout.file_dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero.

        Parameters
        ----------
        start, stop
            Half-open range of flat scan positions.
        out : shape (stop - start, ky, kx), optional
            Buffer of the source's dtype.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        wanted = np.arange(start, stop, dtype=np.int64) + self.sync_offset
        there = np.zeros(len(frames), np.bool_)
        for path, first, count in zip(self.files, self.first, self.counts, strict=True):
            inside = np.flatnonzero((wanted >= first) & (wanted < first + count))
            if len(inside):
                there[inside] = True
                offsets = (wanted[inside] - first) * self.layout.record_bytes + self.layout.header_bytes
                part = frames[int(inside[0]) : int(inside[-1]) + 1]
                self._read_file(path, offsets, part)
        frames[~there] = 0
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        InputError
            The frames are RAW.
        """
        if self.layout.raw_depth is not None:
            raise not_as_they_are(self.files, f"are RAW, as read out with {self.layout.raw_depth} bit per pixel")
        wanted = positions(start, stop, math.prod(self.scan_shape)) + self.sync_offset
        stride, header = self.layout.record_bytes, self.layout.header_bytes
        files = zip(self.files, self.first, self.counts, strict=True)
        runs = (Run(path, first, count, header, stride) for path, first, count in files)
        return extents_of_runs(wanted, runs, self.frame_shape, self.layout.file_dtype)

    def _read_file(self, path: str, offsets: Int64Array, frames: Array) -> None:
        """Read frames that follow each other in one file."""
        size, depth = self.layout.pixel_bytes, self.layout.raw_depth
        if depth is None:
            read_blocks(path, offsets, size, as_bytes(frames), np.arange(len(frames), dtype=np.int64) * size)
            if self.layout.file_dtype != self.dtype:
                swap_bytes(frames)
            return
        step = max(1, RAW_BATCH // size)
        packed = np.empty((min(step, len(frames)), size), np.uint8)
        for first in range(0, len(frames), step):
            part = frames[first : first + step]
            places = np.arange(len(part), dtype=np.int64) * size
            read_blocks(path, offsets[first : first + step], size, as_bytes(packed), places)
            merlin_raw.unpack(packed[: len(part)], depth, part)


def _without_holes(
    validity: ValidityArray | None, n_positions: int, first: Sequence[int], counts: Sequence[int], offset: int
) -> ValidityArray | None:
    """Mark the positions whose frames are missing between files."""
    for at, count, after in zip(first[:-1], counts[:-1], first[1:], strict=True):
        start, stop = (min(max(edge - offset, 0), n_positions) for edge in (at + count, after))
        if start < stop:
            validity = np.full(n_positions, VALID, np.uint8) if validity is None else validity
            validity[start:stop] = MISSING
    return validity
