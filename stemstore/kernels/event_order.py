"""Events in any order, brought into the order of frames and, inside each, of pixels, in a time linear in their number.

Events are first counted and laid out by frame, which costs little where they come nearly in the order of the frames, as
those of a stream do. Then some frames at a time, few enough for the processor's second-level cache, are sorted by frame
and pixel, digit by digit from the lowest (radix sort).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt32Array

DIGIT = 11
"""Bits of a digit: its counts fit the first-level cache."""

GROUP = 2**15
"""Events that are sorted together: 256 KiB with the copy of them."""

LEAST = 2**10
"""Events of a group that has no more frames than two digits can tell apart."""

MAX_PIXELS = 2**31

int64: Any = np.int64  # the compiler's own names, without the types that are checked in plain code
uint32: Any = np.uint32


def order(frames: Array, pixels: Array, n_frames: int, n_pixels: int) -> tuple[Int64Array, UInt32Array]:
    """Order events by frame and pixel.

    Parameters
    ----------
    frames, pixels : shape (n,), uint32
        Frame and pixel of each event, below `n_frames` and `n_pixels`.
    n_frames, n_pixels
        Frames in all, and pixels of a frame, up to `MAX_PIXELS`.

    Returns
    -------
    indptr : shape (n_frames + 1,)
        Frame i owns ``pixels[indptr[i]:indptr[i + 1]]``.
    pixels : shape (n,), uint32
        Ascending inside each frame.

    Raises
    ------
    InputError
        An event lies outside, or there are too many pixels.

    Notes
    -----
    Memory: that of the result, and half a megabyte or three times the events of the fullest frame.
    """
    inside = not len(frames) or (int(frames.max()) < n_frames and int(pixels.max()) < n_pixels)
    if len(frames) != len(pixels) or not inside or n_pixels > MAX_PIXELS:
        msg = f"events of {n_frames} frames of {n_pixels} pixels lie outside of them; check the layout of the detector"
        raise InputError(msg, found=n_pixels)
    indptr, out = np.zeros(n_frames + 1, np.int64), np.empty(len(pixels), np.uint32)
    _lay_out(frames, pixels, indptr, out)
    fullest = int(np.diff(indptr).max(initial=0))
    keys, spare = (np.empty(max(GROUP, fullest), np.uint32) for _ in range(2))
    _sort(indptr, out, max(1, (n_pixels - 1).bit_length()), keys, spare)
    return indptr, out


@numba.njit(nogil=True, cache=True)
def _lay_out(frames, pixels, indptr, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(len(frames)):
        indptr[int64(frames[i]) + 1] += 1
    for frame in range(len(indptr) - 1):
        indptr[frame + 1] += indptr[frame]
    for i in range(len(frames)):  # each start is moved to the end of its frame, which is the start of the next one
        place = indptr[frames[i]]
        out[place] = pixels[i]
        indptr[frames[i]] = place + 1
    for frame in range(len(indptr) - 1, 0, -1):
        indptr[frame] = indptr[frame - 1]
    indptr[0] = 0


@numba.njit(nogil=True, cache=True)
def _sort(indptr, pixels, bits, keys, spare):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    first, n_frames = 0, len(indptr) - 1
    two = 1 << max(2 * DIGIT - bits, 0)
    while first < n_frames:
        last = first + 1
        while last < n_frames and last - first < 1 << (32 - bits) and indptr[last + 1] - indptr[first] <= len(keys):
            if last - first == two and indptr[last] - indptr[first] > LEAST:
                break
            last += 1
        start, stop = indptr[first], indptr[last]
        for frame in range(first, last):
            high = uint32(frame - first) << uint32(bits)
            for i in range(indptr[frame], indptr[frame + 1]):
                keys[i - start] = high | pixels[i]
        width = bits
        while (last - first - 1) >> (width - bits):
            width += 1
        result = _radix(keys, spare, stop - start, width)
        mask = uint32((1 << bits) - 1)
        for i in range(stop - start):
            pixels[start + i] = result[i] & mask
        first = last


@numba.njit(nogil=True, cache=True)
def _radix(keys, spare, n, bits):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Sort the lowest bits of keys; the result is in one of the two arrays."""
    n_digits = (bits + DIGIT - 1) // DIGIT
    width = (bits + n_digits - 1) // n_digits
    mask, counts = uint32((1 << width) - 1), np.empty(1 << width, np.int32)
    for digit in range(n_digits):
        shift = uint32(digit * width)
        counts[:] = 0
        for i in range(n):
            counts[(keys[i] >> shift) & mask] += 1
        total = np.int32(0)
        for value in range(len(counts)):
            here = counts[value]
            counts[value] = total
            total += here
        for i in range(n):
            value = (keys[i] >> shift) & mask
            spare[counts[value]] = keys[i]
            counts[value] += 1
        keys, spare = spare, keys
    return keys
