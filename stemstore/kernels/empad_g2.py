"""Words of the EMPAD-G2 as intensities: 14 analogue bits, 16 counter bits and a gain bit become one number.

==========  ==========================================
bits        meaning
==========  ==========================================
0-13        analogue value a
14-29       digital counter d
30          unused
31          gain g of the analogue value
==========  ==========================================

``I = a (1 - g) + (c0 + c1 a + c2 a²) g + c3 d + c4`` with one set of coefficients per pixel for even and one for odd
columns of the scan, because the detector integrates on two banks in turn. Formulas: sezelt/empad2; H. T. Philipp et
al., Microsc. Microanal. 28, 425 (2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array, FloatArray

N_COEFFICIENTS = 5

EDGE, WIDTH, BINS = -205.0, 10.0, 42
"""First edge, bin width and number of bins of the histogram in which the offset of a frame is looked for."""

REACH = 5
"""Bins below the fullest one that take part in the fit of its place; one less above."""

_PLACES = np.arange(-REACH, REACH, dtype=np.float64)
_FIT = np.linalg.pinv(np.stack([_PLACES**2, _PLACES, np.ones_like(_PLACES)], axis=1))
"""Least squares: quadratic, linear and constant coefficient from the counts of the bins around the fullest one."""


@numba.njit(nogil=True, cache=True)
def decode(words: Array, columns: Array, coefficients: FloatArray, out: Array) -> None:  # pragma: no cover (compiled)
    """Turn words into intensities.

    Parameters
    ----------
    words : shape (n, p), uint32
        Pixels of the frames.
    columns : shape (n,)
        Column of the scan of every frame; its parity chooses the bank.
    coefficients : shape (2, p, 5), float64
        c0 to c4 per bank and pixel.
    out : shape (n, p), float32
        Filled.

    Notes
    -----
    Worked out in 64-bit floats: the two large terms of a pixel with gain nearly cancel.
    """
    for frame in range(words.shape[0]):
        bank = coefficients[columns[frame] & 1]
        for pixel in range(words.shape[1]):
            word = words[frame, pixel]
            analogue = np.float64(word & np.uint32(0x3FFF))
            digital = np.float64((word >> np.uint32(14)) & np.uint32(0xFFFF))
            c = bank[pixel]
            value = analogue
            if word >> np.uint32(31):
                value = c[0] + (c[1] + c[2] * analogue) * analogue
            out[frame, pixel] = value + c[3] * digital + c[4]


def correct(frames: Array, columns: Array, background: FloatArray, flat_field: FloatArray) -> None:
    """Subtract the background and the offset of every frame, then multiply by the flat field, in place.

    Parameters
    ----------
    frames : shape (n, p), float32
        Intensities.
    columns : shape (n,)
        Column of the scan of every frame.
    background, flat_field : shape (2, p)
        For even and for odd columns.
    """
    for frame, column in zip(frames, columns, strict=True):
        np.subtract(frame, background[column % 2], out=frame)
        np.subtract(frame, frame_offset(frame), out=frame)
        np.multiply(frame, flat_field[column % 2], out=frame)


def frame_offset(frame: Array) -> float:
    """Find where the intensities of empty pixels lie: the vertex of a parabola through the top of the histogram.

    Returns
    -------
    offset
        0 where the fullest bin lies at an end of the histogram, or the vertex away from it.

    Notes
    -----
    The fit takes one bin more below the peak than above, as in sezelt/empad2, so that offsets agree with those found
    there; for noise of 15 units the offset comes out about 2 units low.
    """
    counts, _ = np.histogram(frame, BINS, (EDGE, EDGE + BINS * WIDTH))
    fullest = int(counts.argmax())
    if not REACH <= fullest < BINS - REACH:
        return 0.0
    square, slope, _ = _FIT @ counts[fullest - REACH : fullest + REACH]
    vertex = -slope / (2 * square) if square else np.inf
    if not abs(vertex) < REACH:
        return 0.0
    return float(EDGE + WIDTH * (fullest + 0.5 + vertex))
