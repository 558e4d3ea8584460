"""Compiled loops of the detector model: disks on pixels, charge sharing, and noise for every pixel.

The noise of a frame needs one normal number a pixel. It comes from a counter (SplitMix64: Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators") cut into four 16-bit lanes, each of which looks up a quantile of the
normal distribution. The outer 16 lanes of 65536 on either side are refined by 12 further bits, so that tails are right
beyond five sigma, where counting thresholds lie.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray, UInt16Array

LANES = 65536
TAIL_LANES = 16
TAIL_STEPS = 4096
GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64: increment and the two multipliers of its finaliser
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
SUBSAMPLES = 4  # points per pixel and axis across the edge of a disk: area error below 1e-4 at radius 32


@lru_cache(maxsize=1)
def normal_tables() -> tuple[Array, Array]:
    """Tabulate normal quantiles: at the middle of every lane, and finely below the lowest `TAIL_LANES` lanes.

    Returns
    -------
    lanes : shape (65536,), float32
    tail : shape (16 * 4096,), float32
    """
    from scipy.special import ndtri

    lanes = ndtri((np.arange(LANES) + 0.5) / LANES).astype(np.float32)
    n_tail = TAIL_LANES * TAIL_STEPS
    tail = ndtri((np.arange(n_tail) + 0.5) / (LANES * TAIL_STEPS)).astype(np.float32)
    return lanes, tail


@numba.njit(nogil=True, cache=True, inline="always")
def _mix(state: np.uint64) -> np.uint64:
    z = (state ^ (state >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return z ^ (z >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _tail_value(lane: np.uint64, state: np.uint64, tail: Array) -> np.float32:
    """Refine a lane of the outer tails with twelve fresh bits."""
    step = np.int64(_mix(state) & np.uint64(TAIL_STEPS - 1))
    low = np.int64(lane)
    if low < TAIL_LANES:
        return tail[low * TAIL_STEPS + step]
    return -tail[(LANES - 1 - low) * TAIL_STEPS + step]


@numba.njit(nogil=True, cache=True)
def _normals(out: Array, state: np.uint64, lanes: Array, tail: Array) -> np.uint64:
    """Fill a row with standard normal numbers; gives the advanced state."""
    n = out.size
    for first in range(0, n, 4):
        state += GAMMA
        bits = _mix(state)
        for j in range(min(4, n - first)):
            lane = bits & np.uint64(0xFFFF)
            bits >>= np.uint64(16)
            value = lanes[np.int64(lane)]
            if lane < np.uint64(TAIL_LANES) or lane >= np.uint64(LANES - TAIL_LANES):
                value = _tail_value(lane, ~state + np.uint64(j), tail)
            out[first + j] = value
    return state


@numba.njit(nogil=True, cache=True)
def expose(
    signal: Array,
    pedestal: Array,
    noise: float,
    saturation: int,
    seed: np.uint64,
    tables: tuple[Array, Array],
    out: UInt16Array,
) -> None:
    """Read out one frame: pedestal + signal + noise, rounded and clipped.

    Parameters
    ----------
    signal : shape (ky, kx), ADU
        Charge deposited by electrons and X-rays, and offsets of the frame.
    pedestal : shape (ky, kx), ADU
    noise : ADU
        Standard deviation of the read noise before rounding.
    saturation : ADU
        Largest value of a pixel.
    seed
        State of the frame's generator.
    tables
        Of `normal_tables`.
    out : shape (ky, kx)
        The frame.
    """
    n_rows, n_columns = out.shape
    lanes, tail = tables
    row = np.empty(n_columns, np.float32)
    scale, half, top = np.float32(noise), np.float32(0.5), np.float32(saturation)
    state = _mix(seed + GAMMA)
    for r in range(n_rows):
        state = _normals(row, state, lanes, tail)
        for c in range(n_columns):
            value = pedestal[r, c] + signal[r, c] + scale * row[c] + half  # truncation below becomes rounding
            out[r, c] = np.uint16(min(max(value, np.float32(0.0)), top))


@numba.njit(nogil=True, cache=True)
def share_charge(signal: Array, positions: FloatArray, energies: FloatArray, gain: Array, width: float) -> None:
    """Spread each deposit over the 3 x 3 pixels around its entry point.

    Parameters
    ----------
    signal : shape (ky, kx), ADU
        Added to.
    positions : shape (m, 2), pixel
        Entry points (row, column); pixel i reaches from i - 1/2 to i + 1/2.
    energies : shape (m,), ADU
    gain : shape (ky, kx)
        Factor of each pixel.
    width : pixel
        Standard deviation of the charge cloud.
    """
    n_rows, n_columns = signal.shape
    inverse = 1.0 / (width * math.sqrt(2.0))
    share = np.empty((2, 3))
    for i in range(energies.size):
        row = math.floor(positions[i, 0] + 0.5)
        column = math.floor(positions[i, 1] + 0.5)
        for axis in range(2):
            entry = positions[i, axis] - (row if axis == 0 else column)
            low = math.erf((-1.5 - entry) * inverse)
            for j in range(3):
                high = math.erf((j - 0.5 - entry) * inverse)
                share[axis, j] = 0.5 * (high - low)
                low = high
        for dr in range(-1, 2):
            for dc in range(-1, 2):
                r, c = row + dr, column + dc
                if 0 <= r < n_rows and 0 <= c < n_columns:
                    signal[r, c] += energies[i] * share[0, dr + 1] * share[1, dc + 1] * gain[r, c]


@numba.njit(nogil=True, cache=True)
def add_disk(out: FloatArray, centre: tuple[float, float], radius: float, edge: float, density: float) -> None:
    """Add a disk whose density falls linearly to zero across its edge, integrated over pixels.

    Parameters
    ----------
    out : shape (ky, kx)
        Added to; what lies outside is lost.
    centre : pixel
        Row and column.
    radius, edge : pixel
        Radius of half density, and width of the fall.
    density
        Value per pixel inside the disk.
    """
    n_rows, n_columns = out.shape
    row, column = centre
    reach = radius + 0.5 * edge + 1.0
    inner = max(radius - 0.5 * edge - 0.75, 0.0)  # 0.75 > half a pixel's diagonal
    for r in range(max(math.ceil(row - reach), 0), min(math.floor(row + reach) + 1, n_rows)):
        for c in range(max(math.ceil(column - reach), 0), min(math.floor(column + reach) + 1, n_columns)):
            square = (r - row) ** 2 + (c - column) ** 2
            if square <= inner**2:
                out[r, c] += density
            elif square < reach**2:
                out[r, c] += density * _edge_share(r - row, c - column, radius, edge)


@numba.njit(nogil=True, cache=True)
def _edge_share(dr: float, dc: float, radius: float, edge: float) -> float:
    """Average the edge profile over one pixel."""
    total = 0.0
    for i in range(SUBSAMPLES):
        y = dr + (i + 0.5) / SUBSAMPLES - 0.5
        for j in range(SUBSAMPLES):
            x = dc + (j + 0.5) / SUBSAMPLES - 0.5
            total += min(max((radius - math.sqrt(y * y + x * x)) / edge + 0.5, 0.0), 1.0)
    return total / SUBSAMPLES**2
