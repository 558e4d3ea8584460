"""Gatan DigitalMicrograph, DM3 and DM4: scans of diffraction patterns, stacks and single patterns.

Images lie under ``ImageList``; those that ``Thumbnails`` names are previews. The tag tree is described in `dm_tags`.

================================  ====================================================================================
``ImageData/Data``                the array, contiguous
``ImageData/DataType``            type of the pixels, see `dm_images`
``ImageData/Dimensions/<k>``      extents, fastest first
``ImageData/Calibrations/…/<k>``  Origin, Scale, Units; coordinate of pixel j = (j - Origin) * Scale
``ImageTags``                     what was set at the microscope
================================  ====================================================================================

Sources: ercius/openNCEM (``ncempy/io/dm.py``), nion-software/nionswift-io, LiberTEM (``dm_single.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError
from stemstore.sources.files import describe, expand, file_size, identity, unreadable
from stemstore.sources.geometry import check_range, fit_scan, shape_option
from stemstore.sources.records import RecordSource, as_bytes, frame_buffer, read_blocks, whole_records
from stemstore_readers.dm_images import (
    COLOUR,
    MAX_AXES,
    Fastest,
    Image,
    decide_order,
    list_images,
    pixel_type,
    preview_numbers,
    rescue,
    sampling,
)
from stemstore_readers.dm_metadata import calibrations, image_metadata
from stemstore_readers.dm_tags import HEADER, Tags, as_document, parse_header, read_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata


HEAD_OF_ARRAY = {3: 4 + 4 + 4 * 4, 4: 4 + 8 + 4 + 4 * 8}
"""Version -> bytes between the start of the name ``Data`` and the pixels: DM4 adds the length of the tag."""


class Dm:
    """Reader of diffraction data in DM3 and DM4 files.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    fastest
        ``"detector"``: patterns lie one after the other; ``"scan"``: every detector pixel is stored as an image of the
        scan. Needed where neither a tag nor the units of the axes tell.
    image
        Number of the image in the file, from 0, previews included; needed where there are several.
    shape
        All extents, slow axis first, of a file that was cut off before its own.
    """

    name: ClassVar[str] = "dm"
    description: ClassVar[str] = "Gatan DigitalMicrograph scans, stacks and patterns (DM3, DM4)"
    extensions: ClassVar[tuple[str, ...]] = (".dm3", ".dm4")

    def __init__(
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        fastest: Fastest | None = None,
        image: int | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        if fastest not in (None, "detector", "scan"):
            msg = f"option fastest={fastest!r} is not known; expected 'detector' or 'scan'"
            raise InputError(msg, key="fastest", found=fastest)
        if image is not None and (isinstance(image, bool) or not isinstance(image, int) or image < 0):
            msg = f"option image={image!r} is not the number of an image; expected a whole number from 0 on"
            raise InputError(msg, key="image", found=image)
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))
        self.shape = None if shape is None else shape_option("shape", shape, range(2, MAX_AXES + 1))
        self.fastest: Fastest | None = fastest
        self.image = image

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Check version, byte order and the head of the root group; there is no magic number."""
        try:
            _, _, start = parse_header(first_bytes)
        except Exception:  # not ours
            return 0.0
        if len(first_bytes) < HEADER[4].size or max(first_bytes[start : start + 2]) > 1:
            return 0.0
        return 1.0 if url.lower().endswith(cls.extensions) else 0.9

    def __call__(self, url: str | list[str]) -> RecordSource | ScatteredSource:
        """Open the file: tags only, no pixel.

        Parameters
        ----------
        url
            A file, or several with images of one kind (a file per pattern), whose frames follow each other.

        Raises
        ------
        InputError
            The image is no diffraction data, there are several, the order of its axes is unknown, or an option does
            not fit.
        UnknownFormatError, FormatVersionError, CorruptDataError
            The file is no DM file, or damaged.
        TruncatedFileError
            The file ends before its image does.
        """
        files = expand(url)
        path = files[0]
        try:
            tags = read_tags(path)
            image = self._choose(path, tags)
            return self._open(files, tags, image)
        except (CorruptDataError, InputError) as error:
            error.add_note(f"in file {str(path)!r}")
            raise

    def _open(self, files: list[Place], tags: Tags, image: Image) -> RecordSource | ScatteredSource:
        path = files[0]
        notes = [] if tags.problem is None else [f"file {path.name!r} is not complete: {tags.problem}"]
        dtype = pixel_type(image, little=tags.little)
        fastest = decide_order(image, self.fastest, notes)
        shape = image.shape if len(image.shape) > 2 else (1, *image.shape)  # noqa: PLR2004 (a single pattern)
        stated = calibrations(image.tree, len(shape))
        if fastest == "scan":
            shape, stated = (*shape[2:], *shape[:2]), [*stated[2:], *stated[:2]]
        stored, frame = shape[:-2], math.prod(shape[-2:]) * dtype.itemsize
        counts = [self._frames(path, image, shape, dtype, fastest, notes)]
        if len(files) > 1:
            counts *= check_series(files, image, fastest, tags.version)
            stored = (math.prod(stored) * len(files),)
        found = sum(counts)
        wanted = self.scan_shape or (stored if len(stored) > 1 else sampling(image.tree, stored[0], notes))
        scan_shape, validity, misfits = fit_scan(wanted, found)
        notes += misfits if found == math.prod(stored) or self.scan_shape else []
        described = describe(files)
        if scan_shape != stored:
            stated = [*(None for _ in scan_shape), *stated[-2:]]
        metadata = image_metadata(
            image.tree, (*scan_shape, *shape[-2:]), stated, notes, by_user=self.scan_shape is not None
        )
        about: dict[str, Any] = {
            "identity": identity(self.name, described, (scan_shape, fastest, image.number, shape)),
            "scan_shape": scan_shape,
            "frame_shape": (shape[-2], shape[-1]),
            "metadata": metadata.model_copy(update={"files": described, "vendor": as_document(tags.root)}),
            "validity": validity,
            "file_dtype": dtype,
        }
        if fastest == "scan":
            return ScatteredSource(path=str(path), offset=image.data.offset, n_frames=math.prod(stored), **about)
        paths = tuple(str(one) for one in files)
        return RecordSource(files=paths, counts=tuple(counts), offset=image.data.offset, stride=frame, **about)

    def _frames(
        self, path: Place, image: Image, shape: tuple[int, ...], dtype: np.dtype[Any], fastest: str, notes: list[str]
    ) -> int:
        """Count the whole frames that are there."""
        n_frames, frame = math.prod(shape[:-2]), math.prod(shape[-2:]) * dtype.itemsize
        size, end = file_size(path), image.data.offset + n_frames * frame
        if size >= end:
            return n_frames
        found, _ = whole_records(size, frame, image.data.offset)
        if fastest == "scan" or not found:
            which = "every frame is spread over the whole file and none" if fastest == "scan" else "no frame"
            msg = f"file {str(path)!r} has {size} bytes, expected {end}; {which} is complete, copy it again"
            raise TruncatedFileError(msg, url=str(path), found=size, expected=end)
        notes.append(f"file {path.name!r} ends after {found} of {n_frames} whole frames; the others are missing")
        return found

    def _choose(self, path: Place, tags: Tags) -> Image:
        images = list_images(tags, self.shape)
        if self.image is not None:
            images = [image for image in images if image.number == self.image]
        else:
            previews = preview_numbers(tags.root)
            images = [image for image in images if image.number not in previews] or images
            images = [image for image in images if image.data_type != COLOUR] or images
        if len(images) == 1:
            return images[0]
        if not images and tags.problem is not None:
            msg = f"file {str(path)!r} ends before its image is described: {tags.problem}; {rescue(tags)}"
            raise TruncatedFileError(msg, url=str(path)) from tags.problem
        listed = "; ".join(map(str, list_images(tags, self.shape))) or "none"
        msg = f"file {str(path)!r} has the images: {listed}; name one with image=…"
        raise InputError(msg, url=str(path), key="image", found=self.image)


def check_series(files: list[Place], image: Image, fastest: Fastest, version: int) -> int:
    """Make sure that every file of a series holds its image where the first one does; gives their number.

    Compared are the bytes in front of the pixels: end of the name, mark, type and length of the array.

    Raises
    ------
    InputError
        A file differs, or every frame is spread over its file.
    TruncatedFileError
        A file ends before its image does.
    StorageError, NotFoundError
        A file cannot be read.
    """
    if fastest == "scan":
        msg = f"{len(files)} files were given whose frames are spread over each file; open them one at a time"
        raise InputError(msg, found=len(files), expected=1)
    length = HEAD_OF_ARRAY[version]
    first = read_piece(files[0], image.data.offset - length, length)
    for path in files:
        if read_piece(path, image.data.offset - length, length) != first:
            msg = (
                f"file {str(path)!r} has no image of the same kind at byte {image.data.offset} as {files[0].name!r}; "
                "give files of one acquisition, or open them one at a time"
            )
            raise InputError(msg, url=str(path), byte=image.data.offset)
        size, end = file_size(path), image.data.offset + image.data.nbytes
        if size < end:
            msg = f"file {str(path)!r} has {size} bytes, expected {end}; leave it out or copy it again"
            raise TruncatedFileError(msg, url=str(path), found=size, expected=end)
    return len(files)


def read_piece(path: Place, start: int, length: int) -> bytes:
    """Read some bytes of a file; fewer where it ends."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(length) or b""
    except OSError as error:
        raise unreadable(path, error) from error


@dataclass(frozen=True, eq=False)
class ScatteredSource:
    """Frames whose pixels lie apart: for every detector pixel the file holds an image of the scan.

    Memory: a read takes twice the frames that it returns.
    """

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: ValidityArray | None
    path: str
    offset: int
    n_frames: int
    file_dtype: np.dtype[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.file_dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        TruncatedFileError, StorageError
            The file was shortened after opening, or cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        present = min(max(self.n_frames - start, 0), stop - start)
        if present:
            pixels, length = math.prod(self.frame_shape), present * self.file_dtype.itemsize
            scattered = np.empty((pixels, present), self.file_dtype)
            place = np.arange(pixels, dtype=np.int64)
            offsets = self.offset + (place * self.n_frames + start) * self.file_dtype.itemsize
            read_blocks(self.path, offsets, length, as_bytes(scattered), place * length)
            frames[:present] = scattered.T.reshape(present, *self.frame_shape)
        frames[present:] = np.nan if self.dtype.kind == "f" else 0
        return frames
