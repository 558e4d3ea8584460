"""The frames of one TIFF file: which of its images they are, where they lie, and what its tags say."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError, OptionalDependencyError, StemStoreError, TruncatedFileError
from stemstore.sources.files import file_size, unreadable
from stemstore.sources.records import pixel_dtype
from stemstore.sources.remote import openable
from stemstore_readers.stated_axes import StatedAxis

if TYPE_CHECKING:
    from stemstore._types import Int64Array
    from stemstore.sources.remote import Place

BUILT_IN = (1, 8, 32946)
"""Compressions that need no further library: none and deflate, by its two numbers."""

MAX_SHRINKAGE = 2000
"""Largest factor by which a page of a believable file may be compressed; deflate reaches 1032."""

MAX_LEADING = 3
"""Scan axes that a shape written by tifffile may state: (frame, y, x)."""

MAX_TAG = 2**16
"""Longest text of a tag that is kept, in characters, and longest list."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The frames of one file.

    Attributes
    ----------
    leading
        Extents of the axes in front of the frames that are longer than one.
    offsets : shape (n_frames,), unit byte
        Where each frame starts; None where the frames have to be decoded.
    series
        Number of the series in the file.
    steps
        Calibration of rows and columns.
    """

    path: str
    leading: tuple[int, ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    n_frames: int
    offsets: Int64Array | None
    series: int
    steps: tuple[StatedAxis | None, StatedAxis | None]
    vendor: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def frame_bytes(self) -> int:
        """Length of a frame in bytes."""
        return math.prod(self.frame_shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the frames lie back to back."""
        return self.offsets is not None and bool((np.diff(self.offsets) == self.frame_bytes).all())


def parse_file(path: Place) -> Stack:
    """Read the directories of a file and find its frames.

    Raises
    ------
    OptionalDependencyError, InputError, CorruptDataError, TruncatedFileError
        The package or a codec is missing; colours; a damaged file; no whole frame.
    """
    tifffile = library()
    try:
        with openable(path) as source, tifffile.TiffFile(source) as file:
            return _parse(path, file)
    except StemStoreError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # tifffile raises whatever damaged directories lead to
        msg = f"file {str(path)!r} cannot be read as TIFF: {type(error).__name__}: {error}; copy the file again"
        raise CorruptDataError(msg, url=str(path)) from error


def library() -> Any:
    """Import tifffile.

    Raises
    ------
    OptionalDependencyError
        It is not installed.
    """
    if importlib.util.find_spec("tifffile") is None:
        msg = "TIFF files need the package tifffile, which is not installed; pip install 'stemstore[tiff]'"
        raise OptionalDependencyError(msg, package="tifffile")
    import tifffile

    return tifffile


def _parse(path: Place, file: Any) -> Stack:
    sizes = [math.prod(one.shape) for one in file.series]
    if not sizes:
        msg = f"file {str(path)!r} holds no image; copy the file again"
        raise CorruptDataError(msg, url=str(path))
    number = sizes.index(max(sizes))
    series, notes = file.series[number], []
    if len(sizes) > 1:
        notes.append(f"{path.name!r} holds {len(sizes)} series of images; the largest, number {number}, is read")
    kept = [(axis, int(n)) for axis, n in zip(series.axes, series.shape, strict=True) if n != 1 or axis in "YX"]
    if "".join(axis for axis, _ in kept[-2:]) != "YX" or 0 in series.shape:
        held = ", ".join(f"{axis} {n}" for axis, n in kept) or "nothing"
        msg = f"file {str(path)!r} holds images with the axes {held}, expected Y, X last and no colours; convert them"
        raise InputError(msg, url=str(path), found=series.shape)
    shape = tuple(n for _, n in kept)
    dtype = pixel_dtype(np.dtype(series.dtype).newbyteorder(file.byteorder).str)
    page = series.keyframe
    leading, frame_shape = shape[:-2], (shape[-2], shape[-1])
    images, data = _imagej_images(file), series.dataoffset
    if images > math.prod(leading):  # tifffile shows one image of a stack that was cut short
        leading, data = (images,), page.dataoffsets[0]
    stated = n_frames = math.prod(leading)
    frame_bytes = math.prod(frame_shape) * dtype.itemsize
    if data is None:
        offsets = _offsets(series, stated, frame_bytes)
    else:
        offsets = _back_to_back(path, int(data), stated, frame_bytes)
    if offsets is None:
        _check_codec(path, page, dtype, shape)
    else:
        inside = offsets + frame_bytes <= file_size(path)
        n_frames = stated if inside.all() else int(inside.argmin())
        offsets = offsets[:n_frames]
    if n_frames < stated:
        notes.append(f"file {str(path)!r} ends after {n_frames} of {stated} whole frames; the others are left out")
    if not n_frames:
        msg = f"file {str(path)!r} ends before its first frame of {frame_bytes} bytes is complete; copy it again"
        raise TruncatedFileError(msg, url=str(path), found=file_size(path))
    return Stack(
        path=str(path),
        leading=leading if 1 < len(leading) <= MAX_LEADING else (n_frames,),
        frame_shape=frame_shape,
        dtype=dtype,
        n_frames=n_frames,
        offsets=offsets,
        series=number,
        steps=_steps(page, file.imagej_metadata or {}),
        vendor={"tags": _tags(page), "imagej": _plain(file.imagej_metadata or {})},
        notes=tuple(notes),
    )


def _imagej_images(file: Any) -> int:
    """Images that ImageJ states for the one directory of an uncompressed file; 0 for other files."""
    images = (file.imagej_metadata or {}).get("images", 0)
    page = file.pages[0]
    plain = len(file.pages) == 1 and page.compression == 1 and not page.is_tiled and len(page.dataoffsets) == 1
    return images if plain and isinstance(images, int) else 0


def _back_to_back(path: Place, start: int, n_frames: int, frame_bytes: int) -> Int64Array:
    """Where frames begin that follow each other; of a senseless number no more than one beyond the end of the file."""
    possible = file_size(path) // max(frame_bytes, 1) + 1
    return np.arange(min(n_frames, possible), dtype=np.int64) * frame_bytes + start


def _offsets(series: Any, n_frames: int, frame_bytes: int) -> Int64Array | None:
    """Find where each frame starts; None where frames are compressed, tiled or in scattered strips."""
    page = series.keyframe
    if page.compression != 1 or page.is_tiled or page.predictor != 1 or page.fillorder != 1:
        return None
    if len(series.pages) != n_frames:
        return None
    starts = np.empty(n_frames, np.int64)
    for i, one in enumerate(series.pages):
        places, lengths = np.asarray(one.dataoffsets, np.int64), np.asarray(one.databytecounts, np.int64)
        if not len(places) or (places[1:] != places[:-1] + lengths[:-1]).any() or lengths.sum() < frame_bytes:
            return None
        starts[i] = places[0]
    return starts


def _check_codec(path: Place, page: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if page.compression not in BUILT_IN and importlib.util.find_spec("imagecodecs") is None:
        kind = getattr(page.compression, "name", page.compression)
        msg = f"file {str(path)!r} is compressed with {kind}, which needs a further package; pip install imagecodecs"
        raise OptionalDependencyError(msg, package="imagecodecs")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > file_size(path) * MAX_SHRINKAGE:
        msg = (
            f"file {str(path)!r} of {file_size(path)} bytes states images {shape} of {dtype}, {wanted} bytes; "
            "it is damaged, copy it again"
        )
        raise CorruptDataError(msg, url=str(path), found=file_size(path), expected=wanted)


def _steps(page: Any, imagej: dict[str, Any]) -> tuple[StatedAxis | None, StatedAxis | None]:
    """Take the steps of rows and columns that ImageJ states; the resolution of other programs is one of print."""
    unit = imagej.get("unit")
    if not isinstance(unit, str) or unit.lower() in ("", "pixel", "pixels", "inch"):
        return None, None
    steps: list[StatedAxis | None] = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        value = tag.value if tag is not None and isinstance(tag.value, tuple) else (0, 1)
        step = value[1] / value[0] if value[0] else 0.0
        spelling = unit.encode().decode("unicode_escape") if "\\u" in unit else unit
        steps.append(StatedAxis(name, step, 0.0, spelling) if step else None)
    return steps[0], steps[1]


def _tags(page: Any) -> dict[str, Any]:
    found = {}
    for tag in page.tags:
        value = _plain(tag.value)
        if tag.name not in ("StripOffsets", "StripByteCounts", "TileOffsets", "TileByteCounts") and value is not None:
            found[f"{tag.code} {tag.name}"] = value
    return found


def _plain(value: Any) -> Any:
    """Keep what JSON can hold and a person may read; None for the rest."""
    if isinstance(value, dict):
        return {str(key): kept for key, one in value.items() if (kept := _plain(one)) is not None}
    if isinstance(value, str):
        return value[:MAX_TAG]
    if isinstance(value, bool | int | float):
        return value.value if hasattr(value, "value") else value
    if isinstance(value, tuple | list) and len(value) <= MAX_TAG:
        kept = [_plain(one) for one in value]
        return None if None in kept else kept
    return None
