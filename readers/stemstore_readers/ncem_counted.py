"""Counted electron events in HDF5 as written by stempy, the NCEM Distiller and interactEM, versions 1, 2 and 3.

Layout: OpenChemistry/stempy (``docs/source/StempyH5Format.rst``, ``python/stempy/io/sparse_array.py``) and
NERSC/interactEM (``operators/electron-count-save``), which puts the version on the group instead of the root.
"""

from __future__ import annotations

import itertools
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID, Events
from stemstore.sources.files import describe, expand, identity, unreadable
from stemstore.sources.geometry import ValidityArray, check_missing, check_range, decide_flyback
from stemstore.sources.remote import openable, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stemstore._types import Array, Int64Array, UInt32Array
    from stemstore.sources.remote import Place
    from stemstore_schemas import CountingDescription, SourceMetadata

MAGIC = b"\x89HDF\r\n\x1a\n"
VERSIONS = (1, 2, 3)

_FRAMES, _POSITIONS = "electron_events/frames", "electron_events/scan_positions"
_NAME = re.compile(r"^(FOURD_.*_(?P<new>\d+)(_centered)?|data_scan(?P<old>\d+)_.*electrons.*)\.(h5|hdf5)$")

MAX_PIXELS = 2**28
"""Pixels of the largest frame that is believed: 16384 by 16384, beyond every detector."""

_MAX_GAP = 16
"""Rows read and dropped rather than skipped by a new HDF5 call, which costs about as much as that many rows."""


class NcemCounted:
    """Reader of counted 4D-STEM events in stempy's HDF5 layout.

    Several frames at one position come as a leading scan axis. A version 1 file has merged them into one row per
    position: there an index that repeats stays an event that counts twice in one frame, because the file does not tell
    which frame it came from.

    Parameters
    ----------
    version
        Layout version instead of what the file says.
    flyback_columns
        Columns at the end of each row taken during the flight back. None: one where the scan is one column wider than
        high, reported as a guess, else none.
    """

    name: ClassVar[str] = "ncem_counted"
    description: ClassVar[str] = "counted electron events in HDF5 (stempy, NCEM Distiller, interactEM; versions 1 to 3)"
    extensions: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")

    def __init__(self, *, version: int | None = None, flyback_columns: int | None = None) -> None:
        if version is not None and version not in VERSIONS:
            msg = f"option version={version!r} is not known; expected one of {', '.join(map(str, VERSIONS))}"
            raise InputError(msg, key="version", found=version, expected=VERSIONS)
        self.version = version
        self.flyback_columns = flyback_columns

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for HDF5 and for the group's name, which small file heads show; else go by the file name."""
        if first_bytes[: len(MAGIC)] != MAGIC:
            return 0.0
        if b"electron_events" in first_bytes:
            return 0.95
        return 0.6 if _NAME.match(place(url).name) else 0.1

    def __call__(self, url: str | list[str]) -> CountedSource:
        """Open the file: attributes and positions, no event.

        Raises
        ------
        InputError
            Several files were given.
        UnknownFormatError
            The file is no HDF5 file or holds no counted events.
        CorruptDataError, TruncatedFileError
            The layout contradicts itself, or the file is damaged.
        FormatVersionError
            The version is unknown.
        """
        files = expand(url)
        if len(files) != 1:
            msg = f"{len(files)} files were given, expected one HDF5 file; open them one at a time"
            raise InputError(msg, found=len(files), expected=1)
        path = files[0]
        with open_hdf5(path) as file:
            layout = _Layout.read(path, file, self.version)
            rows, notes = layout.rows()
            attributes = _tree(file["metadata/electron_counting"]) if "metadata/electron_counting" in file else None
            vendor: dict[str, Any] = {"version": layout.version}
            vendor |= {} if attributes is None else {"electron_counting": attributes}
            vendor |= {"user": _tree(file["user"])} if "user" in file else {}
        repeats = len(rows) // math.prod(layout.scan)
        scan_shape = layout.scan if repeats == 1 else (repeats, *layout.scan)
        validity = np.where(rows < 0, MISSING, VALID).astype(np.uint8)
        metadata = self._metadata(path, layout, scan_shape, vendor, notes)
        name = identity(self.name, metadata.files, layout.version)
        state = None if (rows >= 0).all() else validity
        return CountedSource(name, scan_shape, layout.frame, metadata, state, str(path), rows)

    def _metadata(
        self, path: Place, layout: _Layout, scan_shape: tuple[int, ...], vendor: dict[str, Any], notes: list[str]
    ) -> SourceMetadata:
        from stemstore_schemas import Acquisition, Detector, SourceMetadata

        flyback, guessed = decide_flyback(self.flyback_columns, *layout.scan)
        acquisition = Acquisition(
            scan_shape=scan_shape,
            scan_shape_source="header",
            flyback_columns=flyback,
            frames_per_position=math.prod(scan_shape[:-2]),
            scan_number=_scan_number(path),
        )
        return SourceMetadata(
            acquisition=acquisition,
            detector=Detector(shape=layout.frame),
            vendor=vendor,
            warnings=notes + guessed,
            files=describe([path]),
            counting=_counting(vendor.get("electron_counting")),
        )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Extents that the attributes state, and the scan position of every row."""

    path: Place
    version: int
    scan: tuple[int, int]
    frame: tuple[int, int]
    n_rows: int
    positions: Int64Array

    @classmethod
    def read(cls, path: Place, file: Any, version: int | None) -> _Layout:
        """Read and check attributes; `version` overrides the file."""
        import h5py

        if _FRAMES not in file or _POSITIONS not in file:
            msg = f"file {str(path)!r} holds {sorted(file)}, expected {_FRAMES} and {_POSITIONS}; it is no counted scan"
            raise UnknownFormatError(msg, url=str(path), found=sorted(file), expected=[_FRAMES, _POSITIONS])
        frames, positions = file[_FRAMES], file[_POSITIONS]
        element = h5py.check_vlen_dtype(frames.dtype)
        if frames.ndim != 1 or element is None or np.dtype(element).kind not in "ui":
            msg = (
                f"{_FRAMES} in {str(path)!r} is {frames.dtype} of shape {frames.shape}, expected one row of whole "
                "numbers of variable length per frame; it was written by another program, convert it first"
            )
            raise CorruptDataError(msg, url=str(path), key=_FRAMES)
        if version is None:
            version = _plain(file.attrs.get("version", file["electron_events"].attrs.get("version", 1)))
        if version not in VERSIONS:
            msg = f"file {str(path)!r} has version {version!r}, known are 1, 2 and 3; update stemstore"
            raise FormatVersionError(msg, url=str(path), found=version, expected=VERSIONS)
        version = int(version)
        width, height = (_extent(path, positions, _POSITIONS, key) for key in ("Nx", "Ny"))
        if "Nx" in frames.attrs:  # of a frame, Nx is the number of rows; of the scan, it is the width
            frame = (_extent(path, frames, _FRAMES, "Nx"), _extent(path, frames, _FRAMES, "Ny"))
        else:
            frame = _frame_dimensions(path, frames)
        if math.prod(frame) > MAX_PIXELS:
            msg = f"{_FRAMES} in {str(path)!r} states frames of {frame[0]} by {frame[1]} pixels; correct Nx and Ny"
            raise CorruptDataError(msg, url=str(path), key=_FRAMES, found=frame, expected=MAX_PIXELS)
        check_missing((height, width), len(frames))
        return cls(path, version, (height, width), frame, len(frames), positions[...].astype(np.int64).reshape(-1))

    def rows(self) -> tuple[Int64Array, list[str]]:
        """Find the row of every frame in the order (exposure, y, x); -1 where the file has none.

        Returns
        -------
        rows, warnings
        """
        n_positions = math.prod(self.scan)
        if self.version == VERSIONS[-1]:
            return self._regular_rows(n_positions)
        if len(self.positions) == self.n_rows:
            position = self.positions
        elif self.version == 1 and self.n_rows <= n_positions:
            position = np.arange(self.n_rows, dtype=np.int64)
        else:
            msg = (
                f"file {str(self.path)!r} has {self.n_rows} rows and {len(self.positions)} scan positions, expected as "
                f"many in version {self.version}; pass version=3 if the rows of a position follow each other"
            )
            raise CorruptDataError(msg, url=str(self.path), key=_POSITIONS)
        outside = np.flatnonzero((position < 0) | (position >= n_positions))
        if len(outside):
            row = int(outside[0])
            msg = (
                f"row {row} of {_POSITIONS} in {str(self.path)!r} is {position[row]}, "
                f"expected 0 to {n_positions - 1} for a scan of {self.scan[0]} rows and {self.scan[1]} columns; "
                "the file is damaged"
            )
            raise CorruptDataError(msg, url=str(self.path), key=_POSITIONS, row=row, found=int(position[row]))
        return _place_rows(position, n_positions), []

    def _regular_rows(self, n_positions: int) -> tuple[Int64Array, list[str]]:
        repeats, left = divmod(self.n_rows, n_positions)
        if repeats == 0:
            rows = np.full(n_positions, -1, dtype=np.int64)
            rows[: self.n_rows] = np.arange(self.n_rows)
            return rows, [f"{self.n_rows} rows were found for {n_positions} positions; the last ones are missing"]
        by_exposure = np.arange(n_positions * repeats, dtype=np.int64).reshape(n_positions, repeats).T
        notes = [f"{left} rows behind the last position are ignored ({self.n_rows} rows in all)"] if left else []
        return by_exposure.reshape(-1), notes


@dataclass(frozen=True, eq=False)
class CountedSource:
    """Events of a counted scan; the file is opened for every read and closed again.

    Attributes
    ----------
    rows : shape (n_frames,)
        Row of the file that holds each frame in the order (exposure, y, x), -1 for none.
    """

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    path: str
    rows: Int64Array

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError
            An event lies outside the frame.
        StorageError
            The file cannot be read.
        """
        check_range(start, stop, len(self.rows))
        rows = self.rows[start:stop]
        order = np.argsort(rows, kind="stable")
        order = order[np.searchsorted(rows[order], 0) :]
        lists: list[Array] = [np.empty(0, dtype=np.uint32)] * len(rows)
        if len(order):
            with open_hdf5(place(self.path)) as file:
                for number, events in zip(order.tolist(), _read_rows(file[_FRAMES], rows[order]), strict=True):
                    lists[number] = events
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(events) for events in lists], out=indptr[1:])
        indices = np.concatenate(lists) if lists else np.empty(0, dtype=np.uint32)
        self._check(indices, indptr, rows)
        return Events(indptr, _ascending(indices.astype(np.uint32, copy=False), indptr), self.frame_shape)

    def _check(self, indices: Array, indptr: Int64Array, rows: Int64Array) -> None:
        n_pixels = math.prod(self.frame_shape)
        if not len(indices) or (indices.min() >= 0 and indices.max() < n_pixels):
            return
        first = int(np.flatnonzero((indices < 0) | (indices >= n_pixels))[0])
        row = int(rows[np.searchsorted(indptr, first, side="right") - 1])
        msg = (
            f"row {row} of {_FRAMES} in {self.path!r} holds the event {indices[first]}, "
            f"expected 0 to {n_pixels - 1} for frames of {self.frame_shape[0]} by {self.frame_shape[1]} pixels; "
            "the file is damaged or its attributes are wrong"
        )
        raise CorruptDataError(msg, url=self.path, key=_FRAMES, row=row, found=int(indices[first]))


@contextmanager
def open_hdf5(path: Place) -> Iterator[Any]:
    """Open an HDF5 file for reading, without a lock, for the duration of a block."""
    import h5py

    try:
        with path.open("rb") as head:
            magic = head.read(len(MAGIC))
    except OSError as error:
        raise unreadable(path, error) from error
    if magic != MAGIC:
        msg = f"file {str(path)!r} starts with {magic!r}, expected {MAGIC!r}; it is no HDF5 file"
        raise UnknownFormatError(msg, url=str(path), found=magic, expected=MAGIC)
    try:
        with openable(path) as source, h5py.File(source, "r", locking=False) as file:
            yield file
    except StemStoreError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        if "truncated" in str(error):
            msg = f"HDF5 file {str(path)!r} ends before its content does ({error}); copy it again"
            raise TruncatedFileError(msg, url=str(path)) from error
        msg = f"HDF5 file {str(path)!r} cannot be read: {error}; it is damaged, copy it again"
        raise CorruptDataError(msg, url=str(path)) from error


def _read_rows(frames: Any, rows: Int64Array) -> Iterator[Array]:
    """Read ascending rows: evenly spaced ones by one strided call, others by spans whose gaps are dropped."""
    steps = np.diff(rows)
    if len(steps) and (steps == steps[0]).all():
        yield from frames[int(rows[0]) : int(rows[-1]) + 1 : int(steps[0])]
        return
    edges = [0, *(np.flatnonzero(steps > _MAX_GAP) + 1).tolist(), len(rows)]
    for first, last in itertools.pairwise(edges):
        base = int(rows[first])
        span = frames[base : int(rows[last - 1]) + 1]
        for row in rows[first:last].tolist():
            yield span[row - base]


def _ascending(indices: UInt32Array, indptr: Int64Array) -> UInt32Array:
    """Sort the events of each frame that are not sorted already."""
    falls = np.flatnonzero(indices[1:] < indices[:-1]) + 1
    inside = falls[~np.isin(falls, indptr)]
    for frame in np.unique(np.searchsorted(indptr, inside, side="right") - 1).tolist():
        indices[indptr[frame] : indptr[frame + 1]].sort()
    return indices


def _place_rows(position: Int64Array, n_positions: int) -> Int64Array:
    """Give the rows of each position, in file order, the slots (exposure, position)."""
    order = np.argsort(position, kind="stable")
    ordered = position[order]
    slot = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
    repeats = int(slot.max(initial=0)) + 1
    rows = np.full(repeats * n_positions, -1, dtype=np.int64)
    rows[slot * n_positions + ordered] = order
    return rows


def _extent(path: Place, dataset: Any, name: str, key: str) -> int:
    value: Any = dataset.attrs.get(key)
    if not isinstance(value, int | np.integer) or value < 1:
        msg = f"attribute {key} of {name} in {str(path)!r} is {value!r}, expected a whole number above zero; add it"
        raise CorruptDataError(msg, url=str(path), key=f"{name}@{key}", found=value)
    return int(value)


def _frame_dimensions(path: Place, frames: Any) -> tuple[int, int]:
    """Rows and columns from the early attribute (width, height)."""
    value = np.atleast_1d(frames.attrs.get("frame_dimensions", ()))
    if value.shape != (2,) or value.dtype.kind not in "ui" or (value < 1).any():
        msg = (
            f"{_FRAMES} in {str(path)!r} has neither Nx and Ny nor frame_dimensions, got {sorted(frames.attrs)}; "
            "add the attributes Nx (rows) and Ny (columns)"
        )
        raise CorruptDataError(msg, url=str(path), key=f"{_FRAMES}@Nx", found=sorted(frames.attrs))
    return int(value[1]), int(value[0])


def _tree(group: Any) -> dict[str, Any]:
    """Take the attributes of a group and of the groups in it, verbatim."""
    attributes = {str(key): _plain(value) for key, value in group.attrs.items()}
    return attributes | {str(key): _tree(child) for key, child in group.items() if hasattr(child, "items")}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _counting(attributes: Mapping[str, Any] | None) -> CountingDescription:
    from stemstore_schemas import CountingDescription

    if attributes is None:
        return CountingDescription(rule="foreign")

    def number(key: str) -> float | None:
        value: Any = attributes.get(key)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if known and math.isfinite(value) else None

    background, samples = number("background_threshold"), number("number_of_samples")
    return CountingDescription(
        rule="stempy",
        background_threshold=None if background is None else [background],
        xray_threshold=number("x_ray_threshold"),
        pedestal_mean=number("optimized_mean"),
        pedestal_sigma=number("optimized_std_dev"),
        background_sigma=number("background_threshold_n_sigma"),
        xray_sigma=number("x_ray_threshold_n_sigma"),
        n_sampled_frames=int(samples) if samples is not None and samples >= 0 else None,
    )


def _scan_number(path: Place) -> int | None:
    match = _NAME.match(path.name)
    return int(match["new"] or match["old"]) if match else None
