"""The calibration file of an EMPAD-G2: coefficients per pixel that turn its words into intensities.

========================  ================  ==========================================================
datasets                  shape             intensity of a pixel (a analogue, d digital, g gain bit)
========================  ================  ==========================================================
G1A G2A B2A G1B G2B B2B   (128, 128)        a (1 - g) + G1 (a - B2) g + G2 d
Ml alpha Md Oh Ot         (128, 128, 2)     a (1 - g) + Ml a g + alpha a² g + Md d + Oh g - Ot
FFA FFB                   (128, 128)        flat field, applied behind the background
========================  ================  ==========================================================

A (last index 0) holds for even columns of the scan, B (1) for odd ones. Source: sezelt/empad2 (``src/empad2``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import CorruptDataError, UnknownFormatError
from stemstore.sources.files import file_size, unreadable
from stemstore.sources.remote import openable, place

if TYPE_CHECKING:
    import h5py

    from stemstore._types import Array, FloatArray

SIDE = 128
LINEAR = ("G1A", "G2A", "B2A", "G1B", "G2B", "B2B")
QUADRATIC = ("Ml", "alpha", "Md", "Oh", "Ot")
FLAT_FIELD = ("FFA", "FFB")

MAX_BYTES = 2**26
"""Largest calibration file that is opened; thirteen arrays of 64 KiB are usual."""


@lru_cache(maxsize=4)  # a calibration belongs to an instrument: one is in use, a few are compared
def read_calibration(path: str, identity: str) -> tuple[FloatArray, FloatArray]:
    """Read a calibration file, once per process.

    Parameters
    ----------
    path
        HDF5 file.
    identity
        Text that changes with the file.

    Returns
    -------
    coefficients : shape (2, 16384, 5)
        As `stemstore.kernels.empad_g2.decode` takes them.
    flat_field : shape (2, 16384)

    Raises
    ------
    UnknownFormatError
        The file is no HDF5 file, or has neither set of datasets.
    CorruptDataError
        A dataset has another shape or holds values that are not finite.
    """
    import h5py

    del identity
    try:
        if file_size(place(path)) > MAX_BYTES:
            raise _too_large(path)
        with openable(place(path)) as source, h5py.File(source, "r") as file:
            names = next((names for names in (LINEAR, QUADRATIC) if all(name in file for name in names)), None)
            if names is None or not all(name in file for name in FLAT_FIELD):
                msg = (
                    f"calibration file {path!r} holds {', '.join(sorted(file)[:20]) or 'nothing'}, expected FFA and "
                    f"FFB with {', '.join(LINEAR)} or {', '.join(QUADRATIC)}; give the calibration of this detector"
                )
                raise UnknownFormatError(msg, url=path)
            wanted = (SIDE, SIDE) if names is LINEAR else (SIDE, SIDE, 2)
            values = {name: _array(file, name, wanted) for name in names}
            flat = np.stack([_array(file, name, (SIDE, SIDE)).reshape(-1) for name in FLAT_FIELD])
    except OSError as error:
        if place(path).is_file():
            msg = f"calibration file {path!r} is no HDF5 file: {error}; give the calibration of this detector"
            raise UnknownFormatError(msg, url=path) from error
        raise unreadable(path, error) from error
    banks = _linear(values) if names is LINEAR else _quadratic(values)
    return np.ascontiguousarray(np.moveaxis(banks, 1, 2)), flat


def _too_large(path: str) -> CorruptDataError:
    msg = f"calibration file {path!r} has {file_size(place(path))} bytes, expected at most {MAX_BYTES}; give another"
    return CorruptDataError(msg, url=path)


def _array(file: h5py.File, name: str, shape: tuple[int, ...]) -> FloatArray:
    import h5py

    dataset = file.get(name)
    good = isinstance(dataset, h5py.Dataset) and dataset.shape == shape and dataset.dtype.kind == "f"
    array: Array = np.asarray(dataset[()], np.float64) if good else np.empty(0)
    if not good or not np.isfinite(array).all():
        found = getattr(dataset, "shape", type(dataset).__name__)
        msg = (
            f"calibration file {str(file.filename)!r} has {name!r} of shape {found}, expected finite floats of shape "
            f"{shape}; copy the file again"
        )
        raise CorruptDataError(msg, url=str(file.filename), key=name, expected=shape)
    return array


def _linear(values: dict[str, FloatArray]) -> FloatArray:
    banks = []
    for bank in "AB":
        g1, g2, b2 = (values[name + bank].reshape(-1) for name in ("G1", "G2", "B2"))
        banks.append([-g1 * b2, g1, 0 * g1, g2, 0 * g1])
    return np.array(banks)


def _quadratic(values: dict[str, FloatArray]) -> FloatArray:
    ml, alpha, md, oh, ot = (values[name].reshape(-1, 2).T for name in QUADRATIC)
    return np.stack([oh, ml, alpha, md, -ot], axis=1)
