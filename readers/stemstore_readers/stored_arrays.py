"""Labelled arrays in a file: which of them is the scan, and the source that is made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.files import describe, expand, identity
from stemstore.sources.geometry import factor_pairs, fit_scan
from stemstore.sources.hdf5 import quote
from stemstore.sources.hdf5_frames import Hdf5Source, join_parts
from stemstore.sources.remote import place
from stemstore_readers.stated_axes import SCAN_NAMES, StatedAxis, bring_axes
from stemstore_schemas import Acquisition, Detector, SourceMetadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.hdf5 import Listed
    from stemstore.sources.hdf5_frames import Part
    from stemstore.sources.remote import Place

MIN_AXES = 3
"""A stack of frames has one scan axis at least."""

MAX_AXES = max(SCAN_NAMES) + 2

SHOWN = 12
"""Arrays listed in a message."""

MAX_PIXELS = 2**28
"""Pixels of the largest frame that is believed: 16384 by 16384, beyond every detector."""

MAX_FRAMES = 2**32
"""Frames of the largest scan that is believed: 65536 by 65536 positions."""


@dataclass(slots=True)
class Findings:
    """What a reader learned about the scan in a file.

    Attributes
    ----------
    shape
        Of the array: scan axes, then detector rows and columns.
    stated
        What the header states of each of these axes.
    optics
        Fields of the acquisition; None for what is unknown.
    detector
        Fields of the detector besides its shape.
    vendor
        The original header.
    notes
        What was odd.
    scan
        Scan shape that the header states for a flat stack.
    """

    shape: tuple[int, ...]
    stated: Sequence[StatedAxis | None]
    optics: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)
    vendor: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scan: tuple[int, ...] | None = None

    def describe(
        self, files: Sequence[Place], scan_shape: tuple[int, ...] | None
    ) -> tuple[SourceMetadata, ValidityArray | None]:
        """Describe the scan in the layout of the file, or in the one that the user states."""
        own = self.shape[:-2]
        scan, validity, warnings = fit_scan(scan_shape or self.scan or own, math.prod(own))
        self.notes.extend(warnings)
        stated = self.stated if scan == own else [*[None] * len(scan), *self.stated[-2:]]
        frame = (self.shape[-2], self.shape[-1])
        axes = bring_axes((*scan, *frame), stated, self.notes)
        known = {name: value for name, value in self.optics.items() if value is not None}
        if len(scan) == 1:
            acquisition = Acquisition(scan_shape_alternatives=factor_pairs(scan[0]), **known)
        else:
            repeats = math.prod(scan[:-2])
            by = "user" if scan_shape else "header"
            acquisition = Acquisition(scan_shape=scan, scan_shape_source=by, frames_per_position=repeats, **known)
        metadata = SourceMetadata(
            acquisition=acquisition,
            detector=Detector(
                shape=frame, **{name: value for name, value in self.detector.items() if value is not None}
            ),
            axes=axes,
            vendor=self.vendor,
            warnings=list(dict.fromkeys(self.notes)),
            files=describe(files),
        )
        return metadata, validity


def hdf5_source(reader: str, parts: Sequence[Part], found: Findings, scan_shape: tuple[int, ...] | None) -> Hdf5Source:
    """Make the source of a scan that lies in HDF5 datasets, one after the other."""
    starts = join_parts(parts)
    for part in parts:
        found.notes.extend(part.warnings)
    files = dict.fromkeys(file for part in parts for file in part.files)
    metadata, validity = found.describe([place(file) for file in files], scan_shape)
    scan = metadata.acquisition.scan_shape or (found.shape[0],)
    chosen = [(part.dataset, part.scan_axes, part.picked) for part in parts]
    return Hdf5Source(
        identity=identity(reader, metadata.files, (chosen, scan)),
        scan_shape=scan,
        frame_shape=parts[0].frame_shape,
        dtype=parts[0].dtype.newbyteorder("="),
        metadata=metadata,
        validity=validity,
        parts=tuple(parts),
        starts=starts,
    )


def header(file: Any, arrays: Sequence[Listed]) -> dict[str, Any]:
    """Quote everything in an HDF5 file that fits metadata but the pixels of `arrays`."""
    pixels = {array.name.strip("/") for array in arrays}
    return {name: value for name, value in quote(file).items() if name not in pixels}


def one_file(url: str | list[str], kind: str) -> Place:
    """Find the one file that is to be opened.

    Raises
    ------
    InputError
        Several were given.
    NotFoundError
        There is none.
    """
    files = expand(url)
    if len(files) != 1:
        msg = f"{len(files)} files were given, expected one {kind} file; open them one at a time"
        raise InputError(msg, found=len(files), expected=1)
    return files[0]


def choose_array(file: Place, arrays: Sequence[Listed], wanted: str | None, notes: list[str]) -> Listed:
    """Choose the array that is the scan: the one that is named, else the largest of those with most axes.

    Parameters
    ----------
    file
        For messages.
    arrays
        What the file holds.
    wanted
        Path of the array, or of the group around it; None to choose.
    notes
        Receives the other scans of the file.

    Raises
    ------
    InputError
        There is no such array, or none that is a stack of frames.
    CorruptDataError
        It is larger than any scan.
    """
    stacks = [one for one in arrays if _is_stack(one)]
    if wanted is not None:
        key = wanted.strip("/")
        named = [one for one in arrays if key in (one.name.strip("/"), one.name.strip("/").rpartition("/")[0])]
        if not named:
            msg = f"option dataset={wanted!r} names no array of {str(file)!r}, which holds {listed(arrays)}; name one"
            raise InputError(msg, key="dataset", found=wanted, expected=[one.name for one in arrays])
        stacks = [one for one in named if one in stacks]
    if not stacks:
        msg = f"file {str(file)!r} holds no stack of frames but {listed(arrays)}; open it with a program for images"
        raise InputError(msg, url=str(file), found=[one.name for one in arrays])
    best = max(stacks, key=lambda one: (min(len(one.shape), 4), one.nbytes))
    if math.prod(best.shape[-2:]) > MAX_PIXELS or math.prod(best.shape[:-2]) > MAX_FRAMES:
        msg = (
            f"array {show(best)} in {str(file)!r} has more than {MAX_FRAMES} frames or {MAX_PIXELS} pixels in a frame; "
            "the file is damaged"
        )
        raise CorruptDataError(msg, url=str(file), key=best.name, found=best.shape)
    others = [one for one in stacks if one is not best]
    if others:
        notes.append(f"{best.name} is read; dataset=… chooses among the others: {listed(others)}")
    return best


def show(array: Listed) -> str:
    """Name an array with its type and shape."""
    return f"{array.name} ({array.dtype}, {' x '.join(map(str, array.shape))})"


def listed(arrays: Sequence[Listed]) -> str:
    """List arrays for a message."""
    more = f" and {len(arrays) - SHOWN} more" if len(arrays) > SHOWN else ""
    return (", ".join(map(show, arrays[:SHOWN])) or "nothing that could be one") + more


def _is_stack(array: Listed) -> bool:
    return MIN_AXES <= len(array.shape) <= MAX_AXES and array.nbytes > 0 and array.dtype.kind in "uif"
