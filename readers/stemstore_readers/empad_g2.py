"""EMPAD-G2: "concatenated" raw frames of 128 by 128 words without header or footer, and their calibration.

===============  ==============================================================================
bytes            meaning, for each frame of 65 536 bytes (nothing lies between frames)
===============  ==============================================================================
0-65535          128 rows of 128 words, ``<u4``, row-major; the bits are in `stemstore.kernels.empad_g2`
===============  ==============================================================================

Words are no intensities: they need the calibration file of the instrument, and the column of the scan, by whose parity
the detector changes its bank. Sources: H. T. Philipp et al., Microsc. Microanal. 28, 425 (2022); sezelt/empad2.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, TruncatedFileError
from stemstore.sources.files import describe, expand, file_size, identity
from stemstore.sources.geometry import fit_scan, shape_option
from stemstore.sources.records import RecordSource, as_bytes, frame_buffer, read_blocks, stack_metadata, whole_records
from stemstore.sources.remote import place
from stemstore_readers.empad import shape_in_name
from stemstore_readers.empad_g2_calibration import SIDE, read_calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, FloatArray
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

FRAME_SHAPE = (SIDE, SIDE)
RECORD = SIDE * SIDE * 4

BATCH = 64
"""Frames that are decoded at a time: 4 MiB of words, which stay in the cache."""

_BACKGROUND_LOCK = threading.Lock()


class EmpadG2:
    """Reader of EMPAD-G2 raw files.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of what the name of the file says.
    calibration_file
        HDF5 file of the instrument; without one the words are given as they are, uint32.
    background_file
        Raw file of the same detector without beam; its mean is subtracted, then the offset of each frame, and the
        flat field is applied.
    """

    name: ClassVar[str] = "empad_g2"
    description: ClassVar[str] = "EMPAD-G2 raw frames, decoded with the calibration file of the detector"
    extensions: ClassVar[tuple[str, ...]] = (".raw",)

    def __init__(
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        calibration_file: str | None = None,
        background_file: str | None = None,
    ) -> None:
        if background_file is not None and calibration_file is None:
            msg = "background_file needs calibration_file, for words cannot be subtracted; pass the calibration as well"
            raise InputError(msg, key="background_file")
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.calibration_file = calibration_file
        self.background_file = background_file

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Know a raw file by the scan in its name together with its size; the words themselves tell nothing."""
        stated = shape_in_name(url)
        if stated is None or not first_bytes:
            return 0.0
        try:
            return 0.7 if file_size(place(url)) == math.prod(stated) * RECORD else 0.0
        except (OSError, ValueError):
            return 0.0

    def __call__(self, url: str | list[str]) -> RecordSource | EmpadG2Source:
        """Open the file: its size and the calibration, no pixel.

        Raises
        ------
        InputError
            Several files were given, or words shall be decoded of which the scan column is unknown.
        TruncatedFileError
            There is not one whole frame.
        UnknownFormatError, CorruptDataError
            The calibration file cannot be used.
        """
        paths = expand(url)
        if len(paths) != 1 or paths[0].is_dir():
            msg = f"{[str(path) for path in paths]} is no single file; give the raw file of one scan"
            raise InputError(msg, found=len(paths), expected=1)
        words = self._words(paths[0])
        if self.calibration_file is None:
            return words
        if len(words.scan_shape) == 1 and self.scan_shape is None:
            msg = (
                f"the scan of {str(paths[0])!r} is unknown and with it the bank of each frame; pass "
                f"scan_shape=(ny, nx) for its {words.scan_shape[0]} frames"
            )
            raise InputError(msg, key="scan_shape", found=words.scan_shape)
        return self._decoded(words)

    def _words(self, path: Place) -> RecordSource:
        n_frames, left = whole_records(file_size(path), RECORD)
        if not n_frames:
            msg = f"file {str(path)!r} has {file_size(path)} bytes and holds no whole frame of {RECORD}; copy it again"
            raise TruncatedFileError(msg, url=str(path), found=file_size(path), expected=RECORD)
        warnings = []
        if left:
            text = f"file {str(path)!r} ends with {left} bytes that make no whole frame of {RECORD} bytes"
            warnings.append(f"{text}; its {n_frames} whole frames are used")
        stated = shape_in_name(str(path))
        if stated is not None and math.prod(stated) != n_frames and self.scan_shape is None:
            text = f"the name of {str(path)!r} states a scan {stated}, it holds {n_frames} frames"
            warnings.append(f"{text}; no scan shape is assumed")
            stated = None
        if self.calibration_file is None:
            warnings.append(
                "pixels are words of the detector, no intensities; pass calibration_file='…' to decode them"
            )
        scan_shape, validity, notes = fit_scan(self.scan_shape or stated, n_frames)
        described = describe([path])
        metadata = stack_metadata(
            scan_shape,
            FRAME_SHAPE,
            source="header" if self.scan_shape is None else "user",
            warnings=warnings + notes,
            files=described,
            vendor={},
        )
        detector = metadata.detector.model_copy(update={"name": "EMPAD-G2"})
        return RecordSource(
            identity=identity(self.name, described, self.scan_shape),
            scan_shape=scan_shape,
            frame_shape=FRAME_SHAPE,
            metadata=metadata.model_copy(update={"detector": detector}),
            validity=validity,
            files=(str(path),),
            counts=(n_frames,),
            offset=0,
            stride=RECORD,
            file_dtype=np.dtype("<u4"),
        )

    def _decoded(self, words: RecordSource) -> EmpadG2Source:
        calibration = expand(self.calibration_file or "")[0]
        beside = [calibration]
        background: Background | None = None
        if self.background_file is not None:
            path = expand(self.background_file)[0]
            beside.append(path)
            background = Background.of(path, words.scan_shape[-1], identity(self.name, describe(beside)))
        text = identity(self.name, describe([calibration]))
        read_calibration(str(calibration), text)
        files = [*words.metadata.files, *describe(beside)]
        vendor = {"calibration_file": str(calibration), "background_file": self.background_file}
        return EmpadG2Source(
            identity=identity(self.name, files, self.scan_shape),
            scan_shape=words.scan_shape,
            metadata=words.metadata.model_copy(update={"files": files, "vendor": vendor}),
            validity=words.validity,
            words=words,
            calibration=(str(calibration), text),
            background=background,
        )


@dataclass(frozen=True, slots=True)
class Background:
    """A raw file without beam, the columns of its scan rows, and a text that changes with its content."""

    path: str
    n_columns: int
    identity: str

    @classmethod
    def of(cls, path: Place, n_columns: int, text: str) -> Background:
        """Describe a background file; its own name wins over the columns of the scan.

        Raises
        ------
        InputError
            The file does not consist of whole rows, so that the bank of its frames is unknown.
        """
        stated = shape_in_name(str(path))
        columns = n_columns if stated is None else stated[1]
        n_frames, _ = whole_records(file_size(path), RECORD)
        if not n_frames or n_frames % columns or (columns == 1 and n_frames > 0 and n_columns > 1):
            msg = (
                f"background {str(path)!r} holds {n_frames} frames, which make no rows of {columns} columns; give a "
                f"scan of that many columns, or name the file as scan_x{columns}_y….raw"
            )
            raise InputError(msg, url=str(path), found=n_frames, expected=columns)
        return cls(str(path), columns, text)


@dataclass(frozen=True, eq=False)
class EmpadG2Source:
    """Frames that are decoded while they are read; files are opened for every read and closed again."""

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    validity: ValidityArray | None
    words: RecordSource
    calibration: tuple[str, str]
    background: Background | None
    frame_shape: tuple[int, int] = FRAME_SHAPE

    @property
    def dtype(self) -> np.dtype[Any]:
        """Intensities are 32-bit floats."""
        return np.dtype(np.float32)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are NaN.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        words = self.words.read_frames(start, stop)
        frames = frame_buffer(out, words.shape, self.dtype)
        columns = np.arange(start, stop) % self.scan_shape[-1]
        flat = frames.reshape(len(words), SIDE * SIDE)
        _decode(words.reshape(flat.shape), columns, self.calibration, flat)
        if self.background is not None:
            from stemstore.kernels.empad_g2 import correct

            with _BACKGROUND_LOCK:  # threads that come first together work it out once
                mean = _mean_background(self.background, self.calibration)
            _, flat_field = read_calibration(*self.calibration)
            correct(flat, columns, mean, flat_field)
        if self.validity is not None:
            frames[self.validity[start:stop] == 0] = np.nan
        return frames


def _decode(words: Array, columns: Array, calibration: tuple[str, str], out: Array) -> None:
    from stemstore.kernels.empad_g2 import decode

    coefficients, _ = read_calibration(*calibration)
    decode(words, columns, coefficients, out)


@lru_cache(maxsize=4)  # one per scan that is open; 256 KiB each
def _mean_background(background: Background, calibration: tuple[str, str]) -> FloatArray:
    """Average the decoded frames of even and of odd columns, shape (2, pixels), in one pass over the file."""
    path = place(background.path)
    n_frames, _ = whole_records(file_size(path), RECORD)
    total, seen = np.zeros((2, SIDE * SIDE)), np.zeros(2)
    for first in range(0, n_frames, BATCH):
        count = min(BATCH, n_frames - first)
        words = np.empty(count * SIDE * SIDE, "<u4")
        zero = np.zeros(1, np.int64)
        read_blocks(path, zero + first * RECORD, words.nbytes, as_bytes(words), zero)
        words = words.astype(np.uint32, copy=False)
        frames = np.empty((len(words) // (SIDE * SIDE), SIDE * SIDE), np.float32)
        columns = np.arange(first, first + len(frames)) % background.n_columns
        _decode(words.reshape(frames.shape), columns, calibration, frames)
        for bank in (0, 1):
            total[bank] += frames[columns % 2 == bank].sum(axis=0, dtype=np.float64)
            seen[bank] += (columns % 2 == bank).sum()
    return total / np.maximum(seen, 1)[:, None]
