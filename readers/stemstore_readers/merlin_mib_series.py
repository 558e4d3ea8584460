"""Files of one Merlin acquisition: which belong together, where each frame lies, and when it was taken."""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import CorruptDataError, FormatVersionError, SectorMismatchError, StorageError, TruncatedFileError
from stemstore.sources.files import file_size, list_folder, unreadable
from stemstore.sources.geometry import MAX_MISSING
from stemstore.sources.records import as_bytes, open_unbuffered, read_blocks, whole_records
from stemstore_readers import merlin_mib_header as text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stemstore._types import Int64Array
    from stemstore.sources.remote import Place

    ReadStamps = Callable[[Sequence[int]], Int64Array | None]

HEAD_FRAMES = 8192
"""Frames whose times are looked at one after the other: some scan lines of every usual length."""

CHECKED_LINES = 2048
"""Line ends behind these that are looked at; each costs three reads."""

LEAST_DELAY = 1000
"""Shortest extra time at the end of a line that is believed, ns: clocks of free-running series differ by tens of ns."""

JITTERS = 5.0
"""Extra time at the end of a line, in typical deviations of the other frame periods."""

_STAMP_BYTES = 64  # "MQ1A,2021-04-15T13:44:43.100924481Z" and room for a header whose fields became longer
_NUMBERED = re.compile(r"(.*?)\d+")


@dataclass(frozen=True, slots=True)
class MibFile:
    """One file: its first header, its whole frames, the bytes left over, and the number of its last frame."""

    path: Place
    header: text.FrameHeader
    layout: text.FrameLayout
    count: int
    left: int
    last: int


def read_header(path: Place, offset: int, place: str) -> text.FrameHeader:
    """Read the frame header at a byte of a file.

    Raises
    ------
    CorruptDataError
        There is none.
    StorageError, NotFoundError
        The file cannot be read.
    """
    content = _read(path, offset, text.FIRST_READ)
    length = text.header_length(content) or 0
    if length > len(content) == text.FIRST_READ:
        content = _read(path, offset, length)
    return text.parse_header(content, place)


def _read(path: Place, offset: int, length: int) -> bytes:
    with open_unbuffered(path) as file:
        try:
            file.seek(offset)
            return file.read(length) or b""
        except OSError as error:
            raise unreadable(path, error) from error


def look_at(path: Place, depth: int | None) -> MibFile:
    """Look at the first, second and last frame of a file.

    Raises
    ------
    TruncatedFileError
        It holds no whole frame.
    CorruptDataError
        A frame is not where the first header says; the message names the first such frame.
    FormatVersionError
        As for `frame_layout`.
    """
    place = f"file {str(path)!r}"
    size = file_size(path)
    if size == 0:
        msg = f"{place} is empty, expected frames; leave it out or copy it again"
        raise TruncatedFileError(msg, url=str(path), found=0)
    header = read_header(path, 0, place)
    layout = text.frame_layout(header, depth, place)
    count, left = whole_records(size, layout.record_bytes)
    if not count:
        msg = (
            f"{place} has {size} bytes and holds no whole frame of {layout.record_bytes} bytes; copy the file again, "
            "or leave it out"
        )
        raise TruncatedFileError(msg, url=str(path), found=size, expected=layout.record_bytes)
    return MibFile(path, header, layout, count, left, _last_number(path, header, layout, count))


def _last_number(path: Place, header: text.FrameHeader, layout: text.FrameLayout, count: int) -> int:
    """Read the number of the last frame; frames must have their headers where the first one says."""

    def fits(number: int) -> bool:
        head = _read(path, number * layout.record_bytes, layout.header_bytes)
        if text.header_length(head) != layout.header_bytes:
            return False
        found = text.parse_header(head, "")
        return (found.width, found.height, found.pixel_code) == (header.width, header.height, header.pixel_code)

    if all(fits(number) for number in {min(1, count - 1), count - 1}):
        return read_header(path, (count - 1) * layout.record_bytes, f"file {str(path)!r}").sequence
    good, bad = 0, 1 if count > 1 and not fits(1) else count - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    msg = (
        f"file {str(path)!r} has no frame of {header.width} x {header.height} {header.pixel_code} at byte "
        f"{bad * layout.record_bytes}, where frame {bad} should start; frames of different size or a damaged file, "
        "cut it there"
    )
    raise CorruptDataError(msg, url=str(path), frame=bad, byte=bad * layout.record_bytes)


def siblings(path: Place, depth: int | None) -> list[MibFile]:
    """Look at the files of a folder whose names differ from `path` in the number at their end only.

    Files that are no frames are left out: a name alike proves nothing.
    """
    mine = _NUMBERED.fullmatch(path.stem)
    if mine is None:
        return []
    pattern = re.compile(re.escape(mine[1]) + r"\d+" + re.escape(path.suffix))
    found = []
    for entry in list_folder(path.parent):
        if entry != path and pattern.fullmatch(entry.name):
            with contextlib.suppress(CorruptDataError, FormatVersionError, StorageError):
                found.append(look_at(entry, depth))
    return found


def chain(opened: MibFile, others: Sequence[MibFile]) -> tuple[list[MibFile], list[str]]:
    """Find the files whose frame numbers lead up to and go on from those of the opened file.

    Returns
    -------
    files, warnings
        In the order of their frames.
    """
    like = [file for file in others if file.layout == opened.layout]
    after = {file.header.sequence: file for file in reversed(like)}
    before = {file.last + 1 + bool(file.left): file for file in reversed(like)}
    files = [opened]
    while (follower := after.pop(files[-1].last + 1 + bool(files[-1].left), None)) is not None:
        files.append(follower)
    while (leader := before.pop(files[0].header.sequence, None)) is not None and leader not in files:
        files.insert(0, leader)
    warnings = []
    if files[0].header.sequence > 1:
        warnings.append(
            f"the first frame in {str(files[0].path)!r} has the number {files[0].header.sequence}, expected 1; "
            "files before it are missing"
        )
    later = [file for file in like if file not in files and file.header.sequence > files[-1].last + 1]
    if later:
        warnings.append(
            f"{str(later[0].path)!r} starts with frame {later[0].header.sequence}, but {str(files[-1].path)!r} ends "
            f"with frame {files[-1].last}; {len(later)} such files are left out, give them as a list if they belong"
        )
    return files, warnings


def arrange(files: Sequence[MibFile]) -> list[MibFile]:
    """Bring files that the user named into the order of their frame numbers.

    Raises
    ------
    SectorMismatchError
        Their frames differ in size or type, or two files hold the same frame numbers.
    """
    ordered = sorted(files, key=lambda file: file.header.sequence)
    for before, after in itertools.pairwise(ordered):
        if after.layout != before.layout:
            msg = (
                f"frames in {str(after.path)!r} have the shape {after.layout.shape} and code "
                f"{after.header.pixel_code}, those in {str(before.path)!r} {before.layout.shape} and "
                f"{before.header.pixel_code}; open them apart"
            )
            raise SectorMismatchError(msg, url=str(after.path))
        if after.header.sequence <= before.last:
            msg = (
                f"{str(after.path)!r} and {str(before.path)!r} both hold frame number {after.header.sequence}; "
                "they are different acquisitions, open them apart"
            )
            raise SectorMismatchError(msg, url=str(after.path), frame=after.header.sequence)
    return ordered


def place_files(files: Sequence[MibFile]) -> tuple[list[int], int, list[str]]:
    """Say which frame of the acquisition each file starts with, counted from the first one that is there.

    Returns
    -------
    first, n_frames, warnings
        `n_frames` counts the frames that are missing between files.

    Raises
    ------
    SectorMismatchError
        More frames are missing than a scan can have.
    """
    first, warnings, at = [], [], 0
    for number, file in enumerate(files):
        hole = file.header.sequence - files[number - 1].last - 1 if number else 0
        if hole > MAX_MISSING:
            msg = f"{hole} frames are missing before {str(file.path)!r}; the files do not belong together"
            raise SectorMismatchError(msg, url=str(file.path), found=hole)
        if hole:
            warnings.append(f"{hole} frames before {str(file.path)!r} are missing and marked so")
        first.append(at + hole)
        at += hole + file.count
        if file.left:
            whole = f"its {file.count} whole frames are used"
            warnings.append(f"file {str(file.path)!r} ends with {file.left} bytes of a frame that was cut; {whole}")
        lost = file.last - file.header.sequence + 1 - file.count
        if lost:
            warnings.append(
                f"frames in {str(file.path)!r} are numbered {file.header.sequence} to {file.last}, but there are "
                f"{file.count}: frames were lost or repeated, and positions behind them are shifted"
            )
    return first, at, warnings


def stamp_reader(files: Sequence[MibFile]) -> ReadStamps:
    """Make the function that reads the times of frames, ns; it gives None where one has no time."""
    edges = np.cumsum([0, *(file.count for file in files)])
    start = max(files[0].header.text.find("MQ1A,") - 8, 0)

    def read(frames: Sequence[int]) -> Int64Array | None:
        found = np.empty(len(frames), np.int64)
        owner = np.searchsorted(edges, frames, side="right") - 1
        for number in np.unique(owner).tolist():
            wanted = np.flatnonzero(owner == number)
            offsets = (np.asarray(frames, np.int64)[wanted] - edges[number]) * files[number].layout.record_bytes + start
            stamps = np.empty((len(wanted), _STAMP_BYTES), np.uint8)
            places = np.arange(len(wanted), dtype=np.int64) * _STAMP_BYTES
            read_blocks(files[number].path, offsets, _STAMP_BYTES, as_bytes(stamps), places)
            for index, stamp in zip(wanted.tolist(), stamps, strict=True):
                time = text.nanoseconds(stamp.tobytes())
                if time is None:
                    return None
                found[index] = time
        return found

    return read


def line_length(read: ReadStamps, n_frames: int, total: int) -> tuple[int | None, float | None]:
    """Find the frames per scan line by the extra time at the end of every line.

    Accepted only where the extra time exceeds `LEAST_DELAY` and `JITTERS` typical deviations, occurs at the end of
    every line and nowhere else, and lines of that length make up the scan.

    Parameters
    ----------
    read
        Gives the times of frames, ns.
    n_frames
        Frames that are there.
    total
        Frames that the acquisition was to have.

    Returns
    -------
    length
        None where the times do not tell.
    period : unit s
        Usual time from one frame to the next.
    """
    times = read(range(min(n_frames, HEAD_FRAMES)))
    if times is None or len(times) < 2:  # noqa: PLR2004 (a period takes two times)
        return None, None
    gaps = np.diff(times)
    usual = float(np.median(gaps))
    limit = usual + max(JITTERS * 1.4826 * float(np.median(np.abs(gaps - usual))), LEAST_DELAY)
    ends = np.flatnonzero(gaps > limit)
    length = int(ends[0]) + 1 if len(ends) else 0
    regular = length > 1 and np.array_equal(ends, np.arange(length - 1, len(gaps), length)) and total % length == 0
    if not regular or not _goes_on(read, n_frames, length, limit):
        return None, usual * 1e-9
    return length, usual * 1e-9


def _goes_on(read: ReadStamps, n_frames: int, length: int, limit: float) -> bool:
    """Whether lines behind the first frames end with the extra time too, and only end with it."""
    ends = np.arange(length - 1, n_frames - 2, length)
    ends = ends[ends >= HEAD_FRAMES - 1]
    if len(ends) > CHECKED_LINES:
        ends = ends[np.linspace(0, len(ends) - 1, CHECKED_LINES).astype(np.int64)]
    if not len(ends):
        return True
    times = read((ends[:, None] + np.arange(3)).reshape(-1).tolist())
    if times is None:
        return False
    gaps = np.diff(times.reshape(-1, 3), axis=1)
    return bool((gaps[:, 0] > limit).all() and (gaps[:, 1] <= limit).all())
