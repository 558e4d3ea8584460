"""Virtual detectors applied to a whole scan: one image per detector, all detectors in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.contract import sum_dtype
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.ops.detectors import Detector, as_detector
from stemstore.ops.labels import intensity_of, labelled, parameters_text, scan_dims
from stemstore.ops.moved import MovedSums
from stemstore.ops.origin import Movement
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array


def virtual_image(scan: Any, detector: Any, *, origin: Any = None) -> Any:
    """Sum every diffraction pattern under a virtual detector.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    detector
        ``disk(…)``, ``annulus(…)``, ``sector(…)``, ``rectangle(…)``, ``point(…)``, an array of weights of shape (ky,
        kx) (boolean, integer, real or complex), or a dict of names to such detectors (``segments(…)`` gives one), all
        of which are computed in one pass.
    origin
        Where the optic axis is at each position, when it moves with the scan (descan): a Dataset with ``com_y`` and
        ``com_x`` (y, x), distances from the optic axis of the scan, such as a fit to `center_of_mass`; or a pair of
        maps (ky, kx) of places on the detector axes. Units are those of the maps' attribute ``units``, else of the
        detector axes. Detectors move by whole pixels: the distance from the optic axis, rounded half to even. Values
        at missing frames do not matter.

    Returns
    -------
    image : dims (y, x)
        Lazy DataArray; a Dataset with a variable per name for a dict. Boolean detectors on integer data give exact
        integer sums (uint64 or int64), anything else float64 or complex128. Missing frames give 0, NaN where the
        pixels are floats, and are marked by the coordinate ``valid``.

    Raises
    ------
    InputError
        A detector covers no pixel, has the wrong shape or contains NaN; the origin has another shape than the scan, is
        not finite, or lies far outside the detector.
    CalibrationMissingError
        A detector is given in a unit that the scan has no calibration for.

    Notes
    -----
    Memory per thread: one decoded piece of the scan (2 to 8 MB) and the weights. With `origin`, weights are prepared
    for each move that occurs, and 32 MiB of them are kept; a shape that leaves the detector is cut off there. Such
    images share no pass in `stemstore.compute`.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> stemstore.virtual_image(ds, stemstore.annulus(20, 60, unit="mrad")).compute()  # doctest: +SKIP
    """
    import xarray as xr

    image = intensity_of(scan)
    movement = None if origin is None else Movement.of(image, origin)
    if not isinstance(detector, dict):
        return _images(image, {"virtual_image": detector}, movement)[0]
    if not detector:
        msg = "the dict of detectors is empty; give at least one, such as {'bright_field': disk(10)}"
        raise InputError(msg, found=detector)
    images = _images(image, detector, movement)
    return xr.Dataset(dict(zip(detector, images, strict=True)))


def _images(image: xr.DataArray, detectors: dict[str, Any], movement: Movement | None) -> list[xr.DataArray]:
    """Compute all detectors of one kind (exact masks; other weights) in one pass each."""
    shapes = {name: as_detector(given) for name, given in detectors.items()}
    weights = {n: shape.weights(image) if movement is None else movement.weights(shape) for n, shape in shapes.items()}
    columns: dict[str, Any] = {}
    masks = [name for name, w in weights.items() if w.dtype == bool]
    others = [name for name, w in weights.items() if w.dtype != bool]
    if masks:
        data = _sums(image, np.stack([weights[name] for name in masks]), movement)
        data = data.astype(sum_dtype(image.dtype))  # a selection that repeats pixels sums in float64, exactly
        columns |= {name: data[..., number] for number, name in enumerate(masks)}
    if others:
        data = _sums(image, np.stack([part for name in others for part in _real_parts(weights[name])]), movement)
        number = 0
        for name in others:
            columns[name] = data[..., number]
            number += 1
            if weights[name].dtype.kind == "c":
                columns[name] = columns[name] + 1j * data[..., number]
                number += 1
    moved = None if movement is None else movement.describe()
    return [_labelled(columns[name], image, name, shapes[name], moved) for name in detectors]


def _sums(image: xr.DataArray, weights: Array, movement: Movement | None) -> Any:
    """Sum every frame under several weight images, at rest or moved; the last axis counts them."""
    if movement is None:
        return map_kernel(image.data, DetectorSums(weights))
    return map_kernel(image.data, MovedSums.of(weights, movement), values=movement.shift)


def _real_parts(weights: Array) -> list[Array]:
    if weights.dtype.kind == "c":
        return [weights.real.astype(np.float64), weights.imag.astype(np.float64)]
    return [weights.astype(np.float64)]


def _labelled(data: Any, image: xr.DataArray, name: str, detector: Detector, moved: str | None) -> xr.DataArray:
    history = parameters_text("virtual_image", detector=detector.describe(), origin=moved)
    result = labelled(data, image, scan_dims(image), history)
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": detector.describe()}
    return result.rename(name)
