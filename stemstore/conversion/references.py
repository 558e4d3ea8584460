"""Images of the detector that counting needs, from wherever a user has them: array, NumPy file, or store."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.contract import VALID
from stemstore.sources.files import local_path, unreadable

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray
    from stemstore.store.arrays import StoredFrames
    from stemstore.store.open import StoredScan

NAMES = {"dark": "dark", "gain": "gain", "bad_pixels": "mask"}
"""Images of counting, and what calibrations call them."""

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


def load_reference(given: Any, name: str, frame_shape: tuple[int, int]) -> Reference | None:
    """Get an image of the detector.

    Parameters
    ----------
    given
        Array (also labelled), path of a NumPy file, path or URL of a store, or None. Of a store the calibration of
        that name is taken; where it has none, a dark reference is the mean of its complete frames.
    name
        ``"dark"``, ``"gain"`` or ``"bad_pixels"`` (true at pixels that are not used).
    frame_shape
        Detector rows and columns.

    Raises
    ------
    InputError
        No image of real numbers, or one of another detector.
    NotFoundError, StorageError, CorruptDataError
        A file or store cannot be read.
    """
    from stemstore.store.commit import digest

    if given is None:
        return None
    origin = os.fspath(given) if isinstance(given, (str, os.PathLike)) else "array"
    values = np.asarray(getattr(given, "values", given) if origin == "array" else _read(str(origin), name))
    if values.dtype.kind not in "biuf" or values.shape != frame_shape:
        msg = (
            f"{name} ({origin}) has shape {values.shape} and dtype {values.dtype}, expected shape {frame_shape}; "
            "give an image of real numbers of this detector"
        )
        raise InputError(msg, key=name, found=values.shape, expected=frame_shape)
    real = np.ascontiguousarray(values, np.float64)
    return Reference(real, str(origin), digest(real.astype("<f8").tobytes()))


def _read(path: str, name: str) -> Array:
    from stemstore.store.open import is_store, open_store

    if is_store(path):
        return _of_store(open_store(path), path, name)
    if not path.endswith(".npy"):
        msg = (
            f"{name}={path!r} is neither a store nor a NumPy file; give an array, a path that ends in .npy, or a store"
        )
        raise InputError(msg, key=name, found=path)
    file = local_path(path)
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (OSError, EOFError) as error:
        raise unreadable(Path(path), error) from error
    except ValueError as error:
        msg = f"{name}={path!r} cannot be read as a NumPy array ({error}); save it with numpy.save"
        raise CorruptDataError(msg, url=path, key=name) from error


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
