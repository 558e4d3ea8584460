"""Colours of vectors on plain arrays: hue shows the direction, brightness the length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray

SATURATION = 0.9
UNKNOWN = 0.5  # grey
QUANTILE = 0.995  # of the lengths: a few outliers do not darken the picture


def vector_colours(field: Array, longest: float) -> FloatArray:
    """Colours, (y, x, 3) in 0 … 1, of a field (y, x, 2) of rows and columns; NaN is grey."""
    row, column = field[..., 0], field[..., 1]
    known = np.isfinite(row) & np.isfinite(column)
    hue = np.where(known, (np.arctan2(row, column) / (2 * np.pi)) % 1.0, 0.0)
    value = np.where(known, np.clip(np.hypot(row, column) / longest, 0, 1), 0.0)
    colours = from_hsv(hue, SATURATION, value)
    colours[~known] = UNKNOWN
    return colours


def full_brightness(field: Array, longest: float | None = None) -> float:
    """Length of full brightness of a field (y, x, 2): the given one, or that which 99.5 % of the lengths stay below.

    Raises
    ------
    InputError
        The given length is not positive.
    """
    if longest is None:
        lengths = np.hypot(field[..., 0], field[..., 1])
        known = lengths[np.isfinite(lengths)]
        return (float(np.quantile(known, QUANTILE)) if known.size else 1.0) or 1.0  # no deflection anywhere: black
    if not longest > 0:
        msg = f"longest is the length shown at full brightness and must be positive, got {longest}"
        raise InputError(msg, key="longest", found=longest)
    return longest


def from_hsv(hue: FloatArray, saturation: float, value: FloatArray) -> FloatArray:
    """Convert hue, saturation and value (0 … 1) to red, green and blue in a last axis.

    Each colour is ``value`` less ``value * saturation`` times a trapezoid of the hue, shifted by a third of the circle
    (A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978, in its closed form).
    """
    sixth = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue[..., None]) % 6.0
    less = np.clip(np.minimum(sixth, 4.0 - sixth), 0.0, 1.0)
    result: FloatArray = value[..., None] * (1.0 - saturation * less)
    return result
