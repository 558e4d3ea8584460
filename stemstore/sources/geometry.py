"""Scan geometry as readers state it: scan shapes, flyback columns, flat positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources.contract import MISSING, VALID

if TYPE_CHECKING:
    from collections.abc import Sequence

ValidityArray: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
"""State of every frame: `MISSING`, `PARTIAL` or `VALID`."""

MAX_ALTERNATIVES = 32
"""Scan shapes offered for a flat stack; a number with more divisors than this tells nothing."""

MAX_MISSING = 2**26
"""Positions that a scan may have without a frame; a senseless scan size would otherwise fill the memory."""


COUNTED_ITEMSIZE = 2
"""Bytes of a pixel of the frames that electron events were counted in, where these are not there to tell."""


def raw_bytes(shape: Sequence[int], dtype: Any = None) -> int:
    """Bytes of all pixels of a scan as a detector writes them; without a type those of electron events."""
    return math.prod(shape) * (COUNTED_ITEMSIZE if dtype is None else np.dtype(dtype).itemsize)


def shape_option(name: str, value: object, lengths: Sequence[int]) -> tuple[int, ...]:
    """Check an option that is a shape.

    Parameters
    ----------
    name
        Name of the option, for the message.
    value
        What the user gave.
    lengths
        Numbers of extents that are allowed.

    Raises
    ------
    InputError
        Not a sequence of positive whole numbers of an allowed length.
    """
    expected = " or ".join(str(length) for length in lengths)
    extents = tuple(value) if isinstance(value, (list, tuple)) else ()
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in extents)
    if whole and len(extents) in lengths:
        return extents
    msg = f"option {name}={value!r} is not a shape; expected {expected} whole numbers above zero, slow axis first"
    raise InputError(msg, key=name, found=value)


def factor_pairs(n_frames: int) -> list[tuple[int, ...]]:
    """List the scan shapes ``(y, x)`` of `n_frames` positions, the squarest first, lines left out."""
    pairs: list[tuple[int, ...]] = []
    for small in range(math.isqrt(n_frames), 1, -1):
        if n_frames % small == 0:
            large = n_frames // small
            pairs.extend([(small, large)] if small == large else [(small, large), (large, small)])
        if len(pairs) >= MAX_ALTERNATIVES:
            break
    return pairs[:MAX_ALTERNATIVES]


def decide_flyback(option: int | None, ny: int, nx: int) -> tuple[int, list[str]]:
    """Decide how many columns at the end of each scan row were taken while the beam flew back.

    A scan that is exactly one column wider than high is guessed to carry one flyback column, and the guess is reported;
    every other scan has none unless the user says so.

    Parameters
    ----------
    option
        What the user stated; None where nothing was.
    ny, nx
        Rows and columns of the scan, flyback included.

    Returns
    -------
    columns, warnings

    Raises
    ------
    InputError
        The number is negative or leaves no column.
    """
    if option is None:
        if nx != ny + 1 or ny < 2:  # noqa: PLR2004 (a single row of two positions is a line, not a square with flyback)
            return 0, []
        text = (
            f"the scan has {ny} rows and {nx} columns; the last column is guessed to be flyback, "
            "pass flyback_columns=0 or flyback_columns=1 to settle it"
        )
        return 1, [text]
    if isinstance(option, bool) or not isinstance(option, int) or not 0 <= option < nx:
        msg = f"option flyback_columns={option!r} does not fit a scan of {nx} columns; expected 0 to {nx - 1}"
        raise InputError(msg, key="flyback_columns", found=option)
    return option, []


def flyback_of(option: int | None, scan_shape: tuple[int, ...]) -> tuple[int, list[str]]:
    """Decide the flyback columns of a scan, or of a flat stack, which has none.

    Returns
    -------
    columns, warnings
        As for `decide_flyback`.

    Raises
    ------
    InputError
        The number does not fit, or columns are stated of a stack.
    """
    if len(scan_shape) > 1:
        return decide_flyback(option, *scan_shape[-2:])
    if option:
        msg = f"option flyback_columns={option!r} needs a scan, but its shape is not known; state scan_shape too"
        raise InputError(msg, key="flyback_columns", found=option)
    return 0, []


def check_range(start: int, stop: int, n_positions: int) -> None:
    """Refuse a range of flat positions that leaves the scan.

    Raises
    ------
    IndexError
        Unless ``0 <= start <= stop <= n_positions``.
    """
    if not 0 <= start <= stop <= n_positions:
        msg = f"frames {start}..{stop} leave the scan of {n_positions} positions"
        raise IndexError(msg)


def check_missing(scan_shape: tuple[int, ...], n_frames: int) -> None:
    """Refuse a scan of which next to nothing was recorded.

    Raises
    ------
    CorruptDataError
        More than `MAX_MISSING` positions have no frame.
    """
    n_positions = math.prod(scan_shape)
    if n_positions - n_frames > MAX_MISSING:
        msg = (
            f"a scan {scan_shape} of {n_positions} positions is stated, but only {n_frames} frames were found; "
            "the header or the option is wrong, state the scan that was taken"
        )
        raise CorruptDataError(msg, found=n_frames, expected=n_positions)


def fit_scan(
    scan_shape: tuple[int, ...] | None, n_frames: int
) -> tuple[tuple[int, ...], ValidityArray | None, list[str]]:
    """Fit a scan shape to the frames that were found.

    Without a scan shape the frames stay a flat stack; nothing is guessed. A scan larger than the data ends in missing
    frames, a smaller one ignores the rest; both are reported.

    Returns
    -------
    scan_shape, validity, warnings
        `validity` is None when every position has its frame.

    Raises
    ------
    CorruptDataError
        As for `check_missing`.
    """
    if scan_shape is None:
        return (n_frames,), None, []
    n_positions = math.prod(scan_shape)
    if n_positions == n_frames:
        return scan_shape, None, []
    if n_positions < n_frames:
        text = f"{n_frames} frames were found, the scan {scan_shape} takes {n_positions}; the last ones are ignored"
        return scan_shape, None, [text]
    check_missing(scan_shape, n_frames)
    validity = np.full(n_positions, MISSING, dtype=np.uint8)
    validity[:n_frames] = VALID
    text = f"{n_frames} frames were found, the scan {scan_shape} needs {n_positions}; the last ones are marked missing"
    return scan_shape, validity, [text]


def place_frames(scan_shape: tuple[int, ...], n_frames: int, offset: int) -> tuple[ValidityArray | None, list[str]]:
    """Lay out the frames over a scan, `offset` of them skipped at the start.

    Returns
    -------
    validity, warnings

    Raises
    ------
    InputError
        Nothing would be left.
    CorruptDataError
        As for `check_missing`.
    """
    if not -n_frames < offset < n_frames:
        msg = f"option sync_offset={offset} leaves none of {n_frames} frames; expected less than {n_frames} either way"
        raise InputError(msg, key="sync_offset", found=offset)
    n_positions = math.prod(scan_shape)
    check_missing(scan_shape, n_frames)
    numbers = {
        "frames skipped at the start": max(offset, 0),
        "positions without a frame at the start": min(max(-offset, 0), n_positions),
        "frames ignored at the end": max(n_frames - offset - n_positions, 0),
        "positions without a frame at the end": max(n_positions + offset - n_frames, 0),
    }
    found = [f"{number} {text}" for text, number in numbers.items() if number]
    notes = [f"{n_frames} frames were found for {n_positions} positions: {', '.join(found)}"] if found else []
    frame = np.arange(n_positions) + offset
    inside = (frame >= 0) & (frame < n_frames)
    return None if inside.all() else np.where(inside, VALID, MISSING).astype(np.uint8), notes
