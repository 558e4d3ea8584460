"""The description of RAW_CSR data: a TOML file, and the three flat files that it names."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError, NotFoundError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import exists, file_size, unreadable
from stemstore.sources.geometry import shape_option
from stemstore.sources.records import as_bytes, pixel_dtype, read_blocks

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.sources.remote import Place

FILETYPE = "raw_csr"
ROLES = ("indptr", "indices", "data")

MAX_TOML_BYTES = 2**20
"""Longest description that is read; LiberTEM looks for descriptions in files of up to this size too."""

MAX_PIXELS = 2**28
"""Pixels of the largest frame that is believed: 16384 by 16384, beyond every detector."""


@dataclass(frozen=True, slots=True)
class FlatFile:
    """One of the three files: numbers of one type without a header.

    Attributes
    ----------
    path, dtype
        Where it lies, and its type with the byte order.
    length
        Numbers in it.
    """

    path: str
    dtype: np.dtype[Any]
    length: int

    @classmethod
    def find(cls, toml: Place, role: str, table: dict[str, Any]) -> FlatFile:
        """Find the file of a role beside its description, and count its numbers."""
        name, text = table.get(f"{role}_file"), table.get(f"{role}_dtype")
        for key, value in ((f"{role}_file", name), (f"{role}_dtype", text)):
            if not isinstance(value, str) or not value:
                msg = f"{key} in {str(toml)!r} is {value!r}, expected a text; correct the description"
                raise CorruptDataError(msg, url=str(toml), key=key, found=value)
        try:
            dtype = pixel_dtype(text)
        except InputError as error:
            msg = f"{role}_dtype in {str(toml)!r} cannot be used: {error}"
            raise CorruptDataError(msg, url=str(toml), key=f"{role}_dtype", found=text) from error
        path = toml.parent / str(name)
        if not exists(path):
            msg = f"file {str(path)!r}, named as {role}_file in {str(toml)!r}, does not exist; copy it beside the TOML"
            raise NotFoundError(msg, url=str(path), key=f"{role}_file")
        length, left = divmod(file_size(path), dtype.itemsize)
        if left:
            msg = (
                f"file {str(path)!r} has {file_size(path)} bytes, which is no whole number of {dtype.name} of "
                f"{dtype.itemsize} bytes; copy it again, or correct {role}_dtype in {str(toml)!r}"
            )
            raise TruncatedFileError(msg, url=str(path), found=file_size(path), expected=dtype.itemsize)
        return cls(str(path), dtype, length)

    def read(self, start: int, stop: int) -> Array:
        """Read numbers ``start <= i < stop`` in native byte order."""
        raw = np.empty(stop - start, self.dtype)
        if len(raw):
            zero = np.zeros(1, np.int64)
            read_blocks(self.path, zero + start * self.dtype.itemsize, raw.nbytes, as_bytes(raw), zero)
        return raw.astype(self.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, slots=True)
class Table:
    """What a description says: its three files, and shapes that are not checked yet."""

    path: str
    indptr: FlatFile
    indices: FlatFile
    data: FlatFile
    vendor: dict[str, Any]

    @classmethod
    def read(cls, path: Place) -> Table:
        """Read the description; errors as for `RawCsr`."""
        document = read_toml(path)
        params = document.get("params")
        filetype = params.get("filetype") if isinstance(params, dict) else None
        if str(filetype).lower() != FILETYPE:
            msg = f"filetype in {str(path)!r} is {filetype!r}, expected {FILETYPE!r}; it describes no RAW_CSR data"
            raise UnknownFormatError(msg, url=str(path), found=filetype, expected=FILETYPE)
        table = document.get(str(filetype))
        if not isinstance(table, dict):
            msg = f"{str(path)!r} has no table [{filetype}], only {sorted(document)}; add the one that names the files"
            raise CorruptDataError(msg, url=str(path), key=str(filetype))
        indptr, indices, data = (FlatFile.find(path, role, table) for role in ROLES)
        for role, file in zip(ROLES[:2], (indptr, indices), strict=True):
            if file.dtype.kind not in "ui":
                msg = f"{role}_dtype in {str(path)!r} is {file.dtype.name}, expected whole numbers; correct it"
                raise CorruptDataError(msg, url=str(path), key=f"{role}_dtype", found=file.dtype.name)
        return cls(str(path), indptr, indices, data, {"params": _plain(params), str(filetype): _plain(table)})

    @property
    def n_frames(self) -> int:
        """Frames in the files."""
        return self.indptr.length - 1

    @property
    def n_pixels(self) -> int:
        """Pixels of a frame as the file states them, whatever their arrangement."""
        return math.prod(self.shape("sig_shape", (1, 2, 3), "detector_shape"))

    def shape(self, key: str, lengths: tuple[int, ...], option: str) -> tuple[int, ...]:
        """Check a shape of the description; the option that overrides it is named where it cannot be used."""
        try:
            shape = shape_option(key, self.vendor["params"].get(key), lengths)
        except InputError as error:
            msg = f"{key} in {self.path!r} cannot be used: {error}; correct it or pass {option}=…"
            raise CorruptDataError(msg, url=self.path, key=key) from error
        if key == "sig_shape" and math.prod(shape) > MAX_PIXELS:
            msg = f"{key} in {self.path!r} states frames of {shape} pixels; correct it"
            raise CorruptDataError(msg, url=self.path, key=key, found=shape, expected=MAX_PIXELS)
        return shape

    def check(self) -> list[str]:
        """Hold the sizes of the files against each other; gives what is odd about them."""
        if self.n_frames < 1:
            msg = f"file {self.indptr.path!r} has {self.indptr.length} entries and so no frame; expected at least 2"
            raise TruncatedFileError(msg, url=self.indptr.path, found=self.indptr.length, expected=2)
        short, long = sorted((self.indices, self.data), key=lambda file: file.length)
        if short.length != long.length:
            msg = (
                f"file {short.path!r} has {short.length} entries, {long.path!r} has {long.length}; "
                "they must have as many, copy the shorter one again"
            )
            raise TruncatedFileError(msg, url=short.path, found=short.length, expected=long.length)
        first, last = int(self.indptr.read(0, 1)[0]), int(self.indptr.read(self.n_frames, self.n_frames + 1)[0])
        if last > self.indices.length:
            msg = (
                f"file {self.indices.path!r} has {self.indices.length} entries, but the last frame ends at entry "
                f"{last} (byte {self.n_frames * self.indptr.dtype.itemsize} of {self.indptr.path!r}); copy it again"
            )
            raise TruncatedFileError(msg, url=self.indices.path, found=self.indices.length, expected=last)
        unused = first + self.indices.length - last
        return [f"{unused} entries of {self.indices.path!r} belong to no frame and are ignored"] if unused else []


def read_toml(path: Place) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    UnknownFormatError
        It is too long to be a description.
    CorruptDataError
        It is no TOML.
    StorageError, NotFoundError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOML_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > MAX_TOML_BYTES:
        msg = f"file {str(path)!r} is longer than {MAX_TOML_BYTES} bytes; it is no TOML description of data"
        raise UnknownFormatError(msg, url=str(path))
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        msg = f"file {str(path)!r} is no TOML: {error}; correct the description"
        raise CorruptDataError(msg, url=str(path)) from error


def _plain(value: Any) -> Any:
    """Values of TOML as JSON knows them; dates become texts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, bool, int, float)) else str(value)
