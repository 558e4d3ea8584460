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

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, OptionalDependencyError, StemStoreError, TruncatedFileError
from stemstore.sources.files import expand, file_size, identity, unreadable
from stemstore.sources.geometry import check_range, shape_option
from stemstore.sources.records import RecordSource, as_bytes, frame_buffer, pixel_dtype, read_blocks
from stemstore_readers.stated_axes import StatedAxis
from stemstore_readers.stored_arrays import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stemstore._types import Array, Int64Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore_schemas import SourceMetadata

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of little- and big-endian TIFF, classic and BigTIFF."""

BUILT_IN = (1, 8, 32946)
"""Compressions that need no further library: none and deflate, by its two numbers."""

MAX_SHRINKAGE = 2000
"""Largest factor by which a page of a believable file may be compressed; deflate reaches 1032."""

MAX_LEADING = 3
"""Scan axes that a shape written by tifffile may state: (frame, y, x)."""

MAX_TAG = 2**16
"""Longest text of a tag that is kept, in characters, and longest list."""


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

    def _source(self, files: list[Path], stacks: list[Stack]) -> RecordSource | TiffSource:
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


def parse_file(path: Path) -> Stack:
    """Read the directories of a file and find its frames.

    Raises
    ------
    OptionalDependencyError, InputError, CorruptDataError, TruncatedFileError
        As for `Tiff`.
    """
    tifffile = _library()
    try:
        with tifffile.TiffFile(path) as file:
            return _parse(path, file)
    except StemStoreError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # tifffile raises whatever damaged directories lead to
        msg = f"file {str(path)!r} cannot be read as TIFF: {type(error).__name__}: {error}; copy the file again"
        raise CorruptDataError(msg, url=str(path)) from error


def _library() -> Any:
    if importlib.util.find_spec("tifffile") is None:
        msg = "TIFF files need the package tifffile, which is not installed; pip install 'stemstore[tiff]'"
        raise OptionalDependencyError(msg, package="tifffile")
    import tifffile

    return tifffile


def _parse(path: Path, file: Any) -> Stack:
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


def _back_to_back(path: Path, start: int, n_frames: int, frame_bytes: int) -> Int64Array:
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


def _check_codec(path: Path, page: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
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


def _read(stack: Stack, start: int, stop: int, out: Array) -> None:
    if stack.offsets is None:
        _decode(stack, start, stop, out)
        return
    places = np.arange(stop - start, dtype=np.int64) * stack.frame_bytes
    read_blocks(stack.path, stack.offsets[start:stop], stack.frame_bytes, as_bytes(out), places)
    if not stack.dtype.isnative:
        out.byteswap(inplace=True)


def _decode(stack: Stack, start: int, stop: int, out: Array) -> None:
    try:
        with _library().TiffFile(stack.path) as file:
            pages = file.series[stack.series].pages
            for i in range(start, stop):
                out[i - start] = pages[i].asarray(maxworkers=1).reshape(stack.frame_shape)
    except OSError as error:
        raise unreadable(stack.path, error) from error
    except Exception as error:  # decoders raise whatever damaged pages lead to
        msg = f"pages {start}..{stop} of {stack.path!r} cannot be decoded: {error}; copy the file again"
        raise CorruptDataError(msg, url=stack.path) from error
