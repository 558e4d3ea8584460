"""The kind of model that everything persisted is made of, and the value types that JSON needs help with.

JSON has neither NaN nor infinity: numbers write them as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, and
read exactly these three back. In free documents, where a string may be anything, they are strings from the start.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

ValueSource = Literal["measured", "header", "user", "guessed"]
"""Where a value comes from: measured on the data, read from a file, stated by the user, or guessed."""

NONFINITE = ("NaN", "Infinity", "-Infinity")
"""The only strings that a number may be."""


class Record(BaseModel):
    """A frozen model that refuses unknown keys and takes NumPy values as plain ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    @model_validator(mode="before")
    @classmethod
    def _take_plain_values(cls, data: Any) -> Any:
        return {key: plain(value) for key, value in data.items()} if isinstance(data, dict) else data


def plain(value: Any) -> Any:
    """Replace NumPy values, bytes and tuples inside `value` by what JSON knows; leave everything else.

    Bytes are read as UTF-8; what cannot be UTF-8 (also in file names) is kept readable as backslash escapes.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def _read_number(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value not in NONFINITE):
        msg = f"got {value!r}, expected a number or one of the strings {', '.join(NONFINITE)}"
        raise ValueError(msg)
    return float(value) if isinstance(value, str) else value


def _refuse_text(value: Any) -> Any:
    if isinstance(value, bool | str):
        msg = f"got {value!r}, expected a number"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a report of the field
    return value


def _write_nonfinite_as_text(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_write_nonfinite_as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: _write_nonfinite_as_text(item) for key, item in value.items()}
    return value


def _check_time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"time {text!r} is not ISO 8601; write it as '2024-05-17T09:30:00+00:00'"
        raise ValueError(msg) from error
    return text


def _check_instant(text: str) -> str:
    if datetime.fromisoformat(_check_time(text)).tzinfo is None:
        msg = f"time {text!r} has no zone; append '+00:00' for UTC"
        raise ValueError(msg)
    return text


def _check_uuid(text: str) -> str:
    try:
        UUID(text)
    except ValueError as error:
        msg = f"uuid {text!r} is not one; make it with str(uuid.uuid4())"
        raise ValueError(msg) from error
    return text


Integer = Annotated[int, BeforeValidator(_refuse_text)]
"""An integer that is not written as text."""

Finite = Annotated[float, BeforeValidator(_refuse_text), Field(allow_inf_nan=False)]
"""A float that is neither NaN nor infinite."""

Number = Annotated[
    float,
    BeforeValidator(_read_number),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(NONFINITE), "type": "string"}]}),
]
"""A float that may be NaN or infinite, in JSON too."""

FreeDocument = Annotated[dict[str, JsonValue], BeforeValidator(_write_nonfinite_as_text)]
"""Any JSON object; NaN and infinity become strings when it is made."""

Time = Annotated[str, AfterValidator(_check_time)]
"""ISO 8601 text; the zone may be unknown, as in many headers."""

Instant = Annotated[str, AfterValidator(_check_instant)]
"""ISO 8601 text with its zone."""

Uuid = Annotated[str, AfterValidator(_check_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
"""Text of a UUID."""
