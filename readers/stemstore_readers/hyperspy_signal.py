"""Signals of HyperSpy: axes and metadata as its files keep them, in HDF5 and in Zarr alike.

======================  =============================================================================================
place                   content
======================  =============================================================================================
``/``                   attributes ``file_format``, ``file_format_version`` (text, number or bytes)
``/Experiments/<t>``    one signal; the title ``t`` is ``__unnamed__`` where there is none
``data``                the array
``axis-0`` …            one group per axis of the array: ``name``, ``size``, ``scale``, ``offset``, ``units``,
                        ``navigate`` (true for scan axes), ``_type``; ``axis`` holds uneven coordinates
``metadata``            a tree of groups, the leaves are attributes; ``original_metadata`` likewise
======================  =============================================================================================

Sources: hyperspy/rosettasciio (``rsciio/_hierarchical.py``) for what is written; the HyperSpy user guide, chapters on
axes and on the structure of metadata.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import FormatVersionError, InputError, UnknownFormatError
from stemstore.sources.hdf5 import number, text
from stemstore_readers.header_values import mapped_fields, words
from stemstore_readers.stated_axes import StatedAxis
from stemstore_readers.stored_arrays import Findings, choose_array, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stemstore.sources.hdf5 import Listed
    from stemstore.sources.remote import Place

NEWEST = 3
"""Major version of the layout that is known; 3.3 is the latest of it."""

DETECTOR_AXES = 2
NOTHING = ("_None_", "<undefined>", "None", "t.Undefined")
"""How names and units say that there is none."""

TIME = re.compile(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of a file: its array and the attributes of its axes in the order of the array."""

    array: Listed
    axes: tuple[Mapping[str, Any], ...]

    def order(self) -> tuple[int, ...] | None:
        """Order of the axes with the scan first; None unless two of them are the detector's and the others the scan's.

        Files without the attribute ``navigate`` have the detector last.
        """
        ndim = len(self.array.shape)
        if self.array.dtype.kind not in "uif" or len(self.axes) != ndim:
            return None
        if not any("navigate" in axis for axis in self.axes):
            return tuple(range(ndim)) if ndim > DETECTOR_AXES else None
        scan = [index for index, axis in enumerate(self.axes) if _is_true(axis.get("navigate"))]
        rest = [index for index in range(ndim) if index not in scan]
        return (*scan, *rest) if len(rest) == DETECTOR_AXES and scan else None

    def __str__(self) -> str:
        scan = sum(_is_true(axis.get("navigate")) for axis in self.axes)
        kind = "a ragged array" if self.array.dtype.kind == "O" else f"{len(self.axes) - scan} signal axes"
        return f"{show(self.array)} with {kind}"


def _is_true(value: Any) -> bool:
    return text(value).lower() in ("true", "1") if isinstance(value, str | bytes) else bool(value)


def check_version(path: Place, attributes: Mapping[str, Any], kind: str) -> None:
    """Refuse files of other programs and of newer versions.

    Raises
    ------
    UnknownFormatError
        The root does not say that it is of HyperSpy.
    FormatVersionError
        The version is newer than what is known here.
    """
    if words(attributes.get("file_format")) != kind:
        found = attributes.get("file_format")
        msg = f"{str(path)!r} has file_format {found!r}, expected {kind!r}; it was not written by HyperSpy"
        raise UnknownFormatError(msg, url=str(path), found=found, expected=kind)
    version = number(attributes.get("file_format_version"))
    if version is not None and version >= NEWEST + 1:
        msg = f"{str(path)!r} has file_format_version {version:g}, known are those up to {NEWEST}; update stemstore"
        raise FormatVersionError(msg, url=str(path), found=version, expected=NEWEST)


def choose_signal(path: Place, signals: Sequence[Signal], wanted: str | None, notes: list[str]) -> Signal:
    """Choose the signal that is the scan: the one that is named, else the largest with two detector axes.

    Raises
    ------
    InputError
        There is none; the message names those there are.
    """
    usable = [one.array for one in signals if one.order() is not None]
    arrays = [one.array for one in signals] if wanted else usable
    if not usable:
        held = ", ".join(map(str, signals[:12])) or "no signal"
        msg = f"{str(path)!r} holds {held}, expected scan axes and two detector axes; open it with HyperSpy"
        raise InputError(msg, url=str(path), found=[one.array.name for one in signals])
    chosen = choose_array(path, arrays, wanted, notes)
    signal = next(one for one in signals if one.array is chosen)
    if signal.order() is None:
        msg = f"{signal} in {str(path)!r} is no scan of frames, which has scan axes and two detector axes; name another"
        raise InputError(msg, url=str(path), key="dataset", found=wanted)
    return signal


def describe_signal(
    signal: Signal, look: Callable[[str], Any], vendor: dict[str, Any], notes: list[str]
) -> tuple[Findings, tuple[int, ...]]:
    """Describe the scan in a signal.

    Parameters
    ----------
    signal
        As `choose_signal` gave it.
    look
        Gives what lies in the signal's metadata under dotted names; None where there is nothing.
    vendor
        The original header.
    notes
        Receives what was odd.

    Returns
    -------
    findings, order
        `order` brings the scan axes of the array to the front.
    """
    order = signal.order() or tuple(range(len(signal.axes)))
    stated = [_axis(signal.axes[index], index, signal.array.shape[index], notes) for index in order]
    if order != tuple(sorted(order)):
        notes.append(f"axes of {signal.array.name} are read in the order {order}, scan axes first")
    optics = mapped_fields("hyperspy", look)
    optics |= {"start_time": _start(look), "operator": words(look("General.authors"))}
    detector = {"name": words(look("Acquisition_instrument.TEM.Detector.Camera.name"))}
    shape = tuple(signal.array.shape[index] for index in order)
    return Findings(shape, stated, optics, detector, vendor, notes), order


def _axis(said: Mapping[str, Any], index: int, size: int, notes: list[str]) -> StatedAxis | None:
    label, unit = (words(said.get(name)) for name in ("name", "units"))
    label = f"axis-{index}" if label is None or label in NOTHING else label
    unit = "" if unit is None or unit in NOTHING else unit
    stored = number(said.get("size"))
    if stored is not None and stored != size:
        notes.append(f"axis {label!r} says it has {stored:g} indices, the array has {size}; its steps are left out")
        return None
    if said.get("axis") is not None:
        points = [number(value) for value in np.ravel(np.asarray(said["axis"], dtype=object))]
        values = np.array([math.nan if point is None else point for point in points])
        return StatedAxis.of_values(label, values, size, unit, notes)
    step, origin = number(said.get("scale")), number(said.get("offset"))
    if step is None:
        notes.append(
            f"axis {label!r} ({words(said.get('_type')) or 'of unknown type'}) has no scale; it counts indices"
        )
        return None
    return StatedAxis(label, step, origin or 0.0, unit)


def _start(look: Callable[[str], Any]) -> str | None:
    """ISO 8601 of General.date and General.time; the zone is kept where it is UTC or an offset."""
    date, time = words(look("General.date")), words(look("General.time"))
    zone = words(look("General.time_zone")) or ""
    if date is None or time is None:
        return None
    for suffix in ("+00:00" if zone in ("UTC", "GMT", "Z") else zone, ""):
        said = f"{date}T{time}{suffix}"
        try:
            datetime.fromisoformat(said)
        except ValueError:
            continue
        return said if TIME.match(said) else None
    return None
