"""TIFF stacks, read through the library tifffile: ImageJ stacks, pages one by one, series of single images.

What is uncompressed is read here, from the places that tifffile finds:

===================  ============================================================================================
kind                 where frame i lies
===================  ============================================================================================
ImageJ stack         one directory for all; frames back to back behind the first, also beyond 4 GiB
pages                a directory per frame; its strips, where they lie back to back
series of files      the frames of each file, files in natural order
compressed, tiled    inside its page, decoded by tifffile on every read
===================  ============================================================================================

Rows lie as stored, the first on top. Sources: TIFF 6.0 (Aldus, 1992); the documentation of tifffile; ImageJ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.files import expand, identity, unreadable
from stemstore.sources.frame_extents import NOWHERE, FrameExtents, not_as_they_are
from stemstore.sources.geometry import check_range, shape_option
from stemstore.sources.records import RecordSource, as_bytes, frame_buffer, read_blocks, swap_bytes
from stemstore.sources.remote import openable, place
from stemstore_readers.stored_arrays import Findings
from stemstore_readers.tiff_stack import Stack, library, parse_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of little- and big-endian TIFF, classic and BigTIFF."""


class Tiff:
    """Reader of TIFF stacks; give one file, a pattern or a list of files.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` to lay out the frames in the order of the files.
    """

    name: ClassVar[str] = "tiff"
    description: ClassVar[str] = "TIFF stacks and series of TIFF files (needs tifffile)"
    extensions: ClassVar[tuple[str, ...]] = (".tif", ".tiff")

    def __init__(self, *, scan_shape: Sequence[int] | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the magic number; formats that are built on TIFF may be surer."""
        del url
        return 0.9 if first_bytes[:4] in MAGIC else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource | TiffSource:
        """Open the files: their directories, no pixel.

        Raises
        ------
        OptionalDependencyError
            The package tifffile, or one for the compression of the file, is not installed.
        InputError
            Colours, a single image, a folder, or files that do not fit together.
        CorruptDataError, TruncatedFileError
            A file is damaged, or holds no whole frame.
        """
        files = expand(url)
        for path in files:
            if path.is_dir():
                msg = f"{str(path)!r} is a folder, expected files; pass a pattern such as {str(path / '*.tif')!r}"
                raise InputError(msg, url=str(path))
        stacks = [parse_file(path) for path in files]
        first = stacks[0]
        for stack in stacks:
            if (stack.frame_shape, stack.dtype) != (first.frame_shape, first.dtype):
                msg = (
                    f"file {stack.path!r} has frames {stack.frame_shape} of {stack.dtype}, expected "
                    f"{first.frame_shape} of {first.dtype} as in {first.path!r}; open the files apart"
                )
                raise InputError(msg, url=stack.path)
        return self._source(files, stacks)

    def _source(self, files: list[Place], stacks: list[Stack]) -> RecordSource | TiffSource:
        first, n_frames = stacks[0], sum(stack.n_frames for stack in stacks)
        if n_frames == 1 and self.scan_shape is None:
            msg = f"file {first.path!r} holds one image {first.frame_shape}, no stack; pass all files of the series"
            raise InputError(msg, url=first.path, found=first.frame_shape)
        stated = first.leading if len(stacks) == 1 and math.prod(first.leading) == n_frames else (n_frames,)
        found = Findings(
            shape=(*stated, *first.frame_shape),
            stated=[*[None] * len(stated), *first.steps],
            vendor=first.vendor,
            notes=[note for stack in stacks for note in stack.notes],
        )
        metadata, validity = found.describe(files, self.scan_shape)
        scan = metadata.acquisition.scan_shape or self.scan_shape or stated
        text = identity(self.name, metadata.files, scan)
        if len(stacks) == 1 and first.contiguous:
            return _records(first, text, scan, metadata, validity)
        return TiffSource(text, scan, first.frame_shape, metadata, validity, tuple(stacks))


def _records(
    stack: Stack, text: str, scan: tuple[int, ...], metadata: SourceMetadata, validity: ValidityArray | None
) -> RecordSource:
    return RecordSource(
        identity=text,
        scan_shape=scan,
        frame_shape=stack.frame_shape,
        metadata=metadata,
        validity=validity,
        files=(stack.path,),
        counts=(stack.n_frames,),
        offset=0 if stack.offsets is None else int(stack.offsets[0]),
        stride=stack.frame_bytes,
        file_dtype=stack.dtype,
    )


@dataclass(frozen=True, eq=False)
class TiffSource:
    """Frames of pages or of several files; files are opened for every read and closed again."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    stacks: tuple[Stack, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.stacks[0].dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError, TruncatedFileError, StorageError
            A page cannot be decoded, or a file was shortened after opening.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames, first = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype), 0
        for stack in self.stacks:
            begin, end = max(start, first), min(stop, first + stack.n_frames)
            if begin < end:
                _read(stack, begin - first, end - first, frames[begin - start : end - start])
            first += stack.n_frames
        frames[max(first - start, 0) :] = np.nan if self.dtype.kind == "f" else 0
        return frames

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the files.

        Raises
        ------
        IndexError
            The range leaves the scan.
        InputError
            Pages are compressed, or in several pieces.
        """
        n_positions = math.prod(self.scan_shape)
        check_range(start, stop, n_positions)
        files = tuple(stack.path for stack in self.stacks)
        found = [stack.offsets for stack in self.stacks if stack.offsets is not None]
        if len(found) < len(files):
            raise not_as_they_are(files, "lie in compressed pages or in pages of several pieces")
        missing = max(n_positions - sum(map(len, found)), 0)
        offset = np.concatenate([*found, np.full(missing, NOWHERE)]).astype(np.int64)[start:stop, None]
        number = np.repeat(np.arange(len(files)), list(map(len, found)))
        number = np.concatenate([number, np.zeros(missing, np.int64)])[start:stop, None]
        return FrameExtents(files, number, offset, self.stacks[0].frame_shape, self.stacks[0].dtype)


def _read(stack: Stack, start: int, stop: int, out: Array) -> None:
    if stack.offsets is None:
        _decode(stack, start, stop, out)
        return
    places = np.arange(stop - start, dtype=np.int64) * stack.frame_bytes
    read_blocks(stack.path, stack.offsets[start:stop], stack.frame_bytes, as_bytes(out), places)
    if not stack.dtype.isnative:
        swap_bytes(out)


def _decode(stack: Stack, start: int, stop: int, out: Array) -> None:
    try:
        with openable(place(stack.path)) as source, library().TiffFile(source) as file:
            pages = file.series[stack.series].pages
            for i in range(start, stop):
                out[i - start] = pages[i].asarray(maxworkers=1).reshape(stack.frame_shape)
    except OSError as error:
        raise unreadable(stack.path, error) from error
    except Exception as error:  # decoders raise whatever damaged pages lead to
        msg = f"pages {start}..{stop} of {stack.path!r} cannot be decoded: {error}; copy the file again"
        raise CorruptDataError(msg, url=stack.path) from error
