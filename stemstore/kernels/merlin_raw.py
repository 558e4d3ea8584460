"""Pixels of Medipix3 detectors in the order in which the readout sends them (Merlin "RAW", pixel code R64).

The readout sends 64-bit words, most significant byte first, whose *low* bits are the first pixels: 64, 8 or 4 pixels
of 1, 6 (in a byte) or 12 (in two bytes) bits. With 24 bits the high halves of all pixels come before the low ones. Four
chips are sent side by side, the last chip first; the two lower ones are mounted upside down. Source: the decoder of
LiberTEM (``src/libertem/io/dataset/mib.py``) and frames of one test series stored both RAW and processed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array

CHIP = 256
"""Rows and columns of one chip, pixel."""

QUAD = 4
"""Chips of the square assembly."""

PIXELS: dict[int, tuple[np.dtype[Any], int]] = {
    1: (np.dtype(np.uint8), 1),
    6: (np.dtype(np.uint8), 8),
    12: (np.dtype(np.uint16), 16),
    24: (np.dtype(np.uint32), 32),
}
"""For each counter depth the type of the pixels and the bits that one takes in the file."""


def packed_bytes(n_pixels: int, depth: int) -> int:
    """Bytes that `n_pixels` of a counter depth take in the file."""
    return n_pixels * PIXELS[depth][1] // 8


def unpack(packed: Array, depth: int, out: Array) -> Array:
    """Put the pixels of RAW frames where they lie on the detector.

    Parameters
    ----------
    packed : shape (n, b), uint8
        Frames as the file holds them, without their headers.
    depth : unit bit
        Counter depth: 1, 6, 12 or 24.
    out : shape (n, rows, 256) of one chip, or (n, 512, 512) of four
        Filled with the pixels; of the type that `PIXELS` names.

    Returns
    -------
    out

    Raises
    ------
    InputError
        `packed` and `out` do not fit together.

    Notes
    -----
    Memory: two copies of the frames of one call; pass few at a time, so that they stay in the processor's cache.
    """
    dtype, _ = PIXELS[depth]
    quad = out.shape[2] == 2 * CHIP
    if packed.shape != (len(out), packed_bytes(out[0].size, depth) if len(out) else 0) or out.dtype != dtype:
        msg = (
            f"packed frames of shape {packed.shape} do not fit {out.dtype} frames of shape {out.shape}, expected "
            f"{dtype} and {depth} bits a pixel; check the counter depth"
        )
        raise InputError(msg, found=packed.shape)
    pixels = _in_order(packed, depth)
    if not quad:
        np.copyto(out, pixels.reshape(out.shape))
        return out
    strips = pixels.reshape(len(out), CHIP, QUAD, CHIP)
    out[:, :CHIP, :CHIP] = strips[:, :, 3]
    out[:, :CHIP, CHIP:] = strips[:, :, 2]
    out[:, CHIP:, :CHIP] = strips[:, ::-1, 1, ::-1]
    out[:, CHIP:, CHIP:] = strips[:, ::-1, 0, ::-1]
    return out


def _in_order(packed: Array, depth: int) -> Array:
    """Bring the pixels of each frame into the order in which the readout counts them."""
    words = np.ascontiguousarray(packed).view(">u8").astype("<u8").view(np.uint8)  # first pixel in the lowest bits
    if depth == 1:
        return np.unpackbits(words, axis=1, bitorder="little")
    if depth == 6:  # noqa: PLR2004 (bits of a counter)
        return words
    values = words.view("<u2")
    if depth == 12:  # noqa: PLR2004 (bits of a counter)
        return values
    high, low = np.split(values, 2, axis=1)
    return (high.astype(np.uint32) << 12) | low
