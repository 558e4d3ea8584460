"""Images of the detector, from wherever a user has them: array, any file that a reader opens, store, or the data."""

from __future__ import annotations

import io
import itertools
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.scan.addresses import addresses
from stemstore.sources.contract import VALID, EventSource
from stemstore.sources.files import expand, file_size, unreadable
from stemstore.sources.references import mean_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore._types import Array, FloatArray
    from stemstore.sources.contract import DetectorImage
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.open import StoredScan

CARRIED = "detector"
"""What stands for the image that the data themselves carry."""

NAMES = {"dark": "dark", "gain": "gain", "bad_pixels": "mask", "mask": "mask"}
"""Images that correct frames, and what calibrations call them."""

FLAGS = ("bad_pixels", "mask")
"""Those that say yes or no of every pixel; the mean of several frames would say nothing."""

MAX_NPY_BYTES = 2**30
"""Longest NumPy file that is read as an image or a small stack of them."""

TILE = 8  # positions along each scan axis that are read at once for the mean of a dark scan


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """An image of the detector, and what it is.

    Attributes
    ----------
    values : shape (ky, kx), float64
    origin
        Path or URL, or ``"array"``.
    digest
        Of the values as float64, little-endian: ``"sha256:…"``.
    """

    values: FloatArray
    origin: str
    digest: str


def load_reference(
    given: Any, name: str, frame_shape: tuple[int, int], carried: Mapping[str, DetectorImage] | None = None
) -> Reference | None:
    """Get an image of the detector.

    Parameters
    ----------
    given
        Array (also labelled); path or URL of a NumPy file, of any file that a reader opens, or of a store; the text
        ``"detector"`` for the image that the data carry; or None. Of several frames the mean is taken, of a store
        the calibration of that name or, as dark, the mean of its complete frames.
    name
        ``"dark"``, ``"gain"``, ``"bad_pixels"`` (true at pixels that are not used) or ``"mask"`` (true at those that
        are).
    frame_shape
        Detector rows and columns.
    carried
        What the data carry, by the names of a calibration.

    Returns
    -------
    reference
        Flags are 1 or 0; other values may still be NaN or infinite.

    Raises
    ------
    InputError
        No image of real numbers, or one of another detector; flags that are NaN; the data carry no such image.
    StemStoreError
        A file or store cannot be read, as for `stemstore.open`.
    """
    from stemstore.store.commit import digest

    if given is None:
        return None
    origin = addresses(given)[0] if isinstance(given, (str, os.PathLike)) else "array"
    if origin == "array":
        values = np.asarray(getattr(given, "values", given))
    elif origin == CARRIED:
        values = _carried(name, carried or {})
    else:
        values = _read(origin, name)
    if values.dtype.kind not in "biuf" or values.shape != frame_shape:
        msg = (
            f"{name} ({origin}) has shape {values.shape} and dtype {values.dtype}, expected shape {frame_shape}; "
            "give an image of real numbers of this detector"
        )
        raise InputError(msg, key=name, found=values.shape, expected=frame_shape)
    if name in FLAGS:
        if np.isnan(values).any():
            msg = f"{name} ({origin}) has pixels that are neither true nor false (NaN); give booleans"
            raise InputError(msg, key=name)
        values = values != 0
    real = np.ascontiguousarray(values, np.float64)
    return Reference(real, str(origin), digest(real.astype("<f8").tobytes()))


def without_mask(bad: Reference | None, mask: Reference) -> Reference:
    """Count the pixels outside a mask among the bad ones."""
    from stemstore.store.commit import digest

    outside = (mask.values == 0).astype(np.float64)
    values = outside if bad is None else np.maximum(outside, bad.values)
    origin = f"outside {mask.origin}" if bad is None else f"{bad.origin}; outside {mask.origin}"
    return Reference(values, origin, digest(values.astype("<f8").tobytes()))


def _carried(name: str, carried: Mapping[str, DetectorImage]) -> Array:
    found = carried.get(NAMES[name])
    if found is None:
        known = ", ".join(carried) or "none"
        msg = f"{name}='{CARRIED}': the data carry no {NAMES[name]} of their detector, but {known}; give an image"
        raise InputError(msg, key=name, found=sorted(carried))
    values = found.read()
    return values == 0 if name == "bad_pixels" else values


def _read(path: str, name: str) -> Array:
    """Read an image from a store, a NumPy file, or frames of any other file."""
    from stemstore.sources.registry import open_source
    from stemstore.store.open import is_store, open_store

    if is_store(path):
        return _of_store(open_store(path), path, name)
    if path.endswith(".npy"):
        return _mean_image(_load(path, name), path, name)
    source = open_source(path)
    if isinstance(source, EventSource):
        msg = f"{name}={path!r} holds counted events, expected an image or frames of pixels; give another file"
        raise InputError(msg, key=name, url=path)
    if name in FLAGS and (n_frames := math.prod(source.scan_shape)) != 1:
        raise _several(path, name, n_frames)
    return source.read_frames(0, 1)[0] if name in FLAGS else mean_frame(source)


def _load(path: str, name: str) -> Array:
    """Read a NumPy file."""
    (file,) = expand(path)[:1]
    if (size := file_size(file)) > MAX_NPY_BYTES:
        msg = f"{name}={path!r} has {size} bytes, expected an image or a few; save its mean with numpy.save"
        raise InputError(msg, key=name, found=size, expected=MAX_NPY_BYTES)
    try:
        return np.asarray(np.load(io.BytesIO(file.read_bytes()), allow_pickle=False))
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, EOFError) as error:
        msg = f"{name}={path!r} cannot be read as a NumPy array ({error}); save it with numpy.save"
        raise CorruptDataError(msg, url=path, key=name) from error


def _mean_image(values: Array, path: str, name: str) -> Array:
    """Average over all axes but the last two."""
    if values.ndim <= 2 or values.dtype.kind not in "biuf":  # noqa: PLR2004 (rows and columns)
        return values
    images = values.reshape(-1, *values.shape[-2:])
    if name in FLAGS and len(images) != 1:
        raise _several(path, name, len(images))
    return images[0] if len(images) == 1 else images.mean(axis=0, dtype=np.float64)


def _several(path: str, name: str, n_frames: int) -> InputError:
    msg = f"{name}={path!r} holds {n_frames} frames, expected one image; their mean would not be true or false"
    return InputError(msg, key=name, found=n_frames, expected=1)


def _of_store(scan: StoredScan, path: str, name: str) -> Array:
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.calibration import read_calibration

    saved = read_calibration(scan).arrays.get(NAMES[name])
    if saved is not None:
        values = saved.read()
        return values == 0 if name == "bad_pixels" else values
    if name != "dark" or not isinstance(scan, StoredFrames):
        what = "its calibration has no such image" if isinstance(scan, StoredFrames) else "it holds counted events"
        msg = f"{name}={path!r}: {what}; save one there with stemstore.save_calibration, or give an array"
        raise InputError(msg, key=name, url=path)
    return _mean_frame(scan, path)


def _mean_frame(scan: StoredFrames, path: str) -> FloatArray:
    """Mean of the complete frames, a few chunks at a time."""
    from stemstore.selection import Selection

    whole = np.ones(scan.scan_shape, np.bool_) if scan.validity is None else scan.validity == VALID
    complete = whole.reshape(scan.scan_shape)
    if not complete.any():
        msg = f"dark={path!r} holds no complete frame; convert the dark scan again"
        raise CorruptDataError(msg, url=path, key="dark")
    every, total = Selection.full(scan.shape), np.zeros(scan.shape[-2:])
    starts = (range(0, n, TILE) for n in scan.scan_shape)
    for corner in itertools.product(*starts):
        part = tuple(slice(at, min(at + TILE, n)) for at, n in zip(corner, scan.scan_shape, strict=True))
        frames = scan.read(every.cut_scan(part))
        total += frames[complete[part]].sum(axis=0, dtype=np.float64)
    return total / int(complete.sum())
