"""What every kernel asks of the arrays it is handed, checked before compiled code sees them.

Compiled loops do not check an index, so a wrong one would read or write foreign memory. The checks cost a few
microseconds per block. Inputs are handed on read-only: numba compiles a function anew for every mixture of writable
and read-only arguments, and data that come from a file or from another process are read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array

FRAME_DIMS = 3
RUN = 65536
"""Most 16-bit pixels whose sum fits 32 bits, signed or not."""


def frozen(array: Array) -> Array:
    """Give a read-only view, C-contiguous."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def pixels_of(block: Array, *, exact: bool = False) -> Array:
    """Give a block as read-only (frames, pixels) in native byte order.

    Booleans become uint8, and uint64 becomes int64 (sums have the same bits) unless `exact`.

    Raises
    ------
    InputError
        The block is not a stack of frames of real numbers.
    """
    if block.ndim != FRAME_DIMS or block.dtype.kind not in "biuf" or block.dtype.itemsize not in {1, 2, 4, 8}:
        msg = f"the block has shape {block.shape} and dtype {block.dtype}, expected real (frames, rows, columns)"
        raise InputError(msg, shape=block.shape, dtype=str(block.dtype))
    if block.dtype == np.float16:
        msg = "frames of float16 are not supported; cast them to float32"
        raise InputError(msg, dtype="float16")
    native = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("="))
    pixels = native.reshape(len(native), native.shape[1] * native.shape[2])
    if pixels.dtype == np.bool_:
        pixels = pixels.view(np.uint8)
    elif pixels.dtype == np.uint64 and not exact:
        pixels = pixels.view(np.int64)
    return frozen(pixels)


def wide_zeros(size: int, dtype: np.dtype[Any], terms: int) -> Array:
    """Make accumulators that hold the sum of `terms` pixels of `dtype`: 32 bits where these suffice."""
    if dtype.kind == "f":
        return np.zeros(size, dtype=np.float64)
    if dtype.itemsize <= 2 and terms <= RUN:  # noqa: PLR2004 (bytes of a 16-bit pixel)
        return np.zeros(size, dtype=np.uint32 if dtype.kind == "u" else np.int32)
    return np.zeros(size, dtype=np.int64)


def check_detector(found: int, expected: int) -> None:
    """Refuse a block whose frames are not those the weights were prepared for."""
    if found != expected:
        msg = f"frames have {found} pixels but the masks were prepared for {expected}; prepare them for this detector"
        raise InputError(msg, found=found, expected=expected)


def check_local(local: Int64Array, n_frames: int) -> Int64Array:
    """Refuse indices of frames that the block does not have."""
    index = frozen(np.asarray(local, dtype=np.int64))
    wrong = _first_outside(index, n_frames)
    if wrong >= 0:
        msg = (
            f"frame {index[wrong]} was asked of a block of {n_frames} frames; the selection and the block do not match"
        )
        raise InputError(msg, frame=int(index[wrong]), n_frames=n_frames)
    return index


def check_rows(
    local: Int64Array, n_frames: int, place: Int64Array, out: Array, shape: tuple[int, ...]
) -> tuple[Int64Array, Int64Array]:
    """Check frames and output rows; `shape` is what `out` has behind its first axis."""
    if out.shape[1:] != shape:
        msg = f"the output has shape {out.shape}, expected (positions, {', '.join(map(str, shape))}); allocate it anew"
        raise InputError(msg, shape=out.shape, expected=shape)
    local = check_local(local, n_frames)
    place = frozen(np.asarray(place, dtype=np.int64))
    if place.shape != local.shape:
        msg = f"{len(local)} frames were asked for but {len(place)} output rows given; they belong together one by one"
        raise InputError(msg, n_frames=len(local), n_rows=len(place))
    wrong = _first_outside(place, len(out))
    if wrong >= 0:
        msg = f"output row {place[wrong]} was asked of an output of {len(out)} rows; allocate one row per position"
        raise InputError(msg, row=int(place[wrong]), n_rows=len(out))
    return local, place


def check_weights(weights: Array, local: Int64Array, out: Array) -> Array:
    """Refuse weights that are not one number per frame, and outputs that would round weighted sums."""
    if weights.shape != local.shape:
        msg = f"{len(local)} frames were asked for but weights have shape {weights.shape}; give one weight per frame"
        raise InputError(msg, n_frames=len(local), shape=weights.shape)
    if out.dtype != np.float64:
        msg = f"weighted sums need a float64 output, got {out.dtype}; allocate float64"
        raise InputError(msg, dtype=str(out.dtype))
    return frozen(weights.astype(np.float64, copy=False))


@numba.njit(nogil=True, cache=True)
def _first_outside(index, n):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(index.size):
        if index[i] < 0 or index[i] >= n:
            return i
    return -1


def check_kind(dtype: np.dtype[Any], out: np.dtype[Any]) -> None:
    """Refuse real sums in an integer output, signed ones in an unsigned output, and 64-bit counts in a rounded one."""
    real, signed = dtype.kind == "f" and out.kind != "f", dtype.kind == "i" and out.kind == "u"
    if real or signed or (dtype == np.uint64 and out.kind == "f"):
        best = {"f": "float64", "i": "int64"}.get(dtype.kind, "uint64")
        msg = f"sums of {dtype} pixels cannot go into {out}; allocate {best}"
        raise InputError(msg, dtype=str(dtype), out=str(out))


def accumulator(out: Array, dtype: np.dtype[Any]) -> Array:
    """Give an output of exact sums as int64 or float64 (uint64 is added to as int64: the bits are the same)."""
    if out.dtype not in (np.uint64, np.int64, np.float64):
        msg = f"the output has dtype {out.dtype}, expected uint64, int64 or float64; allocate one of them"
        raise InputError(msg, dtype=str(out.dtype))
    check_kind(dtype, out.dtype)
    return out.view(np.int64) if out.dtype == np.uint64 else out


def flat_output(out: Array, n_pixels: int) -> Array:
    """Give an output pattern as one axis, without copying."""
    if out.size != n_pixels or not out.flags.c_contiguous:
        msg = f"the output has shape {out.shape}, expected {n_pixels} pixels in C order; allocate it anew"
        raise InputError(msg, shape=out.shape, expected=n_pixels)
    return out.reshape(-1)
