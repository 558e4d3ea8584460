"""Early NCEM 4D Camera files, header versions 1 and 2: blocks of whole frames, as one stream over the files given.

=======  ===================================================  =====================================
version  header of a block, little-endian                     pixels behind it, uint16
=======  ===================================================  =====================================
1        1024 uint32: number n of frames, rows, columns,      n x rows x columns
         version, time stamp, 5 reserved, n image numbers
         that count from 1
2        one uint32, not valid                                1600 x 576 x 576; fewer where cut
=======  ===================================================  =====================================

The image number is the scan position; neither version states a scan shape. A block never spans two files. Source:
OpenChemistry/stempy (``stempy/reader.cpp``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, FormatVersionError, SectorMismatchError, TruncatedFileError
from stemstore.sources.files import describe, identity, unreadable
from stemstore.sources.geometry import check_missing, factor_pairs, flyback_of
from stemstore.sources.records import open_unbuffered
from stemstore_readers.ncem_sector_index import Layout
from stemstore_readers.ncem_sector_source import FRAME_SHAPE, SectorSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Int64Array
    from stemstore_readers.ncem_sector_index import SectorFile
    from stemstore_schemas import SourceMetadata

VERSIONS = (1, 2)

HEADER_BYTES = {1: 4096, 2: 4}

BLOCK_FRAMES = {1: 1014, 2: 1600}
"""Frames in a block: at most, as their numbers have to fit into the header; and always."""

MAX_SIDE = 2**14
"""Rows or columns that are believed; the detector has 576."""

_FIXED = 10


@dataclass(frozen=True, slots=True)
class Block:
    """One block: rows and columns of its frames, their image numbers from 0, and the time stamp."""

    shape: tuple[int, int]
    images: Int64Array
    time: int | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return 2 * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Piece:
    """The whole frames of one block: file number, byte offset of the first, their number, and the block."""

    file: int
    offset: int
    count: int
    block: Block


@dataclass(frozen=True, slots=True)
class Stream:
    """All frames of the files in their order: file number, byte offset and image number of each."""

    shape: tuple[int, int]
    file: np.ndarray[Any, np.dtype[np.int32]]
    offset: Int64Array
    image: Int64Array
    time: int | None
    warnings: list[str]


def parse_block(content: bytes, place: str) -> Block:
    """Read the header of a version 1 block.

    Raises
    ------
    FormatVersionError
        The numbers cannot be those of a block.
    CorruptDataError
        An image number is 0, and they count from 1.
    """
    words = np.frombuffer(content, "<u4", HEADER_BYTES[1] // 4)
    n, rows, columns = words[:3].tolist()
    if not (0 < n <= BLOCK_FRAMES[1] and 0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        msg = (
            f"{place} states {n} frames of {rows} x {columns}, expected 1 to {BLOCK_FRAMES[1]} frames of up to "
            f"{MAX_SIDE} x {MAX_SIDE}; it is no block of header version 1, pass the version of these files"
        )
        raise FormatVersionError(msg, found=(n, rows, columns))
    images = words[_FIXED : _FIXED + n].astype(np.int64) - 1
    if (images < 0).any():
        msg = f"{place} has an image number 0, expected numbers from 1; the header is damaged, leave the file out"
        raise CorruptDataError(msg, found=0)
    return Block((rows, columns), images, int(words[4]))


def refuse_blocks(files: Sequence[SectorFile], version: int) -> None:
    """Refuse files that are blocks of version 1, where another version is asked for.

    Raises
    ------
    FormatVersionError
        The first file starts with a block of version 1 that lies in it as a whole.
    """
    head = _read(files[0], 0, HEADER_BYTES[1])
    if len(head) < HEADER_BYTES[1] or int.from_bytes(head[12:16], "little") != 1:
        return
    try:
        block = parse_block(head, "")
    except (FormatVersionError, CorruptDataError):
        return
    if HEADER_BYTES[1] + len(block.images) * block.frame_bytes <= files[0].size:
        msg = (
            f"file {str(files[0].path)!r} does not fit header version {version}, but starts with a block of "
            f"{len(block.images)} frames of {block.shape[0]} x {block.shape[1]}; pass version=1"
        )
        raise FormatVersionError(msg, url=str(files[0].path), found=1, expected=version)


def gather_blocks(files: Sequence[SectorFile], version: int) -> Stream:
    """Read the headers of all blocks, in the order of the files.

    Raises
    ------
    FormatVersionError, CorruptDataError
        As for `parse_block`.
    SectorMismatchError
        Frames differ in size.
    TruncatedFileError
        There is not one whole frame.
    """
    pieces: list[Piece] = []
    warnings: list[str] = []
    for number, file in enumerate(files):
        found, notes = _pieces(file, number, version, len(pieces))
        pieces += found
        warnings += notes
    if not any(piece.count for piece in pieces):
        msg = f"file {str(files[0].path)!r} has {files[0].size} bytes and holds no whole frame; copy it again"
        raise TruncatedFileError(msg, url=str(files[0].path), found=files[0].size)
    shape = pieces[0].block.shape
    for piece in pieces:
        if piece.block.shape != shape:
            path = str(files[piece.file].path)
            msg = f"{path!r} has frames of {piece.block.shape}, expected {shape} as at the start; open the files apart"
            raise SectorMismatchError(msg, url=path, found=piece.block.shape, expected=shape)
    return Stream(
        shape,
        np.repeat(np.array([piece.file for piece in pieces], np.int32), [piece.count for piece in pieces]),
        np.concatenate([piece.offset + np.arange(piece.count) * piece.block.frame_bytes for piece in pieces]),
        np.concatenate([piece.block.images[: piece.count] for piece in pieces]),
        pieces[0].block.time,
        warnings,
    )


def _pieces(file: SectorFile, number: int, version: int, before: int) -> tuple[list[Piece], list[str]]:
    """Walk over the blocks of one file, `before` of which came earlier; a block that was cut is its last."""
    pieces: list[Piece] = []
    header, at = HEADER_BYTES[version], 0
    while at < file.size:
        place = f"block at byte {at} of {str(file.path)!r}"
        if file.size - at < header:
            return pieces, [f"{place} is left out: it was cut inside its header"]
        if version == 1:
            block = parse_block(_read(file, at, header), place)
        else:  # the number in the header is not valid, the order of the blocks is
            first = (before + len(pieces)) * BLOCK_FRAMES[2]
            block = Block(FRAME_SHAPE, np.arange(first, first + BLOCK_FRAMES[2], dtype=np.int64))
        n_images = len(block.images)
        whole, left = divmod(file.size - at - header, block.frame_bytes)
        pieces.append(Piece(number, at + header, min(whole, n_images), block))
        if whole < n_images:
            return pieces, [f"{place} was cut: {whole} of its {n_images} frames are used, {left} bytes are left over"]
        at += header + n_images * block.frame_bytes
    return pieces, []


def _read(file: SectorFile, offset: int, length: int) -> bytes:
    with open_unbuffered(file.path) as stream:
        try:
            stream.seek(offset)
            return stream.read(length) or b""
        except OSError as error:
            raise unreadable(file.path, error) from error


def open_blocks(
    files: Sequence[SectorFile],
    version: int,
    *,
    scan_shape: tuple[int, ...] | None,
    flyback_columns: int | None,
    notes: list[str],
) -> SectorSource:
    """Open files of version 1 or 2; headers of blocks, no pixel.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)``; without it the frames stay a flat stack.
    notes
        Warnings so far.

    Raises
    ------
    SectorMismatchError, FormatVersionError, CorruptDataError, TruncatedFileError
        As for `gather_blocks`; also where next to nothing of the scan was recorded.
    InputError
        `flyback_columns` does not fit.
    """
    stream = gather_blocks(files, version)
    image, first = np.unique(stream.image, return_index=True)
    shape = scan_shape or (int(image[-1]) + 1,)
    n_positions = math.prod(shape)
    check_missing(shape, len(image))
    warnings = notes + stream.warnings
    if len(image) < len(stream.image):
        warnings.append(f"{len(stream.image) - len(image)} images have the number of an earlier one and are ignored")
    inside = image < n_positions
    if not inside.all():
        lost = int((~inside).sum())
        warnings.append(f"{lost} images have numbers beyond the {n_positions} positions of the scan and are ignored")
    if inside.sum() < n_positions:
        warnings.append(f"{n_positions - int(inside.sum())} of {n_positions} positions have no image")
    file_of = np.full((n_positions, 1), -1, np.int32)
    offset_of = np.full((n_positions, 1), -1, np.int64)
    file_of[image[inside], 0] = stream.file[first[inside]]
    offset_of[image[inside], 0] = stream.offset[first[inside]]
    flyback, guessed = flyback_of(flyback_columns, shape)
    metadata = _metadata(files, stream, version, scan_shape, flyback, [*warnings, *guessed])
    return SectorSource(
        identity=identity("ncem_sectors", metadata.files, (version, scan_shape)),
        scan_shape=shape,
        metadata=metadata,
        layout=Layout(version, 1, stream.shape),
        files=tuple(str(file.path) for file in files),
        file_of=file_of,
        offset_of=offset_of,
        frame_shape=stream.shape,
    )


def _metadata(
    files: Sequence[SectorFile],
    stream: Stream,
    version: int,
    scan_shape: tuple[int, ...] | None,
    flyback: int,
    warnings: list[str],
) -> SourceMetadata:
    from stemstore_schemas import Acquisition, Detector, SourceMetadata

    acquisition = Acquisition(
        scan_shape=scan_shape,
        scan_shape_source=None if scan_shape is None else "user",
        scan_shape_alternatives=factor_pairs(int(stream.image.max()) + 1) if scan_shape is None else [],
        flyback_columns=flyback,
        frames_per_position=math.prod((scan_shape or ())[:-2]),
    )
    name = "NCEM 4D Camera" if stream.shape == FRAME_SHAPE else None
    return SourceMetadata(
        acquisition=acquisition,
        detector=Detector(name=name, shape=stream.shape),
        vendor={"header_version": version, "time_stamp": stream.time},
        warnings=warnings,
        files=describe([file.path for file in files]),
    )
