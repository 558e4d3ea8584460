"""Masks and weights as tables over the detector, prepared for the loops over events.

An event looks up what its pixel means. What is prepared here is a tuple of plain arrays: numba takes it, and it can be
pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.runs import label_masks, real_weights

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

_MAX_PIXELS = 2**30  # row numbers by multiplication and shift fit 63 bits up to here

MOST_LABELS = 64
"""Different weights of pixels up to which electrons are counted first and weighted last."""

SAMPLE = 4096
"""Pixels that are looked at first, to tell weights that all differ."""

Masks: TypeAlias = "tuple[Array, Int64Array, Int64Array]"
"""Prepared masks: label of every pixel, pairs (label, mask), and (number of labels, number of masks)."""

Weights: TypeAlias = "tuple[Array, FloatArray]"
"""Prepared weights, one column per mask: one row per pixel and no labels, or the label of every pixel and its row."""

Region: TypeAlias = "tuple[Array, Int64Array]"
"""Prepared region for moments: membership of every pixel (empty: all), and (rows, columns, multiplier, shift)."""


def prepare_masks(masks: BoolArray) -> Masks:
    """Turn boolean masks into a table of labels for `masked_sums`.

    Parameters
    ----------
    masks : shape (n_masks, det_y, det_x)
        Detectors, on the stored detector.

    Returns
    -------
    prepared
        Plain arrays; picklable.

    Raises
    ------
    InputError
        The masks are not boolean or not a stack.
    """
    labels, pairs = label_masks(masks)
    n_labels = int(labels.max(initial=0)) + 1
    return labels.astype(np.min_scalar_type(n_labels - 1)), pairs, np.array([n_labels, len(masks)], dtype=np.int64)


def prepare_weights(weights: Array) -> Weights:
    """Turn real weights into a table for `weighted_sums`.

    Parameters
    ----------
    weights : shape (n_masks, det_y, det_x)
        Real weights, on the stored detector.

    Returns
    -------
    prepared
        Plain arrays; picklable.

    Raises
    ------
    InputError
        The weights are not a stack of real numbers.
    """
    values = real_weights(weights)
    rows = np.ascontiguousarray(values.reshape(len(values), values.shape[1] * values.shape[2]).T)
    few = _different(rows) if rows.shape[1] > 1 else None
    return (np.zeros(0, np.uint8), rows) if few is None else few


def _different(rows: FloatArray) -> Weights | None:
    """Give label and row of every pixel; None where there are more than `MOST_LABELS` rows, or one is not finite.

    Rows are told apart by a random projection, which is checked.
    """
    direction = np.random.default_rng(0).random(rows.shape[1])
    projected = rows @ direction
    sample = projected[:: max(1, len(projected) // SAMPLE)]
    if not np.isfinite(projected).all() or len(np.unique(sample)) > MOST_LABELS:
        return None
    _, first, labels = np.unique(projected, return_index=True, return_inverse=True)
    if len(first) > MOST_LABELS or not (rows[first][labels.reshape(-1)] == rows).all():
        return None
    return labels.reshape(-1).astype(np.uint8), rows[first]


def prepare_region(detector: tuple[int, int], mask: BoolArray | None = None) -> Region:
    """Turn a detector mask into a table for `moments`.

    Parameters
    ----------
    detector
        Rows and columns of the stored detector.
    mask : shape (det_y, det_x)
        Pixels that count; None for all.

    Returns
    -------
    prepared
        Plain arrays; picklable.

    Raises
    ------
    InputError
        The mask is not boolean or does not fit the detector, or the detector has more than 2^30 pixels.
    """
    member = np.zeros(0, dtype=np.uint8) if mask is None else np.asarray(mask)
    if mask is not None and (member.shape != tuple(detector) or member.dtype != np.bool_):
        msg = f"the mask has shape {member.shape} and dtype {member.dtype}, expected boolean {detector}; rebuild it"
        raise InputError(msg, shape=member.shape, detector=detector)
    multiplier, shift = row_reciprocal(detector)
    member = np.ascontiguousarray(member).reshape(-1).view(np.uint8)
    return member, np.array([*detector, multiplier, shift], dtype=np.int64)


def row_reciprocal(detector: tuple[int, int]) -> tuple[int, int]:
    """Multiplier m and shift s with ``index // columns == (index * m) >> s`` for every pixel.

    Division by an invariant integer (Granlund and Montgomery, PLDI 1994): with ``2^s > pixels * columns`` the error of
    m, below columns / 2^s, cannot carry any index over a multiple.
    """
    n_pixels, columns = detector[0] * detector[1], max(detector[1], 1)
    if n_pixels > _MAX_PIXELS:
        msg = f"a detector of {detector} pixels is too large for event moments; at most 2^30 pixels are supported"
        raise InputError(msg, detector=detector)
    shift = (n_pixels * columns).bit_length()
    return 2**shift // columns + 1, shift
