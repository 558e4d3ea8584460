"""Gatan DigitalMicrograph, DM3 and DM4: scans of diffraction patterns, stacks and single patterns.

Images lie under ``ImageList``; those that ``Thumbnails`` names are previews. The tag tree is described in `dm_tags`.

================================  ====================================================================================
``ImageData/Data``                the array, contiguous
``ImageData/DataType``            type of the pixels, see `PIXELS`
``ImageData/Dimensions/<k>``      extents, fastest first
``ImageData/Calibrations/…/<k>``  Origin, Scale, Units; coordinate of pixel j = (j - Origin) * Scale
``ImageTags``                     what was set at the microscope
================================  ====================================================================================

Sources: ercius/openNCEM (``ncempy/io/dm.py``), nion-software/nionswift-io, LiberTEM (``dm_single.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError
from stemstore.sources.files import describe, expand, file_size, identity
from stemstore.sources.geometry import check_range, fit_scan, shape_option
from stemstore.sources.records import RecordSource, as_bytes, frame_buffer, read_blocks, whole_records
from stemstore_readers.dm_metadata import calibrations, image_metadata, unit_kinds
from stemstore_readers.dm_tags import HEADER, ArrayTag, Tags, as_document, look_up, parse_header, read_tags

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stemstore._types import Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore_readers.dm_tags import Tree
    from stemstore_schemas import SourceMetadata

PIXELS = {
    1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "u1", 39: "i8", 40: "u8"
}  # fmt: skip
"""``DataType`` -> pixel type; 14 is a mask of bytes."""

NO_PIXELS = {
    3: "complex numbers", 13: "complex numbers", 5: "half a Fourier transform", 27: "half a Fourier transform",
    28: "half a Fourier transform", 8: "a colour picture", 23: "a colour picture",
}  # fmt: skip
"""``DataType`` of what is no detector frame."""

TAG_PIXELS = {2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "u1", 11: "i8", 12: "u8"}
"""Type word of an array -> pixel type, where a cut file has lost the ``DataType``."""

_COLOUR = 23
MAX_AXES = 6
"""Four scan axes and the detector."""

Fastest = Literal["detector", "scan"]


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a file: its number in the list, tags, array, shape (slow axis first) and pixel type."""

    number: int
    tree: Tree
    data: ArrayTag
    shape: tuple[int, ...]
    data_type: int

    def __str__(self) -> str:
        kind = NO_PIXELS.get(self.data_type) or PIXELS.get(self.data_type, f"type {self.data_type}")
        return f"{self.number} {look_up(self.tree, 'Name') or ''!r} {self.shape} {kind}"


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
        if len(files) != 1:
            msg = f"{len(files)} files were given, expected one DM3 or DM4 file; open them one at a time"
            raise InputError(msg, found=len(files), expected=1)
        path = files[0]
        try:
            tags = read_tags(path)
            image = self._choose(path, tags)
            return self._open(path, tags, image)
        except (CorruptDataError, InputError) as error:
            error.add_note(f"in file {str(path)!r}")
            raise

    def _open(self, path: Path, tags: Tags, image: Image) -> RecordSource | ScatteredSource:
        notes = [] if tags.problem is None else [f"file {path.name!r} is not complete: {tags.problem}"]
        dtype = pixel_type(image, little=tags.little)
        fastest = self._decide(image, notes)
        shape = image.shape if len(image.shape) > 2 else (1, *image.shape)  # noqa: PLR2004 (a single pattern)
        stated = calibrations(image.tree, len(shape))
        if fastest == "scan":
            shape, stated = (*shape[2:], *shape[:2]), [*stated[2:], *stated[:2]]
        stored = shape[:-2]
        found = self._frames(path, image, shape, dtype, fastest, notes)
        wanted = self.scan_shape or (stored if len(stored) > 1 else sampling(image.tree, stored[0], notes))
        scan_shape, validity, misfits = fit_scan(wanted, found)
        notes += misfits if found == math.prod(stored) or self.scan_shape else []
        files = describe([path])
        if scan_shape != stored:
            stated = [*(None for _ in scan_shape), *stated[-2:]]
        metadata = image_metadata(
            image.tree, (*scan_shape, *shape[-2:]), stated, notes, by_user=self.scan_shape is not None
        )
        about: dict[str, Any] = {
            "identity": identity(self.name, files, (scan_shape, fastest, image.number, shape)),
            "scan_shape": scan_shape,
            "frame_shape": (shape[-2], shape[-1]),
            "metadata": metadata.model_copy(update={"files": files, "vendor": as_document(tags.root)}),
            "validity": validity,
            "file_dtype": dtype,
        }
        if fastest == "scan":
            return ScatteredSource(path=str(path), offset=image.data.offset, n_frames=math.prod(stored), **about)
        stride = math.prod(shape[-2:]) * dtype.itemsize
        return RecordSource(files=(str(path),), counts=(found,), offset=image.data.offset, stride=stride, **about)

    def _frames(
        self, path: Path, image: Image, shape: tuple[int, ...], dtype: np.dtype[Any], fastest: str, notes: list[str]
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

    def _choose(self, path: Path, tags: Tags) -> Image:
        images = list_images(tags, self.shape)
        if self.image is not None:
            images = [image for image in images if image.number == self.image]
        else:
            previews = preview_numbers(tags.root)
            images = [image for image in images if image.number not in previews] or images
            images = [image for image in images if image.data_type != _COLOUR] or images
        if len(images) == 1:
            return images[0]
        if not images and tags.problem is not None:
            msg = f"file {str(path)!r} ends before its image is described: {tags.problem}; {_rescue(tags)}"
            raise TruncatedFileError(msg, url=str(path)) from tags.problem
        listed = "; ".join(map(str, list_images(tags, self.shape))) or "none"
        msg = f"file {str(path)!r} has the images: {listed}; name one with image=…"
        raise InputError(msg, url=str(path), key="image", found=self.image)

    def _decide(self, image: Image, notes: list[str]) -> Fastest:
        """Decide whether detector or scan axes lie fastest; see the page of the format for the order of authority."""
        kinds = unit_kinds(image.tree, len(image.shape))
        by_units = order_by_units(kinds)
        if self.fastest is not None:
            return self.fastest if len(image.shape) > 2 else "detector"  # noqa: PLR2004 (one pattern)
        _refuse_other_data(image, kinds)
        if len(image.shape) <= 3:  # noqa: PLR2004 (a stack: detector axes last unless units say otherwise)
            return by_units or "detector"
        tagged = swapped(image.tree)
        if tagged is not None:
            if by_units not in (None, tagged):
                notes.append(f"tag 'Data Order Swapped' says that {tagged} axes are fastest, the units say otherwise")
            return tagged
        if by_units is None:
            msg = (
                f"image {image} does not say which of its axes are the detector's; pass fastest='detector' for scan "
                f"{image.shape[:-2]} of frames {image.shape[-2:]}, or fastest='scan' for scan {image.shape[2:]} of "
                f"frames {image.shape[:2]}"
            )
            raise InputError(msg, key="fastest", found=image.shape)
        return by_units


def list_images(tags: Tags, given: tuple[int, ...] | None) -> list[Image]:
    """List the images whose array and shape are known; `given` stands in for a shape that was cut off."""
    listed = look_up(tags.root, "ImageList")
    found = []
    for number, tree in enumerate(listed.values() if isinstance(listed, dict) else ()):
        data, extents = look_up(tree, "ImageData/Data"), look_up(tree, "ImageData/Dimensions")
        shape = tuple(reversed(extents.values())) if isinstance(extents, dict) else ()
        kind = look_up(tree, "ImageData/DataType")
        if not shape and tags.problem is not None and given is not None:
            shape, kind = given, None
        if isinstance(data, ArrayTag) and all(type(n) is int for n in shape) and shape:
            found.append(Image(number, tree, data, shape, kind if isinstance(kind, int) else 0))
    return found


def preview_numbers(root: Tree) -> set[Any]:
    """Numbers of the images that are thumbnails."""
    previews = look_up(root, "Thumbnails")
    return {look_up(one, "ImageIndex") for one in previews.values()} if isinstance(previews, dict) else set()


def pixel_type(image: Image, *, little: bool) -> np.dtype[Any]:
    """Pixel type of an image, whose array has to be as long as its shape says.

    Raises
    ------
    InputError
        The pixels are no integers or floats.
    CorruptDataError
        Shape, type and length of the array contradict each other.
    """
    if image.data_type in NO_PIXELS:
        msg = f"image {image} holds {NO_PIXELS[image.data_type]}, expected diffraction patterns; choose another image"
        raise InputError(msg, key="DataType", found=image.data_type)
    words = image.data.words
    text = PIXELS.get(image.data_type) or (TAG_PIXELS.get(words[0]) if not image.data_type else None)
    if text is None:
        msg = f"image {image} has pixels of unknown type {image.data_type}; save it as integers or floats"
        raise InputError(msg, key="DataType", found=image.data_type)
    dtype = np.dtype(text).newbyteorder("<" if little else ">")
    expected = math.prod(image.shape) * dtype.itemsize
    if min(image.shape) < 1 or len(image.shape) > MAX_AXES or image.data.nbytes != expected:
        msg = (
            f"image {image} has an array of {image.data.nbytes} bytes at byte {image.data.offset}, expected "
            f"{expected}; shape or type is wrong, the file is damaged"
        )
        raise CorruptDataError(msg, byte=image.data.offset, found=image.data.nbytes, expected=expected)
    return dtype


def order_by_units(kinds: list[str]) -> Fastest | None:
    """Tell from the kinds of units, slow axis first, which axes lie fastest; None where they do not tell."""
    slow, fast = set(kinds[:2]), set(kinds[-2:])
    if len(kinds) > 3:  # noqa: PLR2004 (scan and detector do not overlap)
        if fast == {"diffraction"} != slow or (slow == {"length"} and "length" not in fast):
            return "detector"
        if slow == {"diffraction"} != fast or (fast == {"length"} and "length" not in slow):
            return "scan"
    elif kinds[-1] == "length" and slow == {"diffraction"}:
        return "scan"
    return None


def swapped(tree: Tree) -> Fastest | None:
    """Read the tag that says whether the data were put into C order, as a truth value or as text."""
    value = look_up(tree, "ImageTags/Meta Data/Data Order Swapped")
    text = str(value).strip().lower()
    if text in ("true", "1", "yes"):
        return "detector"
    return "scan" if text in ("false", "0", "no") else None


def sampling(tree: Tree, n_frames: int, notes: list[str]) -> tuple[int, ...] | None:
    """Take the scan shape of a stack from the spectrum-image tags, where it fits the frames."""
    where = "ImageTags/SI/Acquisition/Spatial Sampling"
    shape = tuple(look_up(tree, f"{where}/{name} (pixels)") for name in ("Height", "Width"))
    if not all(type(n) is int and n > 0 for n in shape):
        return None
    if math.prod(shape) == n_frames:
        return shape
    notes.append(f"the tags speak of a scan {shape}, but there are {n_frames} frames; pass scan_shape=…")
    return None


def _refuse_other_data(image: Image, kinds: list[str]) -> None:
    form = str(look_up(image.tree, "ImageTags/Meta Data/Format") or "")
    spectra = form.startswith("Spectrum") and len(image.shape) < 4 and "diffraction" not in kinds  # noqa: PLR2004
    if len(image.shape) > 1 and "energy" not in kinds and not spectra:
        return
    what = "a line of numbers" if len(image.shape) == 1 else "spectra"
    msg = f"image {image} holds {what}, expected diffraction patterns; pass fastest='detector' if they are"
    raise InputError(msg, key="ImageData", found=image.shape)


def _rescue(tags: Tags) -> str:
    """Say how an image without a shape can be read."""
    listed = look_up(tags.root, "ImageList")
    for number, tree in reversed(list(enumerate(listed.values() if isinstance(listed, dict) else ()))):
        data = look_up(tree, "ImageData/Data")
        if isinstance(data, ArrayTag):
            kind = TAG_PIXELS.get(data.words[0], "unknown")
            return f"image {number} has {data.count} pixels of type {kind}, read them with image={number}, shape=(…)"
    return "copy it again"


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
