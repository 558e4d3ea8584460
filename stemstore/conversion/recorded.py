"""How a store was made, as its history tells: the source and the options of its last conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError
from stemstore.scan.calibration import Calibration
from stemstore.scan.references import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore_schemas import HistoryEntry, ScanDocument

OPERATION = "convert"

MOST_TRIED = 16
"""Files that are tried one by one: formats of more files take them all, or a pattern that nobody can guess."""

_TOLD = ("corrections", "counting", "layout", "chunks", "shards")
"""Parameters that tell what came of the options, or how the result was cut; none of them decides a value."""

_LEVELS = ("background_threshold", "xray_threshold")

_ARRAY = "array of shape"
"""Begins what the history says of an array that was given."""


def last_conversion(document: ScanDocument) -> HistoryEntry:
    """Find the entry of the last conversion.

    Raises
    ------
    InputError
        There is none.
    """
    for entry in reversed(document.history):
        if entry.operation == OPERATION:
            return entry
    msg = "the history of the store tells of no conversion, so that nothing can be repeated; convert the scan again"
    raise InputError(msg, key="history")


def sources_of(document: ScanDocument) -> list[Any]:
    """List what `stemstore.convert` may have been given: all files that were read, or one that led to the others.

    Raises
    ------
    InputError
        The history names none.
    """
    paths = [one.path for one in last_conversion(document).inputs]
    if not paths:
        msg = "the history of the store names no source; name it"
        raise InputError(msg, key="history")
    return paths if len(paths) == 1 else [paths, *paths[:MOST_TRIED]]


def options_of(document: ScanDocument, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options that decide what is stored, as `stemstore.convert` takes them.

    Parameters
    ----------
    document
        Of the store.
    given
        Options that are stated now; they take the place of what the history says.

    Raises
    ------
    InputError
        An array has to be given again, or the history holds an option only as text.
    """
    found = {
        name: _value(name, value)
        for name, value in last_conversion(document).parameters.items()
        if name not in given and name not in _TOLD and name not in Calibration.names()
    }
    for name in NAMES:
        value = found.get(name)
        if isinstance(value, str) and value.startswith(_ARRAY):
            msg = f"the conversion was given {name} as an {value}, which the history does not hold; give {name}= again"
            raise InputError(msg, key=name, expected=value)
    return {name: value for name, value in (found | dict(given)).items() if value is not None}


def _value(name: str, value: Any) -> Any:
    """Turn a JSON value into what was given."""
    if isinstance(value, list):
        return tuple(_value(name, one) for one in value)
    return float(value) if name in _LEVELS and isinstance(value, str) else value
