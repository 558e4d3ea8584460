"""Size of a detector pixel and elliptic distortion from lattice vectors that are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.calibration.ellipse import PRESERVED, ROUND, EllipseFit
from stemstore.ops.geometry.plane import SIDE
from stemstore_schemas import Quantity, convert_value

if TYPE_CHECKING:
    from stemstore._types import FloatArray
    from stemstore_schemas import Unit

FEWEST = 2  # vectors, not parallel, that a linear map needs
SHARPEST = 1e-6  # ratio of singular values below which vectors are parallel
NO_DIRECTION = 180 / math.sqrt(12)  # deg; spread of an even distribution of directions


@dataclass(frozen=True, slots=True, eq=False)
class LatticeScale:
    """Detector calibration from lattice vectors.

    Attributes
    ----------
    step
        Size of a pixel, Quantity in 1/angstrom with its standard uncertainty (None where two vectors alone leave none
        and no uncertainties were given). It goes with `ellipse`: vectors are corrected first.
    ellipse
        For `calibrate`; a and b are the semi-axes of the ellipse that a circle of the mean length of the ideal vectors
        becomes, in pixels. Its centre is (0, 0), the origin of the vectors, and its residual that of the fit.
    rotation : unit deg
        Angle from the ideal to the corrected vectors, row towards column positive.
    residuals : shape (n, 2), unit pixel
        Measured minus fitted vectors.
    """

    step: Quantity
    ellipse: EllipseFit
    rotation: float
    residuals: FloatArray


def detector_from_lattice(
    measured: Any,
    ideal: Any,
    *,
    uncertainties: Any = None,
    unit: Unit = "1/angstrom",
    preserve: Literal["minor", "area"] = "minor",
) -> LatticeScale:
    """Measure the size of a detector pixel and the elliptic distortion from vectors of an unstrained lattice.

    Parameters
    ----------
    measured : shape (n, 2), unit pixel
        Reciprocal lattice vectors (row, column) on the detector, two or more that are not parallel: mean vectors of a
        region without strain, for example. Neither ellipse nor scale is taken away.
    ideal : shape (n, 2), unit `unit`
        The same vectors of the known lattice, in any orientation, not mirrored.
    uncertainties : shape (n,), unit pixel
        Standard uncertainties of the measured vectors, per axis. Without them the vectors count equally and the scatter
        about the fit is their error.
    unit
        Of `ideal`: ``"1/angstrom"`` or ``"1/nm"``.
    preserve
        ``"minor"``: the correction of the ellipse leaves its minor axis as it is; ``"area"``: areas.

    Returns
    -------
    scale

    Raises
    ------
    InputError
        The shapes do not fit, vectors are parallel or not finite, or the measured lattice is mirrored.

    Notes
    -----
    Least squares gives B with measured = B ideal. Its polar decomposition B = V Q parts the orientation Q from the
    distortion V, symmetric: V^-1 turns pixels into ideal lengths, and its eigenvalues are 1 / a and 1 / b. Strain of
    the specimen cannot be told from a distortion.

    Examples
    --------
    >>> import numpy as np
    >>> square = np.array([[0.25, 0.0], [0.0, 0.25]])  # 1/angstrom
    >>> float(detector_from_lattice(40 * square, square).step.value)
    0.025
    """
    found, known = _vectors(measured, "measured"), _vectors(ideal, "ideal")
    if found.shape != known.shape:
        msg = f"{len(found)} vectors were measured and {len(known)} are known; give the same ones in the same order"
        raise InputError(msg, key="ideal", found=len(known), expected=len(found))
    if preserve not in PRESERVED:
        msg = f"preserve {preserve!r} is not known; use one of {PRESERVED}"
        raise InputError(msg, key="preserve", found=preserve, expected=PRESERVED)
    known = known * convert_value(1.0, unit, "1/angstrom")
    sigma = None if uncertainties is None else _uncertainties(uncertainties, len(found))
    weight = np.ones(len(found)) if sigma is None else sigma**-2.0
    normal = known.T @ (known * weight[:, None])
    inverse = np.asarray(np.linalg.inv(normal), np.float64)
    matrix = (inverse @ known.T @ (found * weight[:, None])).T
    if np.linalg.det(matrix) <= 0:
        msg = "the measured lattice is the mirror image of the ideal one; exchange two ideal vectors, or their axes"
        raise InputError(msg, key="ideal")
    residuals = found - known @ matrix.T
    covariance = _covariance(inverse, residuals, weight, scatter=sigma is None)
    length = float(np.hypot(*known.T).mean())
    return _result(matrix, covariance, residuals, (length, preserve))


def _vectors(given: Any, name: str) -> FloatArray:
    found = np.asarray(getattr(given, "values", given), np.float64)
    if found.ndim != SIDE or found.shape[1] != SIDE or len(found) < FEWEST or not np.isfinite(found).all():
        msg = f"{name} has shape {found.shape}; give two or more finite vectors (row, column), shape (n, 2)"
        raise InputError(msg, key=name, found=found.shape)
    sizes = np.linalg.svd(found, compute_uv=False)
    if not sizes[1] > SHARPEST * sizes[0]:
        msg = f"the {name} vectors are parallel; give two that are not"
        raise InputError(msg, key=name)
    return found


def _uncertainties(given: Any, n: int) -> FloatArray:
    found = np.asarray(getattr(given, "values", given), np.float64)
    if found.shape != (n,) or not (np.isfinite(found).all() and (found > 0).all()):
        msg = f"uncertainties must be {n} positive numbers, one for each vector, got {found}"
        raise InputError(msg, key="uncertainties", found=str(found))
    return found


def _covariance(inverse: FloatArray, residuals: FloatArray, weight: FloatArray, *, scatter: bool) -> FloatArray | None:
    """Covariance of the four elements of the map, row by row; None where nothing tells it."""
    free = SIDE * (len(residuals) - SIDE)
    if scatter and not free:
        return None
    variance = float((weight[:, None] * residuals**2).sum()) / free if scatter else 1.0
    return np.asarray(np.kron(np.eye(SIDE), inverse * variance), np.float64)


def _spread(matrix: FloatArray, covariance: FloatArray | None, preserve: str) -> FloatArray:
    """Propagate the errors of a linear map to `_numbers`, by small steps along the eigenvectors of its covariance."""
    if covariance is None:
        return np.full(len(_numbers(matrix, preserve)), np.nan)
    sizes, directions = np.linalg.eigh(covariance)
    slopes = []
    for size, direction in zip(np.sqrt(np.maximum(sizes, 0.0)), directions.T, strict=True):
        ends = [_numbers(matrix + sign * 1e-3 * size * direction.reshape(SIDE, SIDE), preserve) for sign in (1, -1)]
        change = ends[0] - ends[1]
        change[2] = (change[2] + math.pi / 2) % math.pi - math.pi / 2  # directions repeat
        slopes.append(change / 2e-3)
    return np.asarray(np.sqrt((np.array(slopes) ** 2).sum(axis=0)))


def _result(
    matrix: FloatArray, covariance: FloatArray | None, residuals: FloatArray, about: tuple[float, str]
) -> LatticeScale:
    """Part the map into ellipse, step and rotation, with their errors."""
    length, preserve = about
    a, b, theta, ratio, step, rotation = _numbers(matrix, preserve).tolist()
    spread = _spread(matrix, covariance, preserve)
    turned = ratio - 1 > ROUND
    ellipse = EllipseFit(
        a=a * length,
        a_sigma=float(spread[0]) * length,
        b=b * length,
        b_sigma=float(spread[1]) * length,
        theta=math.degrees(theta) if turned else 0.0,
        theta_sigma=min(math.degrees(spread[2]), NO_DIRECTION) if turned else NO_DIRECTION,
        ratio=ratio,
        ratio_sigma=float(spread[3]),
        center=(0.0, 0.0),
        residual=float(np.sqrt((residuals**2).mean())),
        method="lattice",
        preserve=preserve,
        unit="pixel",
    )
    error = None if covariance is None else float(spread[4])
    quantity = Quantity(value=step, unit="1/angstrom", source="measured", uncertainty=error)
    return LatticeScale(quantity, ellipse, math.degrees(rotation), residuals)


def _numbers(matrix: FloatArray, preserve: str) -> FloatArray:
    """Give a and b (factors), direction (rad), a / b, the step and the rotation (rad) of a linear map."""
    left, (a, b), right = np.linalg.svd(matrix)
    theta = math.atan2(left[1, 0], left[0, 0])
    theta = theta - math.pi * math.ceil(theta / math.pi - 0.5)  # above -90 degrees, up to 90
    turn = left @ right
    step = (a * b) ** -0.5 if preserve == "area" else 1 / b
    return np.array([a, b, theta, a / b, step, math.atan2(turn[1, 0], turn[0, 0])])
