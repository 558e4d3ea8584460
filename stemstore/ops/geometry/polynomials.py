"""Polynomials in the scan position, fitted to maps that have holes and outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import BoolArray, FloatArray

N_TERMS = {"none": 0, "constant": 1, "plane": 3, "parabola": 6}
TERMS = ("offset", "d/dy", "d/dx", "y*y", "y*x", "x*x")
REJECTION_ROUNDS = 3  # and the limit in units of the RMS: the numbers that py4DSTEM uses for its origin fit
REJECTION_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class FittedMaps:
    """What a fit gives: maps (2, y, x), coefficients (terms, 2) in scan indices, RMS of the rest (2,)."""

    maps: FloatArray
    coefficients: FloatArray
    rest: FloatArray
    n_positions: int

    @property
    def variation(self) -> FloatArray:
        """Largest minus smallest value of each fitted map, (2,)."""
        return np.nanmax(self.maps, axis=(1, 2)) - np.nanmin(self.maps, axis=(1, 2))


def fit_maps(vector: FloatArray, usable: BoolArray, model: str, *, robust: bool = False) -> FittedMaps:
    """Fit a polynomial to components (2, y, x) by least squares on the usable positions that are finite.

    Raises
    ------
    InputError
        The positions do not determine the model.
    """
    usable = usable & np.isfinite(vector).all(axis=0)
    terms, substitution = _polynomials(vector.shape[1:])
    n_terms = N_TERMS[model]
    terms = terms[:, :n_terms]
    flat, kept = vector.reshape(2, -1).T, usable.ravel()
    if not kept.any():
        msg = (
            "the centre of mass is NaN at every position (no electrons, or no complete frame), so nothing can be fitted"
        )
        raise InputError(msg, key="com")
    for _ in range(1 + REJECTION_ROUNDS * (robust and n_terms > 0)):
        coefficients, _, rank, _ = np.linalg.lstsq(terms[kept], flat[kept], rcond=None)
        if rank < n_terms:
            msg = (
                f"{int(kept.sum())} positions do not determine descan {model!r} ({n_terms} terms): too few, or all on "
                "a line; use 'constant'"
            )
            raise InputError(msg, key="model", found=int(kept.sum()), expected=n_terms)
        distance = np.hypot(*(flat - terms @ coefficients).T)
        used, limit = kept, REJECTION_LIMIT * np.sqrt((distance[kept] ** 2).mean())
        kept = usable.ravel() & (distance <= limit)
    left = (flat - terms @ coefficients)[used]
    shown = max(n_terms, N_TERMS["plane"])  # a constant says that its slopes are zero
    padded = np.zeros((shown, 2))
    padded[:n_terms] = coefficients
    raw = substitution[:shown, :shown] @ padded
    maps = (terms @ coefficients).T.reshape(vector.shape)
    return FittedMaps(maps, raw, np.sqrt((left**2).mean(axis=0)), int(used.sum()))


def _polynomials(shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Terms (positions, 6) in coordinates scaled to [-1, 1], and the matrix from their coefficients to indices."""
    scales = [(2 / (n - 1), -1.0) if n > 1 else (0.0, 0.0) for n in shape]
    (a, b), (c, d) = scales
    u, w = (
        m.ravel()
        for m in np.meshgrid(*(s * np.arange(n) + t for n, (s, t) in zip(shape, scales, strict=True)), indexing="ij")
    )
    substitution = np.array(
        [
            [1, b, d, b * b, b * d, d * d],
            [0, a, 0, 2 * a * b, a * d, 0],
            [0, 0, c, 0, b * c, 2 * c * d],
            [0, 0, 0, a * a, 0, 0],
            [0, 0, 0, 0, a * c, 0],
            [0, 0, 0, 0, 0, c * c],
        ]
    )
    return np.stack([np.ones_like(u), u, w, u * u, u * w, w * w], axis=1), substitution
