"""Norpix SEQ files of Direct Electron cameras, and pairs of them with the halves of CeleritasXS frames.

The files are described in `de_seq_header`, those beside them in `de_seq_files`. A CeleritasXS camera writes the upper
half of its frames to ``…_Top_<time>.seq``, the lower half to ``…_Bottom_<time>.seq``; a record may hold many halves
below each other (``SegmentPreBuffer``).

Sources: hyperspy/rosettasciio (a development branch reads the halves), LiberTEM (``seq.py``); files of such cameras.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.files import describe, expand, identity, list_beside
from stemstore.sources.geometry import MAX_MISSING, fit_scan, shape_option
from stemstore.sources.records import RecordSource
from stemstore_readers.de_seq_files import SideFiles, bad_pixels, read_side_files
from stemstore_readers.de_seq_header import MAGIC, PIXELS, Header, SeqFile, open_seq, start_time
from stemstore_readers.de_seq_references import side_references
from stemstore_readers.header_values import positive, quantity, scan_acquisition, whole, words
from stemstore_readers.placed_frames import Band, PlacedSource
from stemstore_schemas import Detector, SourceMetadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Int64Array
    from stemstore.sources.remote import Place

_HALF = re.compile(r"(?P<root>.+)_(?P<half>Top|Bottom)_(?P<time>[^_]+)\.seq", re.IGNORECASE)
_CLOCK = re.compile(r"(\d+)-(\d+)-(\d+(?:\.\d+)?)")


class DeSeq:
    """Reader of Norpix SEQ files, and of the two files of a CeleritasXS camera (either of them, or both, are given).

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames; the files know no scan.
    prebuffer
        Half frames in a record of a CeleritasXS file, where the configuration beside it is missing.
    """

    name: ClassVar[str] = "de_seq"
    description: ClassVar[str] = "Direct Electron SEQ files (Norpix), CeleritasXS halves"
    extensions: ClassVar[tuple[str, ...]] = (".seq",)

    def __init__(self, *, scan_shape: Sequence[int] | None = None, prebuffer: int | None = None) -> None:
        if prebuffer is not None and (isinstance(prebuffer, bool) or not isinstance(prebuffer, int) or prebuffer < 1):
            msg = f"option prebuffer={prebuffer!r} is not a number of half frames; expected a whole number above zero"
            raise InputError(msg, key="prebuffer", found=prebuffer)
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))
        self.prebuffer = prebuffer

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the magic number."""
        del url
        return 1.0 if first_bytes.startswith(MAGIC) else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource | PlacedSource:
        """Open the files: headers and side files only, no pixel.

        Raises
        ------
        InputError
            The files do not belong together, or hold other pixels.
        NotFoundError
            The other half of a CeleritasXS scan is missing.
        UnknownFormatError, CorruptDataError
            A file is no SEQ file, or damaged.
        TruncatedFileError
            There is no whole image.
        """
        paths = expand(url)
        halves = find_halves(paths)
        notes: list[str] = []
        root = paths[0] if halves is None else paths[0].with_name(_half(paths[0])["root"] + ".seq")
        side = read_side_files(root, notes)
        files = [open_seq(path, notes) for path in halves or paths]
        if halves is None:
            frame_shape = (files[0].header.rows, files[0].header.columns)
            bands = [band_offsets(files[0], files[0].count, 0, 1)]
        else:
            per_record = self._per_record(files[0].header, side, notes)
            frame_shape, bands = pair_halves(files, per_record, notes)
        return self._open(files, side, frame_shape, bands, notes)

    def _open(
        self,
        files: list[SeqFile],
        side: SideFiles,
        frame_shape: tuple[int, int],
        bands: list[Int64Array],
        notes: list[str],
    ) -> RecordSource | PlacedSource:
        whole_frames = len(files) == 1  # counters of halves count records
        numbers = place_missing(
            len(bands[0]),
            side.missing,
            notes,
            first=files[0].first if whole_frames else 1,
            left_out=files[0].last - files[0].first + 1 - files[0].count if whole_frames else 0,
        )
        scan_shape, _, misfits = fit_scan(self.scan_shape, len(numbers))
        notes += misfits
        n_positions = math.prod(scan_shape)
        numbers = np.r_[numbers, np.full(max(n_positions - len(numbers), 0), -1)][:n_positions]
        described = describe([*(file.path for file in files), *side.files])
        header, references = files[0].header, side_references(side, frame_shape, notes)
        about: dict[str, Any] = {
            "identity": identity(self.name, described, (scan_shape, frame_shape)),
            "scan_shape": scan_shape,
            "frame_shape": frame_shape,
            "metadata": self._metadata(files, side, scan_shape, frame_shape, notes).model_copy(
                update={"files": described}
            ),
            "validity": None if (numbers >= 0).all() else np.where(numbers < 0, MISSING, VALID).astype(np.uint8),
            "file_dtype": np.dtype(PIXELS[header.bits]),
            "references": references,
        }
        if len(files) == 1 and not side.missing:
            count = min(files[0].count, n_positions)
            path = str(files[0].path)
            return RecordSource(files=(path,), counts=(count,), offset=header.start, stride=header.stride, **about)
        rows = frame_shape[0] // len(bands)
        placed = (np.where(numbers < 0, -1, offsets[numbers]) for offsets in bands)
        parts = zip(files, placed, strict=True)
        made = (Band(str(file.path), offsets, rows * i, rows) for i, (file, offsets) in enumerate(parts))
        return PlacedSource(bands=tuple(made), **about)

    def _per_record(self, header: Header, side: SideFiles, notes: list[str]) -> int:
        """Half frames in a record: by option, configuration, or height of the frames."""
        height = whole(side.values.get("ImageSizeY"))
        stated = self.prebuffer or whole(side.values.get("SegmentPreBuffer"))
        if stated and header.rows % stated == 0 and (self.prebuffer or height in (None, 2 * header.rows // stated)):
            return stated
        if height and height % 2 == 0 and header.rows % (height // 2) == 0 and not self.prebuffer:
            found = header.rows // (height // 2)
            notes.append(f"the configuration states {stated} half frames in a record, their height says {found}")
            return found
        msg = (
            f"records of {header.rows} rows cannot be cut into {stated or 'an unknown number of'} half frames; pass "
            "prebuffer=…, the number of half frames in a record"
        )
        raise InputError(msg, key="prebuffer", found=stated)

    def _metadata(
        self,
        files: list[SeqFile],
        side: SideFiles,
        scan_shape: tuple[int, ...],
        frame_shape: tuple[int, int],
        notes: list[str],
    ) -> SourceMetadata:
        values, header = side.values, files[0].header
        rate = positive(values.get("FrameRate")) or (positive(header.frame_rate) if len(files) == 1 else None)
        binned = [whole(values.get(key)) for key in ("ImageBinning", "SWBinning")]
        binning = math.prod(one or 1 for one in binned) if any(binned) else None
        known = scan_acquisition(
            scan_shape,
            by_user=True,
            beam_energy=quantity(values.get("HT"), "keV"),
            magnification=None if positive(values.get("Mag")) is None else 1e3 * float(values["Mag"]),
            frame_period=quantity(1 / rate, "s") if rate else None,
            start_time=start_time(files[0]),
        )
        detector = Detector(
            name=words(values.get("CameraType")),
            shape=frame_shape,
            counter_depth=header.real_bits or None,
            counts_per_electron=positive(values.get("ADUPerElectron")),
            binning=None if binning is None else (binning, binning),
        )
        vendor = {
            "headers": [asdict(file.header) for file in files],
            "configuration": side.document,
            "missing_frames": list(side.missing),
            "bad_pixels": bad_pixels(side.document, frame_shape, values),
        }
        return SourceMetadata(acquisition=known, detector=detector, vendor=vendor, warnings=notes)


def _half(path: Place) -> dict[str, str]:
    match = _HALF.fullmatch(path.name)
    return {} if match is None else match.groupdict()


def find_halves(paths: list[Place]) -> list[Place] | None:
    """Find the upper and the lower half of a CeleritasXS scan; None for an ordinary file.

    Raises
    ------
    NotFoundError
        There is no other half.
    InputError
        Several files were given that are no two halves.
    """
    kinds = [_half(path).get("half", "").lower() for path in paths]
    if sorted(kinds) == ["bottom", "top"]:
        return sorted(paths, key=lambda path: _half(path)["half"].lower(), reverse=True)
    if len(paths) != 1:
        msg = f"{len(paths)} files were given, expected one SEQ file or the Top and Bottom files of a scan; pass these"
        raise InputError(msg, found=len(paths))
    if not kinds[0]:
        return None
    mine, other = _half(paths[0]), {"top": "bottom", "bottom": "top"}[kinds[0]]
    partners = [
        (abs(_clock(half["time"]) - _clock(mine["time"])), path)
        for path in list_beside(paths)
        if (half := _half(path)) and half["root"] == mine["root"] and half["half"].lower() == other
    ]
    if not partners:
        msg = f"{str(paths[0])!r} is one half of a scan, expected its {other} half beside it; copy both files"
        raise NotFoundError(msg, url=str(paths[0]))
    partner = min(partners)[1]
    return [paths[0], partner] if kinds[0] == "top" else [partner, paths[0]]


def _clock(time: str) -> float:
    """Seconds of the day of ``14-13-42.780``; 0 for anything else, so that the name decides."""
    match = _CLOCK.fullmatch(time)
    return 0.0 if match is None else float(match[1]) * 3600 + float(match[2]) * 60 + float(match[3])


def band_offsets(file: SeqFile, count: int, skip: int, per_record: int) -> Int64Array:
    """Where the parts of `count` records start, `skip` records left out in front."""
    header = file.header
    records = header.start + (np.arange(count, dtype=np.int64) + skip) * header.stride
    return (records[:, None] + np.arange(per_record) * (header.image_bytes // per_record)).reshape(-1)


def pair_halves(files: list[SeqFile], per_record: int, notes: list[str]) -> tuple[tuple[int, int], list[Int64Array]]:
    """Pair the records of two halves by their counters; frames have the rows of both.

    Raises
    ------
    InputError
        The halves have different images, or no record in common.
    """
    top, bottom = files
    sizes = [(file.header.rows, file.header.columns, file.header.bits) for file in files]
    skips = [max(top.first, bottom.first) - file.first for file in files]
    count = min(file.count - skip for file, skip in zip(files, skips, strict=True))
    if sizes[0] != sizes[1] or count < 1:
        msg = (
            f"halves {top.path.name!r} and {bottom.path.name!r} do not belong together: records {sizes[0]} and "
            f"{sizes[1]}, counters from {top.first} and {bottom.first}; pass the two files of one scan"
        )
        raise InputError(msg, url=str(top.path), found=sizes)
    if top.count != bottom.count or any(skips):
        notes.append(f"halves have {top.count} and {bottom.count} records, {count} of them are pairs and are used")
    shape = 2 * (top.header.rows // per_record), top.header.columns
    return shape, [band_offsets(file, count, skip, per_record) for file, skip in zip(files, skips, strict=True)]


def place_missing(
    n_frames: int, missing: tuple[int, ...], notes: list[str], *, first: int = 1, left_out: int = 0
) -> Int64Array:
    """Give the recorded frame of every position; -1 for those that are listed as missing.

    Parameters
    ----------
    n_frames
        Recorded frames.
    missing
        Numbers of lost frames.
    notes
        Receives what was lost.
    first
        Number of the first frame.
    left_out
        By how many frames the counters run on. Where these are just the missing ones, they were left out of the file
        and get a position of their own; otherwise every frame has its place in the file.
    """
    own = 0 < len(missing) == left_out <= MAX_MISSING
    total = n_frames + left_out if own else n_frames
    lost = np.array([number - first for number in missing if 0 <= number - first < total], np.int64)
    if not len(lost):
        return np.arange(n_frames, dtype=np.int64)
    how = "were left out of the file" if own else "are blank in the file"
    notes.append(f"{len(lost)} frames are listed as lost, counted from {first}, and {how}; they are marked missing")
    numbers = np.arange(total, dtype=np.int64)
    if own:
        kept = np.setdiff1d(numbers, lost)[:n_frames]
        numbers = np.full(total, -1, np.int64)
        numbers[kept] = np.arange(len(kept))
    numbers[lost] = -1
    return numbers
