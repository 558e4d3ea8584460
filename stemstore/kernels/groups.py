"""Sums and spread over groups of detector pixels: rings of a radial profile, boxes of a selected detector.

Groups share no place of the visible detector, so that hundreds of them cost one pass: dense frames are gathered group
by group, an electron looks its group up. Both forms are prepared as plain arrays, once per operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import accumulator, check_detector, check_rows, frozen, pixels_of, wide_zeros
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

_FLOAT = {"reassoc", "nsz", "contract"}
_EXACT = 2.0**62  # integers below it cannot leave 64 bits

Groups: TypeAlias = "tuple[Array, Int64Array, Array]"
"""Prepared groups: stored pixels group by group, where each group starts, and the group of every stored pixel.

The third has a row per time that a selection may show a pixel; the number of groups stands for "in none".
"""


def prepare_groups(labels: Int64Array, n_groups: int, region: DetectorRegion) -> Groups:
    """Turn a label image into what the loops over frames and over events need.

    Parameters
    ----------
    labels : shape (visible ky, visible kx)
        Group of every visible pixel, from 0; -1 for pixels in none.
    n_groups
        Number of groups, empty ones included.
    region
        Which stored pixels are visible.

    Returns
    -------
    prepared
        Plain arrays; picklable.

    Raises
    ------
    InputError
        The labels have another shape than the visible detector, or name a group that does not exist.
    """
    if labels.shape != region.shape or labels.max(initial=-1) >= n_groups or labels.min(initial=-1) < -1:
        msg = (
            f"labels {labels.shape} do not name {n_groups} groups on the visible detector {region.shape}; rebuild them"
        )
        raise InputError(msg, found=labels.shape, expected=region.shape)
    rows, columns = (np.asarray(axis, dtype=np.int64) for axis in (region.rows, region.columns))
    inside = labels.reshape(-1) >= 0
    group = labels.reshape(-1)[inside]
    pixel = (rows[:, None] * region.stored[1] + columns).reshape(-1)[inside]
    if (np.diff(pixel) > 0).all():
        # a stable sort keeps the pixels in order; integers this small are sorted in linear time
        order = np.argsort(group.astype(np.min_scalar_type(n_groups)), kind="stable")
    else:
        order = np.lexsort((pixel, group))
    starts = np.searchsorted(group[order], np.arange(n_groups + 1)).astype(np.int64)
    return pixel[order].astype(np.uint32), starts, _table(group, pixel, n_groups, region.stored[0] * region.stored[1])


def grouped(prepared: Groups, region: DetectorRegion) -> BoolArray:
    """Which pixels of the stored detector are in any group."""
    _, starts, table = prepared
    inside: BoolArray = (table < len(starts) - 1).any(axis=0).reshape(region.stored)
    return inside


def _table(group: Int64Array, pixel: Int64Array, n_groups: int, n_pixels: int) -> Array:
    """Group of every stored pixel, with one row more for each time that a pixel is visible again."""
    if (np.diff(pixel) > 0).all():
        time: Int64Array = np.zeros(len(pixel), np.int64)
    else:
        order = np.argsort(pixel, kind="stable")
        pixel, group = pixel[order], group[order]
        time = np.arange(len(pixel)) - np.searchsorted(pixel, pixel)
    table = np.full((int(time.max(initial=0)) + 1, n_pixels), n_groups, np.min_scalar_type(n_groups))
    table[time, pixel] = group
    return table


def frame_sums(block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Groups) -> None:
    """Add the sum over each group of frame ``local[i]`` to ``out[place[i]]``.

    Parameters
    ----------
    block : shape (n, det_y, det_x)
        Whole frames; any integer, boolean or real dtype.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, n_groups), uint64, int64 or float64
        Added to; exact for integer frames.
    prepared
        From `prepare_groups`.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    members, starts, table = prepared
    pixels = pixels_of(block)
    check_detector(pixels.shape[1], table.shape[1])
    local, place = check_rows(local, len(pixels), place, out, (len(starts) - 1,))
    target = accumulator(out, block.dtype)
    wide = wide_zeros(1, pixels.dtype, int(np.diff(starts).max(initial=0)))
    _frame_sums(pixels, local, target, place, frozen(members), frozen(starts), wide)


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _frame_sums(pixels, local, out, place, members, starts, wide):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba, called once)
    kind = wide.dtype.type
    for i in range(local.size):
        frame = pixels[local[i]]
        for group in range(starts.size - 1):
            part = members[starts[group] : starts[group + 1]]
            total = kind(0)
            for k in range(part.size):
                total = kind(total + frame[part[k]])
            out[place[i], group] += total


def frame_deviations(block: Array, local: Int64Array, out: FloatArray, place: Int64Array, prepared: Groups) -> None:
    """Add sum and squared deviations from the mean, over each group of frame ``local[i]``, to ``out[place[i]]``.

    Parameters
    ----------
    block, local, place, prepared
        As in `frame_sums`.
    out : shape (P, 2, n_groups), float64
        Sum I, and sum (I - mean)^2, taken in a second pass over the pixels so that nothing cancels.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    """
    members, starts, table = prepared
    pixels = pixels_of(block, exact=True)
    check_detector(pixels.shape[1], table.shape[1])
    local, place = check_rows(local, len(pixels), place, out, (2, len(starts) - 1))
    _frame_deviations(pixels, local, _real(out), place, frozen(members), frozen(starts))


@numba.njit(nogil=True, cache=True, fastmath=_FLOAT)
def _frame_deviations(pixels, local, out, place, members, starts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba, called once)
    for i in range(local.size):
        frame = pixels[local[i]]
        for group in range(starts.size - 1):
            part = members[starts[group] : starts[group + 1]]
            total, spread = 0.0, 0.0
            for k in range(part.size):
                total += frame[part[k]]
            mean = total / max(part.size, 1)
            for k in range(part.size):
                distance = frame[part[k]] - mean
                spread += distance * distance
            out[place[i], 0, group] += total
            out[place[i], 1, group] += spread


def event_sums(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Groups
) -> None:
    """Add the number of electrons in each group of frame ``local[i]`` to ``out[place[i]]``.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.
    local, place : shape (m,)
        Frames of the block, and their rows in `out`.
    out : shape (P, n_groups), integer or float64
        Added to; exact.
    prepared
        From `prepare_groups`.

    Raises
    ------
    InputError
        Shapes or indices that do not belong together, or a count that the dtype of `out` cannot hold.
    CorruptDataError
        A frame has events outside the detector.
    """
    _, starts, table = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (len(starts) - 1,))
    gap, offsets, local = check_block(gap, offsets, local, table.shape[1])
    target = out.view(np.int64) if out.dtype == np.uint64 else out
    wrong = int(_event_sums(gap, offsets, local, target, place, frozen(table)))
    if wrong >= 0:
        msg = f"group {wrong} has more electrons in one frame than {out.dtype} can hold; allocate a wider output"
        raise InputError(msg, group=wrong, dtype=str(out.dtype))


@numba.njit(nogil=True, cache=True)
def _event_sums(gap, offsets, local, out, place, table):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    kind = out.dtype.type
    wrong = np.int64(-1)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        sums = out[place[i]]
        for time in range(table.shape[0]):
            labels = table[time]
            index = np.int64(0)
            for k in range(part.size):
                index += part[k]
                group = np.int64(labels[index])
                if part[k] != ESCAPE and group < sums.size:
                    before = sums[group]
                    sums[group] = kind(before + kind(1))
                    if sums[group] <= before:
                        wrong = group
    return wrong


def event_deviations(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: FloatArray, place: Int64Array, prepared: Groups
) -> None:
    """Add sum and squared deviations from the mean, over each group of frame ``local[i]``, to ``out[place[i]]``.

    Parameters
    ----------
    gap, offsets, local, place, prepared
        As in `event_sums`.
    out : shape (P, 2, n_groups), float64
        Sum I, and sum (I - mean)^2 = (n sum I^2 - (sum I)^2) / n over all n pixels, from exact integers.

    Raises
    ------
    InputError
        Shapes, dtypes or indices that do not belong together.
    CorruptDataError
        A frame has events outside the detector.
    """
    _, starts, table = prepared
    local, place = check_rows(local, len(offsets) - 1, place, out, (2, len(starts) - 1))
    gap, offsets, local = check_block(gap, offsets, local, table.shape[1])
    totals = np.zeros((2, len(starts)), np.int64)
    _event_deviations(gap, offsets, local, _real(out), place, frozen(table), frozen(np.diff(starts)), totals)


@numba.njit(nogil=True, cache=True)
def _event_deviations(gap, offsets, local, out, place, table, sizes, totals):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202, PLR0917 (typed by numba, called once)
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        totals[:] = 0
        for time in range(table.shape[0]):
            labels = table[time]
            index, previous, n = np.int64(0), np.int64(-1), np.int64(0)
            for k in range(part.size):
                index += part[k]
                if part[k] != ESCAPE:
                    n = n + 1 if index == previous else np.int64(1)
                    previous = index
                    totals[0, labels[index]] += 1
                    totals[1, labels[index]] += 2 * n - 1  # n^2 is the sum of the first n odd numbers
        for group in range(sizes.size):
            n, total, squares = sizes[group], totals[0, group], totals[1, group]
            if n == 0:
                continue
            spread = float(squares) - float(total) * (float(total) / n)
            if max(float(n) * float(squares), float(total) * float(total)) < _EXACT:
                spread = (n * squares - total * total) / n
            out[place[i], 0, group] += total
            out[place[i], 1, group] += max(spread, 0.0)


def _real(out: Array) -> FloatArray:
    if out.dtype != np.float64:
        msg = f"squared deviations need a float64 output, got {out.dtype}; allocate float64"
        raise InputError(msg, dtype=str(out.dtype))
    return out
