"""LiberTEM's RAW_CSR: the events of a scan as three flat files, and a TOML file that describes them.

Layout: LiberTEM/LiberTEM (``src/libertem/io/dataset/raw_csr.py``). Entry i lies in pixel ``indices[i]`` and counts
``data[i]``; frame f owns the entries ``indptr[f] <= i < indptr[f + 1]``.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.contract import Events
from stemstore.sources.files import describe, expand, identity
from stemstore.sources.geometry import check_range, decide_flyback, place_frames, shape_option
from stemstore.sources.records import stack_metadata
from stemstore.sources.remote import place
from stemstore_readers.raw_csr_table import FILETYPE, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array, UInt32Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore_readers.raw_csr_table import FlatFile
    from stemstore_schemas import SourceMetadata

MAX_ELECTRONS = 2**26
"""Electrons of one frame that are believed; values beyond are energies or noise, and would fill the memory."""

_HEAD = re.compile(rb"^\s*filetype\s*=\s*[\"']raw_csr[\"']", re.MULTILINE | re.IGNORECASE)
_FIRST_BYTES = 4096

Values = Literal["counts", "ones"]


class RawCsr:
    """Reader of sparse 4D-STEM data in LiberTEM's RAW_CSR layout.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of the ``nav_shape`` of the file.
    detector_shape
        ``(rows, columns)`` of as many pixels as the ``sig_shape`` of the file, instead of it.
    sync_offset
        Frames to skip before the first position; negative: blank positions before the first frame.
    flyback_columns
        Columns at the end of each row taken during the flight back.
    values
        ``"counts"``: a value is the number of electrons in its pixel, a whole number. ``"ones"``: every entry is one
        electron, whatever its value (energies, times over threshold).
    """

    name: ClassVar[str] = "raw_csr"
    description: ClassVar[str] = "sparse events in three flat files described by a TOML file (LiberTEM RAW_CSR)"
    extensions: ClassVar[tuple[str, ...]] = (".toml",)

    def __init__(
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        detector_shape: Sequence[int] | None = None,
        sync_offset: int = 0,
        flyback_columns: int | None = None,
        values: Values = "counts",
    ) -> None:
        if isinstance(sync_offset, bool) or not isinstance(sync_offset, int):
            msg = f"option sync_offset={sync_offset!r} is not a number of frames; expected a whole number"
            raise InputError(msg, key="sync_offset", found=sync_offset)
        if values not in ("counts", "ones"):
            msg = f"option values={values!r} is not known; expected 'counts' or 'ones'"
            raise InputError(msg, key="values", found=values, expected=["counts", "ones"])
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.detector_shape = None if detector_shape is None else shape_option("detector_shape", detector_shape, (2,))
        self.sync_offset = sync_offset
        self.flyback_columns = flyback_columns
        self.values: Values = values

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the file type in the TOML; of a longer file, in its head."""
        del url
        if FILETYPE.encode() not in first_bytes.lower():
            return 0.0
        if len(first_bytes) >= _FIRST_BYTES:
            return 0.9 if _HEAD.search(first_bytes) else 0.0
        try:
            params = tomllib.loads(first_bytes.decode()).get("params")
        except (ValueError, RecursionError):
            return 0.0
        return 1.0 if isinstance(params, dict) and str(params.get("filetype")).lower() == FILETYPE else 0.0

    def __call__(self, url: str | list[str]) -> CsrSource:
        """Open the description and look at the sizes of its files; no event is read.

        Raises
        ------
        InputError
            Several files were given, or an option does not fit them.
        UnknownFormatError
            The file is no description of RAW_CSR data.
        CorruptDataError, TruncatedFileError
            The description is damaged, or the files do not belong together.
        NotFoundError
            A file that it names is missing.
        """
        paths = expand(url)
        if len(paths) != 1:
            msg = f"{len(paths)} files were given, expected one TOML file; open them one at a time"
            raise InputError(msg, found=len(paths), expected=1)
        table = Table.read(paths[0])
        self._check_values(table.data)
        scan_shape, frame_shape = self._shapes(table)
        warnings = table.check()
        validity, notes = place_frames(scan_shape, table.n_frames, self.sync_offset)
        files = describe([paths[0], *(place(file.path) for file in (table.indptr, table.indices, table.data))])
        metadata = stack_metadata(
            scan_shape,
            frame_shape,
            source="header" if self.scan_shape is None else "user",
            warnings=warnings + notes,
            files=files,
            vendor=table.vendor,
        )
        options = (self.scan_shape, self.detector_shape, self.sync_offset, self.values)
        return CsrSource(
            identity=identity(self.name, files, options),
            scan_shape=scan_shape,
            frame_shape=frame_shape,
            metadata=self._with_geometry(metadata, scan_shape),
            validity=validity,
            table=table,
            offset=self.sync_offset,
            values=self.values,
        )

    def _check_values(self, data: FlatFile) -> None:
        if self.values == "ones" or data.dtype.kind in "ui":
            return
        msg = (
            f"values in {data.path!r} are {data.dtype.name}, expected whole numbers of electrons; pass values='ones' "
            "to count every entry once, or write the numbers of electrons as unsigned integers"
        )
        raise InputError(msg, url=data.path, key="values", found=data.dtype.name)

    def _shapes(self, table: Table) -> tuple[tuple[int, ...], tuple[int, int]]:
        scan = self.scan_shape or table.shape("nav_shape", (1, 2, 3), "scan_shape")
        if self.detector_shape is None:
            rows, columns = table.shape("sig_shape", (2,), "detector_shape")
            return scan, (rows, columns)
        pixels, (rows, columns) = table.n_pixels, self.detector_shape
        if rows * columns != pixels:
            msg = (
                f"option detector_shape={self.detector_shape} has {rows * columns} pixels, but the frames of "
                f"{table.path!r} have {pixels}; give rows and columns of the same number of pixels"
            )
            raise InputError(msg, key="detector_shape", found=rows * columns, expected=pixels)
        return scan, (rows, columns)

    def _with_geometry(self, metadata: SourceMetadata, scan_shape: tuple[int, ...]) -> SourceMetadata:
        flyback, _ = decide_flyback(self.flyback_columns or 0, 0, scan_shape[-1])
        changes = {"sync_offset": self.sync_offset, "flyback_columns": flyback}
        return metadata.model_copy(update={"acquisition": metadata.acquisition.model_copy(update=changes)})


@dataclass(frozen=True, eq=False)
class CsrSource:
    """Events of a RAW_CSR scan; files are opened for every read and closed again."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    table: Table
    offset: int
    values: Values

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError
            Entries of a frame contradict the format; the message names frame, file and byte.
        TruncatedFileError, StorageError
            A file cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        first, last = (min(max(place + self.offset, 0), self.table.n_frames) for place in (start, stop))
        indptr = np.zeros(stop - start + 1, np.int64)
        if first == last:
            return Events(indptr, np.empty(0, np.uint32), self.frame_shape)
        pointers = self._pointers(first, last)
        begin, end = int(pointers[0]), int(pointers[-1])
        indices = self.table.indices.read(begin, end)
        self._refuse("indices", indices, pointers, first, math.prod(self.frame_shape) - 1)
        ends = pointers - begin
        if self.values == "counts":
            values = self.table.data.read(begin, end)
            self._refuse("data", values, pointers, first, MAX_ELECTRONS)
            ends = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[ends]
            self._refuse_crowd(ends, first)
            indices = np.repeat(indices, values.astype(np.int64))
        place = first - self.offset - start
        indptr[place : place + len(ends)] = ends
        indptr[place + len(ends) :] = ends[-1]
        return Events(indptr, _ascending(indices, indptr, math.prod(self.frame_shape)), self.frame_shape)

    def _pointers(self, first: int, last: int) -> Int64Array:
        """Where frames ``first <= f < last`` begin, and where the last one ends."""
        file, limit = self.table.indptr, self.table.indices.length
        found = file.read(first, last + 1)
        wrong = (found < 0) | (found > limit)
        wrong[1:] |= found[1:] < found[:-1]
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            msg = (
                f"frame {first + at} starts at entry {found[at]} (byte {(first + at) * file.dtype.itemsize} of "
                f"{file.path!r}), expected a rising number up to {limit}; the file is damaged or its dtype is wrong"
            )
            raise CorruptDataError(msg, url=file.path, frame=first + at, found=int(found[at]), expected=limit)
        return found.astype(np.int64)

    def _refuse(self, role: str, numbers: Array, pointers: Int64Array, first: int, limit: int) -> None:
        """Refuse numbers outside 0 to `limit`, naming the first one."""
        if not len(numbers) or (numbers.min() >= 0 and numbers.max() <= limit):
            return
        at = int(np.flatnonzero((numbers < 0) | (numbers > limit))[0])
        frame = first + int(np.searchsorted(pointers - pointers[0], at, side="right")) - 1
        file = self.table.indices if role == "indices" else self.table.data
        what = "pixel" if role == "indices" else "value"
        hint = "sig_shape or the dtype is wrong" if role == "indices" else "pass values='ones' if values are no counts"
        msg = (
            f"frame {frame} has the {what} {numbers[at]} (byte {(int(pointers[0]) + at) * file.dtype.itemsize} of "
            f"{file.path!r}), expected 0 to {limit}; {hint}"
        )
        raise CorruptDataError(msg, url=file.path, frame=frame, found=int(numbers[at]), expected=limit)

    def _refuse_crowd(self, ends: Int64Array, first: int) -> None:
        electrons = np.diff(ends)
        if electrons.max(initial=0) > MAX_ELECTRONS:
            at = int(electrons.argmax())
            msg = (
                f"values of frame {first + at} in {self.table.data.path!r} add up to {electrons[at]} electrons, "
                f"expected at most {MAX_ELECTRONS}; pass values='ones' if values are no counts"
            )
            raise CorruptDataError(msg, url=self.table.data.path, frame=first + at, found=int(electrons[at]))


def _ascending(indices: Array, indptr: Int64Array, n_pixels: int) -> UInt32Array:
    """Sort the events inside each frame, where they are not sorted already."""
    keys = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64) * n_pixels, np.diff(indptr))
    keys += indices.astype(np.int64, copy=False)
    if not (keys[1:] < keys[:-1]).any():
        return indices.astype(np.uint32, copy=False)
    keys.sort()
    return (keys % n_pixels).astype(np.uint32)
