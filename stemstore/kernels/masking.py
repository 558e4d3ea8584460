"""Electrons outside a mask left out of frames and of event lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.kernels.arguments import frozen
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array


def mask_frames(block: Array, local: Int64Array, usable: BoolArray) -> Array:
    """Give frames ``block[local[i]]``, (m, ky, kx), that are zero outside a mask, (ky, kx); dtype of the block."""
    frames: Array = block[local]
    frames.reshape(len(frames), -1)[:, np.flatnonzero(~usable)] = 0
    return frames


def mask_events(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, usable: BoolArray
) -> tuple[UInt16Array, Int64Array]:
    """Make a block of the electrons inside a mask, of frames ``local[i]``.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.
    local : shape (m,)
        Frames of the block.
    usable : shape (ky, kx)
        True at pixels whose electrons stay.

    Returns
    -------
    gap : shape (t,), uint16
    offsets : shape (m + 1,)
        Of the electrons that stay, frame by frame in the order of `local`; never more slots than before, for the slot
        of an electron that goes holds the escape that its distance may add.

    Raises
    ------
    InputError
        Frames that the block does not have.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, usable.size)
    out = np.empty(int((offsets[local + 1] - offsets[local]).sum()), np.uint16)
    ends = np.zeros(len(local) + 1, np.int64)
    n = _mask_events(gap, offsets, local, frozen(np.ascontiguousarray(usable).reshape(-1)), out, ends)
    return out[:n], ends


@numba.njit(nogil=True, cache=True)
def _mask_events(gap, offsets, local, usable, out, ends):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    n = 0
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        pixel, last = np.int64(0), np.int64(0)  # last: the pixel of the electron that stayed last
        for k in range(part.size):
            pixel += part[k]
            if part[k] != ESCAPE and usable[pixel]:
                distance = pixel - last
                while distance >= ESCAPE:
                    out[n] = ESCAPE
                    n += 1
                    distance -= ESCAPE
                out[n] = distance
                n += 1
                last = pixel
        ends[i + 1] = n
    return n
