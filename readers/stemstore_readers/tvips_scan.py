"""Where the frames of a TVIPS recording lie in the scan, and what their headers say about the acquisition."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.geometry import check_missing, factor_pairs

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore_readers.tvips_headers import SeriesHeader
    from stemstore_schemas import SourceFile, SourceMetadata, ValueSource

Serpentine = Literal["odd", "even"]

IMAGE = 1
"""Mode of the frame header in which the magnification is one; 2 is diffraction."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the user states about the scan."""

    scan_shape: tuple[int, ...] | None = None
    sync_offset: int | None = None
    serpentine: Serpentine | None = None
    hysteresis: int = 0

    @property
    def settled(self) -> bool:
        """Whether the scan follows from these statements and the number of frames."""
        return self.scan_shape is not None and self.sync_offset is not None


@dataclass(frozen=True, slots=True)
class Placed:
    """The frame of every position (negative: none), and how that was found."""

    scan_shape: tuple[int, ...]
    frame_of: Int64Array
    n_frames: int
    sync_offset: int = 0
    source: ValueSource = "header"
    alternatives: list[tuple[int, ...]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def validity(self) -> ValidityArray | None:
        """State of every position; None where all have a frame."""
        present = self.frame_of >= 0
        return None if present.all() else np.where(present, VALID, MISSING).astype(np.uint8)


def lay_out(layout: Layout, frames: Array) -> Placed:
    """Find the scan: what the user states, else the scan fields, else the rotator index, else a flat stack.

    Parameters
    ----------
    layout
        The user's statements.
    frames : shape (n,)
        Frame headers; only their number counts where the user's statements settle the scan.

    Raises
    ------
    InputError
        The user's statements leave no frame, or a row option meets no rows.
    CorruptDataError
        Next to nothing of the scan was recorded.
    """
    n, offset = len(frames), layout.sync_offset
    points, found = (None, None) if layout.settled else (_rotator_points(frames), _scan_fields(frames))
    if layout.scan_shape is not None:
        if offset is None and points is not None and len(points) == math.prod(layout.scan_shape):
            placed = Placed(layout.scan_shape, points, n, max(int(points[0]), 0), "user")
        else:
            shift = offset if offset is not None else found[1] if found and layout.scan_shape[-1] == found[0][1] else 0
            placed = _in_order(layout.scan_shape, n, shift, "user")
    elif found is not None:
        placed = _in_order(found[0], n, found[1] if offset is None else offset, "header")
    elif points is not None and offset is None and math.isqrt(len(points)) ** 2 == len(points) > 1:
        placed = _guessed_square(points, n)
    else:
        placed = _stack(n, offset or 0)
    return _turned(_noted(placed), layout)


def _in_order(shape: tuple[int, ...], n: int, offset: int, source: ValueSource) -> Placed:
    if not -n < offset < n:
        msg = f"option sync_offset={offset} leaves none of {n} frames; expected less than {n} either way"
        raise InputError(msg, key="sync_offset", found=offset)
    check_missing(shape, n)
    frame_of = np.arange(math.prod(shape), dtype=np.int64) + offset
    return Placed(shape, np.where((frame_of >= 0) & (frame_of < n), frame_of, -1), n, offset, source)


def _stack(n: int, offset: int) -> Placed:
    placed = _in_order((max(n - offset, 1),), n, offset, "user")
    return Placed(placed.scan_shape, placed.frame_of, n, offset, "user", factor_pairs(n - offset))


def _guessed_square(points: Int64Array, n: int) -> Placed:
    side = math.isqrt(len(points))
    text = f"the rotator index counts {len(points)} scan points; the scan is guessed to be {side}x{side}"
    others = [shape for shape in factor_pairs(len(points)) if shape != (side, side)]
    note = f"{text}, pass scan_shape=(ny, nx) to settle it"
    return Placed((side, side), points, n, max(int(points[0]), 0), "guessed", others, [note])


def _scan_fields(frames: Array) -> tuple[tuple[int, int], int] | None:
    """Find shape and first frame of the scan in the fields scan_x and scan_y, which hold whole numbers as floats.

    The scan begins where (0, 0) is followed by (0, 1) along the row, and its rows end where scan_x falls.
    """
    if "scan_y" not in (frames.dtype.names or ()) or len(frames) < 2:  # noqa: PLR2004 (a step needs two frames)
        return None
    x, y = frames["scan_x"].astype(np.float64), frames["scan_y"].astype(np.float64)
    starts = np.flatnonzero((x[:-1] == 0) & (y[:-1] == 0) & (x[1:] == 1) & (y[1:] == 0))
    if not len(starts):
        return None
    first = int(starts[0])
    falls = np.flatnonzero(~(np.diff(x[first:]) >= 0))
    width = float(x[first : first + int(falls[0]) + 1 if len(falls) else len(x)].max()) + 1
    rows = math.ceil((len(frames) - first) / width) if 1 < width <= len(frames) else 0
    if not rows or width != int(width):
        return None
    last = np.nanmax(y[first:])
    height = int(min(last + 1, rows)) if last > 0 else rows
    return (height, int(width)), first


def _rotator_points(frames: Array) -> Int64Array | None:
    """Find the frame of each scan point by the rotator index, which goes up by one from point to point.

    Indices run from 1, with idle frames of index 0 before them, or from 0. A point without an index is -1; of a
    repeated index the first frame counts.
    """
    if "rotator" not in (frames.dtype.names or ()):
        return None
    index = frames["rotator"].astype(np.int64)
    ups = np.flatnonzero(np.diff(index) > 0)
    if not len(ups):
        return None
    first, last = int(ups[0]), int(ups[-1]) + 1
    least = 1
    if index[first] == 0:
        least = 0 if first == 0 and index[1] == 1 else 1
        first += least
    n_points = int(index[last]) + 1 - least
    inside = index[first : last + 1] - least
    if not 0 < n_points <= len(frames) or (inside < 0).any() or (inside >= n_points).any():
        return None
    points = np.full(n_points, -1, np.int64)
    points[inside[::-1]] = np.arange(last, first - 1, -1)
    return points


def _noted(placed: Placed) -> Placed:
    """Report positions without a frame, and frames without a position."""
    missing = int((placed.frame_of < 0).sum())
    unused = placed.n_frames - (len(placed.frame_of) - missing)
    texts = (f"{missing} positions have no frame and are marked missing", f"{unused} frames lie outside of the scan")
    notes = [text for number, text in zip((missing, unused), texts, strict=True) if number]
    if not notes:
        return placed
    text = f"{placed.n_frames} frames were found for a scan {placed.scan_shape}: {', '.join(notes)}"
    return replace(placed, warnings=[*placed.warnings, text])


def _turned(placed: Placed, layout: Layout) -> Placed:
    """Turn around the rows that were scanned backwards, and displace them."""
    if layout.serpentine is None:
        if layout.hysteresis:
            msg = (
                "option hysteresis displaces rows that were scanned backwards; pass serpentine='odd' or 'even' as well"
            )
            raise InputError(msg, key="hysteresis", found=layout.hysteresis)
        return placed
    columns = placed.scan_shape[-1]
    if len(placed.scan_shape) == 1 or abs(layout.hysteresis) >= columns:
        msg = (
            f"serpentine={layout.serpentine!r} with hysteresis={layout.hysteresis} does not fit the scan "
            f"{placed.scan_shape}; pass scan_shape=(ny, nx) with longer rows"
        )
        raise InputError(msg, key="serpentine", found=placed.scan_shape)
    rows = placed.frame_of.reshape(-1, placed.scan_shape[-2], columns).copy()
    first, shift = 1 if layout.serpentine == "odd" else 0, layout.hysteresis
    turned = np.full_like(rows[:, first::2], -1)
    source = rows[:, first::2, ::-1]
    turned[:, :, max(shift, 0) : columns + min(shift, 0)] = source[:, :, max(-shift, 0) : columns - max(shift, 0)]
    rows[:, first::2] = turned
    return replace(placed, frame_of=rows.reshape(-1))


def metadata_of(
    header: SeriesHeader, frames: Array, placed: Placed, files: list[SourceFile], warnings: list[str]
) -> SourceMetadata:
    """Bring headers and scan to the schema; pixel size and camera length, of unsettled units, stay in `vendor`."""
    from stemstore_schemas import Acquisition, Detector, Quantity, SourceMetadata

    first = {name: frames[name][0].item() for name in frames.dtype.names or ()}
    known: dict[str, Any] = {}
    if len(placed.scan_shape) > 1:
        repeats = math.prod(placed.scan_shape[:-2])
        known = {"scan_shape": placed.scan_shape, "scan_shape_source": placed.source, "frames_per_position": repeats}
    if header.high_tension:
        known["beam_energy"] = Quantity(value=header.high_tension, unit="keV", source="header")
    if first.get("mode") == IMAGE and first["magnification"]:
        known["magnification"] = first["magnification"]
    time = frames["time"][[0, -1]] + frames["ms"][[0, -1]] / 1000
    if time[0] > 0:
        known["start_time"] = datetime.fromtimestamp(float(time[0]), tz=UTC).isoformat()
    period = float(time[-1] - time[0]) / max(len(frames) - 1, 1)
    if period > 0:
        known["frame_period"] = Quantity(value=period, unit="s", source="header")
    acquisition = Acquisition(scan_shape_alternatives=placed.alternatives, sync_offset=placed.sync_offset, **known)
    binning = (header.y_binning, header.x_binning)
    detector = Detector(shape=(header.height, header.width), binning=binning if all(binning) else None)
    vendor = {"series": header.as_vendor(), "first_frame": first}
    return SourceMetadata(acquisition=acquisition, detector=detector, vendor=vendor, warnings=warnings, files=files)
