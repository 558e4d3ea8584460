"""What Merlin files say about the acquisition: scan shape, detector, and the ``.hdr`` file beside the frames."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from stemstore.errors import NotFoundError
from stemstore.sources.files import list_folder
from stemstore.sources.geometry import factor_pairs
from stemstore_readers import merlin_mib_header as text
from stemstore_readers import merlin_mib_series as series

if TYPE_CHECKING:
    from stemstore.sources.remote import Place
    from stemstore_schemas import Detector, SourceFile, SourceMetadata, ValueSource

PITCH_NM = 55_000.0
"""Distance between the pixels of a Medipix3 chip, nm (Ballabriga et al. 2018, doi:10.1016/j.radmeas.2018.07.016)."""

QUAD_SHAPE = (512, 512)
QUAD_CHIPS = (((0, 256), (0, 256)), ((0, 256), (256, 512)), ((256, 512), (0, 256)), ((256, 512), (256, 512)))
"""Rows and columns of chips 1 to 4 in a frame without the gap between them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan shape, where it comes from, others that fit, what to tell, and the time from frame to frame in s."""

    shape: tuple[int, ...] | None
    source: ValueSource
    alternatives: list[tuple[int, ...]]
    notes: list[str]
    period: float | None


def find_sidecar(path: Place) -> tuple[dict[str, str], list[Place], list[str]]:
    """Read the ``.hdr`` file of a frame file, also the one of a numbered series.

    Returns
    -------
    values, files, warnings
        Empty where there is none; a damaged one is reported and never a reason not to open the frames.
    """
    stem = path.stem.rstrip("0123456789") or path.stem
    for candidate in dict.fromkeys((path.with_suffix(".hdr"), path.with_name(stem + ".hdr"))):
        try:
            with candidate.open("rb") as file:
                content = file.read(text.LONGEST)
        except FileNotFoundError:
            continue
        except OSError as error:
            return {}, [], [f"header file {str(candidate)!r} is not used: {error.strerror}"]
        values = text.parse_sidecar(content)
        if values is None:
            return {}, [], [f"header file {str(candidate)!r} is not used: it does not start with 'HDR,'"]
        return values, [candidate], []
    return {}, [], []


def frames_beside(path: Place) -> Place:
    """Find the frame file of a ``.hdr`` file, of a series the first one; other paths are given back.

    Raises
    ------
    NotFoundError
        There is none.
    """
    if path.suffix.lower() != ".hdr" or path.is_dir():
        return path
    names = re.compile(re.escape(path.stem) + r"\d*\.mib", re.IGNORECASE)
    for entry in list_folder(path.parent):
        if names.fullmatch(entry.name):
            return entry
    msg = f"no frames lie beside {str(path)!r}, expected {path.stem + '.mib'!r}; pass the file that holds the frames"
    raise NotFoundError(msg, url=str(path))


def find_scan(
    given: tuple[int, ...] | None, sidecar: dict[str, str], n_frames: int, read: series.ReadStamps | None
) -> Scan:
    """Find the scan shape: given by the user, stated by the ``.hdr`` file, shown by time stamps, or not at all.

    Parameters
    ----------
    read
        Gives the times of frames; None where frames are missing in between.
    """
    stated = text.whole_number(sidecar, "Frames in Acquisition") or n_frames
    total = max(stated, n_frames)
    length, period = (None, None) if read is None else series.line_length(read, n_frames, total)
    if given is not None:
        return Scan(given, "user", [], [], period)
    notes = []
    if stated != n_frames:
        why = "the acquisition was interrupted" if stated > n_frames else "the scan shape may be wrong"
        notes.append(f"the .hdr file states {stated} frames, {n_frames} were found: {why}")
    shape, texts = _stated_shape(sidecar, n_frames, total)
    notes += texts
    if shape is not None:
        return Scan(shape, "header", [], notes, period)
    others = factor_pairs(total)
    if length is None:
        return Scan(None, "guessed", others, notes, period)
    shape = -(-n_frames // length), length
    others = [other for other in others if other != (total // length, length)]
    notes.append(
        f"the scan shape {shape} was found by the longer time at the end of every line; "
        "pass scan_shape=(rows, columns) to settle it"
    )
    sure = total // length > 2  # noqa: PLR2004 (the one delay of two lines may be chance)
    return Scan(shape, "measured" if sure else "guessed", others, notes, period)


def _stated_shape(sidecar: dict[str, str], n_frames: int, total: int) -> tuple[tuple[int, int] | None, list[str]]:
    """Scan shape of the ``.hdr`` file, if its product is the number of frames; lines of an interrupted scan."""
    nx, ny = text.whole_number(sidecar, "ScanX"), text.whole_number(sidecar, "ScanY")
    if nx and ny:
        if nx * ny != total:
            found = f"{n_frames} frames were found"
            return None, [f"the .hdr file states a scan of {ny} rows and {nx} columns, {found}: it is not used"]
        return (-(-n_frames // nx), nx), []
    line = text.whole_number(sidecar, "Frames per Trigger") or 0
    if line > 1 and total % line == 0 and total > line:
        return (-(-n_frames // line), line), []
    return None, []


def metadata(
    file: series.MibFile,
    sidecar: dict[str, str],
    scan: Scan,
    *,
    geometry: dict[str, int],
    warnings: list[str],
    files: list[SourceFile],
) -> SourceMetadata:
    """Describe the acquisition.

    Parameters
    ----------
    file
        The first one.
    geometry
        Flyback columns and sync offset.
    """
    from stemstore_schemas import Acquisition, Quantity, SourceMetadata

    header = file.header
    acquisition = Acquisition(
        scan_shape=scan.shape,
        scan_shape_source=None if scan.shape is None else scan.source,
        scan_shape_alternatives=scan.alternatives,
        frames_per_position=scan.shape[0] if scan.shape is not None and len(scan.shape) > 2 else 1,  # noqa: PLR2004 (frame, y, x)
        exposure_time=None if header.exposure is None else Quantity(value=header.exposure, unit="s", source="header"),
        frame_period=None if scan.period is None else Quantity(value=scan.period, unit="s", source="header"),
        start_time=header.stamp,
        **geometry,
    )
    vendor = {"frame_header": asdict(header), "hdr": sidecar, "row_order": "file"}
    return SourceMetadata(
        acquisition=acquisition,
        detector=_detector(file, sidecar),
        vendor=vendor,
        warnings=warnings + _conflicts(header, sidecar),
        files=files,
    )


def _detector(file: series.MibFile, sidecar: dict[str, str]) -> Detector:
    from stemstore_schemas import Detector, Quantity, Sector

    header, shape = file.header, file.layout.shape
    medipix = header.chip_type is not None or any(value.startswith("Medipix 3") for value in sidecar.values())
    pitch = Quantity(value=PITCH_NM, unit="nm", source="header")  # of the chip that the header names
    used = header.thresholds
    while used and not used[-1]:
        used = used[:-1]
    quad = shape == QUAD_SHAPE and header.layout.startswith("2x2")
    return Detector(
        name="Merlin (Medipix3)" if medipix else "Merlin",
        shape=shape,
        pixel_size=(pitch, pitch) if medipix else None,
        sectors=[
            Sector(name=f"chip{number}", rows=rows, columns=columns)
            for number, (rows, columns) in enumerate(QUAD_CHIPS if quad else (), 1)
        ],
        counter_depth=header.depth or file.layout.raw_depth or depth_of(sidecar),
        thresholds=[Quantity(value=value, unit="keV", source="header") for value in used],
    )


def depth_of(sidecar: dict[str, str]) -> int | None:
    """Counter depth that the ``.hdr`` file states, bit; None where it states none that exists."""
    depth = text.whole_number(sidecar, "Counter Depth")
    return depth if depth in text.DEPTHS else None


def _conflicts(header: text.FrameHeader, sidecar: dict[str, str]) -> list[str]:
    """Tell where the ``.hdr`` file contradicts the header of the first frame, which counts."""
    found = []
    depth = text.whole_number(sidecar, "Counter Depth")
    if None not in (depth, header.depth) and depth != header.depth:
        found.append(f"counter depth is {header.depth} bit in the frame header, {depth} in the .hdr file")
    thresholds = text.thresholds(sidecar.get("Thresholds (keV)", "").split(","))
    if thresholds and header.thresholds and thresholds != header.thresholds:
        found.append(f"thresholds are {header.thresholds} keV in the frame header, {thresholds} in the .hdr file")
    return [f"{one}; the frame header counts" for one in found]
