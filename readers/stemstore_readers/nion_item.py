"""The properties of a data item of Nion Swift, and the scan that they describe.

===================================  ================================================================================
key                                  meaning
===================================  ================================================================================
``is_sequence``                      whether the first axis counts a series
``collection_dimension_count``       axes of the scan, behind those of a series
``datum_dimension_count``            axes of the detector, the last ones
``dimensional_calibrations``         ``offset``, ``scale`` and ``units`` of every axis of the array
``created``, ``timezone``            time at which the item was made
``metadata``                         ``instrument``: ``high_tension`` (V); ``hardware_source``: ``exposure`` (s), name
===================================  ================================================================================
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.hdf5 import number, text
from stemstore_readers.header_values import quantity, words
from stemstore_readers.stated_axes import StatedAxis
from stemstore_readers.stored_arrays import Findings, choose_array, show

if TYPE_CHECKING:
    from stemstore.sources.hdf5 import Listed
    from stemstore.sources.remote import Place

DETECTOR_AXES = 2


def parse_properties(content: bytes, where: str) -> dict[str, Any]:
    """Read the JSON of a data item; its bytes may be those of Latin 1.

    Raises
    ------
    CorruptDataError
        It is no JSON object.
    """
    try:
        found = json.loads(text(content))
    except (ValueError, RecursionError) as error:
        msg = f"the properties of {where} are no JSON: {error}; the file is damaged, copy it again"
        raise CorruptDataError(msg, url=where) from error
    if not isinstance(found, dict):
        msg = f"the properties of {where} are a {type(found).__name__}, expected an object; the file is damaged"
        raise CorruptDataError(msg, url=where)
    return found


def describe_item(path: Place, array: Listed, properties: dict[str, Any]) -> Findings:
    """Describe the scan in a data item.

    Raises
    ------
    InputError
        The item is no stack of frames.
    CorruptDataError
        It is larger than any scan.
    """
    notes: list[str] = []
    series = bool(properties.get("is_sequence"))
    scan, datum = (properties.get(f"{name}_dimension_count") for name in ("collection", "datum"))
    stated = [scan, datum] if type(scan) is int and type(datum) is int else None
    if stated is None:
        notes.append("the properties do not divide the axes; the last two are taken for those of the detector")
    elif series + sum(stated) != len(array.shape) or datum != DETECTOR_AXES:
        held = f"{int(series)} axes of a series, {scan} of the scan and {datum} of each datum"
        msg = f"data item {str(path)!r} is {show(array)} with {held}, expected frames of two axes; open it with Swift"
        raise InputError(msg, url=str(path), found=array.shape)
    choose_array(path, [array], None, notes)
    said = properties.get("metadata")
    hardware = _part(said, "hardware_source")
    return Findings(
        shape=array.shape,
        stated=_axes(properties, len(array.shape), notes),
        optics={
            "beam_energy": quantity(_part(said, "instrument").get("high_tension"), "keV", 1e3),
            "exposure_time": quantity(hardware.get("exposure"), "s"),
            "start_time": _created(properties),
        },
        detector={"name": words(hardware.get("hardware_source_name"))},
        vendor={"properties": properties},
        notes=notes,
    )


def _part(said: Any, name: str) -> dict[str, Any]:
    """Take an object inside an object; an empty one where there is none."""
    found = said.get(name) if isinstance(said, dict) else None
    return {key: _scalar(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _scalar(value: Any) -> Any:
    return None if isinstance(value, list | dict) else value


def _axes(properties: dict[str, Any], ndim: int, notes: list[str]) -> list[StatedAxis | None]:
    calibrations = properties.get("dimensional_calibrations")
    if not isinstance(calibrations, list) or len(calibrations) != ndim:
        notes.append(f"the properties calibrate no {ndim} axes; all of them count indices")
        return [None] * ndim
    found: list[StatedAxis | None] = []
    for index, one in enumerate(calibrations):
        said = one if isinstance(one, dict) else {}
        step, origin = number(_scalar(said.get("scale", 1.0))), number(_scalar(said.get("offset", 0.0)))
        unit = words(_scalar(said.get("units"))) or ""
        found.append(None if step is None else StatedAxis(f"axis {index}", step, origin or 0.0, unit))
    return found


def _created(properties: dict[str, Any]) -> str | None:
    """Time at which the item was made, without a zone, which Swift keeps apart."""
    said = words(_scalar(properties.get("created")))
    try:
        return None if said is None else datetime.fromisoformat(said).isoformat()
    except ValueError:
        return None
