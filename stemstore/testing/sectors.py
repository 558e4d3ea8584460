"""Writer of raw sector files of the NCEM 4D Camera, header versions 3, 4 and 5, with the faults of real scans.

Layout (OpenChemistry/stempy: docs/source/4dCamera_header_versions.rst, stempy/reader.h): a file is a plain
concatenation of records, each a 16-byte little-endian header (scan number uint32, frame number uint32, scan width,
scan height, x, y uint16) and uint16 pixels. Version 3 holds whole frames; a version-4 record holds module m as columns
[144 m, 144 m + 144) of all rows, a version-5 record as rows [144 m, 144 m + 144). The version is not stored. The module
stands in the file name only.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from stemstore.errors import DestinationExistsError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array

DETECTOR = (576, 576)
N_MODULES = 4
MODULE = 144
HEADER = [("scan", "<u4"), ("frame", "<u4"), ("w", "<u2"), ("h", "<u2"), ("x", "<u2"), ("y", "<u2")]
PIXELS = {3: DETECTOR, 4: (DETECTOR[0], MODULE), 5: (MODULE, DETECTOR[1])}
DUPLICATE_VALUE = 1  # pixels of a duplicate record, so that a reader which keeps the later one is found out


def record_type(version: int) -> np.dtype[Any]:
    """Give the numpy type of one record.

    Raises
    ------
    InputError
        The version is not 3, 4 or 5.
    """
    if version not in PIXELS:
        msg = f"sector files of version {version!r} cannot be written; expected 3, 4 or 5"
        raise InputError(msg, key="version", found=version)
    return np.dtype([*HEADER, ("data", "<u2", PIXELS[version])])


@dataclass(frozen=True, slots=True)
class SectorOptions:
    """How a scan is laid out in sector files, and what goes wrong with it.

    Attributes
    ----------
    version
        Of the record header: 3, 4 or 5.
    scan_number
        Identifier in headers and file names.
    files_per_module
        Files over which the records of a module are interleaved; for version 3, files in all.
    flyback_columns
        Columns beyond the visible ones; the width in the header includes them.
    frames_per_position
        Exposures with equal (x, y) and consecutive frame numbers.
    lost_sectors
        Share of records that are absent, or a list of absent (frame, module). The records named by `duplicate` and
        `foreign_scan_record` are always there.
    shuffle
        Records stand in random order within each file.
    duplicate
        (frame, module) whose record occurs again at the end of its file, its pixels set to 1.
    truncate_last
        Bytes cut off the last file in order of names.
    foreign_scan_record
        (frame, module) whose header names another scan.
    seed
        Of lost and shuffled records.
    """

    version: int = 5
    scan_number: int = 15
    files_per_module: int = 2
    flyback_columns: int = 1
    frames_per_position: int = 1
    lost_sectors: float | Iterable[tuple[int, int]] = 0.0
    shuffle: bool = False
    duplicate: tuple[int, int] | None = None
    truncate_last: int = 0
    foreign_scan_record: tuple[int, int] | None = None
    seed: int = 0

    @property
    def n_modules(self) -> int:
        """Records per frame."""
        return 1 if self.version == 3 else N_MODULES  # noqa: PLR2004  a version number

    def file_names(self) -> list[list[str]]:
        """Give the file names, by module and by file of the module."""
        return [
            [f"data_scan{self.scan_number:010d}_module{m}_{k:03d}.data" for k in range(self.files_per_module)]
            for m in range(self.n_modules)
        ]

    def lost(self, n_frames: int) -> BoolArray:
        """Tell which records are absent, shape (n_frames, n_modules)."""
        lost = np.zeros((n_frames, self.n_modules), np.bool_)
        if isinstance(self.lost_sectors, int | float):
            rng = np.random.Generator(np.random.Philox(key=self.seed))
            chosen = rng.permutation(lost.size)[: round(self.lost_sectors * lost.size)]
            lost.reshape(-1)[chosen] = True
        else:
            for frame, module in self.lost_sectors:
                self._check_record("lost_sectors", (frame, module), lost.shape)
                lost[frame, module] = True
        for name in ("duplicate", "foreign_scan_record"):
            record = getattr(self, name)
            if record is not None:
                self._check_record(name, record, lost.shape)
                lost[record] = False
        return lost

    @staticmethod
    def _check_record(name: str, record: tuple[int, int], shape: tuple[int, ...]) -> None:
        if not (0 <= record[0] < shape[0] and 0 <= record[1] < shape[1]):
            msg = f"{name} names (frame, module) {record}; the scan has {shape[0]} frames of {shape[1]} records"
            raise InputError(msg, key=name, found=record)


@dataclass(frozen=True, slots=True, eq=False)
class SectorReport:
    """What was written.

    Attributes
    ----------
    files
        Paths by module, then by file of the module.
    lost : shape (n_frames, n_modules)
        Records that are absent.
    n_bytes
        Size of all files.
    """

    files: list[list[Path]]
    lost: BoolArray
    n_bytes: int

    @property
    def paths(self) -> list[Path]:
        """All paths in order of names."""
        return [path for module in self.files for path in module]


def write_sectors(
    folder: str | Path, frames: Iterable[Array], scan_shape: tuple[int, int], **options: Any
) -> SectorReport:
    """Write frames as raw sector files, one block after the other.

    Parameters
    ----------
    folder
        Made if absent; must not hold files of the same names.
    frames : of shape (576, 576) or (n, 576, 576), uint16
        Frames or blocks of frames in order of frame numbers: row by row of the scan, flyback columns included, the
        exposures of a position one after the other.
    scan_shape
        Rows and columns without flyback.
    **options
        Fields of `SectorOptions`.

    Raises
    ------
    InputError
        A frame has another shape or type, or the number of frames does not fit the scan.
    DestinationExistsError
        A file is already there.

    Notes
    -----
    Memory: one block of frames and its records.
    """
    settings = SectorOptions(**options)
    kind = record_type(settings.version)
    width = scan_shape[1] + settings.flyback_columns
    n_frames = scan_shape[0] * width * settings.frames_per_position
    plan = _Plan.make(settings, n_frames)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [[folder / name for name in names] for names in settings.file_names()]
    with ExitStack() as stack:
        handles = [[stack.enter_context(_create(path)) for path in paths] for paths in files]
        writer = _Writer(settings, plan, kind, (scan_shape[0], width), handles)
        writer.write_all(frames, n_frames)
    if settings.truncate_last:
        last = files[-1][-1]
        with last.open("r+b") as handle:
            handle.truncate(last.stat().st_size - settings.truncate_last)
    return SectorReport(files, plan.lost, sum(path.stat().st_size for paths in files for path in paths))


def _create(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:
        msg = f"sector file {str(path)!r} already exists; choose an empty folder or remove it"
        raise DestinationExistsError(msg, url=str(path)) from None


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Where every record goes: file of its module, and place within the file (-1: lost)."""

    file: Int64Array
    slot: Int64Array
    lost: BoolArray
    n_records: Int64Array

    @classmethod
    def make(cls, settings: SectorOptions, n_frames: int) -> _Plan:
        """Deal the sectors of all frames to files and places."""
        lost = settings.lost(n_frames)
        # neighbouring modules of a frame go to different files, as they pass through different receivers
        file = (np.arange(n_frames)[:, None] + np.arange(settings.n_modules)) % settings.files_per_module
        slot = np.full(file.shape, -1, np.int64)
        n_records = np.zeros((settings.n_modules, settings.files_per_module), np.int64)
        rng = np.random.Generator(np.random.Philox(key=settings.seed + 1))
        for module in range(settings.n_modules):
            for k in range(settings.files_per_module):
                members = np.flatnonzero((file[:, module] == k) & ~lost[:, module])
                order = rng.permutation(members.size) if settings.shuffle else np.arange(members.size)
                slot[members, module] = order
                n_records[module, k] = members.size
        return cls(file, slot, lost, n_records)


@dataclass(frozen=True, slots=True, eq=False)
class _Writer:
    """Cuts blocks of frames into records and writes them to their places."""

    settings: SectorOptions
    plan: _Plan
    kind: np.dtype[Any]
    stored_shape: tuple[int, int]
    handles: list[list[BinaryIO]]

    def write_all(self, frames: Iterable[Array], n_frames: int) -> None:
        """Write all frames."""
        done = 0
        for item in frames:
            block = item[None] if item.ndim == len(DETECTOR) else item
            if block.shape[1:] != DETECTOR or block.dtype != np.uint16:
                msg = (
                    f"block at frame {done} has shape {block.shape} and type {block.dtype}; "
                    f"expected (n, {DETECTOR[0]}, {DETECTOR[1]}) and uint16"
                )
                raise InputError(msg, frame=done, found=block.shape)
            if done + len(block) > n_frames:
                msg = f"more than the {n_frames} frames of the scan were given; check scan_shape and flyback_columns"
                raise InputError(msg, expected=n_frames)
            for module in range(self.settings.n_modules):
                self._write_module(block, done, module)
            done += len(block)
        if done != n_frames:
            msg = f"{done} frames were given for a scan of {n_frames}; check scan_shape and flyback_columns"
            raise InputError(msg, found=done, expected=n_frames)

    def _write_module(self, block: UInt16Array, first: int, module: int) -> None:
        numbers = np.arange(first, first + len(block))
        for k, handle in enumerate(self.handles[module]):
            here = (self.plan.file[numbers, module] == k) & (self.plan.slot[numbers, module] >= 0)
            chosen = numbers[here]
            if chosen.size == 0:
                continue
            records = self._records(block, here, chosen, module)
            self._put(handle, records, self.plan.slot[chosen, module])
            if self.settings.duplicate is not None:
                frame, other = self.settings.duplicate
                again = records[(chosen == frame) & (module == other)]
                again["data"] = DUPLICATE_VALUE
                self._put(handle, again, self.plan.n_records[module, k : k + 1])

    def _records(self, block: UInt16Array, here: BoolArray, numbers: Int64Array, module: int) -> Array:
        records = np.empty(len(numbers), self.kind)
        position = numbers // self.settings.frames_per_position
        height, width = self.stored_shape
        records["scan"], records["frame"] = self.settings.scan_number, numbers
        records["w"], records["h"] = width, height
        records["y"], records["x"] = np.divmod(position, width)
        part = slice(MODULE * module, MODULE * (module + 1))
        if self.settings.version == 3:  # noqa: PLR2004  a version number
            records["data"] = block[here]
        elif self.settings.version == 4:  # noqa: PLR2004  a version number
            records["data"] = block[here, :, part]
        else:
            records["data"] = block[here, part]
        foreign = self.settings.foreign_scan_record
        if foreign is not None and foreign[1] == module:
            records["scan"][numbers == foreign[0]] += 1
        return records

    def _put(self, handle: BinaryIO, records: Array, slots: Int64Array) -> None:
        """Write records to their slots, runs of neighbours at once."""
        if len(records) == 0:
            return
        starts = np.concatenate([[0], np.flatnonzero(np.diff(slots) != 1) + 1, [len(slots)]])
        for start, stop in itertools.pairwise(starts):
            handle.seek(int(slots[start]) * self.kind.itemsize)
            handle.write(records[start:stop].view(np.uint8).data)
