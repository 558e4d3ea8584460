"""The archive of a PantaRhei file: a zip of ``.npy`` members, of which nothing is ever unpickled.

=========================  =====================================================================
member                     content
=========================  =====================================================================
data.npy                   the array
meta_data_json.npy         one text: a JSON list with one dictionary (since 2024)
data_model_json.npy        one text about the display
file_format_version.npy    a number
meta_data.npy              pickled objects, never opened
=========================  =====================================================================

Members lie stored or deflated; see `npy_archive`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, UnknownFormatError
from stemstore_readers.npy_archive import Member, locate, npy_header, opened_archive

if TYPE_CHECKING:
    import zipfile

    from stemstore.sources.remote import Place

DATA, JSON_TEXT = "data.npy", "meta_data_json.npy"

MAX_TEXT_BYTES = 2**24
"""Longest JSON text that is read, in bytes of the member; texts of a few kilobytes are usual."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds besides its pixels."""

    data: Member
    metadata: dict[str, Any] | None
    members: tuple[str, ...]


def parse_archive(path: Place) -> Archive:
    """Read the directory, the header of the array and the JSON text.

    Raises
    ------
    TruncatedFileError
        The directory at the end of the file, or a part of the array, is missing.
    UnknownFormatError
        The file is no archive, or has no ``data.npy``.
    CorruptDataError
        A member contradicts the directory, or the JSON is damaged.
    InputError
        The array holds objects or records.
    """
    with opened_archive(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if DATA not in members:
            names = ", ".join(list(members)[:10]) or "nothing"
            msg = f"archive {str(path)!r} holds {names}, expected {DATA}; it is not of PantaRhei"
            raise UnknownFormatError(msg, url=str(path))
        data = locate(path, archive, members[DATA])
        text = _read_text(path, archive, members[JSON_TEXT]) if JSON_TEXT in members else None
    return Archive(data, None if text is None else _parse_json(path, text), tuple(members))


def _read_text(path: Place, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Read a member that holds one text; anything else than a text is left alone."""
    if info.file_size > MAX_TEXT_BYTES:
        limit = f"expected at most {MAX_TEXT_BYTES}; the file is damaged"
        msg = f"member {info.filename} of {str(path)!r} has {info.file_size} bytes, {limit}"
        raise CorruptDataError(msg, url=str(path), key=info.filename)
    with archive.open(info) as member:
        content = member.read(MAX_TEXT_BYTES)
    shape, dtype, _, length = npy_header(path, info, content)
    if dtype.kind not in "US" or math.prod(shape) != 1 or len(content) < length + dtype.itemsize:
        msg = (
            f"member {info.filename} of {str(path)!r} holds {dtype} of shape {shape}, expected one text; copy it again"
        )
        raise CorruptDataError(msg, url=str(path), key=info.filename)
    try:
        value = np.frombuffer(content, dtype, 1, length)[0]
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except (ValueError, UnicodeError) as error:
        msg = f"member {info.filename} of {str(path)!r} is no text: {error}; copy the file again"
        raise CorruptDataError(msg, url=str(path), key=info.filename) from error


def _parse_json(path: Place, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{JSON_TEXT} of {str(path)!r} is no JSON: {error}; copy the file again"
        raise CorruptDataError(msg, url=str(path), key=JSON_TEXT) from error
    first = content[0] if isinstance(content, list) and content else content
    if isinstance(first, dict):
        return first
    msg = f"{JSON_TEXT} of {str(path)!r} holds {type(first).__name__}, expected a list with a dictionary; copy it again"
    raise CorruptDataError(msg, url=str(path), key=JSON_TEXT)
