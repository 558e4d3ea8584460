"""The virtual bright-field stack: one image of the scan per detector pixel, or box of pixels, of the bright field."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import CalibrationMissingError, InputError
from stemstore.kernels.pixel_images import PixelImages
from stemstore.ops.geometry.detectors import as_detector, disk
from stemstore.ops.geometry.origin import chosen_origin
from stemstore.ops.imaging.binning import box_dtype
from stemstore.ops.imaging.recenter import recenter
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims, without_missing
from stemstore.scan.blocks import map_kernel
from stemstore.scan.coordinates import axis_in, pixel_axis

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Int64Array

ANGLE = "semi_convergence_angle_mrad"


def bright_field_stack(
    scan: Any,
    detector: Any = None,
    *,
    bin: int | tuple[int, int] = 1,  # noqa: A002 (the word of the field)
    partial: Literal["drop", "keep"] = "keep",
    origin: Any = None,
    dtype: Any = None,
) -> xr.DataArray:
    """Give one image of the scan for every detector pixel of the bright field: the stack behind parallax and tcBF.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    detector
        Which pixels: a virtual detector such as ``disk(…)``, or a boolean array (ky, kx). By default the disk of the
        semi-convergence angle.
    bin
        Rows and columns of boxes of pixels that share an image, counted from the first visible pixel; one number for
        squares.
    partial
        Boxes that the detector covers in part: ``"keep"`` sums the pixels inside, ``"drop"`` leaves such boxes out.
    origin
        Where the optic axis is at each position, as in `virtual_image`: by default that of the scan itself, False for
        none. Patterns are moved by whole pixels as `recenter` does.
    dtype
        Integer type of the images, in place of the one below.

    Returns
    -------
    stack : dims (k, y, x), lazy
        Along k the coordinates ``ky``, ``kx`` (mean place of the pixels of an image, in the unit of the detector axes),
        ``ky_pixel``, ``kx_pixel`` (the same in stored pixels) and ``n_pixels``. Images are exact: uint16, or the
        smallest wider integer type that holds every possible sum; float64 for floats. With ``partial="keep"`` their sum
        is the `virtual_image` of the detector. Missing frames are zero (NaN for floats), marked by ``valid``.

    Raises
    ------
    CalibrationMissingError
        No detector is given and the convergence angle is not known.
    InputError
        The detector is no region of pixels, no box is left, or bin or dtype is impossible. When computed: a count that
        the dtype cannot hold; it never wraps around.

    Notes
    -----
    Positions are filled one after the other in a megabyte of scratch and turned into images in tiles, so that a stack
    costs one pass whatever the number of images. Memory per thread: the stack of one task (at most about 128 MB, or one
    position) and one decoded piece of the scan. A stack larger than the memory budget goes into a store block by block
    with ``stemstore.save(stack, ds, "stack")``.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> stack = stemstore.bright_field_stack(ds, stemstore.disk(22, unit="mrad"), bin=4)  # doctest: +SKIP
    >>> stemstore.save(stack, ds, "bright_field")  # doctest: +SKIP
    """
    import dask.array as da

    image = intensity_of(scan)
    if (followed := chosen_origin(image, origin)) is not None:
        image = recenter(image, followed)["intensity"]
    shape = as_detector(_convergence(image) if detector is None else detector)
    factor = _factor(bin, image)
    labels, sizes = _labels(shape, image, factor, partial)
    least = np.int16 if image.dtype.kind == "i" else np.uint16
    kind = np.promote_types(box_dtype(image.dtype, math.prod(factor)), least)
    kind = kind if dtype is None else _integer(dtype, image)
    known = recorded(image)
    keep = None if known is None or known.all() else known
    data = map_kernel(image.data, PixelImages(labels, len(sizes), kind), keep)
    data = without_missing(data, image) if data.dtype.kind == "f" else data
    text = parameters_text("bright_field_stack", detector=shape.describe(), bin=factor, partial=partial)
    stack = labelled(da.moveaxis(data, -1, 0), image, ("k", *scan_dims(image)), text)
    stack.attrs |= {"units": image.attrs.get("units", "count"), "long_name": "virtual bright-field images"}
    return stack.assign_coords(_places(image, labels, sizes)).rename("bright_field_stack")


def _convergence(image: xr.DataArray) -> Any:
    """Give the disk that the probe's convergence angle makes."""
    angle = image.attrs.get(ANGLE)
    if angle is None:
        msg = (
            "the semi-convergence angle of this scan is not known; give the detector, such as disk(20, unit='mrad'), "
            "or state it: stemstore.calibrate(ds, semi_convergence_angle=…)"
        )
        raise CalibrationMissingError(msg, key="semi_convergence_angle")
    return disk(float(angle), unit="mrad")


def _factor(given: Any, image: xr.DataArray) -> tuple[int, int]:
    pair = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
    whole = len(pair) == 2 and all(isinstance(f, (int, np.integer)) and not isinstance(f, bool) for f in pair)  # noqa: PLR2004 (rows, columns)
    if not whole or any(not 1 <= f <= n for f, n in zip(pair, image.shape[-2:], strict=True)):
        msg = f"bin={given!r} does not fit a detector of {image.shape[-2:]}; give whole numbers from 1 to its size"
        raise InputError(msg, key="bin", found=given, expected=image.shape[-2:])
    return int(pair[0]), int(pair[1])


def _integer(dtype: Any, image: xr.DataArray) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.kind not in "ui" or image.dtype.kind not in "uib":
        msg = f"dtype={dtype!r} does not fit images of {image.dtype}; choose an integer type, for integer scans only"
        raise InputError(msg, key="dtype", found=str(kind))
    return kind


def _labels(shape: Any, image: xr.DataArray, factor: tuple[int, int], partial: str) -> tuple[Int64Array, Int64Array]:
    """Give the box of every pixel that the detector covers, numbered row by row, and the pixels inside of each."""
    if partial not in {"drop", "keep"}:
        msg = f"partial is {partial!r}; expected 'drop' or 'keep' for boxes that the detector covers in part"
        raise InputError(msg, key="partial", found=partial, expected=("drop", "keep"))
    mask = shape.weights(image)
    if mask.dtype != bool:
        msg = (
            f"{shape.describe()} gives weights of {mask.dtype}; a stack needs a region: plain edges, or a boolean array"
        )
        raise InputError(msg, key="detector", found=str(mask.dtype))
    rows, columns = (np.arange(n) // f for n, f in zip(mask.shape, factor, strict=True))
    box = rows[:, None] * (int(columns[-1]) + 1) + columns
    inside = np.bincount(box[mask], minlength=int(box[-1, -1]) + 1)
    chosen = inside == math.prod(factor) if partial == "drop" else inside > 0
    if not chosen.any():
        msg = f"{shape.describe()} holds no whole box of {factor} pixels; use a smaller bin, or partial='keep'"
        raise InputError(msg, key="bin", found=factor)
    number = np.where(chosen, np.cumsum(chosen) - 1, -1)
    return np.where(mask, number[box], -1).astype(np.int64), inside[chosen].astype(np.int64)


def _places(image: xr.DataArray, labels: Int64Array, sizes: Int64Array) -> dict[str, Any]:
    """Coordinates along k: mean places of the pixels of every image."""
    inside = labels >= 0
    coords: dict[str, Any] = {"n_pixels": ("k", sizes, {"long_name": "detector pixels of an image"})}
    for axis, name in enumerate(("ky", "kx")):
        index = np.nonzero(inside)[axis]
        attrs = {} if name not in image.coords else dict(image.coords[name].attrs)
        kept = {key: attrs[key] for key in ("units", "long_name") if key in attrs}
        pixels = {"units": "pixel", "long_name": f"stored index along {name}"}
        for label, values, about in (
            (name, axis_in(image, name, None), kept or pixels),
            (f"{name}_pixel", pixel_axis(image, name), pixels),
        ):
            total = np.bincount(labels[inside], weights=values[index], minlength=len(sizes))
            coords[label] = ("k", total / sizes, about)
    return coords
