"""Rotation and handedness between detector and scan, found from the curl and divergence of the deflection itself."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.phase.com import components, trusted
from stemstore.ops.phase.derivatives import scan_steps
from stemstore.ops.phase.transform import transform_com

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import FloatArray

Method = Literal["least-squares", "grid-l1"]
UNRELIABLE = 0.25  # residual above which curl and divergence do not tell a direction; noise alone gives 0.5
CHANCE = 3.0  # a skewness within so many standard errors of zero decides nothing


class RotationWarning(UserWarning):
    """A rotation was estimated from a deflection that hardly tells one."""


@dataclass(frozen=True, slots=True)
class RotationEstimate:
    """Angle and handedness that `estimate_rotation` found, and how far to trust them.

    Attributes
    ----------
    rotation : unit deg
        Angle by which detector vectors are turned, row towards column positive, to be parallel to the scan axes.
    transpose
        Whether the two components are swapped before the rotation.
    residual
        Share of the curl that remains, from 0 (a pure gradient) to 0.5 (no direction at all).
    residuals
        The same for the components as they are, and swapped.
    reliable
        False where the residual exceeds 0.25.
    sign_from
        What chose between `rotation` and the opposite direction, which have the same curl: ``"near"``, a known
        angle; ``"skewness"``, a heuristic; ``"nothing"``, so that 180 degrees may have to be added.
    skewness
        Of the divergence at `rotation`.
    method
        How the angle was found.
    """

    rotation: float
    transpose: bool
    residual: float
    residuals: tuple[float, float]
    reliable: bool
    sign_from: Literal["near", "skewness", "nothing"]
    skewness: float
    method: Method

    def apply(self, com: xr.Dataset) -> xr.Dataset:
        """Turn a centre of mass by this estimate, see `transform_com`."""
        return transform_com(com, rotation=self.rotation, transpose=self.transpose)

    def __str__(self) -> str:
        swap = "components swapped, then " if self.transpose else ""
        trust = "" if self.reliable else "; no reliable rotation"
        known = {"near": "a known angle", "skewness": "the skewness of the divergence, a heuristic"}
        sign = known.get(self.sign_from, "nothing: it may be 180 degrees more")
        return f"{swap}{self.rotation:.2f} deg, residual {self.residual:.3f}{trust}; direction chosen by {sign}"


def estimate_rotation(
    com: xr.Dataset, *, transpose: bool | None = None, near: float | None = None, method: Method = "least-squares"
) -> RotationEstimate:
    """Find the rotation between detector and scan for which the deflection is closest to a gradient.

    Parameters
    ----------
    com
        From `center_of_mass`, with the dims y and x, not rotated yet. Take a large descan off first.
    transpose
        Whether the components are swapped, if known; default: whichever leaves less curl.
    near : unit deg
        Roughly known angle, which decides between the two opposite directions.
    method
        ``"least-squares"``, the closed form of the smallest sum of squared curl, or ``"grid-l1"``, the smallest mean
        magnitude of the curl among -89 … 89 degrees in steps of one, as py4DSTEM and quantem do.

    Returns
    -------
    estimate
        `RotationEstimate`: ``rotation`` and ``transpose`` for `transform_com` and `dpc`, ``residual``, ``reliable``.

    Raises
    ------
    InputError
        The scan has fewer than three rows or columns, or the deflection does not vary.

    Warns
    -----
    RotationWarning
        The residual exceeds 0.25: no reliable rotation.

    Notes
    -----
    With C and D the curl and divergence of the deflection as measured, a turn by t gives the curl
    cos t C + sin t D. Its sum of squares is least at t = atan2(-2 Σ C D, Σ D² - Σ C²) / 2, and there it is the share
    ``residual`` of Σ C² + Σ D². Differences are central, at inner positions whose neighbours are valid.

    **The opposite direction, 180 degrees away, has the same curl.** It is chosen by `near`; else by the sign of the
    skewness of the divergence, negative because an in-focus probe is attracted by narrow atoms. That is a heuristic:
    a defocused probe or a specimen of holes turns it round.
    """
    from dask.base import compute

    if method not in ("least-squares", "grid-l1"):
        msg = f"method {method!r} is not known; use 'least-squares' or 'grid-l1'"
        raise InputError(msg, key="method", found=method, expected=("least-squares", "grid-l1"))
    com_y, com_x = components(com)
    steps = _inner_steps(com_y)
    maps = compute(com_y, com_x)
    vector = np.where(trusted(com), np.stack([np.asarray(image.values, np.float64) for image in maps]), np.nan)
    fields = [_inner_derivatives(part, steps) for part in (vector, vector[::-1])]
    angles, residuals = zip(*(closed_form(*field) for field in fields), strict=True)
    if method == "grid-l1":
        angles, scores = zip(*(_least_mean_curl(*field) for field in fields), strict=True)
    else:
        scores = residuals
    swapped = bool(scores[1] < scores[0]) if transpose is None else bool(transpose)
    found, residual = angles[swapped], residuals[swapped]
    rotation, skewness, sign_from = _directed(found, fields[swapped], near)
    reliable = residual <= UNRELIABLE
    if not reliable:
        msg = (
            f"no reliable rotation: the residual is {residual:.2f} of at most 0.5 (swapped or not: "
            f"{residuals[0]:.2f}, {residuals[1]:.2f}); take off descan, use a mask or more electrons, or give the angle"
        )
        warnings.warn(msg, RotationWarning, stacklevel=2)
    return RotationEstimate(rotation, swapped, residual, residuals, reliable, sign_from, skewness, method)


def closed_form(curl: FloatArray, divergence: FloatArray) -> tuple[float, float]:
    """Angle in degrees, in (-90, 90], with the least sum of squared curl, and the share of it that remains."""
    a, b, c = float(np.vdot(curl, curl)), float(np.vdot(divergence, divergence)), float(np.vdot(curl, divergence))
    if a + b == 0:
        msg = "the deflection does not vary over the scan, so it tells no rotation; check the mask and the specimen"
        raise InputError(msg, key="com")
    angle = 0.5 * np.rad2deg(np.arctan2(-2 * c, b - a))
    return float(angle), float(max(0.0, 0.5 - np.hypot((a - b) / 2, c) / (a + b)))


def _least_mean_curl(curl: FloatArray, divergence: FloatArray) -> tuple[float, float]:
    angles = np.arange(-89.0, 90.0)
    turns = np.deg2rad(angles)
    scores = [float(np.abs(np.cos(t) * curl + np.sin(t) * divergence).mean()) for t in turns]
    best = int(np.argmin(scores))
    return float(angles[best]), scores[best]


def _directed(
    found: float, field: tuple[FloatArray, FloatArray], near: float | None
) -> tuple[float, float, Literal["near", "skewness", "nothing"]]:
    """Choose between an angle and its opposite; gives angle in (-180, 180], skewness of the divergence, and why."""
    turn = np.deg2rad(found)
    values = np.cos(turn) * field[1] - np.sin(turn) * field[0]
    values = values - values.mean()
    spread = float((values**2).mean())
    skewness = float((values**3).mean() / spread**1.5) if spread > 0 else 0.0
    sign_from: Literal["near", "skewness", "nothing"] = "nothing"
    turned = False
    if near is not None:
        sign_from, turned = "near", bool(np.cos(np.deg2rad(found - near)) < 0)
    elif abs(skewness) > CHANCE * np.sqrt(6 / len(values)):  # standard error of the skewness of normal numbers
        sign_from, turned = "skewness", skewness > 0
    if turned:
        found, skewness = (found - 180 if found > 0 else found + 180), -skewness
    return found, skewness, sign_from


def _inner_steps(image: xr.DataArray) -> tuple[float, float]:
    needed = 3  # central differences
    for name in ("y", "x"):
        if image.sizes[name] < needed:
            msg = f"a rotation needs at least {needed} positions along {name!r}, got {image.sizes[name]}"
            raise InputError(msg, key=name, found=image.sizes[name], expected=needed)
    return scan_steps(image)[0]


def _inner_derivatives(vector: FloatArray, steps: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Curl and divergence by central differences at inner positions, flat, without invalid ones."""
    along_y = (vector[:, 2:, 1:-1] - vector[:, :-2, 1:-1]) / (2 * steps[0])
    along_x = (vector[:, 1:-1, 2:] - vector[:, 1:-1, :-2]) / (2 * steps[1])
    curl, divergence = along_y[1] - along_x[0], along_y[0] + along_x[1]
    kept = np.isfinite(curl) & np.isfinite(divergence) & np.isfinite(vector[:, 1:-1, 1:-1]).all(axis=0)
    if not kept.any():
        msg = (
            "no inner position has a centre of mass at itself and its four neighbours, so there is no rotation to find"
        )
        raise InputError(msg, key="com")
    return curl[kept], divergence[kept]
