"""Differential phase contrast: the phase whose gradient the centre of mass measures (iDPC), and its divergence (dCOM).

For a thin specimen the mean transverse momentum is k = grad(phase) / (2 pi), blurred by the probe's intensity
(Lazić, Bosch & Lazar, Ultramicroscopy 160 (2016) 265). The phase follows by solving the Poisson equation in Fourier
space; with the mirror boundary this is the Neumann problem of an ordinary field of view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.com import center_of_mass
from stemstore.ops.labels import parameters_text

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray
    from stemstore.ops.detectors import Detector

Boundary = Literal["mirror", "periodic", "zero"]
Descan = Literal["constant", "none"]
BOUNDARIES = ("mirror", "periodic", "zero")
DESCANS = ("constant", "none")


def dpc(
    scan: Any,
    *,
    mask: Detector | Any | None = None,
    rotation: float = 0.0,
    transpose: bool = False,
    descan: Descan = "constant",
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
        Angle by which detector vectors are turned, row towards column positive, to be parallel to the scan axes.
    transpose
        Swap the two components before the rotation.
    descan
        ``"constant"`` takes the mean off both components, because the optic axis is seldom known to a fraction of the
        deflection; a real slope of the phase goes with it. ``"none"`` trusts the calibrated centre.
    boundary
        ``"mirror"`` for an ordinary field of view, ``"periodic"`` for a scan that wraps around, ``"zero"`` padding.
    high_pass : unit cycles per field of view
        Damp slow variations by q² / (q² + q_hp²), q_hp = high_pass / (longest side); none by default.

    Returns
    -------
    dataset : dims (y, x), lazy
        ``phase`` (rad, mean zero), ``com_y`` and ``com_x`` (1/angstrom, transformed, descan removed),
        ``dcom`` (divergence of the centre of mass; negative at atoms).

    Raises
    ------
    CalibrationMissingError
        The scan step, or the detector step in 1/angstrom (detector step in mrad and beam energy), is unknown.
    InputError
        The scan has a single row or column, or an option is not known.

    Notes
    -----
    Memory: a few images of the size of the scan; the mirror boundary takes four times that. Positions without a
    centre of mass (no electrons, missing frames) are integrated as zero deflection and keep their ``valid`` flag.
    """
    import dask.array as da
    import xarray as xr

    for key, value, known in (("boundary", boundary, BOUNDARIES), ("descan", descan, DESCANS)):
        if value not in known:
            msg = f"{key} {value!r} is not known; use one of {known}"
            raise InputError(msg, key=key, found=value, expected=known)
    com = _momentum(scan, mask)
    steps = _steps(com["com_y"])
    solver = Integration(steps, rotation, transpose, descan, boundary, high_pass)
    stack = da.stack([da.asarray(com["com_y"].data), da.asarray(com["com_x"].data)])
    data = stack.rechunk(-1).map_blocks(solver, chunks=((4,), *((n,) for n in stack.shape[1:])), dtype=np.float64)
    like = com["com_y"]
    attrs = {"rotation_deg": rotation, "transpose": int(transpose), "descan": descan, "boundary": boundary}
    line = parameters_text("dpc", **attrs, high_pass=high_pass)
    history = "\n".join([com["com_y"].attrs.get("history", ""), line]).strip()
    units = {"phase": "rad", "com_y": "1/angstrom", "com_x": "1/angstrom", "dcom": "1/angstrom/nm"}
    long = {
        "phase": "projected phase (iDPC)",
        "com_y": "momentum transfer along y",
        "dcom": "divergence of the momentum",
    }
    long["com_x"] = "momentum transfer along x"
    variables = {}
    for number, name in enumerate(units):
        values = like.copy(data=data[number], deep=False)
        values.attrs = {**like.attrs, **attrs, "units": units[name], "long_name": long[name], "history": history}
        variables[name] = values.rename(name)
    return xr.Dataset(variables, attrs={"history": history})


@dataclass(frozen=True, slots=True)
class Integration:
    """Turns a stack of two momentum images into phase, transformed momenta and divergence."""

    steps: tuple[float, float]
    rotation: float
    transpose: bool
    descan: Descan
    boundary: Boundary
    high_pass: float | None

    def __call__(self, stack: FloatArray) -> FloatArray:
        """Take (2, y, x) in 1/angstrom, give (4, y, x): phase in rad, com_y, com_x, divergence."""
        vector = rotate(np.asarray(stack, np.float64), self.rotation, transpose=self.transpose)
        if self.descan == "constant" and np.isfinite(vector).any():
            vector = vector - np.nanmean(vector, axis=(-2, -1), keepdims=True)
        filled = np.nan_to_num(vector)
        # steps in nm, momenta in 1/angstrom: 2 pi k is rad/angstrom, ten of them in a nm
        phase = integrate(10 * 2 * np.pi * filled, self.steps, boundary=self.boundary, high_pass=self.high_pass)
        divergence = np.gradient(filled[0], self.steps[0], axis=0) + np.gradient(filled[1], self.steps[1], axis=1)
        return np.stack([phase, vector[0], vector[1], divergence])


def rotate(vector: FloatArray, angle: float, *, transpose: bool = False) -> FloatArray:
    """Turn (row, column) components (2, …) by an angle in degrees, row towards column, after swapping if asked.

    The matrix is [[cos, -sin], [sin, cos]] on (row, column).
    """
    row, column = (vector[1], vector[0]) if transpose else (vector[0], vector[1])
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.stack([cos * row - sin * column, sin * row + cos * column])


def integrate(
    gradient: FloatArray, steps: tuple[float, float], *, boundary: Boundary = "mirror", high_pass: float | None = None
) -> FloatArray:
    """Find the function whose gradient is closest to a vector field, by least squares in Fourier space.

    Parameters
    ----------
    gradient : shape (2, n, m)
        Components along rows and columns.
    steps
        Sampling along rows and columns; the result is in units of gradient x step.
    boundary
        ``"mirror"``: even extension of the function (Neumann boundary); ``"periodic"``; ``"zero"`` padding to twice.
    high_pass : unit cycles per field of view

    Returns
    -------
    function : shape (n, m), mean zero
    """
    import scipy.fft

    rows, columns = gradient.shape[-2:]
    extended = _extend(gradient, boundary)
    transformed = scipy.fft.fft2(extended)
    q_row = np.fft.fftfreq(extended.shape[-2], steps[0])[:, None]
    q_column = np.fft.fftfreq(extended.shape[-1], steps[1])[None, :]
    square = q_row**2 + q_column**2
    square[0, 0] = 1.0
    spectrum = -1j * (q_row * transformed[0] + q_column * transformed[1]) / (2 * np.pi * square)
    spectrum[0, 0] = 0.0
    if high_pass:
        cut = (high_pass / max(rows * steps[0], columns * steps[1])) ** 2
        spectrum *= square / (square + cut)
    result = scipy.fft.ifft2(spectrum).real[:rows, :columns]
    return result - result.mean()


def _extend(gradient: FloatArray, boundary: Boundary) -> FloatArray:
    """Extend the field as the gradient of the extended function: mirroring turns the normal component's sign."""
    rows, columns = gradient.shape[-2:]
    if boundary == "periodic":
        return gradient
    if boundary == "zero":
        return np.pad(gradient, ((0, 0), (0, rows), (0, columns)))
    along_row, along_column = gradient
    flip_c, flip_r = np.s_[:, ::-1], np.s_[::-1]
    a, b = along_row, along_column
    return np.stack(
        [
            np.block([[a, a[flip_c]], [-a[flip_r], -a[flip_r][flip_c]]]),
            np.block([[b, -b[flip_c]], [b[flip_r], -b[flip_r][flip_c]]]),
        ]
    )


def _momentum(scan: Any, mask: Any) -> xr.Dataset:
    """Centre of mass in 1/angstrom."""
    import xarray as xr

    from stemstore.scan.coordinates import unit_factor

    given = isinstance(scan, xr.Dataset) and {"com_y", "com_x"} <= set(scan.data_vars)
    com = scan if given else center_of_mass(scan, mask=mask)
    result = com[["com_y", "com_x"]]
    for name in ("com_y", "com_x"):
        attrs = com[name].attrs
        factor = unit_factor(attrs.get("units", "pixel"), "1/angstrom", attrs.get("beam_energy_keV"), "k" + name[-1])
        result[name] = (com[name] * factor).assign_attrs({**attrs, "units": "1/angstrom"})
    return result


def _steps(image: xr.DataArray) -> tuple[float, float]:
    """Scan steps in nm."""
    if image.dims[-2:] != ("y", "x") or image.ndim != len(("y", "x")):
        msg = f"integration needs a two-dimensional scan with dims ('y', 'x'), got {image.dims}; select one frame first"
        raise InputError(msg, found=image.dims)
    steps = []
    for name in ("y", "x"):
        axis = image.coords[name]
        if axis.attrs.get("units", "pixel") == "pixel":
            msg = (
                f"scan axis {name!r} is not calibrated, so the phase has no scale; "
                "give scan_step='0.5 nm' to stemstore.open or to convert"
            )
            raise CalibrationMissingError(msg, key=name, found="pixel", expected="nm")
        if axis.size < 2:  # noqa: PLR2004  # a gradient needs two points
            msg = f"integration needs at least two positions along {name!r}, got {axis.size}"
            raise InputError(msg, key=name, found=axis.size)
        from stemstore.scan.coordinates import unit_factor

        step = np.diff(axis.values)
        if not np.allclose(step, step[0], rtol=1e-6):
            msg = f"scan axis {name!r} is not evenly spaced; select positions with a regular step"
            raise InputError(msg, key=name)
        steps.append(abs(float(step[0])) * unit_factor(axis.attrs["units"], "nm", None, name))
    return steps[0], steps[1]
