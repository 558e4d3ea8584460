"""Dectris ARINA, ELA, QUADRO and EIGER: a master file and the data files that it links to (filewriter 1, HDF5).

========================================  ==============================================================
object                                    meaning
========================================  ==============================================================
``X_master.h5``                           header; ``/entry/data/data_000001`` … are external links
``X_data_000001.h5``: ``/entry/data/data``  frames, shape (n, rows, columns), uint8, uint16 or uint32
… ``@image_nr_low``, ``@image_nr_high``   running number of its first and last frame, from 1
``X.h5``: ``/STEM Metadata``              scan size and optics, written by the microscope; optional
========================================  ==============================================================

Each frame is one chunk, compressed by bitshuffle and LZ4 (filter 32008). Sources: hyperspy/rosettasciio
(``rsciio/arina``), ercius/openNCEM (``ncempy/io/dectris.py``), NeXus application definition NXmx.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError, UnknownFormatError
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.files import describe, expand, identity, natural_key
from stemstore.sources.geometry import check_missing, decide_flyback, factor_pairs, shape_option
from stemstore.sources.hdf5 import ask_hdf5, attribute, find, open_hdf5
from stemstore.sources.hdf5_frames import Hdf5Source, Part, join_parts
from stemstore.sources.references import KnownImage
from stemstore.sources.remote import place
from stemstore_readers.dectris_metadata import Header, read_master, read_sidecar, whole
from stemstore_schemas import Acquisition, Detector, SourceMetadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import ValueSource

DATA = "entry/data"
ALONE = "data"
"""Name of the frames in a data file that is opened without its master."""

_LINK = re.compile(r"data_\d+")
_MASTER = re.compile(r"_master(\.[^.]+)$")


@dataclass(frozen=True, slots=True)
class Piece:
    """One data file: its frames, and the running numbers of the first and the last; 0 where it does not state them."""

    part: Part
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the frames of all data files belong.

    Attributes
    ----------
    parts, starts
        As in `Hdf5Source`.
    n_frames
        Frames up to the last one of the last file, missing files included.
    """

    parts: tuple[Part, ...]
    starts: tuple[int, ...]
    n_frames: int


class Dectris:
    """Reader of Dectris scans; give the master file, or one data file.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of what the microscope wrote.
    flyback_columns
        Columns at the end of each row taken during the flight back.
    """

    name: ClassVar[str] = "dectris"
    description: ClassVar[str] = "Dectris ARINA, ELA, QUADRO, EIGER: master file and data files (HDF5)"
    extensions: ClassVar[tuple[str, ...]] = (".h5",)

    def __init__(self, *, scan_shape: Sequence[int] | None = None, flyback_columns: int | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.flyback_columns = flyback_columns

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for links called ``data_000001`` in ``/entry/data``, or for the frame numbers of a data file."""
        return ask_hdf5(url, first_bytes, _is_dectris)

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the files: headers, no frame.

        Raises
        ------
        InputError
            Several files were given, or an option does not fit them.
        UnknownFormatError
            The file is no Dectris file.
        NotFoundError
            Data files are missing, and nothing tells where their frames belong.
        CorruptDataError, TruncatedFileError
            A file is damaged, or the data files do not belong together.
        OptionalDependencyError
            The frames are packed by a filter that is neither decoded here nor installed.
        """
        paths = expand(url)
        if len(paths) != 1:
            msg = f"{len(paths)} files were given, expected one master file; it links to all data files"
            raise InputError(msg, found=len(paths), expected=1)
        (path,) = paths
        with open_hdf5(path) as file:
            pieces, lost = _find_pieces(path, file)
            header = read_master(file, pieces[0].part.frame_shape)
        if _MASTER.search(path.name):
            read_sidecar(path.with_name(_MASTER.sub(r"\1", path.name)), header)
        placed = _place(pieces, lost, header)
        scan_shape, validity, changes = self._lay_out(placed, header)
        frame_shape = placed.parts[0].frame_shape
        described = describe([place(name) for name in _files(path, header, placed)])
        metadata = SourceMetadata(
            acquisition=Acquisition(**header.optics, **changes),
            detector=Detector(shape=frame_shape, **header.detector),
            axes=header.axes(scan_shape),
            vendor=header.vendor,
            warnings=header.notes,
            files=described,
        )
        return Hdf5Source(
            identity=identity(self.name, described, (self.scan_shape, placed.starts)),
            scan_shape=scan_shape,
            frame_shape=frame_shape,
            dtype=placed.parts[0].dtype.newbyteorder("="),
            metadata=metadata,
            validity=validity,
            parts=placed.parts,
            starts=placed.starts,
            references={} if header.mask is None else {"mask": KnownImage(header.mask)},
        )

    def _lay_out(self, placed: Placed, header: Header) -> tuple[tuple[int, ...], ValidityArray | None, dict[str, Any]]:
        """Fit the scan shape to the frames: shape, validity, and fields of the acquisition."""
        planned = header.n_images * header.n_triggers
        shape, flyback, source = self._scan_shape(placed.n_frames, planned, header)
        scan = shape or (placed.n_frames,)
        check_missing(scan, placed.n_frames)
        if math.prod(scan) != placed.n_frames or (not shape and planned > placed.n_frames):
            stated = f"the scan {scan} has {math.prod(scan)} positions" if shape else f"{planned} were planned"
            rest = "ignored" if math.prod(scan) < placed.n_frames else "marked missing"
            what = f"the last ones are {rest}" if shape else "the scan was interrupted"
            header.notes.append(f"{placed.n_frames} frames were found, {stated}; {what}")
        validity = np.full(math.prod(scan), MISSING, dtype=np.uint8)
        for part, start in zip(placed.parts, placed.starts, strict=True):
            validity[start : start + part.n_frames] = VALID
        changes: dict[str, Any] = {"scan_shape_alternatives": [] if shape else _alternatives(placed.n_frames, header)}
        if len(scan) > 1:
            changes.update(scan_shape=scan, scan_shape_source=source, frames_per_position=math.prod(scan[:-2]))
        flyback, _ = decide_flyback(self.flyback_columns if self.flyback_columns is not None else flyback, 0, scan[-1])
        changes["flyback_columns"] = flyback if len(scan) > 1 else 0
        return scan, None if validity.all() else validity, changes

    def _scan_shape(
        self, n_frames: int, planned: int, header: Header
    ) -> tuple[tuple[int, ...] | None, int, ValueSource]:
        """Choose the scan shape: shape or None, flyback columns, where it comes from."""
        if self.scan_shape is not None:
            return self.scan_shape, 0, "user"
        if header.scan is None:
            return None, 0, "header"
        rows, columns, before = header.scan
        for total in (n_frames, planned):  # fewer frames than planned: the scan was interrupted
            if rows * columns == total >= n_frames:
                return (rows, columns), 0, "header"
            if before and rows * (columns + before) == total >= n_frames:
                header.notes.append(
                    f"rows of {columns + before} frames fit, {before} more than the scan has columns; the last ones "
                    "of each row are guessed to be flyback, pass scan_shape=… and flyback_columns=… to settle it"
                )
                return (rows, columns + before), before, "guessed"
        header.notes.append(
            f"the microscope states a scan of {rows} rows and {columns} columns, which does not fit {n_frames} frames; "
            "pass scan_shape=(…) to settle it"
        )
        return None, 0, "header"


def _is_dectris(file: Any) -> float:
    group = file.get(DATA)
    name = next(iter(group), "") if group is not None else ""
    if _LINK.fullmatch(name):
        return 1.0
    return 0.9 if name == ALONE and "image_nr_low" in group[ALONE].attrs else 0.0


def _find_pieces(path: Place, file: Any) -> tuple[list[Piece], list[NotFoundError]]:
    """Look at all data files in the order of their numbers; and tell which are missing."""
    group = file.get(DATA)
    names = [name for name in group if _LINK.fullmatch(name)] if hasattr(group, "keys") else []
    names = sorted(names, key=lambda name: natural_key(place(name))) or ([ALONE] if group and ALONE in group else [])
    if not names:
        msg = f"file {str(path)!r} has no {DATA}/data_000001 or {DATA}/{ALONE}; it is no file of a Dectris detector"
        raise UnknownFormatError(msg, url=str(path), key=DATA)
    pieces: list[Piece] = []
    lost: list[NotFoundError] = []
    for name in names:
        try:
            frames = find(file, f"{DATA}/{name}")
        except NotFoundError as error:
            lost.append(error)
            continue
        part = Part.of(frames)
        low, high = (whole(attribute(frames, f"image_nr_{end}")) for end in ("low", "high"))
        pieces.append(Piece(part, low, high) if high - low + 1 == part.n_frames else Piece(part, 0, 0))
    if not pieces:
        raise lost[0]
    return pieces, lost


def _place(pieces: list[Piece], lost: list[NotFoundError], header: Header) -> Placed:
    """Lay the data files out; a missing one leaves a gap where the frame numbers of the others tell how long it is."""
    parts = tuple(piece.part for piece in pieces)
    starts = join_parts(parts)
    n_frames = sum(part.n_frames for part in parts)
    for part in parts:
        header.notes.extend(part.warnings)
    if not lost:
        return Placed(parts, starts, n_frames)
    ends = [0, *(piece.high for piece in pieces)]
    if any(piece.low <= end for piece, end in zip(pieces, ends[:-1], strict=True)):  # unknown, or out of order
        raise lost[0]
    starts = tuple(piece.low - 1 for piece in pieces)
    last = starts[-1] + parts[-1].n_frames
    check_missing((last,), n_frames)
    for error in lost:
        header.notes.append(f"{error}; its frames are marked missing")
    return Placed(parts, starts, last)


def _alternatives(n_frames: int, header: Header) -> list[tuple[int, ...]]:
    """Scan shapes that fit; one trigger per row first, where the detector was triggered so."""
    pairs = factor_pairs(n_frames)
    row = (header.n_triggers, header.n_images)
    if min(row) > 1 and math.prod(row) == n_frames:
        return [row, *(pair for pair in pairs if pair != row)]
    return pairs


def _files(path: Place, header: Header, placed: Placed) -> list[str]:
    data = [file for part in placed.parts for file in part.files]
    return list(dict.fromkeys([str(path), *map(str, header.files), *data]))
