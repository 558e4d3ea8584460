"""NumPy ``.npy`` files with 3 to 5 axes, read without ever unpickling anything.

Header layout: NumPy Enhancement Proposal 1 and ``numpy.lib.format``, versions 1.0, 2.0 and 3.0.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, FormatVersionError, InputError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import describe, expand, file_size, identity, unreadable
from stemstore.sources.geometry import check_range, fit_scan, shape_option
from stemstore.sources.records import RecordSource, frame_buffer, pixel_dtype, stack_metadata, whole_records
from stemstore.sources.remote import local_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

MAGIC = b"\x93NUMPY"
_VERSIONS: dict[tuple[int, ...], tuple[int, str]] = {(1, 0): (2, "latin1"), (2, 0): (4, "latin1"), (3, 0): (4, "utf-8")}
"""Bytes of the header length and text encoding by format version."""

MAX_HEADER = 10_000
"""Longest header that is parsed; NumPy's own limit against hostile files."""

_PREAMBLE = 12
_MIN_AXES, _MAX_AXES = 3, 5


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says, and where its data start in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int


class Npy:
    """Reader of ``.npy`` arrays ``(y, x, ky, kx)``, ``(frame, y, x, ky, kx)`` or flat stacks ``(frame, ky, kx)``.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "npy"
    description: ClassVar[str] = "NumPy array files with 3, 4 or 5 axes"
    extensions: ClassVar[tuple[str, ...]] = (".npy",)

    def __init__(self, *, scan_shape: Sequence[int] | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the magic number."""
        return 1.0 if first_bytes[: len(MAGIC)] == MAGIC else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource | FortranSource:
        """Open the file: header only, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the array cannot be a stack of frames.
        UnknownFormatError, FormatVersionError, CorruptDataError
            The header is not one of a ``.npy`` file of a known version.
        TruncatedFileError
            The file ends inside its header or before its first whole frame.
        """
        files = expand(url)
        if len(files) != 1:
            msg = f"{len(files)} files were given, expected one .npy file; open them one at a time"
            raise InputError(msg, found=len(files), expected=1)
        header = read_header(files[0])
        _check_axes(files[0], header)
        return self._fortran(files[0], header) if header.fortran_order else self._records(files[0], header)

    def _records(self, path: Place, header: Header) -> RecordSource:
        frame_shape = (header.shape[-2], header.shape[-1])
        frame_bytes = math.prod(frame_shape) * header.dtype.itemsize
        stated = math.prod(header.shape[:-2])
        found, _ = whole_records(file_size(path), frame_bytes, header.start)
        if not found:
            msg = f"file {str(path)!r} ends before its first frame of {frame_bytes} bytes is complete; copy it again"
            raise TruncatedFileError(msg, url=str(path), found=file_size(path), expected=header.start + frame_bytes)
        warnings = []
        if found < stated:
            warnings.append(f"file {str(path)!r} ends after {found} of {stated} whole frames; the others are missing")
        shape = self.scan_shape or header.shape[:-2]
        scan_shape, validity, notes = fit_scan(shape, min(found, stated))
        metadata, name = self._metadata(path, header, scan_shape, warnings + (notes if found >= stated else []))
        return RecordSource(
            identity=name,
            scan_shape=scan_shape,
            frame_shape=frame_shape,
            metadata=metadata,
            validity=validity,
            files=(str(path),),
            counts=(min(found, stated),),
            offset=header.start,
            stride=frame_bytes,
            file_dtype=header.dtype,
        )

    def _fortran(self, path: Place, header: Header) -> FortranSource:
        path = local_only(path, "arrays in Fortran order")
        size, expected = file_size(path), header.start + math.prod(header.shape) * header.dtype.itemsize
        if size < expected:
            msg = (
                f"file {str(path)!r} has {size} bytes, expected {expected}; in Fortran order every frame is spread "
                "over the whole file and none is complete, copy it again"
            )
            raise TruncatedFileError(msg, url=str(path), found=size, expected=expected)
        shape = self.scan_shape or header.shape[:-2]
        scan_shape, validity, notes = fit_scan(shape, math.prod(header.shape[:-2]))
        notes.append(
            f"file {str(path)!r} is in Fortran order; every frame is spread over the whole file and reads are slow"
        )
        metadata, name = self._metadata(path, header, scan_shape, notes)
        return FortranSource(name, scan_shape, metadata, validity, str(path), header)

    def _metadata(
        self, path: Place, header: Header, scan_shape: tuple[int, ...], warnings: list[str]
    ) -> tuple[SourceMetadata, str]:
        described = describe([path])
        metadata = stack_metadata(
            scan_shape,
            (header.shape[-2], header.shape[-1]),
            source="header" if self.scan_shape is None else "user",
            warnings=warnings,
            files=described,
            vendor={"descr": header.dtype.str, "fortran_order": header.fortran_order, "shape": header.shape},
        )
        return metadata, identity(self.name, described, scan_shape)


@dataclass(frozen=True, eq=False)
class FortranSource:
    """Frames of an array in Fortran order, gathered pixel by pixel from a mapping that lives for one call."""

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    validity: ValidityArray | None
    path: str
    header: Header

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.header.shape[-2], self.header.shape[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.header.dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        StorageError
            The file cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        stored = self.header.shape[:-2]
        present = min(max(math.prod(stored) - start, 0), stop - start)
        if present:
            where = np.unravel_index(np.arange(start, start + present), stored)
            try:
                array = np.memmap(self.path, self.header.dtype, "r", self.header.start, self.header.shape, "F")
            except (OSError, ValueError) as error:
                raise unreadable(self.path, error) from error
            frames[:present] = array[where]
        frames[present:] = np.nan if self.dtype.kind == "f" else 0
        return frames


def read_header(path: Place, offset: int = 0) -> Header:
    """Read and check the header of a ``.npy`` file, or of one that lies in another file from byte `offset` on.

    Raises
    ------
    UnknownFormatError
        The magic number is missing.
    FormatVersionError
        The format version is unknown.
    TruncatedFileError
        The file ends inside the header.
    CorruptDataError
        The header is too long or no dictionary of the three known keys.
    InputError
        The elements are objects, records or anything else that is no pixel.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(_PREAMBLE + MAX_HEADER)
    except OSError as error:
        raise unreadable(path, error) from error
    if content[: len(MAGIC)] != MAGIC:
        msg = f"file {str(path)!r} starts with {content[:8]!r}, expected {MAGIC!r}; it is no .npy file"
        raise UnknownFormatError(msg, url=str(path), found=content[:8], expected=MAGIC)
    version = tuple(content[6:8])
    if len(content) >= _PREAMBLE and version not in _VERSIONS:
        known = ", ".join(map(str, _VERSIONS))
        msg = f"file {str(path)!r} has the .npy format {version}, known are {known}; update stemstore"
        raise FormatVersionError(msg, url=str(path), found=version, expected=list(_VERSIONS))
    width, encoding = _VERSIONS.get(version, (4, "latin1"))
    length = int.from_bytes(content[8 : 8 + width], "little")
    start = 8 + width + length
    if length > MAX_HEADER:
        msg = f"file {str(path)!r} states a header of {length} bytes, expected at most {MAX_HEADER}; it is damaged"
        raise CorruptDataError(msg, url=str(path), byte=8, found=length, expected=MAX_HEADER)
    if len(content) < start:
        msg = f"file {str(path)!r} ends inside its header at byte {len(content)}, expected {start}; copy it again"
        raise TruncatedFileError(msg, url=str(path), found=len(content), expected=start)
    return _parse(path, content[8 + width : start], encoding, offset + start)


def _parse(path: Place, content: bytes, encoding: str, start: int) -> Header:
    try:
        values = ast.literal_eval(content.decode(encoding).strip())
        shape, fortran = values["shape"], values["fortran_order"]
        known = set(values) == {"descr", "fortran_order", "shape"} and isinstance(fortran, bool)
        good = known and isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        msg = f"header of file {str(path)!r} cannot be parsed: {error}; the file is damaged, save the array again"
        raise CorruptDataError(msg, url=str(path), byte=10) from error
    if not good:
        msg = f"header of file {str(path)!r} is {values!r}, expected descr, fortran_order and shape; it is damaged"
        raise CorruptDataError(msg, url=str(path), byte=10)
    if not isinstance(values["descr"], str):
        msg = f"file {str(path)!r} holds records {values['descr']!r}, expected plain numbers; save one field of it"
        raise InputError(msg, url=str(path), key="descr")
    try:
        return Header(shape, pixel_dtype(values["descr"]), fortran, start)
    except InputError as error:
        error.add_note(f"in the header of file {str(path)!r}; save the array as numbers, objects are never unpickled")
        raise


def _check_axes(path: Place, header: Header) -> None:
    if not _MIN_AXES <= len(header.shape) <= _MAX_AXES:
        msg = (
            f"array in {str(path)!r} has the shape {header.shape}, expected 3 axes (frame, ky, kx), 4 (y, x, ky, kx) "
            "or 5 (frame, y, x, ky, kx); reshape it before saving"
        )
        raise InputError(msg, url=str(path), found=header.shape)
    if 0 in header.shape:
        msg = f"array in {str(path)!r} has the shape {header.shape} and holds no pixel; save an array with frames"
        raise InputError(msg, url=str(path), found=header.shape)
