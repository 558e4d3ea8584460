"""Gatan K2 IS: eight files of raw sectors, ``name1.bin`` to ``name8.bin``, and ``name.gtg`` with what was set.

File s holds the columns 256 (s - 1) to 256 s of frames of 1860 x 2048 pixels (`stemstore_readers.k2is_sectors`). The
``.gtg`` file is a tag file of DigitalMicrograph. The camera writes before a scan starts; a flag in the blocks tells
when the shutter opened. Source: LiberTEM (``src/libertem/io/dataset/k2is.py``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, NotFoundError, StemStoreError
from stemstore.sources.contract import MISSING, PARTIAL, VALID
from stemstore.sources.files import describe, expand, file_size, identity, list_beside
from stemstore.sources.geometry import ValidityArray, check_range, flyback_of, place_frames, shape_option
from stemstore.sources.records import as_bytes, frame_buffer, read_blocks
from stemstore.sources.remote import place
from stemstore_readers import k2is_sectors as sectors
from stemstore_readers.dm_metadata import image_metadata
from stemstore_readers.dm_tags import as_document, look_up, parse_header, read_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.remote import Place
    from stemstore_readers.dm_tags import Tree
    from stemstore_schemas import Detector, SourceMetadata

FRAME_SHAPE = (sectors.SECTOR_SHAPE[0], sectors.N_SECTORS * sectors.SECTOR_SHAPE[1])
COLUMNS = sectors.SECTOR_SHAPE[1]
PIXEL = np.dtype(np.uint16)

BATCH = 4
"""Frames of one sector that are read at a time, 3 MB."""

WITH_FLYBACK = "SI Dimensions/Size Y", "SI Dimensions/Size X"
WITHOUT_FLYBACK = tuple(
    f"SI Image Tags/SI/Acquisition/Spatial Sampling/{side} (pixels)" for side in ("Height", "Width")
)

_NAME = re.compile(r"(.*)([1-8])\.bin", re.IGNORECASE | re.DOTALL)


class K2is:
    """Reader of K2 IS scans and time series.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)``, flyback columns included, instead of what the ``.gtg`` file says.
    flyback_columns
        Columns at the end of each row taken during the flight back. None: what the ``.gtg`` file says; without one, one
        column where the scan is one column wider than high, reported as a guess.
    sync_offset
        Frames skipped behind the one at which the scan starts; negative: positions left blank before it.
    """

    name: ClassVar[str] = "k2is"
    description: ClassVar[str] = "Gatan K2 IS raw sectors (name1.bin to name8.bin with name.gtg)"
    extensions: ClassVar[tuple[str, ...]] = (".gtg", ".bin")

    def __init__(
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        flyback_columns: int | None = None,
        sync_offset: int = 0,
    ) -> None:
        if isinstance(sync_offset, bool) or not isinstance(sync_offset, int):
            msg = f"option sync_offset={sync_offset!r} is not a number of frames; expected a whole number"
            raise InputError(msg, key="sync_offset", found=sync_offset)
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))
        self.flyback_columns = flyback_columns
        self.sync_offset = sync_offset

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for a block, or for a tag file with sectors of its name beside it."""
        try:
            if sectors.parse_header(first_bytes) is not None:
                return 1.0
            path = place(url)
            if path.suffix.lower() != ".gtg" or not first_bytes:
                return 0.0
            parse_header(first_bytes)
            return 1.0 if any(path.with_name(f"{path.stem}{n}.bin").exists() for n in range(1, 9)) else 0.0
        except (OSError, ValueError, StemStoreError):
            return 0.0

    def __call__(self, url: str | list[str]) -> K2Source:
        """Open the files: headers of some blocks, no pixel.

        Parameters
        ----------
        url
            The ``.gtg`` file, or one or all of the ``.bin`` files.

        Raises
        ------
        NotFoundError, StorageError
            No sector is there, or a file cannot be read.
        InputError
            Files of several scans were given, or an option does not fit.
        CorruptDataError, SectorMismatchError, TruncatedFileError
            A file is damaged, or the files do not belong together.
        """
        files, gtg = find_files(expand(url))
        notes = [f"sector {s + 1} has no file; its pixels are zero and every frame is partial" for s in _absent(files)]
        runs: list[list[sectors.Run]] = []
        for path in files:
            found, told = sectors.find_runs(path, file_size(path)) if path else ([], [])
            kept, dropped = sectors.after_reset(path, found) if path else ([], [])
            runs.append(kept)
            notes += told + dropped
        frames = sectors.common_frames(runs)
        tree, told = _read_gtg(gtg)
        start, odd = self._start(files, frames, stem=_stated(tree, WITH_FLYBACK) is not None)
        return self._source(files, gtg, tree, frames, start, notes + frames.warnings + told + odd)

    def _start(self, files: list[Place | None], frames: sectors.Frames, *, stem: bool) -> tuple[int, list[str]]:
        """Find the frame at which the acquisition starts; the flag of the shutter is one frame late in scans."""

        def exposed(frame: int) -> bool:
            while frame < len(frames.offsets) - 1 and (frames.offsets[frame] < 0).all():
                frame += 1  # the flag of a lost frame is that of the next one
            sector = int(np.argmax(frames.offsets[frame] >= 0))
            path = files[sector]
            head = sectors.read_header(path, int(frames.offsets[frame, sector])) if path else None
            return head is not None and head.shutter

        first = sectors.first_exposed(len(frames.offsets), exposed)
        if first is None:
            return 0, ["no frame has an open shutter; all frames are read, the start of a scan is not known"]
        if stem and first == 0:
            return 0, ["the shutter is open from the first frame on: the start of the scan may be missing"]
        return first - stem, []

    def _source(
        self,
        files: list[Place | None],
        gtg: Place | None,
        tree: Tree,
        frames: sectors.Frames,
        start: int,
        notes: list[str],
    ) -> K2Source:
        offsets = frames.offsets[start:]
        stated, inner = _stated(tree, WITH_FLYBACK), _stated(tree, WITHOUT_FLYBACK)
        shape = self.scan_shape or stated or (max(len(offsets) - self.sync_offset, 1),)
        validity, placed = place_frames(shape, len(offsets), self.sync_offset)
        flyback, guessed = self._flyback(shape, stated, inner)
        there = [path for path in files if path]
        described = describe([*there, *([gtg] if gtg else [])])
        about = image_metadata(
            {"ImageTags": {**tree, **(look_up(tree, "SI Image Tags") or {})}},
            (*shape, *FRAME_SHAPE),
            [None] * (len(shape) + 2),
            [*notes, *placed, *guessed],
            by_user=self.scan_shape is not None,
        )
        geometry = {"flyback_columns": flyback, "sync_offset": self.sync_offset}
        facts = {
            "acquisition": about.acquisition.model_copy(update=geometry),
            "detector": _detector(about.detector),
            "vendor": {"gtg": as_document(tree), "first_frame": frames.first + start},
            "files": described,
        }
        return K2Source(
            identity=identity(self.name, described, (shape, self.sync_offset)),
            scan_shape=shape,
            metadata=about.model_copy(update=facts),
            validity=_with_losses(validity, math.prod(shape), offsets, self.sync_offset),
            files=tuple("" if path is None else str(path) for path in files),
            offsets=offsets,
            first_frame=frames.first + start,
            sync_offset=self.sync_offset,
        )

    def _flyback(
        self, shape: tuple[int, ...], stated: tuple[int, int] | None, inner: tuple[int, int] | None
    ) -> tuple[int, list[str]]:
        if self.flyback_columns is None and shape == stated and inner is not None:
            if inner[0] == shape[0] and 0 < inner[1] <= shape[1]:
                return shape[1] - inner[1], []
            return 0, [f"the .gtg file states a scan of {stated} and one of {inner} without flyback: nothing is hidden"]
        return flyback_of(self.flyback_columns, shape)


@dataclass(frozen=True, eq=False)
class K2Source:
    """Frames of a K2 IS acquisition, assembled from their sectors when they are read.

    Attributes
    ----------
    files
        Paths of the eight sectors; empty for one that is missing.
    offsets : shape (n_frames, 8)
        Byte where each sector of each frame starts; -1 where it is lost.
    first_frame
        Number of the first frame in the files' headers.
    sync_offset
        Frame of the first position.
    """

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    validity: ValidityArray | None
    files: tuple[str, ...]
    offsets: Int64Array
    first_frame: int
    sync_offset: int
    frame_shape: tuple[int, int] = field(default=FRAME_SHAPE)
    dtype: np.dtype[Any] = field(default=PIXEL)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; what is lost is zero.

        Parameters
        ----------
        start, stop
            Half-open range of flat scan positions.
        out : shape (stop - start, 1860, 2048), uint16, optional
            Buffer to fill.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError
            A block is damaged; the message names file, byte and frame.
        TruncatedFileError, StorageError
            A file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *FRAME_SHAPE), PIXEL)
        for first in range(0, len(frames), BATCH):
            numbers = np.arange(start + first, min(start + first + BATCH, stop)) + self.sync_offset
            part = frames[first : first + BATCH]
            inside = (numbers >= 0) & (numbers < len(self.offsets))
            part[~inside] = 0
            for sector in range(sectors.N_SECTORS):
                self._read_sector(sector, numbers, inside, part)
        return frames

    def _read_sector(self, sector: int, numbers: Int64Array, inside: Array, frames: Array) -> None:
        columns = slice(sector * COLUMNS, (sector + 1) * COLUMNS)
        offsets = np.full(len(numbers), -1, np.int64)
        offsets[inside] = self.offsets[numbers[inside], sector]
        frames[offsets < 0, :, columns] = 0
        rows = np.flatnonzero(offsets >= 0)
        if not len(rows):
            return
        size = sectors.SECTOR_BYTES
        packed = np.empty((len(rows), size), np.uint8)
        places = np.arange(len(rows), dtype=np.int64) * size
        read_blocks(self.files[sector], offsets[rows], size, as_bytes(packed), places)
        for row, blocks in zip(rows.tolist(), packed, strict=True):
            number = self.first_frame + int(numbers[row])
            wrong = sectors.unpack_sector(blocks, number, columns.start, frames[row])
            if wrong >= 0:
                byte = int(offsets[row]) + wrong * sectors.BLOCK_BYTES
                msg = (
                    f"block at byte {byte} of {self.files[sector]!r} does not belong to frame {number}, expected its "
                    f"block {wrong} of {sectors.BLOCKS}; the file is damaged, copy it again or leave it out"
                )
                raise CorruptDataError(msg, url=self.files[sector], byte=byte, frame=number)


def find_files(given: list[Place]) -> tuple[list[Place | None], Place | None]:
    """Find the eight sectors, None where one is missing, and the tag file.

    Raises
    ------
    InputError
        A folder, other files, or files of several scans were given.
    NotFoundError
        There is no sector.
    """
    stems = set()
    for path in given:
        match = _NAME.fullmatch(path.name)
        if path.is_dir() or (match is None and path.suffix.lower() != ".gtg"):
            msg = f"{str(path)!r} is no file of a K2 IS scan, expected name.gtg or name1.bin to name8.bin"
            raise InputError(msg + "; pass one of these", url=str(path))
        stems.add(path.parent / (match[1] if match else path.stem))
    if len(stems) > 1:
        msg = f"files of {len(stems)} scans were given: {', '.join(sorted(map(str, stems)))}; open them one at a time"
        raise InputError(msg, found=len(stems), expected=1)
    stem = stems.pop()
    named = {entry.name.lower(): entry for entry in list_beside(given)}
    files = [named.get(f"{stem.name}{number}.bin".lower()) for number in range(1, sectors.N_SECTORS + 1)]
    if not any(files):
        msg = f"no sector {str(stem) + '1.bin'!r} to {stem.name + '8.bin'!r} is there; copy them beside the .gtg file"
        raise NotFoundError(msg, url=str(stem))
    return files, named.get(f"{stem.name}.gtg".lower())


def _absent(files: list[Place | None]) -> list[int]:
    return [sector for sector, path in enumerate(files) if path is None]


def _read_gtg(path: Place | None) -> tuple[Tree, list[str]]:
    """Read the tag file; a missing or damaged one is reported and never a reason not to open the frames."""
    if path is None:
        return {}, ["there is no .gtg file: the scan shape is not known"]
    try:
        tags = read_tags(path)
    except StemStoreError as error:
        return {}, [f"tag file {str(path)!r} is not used: {error}"]
    return tags.root, [f"tag file {str(path)!r} is damaged: {tags.problem}"] if tags.problem else []


def _stated(tree: Tree, names: tuple[str, ...]) -> tuple[int, int] | None:
    """Rows and columns behind two tags; None unless both are whole numbers above zero."""
    values = [look_up(tree, name) for name in names]
    if not all(isinstance(v, (int, float)) and math.isfinite(v) and v == int(v) and v > 0 for v in values):
        return None
    return int(values[0]), int(values[1])


def _detector(known: Detector) -> Detector:
    from stemstore_schemas import Sector

    parts = [
        Sector(
            name=f"sector{number + 1}",
            rows=(0, FRAME_SHAPE[0]),
            columns=(number * COLUMNS, (number + 1) * COLUMNS),
        )
        for number in range(sectors.N_SECTORS)
    ]
    return known.model_copy(update={"name": known.name or "Gatan K2 IS", "shape": FRAME_SHAPE, "sectors": parts})


def _with_losses(
    validity: ValidityArray | None, n_positions: int, offsets: Int64Array, sync_offset: int
) -> ValidityArray | None:
    """Mark the positions whose frames lost sectors."""
    present = (offsets >= 0).sum(axis=1)
    state = np.full(len(offsets), PARTIAL, np.uint8)
    state[present == 0], state[present == offsets.shape[1]] = MISSING, VALID
    if (state == VALID).all():
        return validity
    result = np.full(n_positions, VALID, np.uint8) if validity is None else validity.copy()
    first, last = max(-sync_offset, 0), min(len(offsets) - sync_offset, n_positions)
    result[first:last] = state[first + sync_offset : last + sync_offset]
    return result
