"""Masks and weights on the detector, prepared as runs of pixels.

A detector touches few pixels, in runs along the rows. A kernel that walks over runs reads only these, and adds them
with vector instructions. What is prepared here is a tuple of plain arrays: numba takes it, and it can be pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import FRAME_DIMS, RUN

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array

TILE = 4096
"""Pixels whose accumulators or weights stay in the first-level cache."""

STRETCH = 65536
"""Pixels of a frame that are read in one go where frames are added up: long against the prefetching of memory, while
the sums stay in the second-level cache."""

Masks: TypeAlias = "tuple[Int64Array, Int64Array, Int64Array]"
"""Prepared masks: runs (start, stop, label), pairs (label, mask), and (number of labels, masks, pixels)."""

Weights: TypeAlias = "tuple[FloatArray, Int64Array, Int64Array, Int64Array]"
"""Prepared weights: values, runs (mask, start, stop, first value), band borders, and (masks, pixels)."""

Region: TypeAlias = "tuple[Int64Array, Int64Array, Int64Array]"
"""Prepared region for moments: runs (row, first column, end column), fours of runs with the same columns (four rows,
first column, end column), and the detector's (rows, columns)."""


def label_masks(masks: BoolArray) -> tuple[Int64Array, Int64Array]:
    """Give pixels that belong to the same masks the same label.

    Overlapping detectors then cost one pass over the pixels: values are summed per label, and the few labels are
    combined to masks afterwards.

    Parameters
    ----------
    masks : shape (n_masks, det_y, det_x)

    Returns
    -------
    labels : shape (det_y * det_x,), int64
        0 for pixels in no mask.
    pairs : shape (m, 2), int64
        Every (label, mask) that belong together.

    Raises
    ------
    InputError
        The masks are not boolean or not a stack.
    """
    masks = np.asarray(masks)
    if masks.ndim != FRAME_DIMS or masks.dtype != np.bool_:
        msg = (
            f"masks have shape {masks.shape} and dtype {masks.dtype}, expected boolean (masks, rows, columns); "
            "pass real numbers as weights instead"
        )
        raise InputError(msg, shape=masks.shape, dtype=str(masks.dtype))
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2])
    labels = np.zeros(flat.shape[1], dtype=np.int64)
    members = np.zeros((1, len(masks)), dtype=np.bool_)
    for q, mask in enumerate(flat):
        split = 2 * labels + mask
        used = np.bincount(split, minlength=2 * len(members)) > 0
        used[0] = True  # label 0 stays "in no mask", even when every pixel is in one
        labels = (np.cumsum(used) - 1)[split]
        members = np.repeat(members, 2, axis=0)
        members[1::2, q] = True
        members = members[used]
    return labels, np.argwhere(members)


def prepare_masks(masks: BoolArray) -> Masks:
    """Turn boolean masks into runs of pixels for `masked_sums`.

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
    starts = _run_starts(labels, RUN)
    runs = np.column_stack([starts[:-1], starts[1:], labels[starts[:-1]]]).astype(np.int64)
    n_labels = int(labels.max(initial=0)) + 1
    return runs[runs[:, 2] > 0], pairs, np.array([n_labels, len(masks), labels.size], dtype=np.int64)


def _run_starts(labels: Int64Array, longest: int) -> Int64Array:
    """Flat starts of the runs of equal labels, none longer than `longest`; the end comes last."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    return np.unique(np.concatenate([np.arange(0, labels.size, longest), changes, [labels.size]])).astype(np.int64)


def prepare_weights(weights: Array) -> Weights:
    """Turn real weights into runs of pixels for `weighted_sums`.

    Pixels with weight zero are never looked at, so that NaN outside a detector does not reach its sum.

    Parameters
    ----------
    weights : shape (n_masks, det_y, det_x)
        Real weights, on the stored detector; may be negative.

    Returns
    -------
    prepared
        Plain arrays; picklable. Only the weights that are not zero are kept.

    Raises
    ------
    InputError
        The weights are not a stack of real numbers.
    """
    values = real_weights(weights)
    n_pixels = values.shape[1] * values.shape[2]
    runs, kept, first = [], [], 0
    for q, row in enumerate(values.reshape(len(values), n_pixels)):
        labels = (row != 0).astype(np.int64)
        starts = _run_starts(labels, TILE)
        inside = labels[starts[:-1]] > 0 if row.size else np.zeros(0, dtype=np.bool_)
        begin, end = starts[:-1][inside], starts[1:][inside]
        offsets = first + np.cumsum(end - begin) - (end - begin)
        runs.append(np.column_stack([np.full_like(begin, q), begin, end, offsets]))
        kept.append(row[row != 0])
        first += kept[-1].size
    table = np.concatenate(runs) if runs else np.zeros((0, 4), dtype=np.int64)
    # bands of pixels: all masks and all frames pass over one band before the next, so that its weights stay in cache
    table = table[np.argsort(table[:, 1] // TILE, kind="stable")]
    _, bands = np.unique(table[:, 1] // TILE, return_index=True)
    borders = np.append(bands, len(table)).astype(np.int64)
    flat = np.concatenate(kept) if kept else np.zeros(0)
    return flat, table.astype(np.int64), borders, np.array([len(values), n_pixels], dtype=np.int64)


def real_weights(weights: Array) -> FloatArray:
    """Check a stack of weights and give it as float64."""
    array = np.asarray(weights)
    if array.ndim != FRAME_DIMS or array.dtype.kind not in "biuf":
        msg = (
            f"weights have shape {array.shape} and dtype {array.dtype}, expected real (masks, rows, columns); "
            "give the real and the imaginary part of complex weights as two masks"
        )
        raise InputError(msg, shape=array.shape, dtype=str(array.dtype))
    return np.ascontiguousarray(array, dtype=np.float64)


def prepare_region(detector: tuple[int, int], mask: BoolArray | None = None) -> Region:
    """Turn a detector mask into runs of pixels within rows for `moments`.

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
        The mask is not boolean or does not fit the detector.
    """
    rows, columns = detector
    if mask is None:
        mask = np.ones(detector, dtype=np.bool_)
    mask = np.asarray(mask)
    if mask.shape != (rows, columns) or mask.dtype != np.bool_:
        msg = f"the mask has shape {mask.shape} and dtype {mask.dtype}, expected boolean {(rows, columns)}; rebuild it"
        raise InputError(msg, shape=mask.shape, detector=(rows, columns))
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, begin = np.nonzero(edges == 1)
    end = np.nonzero(edges == -1)[1]
    runs, fours = _fours(np.column_stack([row, begin, end]).astype(np.int64))
    return runs, fours, np.array([rows, columns], dtype=np.int64)


def _fours(runs: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Join runs with the same columns by fours; gives the runs that are left, and the fours.

    The four are a quarter of the rows apart: processors fetch four distant streams ahead, but not four that interleave
    within a page.
    """
    left, fours = [], []
    for begin, end in np.unique(runs[:, 1:], axis=0).tolist():
        row = runs[(runs[:, 1] == begin) & (runs[:, 2] == end), 0]
        quarter = len(row) // 4
        same = np.broadcast_to([begin, end], (quarter, 2))
        fours.append(np.column_stack([row[: 4 * quarter].reshape(4, quarter).T, same]))
        left.append(runs[np.isin(runs[:, 0], row[4 * quarter :]) & (runs[:, 1] == begin) & (runs[:, 2] == end)])
    none = np.zeros((0, 6), dtype=np.int64)
    return np.concatenate([runs[:0], *left]), np.concatenate([none, *fours]).astype(np.int64)
