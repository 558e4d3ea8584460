"""Deflections turned from the detector to the scan axes: one 2 x 2 matrix, whatever convention an angle comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.labels import parameters_text

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray

Convention = Literal["stemstore", "py4dstem", "quantem", "libertem", "pyxem"]
KNOWS = {
    "stemstore": ("transpose", "flip_y"),
    "py4dstem": ("transpose",),
    "quantem": ("transpose",),
    "libertem": ("flip_y",),
    "pyxem": (),
}
"""What besides an angle each convention speaks of."""
CLOCKWISE = ("libertem", "pyxem")  # on a screen with rows downwards; the others turn rows towards columns


def transform_com(
    com: xr.Dataset,
    *,
    matrix: Any | None = None,
    rotation: float = 0.0,
    transpose: bool = False,
    flip_y: bool = False,
    convention: Convention = "stemstore",
) -> xr.Dataset:
    """Turn deflections on the detector into deflections along the scan axes.

    Parameters
    ----------
    com
        From `center_of_mass`; any scan dims.
    matrix : shape (2, 2)
        Acts on (com_y, com_x); instead of the other parameters.
    rotation : unit deg
        Angle, in the sense of the convention.
    transpose
        Swap the components before the rotation.
    flip_y
        Turn the sign of com_y before everything else.
    convention
        Whose angle it is. ``"stemstore"``, ``"py4dstem"``, ``"quantem"``: positive turns row towards column.
        ``"libertem"`` (``scan_rotation``, ``flip_y``) and ``"pyxem"`` (``rotate_beam_shifts``): the opposite.

    Returns
    -------
    dataset : same dims, lazy where `com` is
        `com` with com_y and com_x transformed; their attribute ``com_matrix`` holds the matrix, row by row, together
        with those applied before. Standard errors are turned as well.

    Raises
    ------
    InputError
        The matrix is not 2 x 2, or the convention knows no such parameter.

    Notes
    -----
    The matrix is [[cos, -sin], [sin, cos]] · swap · flip; conventions that turn the other way take the negative angle.
    So py4DSTEM's angle t is LiberTEM's -t, and t with a swap is LiberTEM's 90 - t with a flip. Other packages also
    centre differently: for LiberTEM's numbers give ``center=(ny // 2, nx // 2)`` to `center_of_mass` and fill NaN
    with 0, for pyxem's ``(ny / 2, nx / 2)``; pyxem's beam shifts are minus this, column first.
    """
    if matrix is None:
        turn = com_matrix(rotation, transpose=transpose, flip_y=flip_y, convention=convention)
    elif rotation or transpose or flip_y or convention != "stemstore":
        msg = "give either a matrix or rotation, transpose, flip_y and convention, not both"
        raise InputError(msg, key="matrix")
    else:
        turn = _checked(matrix)
    missing = [name for name in ("com_y", "com_x") if name not in getattr(com, "data_vars", {})]
    if missing:
        msg = f"expected the result of center_of_mass, got {type(com).__name__} without {missing}"
        raise InputError(msg, expected=("com_y", "com_x"), found=missing)
    line = parameters_text("transform_com", matrix=turn.ravel().tolist())
    result = turned(com, turn)
    for name in ("com_y", "com_x"):
        result[name].attrs["history"] = "\n".join([com[name].attrs.get("history", ""), line]).strip()
    result.attrs = {**com.attrs, "history": "\n".join([com.attrs.get("history", ""), line]).strip()}
    return result


def turned(com: xr.Dataset, turn: FloatArray) -> xr.Dataset:
    """Multiply deflections by a matrix, standard errors too, and join it with those applied before."""
    result = com.copy()
    for row, name in zip(turn, ("com_y", "com_x"), strict=True):
        # a zero leaves a component out, so that an infinite or missing other one cannot get in
        terms = [factor * com[part] for factor, part in zip(row, ("com_y", "com_x"), strict=True) if factor]
        result[name] = (sum(terms[1:], terms[0]) if terms else 0.0 * com[name]).rename(name)
        result[name].attrs = {**com[name].attrs, "com_matrix": composed(turn, com[name].attrs)}
    return result.assign(_turned_errors(com, turn)) if "com_covariance" in com else result


def _turned_errors(com: xr.Dataset, turn: FloatArray) -> dict[str, xr.DataArray]:
    """Turn standard errors: the matrix of variances C becomes T C T' under the transformation T."""
    names = ("com_y_sigma", "com_x_sigma", "com_covariance")
    y, x, both = com[names[0]] ** 2, com[names[1]] ** 2, com[names[2]]
    (a, b), (c, d) = turn
    # rounding can leave a little less than nothing
    turned = (
        (a * a * y + b * b * x + 2 * a * b * both).clip(0) ** 0.5,
        (c * c * y + d * d * x + 2 * c * d * both).clip(0) ** 0.5,
        a * c * y + b * d * x + (a * d + b * c) * both,
    )
    return {name: values.assign_attrs(com[name].attrs) for name, values in zip(names, turned, strict=True)}


def com_matrix(
    rotation: float = 0.0, *, transpose: bool = False, flip_y: bool = False, convention: Convention = "stemstore"
) -> FloatArray:
    """Make the matrix on (row, column) that a convention means by an angle in degrees; see `transform_com`.

    Raises
    ------
    InputError
        The convention is not known or knows no such parameter.
    """
    if convention not in KNOWS:
        msg = f"convention {convention!r} is not known; use one of {tuple(KNOWS)}"
        raise InputError(msg, key="convention", found=convention, expected=tuple(KNOWS))
    for name, given in (("transpose", transpose), ("flip_y", flip_y)):
        if given and name not in KNOWS[convention]:
            msg = f"the convention of {convention} knows no {name}; use convention='stemstore' or give the matrix"
            raise InputError(msg, key=name, found=convention)
    angle = np.deg2rad(-rotation if convention in CLOCKWISE else rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if transpose:
        turn = turn @ np.array([[0.0, 1.0], [1.0, 0.0]])
    return turn @ np.diag([-1.0, 1.0]) if flip_y else turn


def composed(turn: FloatArray, attrs: dict[str, Any]) -> list[float]:
    """Join a matrix with those that attributes say were applied before, row by row."""
    before = np.reshape(attrs.get("com_matrix", np.eye(2)), (2, 2))
    joined: list[float] = (turn @ before).ravel().tolist()
    return joined


def _checked(matrix: Any) -> FloatArray:
    turn = np.asarray(matrix, np.float64)
    if turn.shape != (2, 2) or not np.isfinite(turn).all():
        msg = f"the matrix acts on (com_y, com_x) and has shape (2, 2) and finite entries, got shape {turn.shape}"
        raise InputError(msg, key="matrix", found=turn.shape, expected=(2, 2))
    return turn
