"""Taking electrons out of frames by chance, with random numbers that belong to the electrons.

Every electron has a number of its own: a hash of a key, of its frame, and of its ordinal among the electrons of that
frame (by pixel, first to last; electrons in one pixel are alike). So the same electrons are kept whatever is read
together, by however many threads, and however the scan is stored. An electron is kept where its number lies in an
interval; a wider interval keeps the same ones and more.

The numbers are those of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), started anew for every frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import check_local, frozen, pixels_of
from stemstore.kernels.gaps import ESCAPE, check_block

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array

BITS = 53
"""Bits of a number: as many as a fraction has."""

MOST = 2**24
"""Electrons in one pixel of a dense frame above which the pixel must be broken: each of them takes its turn."""

_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Chance(NamedTuple):
    """Which electrons are kept: those whose number under `key` lies in ``[low, high)``, of 2^53."""

    key: int
    low: int
    high: int

    @classmethod
    def of(cls, seed: int, level: int, begin: float, end: float) -> Chance:
        """Keep the share of electrons between two fractions; other levels of a seed have numbers of their own."""
        word = _mixed_int(_mixed_int((seed + _GOLDEN) % _WORD) + (level + 1) * _GOLDEN)
        return cls(word, int(begin * 2**BITS), int(end * 2**BITS))

    def arguments(self) -> Array:
        """Key, lower end and length of the interval for compiled code."""
        return np.array([self.key, self.low, self.high - self.low], np.uint64)


def thin_events(
    gap: UInt16Array, offsets: Int64Array, local: Int64Array, numbers: Int64Array, n_pixels: int, chance: Chance
) -> tuple[UInt16Array, Int64Array]:
    """Make a block of the electrons that are kept of frames ``local[i]``.

    Parameters
    ----------
    gap : shape (s,), uint16
    offsets : shape (n + 1,)
        Frame f owns the slots ``gap[offsets[f]:offsets[f + 1]]``.
    local, numbers : shape (m,)
        Frames of the block, and the numbers that tell each of them from all others of the scan.
    n_pixels
        Pixels of the detector.
    chance
        Which electrons are kept.

    Returns
    -------
    gap : shape (t,), uint16
    offsets : shape (m + 1,)
        Of the kept electrons, frame by frame in the order of `local`; never more slots than before.

    Raises
    ------
    InputError
        Frames that the block does not have.
    CorruptDataError
        A frame has events outside the detector.
    """
    gap, offsets, local = check_block(gap, offsets, local, n_pixels)
    frames = frozen(np.asarray(numbers, np.int64))
    out = np.empty(int((offsets[local + 1] - offsets[local]).sum()), np.uint16)
    ends = np.zeros(len(local) + 1, np.int64)
    n = _thin_events(gap, offsets, local, frames, chance.arguments(), out, ends)
    return out[:n], ends


def thin_frames(block: Array, local: Int64Array, numbers: Int64Array, chance: Chance) -> Array:
    """Give frames ``block[local[i]]`` with the electrons that are kept; pixels are numbers of electrons.

    Parameters
    ----------
    block : shape (n, ky, kx), integer
    local, numbers, chance
        As in `thin_events`; the same electrons are kept as of the same frames stored as events.

    Returns
    -------
    frames : shape (m, ky, kx), dtype of `block`

    Raises
    ------
    InputError
        Frames that the block does not have, or a pixel that holds no number of electrons (negative, or beyond 2^24).
    """
    if block.dtype.kind not in "ui":
        msg = f"frames of {block.dtype} hold no numbers of electrons; give integer frames"
        raise InputError(msg, dtype=str(block.dtype))
    pixels = pixels_of(block, exact=True)
    local = check_local(local, len(pixels))
    out = np.zeros((len(local), pixels.shape[1]), pixels.dtype)
    frames = frozen(np.asarray(numbers, np.int64))
    wrong = int(_thin_frames(pixels, local, frames, chance.arguments(), out))
    if wrong >= 0:
        frame, pixel = divmod(wrong, pixels.shape[1])
        found = int(pixels[local[frame], pixel])
        msg = (
            f"pixel {pixel} of frame {int(frames[frame])} holds {found}, no number of electrons (0 to {MOST}); "
            "only frames of counting detectors can be thinned"
        )
        raise InputError(msg, frame=int(frames[frame]), pixel=pixel, found=found)
    return out.reshape(-1, *block.shape[1:])


def _mixed_int(word: int) -> int:
    """Mix the bits of a word as `_mixed` does, in Python."""
    word %= _WORD
    word = (word ^ word >> 30) * _FIRST % _WORD
    word = (word ^ word >> 27) * _SECOND % _WORD
    return word ^ word >> 31


@numba.njit(nogil=True, cache=True, inline="always")
def _mixed(word):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_FIRST)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_SECOND)
    return word ^ (word >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _thin_events(gap, offsets, local, frames, chance, out, ends):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    key, low, span = chance[0], chance[1], chance[2]
    step, n = np.uint64(_GOLDEN), 0
    for i in range(local.size):
        part = gap[offsets[local[i]] : offsets[local[i] + 1]]
        state = _mixed(key + np.uint64(frames[i]) * step)
        distance = np.int64(0)  # from the electron that was kept last
        for k in range(part.size):
            distance += part[k]
            if part[k] != ESCAPE:
                state += step
                kept = (_mixed(state) >> np.uint64(11)) - low < span
                if distance < ESCAPE:  # written in any case and overwritten unless kept: chance cannot be foretold
                    out[n] = distance
                    n += kept
                    distance = np.int64(0) if kept else distance
                elif kept:
                    while distance >= ESCAPE:
                        out[n] = ESCAPE
                        n += 1
                        distance -= ESCAPE
                    out[n] = distance
                    n += 1
                    distance = np.int64(0)
        ends[i + 1] = n
    return n


@numba.njit(nogil=True, cache=True)
def _thin_frames(pixels, local, frames, chance, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    key, low, span = chance[0], chance[1], chance[2]
    step = np.uint64(_GOLDEN)
    for i in range(local.size):
        frame = pixels[local[i]]
        state = _mixed(key + np.uint64(frames[i]) * step)
        for p in range(frame.size):
            if frame[p] < 0 or frame[p] > MOST:
                return i * frame.size + p
            kept = np.int64(0)
            for _ in range(np.int64(frame[p])):
                state += step
                kept += (_mixed(state) >> np.uint64(11)) - low < span
            out[i, p] = kept
    return -1
