"""Differential phase contrast: the phase whose gradient the centre of mass measures (iDPC), and its divergence (dCOM).

For a thin specimen the mean transverse momentum is k = grad(phase) / (2 pi), blurred by the probe's intensity
(Lazić, Bosch & Lazar, Ultramicroscopy 160 (2016) 265). The phase follows by solving the Poisson equation in Fourier
space; with the mirror boundary this is the Neumann problem of an ordinary field of view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.geometry.polynomials import fit_maps
from stemstore.ops.labels import parameters_text
from stemstore.ops.phase.com import center_of_mass, components, trusted
from stemstore.ops.phase.derivatives import divergence_of, scan_steps, stacked
from stemstore.ops.phase.descan import (
    NAMES,
    SIZES,
    SLOPE_WARNING,
    check_model,
    descan_sizes,
    joined,
    subtract_descan,
)
from stemstore.ops.phase.integration import BOUNDARIES, integrate
from stemstore.ops.phase.transform import com_matrix, composed

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore.ops.geometry.detectors import Detector
    from stemstore.ops.phase.descan import Model
    from stemstore.ops.phase.integration import Boundary

SLOPES = ("plane", "parabola")
"""Models of the descan whose removal takes slopes, and with them signal."""
RESULTS = {
    "phase": ("rad", "projected phase (iDPC)"),
    "com_y": ("1/angstrom", "momentum transfer along y"),
    "com_x": ("1/angstrom", "momentum transfer along x"),
    "dcom": ("1/angstrom/nm", "divergence of the momentum"),
}


def dpc(
    scan: Any,
    *,
    mask: Detector | Any | None = None,
    rotation: float = 0.0,
    transpose: bool = False,
    descan: Model | xr.Dataset = "constant",
    boundary: Boundary = "mirror",
    high_pass: float | None = None,
) -> xr.Dataset:
    """Integrate the centre of mass to the phase of the specimen (iDPC), in radians.

    Parameters
    ----------
    scan
        Dataset or DataArray of a scan, or the Dataset that `center_of_mass` gave.
    mask
        Virtual detector to which the centre of mass is limited.
    rotation : unit deg
        Angle by which detector vectors are turned, row towards column positive, to be parallel to the scan axes; see
        `estimate_rotation`.
    transpose
        Swap the two components before the rotation.
    descan
        What is taken off first. ``"constant"``: the mean of both components, because the optic axis is seldom known
        to a fraction of the deflection; a real slope of the phase goes with it. ``"none"`` trusts the calibrated
        centre. ``"plane"`` and ``"parabola"`` **remove real signal as well** (a plane in the deflection is a curved
        phase); use them where descan dominates. A Dataset: from `fit_descan`, or com_y and com_x of a vacuum scan.
    boundary
        ``"mirror"`` for an ordinary field of view, ``"periodic"`` for a scan that wraps around, ``"zero"`` padding.
    high_pass : unit cycles per field of view
        Damp slow variations by q² / (q² + q_hp²), q_hp = high_pass / (longest side); none by default.

    Returns
    -------
    dataset : dims (y, x), lazy
        ``phase`` (rad, mean zero), ``com_y`` and ``com_x`` (1/angstrom, transformed, descan removed),
        ``dcom`` (divergence of the centre of mass; negative at atoms). Attributes say which descan and which matrix
        on (com_y, com_x). With a plane or parabola also ``descan_variation`` (largest minus smallest value of what was
        removed) and ``descan_rest`` (RMS of what is left) per component, in 1/angstrom, before the rotation; for a
        Dataset of `fit_descan` these are attributes.

    Raises
    ------
    CalibrationMissingError
        The scan step, or the detector step in 1/angstrom (detector step in mrad and beam energy), is unknown.
    InputError
        The scan has a single row or column, or an option is not known; or, when computed, there are no positions to
        which the descan can be fitted.

    Notes
    -----
    Memory: a few images of the size of the scan; the mirror boundary takes four times that. Positions without a
    centre of mass (no electrons, missing frames) are integrated as zero deflection and keep their ``valid`` flag;
    ``dcom`` is NaN there and beside them. They take no part in the descan fit, nor do partial frames.
    """
    import xarray as xr

    if boundary not in BOUNDARIES:
        msg = f"boundary {boundary!r} is not known; use one of {BOUNDARIES}"
        raise InputError(msg, key="boundary", found=boundary, expected=BOUNDARIES)
    com = _momentum(scan, mask, descan if isinstance(descan, xr.Dataset) else None)
    model = "none" if isinstance(descan, xr.Dataset) else check_model(descan)
    like, other = components(com)
    turn = com_matrix(rotation, transpose=transpose)
    solver = Integration(_steps(like), tuple(map(tuple, turn.tolist())), model, boundary, high_pass)
    usable = like.copy(data=trusted(com).astype(np.float64), deep=False)
    stack = stacked(like, other, usable)
    shape: dict[str, Any] = {
        "dtype": np.float64,
        "meta": np.empty((0, 0, 0)),
    }  # given, so that dask does not try it on nothing
    data = stack.map_blocks(solver, chunks=((len(RESULTS),), *stack.chunks[1:]), **shape)
    named = like.attrs["descan"] if isinstance(descan, xr.Dataset) else joined(like.attrs, descan)
    said: dict[str, Any] = {"rotation_deg": rotation, "transpose": int(transpose), "descan": named}
    line = parameters_text("dpc", **said, boundary=boundary, high_pass=high_pass)
    history = "\n".join([like.attrs.get("history", ""), line]).strip()
    said |= {"boundary": boundary, "com_matrix": composed(turn, like.attrs)}
    if model in SLOPES or "warning" in like.attrs:
        said["warning"] = SLOPE_WARNING
    inherited = {key: value for key, value in like.attrs.items() if key not in SIZES}
    variables = {}
    for number, (name, (units, long_name)) in enumerate(RESULTS.items()):
        values = like.copy(data=data[number], deep=False)
        values.attrs = {**inherited, **said, "units": units, "long_name": long_name, "history": history}
        variables[name] = values.rename(name)
    known = {key: [one.attrs[key] for one in (like, other)] for key in SIZES if key in like.attrs}
    result = xr.Dataset(variables, attrs={**said, **known, "history": history})
    return _with_sizes(result, stack, model) if model in SLOPES else result


@dataclass(frozen=True, slots=True)
class Integration:
    """Turns a stack of two momentum images and the usable positions into phase, momenta and divergence."""

    steps: tuple[float, float]
    matrix: tuple[tuple[float, ...], ...]
    descan: str
    boundary: Boundary
    high_pass: float | None

    def __call__(self, stack: FloatArray) -> FloatArray:
        """Take (3, y, x), momenta in 1/angstrom; give (4, y, x): phase in rad, com_y, com_x, divergence."""
        vector = np.asarray(stack[:2], np.float64)
        if self.descan != "none":
            vector = vector - fit_maps(vector, stack[2] > 0, self.descan).maps
        vector = np.einsum("ij,jyx->iyx", np.array(self.matrix), vector)
        # steps in nm, momenta in 1/angstrom: 2 pi k is rad/angstrom, ten of them in a nm
        slope = 10 * 2 * np.pi * np.nan_to_num(vector)
        phase = integrate(slope, self.steps, boundary=self.boundary, high_pass=self.high_pass)
        return np.stack([phase, vector[0], vector[1], divergence_of(vector, self.steps)])


def _momentum(scan: Any, mask: Any, descan: xr.Dataset | None) -> xr.Dataset:
    """Centre of mass in 1/angstrom, with a fitted or measured descan taken off."""
    import xarray as xr

    from stemstore.scan.coordinates import unit_factor

    given = isinstance(scan, xr.Dataset) and {"com_y", "com_x"} <= set(scan.data_vars)
    com = scan if given else center_of_mass(scan, mask=mask)
    if descan is not None:
        com = subtract_descan(com, descan)
    result = com[["com_y", "com_x"]]
    for name in NAMES:
        attrs = com[name].attrs
        factor = unit_factor(attrs.get("units", "pixel"), "1/angstrom", attrs.get("beam_energy_keV"), "k" + name[-1])
        sizes = {key: attrs[key] * factor for key in SIZES if key in attrs}
        result[name] = (com[name] * factor).assign_attrs({**attrs, **sizes, "units": "1/angstrom"})
    return result


def _steps(image: xr.DataArray) -> tuple[float, float]:
    """Scan steps in nm."""
    for name in ("y", "x"):
        axis = image.coords.get(name)
        if axis is None or axis.attrs.get("units", "pixel") == "pixel":
            msg = (
                f"scan axis {name!r} is not calibrated, so the phase has no scale; "
                "give scan_step='0.5 nm' to stemstore.open or to convert"
            )
            raise CalibrationMissingError(msg, key=name, found="pixel", expected="nm")
    return scan_steps(image, "nm")[0]


def _with_sizes(result: xr.Dataset, stack: Any, model: str) -> xr.Dataset:
    """Add how large the removed descan is, beside what is left; lazy, as the centre of mass may be."""
    shape: dict[str, Any] = {"chunks": ((2,), (2,)), "dtype": np.float64, "meta": np.empty((0, 0))}
    both = stack.map_blocks(descan_sizes, model, drop_axis=0, **shape)
    about = ("span of the removed descan", "RMS of the momentum without descan")
    for number, (name, long_name) in enumerate(zip(SIZES, about, strict=True)):
        result[name] = ("component", both[number], {"units": "1/angstrom", "long_name": long_name})
    return result.assign_coords(component=list(NAMES))
