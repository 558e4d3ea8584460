"""Series of frames in TopSpin files: where each frame lies, and what its text says of the beam."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, TruncatedFileError
from stemstore.sources.files import file_size
from stemstore.sources.geometry import check_missing
from stemstore.sources.hdf5 import require_filters, text, value_of
from stemstore.sources.records import open_unbuffered, pixel_dtype
from stemstore_readers.stored_arrays import MAX_PIXELS
from stemstore_readers.topspin_xml import read_position

if TYPE_CHECKING:
    import io

    from stemstore._types import Int64Array
    from stemstore.sources.ranged import RangedFile
    from stemstore.sources.remote import Place

ABSENT, ENCODED = -1, -2
"""Marks in place of a byte offset: there is no such frame, or HDF5 has to decode it."""

MAX_TEXT = 2**16
"""Bytes of the text of a frame that are looked at."""

NUMBER = re.compile(r"0|[1-9]\d{0,8}")
"""Names of frames."""


@dataclass(frozen=True, slots=True)
class Series:
    """Frames of a series, as they lie in the file.

    Attributes
    ----------
    group
        Path of the group.
    frame_shape, dtype
        Of all frames, byte order of the file.
    offsets : shape (n,), unit byte
        Where each frame starts; `ABSENT` or `ENCODED`.
    positions : shape (n,), unit m
        Beam positions, x + iy; NaN where a frame states none.
    first_text
        XML of the first frame; empty where it has none.
    """

    group: str
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    offsets: Int64Array
    positions: np.ndarray[Any, np.dtype[np.complex128]]
    first_text: str


def read_series(path: Place, file: Any, name: str) -> Series:
    """Find where the frames of a series lie, and read their texts.

    Raises
    ------
    CorruptDataError
        Frames differ in shape or type, or their numbers make no series.
    TruncatedFileError
        The file ends before a frame does.
    """
    import h5py

    group = file[name]
    numbers = sorted(int(one) for one in group if NUMBER.fullmatch(one))
    check_missing((numbers[-1] + 1,), len(numbers))
    offsets = np.full(numbers[-1] + 1, ABSENT, np.int64)
    positions = np.full(len(offsets), complex(math.nan, math.nan))
    first = h5py.h5d.open(group.id, b"%d/Data" % numbers[0])
    shape, dtype = _frame(path, name, first)
    plain = h5py.h5t.py_create(dtype).equal(first.get_type())
    end, first_text = file_size(path), ""
    with open_unbuffered(path) as raw:
        for number in numbers:
            data = h5py.h5d.open(group.id, b"%d/Data" % number)
            if data.shape != shape or not data.get_type().equal(first.get_type()):
                msg = (
                    f"frame {number} of {name} in {str(path)!r} is {data.dtype} of shape {data.shape}, expected "
                    f"{dtype} of {shape} as the first one; the file is damaged, copy it again"
                )
                raise CorruptDataError(msg, url=str(path), frame=number, found=data.shape, expected=shape)
            offsets[number] = _place(path, data, end) if plain else ENCODED
            said = _text(raw, group, number)
            positions[number] = read_position(said)
            first_text = text(said) if number == numbers[0] else first_text
    return Series(name, shape, dtype, offsets, positions, first_text)


def _frame(path: Place, name: str, data: Any) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Shape and type of the first frame, refused where it is none."""
    shape, dtype = data.shape, data.dtype
    if shape is None or len(shape) != 2 or not 0 < math.prod(shape) <= MAX_PIXELS:  # noqa: PLR2004 (rows and columns)
        msg = f"frames of {name} in {str(path)!r} have the shape {shape}, expected rows and columns; it is no scan"
        raise CorruptDataError(msg, url=str(path), key=name, found=shape)
    return (shape[0], shape[1]), pixel_dtype(dtype)


def _place(path: Place, data: Any, end: int) -> int:
    """Byte offset of a frame, or the mark of one that HDF5 has to decode."""
    import h5py

    offset = data.get_offset()
    if offset is None:
        require_filters(h5py.Dataset(data))
        return ENCODED
    if offset + math.prod(data.shape) * data.dtype.itemsize > end:
        msg = f"file {str(path)!r} has {end} bytes and ends inside a frame at byte {offset}; copy it again"
        raise TruncatedFileError(msg, url=str(path), byte=offset)
    return int(offset)


def _text(raw: io.FileIO | RangedFile, group: Any, number: int) -> bytes:
    """Text of a frame; empty where it has none."""
    import h5py

    with suppress(KeyError):
        stored = h5py.h5d.open(group.id, b"%d/Metadata" % number)
        offset = stored.get_offset()
        if offset is not None and not h5py.Dataset(stored).shape:
            raw.seek(offset)
            return raw.read(min(stored.get_storage_size(), MAX_TEXT)) or b""
        found = value_of(group[str(number)], "Metadata")
        return b"" if found is None else text(found).encode()[:MAX_TEXT]
    return b""
