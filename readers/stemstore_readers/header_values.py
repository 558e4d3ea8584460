"""Values of binary headers and their side files, brought to the vocabulary of the store; what cannot be is left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stemstore.sources.geometry import factor_pairs
from stemstore_schemas import Acquisition, Axis, Quantity, UnitError, parse_scaled_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore_schemas import Unit

DIFFRACTION_UNITS = ("1/angstrom", "1/nm", "mrad", "rad", "deg")
"""Listed units that an axis of a diffraction pattern may have."""

LENGTH_UNITS = ("nm", "angstrom", "mm")
"""Listed units that a scan axis may have."""


def number(value: Any) -> float | None:
    """Read a finite number from a number or a text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def positive(value: Any) -> float | None:
    """Read a number above zero; headers write 0 or -1 for what they do not know."""
    found = number(value)
    return found if found is not None and found > 0 else None


def whole(value: Any) -> int | None:
    """Read a whole number above zero."""
    found = positive(value)
    return int(found) if found is not None and found == int(found) else None


def text(value: Any) -> str | None:
    """Read a text that is not empty."""
    return value.strip() or None if isinstance(value, str) else None


def quantity(value: Any, unit: Unit, factor: float = 1.0) -> Quantity | None:
    """Make a quantity of a header's number above zero times `factor`."""
    found = positive(value)
    if found is None or not math.isfinite(found * factor):
        return None
    return Quantity(value=found * factor, unit=unit, source="header")


def plain(value: Any) -> Any:
    """Make tuples lists, so that a document is the same when it comes back from JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def axis(name: str, size: int, step: Any, unit: str, notes: list[str], origin: Any = 0.0) -> Axis | None:
    """Make a calibrated axis; None where the header states none, and a note where it states none that can be.

    Parameters
    ----------
    name, size
        Of the axis in the store.
    step, origin
        Distance of neighbouring indices and coordinate of index 0, in `unit`.
    unit
        In any spelling.
    notes
        Receives what had to be left out.
    """
    scale, zero = number(step), number(origin)
    if scale is None or zero is None:
        return None
    try:
        factor, listed = parse_scaled_unit(unit)
    except UnitError:
        notes.append(f"axis {name!r} is in {unit!r}, which is no known unit; its step {scale:g} is left out")
        return None
    if listed == "pixel":
        if (scale, zero) not in ((1.0, 0.0), (0.0, 0.0)):
            notes.append(f"axis {name!r} has the step {scale:g} but no unit; the step is left out")
        return None
    kinds = {"y": LENGTH_UNITS, "x": LENGTH_UNITS, "ky": DIFFRACTION_UNITS, "kx": DIFFRACTION_UNITS}
    if listed not in kinds.get(name, (listed,)):
        expected = " or ".join(kinds[name])
        notes.append(f"axis {name!r} is in {unit!r}, expected {expected}; its step {scale:g} is left out")
        return None
    step, origin = scale * factor, zero * factor
    if not step or not math.isfinite(origin + step * size):
        notes.append(f"axis {name!r} has the step {scale:g} {unit}, which cannot be; it is left out")
        return None
    return Axis(name=name, size=size, unit=listed, step=step, origin=origin, source="header")


def centred(axes: Sequence[Axis | None], notes: list[str]) -> list[Axis]:
    """Drop what is None, and centre detector axes of which the header states steps but no zero.

    Where all detector axes start at 0, their zero is put in the middle of the frame, which is taken for the optic axis
    as long as nobody says otherwise; a note says so.
    """
    known = [one for one in axes if one is not None]
    detector = [one for one in known if one.name in ("ky", "kx")]
    if not detector or any(one.origin for one in detector):
        return known
    notes.append(
        "the header states no centre of the diffraction patterns; the middle of the frame is guessed, "
        "pass detector_center=… to settle it"
    )
    return [
        one.model_copy(update={"origin": -one.step * (one.size - 1) / 2}) if one in detector else one for one in known
    ]


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
