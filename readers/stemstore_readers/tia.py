"""FEI TIA: series of images (``.ser``) with their document (``.emi``).

Files are described in `tia_header`. Rows are stored bottom first; they are turned over, so that the array is as the
image was seen. Coordinates of a series are in metres, of diffraction patterns in 1/m.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, NotFoundError, StemStoreError
from stemstore.sources.contract import MISSING, VALID
from stemstore.sources.files import describe, exists, expand, identity, list_folder
from stemstore.sources.geometry import MAX_MISSING, fit_scan, shape_option
from stemstore_readers.header_values import plain, positive, quantity, scan_acquisition, whole, words
from stemstore_readers.placed_frames import Band, PlacedSource
from stemstore_readers.stated_axes import StatedAxis
from stemstore_readers.tia_header import MAGIC, PIXELS, POINTERS, Series, read_emi, read_series
from stemstore_schemas import Axis, Detector, SourceMetadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place

EMI_MAGIC = b"JK\x00\x02"
"""First bytes of the documents at hand."""

_SERIES = re.compile(r"(?P<root>.+)_(?P<number>\d{1,6})\.ser", re.IGNORECASE)


class Tia:
    """Reader of TIA series; of a document with one series, the document may be named instead.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the images in the order of the file.
    """

    name: ClassVar[str] = "tia"
    description: ClassVar[str] = "FEI TIA series of images (SER with EMI)"
    extensions: ClassVar[tuple[str, ...]] = (".ser", ".emi")

    def __init__(self, *, scan_shape: Sequence[int] | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the magic numbers of series and documents."""
        if first_bytes[: len(MAGIC)] == MAGIC:
            return 1.0 if int.from_bytes(first_bytes[4:6], "little") in POINTERS else 0.5
        return 1.0 if first_bytes.startswith(EMI_MAGIC) and url.lower().endswith(".emi") else 0.0

    def __call__(self, url: str | list[str]) -> PlacedSource:
        """Open the series: headers, offsets and the document, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the series holds no images of integers or floats.
        NotFoundError
            A document has no series beside it.
        UnknownFormatError, FormatVersionError, CorruptDataError
            The file is no series of a known version, or damaged.
        TruncatedFileError
            No image is complete.
        """
        files = expand(url)
        if len(files) != 1:
            msg = f"{len(files)} files were given, expected one series; open them one at a time"
            raise InputError(msg, found=len(files), expected=1)
        path = find_series(files[0])
        notes: list[str] = []
        try:
            series = read_series(path, notes)
        except StemStoreError as error:
            error.add_note(f"in file {str(path)!r}")
            raise
        document, number = find_document(path)
        values = read_emi(document, number, notes) if document else {}
        if document is None:
            notes.append(f"series {path.name!r} has no document (.emi) beside it; the microscope is unknown")
        return self._open(path, document, series, values, notes)

    def _open(
        self, path: Place, document: Place | None, series: Series, values: dict[str, str], notes: list[str]
    ) -> PlacedSource:
        scan_shape, offsets = self._lay_out(series, notes)
        described = describe([path] if document is None else [path, document])
        element = series.element
        frame_shape = (element.rows, element.columns)
        by_user = self.scan_shape is not None
        metadata = series_metadata(series, values, (*scan_shape, *frame_shape), notes, by_user=by_user)
        vendor = {"header": plain(asdict(series.header)), "element": plain(asdict(element)), "document": values}
        return PlacedSource(
            identity=identity(self.name, described, scan_shape),
            scan_shape=scan_shape,
            frame_shape=frame_shape,
            metadata=metadata.model_copy(update={"files": described, "vendor": vendor}),
            validity=None if (offsets >= 0).all() else np.where(offsets < 0, MISSING, VALID).astype(np.uint8),
            bands=(Band(str(path), offsets, 0, element.rows),),
            file_dtype=np.dtype(PIXELS[element.data_type]),
            flip_rows=True,
        )

    def _lay_out(self, series: Series, notes: list[str]) -> tuple[tuple[int, ...], np.ndarray[Any, np.dtype[np.int64]]]:
        """Give the scan shape and the offset of every position."""
        header, offsets = series.header, series.offsets
        if header.total - len(offsets) > MAX_MISSING:
            msg = f"header states {header.total} elements, the file has room for {len(offsets)}; it is damaged"
            raise CorruptDataError(msg, found=len(offsets), expected=header.total)
        offsets = np.r_[offsets, np.full(header.total - len(offsets), -1, np.int64)]
        stated = tuple(one.size for one in reversed(header.dimensions))
        if math.prod(stated) != header.total or len(stated) not in (1, 2, 3):
            if self.scan_shape is None:
                notes.append(f"dimensions {stated} do not fit {header.total} elements; pass scan_shape=…")
            stated = (header.total,)
        missing = int((offsets < 0).sum())
        if missing:
            notes.append(f"{missing} of {header.total} images are not in the file; they are marked missing")
        if self.scan_shape is None:
            return stated, offsets
        shape, _, misfits = fit_scan(self.scan_shape, header.total)
        notes += misfits
        n_positions = math.prod(shape)
        return shape, np.r_[offsets, np.full(max(n_positions - len(offsets), 0), -1, np.int64)][:n_positions]


def find_series(path: Place) -> Place:
    """Find the series of a document; a series is its own.

    Raises
    ------
    NotFoundError
        There is none.
    InputError
        There are several.
    """
    if path.suffix.lower() != ".emi":
        return path
    beside = [
        one for one in list_folder(path.parent) if (match := _SERIES.fullmatch(one.name)) and match["root"] == path.stem
    ]
    if not beside:
        msg = f"document {str(path)!r} has no series beside it, expected {path.stem + '_1.ser'!r}; copy it as well"
        raise NotFoundError(msg, url=str(path))
    if len(beside) > 1:
        listed = ", ".join(repr(one.name) for one in beside)
        msg = f"document {str(path)!r} belongs to the series {listed}; open the one that you mean"
        raise InputError(msg, url=str(path), found=len(beside))
    return beside[0]


def find_document(path: Place) -> tuple[Place | None, int]:
    """Find the document of a series, and the number of the series in it."""
    match = _SERIES.fullmatch(path.name)
    if match is None:
        return None, 1
    document = path.with_name(match["root"] + ".emi")
    return (document, max(int(match["number"]), 1)) if exists(document) else (None, 1)


def series_metadata(
    series: Series, values: dict[str, str], shape: tuple[int, ...], notes: list[str], *, by_user: bool
) -> SourceMetadata:
    """Gather what series and document say.

    Parameters
    ----------
    series, values
        The two.
    shape
        Scan axes, ky, kx.
    notes
        Warnings so far; what is odd is added.
    by_user
        Whether the user stated the scan shape.
    """
    camera = words(values.get("AcquireInfo/CameraNamePath"))
    dwell = quantity(values.get("AcquireInfo/DwellTimePath"), "s")
    binning = whole(values.get("AcquireInfo/Binning"))
    known = scan_acquisition(
        shape[:-2],
        by_user=by_user,
        beam_energy=quantity(values.get("MicroscopeConditions/AcceleratingVoltage"), "keV", 1e3)
        or quantity(values.get("High tension [kV]"), "keV"),
        camera_length=quantity(values.get("Camera length [m]"), "mm", 1e-3),
        magnification=positive(values.get("Magnification [x]")),
        exposure_time=dwell if camera else None,
        dwell_time=None if camera else dwell,
        start_time=series.start_time,
        instrument=words(values.get("Microscope")),
        operator=words(values.get("User")),
    )
    detector = Detector(
        name=camera, shape=(shape[-2], shape[-1]), binning=None if binning is None else (binning, binning)
    )
    axes = [] if by_user else scan_axes(series, shape, notes)
    axes += detector_axes(series, shape, notes, documented=bool(values))
    return SourceMetadata(acquisition=known, detector=detector, axes=axes, warnings=notes)


def scan_axes(series: Series, shape: tuple[int, ...], notes: list[str]) -> list[Axis]:
    """Make the scan axes of the dimensions that have a unit; a line of images counts frames."""
    dimensions = series.header.dimensions
    if len(shape) < 4 or len(dimensions) != len(shape) - 2:  # noqa: PLR2004 (a scan with rows and columns)
        return []
    made = [
        StatedAxis("", one.step, one.offset - one.element * one.step, one.unit).bring(name, size, notes)
        for name, size, one in zip(("x", "y"), shape[-3:-5:-1], dimensions, strict=False)
        if one.unit.strip()
    ]
    return [one for one in reversed(made) if one is not None]


def detector_axes(series: Series, shape: tuple[int, ...], notes: list[str], *, documented: bool) -> list[Axis]:
    """Make the detector axes; steps above 1 are in 1/m, since no pixel is a metre wide.

    Rows are turned over and their coordinates with them, so that ky grows downwards.
    """
    (x0, dx, ix), (y0, dy, iy) = series.element.x, series.element.y
    unit = "1/m" if min(abs(dx), abs(dy)) > 1 else "m"
    if unit == "1/m" and not documented:
        notes.append("steps of the images are taken to be in 1/m, no document says so; pass detector_step=… if not")
    last = shape[-2] - 1
    made = [
        StatedAxis("", dy, -(y0 + (last - iy) * dy), unit).bring("ky", shape[-2], notes),
        StatedAxis("", dx, x0 - ix * dx, unit).bring("kx", shape[-1], notes),
    ]
    return [one for one in made if one is not None]
