"""Descriptions of arrays in Zarr format 2.

============================  =======================================================================================
key of ``.zarray``            meaning
============================  =======================================================================================
``zarr_format``               2
``shape``, ``chunks``         extents of the array and of every chunk, also of those that reach over the edge
``dtype``                     NumPy text with byte order; ``|O`` means objects, which are never decoded
``order``                     ``C`` or ``F`` inside a chunk
``compressor``                null or the settings of a codec; ``filters`` have to be null
``fill_value``                value of chunks that are not there
``dimension_separator``       between the numbers in the name of a chunk: ``.`` unless stated, or ``/``
============================  =======================================================================================

Source: the Zarr storage specification, version 2 (zarr-specs.readthedocs.io).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, FormatVersionError, InputError
from stemstore.sources.records import pixel_dtype

if TYPE_CHECKING:
    import numpy as np

CODECS = ("blosc", "zstd", "lz4", "zlib", "gzip")
"""Compressors that are undone, all of them into a buffer of known size."""

MAX_EXTENT = 2**48
"""Indices of one axis that are believed."""

MAX_CHUNK = 2**31 - 1
"""Bytes of a decoded chunk: the limit of the codecs."""


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What ``.zarray`` says; `dtype` in the byte order of the file."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    compressor: str | None
    fill: float
    separator: str

    @property
    def chunk_bytes(self) -> int:
        """Size of a decoded chunk."""
        return math.prod(self.chunks) * self.dtype.itemsize


def parse_header(content: bytes, where: str) -> ArrayHeader:
    """Read and check a ``.zarray``.

    Parameters
    ----------
    content
        The JSON text.
    where
        Its file or member, for messages.

    Raises
    ------
    FormatVersionError
        It is not of Zarr format 2.
    CorruptDataError
        It is no JSON object with the keys of an array.
    InputError
        It holds objects, is filtered, or compressed by a codec that is not known.
    """
    said = parse_json(content, where)
    if said.get("zarr_format") != 2:  # noqa: PLR2004 (the format that this module reads)
        msg = f"{where} has zarr_format {said.get('zarr_format')!r}, expected 2; save the signal again"
        raise FormatVersionError(msg, url=where, found=said.get("zarr_format"), expected=2)
    if said.get("filters") or said.get("dtype") == "|O":
        msg = f"{where} describes ragged or filtered values ({said.get('dtype')!r}), which are no frames; save an array"
        raise InputError(msg, url=where, found=said.get("dtype"))
    compressor = said.get("compressor")
    if compressor is not None and (not isinstance(compressor, dict) or compressor.get("id") not in CODECS):
        msg = f"{where} names the compressor {compressor!r}, known are {', '.join(CODECS)}; save the signal with blosc"
        raise InputError(msg, url=where, found=str(compressor))
    shape, chunks = _extents(said, "shape", where), _extents(said, "chunks", where)
    order, separator = said.get("order", "C"), said.get("dimension_separator", ".")
    if len(shape) != len(chunks) or 0 in chunks or order not in ("C", "F") or separator not in (".", "/"):
        msg = f"{where} has shape {shape}, chunks {chunks}, order {order!r}, separator {separator!r}; it is damaged"
        raise CorruptDataError(msg, url=where)
    dtype = pixel_dtype(said.get("dtype"))
    codec = None if compressor is None else str(compressor["id"])
    header = ArrayHeader(shape, chunks, dtype, order, codec, _fill(said.get("fill_value"), dtype, where), separator)
    if header.chunk_bytes > MAX_CHUNK:
        msg = f"{where} describes chunks of {header.chunk_bytes} bytes, expected at most {MAX_CHUNK}; it is damaged"
        raise CorruptDataError(msg, url=where, found=header.chunk_bytes, expected=MAX_CHUNK)
    return header


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    CorruptDataError
        It is none.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{where} is no JSON: {error}; the file is damaged, copy it again"
        raise CorruptDataError(msg, url=where) from error
    if not isinstance(found, dict):
        msg = f"{where} holds a {type(found).__name__}, expected an object; the file is damaged"
        raise CorruptDataError(msg, url=where)
    return found


def _extents(said: dict[str, Any], key: str, where: str) -> tuple[int, ...]:
    found = said.get(key)
    if not isinstance(found, list) or not all(type(n) is int and 0 <= n < MAX_EXTENT for n in found):
        msg = f"{where} has {key} {found!r}, expected a list of whole numbers; it is damaged"
        raise CorruptDataError(msg, url=where, key=key)
    return tuple(found)


def _fill(value: Any, dtype: np.dtype[Any], where: str) -> float:
    """Value of chunks that are not there, which has to be one of the type."""
    try:
        given = float(value) if isinstance(value, str) else 0 if value is None else value + 0
        if dtype.kind == "f" or dtype.type(given) == given:
            return given
    except (TypeError, ValueError, OverflowError):
        pass
    msg = f"{where} has the fill value {value!r}, which is no {dtype}; the file is damaged"
    raise CorruptDataError(msg, url=where, key="fill_value", found=value)
