"""Calibrating a dataset that is open: new coordinates and attributes on the same lazy array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.calibration import DETECTOR_DIMS, Calibration
from stemstore.scan.coordinates import pixel_step
from stemstore.scan.origins import ORIGIN, origin_coordinates
from stemstore.scan.stated import (
    ELLIPSE,
    ELLIPSE_AXES,
    TRANSPOSE,
    apply_values,
    intensity,
    stated_values,
    with_attributes,
)

if TYPE_CHECKING:
    import xarray as xr

    from stemstore.scan.stated import Scan
    from stemstore_schemas import Ellipse

MATRIX = (2, 2)


class CalibrationOptions(TypedDict, total=False):
    """Values as `stemstore.open` takes them; see `stemstore.scan.calibration.Calibration`."""

    beam_energy: Any
    semi_convergence_angle: Any
    camera_length: Any
    scan_rotation: Any
    scan_step: Any
    detector_step: Any
    detector_center: Any


def calibrate(
    dataset: Scan,
    *,
    origin: Any = None,
    ellipse: Any = None,
    detector_transpose: bool | None = None,
    **values: Unpack[CalibrationOptions],
) -> Scan:
    """State what is known about a scan, in place of what its files say; no pixel is read or changed.

    Parameters
    ----------
    dataset
        Dataset with the variable ``intensity``, or that variable; any selection of a scan.
    origin
        Where the optic axis is at each position (descan): a Dataset with ``origin_ky`` and ``origin_kx``, or with
        ``com_y`` and ``com_x`` measured on `dataset`, or a pair of maps (ky, kx) of places on the detector axes of
        `dataset`; units are those of the maps' attribute ``units``, else of these axes. Lazy maps are computed here,
        both in one pass. False takes it away.
    ellipse
        Elliptic distortion: what `fit_ellipse` gives, a matrix of shape (2, 2) that corrects (row, column) vectors, or
        a mapping with ``matrix``, or with ``a``, ``b`` and ``theta`` (deg, of the axis a, from rows towards columns).
        Vectors are in stored pixels, or in the ``unit`` that it names. False takes it away.
    detector_transpose
        Whether detector rows and columns are to be exchanged before they are rotated to the scan axes.
    **values
        ``beam_energy`` (keV), ``semi_convergence_angle`` (mrad), ``camera_length`` (mm), ``scan_rotation`` (deg),
        ``scan_step`` (nm; one or (y, x)), ``detector_step`` (mrad; one or (ky, kx)), ``detector_center`` (stored
        pixel, (ky, kx)): numbers in these units, texts such as ``"300 keV"``, or quantities of `stemstore_schemas`.

    Returns
    -------
    dataset
        The same lazy pixels with new index coordinates (``y``, ``x`` in nm; ``ky``, ``kx`` in 1/angstrom or mrad, zero
        on the optic axis; see Notes) and attributes (``beam_energy_keV``, ``scan_rotation_deg``, ``ellipse_matrix`` …),
        which the results of operations inherit. An origin becomes the coordinates ``origin_ky`` and ``origin_kx``
        (y, x) in stored pixels.

    Raises
    ------
    InputError
        A value is not known or cannot be right; the origin has another shape than the scan, or is not finite where a
        frame was recorded.

    Notes
    -----
    Values add up: ``calibrate(calibrate(ds, **a), **b)`` is ``calibrate(ds, **{**a, **b})``. So a detector step that
    was stated in mrad follows a beam energy that is stated later. What is not stated stays, such as the pixel of the
    optic axis when only the step is stated. Without any step the axes stay in pixels, and a stated centre takes the
    place of the middle of the frame. Scan rotation and transposition are never applied by themselves; see
    `transform_com`. How operations use origin and ellipse is told by each of them.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> ds = stemstore.calibrate(ds, beam_energy=300, detector_step="0.5 mrad")  # doctest: +SKIP
    """
    given, unknown = Calibration.split(dict(values))
    if unknown:
        known = ", ".join(("origin", "ellipse", TRANSPOSE, *Calibration.names()))
        msg = f"{', '.join(map(repr, unknown))} is no calibration; expected some of {known}"
        raise InputError(msg, found=sorted(unknown), expected=Calibration.names())
    update: dict[str, Any] = {}
    if ellipse is not None and ellipse is not False:
        update["ellipse"] = parse_ellipse(ellipse, intensity(dataset))
    if detector_transpose is not None:
        update[TRANSPOSE] = bool(detector_transpose)
    values_now = stated_values(dataset).merged(given.values().model_copy(update=update))
    maps = {} if origin is None or origin is False else origin_coordinates(intensity(dataset), origin)
    if origin is not None:
        dataset = dataset.drop_vars(ORIGIN, errors="ignore")
    if ellipse is False:
        dataset = with_attributes(dataset, dict.fromkeys((ELLIPSE, *ELLIPSE_AXES.values())))
        values_now = values_now.model_copy(update={"ellipse": None})
    return apply_values(dataset, values_now).assign_coords(maps)


def parse_ellipse(given: Any, image: xr.DataArray) -> Ellipse:
    """Take an elliptic distortion in any form that `calibrate` knows; its matrix is for stored pixels then.

    Raises
    ------
    InputError
        It is none of them, or no distortion.
    CalibrationMissingError
        It is in a unit that the scan has no calibration for.
    """
    from stemstore_schemas import Ellipse

    if isinstance(given, Ellipse):
        return given
    parts = {name: _entry(given, name) for name in ("matrix", "a", "b", "theta")}
    unit = _entry(given, "unit")
    steps = [1.0, 1.0] if unit is None else [pixel_step(image, name, str(unit)) for name in DETECTOR_DIMS]
    try:
        if all(value is None for value in parts.values()):
            parts["matrix"] = given
        axes: dict[str, Any] = {name: float(parts[name]) for name in ("a", "b", "theta") if parts[name] is not None}
        spread = _entry(given, "ratio_sigma")
        axes |= {} if spread is None else {"uncertainty": float(spread), "source": "measured"}
        if parts["matrix"] is None:
            parts["matrix"] = Ellipse.of_axes(axes["a"], axes["b"], axes["theta"]).matrix
        matrix = np.asarray(getattr(parts["matrix"], "values", parts["matrix"]), np.float64).reshape(MATRIX)
        in_pixels = matrix * np.array(steps) / np.array(steps)[:, None]
        return Ellipse.model_validate({"matrix": in_pixels.tolist(), **axes})
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        msg = (
            f"ellipse = {given!r} is not understood ({error}); give a matrix of shape (2, 2) on (row, column) vectors, "
            "or a, b and theta"
        )
        raise InputError(msg, key="ellipse") from error


def _entry(given: Any, name: str) -> Any:
    if isinstance(given, np.ndarray):
        return None
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
