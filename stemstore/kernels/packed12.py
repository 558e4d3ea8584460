"""Numbers of 12 bit, two in three bytes, the low ones first: the packing of cameras that send less than two bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array


def place_blocks(
    packed: Array, tops: Int64Array, lefts: Int64Array, block_shape: tuple[int, int], out: Array, *, skip: int = 0
) -> Array:
    """Unpack blocks of pixels to their places on the detector.

    Parameters
    ----------
    packed : shape (n, skip + rows * columns * 3 / 2), uint8
        Blocks, row by row; bytes a, b, c are the pixels a + 256 (b mod 16) and b div 16 + 16 c.
    tops, lefts : shape (n,), unit pixel
        Row and column of `out` at which each block starts.
    block_shape
        Rows and columns of a block, an even number of columns.
    out : shape (ky, kx), uint16
        Filled at the places of the blocks.
    skip : unit byte
        Length of a header in front of each block.

    Returns
    -------
    out

    Raises
    ------
    InputError
        A block has another length or leaves `out`.

    Notes
    -----
    No memory of its own. Three times as fast where both arrays are C-contiguous.
    """
    rows, columns = block_shape
    if columns % 2 or packed.shape[1:] != (skip + rows * columns * 3 // 2,):
        msg = f"packed blocks have the shape {packed.shape}, expected 3 bytes for 2 of {rows} x {columns} pixels"
        raise InputError(msg, found=packed.shape)
    inside = (tops >= 0) & (lefts >= 0) & (tops + rows <= out.shape[0]) & (lefts + columns <= out.shape[1])
    if len(tops) != len(packed) or len(lefts) != len(packed) or not inside.all():
        msg = f"{len(packed)} blocks of {rows} x {columns} pixels have places outside {out.shape}; check their headers"
        raise InputError(msg, found=out.shape)
    _place(packed, skip, tops, lefts, rows, columns, out)
    return out


@numba.njit(nogil=True, cache=True)
def _place(packed, skip, tops, lefts, rows, columns, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    half = columns // 2
    for block in range(len(tops)):
        for row in range(rows):
            source = packed[block, skip + 3 * half * row : skip + 3 * half * (row + 1)]
            line = out[tops[block] + row, lefts[block] : lefts[block] + columns]
            for pair in range(half):  # 16-bit throughout: a third faster than with numba's promotion to 64 bit
                middle = source[3 * pair + 1]
                line[2 * pair] = np.uint16(source[3 * pair]) | np.uint16(middle & 0x0F) << np.uint16(8)
                line[2 * pair + 1] = np.uint16(middle >> 4) | np.uint16(source[3 * pair + 2]) << np.uint16(4)
