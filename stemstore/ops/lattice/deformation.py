"""Small matrices of a deformation: rotation and stretch, the measures of strain, and their invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stemstore._types import FloatArray

SIDE = 2
SAME = 1e-6  # relative difference of eigenvalues below which its square is lost in rounding


def inverse(matrix: FloatArray) -> FloatArray:
    """Invert matrices (…, 2, 2), where they have no number as well."""
    (a, b), (c, d) = np.moveaxis(matrix, (-2, -1), (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        area = a * d - b * c
        rows = np.stack([d, -b], axis=-1), np.stack([-c, a], axis=-1)
        return np.asarray(np.stack(rows, axis=-2) / area[..., None, None])


def rotation(angle: Any) -> FloatArray:
    """Matrices that turn (row, column) vectors from rows towards columns."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)


def strain_of(beta: FloatArray, definition: str) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Components e_yy, e_xx, e_xy and the rotation."""
    if definition in ("infinitesimal", "py4dstem"):
        shear, theta = -(beta[..., 0, 1] + beta[..., 1, 0]) / 2, (beta[..., 1, 0] - beta[..., 0, 1]) / 2
        return 1 - beta[..., 0, 0], 1 - beta[..., 1, 1], shear, -theta if definition == "py4dstem" else theta
    gradient = np.swapaxes(inverse(beta), -1, -2)
    theta = np.arctan2(gradient[..., 1, 0] - gradient[..., 0, 1], gradient[..., 0, 0] + gradient[..., 1, 1])
    if definition == "green":
        tensor = (np.swapaxes(gradient, -1, -2) @ gradient - np.eye(SIDE)) / 2
    else:
        stretch = np.swapaxes(rotation(theta), -1, -2) @ gradient
        tensor = _logarithm(stretch) if definition == "hencky" else stretch - np.eye(SIDE)
    return tensor[..., 0, 0], tensor[..., 1, 1], (tensor[..., 0, 1] + tensor[..., 1, 0]) / 2, theta


def _logarithm(stretch: FloatArray) -> FloatArray:
    """Logarithm of symmetric matrices with positive eigenvalues m + r, m - r."""
    middle = (stretch[..., 0, 0] + stretch[..., 1, 1]) / 2
    apart = np.hypot((stretch[..., 0, 0] - stretch[..., 1, 1]) / 2, (stretch[..., 0, 1] + stretch[..., 1, 0]) / 2)
    ratio = apart / middle
    slope = np.where(ratio > SAME, np.arctanh(ratio) / np.where(ratio > 0, apart, 1.0), 1 / middle)
    mean = np.log(middle) + np.log1p(-(ratio**2)) / 2
    unit = np.eye(SIDE)
    return np.asarray(
        mean[..., None, None] * unit + slope[..., None, None] * (stretch - middle[..., None, None] * unit)
    )


def invariants(maps: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Invariants of the strain tensor, and its principal direction."""
    mean, half = (maps["e_yy"] + maps["e_xx"]) / 2, (maps["e_yy"] - maps["e_xx"]) / 2
    size = np.hypot(half, maps["e_xy"])
    angle = np.arctan2(maps["e_xy"], half) / 2
    return {"dilation": 2 * mean, "e_major": mean + size, "e_minor": mean - size, "principal_angle": angle}
