"""Files beside a Norpix SEQ file: configuration, counters of the records, missing frames.

========================  ==========================================================================================
``.Config.Metadata.xml``  settings of camera and microscope; tables of bad pixels
``.metadata``             uint32 version, length of the head (256), records, length of a record; then the records,
                          which hold a frame counter at byte 216 (at byte 16 where their first word is 24)
``.Missing_Frame_Info``   text: a heading, then the numbers of frames that were lost
========================  ==========================================================================================
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from stemstore.sources.files import exists, file_size, unreadable
from stemstore_readers.header_values import whole

if TYPE_CHECKING:
    from stemstore.sources.remote import Place

MAX_BYTES = 2**20
"""Longest text file that is read; those seen have 5 kB."""

_COUNTER, _SHORT_COUNTER = 216, 16
_SHORT_RECORD = 24
_RANGE = re.compile(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class SideFiles:
    """What the files beside a SEQ file say.

    Attributes
    ----------
    values
        Settings of ``FileInfo``, as written.
    document
        The whole configuration; None without one.
    missing
        Numbers of lost frames, from 1.
    files
        Files that were read.
    root
        Path of the SEQ file, whose name those of the side files begin with.
    """

    root: Place
    values: dict[str, str] = field(default_factory=dict)
    document: Any = None
    missing: tuple[int, ...] = ()
    files: tuple[Place, ...] = ()


def read_side_files(root: Place, notes: list[str]) -> SideFiles:
    """Read what lies beside ``root`` (the name of the SEQ file); what is damaged is left out and reported."""
    settings, lost = (root.with_name(root.name + end) for end in (".Config.Metadata.xml", ".Missing_Frame_Info.txt"))
    values: dict[str, str] = {}
    document: Any = None
    missing: tuple[int, ...] = ()
    files: list[Place] = []
    if exists(settings):
        tree = _parse(_content(settings, notes), settings, notes)
        if tree is not None:
            values = {one.tag: one.get("Value", "") for one in tree.iterfind("FileInfo/*")}
            document = as_document(tree)
            files.append(settings)
    if exists(lost):
        missing = parse_missing(_content(lost, notes).decode("utf-8", "replace"))
        files.append(lost)
    return SideFiles(root, values, document, missing, tuple(files))


def _content(path: Place, notes: list[str]) -> bytes:
    if file_size(path) > MAX_BYTES:
        notes.append(f"side file {path.name!r} has {file_size(path)} bytes, expected at most {MAX_BYTES}; not read")
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _parse(content: bytes, path: Place, notes: list[str]) -> ET.Element | None:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities may unfold to any length
        notes.append(f"side file {path.name!r} defines entities and is not read")
        return None
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError) as error:
        notes.append(f"side file {path.name!r} is no XML and is not read: {error}")
        return None


def as_document(element: ET.Element, depth: int = 0) -> dict[str, Any]:
    """Turn an element into nested dictionaries: attributes, and a list of children below their tag."""
    found: dict[str, Any] = dict(element.attrib)
    for child in element if depth < 16 else ():  # noqa: PLR2004 (the format has four levels)
        found.setdefault(f"{child.tag}[]", []).append(as_document(child, depth + 1))
    return found


def parse_missing(content: str) -> tuple[int, ...]:
    """Read the numbers behind the heading."""
    _, _, rest = content.partition(":")
    return tuple(sorted({int(number) for number in re.findall(r"\d{1,10}", rest)}))


def read_counters(path: Place) -> tuple[int, int, int] | None:
    """Read number of records, first and last counter of a ``.metadata`` file; None where it is missing or damaged."""
    if not exists(path):
        return None
    size = file_size(path)
    try:
        with path.open("rb") as file:
            _, head, count, length = struct.unpack("<4I", file.read(16).ljust(16, b"\0"))
            if not count or length < _COUNTER + 4 or size < head + count * length:
                return None
            ends = []
            for number in (0, count - 1):
                file.seek(head + number * length)
                record = file.read(length)
                place = _SHORT_COUNTER if record[:4] == struct.pack("<I", _SHORT_RECORD) else _COUNTER
                ends.append(int(struct.unpack_from("<I", record, place)[0]))
    except OSError as error:
        raise unreadable(path, error) from error
    return count, ends[0], ends[1]


def bad_pixels(document: Any, frame_shape: tuple[int, int], values: dict[str, str]) -> list[list[int]]:
    """List the bad parts of a frame.

    The map is the one for the binning of the camera with most columns; it covers the sensor, of which the frame is a
    part.

    Parameters
    ----------
    document
        The configuration.
    frame_shape
        Rows and columns of a frame.
    values
        Settings with binning and place of the frame on the sensor.

    Returns
    -------
    rectangles
        First row, one past the last, first column, one past the last; in pixels of the frame, never empty.
    """
    binning = whole(values.get("ImageBinning")) or 1
    groups = document.get("BadPixels[]", []) if isinstance(document, dict) else []
    maps = [one for group in groups for one in group.get("BadPixelMap[]", [])]
    binned = [one for one in maps if (whole(one.get("Binning")) or 1) == binning]
    chosen = max(binned or maps, key=lambda one: whole(one.get("Columns")) or 0, default=None)
    if chosen is None:
        return []
    factor = binning if not binned else 1
    scale = binning if binned else 1
    first_row, first_column = ((whole(values.get(f"ImageOffset{side}")) or 0) // scale for side in "YX")
    found = []
    for defect in chosen.get("Defect[]", []):
        rows, columns = (_span(defect, name) for name in ("Row", "Column"))
        if rows is None and columns is None:
            continue
        box = [*_cut(rows, first_row, frame_shape[0], factor), *_cut(columns, first_column, frame_shape[1], factor)]
        if box[0] < box[1] and box[2] < box[3]:
            found.append(box)
    return found


def _span(defect: dict[str, str], name: str) -> tuple[int, int] | None:
    """Read ``Row`` or ``Rows`` (a number or a range) as a half-open range."""
    match = _RANGE.fullmatch((defect.get(name) or defect.get(f"{name}s") or "").strip())
    if match is None:
        return None
    first = int(match.group(1))
    return first, int(match.group(2) or first) + 1


def _cut(span: tuple[int, int] | None, first: int, length: int, factor: int) -> tuple[int, int]:
    """Move a range of the sensor into the frame; no range is all of it."""
    if span is None:
        return 0, length
    start, stop = ((edge - first) // factor for edge in (span[0], span[1] + factor - 1))
    return max(start, 0), min(stop, length)
