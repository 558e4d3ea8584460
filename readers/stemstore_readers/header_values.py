"""Values of headers and their side files, brought to the vocabulary of the store; what cannot be is left out."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources import hdf5
from stemstore.sources.geometry import factor_pairs
from stemstore_schemas import Acquisition, Quantity, foreign_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore_schemas import Unit
    from stemstore_schemas.mapping import Target

LATEST = 4_102_444_800
"""Unix time of the year 2100, in s."""


def number(value: Any) -> float | None:
    """Read a finite number from a number, a text or an array of one; None for everything else, truth values too."""
    return None if isinstance(value, bool) else hdf5.number(value)


def positive(value: Any) -> float | None:
    """Read a number above zero; headers write 0 or -1 for what they do not know."""
    found = number(value)
    return found if found is not None and found > 0 else None


def whole(value: Any) -> int | None:
    """Read a whole number above zero."""
    found = positive(value)
    return int(found) if found is not None and found == int(found) else None


def words(value: Any) -> str | None:
    """Read a text that says something; None for everything else."""
    if isinstance(value, np.ndarray) and value.size != 1:
        return None
    return hdf5.text(value).strip() or None if isinstance(value, str | bytes | np.ndarray) else None


def quantity(value: Any, unit: Unit, per_unit: float = 1.0, *, signed: bool = False) -> Quantity | None:
    """Make a quantity of a header's number, which is `per_unit` for one `unit`.

    Returns
    -------
    quantity
        None where there is no number, or none above zero unless it may be `signed`.
    """
    found = number(value) if signed else positive(value)
    if found is None:
        return None
    ours = found / per_unit if per_unit >= 1 else found * round(1 / per_unit)  # by whole numbers: decimals stay clean
    return Quantity(value=ours, unit=unit, source="header") if math.isfinite(ours) else None


def plain(value: Any) -> Any:
    """Make tuples lists, so that a document is the same when it comes back from JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def unix_time(value: Any) -> str | None:
    """Turn seconds since 1970 into ISO 8601 in UTC; None for what is no time of a microscope."""
    seconds = number(value)
    if seconds is None or not 0 < seconds < LATEST:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat()


_UNITS: dict[str, Unit] = {
    "beam_energy": "keV",
    "semi_convergence_angle": "mrad",
    "camera_length": "mm",
    "dwell_time": "s",
    "exposure_time": "s",
}
"""Units of the acquisition's fields that other formats have a place for."""


def mapped_fields(target: Target, look: Callable[[str], Any]) -> dict[str, Any]:
    """Fill fields of the acquisition from the places where another format keeps them.

    Parameters
    ----------
    target
        The other format, as in `stemstore_schemas.foreign_fields`.
    look
        Gives what lies at a path of that format; None where there is nothing.

    Returns
    -------
    fields
        Name of the field -> quantity, number or text; None where nothing usable lies there.
    """
    found: dict[str, Any] = {}
    for field, foreign in foreign_fields(target).items():
        name, value = field.removeprefix("acquisition."), look(foreign.path)
        if name in _UNITS:
            found[name] = quantity(value, _UNITS[name], foreign.factor)
        else:
            found[name] = positive(value) if name == "magnification" else words(value)
    return found


def scan_acquisition(scan_shape: tuple[int, ...], *, by_user: bool, **known: Any) -> Acquisition:
    """Make the acquisition of a scan whose shape the header or the user states; a flat stack gets alternatives.

    Parameters
    ----------
    scan_shape
        Extents of the scan axes.
    by_user
        Whether the user stated it.
    **known
        Other fields; None is left out.
    """
    given = {name: value for name, value in known.items() if value is not None}
    if len(scan_shape) == 1:
        return Acquisition(scan_shape_alternatives=factor_pairs(scan_shape[0]), **given)
    given.setdefault("frames_per_position", math.prod(scan_shape[:-2]))
    return Acquisition(scan_shape=scan_shape, scan_shape_source="user" if by_user else "header", **given)
