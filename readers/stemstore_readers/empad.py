"""EMPAD, first generation: a raw file of float32 frames and an XML file that describes the scan.

===========  =========================================================================================
bytes        meaning, for each frame of 66 560 bytes (there is no header in front of the file)
===========  =========================================================================================
0-65535      128 rows of 128 pixels, ``<f4``, row-major; detector units, NaN and negative values occur
65536-66559  two rows of position metadata of unknown layout, left out
===========  =========================================================================================

Frames follow the scan row by row. Sources: M. W. Tate et al., Microsc. Microanal. 22, 237 (2016);
hyperspy/rosettasciio (``rsciio/empad``, issue 495 on the field of view); LiberTEM/LiberTEM
(``src/libertem/io/dataset/empad.py``).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError, TruncatedFileError
from stemstore.sources.files import describe, exists, expand, file_size, identity, list_folder
from stemstore.sources.geometry import fit_scan, shape_option
from stemstore.sources.records import RecordSource, stack_metadata, whole_records
from stemstore.sources.remote import place
from stemstore_readers.empad_xml import MAX_XML_BYTES, EmpadXml, raw_name, read_xml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

FRAME_SHAPE = (128, 128)
RECORD = 130 * 128 * 4
"""Bytes from one frame to the next: 130 rows, of which 128 are pixels."""

NAMED_SHAPE = re.compile(r"_x(\d{1,6})_y(\d{1,6})\.raw$", re.IGNORECASE)
"""File names of the acquisition program: columns, then rows of the scan."""

MAX_XML_FILES = 64
"""XML files beside a raw file that are looked into for its name; a folder with more is no acquisition folder."""


class Empad:
    """Reader of EMPAD scans; give the XML file, or the raw file.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of what the files say.
    raw_file
        The raw file that belongs to the XML file, where it was renamed or moved.
    """

    name: ClassVar[str] = "empad"
    description: ClassVar[str] = "EMPAD (first generation) raw frames with their XML file"
    extensions: ClassVar[tuple[str, ...]] = (".xml", ".raw")

    def __init__(self, *, scan_shape: Sequence[int] | None = None, raw_file: str | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.raw_file = raw_file

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Know the XML by its elements (of which a long list comes first), a raw file by its name and its size."""
        if b"<root" in first_bytes and (
            b"<raw_file" in first_bytes or b"<reconstruction absolute_filename" in first_bytes
        ):
            return 1.0
        stated = shape_in_name(url)
        if stated is None or not first_bytes:
            return 0.0
        try:
            return 0.7 if file_size(place(url)) == math.prod(stated) * RECORD else 0.5
        except (OSError, ValueError):
            return 0.0

    def __call__(self, url: str | list[str]) -> RecordSource:
        """Open the files: the XML and sizes, no pixel.

        Raises
        ------
        InputError
            Several files were given, or a folder.
        UnknownFormatError, CorruptDataError
            The XML is not one of EMPAD, or is damaged.
        NotFoundError
            The raw file is missing.
        TruncatedFileError
            There is not one whole frame.
        """
        raw, xml_path = self._find_files(url)
        described = describe([raw] if xml_path is None else [raw, xml_path])
        header = None if xml_path is None else read_xml(xml_path)
        n_frames, left = whole_records(file_size(raw), RECORD)
        if not n_frames:
            msg = f"file {str(raw)!r} has {file_size(raw)} bytes and holds no whole frame of {RECORD}; copy it again"
            raise TruncatedFileError(msg, url=str(raw), found=file_size(raw), expected=RECORD)
        warnings = []
        if left:
            text = f"file {str(raw)!r} ends with {left} bytes that make no whole frame of {RECORD} bytes"
            warnings.append(f"{text}; its {n_frames} whole frames are used")
        if header is None:
            warnings.append(f"no XML file beside {str(raw)!r} names it; energy and steps are unknown")
        shape, notes = self._scan_shape(raw, header, n_frames)
        scan_shape, validity, fit_notes = fit_scan(shape, n_frames)
        metadata = stack_metadata(
            scan_shape,
            FRAME_SHAPE,
            source="header" if self.scan_shape is None else "user",
            warnings=warnings + notes + fit_notes,
            files=described,
            vendor={} if header is None else {"xml": header.text},
        )
        return RecordSource(
            identity=identity(self.name, described, self.scan_shape),
            scan_shape=scan_shape,
            frame_shape=FRAME_SHAPE,
            metadata=metadata if header is None else _with_header(metadata, header, scan_shape),
            validity=validity,
            files=(str(raw),),
            counts=(n_frames,),
            offset=0,
            stride=RECORD,
            file_dtype=np.dtype("<f4"),
        )

    def _find_files(self, url: str | list[str]) -> tuple[Place, Place | None]:
        """Name the raw file, and the XML file where there is one."""
        paths = expand(url)
        if len(paths) != 1 or paths[0].is_dir():
            msg = f"{[str(path) for path in paths]} is no single file; give the XML file or the raw file of one scan"
            raise InputError(msg, found=len(paths), expected=1)
        (path,) = paths
        if path.suffix.lower() != ".xml":
            return path, find_xml(path)
        stated = read_xml(path).raw_file
        if self.raw_file is not None:
            return expand(self.raw_file)[0], path
        raw = path.with_name(stated) if stated else None
        if raw is None or not exists(raw):
            msg = (
                f"XML file {str(path)!r} names {stated!r}, which is not beside it; pass raw_file='…' if it was renamed"
            )
            raise NotFoundError(msg, url=str(path), expected=stated)
        return raw, path

    def _scan_shape(
        self, raw: Place, header: EmpadXml | None, n_frames: int
    ) -> tuple[tuple[int, ...] | None, list[str]]:
        """Take the first stated shape that has exactly as many positions as there are frames."""
        if self.scan_shape is not None:
            return self.scan_shape, []
        stated = {} if header is None else dict(header.shapes)
        named = shape_in_name(str(raw))
        if named is not None:
            first = {key: stated.pop(key) for key in ("pix_x and pix_y",) if key in stated}
            stated = {**first, "the file name": named, **stated}
        if header is not None and header.is_series:
            return None, []
        fitting = [key for key, shape in stated.items() if math.prod(shape) == n_frames]
        chosen = stated[fitting[0]] if fitting else None
        others = [
            f"{key} {shape[0]}x{shape[1]}"
            for key, shape in stated.items()
            if shape != chosen and (not fitting or key != "scan_parameters search")
        ]
        if not others:
            return chosen, []
        used = "no scan shape is assumed" if chosen is None else f"{chosen[0]}x{chosen[1]} of {fitting[0]} is used"
        return chosen, [f"{raw.name!r} holds {n_frames} frames, which contradicts {', '.join(others)}; {used}"]


def shape_in_name(url: str) -> tuple[int, int] | None:
    """Read ``(rows, columns)`` of the scan from a name such as ``scan_x128_y64.raw``; None for other names."""
    found = NAMED_SHAPE.search(url)
    if found is None:
        return None
    columns, rows = int(found.group(1)), int(found.group(2))
    return (rows, columns) if rows and columns else None


def find_xml(raw: Place) -> Place | None:
    """Find the XML file beside a raw file that names it; None where none does."""
    beside = [path for path in list_folder(raw.parent) if path.suffix.lower() == ".xml"]
    for path in beside[:MAX_XML_FILES]:
        if path.is_file() and file_size(path) <= MAX_XML_BYTES and raw_name(path) == raw.name:
            return path
    return None


def _with_header(metadata: SourceMetadata, header: EmpadXml, scan_shape: tuple[int, ...]) -> SourceMetadata:
    changes, axes, notes = header.described(scan_shape)
    return metadata.model_copy(
        update={
            "acquisition": metadata.acquisition.model_copy(update=changes),
            "detector": metadata.detector.model_copy(update={"name": "EMPAD"}),
            "axes": axes,
            "warnings": metadata.warnings + notes,
        }
    )
