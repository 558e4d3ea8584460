"""Labels of NeXus data: names and coordinates of axes, and what the entry says about the experiment."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.hdf5 import DAMAGE, attribute, dtype_of, number, text, value_of
from stemstore_readers.header_values import words
from stemstore_readers.stated_axes import StatedAxis
from stemstore_schemas import Quantity, UnitError, convert_value, foreign_fields, parse_scaled_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import BoolArray
    from stemstore_readers.stored_arrays import Findings
    from stemstore_schemas import Unit

MAX_COORDINATES = 2**20
"""Coordinates of one axis that are looked at."""

IMAGE = 2
"""Axes of a detector frame."""

_SEPARATORS = re.compile(r"[:,\s]+")

_UNITS: dict[str, Unit] = {"beam_energy": "keV", "semi_convergence_angle": "mrad", "camera_length": "mm"}
"""Quantities of the acquisition that NeXus has a place for."""

_FURTHER = {"operator": "user/name", "sample": "sample/name"}
"""Texts besides those of `foreign_fields`, and their places below the entry."""


def axis_names(group: Any, dataset: Any) -> list[str | None]:
    """Name of each axis of a dataset; None for an axis without a name."""
    found: list[str | None] = [None] * dataset.ndim
    stated = None if group is None else attribute(group, "axes")
    stated = attribute(dataset, "axes") if stated is None else stated
    if stated is None:
        return found
    names = [text(one) for one in np.asarray(stated, object).reshape(-1)]
    if len(names) == 1:  # one text for all axes
        names = _SEPARATORS.split(names[0].strip("[] "))
    for place, name in enumerate(names):
        index = None if group is None or not name else number_of_axis(attribute(group, f"{name}_indices"))
        axis = place if index is None else index
        if name not in ("", ".") and axis < len(found) and found[axis] is None:
            found[axis] = name
    return found


def number_of_axis(stated: Any) -> int | None:
    """Read the number of an axis: a number, or the first of several."""
    values = np.asarray(stated).reshape(-1) if stated is not None else np.empty(0)
    first = number(values[0]) if len(values) else None
    return int(first) if first is not None and 0 <= first == int(first) else None


def stated_axes(
    group: Any, shape: tuple[int, ...], names: Sequence[str | None], notes: list[str]
) -> list[StatedAxis | None]:
    """Read the coordinates of the axes of an array; None for an axis that has none, or none that can be used."""
    found: list[StatedAxis | None] = []
    for size, name in zip(shape, names, strict=True):
        item = None if group is None or name is None else group.get(name)
        found.append(None if item is None else _coordinates(str(name), item, size, notes))
    return found


def _coordinates(name: str, item: Any, size: int, notes: list[str]) -> StatedAxis | None:
    dtype = dtype_of(item) if getattr(item, "shape", None) is not None else None
    if dtype is None or dtype.kind not in "uif" or item.ndim != 1 or item.size > MAX_COORDINATES:
        notes.append(f"{name!r} is no row of coordinates; the axis counts indices")
        return None
    values = item[()].astype(np.float64)
    factor, offset = number(attribute(item, "scaling_factor")), number(attribute(item, "offset"))
    values = values * (1.0 if factor is None else factor) + (offset or 0.0)
    if len(values) == size + 1:  # edges of the pixels
        values = (values[1:] + values[:-1]) / 2
    if len(values) != size:
        notes.append(f"axis {name!r} has {size} indices but {len(values)} coordinates; the coordinates are left out")
        return None
    return StatedAxis.of_values(name, values, size, words(attribute(item, "units")) or "", notes)


def split_axes(
    names: Sequence[str | None], stated: Sequence[StatedAxis | None], *, image: bool, notes: list[str]
) -> tuple[int, ...]:
    """Order the axes: scan first, detector rows and columns last.

    Two axes without a name are the detector; else, unless the last two are stated to be an image, the two whose units
    are those of diffraction; else the last two.
    """
    axes = range(len(names))
    free = [axis for axis in axes if names[axis] is None]
    units = [axis for axis in axes if (one := stated[axis]) is not None and one.kind() == "diffraction"]
    frame = list(axes[-IMAGE:])
    if len(free) == IMAGE:
        frame = free
    elif not image and len(units) == IMAGE:
        frame = units
    order = (*(axis for axis in axes if axis not in frame), *frame)
    if order != tuple(axes):
        notes.append(f"axes {frame} of the array are the detector; the array is read with the scan axes first")
    return order


def describe_entry(file: Any, name: str, found: Findings) -> None:
    """Add what the entries around a dataset say about beam, optics, time and people.

    Parameters
    ----------
    file
        The open file.
    name
        Path of the dataset.
    found
        Receives the fields of the acquisition, and what was odd.
    """
    entries = _entries(file, name)
    for field, foreign in foreign_fields("nexus").items():
        key, item = field.removeprefix("acquisition."), _look(entries, foreign.path)
        if item is None:
            continue
        if key in _UNITS:
            found.optics[key] = _quantity(item, _UNITS[key], found.notes)
        elif key == "start_time":
            found.optics[key] = _time(words(_value(item)), found.notes)
        else:
            found.optics[key] = number(_value(item)) if key == "magnification" else words(_value(item))
    for key, path in _FURTHER.items():
        found.optics[key] = words(_value(_look(entries, path)))
    if found.optics.get("beam_energy") is None and "electron" in text(
        _value(_look(entries, "instrument/source/probe"))
    ):
        found.optics["beam_energy"] = _quantity(_look(entries, "instrument/source/energy"), "keV", found.notes)


def pixel_mask(file: Any, name: str, frame_shape: tuple[int, int], notes: list[str]) -> BoolArray | None:
    """Read the mask of the detector (``NXdetector/pixel_mask``, 0 at usable pixels): true at usable pixels.

    Parameters
    ----------
    file
        The open file.
    name
        Path of the dataset of frames; the mask lies beside it, or in the detector of an entry around it.
    frame_shape
        Rows and columns; a mask of another shape is that of another detector.
    notes
        Receives what is odd.
    """
    beside = file.get(f"{name.rpartition('/')[0]}/pixel_mask")
    for item in (beside, _look(_entries(file, name), "instrument/detectorID/pixel_mask")):
        if getattr(item, "shape", None) != frame_shape or item.dtype.kind not in "uib":
            continue
        try:
            return np.asarray(item[...] == 0)
        except DAMAGE as error:
            notes.append(f"the mask {item.name} cannot be read and is left out: {error}")
    return None


def _entries(file: Any, name: str) -> list[Any]:
    """List the groups of the class ``NXentry`` on the way to an object, the innermost first."""
    found: list[Any] = []
    way = ""
    for step in name.strip("/").split("/")[:-1]:
        way += f"/{step}"
        group = file.get(way)
        if group is not None and text(attribute(group, "NX_class")) == "NXentry":
            found.insert(0, group)
    return found


def _look(entries: list[Any], path: str) -> Any:
    """Find an object below one of the entries; a step that ends in ``ID`` stands for any name that begins so."""
    for entry in entries:
        here = entry
        for step in path.split("/"):
            names = list(here) if hasattr(here, "keys") else []
            stem = step.removesuffix("ID")
            fits = [one for one in names if one == step or (stem != step and str(one).startswith(stem))]
            here = here.get(fits[0]) if fits else None
            if here is None:
                break
        if here is not None:
            return here
    return None


def _value(item: Any) -> Any:
    return None if item is None or not hasattr(item, "dtype") else value_of(item.parent, item.name)


def _quantity(item: Any, unit: Unit, notes: list[str]) -> Quantity | None:
    """Read a value with its unit; without a unit it is left out, and that is noted."""
    value = number(_value(item))
    if value is None or value <= 0:
        return None
    stated = words(attribute(item, "units"))
    try:
        factor, given = parse_scaled_unit(stated or "pixel")
        given = "keV" if given == "kV" else given  # an electron gains 1 keV in 1 kV
        return Quantity(value=convert_value(value * factor, given, unit), unit=unit, source="header")
    except UnitError:
        notes.append(f"{item.name} is {value:g} in {stated!r}, expected a unit like {unit}; it is left out")
        return None


def _time(stated: str | None, notes: list[str]) -> str | None:
    if stated is None:
        return None
    try:
        datetime.fromisoformat(stated)
    except ValueError:
        notes.append(f"start_time {stated[:40]!r} is no ISO date and left out")
        return None
    return stated
