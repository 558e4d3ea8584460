"""Calibrated views of Bragg disks: vectors from the optic axis in physical units, beside the pixels as measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.disks.plane import detector_unit, from_axis, scan_of
from stemstore.ops.disks.table import PEAK, table_of
from stemstore.ops.geometry.plane import DIMS, ellipse_in
from stemstore.ops.labels import parameters_text
from stemstore.ops.phase.transform import com_matrix
from stemstore.scan.calibrate import calibrate
from stemstore.scan.calibration import PLACE
from stemstore.scan.coordinates import pixel_step
from stemstore.scan.origins import ORIGIN, own_origin
from stemstore.scan.stated import ATTRIBUTES, ELLIPSE, ELLIPSE_AXES, STATED, TRANSPOSE

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore.ops.disks.table import DiskTable
    from stemstore.scan.calibrate import CalibrationOptions

VECTORS = ("gy", "gx")
"""Variables of calibrated vectors."""

ROTATION = ATTRIBUTES["scan_rotation"]
AXES = ("detector", "scan")
CARRIED = (STATED, *ATTRIBUTES.values(), TRANSPOSE, ELLIPSE, *ELLIPSE_AXES.values())
"""Attributes that a scan has of its calibration."""


def calibrate_disks(
    disks: Any,
    *,
    origin: Any = None,
    ellipse: Any = None,
    unit: str | None = None,
    axes: Literal["detector", "scan"] = "detector",
    rotation: float | None = None,
    transpose: bool | None = None,
    **values: Unpack[CalibrationOptions],
) -> xr.Dataset:
    """Add the calibrated vectors of all disks; the measured pixels stay as they are.

    Parameters
    ----------
    disks
        What `find_disks` returned.
    origin
        Where the optic axis is at each position: any form that `calibrate` takes, such as ``fit_origin(disk_origin(
        disks))``. By default what the scan carries (coordinates ``origin_ky`` and ``origin_kx``), else the optic axis
        of the detector; False takes the latter.
    ellipse
        Elliptic distortion, any form that `calibrate` takes. By default what the scan carries; False for none.
    unit
        ``"1/angstrom"``, ``"1/nm"``, ``"mrad"`` or ``"pixel"``; default: the unit of the detector axes.
    axes
        ``"detector"``: components along rows and columns of the detector. ``"scan"``: along y and x of the scan.
    rotation : unit deg
        With ``axes="scan"``: angle by which detector vectors are turned, row towards column positive, to be parallel to
        the scan axes; default: the scan rotation that the scan carries.
    transpose
        With ``axes="scan"``: swap the components before the rotation; default: what the scan carries, else no.
    **values
        What is known better than when the disks were found: ``detector_step``, ``detector_center``, ``beam_energy``,
        ``scan_step`` …, as `calibrate` takes them.

    Returns
    -------
    disks
        The same dataset with ``gy`` and ``gx`` (peak), float64. Their attributes say what was applied: ``origin``,
        ``ellipse_matrix`` (for stored pixels, row by row), ``rotation_deg`` and ``transpose``; ``matrix``, all of it in
        one, turns (row, column) pixels from the origin into (gy, gx); ``step`` is the size of a pixel. What was given
        is carried on from here, as by a scan: axes, coordinates ``origin_ky`` and ``origin_kx``, attributes of ellipse
        and rotation. Whatever is done with the result uses it by default.

    Raises
    ------
    InputError
        No dataset of disks; the origin is not finite at a position with disks, or does not fit the scan; an option is
        not known.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks, or its scan rotation is not known.

    Notes
    -----
    In this order: centre, ellipse, size of a pixel, transposition, rotation. For a measured vector q = (row, column) of
    stored pixels, g = R S D T (q - q0), with T the ellipse, D = diag(steps), S the swap and R = [[cos, -sin], [sin,
    cos]]; so do the calibrated vectors of py4DSTEM (Savitzky et al., Microsc. Microanal. 27, 712, 2021). Memory: 16
    bytes per disk, and twice that on the way.

    Examples
    --------
    >>> import stemstore
    >>> disks = stemstore.find_disks(ds, radius=8)  # doctest: +SKIP
    >>> origin = stemstore.fit_origin(stemstore.disk_origin(disks))  # doctest: +SKIP
    >>> disks = stemstore.calibrate_disks(disks, origin=origin)  # doctest: +SKIP
    """
    if axes not in AXES:
        msg = f"axes={axes!r} is not known; use one of {AXES}"
        raise InputError(msg, key="axes", found=axes, expected=AXES)
    if axes == "detector" and not (rotation is None and transpose is None):
        msg = "a rotation or transposition turns vectors to the scan axes; pass axes='scan' with it"
        raise InputError(msg, key="axes", found=axes)
    table = table_of(disks)
    if rotation is not None:
        values = {"scan_rotation": rotation, **values}
    image = calibrate(scan_of(disks, table), origin=origin, ellipse=ellipse, detector_transpose=transpose, **values)
    units = unit or detector_unit(image)
    matrix, about = _linear_part(image, units, _turn(image) if axes == "scan" else None)
    about["origin"] = "the optic axis of the detector" if own_origin(image) is None else "of every position"
    gy, gx = _vectors(image, table, matrix)
    along = ("ky", "kx") if axes == "detector" else ("y", "x")
    found = {
        name: (PEAK, values, {"units": units, "long_name": f"calibrated vector along {part}", **about})
        for name, values, part in zip(VECTORS, (gy, gx), along, strict=True)
    }
    line = parameters_text(
        "calibrate_disks", unit=units, **{key: value for key, value in about.items() if key not in ("matrix", "step")}
    )
    attrs = {key: value for key, value in disks.attrs.items() if key not in CARRIED}
    attrs |= {key: image.attrs[key] for key in CARRIED if key in image.attrs}
    attrs["history"] = "\n".join([disks.attrs.get("history", ""), line]).strip()
    coords = {name: image.coords[name].variable for name in (*PLACE, *ORIGIN) if name in image.coords}
    result = disks.drop_vars(ORIGIN, errors="ignore").assign(found).assign_coords(coords)
    result.attrs = attrs
    return result


def calibrated(disks: Any) -> xr.Dataset:
    """Give a dataset of disks with calibrated vectors: its own, else with everything that its scan carries.

    Raises
    ------
    InputError
        It has vectors that `calibrate_disks` did not make; or as for `calibrate_disks`.
    """
    if not all(name in getattr(disks, "data_vars", {}) for name in VECTORS):
        return calibrate_disks(disks)
    if any(disks[name].dims != (PEAK,) or "matrix" not in disks[name].attrs for name in VECTORS):
        msg = "the variables 'gy' and 'gx' of the disks are not those of calibrate_disks; rename them, and calibrate"
        raise InputError(msg, key="gy")
    found: xr.Dataset = disks
    return found


def _vectors(image: xr.DataArray, table: DiskTable, matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows, columns = from_axis(image, table, None)
    (p, q), (r, s) = matrix
    if q == r == 0:
        return p * rows, s * columns
    return p * rows + q * columns, r * rows + s * columns


def _turn(image: xr.DataArray) -> tuple[float, bool]:
    """Angle in degrees and transposition between detector and scan."""
    angle = image.attrs.get(ROTATION)
    if angle is None:
        msg = (
            "the rotation between detector and scan is not known; give rotation=… in degrees (see estimate_rotation), "
            "or keep to axes='detector'"
        )
        raise CalibrationMissingError(msg, key="rotation")
    return float(angle), bool(image.attrs.get(TRANSPOSE, False))


def _linear_part(image: xr.DataArray, unit: str, turn: tuple[float, bool] | None) -> tuple[FloatArray, dict[str, Any]]:
    """Matrix from stored pixels to vectors, and the attributes that tell it."""
    about: dict[str, Any] = {}
    matrix = np.diag([pixel_step(image, name, unit) for name in DIMS])
    if turn is not None:
        matrix = com_matrix(turn[0], transpose=turn[1]) @ matrix
        about |= {"rotation_deg": turn[0], "transpose": int(turn[1])}
    about["step"] = np.hypot(*matrix.T).tolist()
    round_off = ellipse_in(image, "pixel")
    if round_off is not None:
        matrix = matrix @ round_off
        about[ELLIPSE] = round_off.ravel().tolist()
    return matrix, {**about, "matrix": matrix.ravel().tolist()}
