"""Side files of Direct Electron movies: the acquisition's ``…_info.txt`` and ``…_scan_coordinates.csv``.

The text has one ``key = value`` per line, the table one ``x,y`` per frame in the order of acquisition. Keys are those
of DE-MC and DE Server; numbers that are not known are -1.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.sources.files import exists, file_size, unreadable
from stemstore_readers.header_values import positive, quantity, scan_acquisition, whole, words
from stemstore_readers.stated_axes import StatedAxis, centred
from stemstore_schemas import Axis, Detector, SourceMetadata

if TYPE_CHECKING:
    from stemstore._types import Int64Array
    from stemstore.sources.remote import Place

_DATED = re.compile(r"(\d{8}_\d+)(?:_.*)?")
_MOVIE = "_movie"
_TABLE = re.compile(rb"(?:\d{1,9},\d{1,9}[ \t]*(?:\r?\n|$))*\s*")
_DATE = re.compile(r"^\d{8}_\d+(?=_)")
_PICTURE = re.compile(r"_(?:ext|virt)?\d+(?:_|$)")

INFO_BYTES = 2**20
"""Longest text that is read; those seen have 40 kB."""

TABLE_BYTES = 2**27
"""Longest table that is read: some ten million positions."""


@dataclass(frozen=True, slots=True)
class Info:
    """What the side files say; empty where there is none.

    Attributes
    ----------
    values
        Keys and values as written.
    positions : shape (n, 2)
        Row and column of every frame; None without a table.
    files
        Paths of the files that were read.
    """

    values: dict[str, str] = field(default_factory=dict)
    positions: Int64Array | None = None
    files: tuple[Place, ...] = ()


def base_names(path: Place) -> list[str]:
    """Names that the side files of a file may start with, the likeliest first."""
    stem = path.name[: -len(path.suffix)] if path.suffix else path.name
    stem = stem.removesuffix(_MOVIE)
    dated = _DATED.fullmatch(stem)
    return list(dict.fromkeys([stem, dated.group(1)] if dated else [stem]))


def is_picture(path: Place) -> bool:
    """Whether a file is named as a virtual image or the image of an external detector."""
    return bool(_PICTURE.search(_DATE.sub("", path.stem))) and not path.stem.endswith(_MOVIE)


def read_info(path: Place) -> Info:
    """Read the side files of an MRC file, where they are.

    Raises
    ------
    CorruptDataError
        A side file is too long, or the table is no table of whole numbers.
    StorageError
        A side file cannot be read.
    """
    values: dict[str, str] = {}
    positions, files = None, []
    for base in base_names(path):
        info, table = path.with_name(f"{base}_info.txt"), path.with_name(f"{base}_scan_coordinates.csv")
        if not values and exists(info):
            values = parse_info(_content(info, INFO_BYTES).decode("utf-8", "replace"))
            files.append(info)
        if positions is None and exists(table):
            positions = parse_positions(_content(table, TABLE_BYTES), str(table))
            files.append(table)
    return Info(values, positions, tuple(files))


def _content(path: Place, limit: int) -> bytes:
    if file_size(path) > limit:
        msg = f"side file {str(path)!r} has {file_size(path)} bytes, expected at most {limit}; move it away"
        raise CorruptDataError(msg, url=str(path), found=file_size(path), expected=limit)
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def parse_info(content: str) -> dict[str, str]:
    """Split lines at their first ``=``; keys are padded with blanks, values may be empty."""
    pairs = (line.partition("=") for line in content.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_positions(content: bytes, name: str) -> Int64Array:
    """Read a table of ``x,y`` lines as (row, column) pairs, shape (n, 2).

    Raises
    ------
    CorruptDataError
        A line is not two whole numbers from 0 on.
    """
    if not _TABLE.fullmatch(content):
        msg = f"side file {name!r} is no table of x,y lines with numbers from 0 on; correct it or move it away"
        raise CorruptDataError(msg, url=name)
    if not content.strip():  # of blanks alone NumPy makes a number
        return np.empty((0, 2), np.int64)
    numbers = np.fromstring(content.replace(b",", b" "), dtype=np.int64, sep=" ")
    return numbers.reshape(-1, 2)[:, ::-1].copy()


@dataclass(frozen=True, slots=True)
class Raster:
    """A scan in rows: repeats of the scan, rows, columns, and frames taken at each position one after the other."""

    repeats: int
    rows: int
    columns: int
    frames: int

    @property
    def n_frames(self) -> int:
        """Frames that the scan should have."""
        return self.repeats * self.rows * self.columns * self.frames


def raster(values: dict[str, str]) -> Raster | None:
    """Read the raster from the text; None without a scan, or for one in another order."""
    if not _scans(values) or other_scan(values):
        return None
    part = "Scan - ROI Size" if values.get("Scan - ROI Enable") == "Enable" else "Scan - Size"
    rows, columns = whole(values.get(f"{part} Y")), whole(values.get(f"{part} X"))
    if rows is None or columns is None:
        return None
    frames, repeats = (whole(values.get(f"Scan - {key}")) for key in ("Camera Frames Per Point", "Repeats"))
    return Raster(repeats or 1, rows, columns, frames or 1)


def other_scan(values: dict[str, str]) -> str | None:
    """Name the type of a scan whose positions are not in rows; None for a raster, and without a scan."""
    roi = values.get("Scan - ROI Enable") == "Enable"
    kind = values.get("Scan - ROI Type" if roi else "Scan - Type", "")
    return (kind or "unknown") if _scans(values) and kind != "Raster" else None


def _scans(values: dict[str, str]) -> bool:
    """Whether the beam was scanned; the microscope's mode is -1 where it is not known."""
    return values.get("Scan - Enable") == "Enable" and values.get("Instrument Project TEMorSTEM Mode") != "0"


def movie_metadata(
    values: dict[str, str], extended: dict[str, Any], shape: tuple[int, ...], notes: list[str], *, by_user: bool
) -> SourceMetadata:
    """Gather what the text and the extended header say.

    Parameters
    ----------
    values
        Of the text; empty without one.
    extended
        Of the extended header; empty without one.
    shape
        Scan axes, ky, kx.
    notes
        Warnings so far; what is odd is added.
    by_user
        Whether the user stated the scan shape.
    """
    rate, summed = positive(values.get("Frames Per Second")), whole(values.get("Autosave Movie Sum Count")) or 1
    known = scan_acquisition(
        shape[:-2],
        by_user=by_user,
        beam_energy=quantity(values.get("Instrument Accelerating Voltage (V)"), "keV", 1e3)
        or quantity(extended.get("voltage"), "keV", 1e3),
        camera_length=quantity(values.get("Instrument Project Camera Length (centimeters)"), "mm", 0.1)
        or quantity(extended.get("camera_length"), "mm", 1e-3),
        magnification=positive(values.get("Instrument Project Magnification"))
        or positive(extended.get("magnification")),
        dwell_time=quantity(values.get("Scan - Dwell Time (microseconds)"), "s", 1e6)
        or quantity(extended.get("dwell_time"), "s"),
        exposure_time=quantity(extended.get("integration_time"), "s"),
        frame_period=quantity(summed / rate, "s") if rate else None,
        start_time=_start(values.get("Timestamp (seconds since Epoch)")),
    )
    gain = positive(values.get("ADUs Per Electron")) or positive(values.get("ADUs Per Electron Bin1x"))
    name = words(values.get("Camera Model")) or words(values.get("Camera Name"))
    detector = Detector(
        name=name or words(extended.get("camera")),
        shape=(shape[-2], shape[-1]),
        counts_per_electron=gain,
        binning=_binning(values, extended),
    )
    return SourceMetadata(acquisition=known, detector=detector, axes=_axes(values, shape, notes), warnings=notes)


def _axes(values: dict[str, str], shape: tuple[int, ...], notes: list[str]) -> list[Axis]:
    steps: dict[str, tuple[int, float | None, str]] = {}
    if len(shape) > 3:  # noqa: PLR2004 (a scan with rows and columns)
        for name, side, size in (("y", "Y", shape[-4]), ("x", "X", shape[-3])):
            steps[name] = size, positive(values.get(f"Specimen Pixel Size {side} (nanometers)")), "nm"
    for name, side, size in (("ky", "Y", shape[-2]), ("kx", "X", shape[-1])):
        steps[name] = size, positive(values.get(f"Diffraction Pixel Size {side}")), "1/nm"
    if steps["ky"][1] and steps["kx"][1]:
        notes.append("the diffraction pixel size carries no unit; it is taken to be 1/nm, pass detector_step=… if not")
    made = [
        StatedAxis(name, step, 0.0, unit).bring(name, size, notes)
        for name, (size, step, unit) in steps.items()
        if step is not None
    ]
    return centred([one for one in made if one is not None], notes)


def _binning(values: dict[str, str], extended: dict[str, Any]) -> tuple[int, int] | None:
    """Give physical pixels per stored pixel: the camera's binning times that of the software."""
    sides = []
    for side in "YX":
        both = [whole(values.get(f"{kind} {side}")) for kind in ("Binning", "Hardware Binning")]
        if not values:
            both = [whole(extended.get(f"binning_{side.lower()}")), None]
        if both == [None, None]:
            return None
        sides.append(math.prod(one or 1 for one in both))
    return sides[0], sides[1]


def _start(value: Any) -> str | None:
    seconds = positive(value)
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
