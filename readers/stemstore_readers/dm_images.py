"""The images of a DM file: which there are, what their pixels are, and which of their axes are the detector's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore_readers.dm_metadata import unit_kinds
from stemstore_readers.dm_tags import ArrayTag, Tags, look_up

if TYPE_CHECKING:
    from stemstore_readers.dm_tags import Tree

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

COLOUR = 23
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


def decide_order(image: Image, option: Fastest | None, notes: list[str]) -> Fastest:
    """Decide whether detector or scan axes lie fastest: by option, tag, units.

    Raises
    ------
    InputError
        The image holds other data, or four axes of it do not say which are the detector's.
    """
    kinds = unit_kinds(image.tree, len(image.shape))
    by_units = order_by_units(kinds)
    if option is not None:
        return option if len(image.shape) > 2 else "detector"  # noqa: PLR2004 (one pattern)
    refuse_other_data(image, kinds)
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


def refuse_other_data(image: Image, kinds: list[str]) -> None:
    """Refuse lines of numbers, and spectra as their axes or the format tag tell.

    Raises
    ------
    InputError
        The image is one of these.
    """
    form = str(look_up(image.tree, "ImageTags/Meta Data/Format") or "")
    spectra = form.startswith("Spectrum") and len(image.shape) < 4 and "diffraction" not in kinds  # noqa: PLR2004
    if len(image.shape) > 1 and "energy" not in kinds and not spectra:
        return
    what = "a line of numbers" if len(image.shape) == 1 else "spectra"
    msg = f"image {image} holds {what}, expected diffraction patterns; pass fastest='detector' if they are"
    raise InputError(msg, key="ImageData", found=image.shape)


def rescue(tags: Tags) -> str:
    """Say how an image without a shape can be read."""
    listed = look_up(tags.root, "ImageList")
    for number, tree in reversed(list(enumerate(listed.values() if isinstance(listed, dict) else ()))):
        data = look_up(tree, "ImageData/Data")
        if isinstance(data, ArrayTag):
            kind = TAG_PIXELS.get(data.words[0], "unknown")
            return f"image {number} has {data.count} pixels of type {kind}, read them with image={number}, shape=(…)"
    return "copy it again"
