"""Corrections of the detector as arguments of operations, so that users need not change the array themselves.

Changing values (``scan - dark``) would make an array forget that it is a selection of a scan; an argument does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.corrections import CorrectedKernel, Corrections, Repair
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.labels import intensity_of, parameters_text, values_of, without_missing
from stemstore.scan.references import CARRIED, NAMES

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray


class PixelCorrections(TypedDict, total=False):
    """Arguments that correct the pixels of every frame, all of shape (ky, kx) of the visible detector.

    Attributes
    ----------
    dark
        Dark reference, subtracted first. A DataArray with the coordinates ``ky_pixel`` and ``kx_pixel`` may show more
        pixels than the scan: its pixels are found by number.
    gain
        Gain reference, multiplied second.
    bad_pixels : bool
        True for pixels to be replaced by the mean of those of their eight neighbours that are good.
    """

    dark: Any
    gain: Any
    bad_pixels: Any


class CorrectionOptions(PixelCorrections, total=False):
    """As `PixelCorrections`, and which pixels take part at all.

    Attributes
    ----------
    mask
        Virtual detector (``disk(…)`` …) or boolean array; pixels outside count as zero, last of all.
    """

    mask: Any


def corrections_of(image: xr.DataArray, options: CorrectionOptions | PixelCorrections) -> Corrections | None:
    """Check the corrections that are given for a scan; None where there are none.

    Raises
    ------
    InputError
        One has another shape than the visible detector, is not finite, or is of the wrong type; a bad pixel has no good
        neighbour.
    TypeError
        There is no such correction.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(options) - CorrectionOptions.__optional_keys__)
    if unknown:
        known = ", ".join(sorted(CorrectionOptions.__optional_keys__))
        msg = f"unexpected argument {unknown[0]!r}; corrections are {known}"
        raise TypeError(msg)
    if not given:
        return None
    dark, gain = (_reference(image, given[name], name) if name in given else None for name in ("dark", "gain"))
    mask = _flags(image, given["mask"], "mask") if "mask" in given else None
    bad = _flags(image, given["bad_pixels"], "bad_pixels") if "bad_pixels" in given else None
    repair = None if bad is None or not bad.any() else Repair.of(bad)
    return Corrections(dark, gain, repair, mask)


def corrected(kernel: Any, corrections: Corrections | None) -> Any:
    """Give the kernel itself, or one that corrects frames for it."""
    return kernel if corrections is None else CorrectedKernel(kernel, corrections)


def corrections_text(options: CorrectionOptions | PixelCorrections) -> dict[str, str]:
    """Say in the history of a result which corrections were applied."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return {name: as_detector(value).describe() for name, value in given.items()}


def correct(scan: Any, **corrections: Unpack[CorrectionOptions]) -> Any:
    """Correct every diffraction pattern of a scan, lazily.

    Operations take the same corrections as arguments and are faster with them (the linear ones need no pass over the
    pixels for it); this is for looking at corrected patterns, and for functions of other packages.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    **corrections
        ``dark``, ``gain``, ``bad_pixels`` and ``mask``, as in `virtual_image`; or ``"detector"`` for the image that
        the dataset carries (its variables ``dark``, ``gain`` and ``mask``; bad pixels are those outside the mask).

    Returns
    -------
    scan
        As given, with patterns in float64; missing frames are NaN. An ordinary dask array: operations on it go block by
        block.

    Raises
    ------
    InputError
        No correction is given, or one does not fit.

    Notes
    -----
    Memory per thread: one block of the array (about 8 MB as stored) and its corrected copy, four times as large for
    16-bit pixels.
    """
    import dask.array as da
    import xarray as xr

    image = intensity_of(scan)
    given = cast("CorrectionOptions", {name: _carried(scan, name, value) for name, value in corrections.items()})
    pixels = corrections_of(image, given)
    if pixels is None:
        msg = "no correction is given; expected some of dark=…, gain=…, bad_pixels=… and mask=…"
        raise InputError(msg)
    array = image.data if isinstance(image.data, da.Array) else da.from_array(image.data)
    array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
    apply: Any = pixels.apply  # dask's annotations know no NumPy arrays
    data = array.map_blocks(apply, dtype=np.float64, meta=np.empty((0,) * array.ndim))
    text = parameters_text("correct", **corrections_text(given))
    history = "\n".join(line for line in (image.attrs.get("history"), text) if line)
    done = image.copy(data=without_missing(data, image)).assign_attrs(history=history)
    return scan.assign(intensity=done) if isinstance(scan, xr.Dataset) else done


def _carried(scan: Any, name: str, value: Any) -> Any:
    """Give the image that a dataset carries where it is asked for by ``"detector"``."""
    if not isinstance(value, str) or value != CARRIED or name not in NAMES:
        return value
    variables = getattr(scan, "data_vars", {})
    if NAMES[name] not in variables:
        msg = f"{name}='{CARRIED}': the dataset carries no variable {NAMES[name]!r}; give an image"
        raise InputError(msg, key=name, found=sorted(map(str, variables)))
    carried = variables[NAMES[name]]
    return ~carried.astype(bool) if name == "bad_pixels" else carried


def _reference(image: xr.DataArray, given: Any, name: str) -> FloatArray:
    """Give a dark or gain reference for the visible pixels."""
    values = values_of(_on_pixels(image, given, name))
    if values.dtype.kind not in "biuf" or values.shape != image.shape[-2:] or not np.isfinite(values).all():
        msg = (
            f"{name} is a frame of finite numbers with the shape of the visible detector {image.shape[-2:]} (ky, kx), "
            f"got {values.dtype} of shape {values.shape}{_bad_values(values)}; select the same pixels from both"
        )
        raise InputError(msg, key=name, found=values.shape, expected=image.shape[-2:])
    return values.astype(np.float64)


def _flags(image: xr.DataArray, given: Any, name: str) -> BoolArray:
    """Give flags for the visible pixels."""
    values = np.asarray(as_detector(_on_pixels(image, given, name)).weights(image))
    if values.dtype != bool:
        msg = f"{name} is boolean, got weights of type {values.dtype}; compare them with 0 first"
        raise InputError(msg, key=name, found=str(values.dtype))
    return values


def _on_pixels(image: xr.DataArray, given: Any, name: str) -> Any:
    """Give the visible pixels of a labelled frame by their stored numbers, where both sides know these."""
    import xarray as xr

    if not isinstance(given, xr.DataArray) or set(given.dims) != {"ky", "kx"}:
        return given
    given = given.transpose("ky", "kx")
    for dim in ("ky", "kx"):
        number = f"{dim}_pixel"
        if number not in given.coords or number not in image.coords:
            continue
        own, wanted = given.coords[number].values, image.coords[number].values
        order = np.argsort(own, kind="stable")
        at = np.searchsorted(own, wanted, sorter=order).clip(max=max(0, len(own) - 1))
        if not len(own) or (own[order[at]] != wanted).any():
            msg = f"{name} does not show all pixels that the scan shows along {dim}; give one of the whole detector"
            raise InputError(msg, key=name, found=given.shape, expected=image.shape[-2:])
        given = given.isel({dim: order[at]})
    return given


def _bad_values(values: Array) -> str:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return ""
    return f" with {int((~np.isfinite(values)).sum())} values that are NaN or infinite"
