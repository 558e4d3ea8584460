"""HDF5 files of the fpd library: frames of a Merlin detector, with the header of each frame beside them.

===============================  ====================================================================================
object                           meaning
===============================  ====================================================================================
``fpd_expt/fpd_data/data``       frames, shape (scan y, scan x, colour, detector y, detector x), mostly ``>u2``
``fpd_expt/<name>/dim1`` …       coordinates of the axes, from the first; a text for a scan axis that has no step
``fpd_expt/Exposure/data``       ns per position
``fpd_expt/Threshold/data``      eight thresholds per position, keV; zero where unused
``fpd_expt/Unixtime/data``       ns per position, of the clock of the acquisition computer, zone unknown
``fpd_expt/binary_hdr/data``     header of each frame as the detector wrote it
===============================  ====================================================================================

A colour is one of the counters of a pixel in colour mode; it is one long otherwise. Sources: documentation of the fpd
library (fpdpy/fpd on GitLab); EMD 0.2 specification (emdatasets.com); pyxem/pyxem for a file.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, UnknownFormatError
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import Listed, ask_hdf5, dtype_of, number, open_hdf5, text
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore_readers.emd_ncem import labelled_axis
from stemstore_readers.header_values import quantity
from stemstore_readers.merlin_mib_header import header_length, parse_header
from stemstore_readers.stored_arrays import Findings, choose_array, hdf5_source, header, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place
    from stemstore_readers.stated_axes import StatedAxis

EXPERIMENT = "fpd_expt"
FRAMES = f"{EXPERIMENT}/fpd_data/data"
COLOUR_AXIS, WITH_COLOUR = 2, 5

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fpd:
    """Reader of the HDF5 files of the fpd library.

    Parameters
    ----------
    colour
        Number of the counter to read, of frames in colour mode.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "fpd"
    description: ClassVar[str] = "Merlin frames in HDF5, converted by the fpd library"
    extensions: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")

    def __init__(self, *, colour: int = 0, scan_shape: Sequence[int] | None = None) -> None:
        if isinstance(colour, bool) or not isinstance(colour, int) or colour < 0:
            msg = f"option colour={colour!r} is no number of a counter; expected 0 for the first one"
            raise InputError(msg, key="colour", found=colour)
        self.colour = colour
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the group of the frames."""
        return ask_hdf5(url, first_bytes, lambda file: 1.0 if f"{EXPERIMENT}/fpd_data" in file else 0.0)

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the file: labels and the header of the first frame, no pixel.

        Raises
        ------
        InputError
            Several files were given, or there is no such colour.
        UnknownFormatError
            The file is no HDF5 file or has no frames of the fpd library.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "fpd")
        with open_hdf5(path) as file:
            frames = file.get(FRAMES)
            dtype = None if frames is None else dtype_of(frames)
            if dtype is None:
                msg = f"file {str(path)!r} holds {sorted(file)} and no numbers in {FRAMES}; it is no file of fpd"
                raise UnknownFormatError(msg, url=str(path), key=FRAMES)
            return self._open(path, file, Listed(f"/{FRAMES}", tuple(frames.shape or ()), dtype))

    def _open(self, path: Place, file: Any, listed: Listed) -> Hdf5Source:
        notes: list[str] = []
        shape = choose_array(path, [listed], None, notes).shape
        picked = {COLOUR_AXIS: self.colour} if len(shape) == WITH_COLOUR else {}
        n_colours = shape[COLOUR_AXIS] if picked else 1
        if self.colour >= n_colours:
            msg = f"option colour={self.colour} names no counter of {str(path)!r}, which has {n_colours}; count from 0"
            raise InputError(msg, key="colour", found=self.colour, expected=n_colours)
        if n_colours > 1:
            notes.append(f"colour {self.colour} of {n_colours} is read; colour=… chooses another counter")
        axes = [axis for axis in range(len(shape)) if axis not in picked]
        found = Findings(
            shape=tuple(shape[axis] for axis in axes),
            stated=_steps(file, shape, axes, notes),
            vendor=header(file, [listed]),
            notes=notes,
        )
        self._describe(file, found)
        return hdf5_source(self.name, [Part.of(file[FRAMES], picked=picked)], found, self.scan_shape)

    def _describe(self, file: Any, found: Findings) -> None:
        """Add what the arrays beside the frames say of the first one."""
        found.optics["exposure_time"] = quantity(self._first(file, "Exposure"), "s", 1e9)
        limits = self._first(file, "Threshold")
        limits = [] if limits is None else [quantity(one, "keV") for one in np.ravel(limits)[:8]]
        found.detector["thresholds"] = [limit for limit in limits if limit is not None]
        found.optics["start_time"] = _local_time(self._first(file, "Unixtime"))
        stored = self._first(file, "binary_hdr")
        if stored is None:
            return
        said = text(stored)
        found.vendor["mib_header"] = said
        try:
            first = parse_header(padded(said), f"{EXPERIMENT}/binary_hdr")
        except CorruptDataError as error:
            found.notes.append(f"the header of the first frame is kept but not understood: {error}")
            return
        found.detector.update(name="Merlin", counter_depth=first.depth)
        found.optics["start_time"] = first.stamp or found.optics["start_time"]

    def _first(self, file: Any, name: str) -> Any:
        """Value at the first position, of the colour that is read; None where there is none."""
        item = file.get(f"{EXPERIMENT}/{name}/data")
        if item is None or not getattr(item, "size", 0) or item.ndim < COLOUR_AXIS:
            return None
        colour = self.colour if item.ndim > COLOUR_AXIS and item.shape[COLOUR_AXIS] > self.colour else 0
        return item[(0, 0, colour)[: item.ndim]]


def padded(said: str) -> bytes:
    """Give a header the padding back with which the detector wrote it."""
    content = said.encode("latin-1", "replace")
    return content.ljust(header_length(content) or 0, b"\0")


def _steps(file: Any, shape: tuple[int, ...], axes: list[int], notes: list[str]) -> list[StatedAxis | None]:
    """Read what the file states of the axes; units of no meaning (``?/m``) say that nobody calibrated them."""
    group = file[f"{EXPERIMENT}/fpd_data"]
    stated = [labelled_axis(group, axis, shape, notes) for axis in axes]
    return [None if one is None or "?" in one.unit else one for one in stated]


def _local_time(nanoseconds: Any) -> str | None:
    """ISO time, without a zone, of nanoseconds on the clock of the acquisition computer."""
    found = None if nanoseconds is None else number(nanoseconds)
    if found is None or not 0 < found < 2**62:
        return None
    return (_EPOCH + timedelta(microseconds=found / 1000)).replace(tzinfo=None).isoformat()
