"""Options of Timepix3 streams: times, places of chips and the joining of hits, checked when they are given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CHIPS = 16
"""Chips of the largest detector that is believed."""

LONGEST_WINDOW = 1e-4
"""Seconds between linked hits at most: a tenth of the slices of time in which clusters are sought."""

FARTHEST = 16
"""Pixels between linked hits at most."""


class Clustering(NamedTuple):
    """How hits are joined to electrons.

    Attributes
    ----------
    time : unit s
    distance : unit pixel
        Differences of time, and of rows and columns, up to which two hits are linked.
    """

    time: float = 1e-7
    distance: int = 1


def clustering(option: Any) -> Clustering | None:
    """Read option cluster: a bool, or what differs from the defaults.

    Raises
    ------
    InputError
        It is something else.
    """
    if option is None or isinstance(option, bool):
        return Clustering() if option else None
    if not isinstance(option, dict) or not set(option) <= set(Clustering._fields):
        msg = f"option cluster={option!r} is not understood; pass True, or {{'time': '100 ns', 'distance': 1}}"
        raise InputError(msg, key="cluster", found=option)
    time = seconds("cluster time", option.get("time", Clustering().time))
    distance = option.get("distance", Clustering().distance)
    whole = isinstance(distance, int) and not isinstance(distance, bool)
    if time > LONGEST_WINDOW or not whole or not 0 <= distance <= FARTHEST:
        msg = f"option cluster={option!r} joins too much; expected up to {LONGEST_WINDOW:g} s and {FARTHEST} pixels"
        raise InputError(msg, key="cluster", found=option)
    return Clustering(time, distance)


def seconds(key: str, value: Any, *, positive: bool = True) -> float:
    """Read a time: a number in seconds, or a text with a unit.

    Raises
    ------
    InputError
        It is none.
    """
    from stemstore_schemas import UnitError
    from stemstore_schemas.units import parse_quantity

    found, unit = value, "s"
    try:
        if isinstance(value, str):
            found, unit = parse_quantity(value, "s")
    except UnitError as error:
        msg = f"option {key}={value!r} is no time: {error}"
        raise InputError(msg, key=key, found=value) from error
    good = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) and unit == "s"
    if not good or (positive and found <= 0) or abs(found) > 1e6:  # noqa: PLR2004 (s, eleven days)
        msg = f"option {key}={value!r} is no time{' above zero' if positive else ''}; give seconds, or '6 us'"
        raise InputError(msg, key=key, found=value)
    return float(found)


def places(layout: Sequence[Sequence[int] | None]) -> list[tuple[int, int, int] | None]:
    """Read option layout: row, column and turn of each chip, or None.

    Raises
    ------
    InputError
        A place is none, or there are none.
    """
    found: list[tuple[int, int, int] | None] = []
    for place in layout:
        numbers = None if place is None else tuple(place)
        good = numbers is None or (len(numbers) == 3 and all(type(one) is int for one in numbers))  # noqa: PLR2004
        if not good or (numbers is not None and (min(numbers[:2]) < 0 or max(numbers[:2]) > 2**14 or numbers[2] % 90)):
            msg = f"place {place!r} in option layout is none; expected (row, column, degrees), degrees a multiple of 90"
            raise InputError(msg, key="layout", found=place)
        found.append(None if numbers is None else (numbers[0], numbers[1], numbers[2]))
    if not any(found) or len(found) > MAX_CHIPS:
        msg = f"option layout places {len(found)} chips, expected 1 to {MAX_CHIPS} of which one is not None; correct it"
        raise InputError(msg, key="layout", found=len(found))
    return found
