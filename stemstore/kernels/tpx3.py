"""Packets of the Timepix3 chip: chunks of 64-bit words become hits, trigger edges, and places in a scan.

=======  ==================================================================================================
bits     pixel packet (top nibble B)
=======  ==================================================================================================
44-59    address: column = (a & 0xFE00) >> 8 | (a & 7) >> 2, row = (a & 0x01F8) >> 1 | a & 3
30-43    time of arrival, 25 ns
20-29    time over threshold, 25 ns
16-19    fine time, 1.5625 ns, counted backwards
0-15     time of the read-out board, 2^14 of 25 ns
=======  ==================================================================================================

=======  ==================================================================================================
bits     trigger packet (top nibble 6)
=======  ==================================================================================================
56-59    F input 1 rising, A input 1 falling, E input 2 rising, B input 2 falling
44-55    number of the edge, rising and falling counted together
9-43     time, 3.125 ns
5-8      fine time 1 to 12, 3.125 / 12 ns; 0 is an error
=======  ==================================================================================================

All times are whole numbers of `UNIT`. Pixel times wrap after 26.8 s, trigger and global times (nibble 4) after 107 s;
both are continued from the packet before. Sources: T. Poikela et al., JINST 9, C05013 (2014); NSLS-II/tpx3awkward;
LiberTEM/LiberTEM-rs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array

UNIT = 25e-9 / 96
"""Unit of all times in s: the fine step of a trigger, of which six are the fine step of a hit."""

COARSE = 96
"""Units of one clock cycle, 25 ns."""

FINE_STEPS = 12
"""Fine steps of a trigger in 3.125 ns."""

SIDE = 256
"""Rows and columns of a chip."""

MAGIC = 0x33585054
"""``TPX3``, the low half of the word in front of each chunk."""

HIT, SEQUENTIAL, TRIGGER, GLOBAL = 0xB, 0xA, 0x6, 0x4
N_COUNTS = 18
CHUNKS, FINE_ERRORS = 16, 17
"""Counts of `index`: one per nibble of payload words, then two more."""

NOWHERE = 0xFFFFFFFF
"""Pixel of an address that lies on no part of the detector."""

_HALF_30, _WRAP_30, _HALF_32, _WRAP_32 = 2**29, 2**30, 2**31, 2**32

int64: Any = np.int64  # the compiler's own names, without the types that are checked in plain code
uint64: Any = np.uint64


@numba.njit(nogil=True, cache=True)
def find_chunks(
    words: Array, left: Any, chip: Any, behind: int, chunks: Int64Array
) -> Any:  # pragma: no cover (compiled)
    """Walk from chunk to chunk; where a length cannot be, go on at the next word that begins one.

    Parameters
    ----------
    words : shape (n,), uint64
        A piece of the stream.
    left, chip
        Payload words that the piece before left over, and their chip.
    behind
        Words of the file behind this piece.
    chunks : shape (n + 1, 3)
        Filled: first word, one past the last, chip.

    Returns
    -------
    n_chunks, left, chip, lost, short
        `lost` words belong to no chunk; `short` words are missing from a chunk at the end of the file.
    """
    n, at, found, lost, short = len(words), 0, 0, 0, 0
    while at < n:
        if left == 0:
            word = words[at]
            size = int64(word >> uint64(48))
            at += 1
            if (word & uint64(0xFFFFFFFF)) != uint64(MAGIC) or size % 8:
                lost += 1
                continue
            left, chip = size // 8, int64((word >> uint64(32)) & uint64(0xFF))
        stop = min(at + left, n)
        if at + left > n + behind:
            for i in range(at, stop):
                begins = (words[i] & uint64(0xFFFFFFFFFFFF)) >> uint64(40) == 0
                if begins and (words[i] & uint64(0xFFFFFFFF)) == uint64(MAGIC):
                    stop, left = i, i - at
                    break
            short = left - (stop - at) if behind == 0 else 0
        chunks[found, 0], chunks[found, 1], chunks[found, 2] = at, stop, chip
        found += 1
        left -= stop - at
        at = stop
        if short:
            left = 0
    return found, left, chip, lost, short


@numba.njit(nogil=True, cache=True)
def decode(words: Array, chunks: Int64Array, hits: Int64Array) -> int:  # pragma: no cover (compiled)
    """Write the hits of chunks as a table.

    Parameters
    ----------
    words : shape (n,), uint64
    chunks : shape (c, 3)
        As `find_chunks` fills them.
    hits : shape (n, 5)
        Filled: chip, column and row on the chip, time over threshold (25 ns), time (1.5625 ns, not continued).

    Returns
    -------
    n_hits
    """
    n_hits = 0
    for c in range(len(chunks)):
        for i in range(chunks[c, 0], chunks[c, 1]):
            word = words[i]
            if word >> uint64(60) != uint64(HIT):
                continue
            low = int64(word & uint64(0xFFFFFFFFFFF))
            address = int64((word >> uint64(44)) & uint64(0xFFFF))
            clock = ((low & 0xFFFF) << 14) | (low >> 30)
            hits[n_hits, 0] = chunks[c, 2]
            hits[n_hits, 1] = (address & 0xFE00) >> 8 | (address & 7) >> 2
            hits[n_hits, 2] = (address & 0x01F8) >> 1 | (address & 3)
            hits[n_hits, 3] = (low >> 20) & 0x3FF
            hits[n_hits, 4] = (clock << 4) - ((low >> 16) & 0xF)
            n_hits += 1
    return n_hits


@numba.njit(nogil=True, cache=True)
def first_clock(words: Array, chunks: Int64Array) -> Any:  # pragma: no cover (compiled)
    """Find a first time to continue from.

    Returns
    -------
    quality, clock
        Quality 2: of a trigger or global time (25 ns, 32 bits); 1: of a hit (30 bits); 0: none.
    """
    quality = 0
    clock: Any = 0
    for c in range(len(chunks)):
        for i in range(chunks[c, 0], chunks[c, 1]):
            word = words[i]
            kind = word >> uint64(60)
            if kind == uint64(TRIGGER):
                return 2, int64((word >> uint64(12)) & uint64(0xFFFFFFFF))
            if word >> uint64(56) == uint64(0x44):
                return 2, int64((word >> uint64(16)) & uint64(0xFFFFFFFF))
            if kind == uint64(HIT) and quality == 0:
                low = int64(word & uint64(0xFFFFFFFFFFF))
                quality, clock = 1, ((low & 0xFFFF) << 14) | (low >> 30)
    return quality, clock


@numba.njit(nogil=True, cache=True)
def _continued(raw: Any, clock: Any, wrap: int, half: int) -> Any:  # pragma: no cover (compiled)
    """Continue a wrapped counter from the clock: the value of that remainder which is nearest."""
    step = (raw - clock) & (wrap - 1)
    return clock + step - (wrap if step >= half else 0)


@numba.njit(nogil=True, cache=True)
def _other_clock(word: Any, clock: Any) -> Any:  # pragma: no cover (compiled)
    """Clock after a packet that is no hit."""
    if word >> uint64(60) == uint64(TRIGGER):
        return _continued(int64((word >> uint64(12)) & uint64(0xFFFFFFFF)), clock, _WRAP_32, _HALF_32)
    if word >> uint64(56) == uint64(0x44):
        return _continued(int64((word >> uint64(16)) & uint64(0xFFFFFFFF)), clock, _WRAP_32, _HALF_32)
    return clock


@numba.njit(nogil=True, cache=True)
def index(
    words: Array, chunks: Int64Array, clock: Any, counts: Int64Array, edges: Int64Array
) -> Any:  # pragma: no cover (compiled)
    """Find the trigger edges of chunks, the range of times of their hits, and count what there is.

    Parameters
    ----------
    words, chunks
        As for `decode`.
    clock : unit 25 ns
        Time reached before.
    counts : shape (18,)
        Added to: packets by nibble, chunks, trigger edges with an impossible fine time.
    edges : shape (n, 3)
        Filled: kind (bits 56-59), number, time (`UNIT`).

    Returns
    -------
    n_edges, clock, earliest, latest
        The last two in `UNIT`, of hits; earliest exceeds latest where there are none.
    """
    n_edges = 0
    earliest: Any = int64(2**62)
    latest: Any = int64(-(2**62))
    for c in range(len(chunks)):
        counts[CHUNKS] += 1
        for i in range(chunks[c, 0], chunks[c, 1]):
            word = words[i]
            kind = int64(word >> uint64(60))
            counts[kind] += 1
            if kind == HIT:
                low = int64(word & uint64(0xFFFFFFFFFFF))
                clock = _continued(((low & 0xFFFF) << 14) | (low >> 30), clock, _WRAP_30, _HALF_30)
                time = clock * COARSE - 6 * ((low >> 16) & 0xF)
                earliest, latest = min(earliest, time), max(latest, time)
                continue
            clock = _other_clock(word, clock)
            if kind == TRIGGER:
                fine = int64((word >> uint64(5)) & uint64(0xF))
                counts[FINE_ERRORS] += not 1 <= fine <= FINE_STEPS
                edges[n_edges, 0] = int64((word >> uint64(56)) & uint64(0xF))
                edges[n_edges, 1] = int64((word >> uint64(44)) & uint64(0xFFF))
                eighth = int64((word >> uint64(9)) & uint64(7))
                edges[n_edges, 2] = clock * COARSE + FINE_STEPS * eighth + min(max(fine, 1), FINE_STEPS) - 1
                n_edges += 1
    return n_edges, clock, earliest, latest


@numba.njit(nogil=True, cache=True)
def locate(time: Any, edge: Any, edges: Int64Array, raster: Any) -> Any:  # pragma: no cover (compiled)
    """Find the place of a time in the scan.

    Parameters
    ----------
    time
        In `UNIT`.
    edge
        Index of the edge before the last time that was located; a guess.
    edges, raster
        As for `assign`.

    Returns
    -------
    place, edge
        Flat position less the first one wanted, and the edge before the time. The place is -1 between lines, beyond
        the last column and outside of the wanted range.
    """
    n_lines, n_columns, line_time, dwell, first, last, _, _ = raster
    if time < edges[edge] or (edge + 1 < len(edges) and time >= edges[edge + 1]):
        edge = max(np.searchsorted(edges, time, side="right") - 1, 0)
    passed = np.float64(time - edges[edge])
    line = int64(passed / line_time) if n_lines > 1 else 0
    column = int64((passed - line * line_time) / dwell)
    position = (edge * n_lines + line) * n_columns + column
    if passed < 0 or line >= n_lines or column >= n_columns or position < first or position >= last:
        return -1, edge
    return position - first, edge


@numba.njit(nogil=True, cache=True)
def assign(
    words: Array, chunks: Int64Array, clock: Any, edges: Int64Array, raster: Any, pixels: Array, out: Any
) -> int:  # pragma: no cover (compiled)
    """Give hits their place in the scan.

    Parameters
    ----------
    words, chunks, clock
        As for `index`; the clock at the beginning of the words.
    edges : shape (e,)
        Times at which pixels, lines or frames of the scan begin, rising.
    raster : tuple of eight numbers
        Lines and columns that belong to an edge, time of a line and of a pixel (float, `UNIT`), first and last + 1
        position wanted, time at which these begin and at which they end (`UNIT`).
    pixels : shape (chips, 65536), uint32
        Pixel of each address; `NOWHERE` for none.
    out : tuple of four arrays
        Filled: position less the first one wanted (uint32), pixel (uint32), time (int64, `UNIT`), time over threshold
        (uint16, 25 ns). All have room for every word, or the last two have no length and are left alone.

    Returns
    -------
    n_hits
        Hits between lines and beyond the last column are left out.
    """
    places, where, times, over = out
    edge, n_hits, timed = int64(0), 0, len(times) > 0
    for c in range(len(chunks)):
        chip = chunks[c, 2]
        for i in range(chunks[c, 0], chunks[c, 1]):
            word = words[i]
            if word >> uint64(60) != uint64(HIT):
                clock = _other_clock(word, clock)
                continue
            low = int64(word & uint64(0xFFFFFFFFFFF))
            clock = _continued(((low & 0xFFFF) << 14) | (low >> 30), clock, _WRAP_30, _HALF_30)
            time = clock * COARSE - 6 * ((low >> 16) & 0xF)
            if chip >= len(pixels) or time < raster[6] or time >= raster[7]:
                continue
            place, edge = locate(time, edge, edges, raster)
            pixel = pixels[chip, int64((word >> uint64(44)) & uint64(0xFFFF))]
            if place >= 0 and pixel != NOWHERE:
                places[n_hits], where[n_hits] = place, pixel
                if timed:
                    times[n_hits], over[n_hits] = time, (low >> 20) & 0x3FF
                n_hits += 1
    return n_hits


def pixel_table(places: list[tuple[int, int, int] | None], shape: tuple[int, int]) -> Array:
    """Tabulate the detector pixel of every address of every chip.

    Parameters
    ----------
    places
        Per chip the row and the column of its corner nearest to the origin, and by how many degrees (a multiple of
        90) it is turned, rows towards columns; None for a chip that is left out.
    shape
        Rows and columns of the detector.

    Returns
    -------
    pixels : shape (chips, 65536), uint32
    """
    address = np.arange(2**16)
    column, row = (address & 0xFE00) >> 8 | (address & 7) >> 2, (address & 0x01F8) >> 1 | (address & 3)
    table = np.full((len(places), 2**16), NOWHERE, np.uint32)
    for chip, place in enumerate(places):
        if place is None:
            continue
        r, c = row, column
        for _ in range(place[2] // 90 % 4):
            r, c = SIDE - 1 - c, r
        table[chip] = (place[0] + r) * shape[1] + place[1] + c
    return table
