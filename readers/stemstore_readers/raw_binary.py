"""Raw binary frames of a fixed size, described by options or by a JSON file beside the data."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar

from stemstore.errors import InputError, TruncatedFileError
from stemstore.sources.files import describe, expand, file_size, identity, unreadable
from stemstore.sources.geometry import fit_scan, shape_option
from stemstore.sources.records import RecordSource, pixel_dtype, stack_metadata, whole_records
from stemstore.sources.remote import place

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from stemstore.sources.remote import Place

KEYS = ("shape", "detector_shape", "dtype", "offset", "frame_header", "frame_footer")
"""Options of the reader and, with the same names, keys of the JSON file; no other key is known."""

SIDECAR_BYTES = 4096
"""Longest JSON file that is read; six short keys need a tenth of it."""

_DETECTOR_AXES = 2


class RawBinary:
    """Reader of fixed-size frames in one file or a series of files.

    Frame i of a file starts at ``offset + i * (frame_header + frame + frame_footer) + frame_header``. A frame never
    spans two files. Options given here win over the JSON file ``<data file>.json``.

    Parameters
    ----------
    shape
        Scan and detector together, ``(y, x, rows, columns)``, ``(frame, y, x, rows, columns)`` or
        ``(frame, rows, columns)``.
    detector_shape
        ``(rows, columns)`` where the scan is unknown: the frames become a flat stack as long as the files.
    dtype
        NumPy text with the byte order, such as ``"<u2"`` or ``">f4"``; without one the order of this machine.
    offset : unit byte
        Header at the start of every file.
    frame_header, frame_footer : unit byte
        In front of and behind the pixels of every frame.
    """

    name: ClassVar[str] = "raw_binary"
    description: ClassVar[str] = "raw binary frames of fixed size (shape and dtype given, or in <file>.json)"
    extensions: ClassVar[tuple[str, ...]] = (".raw", ".bin", ".dat")

    def __init__(
        self,
        *,
        shape: Sequence[int] | None = None,
        detector_shape: Sequence[int] | None = None,
        dtype: str | None = None,
        offset: int | None = None,
        frame_header: int | None = None,
        frame_footer: int | None = None,
    ) -> None:
        given = (shape, detector_shape, dtype, offset, frame_header, frame_footer)
        self.options = {key: value for key, value in zip(KEYS, given, strict=True) if value is not None}
        _Description.check(self.options)

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Claim a file beside which a JSON file with our keys lies; the bytes themselves tell nothing."""
        try:
            return 0.9 if first_bytes and read_sidecar(place(url)) else 0.0
        except (OSError, ValueError, InputError):
            return 0.0

    def __call__(self, url: str | list[str]) -> RecordSource:
        """Open the files: sizes only, no pixel.

        Parameters
        ----------
        url
            A file, a pattern, or a list of files in the order of their frames.

        Raises
        ------
        InputError
            The description is incomplete or contradicts itself, or a folder was given.
        TruncatedFileError
            There is not one whole frame.
        """
        files = expand(url)
        for path in files:
            if path.is_dir():
                msg = f"{str(path)!r} is a folder, expected files; pass a pattern such as {str(path / '*.raw')!r}"
                raise InputError(msg, url=str(path))
        values = {**_without_shape(read_sidecar(files[0]), self.options), **self.options}
        return _Description(values).open(files)


class _Description:
    """A checked and complete description of the frames."""

    def __init__(self, values: dict[str, Any]) -> None:
        scan, detector, dtype = self.check(values)
        if detector is None or dtype is None:
            lacking = "dtype" if dtype is None else "shape or detector_shape"
            msg = (
                f"raw binary data need {lacking}; pass for example shape=(64, 64, 256, 256), dtype='<u2', "
                "or write these keys into <file>.json"
            )
            raise InputError(msg, key=lacking)
        self.values = values
        self.scan_shape, self.frame_shape, self.dtype = scan, detector, dtype
        self.offset = int(values.get("offset", 0))
        self.header = int(values.get("frame_header", 0))
        self.frame_bytes = math.prod(detector) * dtype.itemsize
        self.record = self.header + self.frame_bytes + int(values.get("frame_footer", 0))

    @staticmethod
    def check(values: dict[str, Any]) -> tuple[tuple[int, ...] | None, tuple[int, int] | None, np.dtype[Any] | None]:
        """Check what is given; None for what is not.

        Raises
        ------
        InputError
            A value cannot be used.
        """
        for key in ("offset", "frame_header", "frame_footer"):
            value = values.get(key, 0)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                msg = f"option {key}={value!r} is not a number of bytes; expected a whole number of at least 0"
                raise InputError(msg, key=key, found=value)
        dtype = pixel_dtype(values["dtype"]) if "dtype" in values else None
        if "shape" in values and "detector_shape" in values:
            msg = "shape and detector_shape are both given; pass shape for a known scan, else detector_shape"
            raise InputError(msg, key="shape")
        if "shape" in values:
            *scan, rows, columns = shape_option("shape", values["shape"], (3, 4, 5))
            return tuple(scan), (rows, columns), dtype
        if "detector_shape" in values:
            rows, columns = shape_option("detector_shape", values["detector_shape"], (_DETECTOR_AXES,))
            return None, (rows, columns), dtype
        return None, None, dtype

    def open(self, files: Sequence[Place]) -> RecordSource:
        """Count the frames of all files, and describe them."""
        counts, warnings = [], []
        for path in files:
            count, left = whole_records(file_size(path), self.record, self.offset)
            counts.append(count)
            if left:
                text = f"file {str(path)!r} ends with {left} bytes that make no whole frame of {self.record} bytes"
                warnings.append(f"{text}; its {count} whole frames are used")
        if not sum(counts):
            msg = (
                f"file {str(files[0])!r} has {file_size(files[0])} bytes and holds no whole frame of {self.record} "
                f"bytes behind {self.offset} bytes of header; check shape and dtype"
            )
            raise TruncatedFileError(msg, url=str(files[0]), found=file_size(files[0]), expected=self.record)
        scan_shape, validity, notes = fit_scan(self.scan_shape, sum(counts))
        described = describe(files)
        return RecordSource(
            identity=identity(RawBinary.name, described, sorted(self.values.items())),
            scan_shape=scan_shape,
            frame_shape=self.frame_shape,
            metadata=stack_metadata(
                scan_shape,
                self.frame_shape,
                source="user",
                warnings=warnings + notes,
                files=described,
                vendor=self.values,
            ),
            validity=validity,
            files=tuple(str(path) for path in files),
            counts=tuple(counts),
            offset=self.offset + self.header,
            stride=self.record,
            file_dtype=self.dtype,
        )


def read_sidecar(path: Place) -> dict[str, Any]:
    """Read the description beside a data file; empty where there is none.

    Raises
    ------
    InputError
        The file is no JSON object, is too long, or has unknown keys or unusable values.
    StorageError
        The file cannot be read.
    """
    sidecar = path.with_name(path.name + ".json")
    try:
        with sidecar.open("rb") as file:
            content = file.read(SIDECAR_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(sidecar, error) from error
    try:
        values = json.loads(content[:SIDECAR_BYTES])
    except ValueError as error:
        msg = f"description {str(sidecar)!r} is no JSON of at most {SIDECAR_BYTES} bytes: {error}; correct or remove it"
        raise InputError(msg, url=str(sidecar)) from error
    unknown = sorted(set(values) - set(KEYS)) if isinstance(values, dict) else [type(values).__name__]
    if unknown or not values:
        msg = (
            f"description {str(sidecar)!r} holds {', '.join(unknown) or 'nothing'}, expected an object with keys out "
            f"of {', '.join(KEYS)}; correct or remove it"
        )
        raise InputError(msg, url=str(sidecar), found=unknown, expected=list(KEYS))
    try:
        _Description.check(values)
    except InputError as error:
        error.add_note(f"in the description {str(sidecar)!r}")
        raise
    return values


def _without_shape(values: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Drop the shape of the description where the user gives one in either form."""
    if not {"shape", "detector_shape"} & set(options):
        return values
    return {key: value for key, value in values.items() if key not in ("shape", "detector_shape")}
