"""Header pass over NCEM 4D Camera sector files: which record of which file holds which sector of which frame.

A frame is known by the frame number in its records' headers, never by where the records lie. The layouts are those read
and written by OpenChemistry/stempy (``stempy/reader.h``, ``docs/source/4dCamera_header_versions.rst``).
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import FormatVersionError, SectorMismatchError, TruncatedFileError
from stemstore.sources.files import unreadable
from stemstore.sources.records import open_unbuffered, whole_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.remote import Place

HEADER = np.dtype([("scan", "<u4"), ("frame", "<u4"), ("width", "<u2"), ("height", "<u2"), ("x", "<u2"), ("y", "<u2")])

SAMPLED_FILES, SAMPLED_RECORDS = 8, 16
"""How much is looked at to tell whether a version fits: one wrong record length shows in the second record."""

MAJORITY = 0.5
"""Share of sampled headers that must agree: a foreign scan in between does not matter, a wrong record length does."""

MAX_LOST = 2**25
"""Sectors that an index may hold although they are not there: 400 MB. Scans of many exposures that were stopped after a
few rows stay below; positions stuck at one value, or a senseless scan size, would otherwise fill the memory."""

HEADER_THREADS = 16
"""Files whose headers are read at a time; the threads wait for storage and hardly compute."""

SHOWN = 5
"""Cases named one by one in a report; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One record layout.

    Attributes
    ----------
    version
        Header version.
    n_modules
        Records that make one frame.
    sector
        Rows and columns of the pixels in one record.
    """

    version: int
    n_modules: int
    sector: tuple[int, int]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixels in a record."""
        return 2 * self.sector[0] * self.sector[1]

    @property
    def record_bytes(self) -> int:
        """Bytes of a whole record."""
        return HEADER.itemsize + self.pixel_bytes


LAYOUTS = {3: Layout(3, 1, (576, 576)), 4: Layout(4, 4, (576, 144)), 5: Layout(5, 4, (144, 576))}


@dataclass(frozen=True, slots=True)
class SectorFile:
    """One data file: its module (0 for whole frames) and what its size says."""

    path: Place
    module: int
    size: int

    def records(self, layout: Layout) -> tuple[int, int]:
        """Count whole records and left-over bytes."""
        return whole_records(self.size, layout.record_bytes)


@dataclass(frozen=True, slots=True)
class Records:
    """Headers of many records, in the order of files and of records inside each.

    Attributes
    ----------
    headers : shape (n,)
        Of dtype `HEADER`.
    file : shape (n,)
        Number of the file.
    number : shape (n,)
        Number of the record in its file.
    module : shape (n,)
        Number of the detector module.
    """

    headers: Array
    file: Array
    number: Int64Array
    module: Array

    def where(self, chosen: Array) -> Records:
        """Keep some records."""
        return Records(self.headers[chosen], self.file[chosen], self.number[chosen], self.module[chosen])

    def place(self, files: Sequence[SectorFile], record: int) -> str:
        """Name one record for a message."""
        return f"{str(files[int(self.file[record])].path)!r} record {int(self.number[record])}"


@dataclass(frozen=True, slots=True)
class SectorIndex:
    """Where every sector of every frame lies.

    Attributes
    ----------
    exposures
        Frames per scan position.
    file : shape (n_frames, n_modules), int32
        Number of the file, -1 for a lost sector; frames in the order (exposure, y, x).
    offset : shape (n_frames, n_modules), int64, unit byte
        Where the pixels start in the file, -1 for a lost sector.
    warnings
        What the user should know.
    """

    exposures: int
    file: np.ndarray[Any, np.dtype[np.int32]]
    offset: Int64Array
    warnings: list[str]


def read_headers(file: SectorFile, layout: Layout, numbers: Sequence[int] | range) -> Array:
    """Read the 16-byte headers of the records `numbers` of one file.

    Single reads, the kernel told not to read ahead: mapping the file would pull in most of it.
    """
    size, record = HEADER.itemsize, layout.record_bytes
    with open_unbuffered(file.path) as stream:
        try:
            if hasattr(os, "preadv"):  # not on Windows
                handle = stream.fileno()
                if hasattr(os, "posix_fadvise"):  # not on macOS
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
                parts = [os.pread(handle, size, number * record) for number in numbers]
            else:
                parts = [_seek_read(stream, number * record, size) for number in numbers]
        except OSError as error:
            raise unreadable(file.path, error) from error
    content = b"".join(parts)
    if len(content) != size * len(numbers):
        msg = f"file {str(file.path)!r} became shorter while its headers were read; wait until it is complete"
        raise TruncatedFileError(msg, url=str(file.path))
    return np.frombuffer(content, dtype=HEADER)


def _seek_read(stream: Any, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return bytes(stream.read(size))


def gather(files: Sequence[SectorFile], layout: Layout) -> Records:
    """Read all headers of all files, several files at a time."""
    counts = [file.records(layout)[0] for file in files]
    with ThreadPoolExecutor(min(len(files), HEADER_THREADS)) as pool:
        parts = list(pool.map(lambda file, count: read_headers(file, layout, range(count)), files, counts))
    return Records(
        np.concatenate(parts),
        np.repeat(np.arange(len(files), dtype=np.int32), counts),
        np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
        np.repeat(np.array([file.module for file in files], dtype=np.int8), counts),
    )


def check_version(files: Sequence[SectorFile], layout: Layout) -> None:
    """Refuse a version whose record length contradicts the files.

    Versions 4 and 5 have the same record length and cannot be told apart.

    Raises
    ------
    FormatVersionError
        Another version fits, or none does.
    TruncatedFileError
        A file holds no whole record, under any version.
    """
    length, folder = layout.record_bytes, str(files[0].path.parent)
    fits, exact = _fit(files, layout)
    if not (fits >= MAJORITY and exact):
        others = [other for other in LAYOUTS.values() if other.record_bytes != length]
        good = {other.version: _fit(files, other) for other in others}
        better = [v for v, (share, whole) in good.items() if share >= MAJORITY and (whole or fits < MAJORITY)]
        if better:
            msg = (
                f"the files at {folder!r} do not fit header version {layout.version} (records of {length} bytes), "
                f"but version {' or '.join(map(str, better))}; pass version={better[-1]}"
            )
            raise FormatVersionError(msg, found=better, expected=layout.version)
    for file in files:
        if file.size < length:
            msg = (
                f"file {str(file.path)!r} has {file.size} bytes and holds no whole record of {length} bytes; "
                "leave it out or copy it again"
            )
            raise TruncatedFileError(msg, url=str(file.path), found=file.size, expected=length)
    if fits < MAJORITY:
        msg = (
            f"the record headers in {folder!r} contradict each other under every known version "
            f"({', '.join(map(str, LAYOUTS))}); check that these are 4D Camera files and that they are complete"
        )
        raise FormatVersionError(msg, expected=list(LAYOUTS))


def _fit(files: Sequence[SectorFile], layout: Layout) -> tuple[float, bool]:
    """Share of sampled records that agree on scan number and size, and whether every file ends with a record."""
    shares, exact = [], True
    for file in files[:SAMPLED_FILES]:
        count, left = file.records(layout)
        exact = exact and left == 0
        if count == 0:
            shares.append(0.0)
            continue
        numbers = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_RECORDS)).astype(np.int64)).tolist()
        headers = read_headers(file, layout, numbers)
        sizes = zip(headers["scan"].tolist(), headers["width"].tolist(), headers["height"].tolist(), strict=True)
        known = Counter(sizes)
        sane = [number for (_, width, height), number in known.items() if width and height]
        shares.append(max(sane, default=0) / len(headers))
    return sum(shares) / len(shares), exact


def one_scan(records: Records, files: Sequence[SectorFile], scan_number: int | None) -> tuple[Records, int, list[str]]:
    """Keep the records of one scan.

    Returns
    -------
    records, scan_number, warnings

    Raises
    ------
    SectorMismatchError
        Several scans are mixed and none was asked for, or the one asked for is not there.
    """
    numbers, counts = np.unique(records.headers["scan"], return_counts=True)
    text = ", ".join(
        f"{number} ({count} records)" for number, count in zip(numbers[:SHOWN], counts[:SHOWN], strict=True)
    )
    folder = str(files[0].path.parent)
    if scan_number is None:
        if len(numbers) > 1:
            msg = f"{folder!r} mixes the scans {text}; choose one, for example scan_number={numbers[counts.argmax()]}"
            raise SectorMismatchError(msg, url=folder, found=numbers.tolist())
        return records, int(numbers[0]), []
    mine = records.headers["scan"] == scan_number
    if not mine.any():
        msg = f"{folder!r} holds no record of scan {scan_number}, only of {text}; pass one of these as scan_number"
        raise SectorMismatchError(msg, url=folder, found=numbers.tolist(), expected=scan_number)
    foreign = int(len(mine) - mine.sum())
    if not foreign:
        return records, scan_number, []
    first = records.place(files, int(np.flatnonzero(~mine)[0]))
    warnings = [f"{foreign} records of other scans than {scan_number} are ignored, the first at {first}"]
    return records.where(mine), scan_number, warnings


def header_shape(records: Records, files: Sequence[SectorFile]) -> tuple[int, int]:
    """Scan rows and columns on which all headers agree.

    Raises
    ------
    SectorMismatchError
        They do not, or the size is zero.
    """
    heads = records.headers
    differs = (heads["width"] != heads["width"][0]) | (heads["height"] != heads["height"][0])
    ny, nx = int(heads["height"][0]), int(heads["width"][0])
    if differs.any() or ny == 0 or nx == 0:
        record = int(np.flatnonzero(differs)[0]) if differs.any() else 0
        found = (int(heads["height"][record]), int(heads["width"][record]))
        msg = (
            f"{records.place(files, record)} states a scan of {found[0]} rows and {found[1]} columns, "
            f"the first record one of {ny} rows and {nx} columns; state it with scan_shape=(rows, columns)"
        )
        raise SectorMismatchError(msg, url=str(files[int(records.file[record])].path), found=found, expected=(ny, nx))
    return ny, nx


def flat_positions(
    records: Records, files: Sequence[SectorFile], shape: tuple[int, int], *, swap_xy: bool
) -> Int64Array:
    """Flat scan position ``y * columns + x`` of every record.

    Raises
    ------
    SectorMismatchError
        A position lies outside the scan.
    """
    y, x = records.headers["y"].astype(np.int64), records.headers["x"].astype(np.int64)
    if swap_xy:
        y, x = x, y
    outside = np.flatnonzero((y >= shape[0]) | (x >= shape[1]))
    if len(outside):
        record = int(outside[0])
        msg = (
            f"{records.place(files, record)} lies at row {y[record]}, column {x[record]}, outside the scan of "
            f"{shape[0]} rows and {shape[1]} columns ({len(outside)} such records); "
            "state the scan with scan_shape=(rows, columns), or try swap_xy=True"
        )
        url = str(files[int(records.file[record])].path)
        raise SectorMismatchError(
            msg, url=url, record=int(records.number[record]), found=(int(y[record]), int(x[record]))
        )
    return y * shape[1] + x


def build_index(
    records: Records, files: Sequence[SectorFile], layout: Layout, position: Int64Array, n_positions: int
) -> SectorIndex:
    """Arrange records by exposure, position and module.

    Frames of one position are numbered in ascending frame number. Of two records for the same sector of the same frame
    the first counts.

    Parameters
    ----------
    position : shape (n,)
        Flat scan position of every record.
    n_positions
        Positions of the scan.

    Raises
    ------
    SectorMismatchError
        The sectors of one frame state different positions, or the positions cannot be real.
    """
    frames, first, frame = np.unique(records.headers["frame"], return_index=True, return_inverse=True)
    _check_positions(records, files, position, first[frame])
    slot = frame * layout.n_modules + records.module
    _, kept = np.unique(slot, return_index=True)
    warnings = _report_duplicates(records, files, slot, kept)
    exposure = _rank(position[first])
    exposures = int(exposure.max()) + 1
    if exposures * n_positions * layout.n_modules > MAX_LOST + 2 * len(slot):
        msg = (
            f"the headers state a scan of {n_positions} positions and up to {exposures} frames at one of them, but "
            f"only {len(frames)} frames were found; the headers look broken, state scan_shape=(rows, columns) or try "
            "swap_xy=True"
        )
        raise SectorMismatchError(msg, found=len(frames), expected=exposures * n_positions)
    flat = exposure * n_positions + position[first]
    file_of = np.full((exposures * n_positions, layout.n_modules), -1, dtype=np.int32)
    offset_of = np.full(file_of.shape, -1, dtype=np.int64)
    goal = flat[frame[kept]], records.module[kept]
    file_of[goal] = records.file[kept]
    offset_of[goal] = records.number[kept] * layout.record_bytes + HEADER.itemsize
    return SectorIndex(exposures, file_of, offset_of, warnings)


def _check_positions(records: Records, files: Sequence[SectorFile], position: Int64Array, leader: Int64Array) -> None:
    differs = np.flatnonzero(position != position[leader])
    if len(differs):
        record = int(differs[0])
        msg = (
            f"{records.place(files, record)} and {records.place(files, int(leader[record]))} both belong to frame "
            f"{records.headers['frame'][record]} but state the positions {position[record]} and "
            f"{position[leader[record]]}; "
            "files of different acquisitions may be mixed, open them apart"
        )
        raise SectorMismatchError(msg, frame=int(records.headers["frame"][record]))


def _report_duplicates(records: Records, files: Sequence[SectorFile], slot: Int64Array, kept: Int64Array) -> list[str]:
    again = np.ones(len(slot), dtype=np.bool_)
    again[kept] = False
    repeated = np.flatnonzero(again)
    if not len(repeated):
        return []
    original = kept[np.searchsorted(slot[kept], slot[repeated[:SHOWN]])]
    pairs = [
        f"{records.place(files, int(late))} repeats {records.place(files, int(early))}"
        for late, early in zip(repeated[:SHOWN], original, strict=True)
    ]
    return [f"{len(repeated)} duplicate records are ignored, the first ones count: {'; '.join(pairs)}"]


def _rank(position: Int64Array) -> Int64Array:
    """Count the frames of each position 0, 1, … in the order given."""
    order = np.argsort(position, kind="stable")
    ordered = position[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(new)
    rank = np.empty(len(position), dtype=np.int64)
    rank[order] = np.arange(len(position)) - starts[np.cumsum(new) - 1]
    return rank
