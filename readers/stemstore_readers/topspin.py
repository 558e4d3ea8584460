"""NanoMEGAS TopSpin: one HDF5 file (``.app5``) in which every frame is a dataset of its own.

==============================  =====================================================================================
object                          meaning
==============================  =====================================================================================
``Metadata``                    XML text of the experiment
``<identifier>``, a group       series of frames; its members are called ``0``, ``1`` …
… ``7/Data``                    frame 7, float32, contiguous
… ``7/Metadata``                XML text: calibration of the detector in rad, beam position in m
``<identifier>``, a dataset     image, such as the virtual one that was shown during the scan
==============================  =====================================================================================

A file of several experiments has a group for each, with the same members. Identifiers are GUIDs. The text of a frame
says that it is UTF-16 and is not. Source: hyperspy/rosettasciio (``rsciio/topspin``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, UnknownFormatError
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.files import identity
from stemstore.sources.frame_extents import NOWHERE, FrameExtents, not_as_they_are
from stemstore.sources.geometry import check_missing, check_range, shape_option
from stemstore.sources.hdf5 import ask_hdf5, open_hdf5, text, value_of
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks
from stemstore_readers.stored_arrays import Findings, one_file
from stemstore_readers.topspin_series import ABSENT, ENCODED, NUMBER, Series, read_series
from stemstore_readers.topspin_xml import detector_axes, find_raster, optics_of, parse_xml, planned_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_readers.stated_axes import StatedAxis
    from stemstore_schemas import SourceMetadata

LISTED_POSITIONS = 4096
"""Beam positions that are listed where they form no raster."""

_IDENTIFIER = re.compile(r"\w{8}-\w{4}-\w{4}-\w{4}-\w{12}")


class Topspin:
    """Reader of the scans of NanoMEGAS TopSpin.

    Parameters
    ----------
    dataset
        Identifier of the series, or its path, in a file with several; the longest one by default.
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of the raster of the beam positions.
    """

    name: ClassVar[str] = "topspin"
    description: ClassVar[str] = "NanoMEGAS TopSpin scans (HDF5, one dataset per frame)"
    extensions: ClassVar[tuple[str, ...]] = (".app5",)

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for members of the root that are called by identifiers."""
        return ask_hdf5(url, first_bytes, lambda file: 1.0 if any(map(_IDENTIFIER.fullmatch, file)) else 0.0)

    def __call__(self, url: str | list[str]) -> TopspinSource:
        """Open the file: the texts and places of all frames, no pixel.

        Raises
        ------
        InputError
            Several files were given, or there is no such series.
        UnknownFormatError
            The file is no HDF5 file or holds no series of frames.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "TopSpin")
        notes: list[str] = []
        with open_hdf5(path) as file:
            name = _choose(path, _list_series(file), self.dataset, notes)
            series = read_series(path, file, name)
            around, _, own = name.rpartition("/")
            said = value_of(file[around or "/"], "Metadata")
        experiment = "" if said is None else text(said)
        found = self._findings(series, experiment, own, notes)
        metadata, _ = found.describe([path], self.scan_shape)
        scan = metadata.acquisition.scan_shape or (found.shape[0] if self.scan_shape is None else self.scan_shape[0],)
        return TopspinSource(
            identity=identity(self.name, metadata.files, (name, scan)),
            scan_shape=scan,
            frame_shape=series.frame_shape,
            metadata=metadata,
            validity=_validity(scan, series.offsets),
            path=str(path),
            series=series,
        )

    def _findings(self, series: Series, experiment: str, own: str, notes: list[str]) -> Findings:
        document = parse_xml(experiment)
        if document is None:
            notes.append("the text of the experiment is missing or no XML; optics and time are unknown")
        n_slots, n_frames = len(series.offsets), int((series.offsets != ABSENT).sum())
        planned = planned_frames(document, own)
        if n_frames < max(n_slots, planned or 0):
            notes.append(f"{n_frames} frames were found, {max(n_slots, planned or 0)} were planned")
        vendor: dict[str, Any] = {"experiment": experiment, "first_frame": series.first_text}
        scan: tuple[int, ...] = (n_slots,)
        stated: list[StatedAxis | None] = [None]
        raster = find_raster(series.positions) if self.scan_shape is None else None
        if raster is not None:
            check_missing(raster.shape, n_slots)
            scan, stated = raster.shape, raster.axes(notes)
            if math.prod(scan) > n_slots:
                notes.append(f"the last row of the scan {scan} ends early; what it lacks is marked missing")
        elif self.scan_shape is None:
            notes.append("the beam positions form no raster; the frames stay a flat stack, pass scan_shape=(…)")
            vendor["beam_positions_nm"] = _listed(series.positions)
        return Findings(
            shape=(*scan, *series.frame_shape),
            stated=[*stated, *detector_axes(parse_xml(series.first_text))],
            optics=optics_of(document, notes),
            vendor=vendor,
            notes=notes,
        )


def _list_series(file: Any) -> dict[str, int]:
    """Find the series of a file, in the root or in one of its experiments, and how many members each has."""
    found: dict[str, int] = {}
    for place in ("", *(f"/{name}" for name in file if _IDENTIFIER.fullmatch(name))):
        parent = file[place or "/"]
        for name in parent if hasattr(parent, "keys") else ():
            group: Any = parent[name] if _IDENTIFIER.fullmatch(name) else None
            if hasattr(group, "keys") and any(map(NUMBER.fullmatch, group)):
                found[f"{place}/{name}"] = len(group)
    return found


def _choose(path: Place, series: dict[str, int], wanted: str | None, notes: list[str]) -> str:
    if not series:
        msg = f"file {str(path)!r} holds no series of frames; it is no scan of TopSpin"
        raise UnknownFormatError(msg, url=str(path))
    listed = ", ".join(f"{name} ({n} frames)" for name, n in series.items())
    if wanted is not None:
        fits = [name for name in series if wanted.strip("/") in (name.strip("/"), name.rpartition("/")[2])]
        if len(fits) != 1:
            msg = f"option dataset={wanted!r} names no series of {str(path)!r}, which holds {listed}; name one of them"
            raise InputError(msg, key="dataset", found=wanted, expected=list(series))
        return fits[0]
    best = max(series, key=lambda name: series[name])
    if len(series) > 1:
        notes.append(f"{best} is read; dataset=… chooses among {listed}")
    return best


def _validity(scan: tuple[int, ...], offsets: Int64Array) -> ValidityArray | None:
    validity = np.full(math.prod(scan), MISSING, np.uint8)
    found = offsets[: len(validity)] != ABSENT
    validity[: len(found)][found] = VALID
    return None if validity.all() else validity


def _listed(positions: np.ndarray[Any, np.dtype[np.complex128]]) -> list[list[float]] | str:
    if len(positions) > LISTED_POSITIONS:
        return f"{len(positions)} positions"
    return [[float(one.imag) * 1e9, float(one.real) * 1e9] for one in positions]


@dataclass(frozen=True, eq=False)
class TopspinSource:
    """Frames of a series, each at a place of its own in the file; opened for every read and closed again."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    path: str
    series: Series

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.series.dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

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
        TruncatedFileError, CorruptDataError, StorageError
            The file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        places = np.full(stop - start, ABSENT, np.int64)
        known = self.series.offsets[start:stop]
        places[: len(known)] = known
        frames[places == ABSENT] = np.nan if self.dtype.kind == "f" else 0
        plain = np.flatnonzero(places >= 0)
        size = math.prod(self.frame_shape) * self.dtype.itemsize
        read_blocks(self.path, places[plain], size, as_bytes(frames), plain * size)
        if not self.series.dtype.isnative:
            frames[plain] = frames[plain].byteswap()
        encoded = np.flatnonzero(places == ENCODED).tolist()
        if encoded:
            with open_hdf5(self.path) as file:
                for place in encoded:
                    file[f"{self.series.group}/{start + place}/Data"].read_direct(frames[place])
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the file.

        Raises
        ------
        IndexError
            The range leaves the scan.
        InputError
            Frames are compressed.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        known = self.series.offsets[start:stop]
        if (known == ENCODED).any():
            raise not_as_they_are([self.path], "are compressed")
        offset = np.full((stop - start, 1), NOWHERE, np.int64)
        offset[: len(known), 0] = np.where(known == ABSENT, NOWHERE, known)
        return FrameExtents((self.path,), np.zeros_like(offset), offset, self.frame_shape, self.series.dtype)
