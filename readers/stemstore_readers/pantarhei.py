"""CEOS PantaRhei (``.prz``): an array with its metadata in a NumPy archive; see `pantarhei_archive` for the layout.

Lists of the metadata run against the axes of the array: entry k belongs to axis ``ndim - 1 - k``. ``content.types``
names the axes (ScanX, ScanY, Index, PlotIndex, CameraX, CameraY, Pixel, Energy), ``device.calib`` gives each its step
``value × pixel_factor``, its origin ``offset × value`` and its unit. Source: hyperspy/rosettasciio
(``rsciio/pantarhei``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from stemstore.errors import InputError
from stemstore.sources.geometry import shape_option
from stemstore_readers.header_values import number, quantity, words
from stemstore_readers.npy_archive import ZIP
from stemstore_readers.npy_archive_source import member_source
from stemstore_readers.pantarhei_archive import parse_archive
from stemstore_readers.stated_axes import SCAN_NAMES, StatedAxis
from stemstore_readers.stored_arrays import Findings, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.records import RecordSource
    from stemstore_readers.npy_archive_source import MemberSource
    from stemstore_readers.pantarhei_archive import Archive

SCAN_ORDER = ("PlotIndex", "Index", "ScanY", "ScanX")
"""Scan axes from slow to fast, as they are laid out here."""

DETECTOR_AXES = ("CameraY", "CameraX", "Pixel", "*")
SPECTRAL = "Energy"


class PantaRhei:
    """Reader of PantaRhei files that hold diffraction patterns.

    Parameters
    ----------
    scan_shape
        ``(y, x)``, ``(frame, y, x)`` or ``(frame,)`` instead of the axes of the file.
    """

    name: ClassVar[str] = "pantarhei"
    description: ClassVar[str] = "CEOS PantaRhei archives with diffraction patterns"
    extensions: ClassVar[tuple[str, ...]] = (".prz",)

    def __init__(self, *, scan_shape: Sequence[int] | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for a zip archive, and for the name of the file or of a member of its own."""
        if not first_bytes.startswith(ZIP):
            return 0.0
        if url.lower().endswith(".prz"):
            return 1.0
        return 0.8 if b"data_model.npy" in first_bytes or b"meta_data_json.npy" in first_bytes else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource | MemberSource:
        """Open the archive: its directory, headers and metadata, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the file holds no patterns: the message says what it holds.
        UnknownFormatError, CorruptDataError, TruncatedFileError
            As for `pantarhei_archive.parse_archive`.
        """
        path = one_file(url, "PantaRhei")
        archive = parse_archive(path)
        axes = name_axes(archive)
        order, notes = self._scan_order(archive, axes)
        found = Findings(
            shape=tuple(archive.data.shape[axis] for axis in order),
            stated=[axes[axis].stated for axis in order],
            optics=_optics(archive.metadata or {}),
            detector=_detector(archive.metadata or {}),
            vendor={"meta_data": archive.metadata, "members": list(archive.members)},
            notes=notes,
        )
        return member_source(self.name, path, archive.data, order, found, self.scan_shape)

    def _scan_order(self, archive: Archive, axes: list[NamedAxis]) -> tuple[tuple[int, ...], list[str]]:
        """Order the axes as scan axes from slow to fast, detector rows, detector columns; axes of length 1 may go.

        Raises
        ------
        InputError
            There are no two detector axes, no scan axis, or too many.
        """
        notes = [] if archive.metadata is not None else [_LEGACY]
        shape = archive.data.shape
        trivial = [i for i, axis in enumerate(axes) if axis.name in ("Index", "PlotIndex") and shape[i] == 1]
        scan = [i for i, axis in enumerate(axes) if axis.name in SCAN_ORDER and i not in trivial]
        detector = [i for i, axis in enumerate(axes) if axis.name in DETECTOR_AXES]
        if not scan and len(detector) == 2 and trivial:  # noqa: PLR2004 (rows and columns)
            scan = trivial[:1]
        spectral = any(axis.name == SPECTRAL for axis in axes)
        good = len(scan) in SCAN_NAMES and len(detector) == 2 and not spectral and 0 not in shape  # noqa: PLR2004
        if not good:
            kind = "a spectrum" if spectral else "no stack of patterns"
            held = ", ".join(f"{axis.name} {shape[i]}" for i, axis in enumerate(axes)) or "a single number"
            msg = (
                f"file {archive.data.path!r} holds {kind} ({held}), expected scan axes and two detector axes; open it "
                "with a program for images and spectra"
            )
            raise InputError(msg, found=shape)
        scan.sort(key=lambda i: (SCAN_ORDER.index(axes[i].name), i))
        return (*scan, *detector), notes


_LEGACY = (
    "the file has no metadata as text, only pickled ones, which are never opened; its last two axes are taken for "
    "the detector, nothing is calibrated"
)


@dataclass(frozen=True, slots=True)
class NamedAxis:
    """An axis of the array: what it is, and its calibration where there is one."""

    name: str
    stated: StatedAxis | None = None


def name_axes(archive: Archive) -> list[NamedAxis]:
    """Name the axes of the array in its own order, by ``content.types``, else by ``type``, else by their place."""
    values, ndim = archive.metadata or {}, len(archive.data.shape)
    types = _reversed_list(values.get("content.types"), ndim)
    if not all(isinstance(one, str) for one in types):
        types = _types_by_place(str(values.get("type", "")), ndim)
    calibrations = _reversed_list(values.get("device.calib"), ndim)
    return [
        NamedAxis(str(name), _stated(str(name), calibration))
        for name, calibration in zip(types, calibrations, strict=True)
    ]


def _types_by_place(kind: str, ndim: int) -> list[Any]:
    if kind == "1D":
        return [*["PlotIndex"] * (ndim - 1), SPECTRAL][:ndim]
    scan = {0: [], 1: ["Index"], 2: ["ScanY", "ScanX"], 3: ["Index", "ScanY", "ScanX"]}
    leading = scan.get(ndim - 2, ["*"] * max(ndim - 2, 0))
    return [*leading, "CameraY", "CameraX"] if ndim > 1 else ["*"] * ndim


def _reversed_list(found: Any, ndim: int) -> list[Any]:
    """Turn a list of the metadata into the order of the axes; it may be one entry too long. None where it is absent."""
    entries = list(found) if isinstance(found, list) else []
    if len(entries) < ndim:
        return [None] * ndim
    return entries[:ndim][::-1]


def _stated(name: str, calibration: Any) -> StatedAxis | None:
    if not isinstance(calibration, dict):
        return None
    keys = (("value", None), ("pixel_factor", 1), ("offset", 0))
    numbers = [number(calibration.get(key, default)) for key, default in keys]
    value, factor, offset = (math.nan if one is None else one for one in numbers)
    if math.isnan(value * factor * offset):
        return None
    return StatedAxis(name, value * factor, value * offset, words(calibration.get("unit")) or "")


def _optics(values: dict[str, Any]) -> dict[str, Any]:
    magnification = quantity(values.get("scan_driver.magnification"), "count")
    return {
        "beam_energy": quantity(values.get("electron_gun.voltage"), "keV", 1000.0),
        "camera_length": quantity(values.get("projector.camera_length"), "mm", 1e-3),
        "dwell_time": quantity(values.get("scan_generator.dwell_time"), "s"),
        "magnification": None if magnification is None else magnification.value,
    }


def _detector(values: dict[str, Any]) -> dict[str, Any]:
    binning = _reversed_list(values.get("camera.binning"), 2)
    good = all(isinstance(one, int | float) and one >= 1 and one == int(one) for one in binning if one is not None)
    return {
        "name": words(values.get("source.name")),
        "binning": tuple(int(one) for one in binning) if None not in binning and good else None,
    }
