"""Virtual detectors applied to a whole scan: one image per detector, all detectors in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.contract import sum_dtype
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.ops.corrections import CorrectionOptions, corrected, corrections_of, corrections_text
from stemstore.ops.geometry.detectors import Detector, as_detector
from stemstore.ops.geometry.moved import MovedKernel
from stemstore.ops.geometry.origin import Movement
from stemstore.ops.geometry.plane import ellipse_text
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims, without_missing
from stemstore.ops.roi import within
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array
    from stemstore.kernels.corrections import Corrections


def virtual_image(
    scan: Any, detector: Any, *, origin: Any = None, roi: Any = None, **corrections: Unpack[CorrectionOptions]
) -> Any:
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
        ``com_x`` (y, x), distances from the optic axis of the scan, such as a fit to `center_of_mass`; one with
        ``origin_ky`` and ``origin_kx``, or a pair of maps (ky, kx): places on the detector axes. Units are those of the
        maps' attribute ``units``, else of the detector axes. By default that of the scan itself, where `calibrate` gave
        it one; False holds detectors at rest. All detectors move, arrays too, by whole pixels: the distance from the
        optic axis, rounded half to even. Values at missing frames do not matter.
    roi : shape (y, x), boolean
        Positions to look at; the others are not read, and count as missing frames.
    **corrections
        ``dark``, ``gain``, ``bad_pixels`` and ``mask``, all of shape (ky, kx): frames are corrected to
        ``(raw - dark) x gain``, bad pixels are replaced by the mean of their good neighbours, and pixels outside the
        mask (a boolean array or a detector) count as zero; see `stemstore.ops.corrections.CorrectionOptions`. They are
        put into the weights: the image is as fast, and the scan stays a plain selection.

    Returns
    -------
    image : dims (y, x)
        Lazy DataArray; a Dataset with a variable per name for a dict. Boolean detectors on integer data give exact
        integer sums (uint64 or int64), anything else (also ``dark``, ``gain`` or ``bad_pixels``) float64 or complex128.
        Missing frames give 0 in integer images, NaN in others, and are marked by the coordinate ``valid``.

    Raises
    ------
    InputError
        A detector covers no pixel, has the wrong shape or contains NaN; the origin has another shape than the scan, is
        not finite, or lies far outside the detector; the region of interest or a correction does not fit.
    CalibrationMissingError
        A detector is given in a unit that the scan has no calibration for.

    Notes
    -----
    Where `calibrate` gave the scan an ellipse, distances and directions of disks, rings and sectors are those of the
    corrected vectors; rectangles, points and arrays stay as they are.

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

    image = within(intensity_of(scan), roi)
    movement = Movement.chosen(image, origin)
    pixels = corrections_of(image, corrections)
    named = detector if isinstance(detector, dict) else {"virtual_image": detector}
    if not named:
        msg = "the dict of detectors is empty; give at least one, such as {'bright_field': disk(10)}"
        raise InputError(msg, found=detector)
    shapes = {name: as_detector(given) for name, given in named.items()}
    moved = None if movement is None else movement.describe()
    text: dict[str, Any] = {"origin": moved, "ellipse": ellipse_text(image)}
    text |= {"roi": None if roi is None else "given", **corrections_text(corrections)}
    columns = _Sums(image, movement, pixels).images(shapes)
    images = {name: _labelled(columns[name], image, name, shape, text) for name, shape in shapes.items()}
    return xr.Dataset(images) if isinstance(detector, dict) else images["virtual_image"]


class _Sums:
    """Sums of the frames of a scan under several detectors, at rest or moved, of raw or corrected pixels."""

    def __init__(self, image: xr.DataArray, movement: Movement | None, corrections: Corrections | None) -> None:
        self.image, self.movement, self.corrections = image, movement, corrections
        known = recorded(image)
        self.keep = None if known is None or known.all() else known

    def images(self, shapes: dict[str, Detector]) -> dict[str, Any]:
        """Compute all detectors of one kind (exact masks; other weights) in one pass each."""
        weights = {name: self._weights(shape) for name, shape in shapes.items()}
        exact = self.corrections is None or self.corrections.only_mask
        masks = [name for name, w in weights.items() if w.dtype == bool and exact]
        others = [name for name in weights if name not in masks]
        columns: dict[str, Any] = {}
        if masks:
            data = self._under(np.stack([weights[name] for name in masks]))
            kind = np.dtype(np.float64) if self.image.dtype.kind == "f" else sum_dtype(self.image.dtype)
            data = data.astype(kind)  # a selection that repeats pixels sums in float64, exactly
            columns |= {name: data[..., number] for number, name in enumerate(masks)}
        if others:
            data = self._under(np.stack([part for name in others for part in _real_parts(weights[name])]))
            number = 0
            for name in others:
                columns[name] = data[..., number]
                number += 1
                if weights[name].dtype.kind == "c":
                    columns[name] = columns[name] + 1j * data[..., number]
                    number += 1
        return columns

    def _weights(self, shape: Detector) -> Array:
        """Weights of a detector; one without a pixel inside the mask is refused."""
        weights = shape.weights(self.image) if self.movement is None else self.movement.weights(shape)
        mask = None if self.corrections is None or self.movement is not None else self.corrections.mask
        if mask is not None and not weights[mask].any():
            msg = f"{shape.describe()} covers no pixel inside the mask; give another detector, or a wider mask"
            raise InputError(msg, key="mask", found=shape.describe())
        return weights

    def _under(self, weights: Array) -> Any:
        """Sum every frame under several real weight images; the last axis counts them."""
        data = self.image.data
        if self.movement is not None:
            kernel = corrected(MovedKernel.of(DetectorSums, weights, self.movement), self.corrections)
            return self._settled(map_kernel(data, kernel, self.keep, self.movement.shift))
        if self.corrections is None:
            return self._settled(map_kernel(data, DetectorSums(weights), self.keep))
        folded, offsets = self.corrections.fold(weights)
        sums = map_kernel(data, DetectorSums(folded), self.keep)
        return self._settled(sums if offsets is None else sums - offsets)

    def _settled(self, sums: Any) -> Any:
        """Put NaN at missing frames where the sums are floats."""
        return without_missing(sums, self.image) if sums.dtype.kind == "f" else sums


def _real_parts(weights: Array) -> list[Array]:
    if weights.dtype.kind == "c":
        return [weights.real.astype(np.float64), weights.imag.astype(np.float64)]
    return [weights.astype(np.float64)]


def _labelled(data: Any, image: xr.DataArray, name: str, detector: Detector, text: dict[str, Any]) -> xr.DataArray:
    history = parameters_text("virtual_image", detector=detector.describe(), **text)
    result = labelled(data, image, scan_dims(image), history)
    result.attrs |= {"units": image.attrs.get("units", "count"), "long_name": detector.describe()}
    return result.rename(name)
