"""The XML texts of TopSpin files: what an experiment and a frame say, and the raster of their beam positions."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.hdf5 import number
from stemstore_readers.header_values import positive, quantity
from stemstore_readers.stated_axes import StatedAxis

if TYPE_CHECKING:
    from stemstore_schemas import Unit

DATE = "%m/%d/%Y %H:%M:%S"

QUANTITIES: dict[str, tuple[str, Unit, float]] = {
    "beam_energy": ("GunHighVoltage", "keV", 1e3),
    "camera_length": ("DiffractionCameraLength", "mm", 1e-3),
    "dwell_time": ("SeriesFrameTime", "s", 1.0),
}
"""Field of the acquisition -> item, our unit, how much of theirs it is."""

TEXTS = {"operator": "CreatedBy", "sample": "Specimen", "instrument": "SystemName"}
"""Field of the acquisition -> element."""

RASTER = 0.02
"""Part of a step by which a position may be off its place in the raster."""

STRAIGHT = 1e-3
"""Part of a step by which a raster may lean and still lie along the axes of the microscope."""

_POSITION = re.compile(
    rb"RequestedBeamPosition</Name>\s*<Value[^>]*>\s*<X[^>]*>([^<]{1,40})</X>\s*<Y[^>]*>([^<]{1,40})</Y>"
)
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


@dataclass(frozen=True, slots=True)
class Raster:
    """Beam positions on a grid, row by row.

    Attributes
    ----------
    shape
        Rows and columns; the last row may end early.
    start : unit m
        First position, x + iy.
    fast, slow : unit m
        From one column, and from one row, to the next; slow is 0 for a single row.
    """

    shape: tuple[int, int]
    start: complex
    fast: complex
    slow: complex

    def axes(self, notes: list[str]) -> list[StatedAxis | None]:
        """Describe the slow and the fast axis, in nm."""
        straight = abs(self.fast.imag) <= STRAIGHT * abs(self.fast) and abs(self.slow.real) <= STRAIGHT * abs(self.fast)
        if straight:
            steps, starts = (self.slow.imag, self.fast.real), (self.start.imag, self.start.real)
        else:
            turn = math.degrees(math.atan2(self.fast.imag, self.fast.real))
            notes.append(f"the rows of the scan lie at {turn:.3g} degrees to the x axis of the microscope")
            steps, starts = (abs(self.slow), abs(self.fast)), (0.0, 0.0)
        return [
            StatedAxis(name, step * 1e9, start * 1e9, "nm") if step else None
            for name, step, start in zip("yx", steps, starts, strict=True)
        ]


def find_raster(positions: np.ndarray[Any, np.dtype[np.complex128]]) -> Raster | None:
    """Find the grid on which beam positions lie row by row.

    Parameters
    ----------
    positions : shape (n,), unit m
        x + iy; NaN where unknown.

    Returns
    -------
    raster
        None where they lie otherwise (serpentine, scattered, repeated), or are too few.
    """
    if len(positions) < 2 or np.isnan(positions[:2]).any():  # noqa: PLR2004 (a step takes two)
        return None
    index = np.arange(len(positions))
    start, fast = complex(positions[0]), complex(positions[1] - positions[0])
    if not fast or not np.isfinite(fast):
        return None
    off = np.abs(positions - start - index * fast) > RASTER * abs(fast)  # false for NaN
    columns = int(np.argmax(off)) if off.any() else len(positions)
    slow = complex(positions[columns] - start) if columns < len(positions) else 0j
    expected = start + (index % columns) * fast + (index // columns) * slow
    if (np.abs(positions - expected) > RASTER * abs(fast)).any() or (columns < len(positions) and not abs(slow)):
        return None
    if not np.isnan(positions[columns - 1]):  # over the whole row, steps are more exact
        fast = complex(positions[columns - 1] - start) / (columns - 1)
    return Raster((-(-len(positions) // columns), columns), start, fast, slow)


def read_position(content: bytes) -> complex:
    """Read the beam position of a frame from its text, in m; NaN where it states none."""
    found = _POSITION.search(content)
    x, y = (None, None) if found is None else map(number, found.groups())
    return complex(math.nan, math.nan) if x is None or y is None else complex(x, y)


def parse_xml(content: str) -> ET.Element | None:
    """Read a text as XML, whatever encoding it declares; None where it is none, or defines entities."""
    if "<!DOCTYPE" in content or "<!ENTITY" in content:
        return None
    try:
        return ET.fromstring(_DECLARATION.sub("", content))
    except (ET.ParseError, ValueError, RecursionError):
        return None


def detector_axes(frame: ET.Element | None) -> list[StatedAxis | None]:
    """Describe detector rows (Y) and columns (X) as the text of a frame calibrates them; angles in mrad."""
    found: list[StatedAxis | None] = []
    for name in ("Y", "X"):
        place = f"Calibration/{name}"
        step, start = (number(_said(frame, f"{place}/{key}")) for key in ("Scale", "Offset"))
        kind = _said(frame, f"{place}/Type/Text")
        factor, unit = (1e3, "mrad") if kind == "Angle" else (1.0, kind)
        known = step is not None and start is not None
        found.append(StatedAxis(name, (step or 0.0) * factor, (start or 0.0) * factor, unit) if known else None)
    return found


def optics_of(experiment: ET.Element | None, notes: list[str]) -> dict[str, Any]:
    """Fields of the acquisition that the text of an experiment states."""
    items = _items(experiment)
    found: dict[str, Any] = {
        name: quantity(items.get(key), unit, per_unit) for name, (key, unit, per_unit) in QUANTITIES.items()
    }
    found["magnification"] = positive(items.get("StemMagnification"))
    found.update({name: _said(experiment, element) or None for name, element in TEXTS.items()})
    started = _said(experiment, "StartDateTime")
    if started:
        try:
            found["start_time"] = datetime.strptime(started, DATE).isoformat()  # the zone is not stated
        except ValueError:
            notes.append(f"StartDateTime {started[:40]!r} is no date and left out")
    return found


def planned_frames(experiment: ET.Element | None, series: str) -> int | None:
    """Read how many frames the series of a name was to have; None where the experiment does not say."""
    for value in [] if experiment is None else experiment.iterfind(".//Item/Value"):
        if value.findtext("Id") == series:
            count = number(value.findtext("Count") or "")
            return int(count) if count is not None and count > 0 else None
    return None


def _items(experiment: ET.Element | None) -> dict[str, str]:
    """Collect the named values of procedure and hardware that are single ones."""
    found: dict[str, str] = {}
    for item in [] if experiment is None else experiment.iterfind("*/Item"):
        value = item.find("Value")
        if value is not None and value.text and not len(value):
            found.setdefault(item.findtext("Name") or "", value.text.strip())
    return found


def _said(element: ET.Element | None, path: str) -> str:
    return "" if element is None else (element.findtext(path) or "").strip()
