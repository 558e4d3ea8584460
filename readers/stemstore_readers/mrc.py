"""MRC stacks of frames: Direct Electron movies with their side files, exports of Thermo Fisher cameras, plain MRC.

The header is described in `mrc_header`, the side files in `mrc_info`. Frames lie one after the other behind header and
extended header, rows as the camera wrote them.

Sources: Cheng et al., J. Struct. Biol. 192, 146 (2015): MRC2014; IMOD's description; mrcfile (extended header).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError, UnknownFormatError
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.files import describe, expand, file_size, identity, unreadable
from stemstore.sources.geometry import check_missing, fit_scan, shape_option
from stemstore.sources.records import RecordSource, whole_records
from stemstore_readers.header_values import plain
from stemstore_readers.mrc_header import (
    FEI_BYTES,
    HEADER_BYTES,
    MODES,
    NO_PIXELS,
    STAMPS,
    Header,
    fei_scan,
    parse_fei,
    parse_header,
)
from stemstore_readers.mrc_info import Info, Raster, is_picture, movie_metadata, other_scan, raster, read_info
from stemstore_readers.placed_frames import Band, PlacedSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Int64Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place

_MRC2014 = 20140
"""Version from which bytes are signed by the standard."""

Positions = Literal["list", "grid"]
Layout = tuple[tuple[int, ...], "Int64Array | None", "ValidityArray | None"]
"""Scan shape, record of every position (None: in file order), validity."""

MAX_LISTED = 2**16
"""Positions that are copied into the metadata; longer lists stay in their file."""


class Mrc:
    """Reader of MRC stacks and of Direct Electron movies with ``…_info.txt`` and ``…_scan_coordinates.csv``.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    positions
        Of a scan whose positions are listed: ``"list"`` keeps the frames in the order of acquisition, ``"grid"`` puts
        them on the smallest grid, repeated positions one after the other; positions without a frame are missing.
    signed
        Whether bytes of mode 0 are signed; without it the header decides where it can.
    """

    name: ClassVar[str] = "mrc"
    description: ClassVar[str] = "MRC stacks, Direct Electron movies with info and scan files"
    extensions: ClassVar[tuple[str, ...]] = (".mrc", ".mrcs", ".st")

    def __init__(
        self, *, scan_shape: Sequence[int] | None = None, positions: Positions = "list", signed: bool | None = None
    ) -> None:
        if positions not in ("list", "grid"):
            msg = f"option positions={positions!r} is not known; expected 'list' or 'grid'"
            raise InputError(msg, key="positions", found=positions)
        if signed not in (None, True, False):
            msg = f"option signed={signed!r} is not known; expected True or False"
            raise InputError(msg, key="signed", found=signed)
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))
        self.positions: Positions = positions
        self.signed = signed

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Check the numbers of the header; old files lack the mark ``MAP``."""
        try:
            parse_header(first_bytes)
        except Exception:  # not ours
            return 0.0
        if first_bytes[208:211] == b"MAP":
            return 1.0
        return 0.9 if url.lower().endswith(cls.extensions) and first_bytes[212:214] in STAMPS else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource | PlacedSource:
        """Open the file: headers and side files only, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the file holds no frames of a detector.
        UnknownFormatError, CorruptDataError
            The file is no MRC file, or a side file is damaged.
        TruncatedFileError
            The file ends before its first whole frame.
        """
        files = expand(url)
        if len(files) != 1:
            msg = f"{len(files)} files were given, expected one MRC file; open them one at a time"
            raise InputError(msg, found=len(files), expected=1)
        path = files[0]
        try:
            header, extended = read_headers(path)
        except (UnknownFormatError, TruncatedFileError) as error:
            error.add_note(f"in file {str(path)!r}")
            raise
        info = read_info(path)
        _refuse_other_data(path, header, info)
        notes: list[str] = []
        found = count_frames(path, header, notes)
        layout = self._lay_out(header, extended, info, found, notes)
        return self._open(path, header, extended, info, layout, found, notes)

    def _open(
        self,
        path: Place,
        header: Header,
        extended: dict[str, Any],
        info: Info,
        layout: Layout,
        found: int,
        notes: list[str],
    ) -> RecordSource | PlacedSource:
        shape, records, validity = layout
        dtype = self._pixels(header, info, notes)
        described = describe([path, *info.files])
        frame_shape = (header.rows, header.columns)
        metadata = movie_metadata(
            info.values, extended, (*shape, *frame_shape), notes, by_user=self.scan_shape is not None
        )
        vendor: dict[str, Any] = {"header": dataclasses.asdict(header), "extended": extended, "info": info.values}
        if info.positions is not None and len(info.positions) <= MAX_LISTED:
            vendor["scan_coordinates"] = info.positions.tolist()
        about: dict[str, Any] = {
            "identity": identity(self.name, described, (shape, self.positions, dtype.str)),
            "scan_shape": shape,
            "frame_shape": frame_shape,
            "metadata": metadata.model_copy(update={"files": described, "vendor": plain(vendor)}),
            "validity": validity,
            "file_dtype": dtype,
        }
        if records is None:
            count = min(found, math.prod(shape))
            return RecordSource(
                files=(str(path),), counts=(count,), offset=header.start, stride=header.frame_bytes, **about
            )
        offsets = np.where(records < 0, -1, header.start + records * header.frame_bytes)
        return PlacedSource(bands=(Band(str(path), offsets, 0, header.rows),), **about)

    def _pixels(self, header: Header, info: Info, notes: list[str]) -> np.dtype[Any]:
        """Pixel type; bytes are signed or not by option, maker, IMOD's flag, or version of the format."""
        if header.mode != 0:
            return np.dtype(MODES[header.mode]).newbyteorder(header.order)  # type: ignore[arg-type]  # "<" or ">"
        if self.signed is not None:
            return np.dtype("i1" if self.signed else "u1")
        if info.values or header.by_direct_electron:
            return np.dtype("u1")
        if header.imod_flags is not None:
            return np.dtype("i1" if header.imod_flags & 1 else "u1")
        signed = header.version >= _MRC2014
        notes.append(
            f"bytes are guessed to be {'signed' if signed else 'unsigned'} from the format version {header.version}; "
            "pass signed=… to settle it"
        )
        return np.dtype("i1" if signed else "u1")

    def _lay_out(self, header: Header, extended: dict[str, Any], info: Info, found: int, notes: list[str]) -> Layout:
        """Lay the frames out: by option, raster of the text, listed positions, extended header, or not at all."""
        if self.scan_shape is not None:
            return fitted(self.scan_shape, found, notes)
        scan = raster(info.values)
        if scan is not None and scan.n_frames in (header.frames, found):
            return place_raster(scan, found, notes)
        if scan is not None:
            notes.append(
                f"the info file speaks of {scan.repeats} scans of {scan.rows} x {scan.columns} positions with "
                f"{scan.frames} frames each, but the movie has {header.frames} frames; pass scan_shape=…"
            )
        if info.positions is not None and self.positions == "grid":
            return place_positions(info.positions, found, notes)
        if info.positions is not None:
            notes.append(
                f"the scan visited {len(info.positions)} listed positions, frames stay in the order of acquisition; "
                "pass positions='grid' to put them on a grid"
            )
            return fitted(None, found, notes)
        if other_scan(info.values):
            notes.append(
                f"the scan is of type {other_scan(info.values)!r} and its list of positions is missing; frames stay in "
                "the order of acquisition, pass scan_shape=… to lay them out"
            )
        stated = fei_scan(extended)
        return fitted(stated if stated and math.prod(stated) == header.frames else None, found, notes)


def read_headers(path: Place) -> tuple[Header, dict[str, Any]]:
    """Read the header and what the extended header says of the first frame."""
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(HEADER_BYTES))
            fei = header.extended_kind in ("FEI1", "FEI2") and header.extended >= FEI_BYTES
            return header, parse_fei(file.read(FEI_BYTES)) if fei else {}
    except OSError as error:
        raise unreadable(path, error) from error


def count_frames(path: Place, header: Header, notes: list[str]) -> int:
    """Count the whole frames that are there; the header's number may be what was planned.

    Raises
    ------
    TruncatedFileError
        There is none.
    """
    size = file_size(path)
    found, left = whole_records(size, header.frame_bytes, header.start)
    if not found:
        expected = header.start + header.frame_bytes
        msg = f"file {str(path)!r} has {size} bytes, expected {expected} for its first frame; copy it again"
        raise TruncatedFileError(msg, url=str(path), found=size, expected=expected)
    if found < header.frames:
        notes.append(f"file {path.name!r} ends after {found} of {header.frames} whole frames; the others are missing")
    elif found > header.frames or left:
        extra = size - header.start - header.frames * header.frame_bytes
        notes.append(f"file {path.name!r} has {extra} bytes behind its {header.frames} frames; they are ignored")
    return min(found, header.frames)


def fitted(scan_shape: tuple[int, ...] | None, found: int, notes: list[str]) -> Layout:
    """Lay frames out in the order of the file."""
    shape, validity, misfits = fit_scan(scan_shape, found)
    notes += misfits
    return shape, None, validity


def place_raster(scan: Raster, found: int, notes: list[str]) -> Layout:
    """Lay a raster out as (frame, y, x); frames of one position follow each other in the file."""
    n_positions = scan.rows * scan.columns
    n_frames = scan.repeats * scan.frames
    shape = (scan.rows, scan.columns) if n_frames == 1 else (n_frames, scan.rows, scan.columns)
    if scan.frames == 1:
        return fitted(shape, found, notes)
    check_missing(shape, found)
    repeat, frame, position = np.ogrid[: scan.repeats, : scan.frames, :n_positions]
    records = ((repeat * n_positions + position) * scan.frames + frame).reshape(-1).astype(np.int64)
    return _placed(shape, np.where(records < found, records, -1))


def place_positions(positions: Int64Array, found: int, notes: list[str]) -> Layout:
    """Lay frames out on the smallest grid that holds their positions; a position's visits count the frames.

    Raises
    ------
    CorruptDataError
        The grid would be empty nearly everywhere.
    """
    n_frames = min(len(positions), found)
    if n_frames != found or n_frames != len(positions):
        notes.append(f"{len(positions)} positions are listed for {found} frames; the first {n_frames} are used")
    if not n_frames:
        msg = "the list of scan positions is empty; pass scan_shape=… or move it away"
        raise CorruptDataError(msg, found=0)
    rows, columns = (positions[:n_frames].max(axis=0) + 1).tolist()
    place = positions[:n_frames, 0] * columns + positions[:n_frames, 1]
    order = np.argsort(place, kind="stable")
    first = np.r_[True, np.diff(place[order]) != 0]
    visits = np.empty(n_frames, np.int64)
    visits[order] = np.arange(n_frames) - np.maximum.accumulate(np.where(first, np.arange(n_frames), 0))
    repeats = int(visits.max()) + 1
    shape = (rows, columns) if repeats == 1 else (repeats, rows, columns)
    check_missing(shape, n_frames)
    records = np.full(math.prod(shape), -1, np.int64)
    records[visits * rows * columns + place] = np.arange(n_frames)
    empty = int((records < 0).sum())
    if empty:
        notes.append(f"{empty} of {len(records)} places of the grid were not visited; they are marked missing")
    return _placed(shape, records)


def _placed(shape: tuple[int, ...], records: Int64Array) -> Layout:
    validity = np.where(records < 0, MISSING, VALID).astype(np.uint8)
    return shape, records, None if (records >= 0).all() else validity


def _refuse_other_data(path: Place, header: Header, info: Info) -> None:
    if header.mode in NO_PIXELS:
        what = f"{NO_PIXELS[header.mode]} (mode {header.mode})"
        msg = f"file {str(path)!r} holds {what}, expected frames of integers or floats; convert it to mode 1, 2 or 6"
        raise InputError(msg, url=str(path), found=header.mode)
    scan = raster(info.values)
    if header.frames == 1 and is_picture(path) and scan and (scan.rows, scan.columns) == (header.rows, header.columns):
        movie = "…_movie.mrc"
        msg = f"file {str(path)!r} is an image of the scan, expected diffraction patterns; open {movie!r} beside it"
        raise InputError(msg, url=str(path), found=(header.rows, header.columns))
