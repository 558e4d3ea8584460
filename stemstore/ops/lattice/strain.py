"""Strain and rotation of a crystal at every position of a scan, from the fitted reciprocal lattice.

Reciprocal vectors transform with the inverse transpose of the deformation gradient F of the crystal: with G = [g1 g2]
(columns) and a reference G0, beta = G G0^-1 and F = beta^-T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.plane import SIDE
from stemstore.ops.labels import parameters_text
from stemstore.ops.lattice.basis import LatticeBasis, as_basis
from stemstore.ops.lattice.deformation import invariants, inverse, rotation, strain_of
from stemstore.ops.lattice.fit import COMPONENTS

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray

Definition = Literal["finite", "infinitesimal", "green", "hencky", "py4dstem"]
DEFINITIONS = ("finite", "infinitesimal", "green", "hencky", "py4dstem")
STRAINS = ("e_yy", "e_xx", "e_xy", "theta")
"""Variables of every strain map."""
NEEDED = (*COMPONENTS[2:], "sigma_g1", "sigma_g2", "covariance", "fitted")
TEXTS = {
    "e_yy": ("1", "strain along y"),
    "e_xx": ("1", "strain along x"),
    "e_xy": ("1", "shear strain"),
    "theta": ("rad", "rotation of the lattice"),
    "dilation": ("1", "dilation of the area"),
    "e_major": ("1", "largest principal strain"),
    "e_minor": ("1", "smallest principal strain"),
    "principal_angle": ("rad", "direction of the largest principal strain, from y towards x"),
}


def strain_map(
    lattice: xr.Dataset,
    *,
    reference: Any = None,
    definition: Definition = "finite",
    axes_rotation: float = 0.0,
    derived: bool = False,
) -> xr.Dataset:
    """Compare the lattice of every position with a reference: strain and rotation.

    Parameters
    ----------
    lattice
        From `fit_lattice`.
    reference
        The unstrained lattice. None or ``"median"``: the median of each component over all positions with a fit. A
        boolean map of the scan, such as ``lattice.y > 40``: the median over that region, which is better. A map of
        whole numbers: each region is compared with its own median, and those with negative numbers are left out. A
        basis, or a pair (g1, g2) in the unit of the lattice.
    definition
        ``"finite"``: F = R U exactly; strain U - 1 (Biot), rotation R. ``"infinitesimal"``: the linear formula, whose
        error grows with the square of strain and rotation. ``"green"``: (F'F - 1) / 2 (Green and Lagrange).
        ``"hencky"``: log U. ``"py4dstem"``: the linear formula with py4DSTEM's sign of the rotation, number for number.
    axes_rotation : unit deg
        Components along axes turned by this angle from y towards x; the rotation stays as it is.
    derived
        Add ``dilation`` (e_yy + e_xx), ``e_major``, ``e_minor`` and ``principal_angle``.

    Returns
    -------
    strain : dims of the scan, float64
        ``e_yy``, ``e_xx``, ``e_xy`` (tension is positive, shear is that of the tensor) and ``theta`` (rad; positive
        turns the crystal from y towards x); with standard errors ``sigma_e_yy`` … ``sigma_theta``. ``fitted`` is False,
        and the others are NaN, where there is no lattice or no reference.

    Raises
    ------
    InputError
        Not a lattice, an unknown definition, a reference region without fitted positions, or a reference whose g1 and
        g2 are swapped.

    Notes
    -----
    y and x are the axes of the vectors: rows and columns of the detector, or those of the scan where `calibrate_disks`
    turned the vectors (attribute ``axes``). **py4DSTEM calls our y "x"**: its e_xx is ``e_yy`` here, its e_yy ``e_xx``,
    its e_xy ``e_xy``, and its theta is minus ours. Its ``coordinate_rotation`` is `axes_rotation`.

    With c = F_00 + F_11 and s = F_10 - F_01 the rotation is atan2(s, c), and U = R'F. The linear formula is
    e = 1 - (beta + beta') / 2, theta = (beta_10 - beta_01) / 2. Standard errors hold for small strain and leave out the
    error of the reference: from the covariance S of g1 and g2 along one axis, cov(beta_i) = G0^-T S G0^-1. Memory:
    about 300 bytes per position.

    Examples
    --------
    >>> import stemstore
    >>> lattice = stemstore.fit_lattice(disks, stemstore.find_basis(disks))  # doctest: +SKIP
    >>> strain = stemstore.strain_map(lattice, reference=lattice.y > 40)  # doctest: +SKIP
    >>> strain.stem.plot()  # doctest: +SKIP
    """
    import xarray as xr

    vectors, fitted = _vectors(lattice)
    if definition not in DEFINITIONS:
        msg = f"definition {definition!r} is not known; use one of {DEFINITIONS}"
        raise InputError(msg, key="definition", found=definition, expected=DEFINITIONS)
    if not np.isfinite(axes_rotation):
        msg = f"axes_rotation = {axes_rotation!r} is no angle in degrees; correct it"
        raise InputError(msg, key="axes_rotation", found=axes_rotation)
    zero, about = _reference(lattice, reference, vectors, fitted)
    turn = rotation(np.deg2rad(float(axes_rotation)))
    beta, known = _compared(turn.T @ vectors @ inverse(zero) @ turn, fitted)
    maps = dict(zip(STRAINS, strain_of(beta, definition), strict=True))
    if derived:
        maps |= invariants(maps)
    errors = _errors(lattice, turn.T @ zero, turn)
    dims = lattice["fitted"].dims
    variables: dict[str, Any] = {
        name: (dims, values, dict(zip(("units", "long_name"), TEXTS[name], strict=True)))
        for name, values in maps.items()
    }
    for name, values in zip(STRAINS, errors, strict=True):
        text = {"units": TEXTS[name][0], "long_name": f"standard error of {name}"}
        variables[f"sigma_{name}"] = (dims, np.where(known, values, np.nan), text)
    variables["fitted"] = (dims, known, {"units": "1", "long_name": "whether there is a lattice and a reference"})
    kept = {key: value for key, value in lattice.attrs.items() if key not in ("g1", "g2", "noise")}
    parameters = {"reference": about, "definition": definition, "axes_rotation_deg": float(axes_rotation)}
    line = parameters_text("strain_map", **parameters)
    history = "\n".join([lattice.attrs.get("history", ""), line]).strip()
    return xr.Dataset(variables, lattice.coords, kept | _told(zero) | parameters | {"history": history})


def _compared(beta: FloatArray, fitted: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Leave out what is no deformation: a mirror image; refuse a reference of which most lattices are one."""
    known = fitted & np.isfinite(beta).all(axis=(-2, -1))
    area = beta[..., 0, 0] * beta[..., 1, 1] - beta[..., 0, 1] * beta[..., 1, 0]
    right = known & (area > 0)
    if 2 * right.sum() < known.sum():
        msg = "lattice and reference turn in opposite senses: g1 and g2 of the reference are swapped; swap them back"
        raise InputError(msg, key="reference")
    return np.where(right[..., None, None], beta, np.nan), right


def _vectors(lattice: Any) -> tuple[FloatArray, BoolArray]:
    """Matrices [g1 g2] of all positions, (…scan, 2, 2), and where there are any."""
    names = getattr(lattice, "data_vars", {})
    missing = [name for name in NEEDED if name not in names]
    if missing:
        msg = f"expected the result of fit_lattice, got {type(lattice).__name__} without {missing}"
        raise InputError(msg, expected=NEEDED, found=missing)
    g1_y, g1_x, g2_y, g2_x = (np.asarray(lattice[name].values, np.float64) for name in NEEDED[:4])
    vectors = np.stack([np.stack([g1_y, g2_y], axis=-1), np.stack([g1_x, g2_x], axis=-1)], axis=-2)
    fitted = np.asarray(lattice["fitted"].values, np.bool_) & np.isfinite(vectors).all(axis=(-2, -1))
    return np.where(fitted[..., None, None], vectors, np.nan), fitted


def _reference(lattice: xr.Dataset, given: Any, vectors: FloatArray, fitted: BoolArray) -> tuple[FloatArray, str]:
    """Matrix of the reference, or one for each position, and how it came about."""
    if isinstance(given, (LatticeBasis, tuple, list)):
        unit, axes = str(lattice.attrs.get("unit", "pixel")), lattice.attrs.get("axes")
        return as_basis(given, unit, axes).matrix, "a given basis"
    if given is None or (isinstance(given, str) and given == "median"):
        return _median(vectors, fitted, "the scan"), "median of the scan"
    region = _map(lattice, given)
    if region.dtype == bool:
        inside = fitted & region
        return _median(vectors, inside, "the reference region"), f"median of a region, {int(inside.sum())} positions"
    zero = np.full(vectors.shape, np.nan)
    labels = np.unique(region[fitted & (region >= 0)])
    if not len(labels):
        _median(vectors, fitted & (region >= 0), "the regions")
    for label in labels:
        zero[region == label] = _median(vectors, fitted & (region == label), f"region {label}")
    return zero, f"median of each of {len(labels)} regions"


def _map(lattice: xr.Dataset, given: Any) -> Array:
    """Check a region given as a map of the scan."""
    target = lattice["fitted"]
    if getattr(given, "dims", ()) and set(given.dims) <= set(target.dims):
        given = given.broadcast_like(target).transpose(*target.dims)
    values = np.asarray(getattr(given, "values", given))
    if values.shape != target.shape or values.dtype.kind not in "bui":
        msg = (
            "a reference is 'median', a boolean map (one region) or a map of whole numbers (several) of the scan's "
            f"shape {target.shape}, or a pair (g1, g2); got {values.dtype} of shape {values.shape}"
        )
        raise InputError(msg, key="reference", found=values.shape, expected=target.shape)
    return values


def _median(vectors: FloatArray, inside: BoolArray, name: str) -> FloatArray:
    if not inside.any():
        msg = f"no position of {name} has a fitted lattice, so there is no reference; choose another, or give (g1, g2)"
        raise InputError(msg, key="reference", found=0)
    return np.asarray(np.median(vectors[inside], axis=0))


def _told(zero: FloatArray) -> dict[str, list[float]]:
    """Attributes with the vectors of one reference for all."""
    if zero.ndim > SIDE:
        return {}
    return {"reference_g1": zero[:, 0].tolist(), "reference_g2": zero[:, 1].tolist()}


def _errors(lattice: xr.Dataset, zero: FloatArray, turn: FloatArray) -> list[FloatArray]:
    """Give the standard errors of the components and of the rotation."""
    one, two, both = (np.asarray(lattice[name].values, np.float64) for name in ("sigma_g1", "sigma_g2", "covariance"))
    spread = np.stack([np.stack([one**2, both], axis=-1), np.stack([both, two**2], axis=-1)], axis=-2)
    back = inverse(zero)
    cov = np.swapaxes(back, -1, -2) @ spread @ back
    noise = np.reshape(lattice.attrs.get("noise", np.eye(SIDE)), (SIDE, SIDE))
    noise = turn.T @ noise @ turn
    crossed, mixed = noise[0, 0] * cov[..., 1, 1] + noise[1, 1] * cov[..., 0, 0], 2 * noise[0, 1] * cov[..., 1, 0]
    variances = noise[0, 0] * cov[..., 0, 0], noise[1, 1] * cov[..., 1, 1], (crossed + mixed) / 4, (crossed - mixed) / 4
    return [np.sqrt(np.maximum(one, 0.0)) for one in variances]  # rounding can leave a little less than nothing
