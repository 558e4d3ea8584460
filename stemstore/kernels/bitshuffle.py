"""Chunks of HDF5's filters bitshuffle and LZ4, decoded without HDF5: no lock is held, and no plug-in is needed.

=======  ==================================================================
bytes    content of a chunk, big-endian
=======  ==================================================================
0-7      length of the decoded chunk
8-11     length of a decoded block
12-…     for each block its packed length (4 bytes) and its bytes; the last one may be shorter; then, as they
         are, the bytes of the elements beyond a multiple of eight (bitshuffle only)
=======  ==================================================================

Blosc packs the same blocks in the same way, with little-endian lengths and a table of where they begin. So every size
is checked, lengths are turned round and a table is written, for the whole blocks of many chunks at once and for their
shorter last ones; then the Blosc of numcodecs decodes them, which checks the packed bytes as well, uses the vector
instructions of the machine and works outside of the interpreter lock.

Sources: kiyo-masui/bitshuffle (``src/bshuf_h5filter.c``, ``src/bitshuffle.c``); HDFGroup/hdf5_plugins (``LZ4``);
Blosc/c-blosc (``README_CHUNK_FORMAT.rst``).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array

Packing = Literal["bitshuffle-lz4", "bitshuffle-zstd", "lz4"]

HEADER = 12
GROUP = 8
"""Elements that are shuffled together."""

_FRAME_HEADER = 16  # of Blosc
_WHOLE = 0x10  # blocks are not split into one stream per byte of the elements
_SHUFFLED = 0x04
_FLAGS: dict[Packing, int] = {
    "bitshuffle-lz4": 1 << 5 | _WHOLE | _SHUFFLED,
    "bitshuffle-zstd": 4 << 5 | _WHOLE | _SHUFFLED,
    "lz4": 1 << 5 | _WHOLE,
}

uint8: Any = np.uint8  # the compiler's own name, without the type that is checked in plain code


def room_for(packed: int) -> int:
    """Bytes that `unpack` needs in front of chunks of so many bytes together."""
    return 2 * _FRAME_HEADER + packed


def is_sound(chunk: Array, packing: Packing, itemsize: int, length: int) -> bool:
    """Whether the sizes in a chunk add up.

    Parameters
    ----------
    chunk : shape (n,), uint8
    packing, itemsize
        As for `unpack`.
    length : unit byte
        Of the decoded chunk.
    """
    ends = np.array([0]), np.array([len(chunk)])
    return bool(_block_size(chunk, *ends, length, _group(packing, itemsize)) > 0)


def unpack(buffer: Array, starts: Int64Array, stops: Int64Array, packing: Packing, itemsize: int, out: Array) -> bool:
    """Decode chunks; hostile bytes are found out and never lead beyond `buffer` and `out`.

    Parameters
    ----------
    buffer : uint8
        Holds the chunks, which are taken apart, and `room_for` them in front, which is overwritten.
    starts, stops : shape (n,)
        Where the chunks lie.
    packing
        Their filter.
    itemsize : unit byte
        Length of an element.
    out : shape (n, length), uint8
        Filled; C-contiguous, less than 682 MiB.

    Returns
    -------
    sound
        False where a chunk contradicts itself, does not decode to `length`, or has another length of blocks than the
        first; `out` is undefined then.

    Notes
    -----
    Memory: as much as `out` where several chunks end in a shorter block or in elements beyond a multiple of eight.
    """
    length, group = out.shape[1], _group(packing, itemsize)
    block = int(_block_size(buffer, starts, stops, length, group))
    if block == 0:
        return False
    n, body = len(starts), length - length % group
    n_whole, rest = divmod(body, block)
    frames = [(n * n_whole, block, 0), (n * (rest > 0), rest, n_whole * block)]
    tops, top = [], int(starts[0])
    for count, _, _ in frames:
        top -= _FRAME_HEADER + 4 * count
        tops.append(top)
    n_equal = _link(buffer, starts, block, n_whole, rest, np.array(tops), out)
    try:
        for top, (count, size, first) in zip(tops, frames, strict=True):
            if count:
                said = (2, 1, _FLAGS[packing], itemsize, count * size, size, len(buffer) - top)
                buffer[top : top + _FRAME_HEADER] = np.frombuffer(struct.pack("<4B3I", *said), np.uint8)
                if n_equal and packing != "lz4":
                    _store_equal(buffer[top:], packing, count, size)
                _decode(buffer[top:], out[:, first : first + count // n * size])
    except (RuntimeError, ValueError):
        return False
    return True


def _group(packing: Packing, itemsize: int) -> int:
    return 1 if packing == "lz4" else GROUP * itemsize


def _decode(frame: Array, target: Array) -> None:
    """Decode a frame of Blosc into a table whose rows may lie apart."""
    from numcodecs import blosc

    blosc.use_threads = False  # the pool of the global Blosc context would serialise our threads
    plain = target if target.flags.c_contiguous else np.empty(target.shape, np.uint8)
    blosc.decompress(frame, plain.reshape(-1))
    if plain is not target:
        target[...] = plain


def _store_equal(frame: Array, packing: Packing, count: int, size: int) -> None:
    """Replace packed blocks that are as long as what they decode to: Blosc takes such a block for one that is stored.

    Raises
    ------
    RuntimeError, ValueError
        A block does not decode.
    """
    from numcodecs import lz4, zstd

    table = frame[_FRAME_HEADER : _FRAME_HEADER + 4 * count]
    for at in np.frombuffer(table.tobytes(), "<u4").tolist():
        if int.from_bytes(frame[at : at + 4].tobytes(), "little") != size:
            continue
        packed, plain = frame[at : at + 4 + size], np.empty(size, np.uint8)
        if packing == "bitshuffle-lz4":
            lz4.decompress(packed, plain)  # numcodecs wants the decoded length in front, which is there: it is the same
        else:
            zstd.decompress(packed[4:], plain)
        packed[4:] = plain


@numba.njit(nogil=True, cache=True)
def _big(buffer, at, n):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    value = np.int64(0)
    for i in range(at, at + n):
        value = value << 8 | np.int64(buffer[i])
    return value


@numba.njit(nogil=True, cache=True)
def _put(buffer, at, value):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(4):
        buffer[at + i] = uint8(value >> (8 * i) & 0xFF)


@numba.njit(nogil=True, cache=True)
def _block_size(buffer, starts, stops, length, group):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Length of the blocks of all chunks; 0 where it differs, or where sizes do not add up."""
    left, size = length % group, np.int64(0)
    for chunk in range(len(starts)):
        at, stop = starts[chunk], stops[chunk]
        if stop - at < HEADER or _big(buffer, at, 8) != length:
            return 0
        block = _big(buffer, at + 8, 4)
        if chunk == 0:
            size = block
        if block != size or block == 0 or block % group:
            return 0
        at += HEADER
        for _ in range((length - left + block - 1) // block):
            packed = _big(buffer, at, 4) if at + 4 <= stop else stop
            if packed > stop - at - 4:
                return 0
            at += 4 + packed
        if at + left != stop:
            return 0
    return size


@numba.njit(nogil=True, cache=True)
def _link(buffer, starts, block, n_whole, rest, tops, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    """Write the tables of two frames, of whole blocks and of shorter ones, and the elements that are not packed.

    Gives the number of blocks that have the same length packed and decoded. All sizes were checked.
    """
    n_equal, body = 0, n_whole * block + rest
    for chunk in range(len(starts)):
        at = starts[chunk] + HEADER
        for number in range(n_whole + (rest > 0)):
            frame, entry = (0, chunk * n_whole + number) if number < n_whole else (1, chunk)
            packed = _big(buffer, at, 4)
            _put(buffer, at, packed)
            _put(buffer, tops[frame] + _FRAME_HEADER + 4 * entry, at - tops[frame])
            n_equal += packed == (block if number < n_whole else rest)
            at += 4 + packed
        for i in range(body, out.shape[1]):
            out[chunk, i] = buffer[at + i - body]
    return n_equal
