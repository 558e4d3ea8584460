"""Velox EMD files (Thermo Fisher): stacks of camera frames and of scanned images.

===============================  ====================================================================================
place                            content
===============================  ====================================================================================
``/Version``                     JSON text, ``format`` = Velox
``/Data/Image/<uuid>/Data``      (rows, columns, frame): the frame is the last axis
``/Data/Image/<uuid>/Metadata``  bytes (60000, frame): each column is UTF-8 JSON, padded with NUL; numbers are texts
``/Operations/<kind>/<uuid>``    JSON texts; ``dataPath`` names the image that an operation makes
``/Data/SpectrumStream``, …      EDS and EELS, which are no frames
===============================  ====================================================================================

Sources: ercius/openNCEM (``ncempy/io/emdVelox.py``) and hyperspy/rosettasciio (``rsciio/emd``) for what the keys mean;
checked on files of Velox 2.10 and 2.11.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, UnknownFormatError
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import DAMAGE, Listed, ask_hdf5, dtype_of, find, number, open_hdf5, text, value_of, walk
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore_readers.header_values import positive, quantity, unix_time, words
from stemstore_readers.stated_axes import StatedAxis
from stemstore_readers.stored_arrays import Findings, choose_array, hdf5_source, header, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place

IMAGES = "Data/Image"
MAX_JSON = 2**22
"""Bytes of the JSON text of one frame that are read; Velox reserves 60000."""

_STACK = 3
_SPECTRA = {"SpectrumStream": "EDS", "SpectrumImage": "EDS", "Spectrum": "EDS", "EelsSpectrumImage": "EELS"}

_QUANTITIES = {
    "beam_energy": ("Optics.AccelerationVoltage", "keV", 1e3),
    "semi_convergence_angle": ("Optics.BeamConvergence", "mrad", 1e-3),
    "camera_length": ("Optics.CameraLength", "mm", 1e-3),
    "dwell_time": ("Scan.DwellTime", "s", 1.0),
}
"""Fields of the acquisition: where they are, our unit, and one of ours in theirs (V, rad, m, s)."""


class EmdVelox:
    """Reader of image stacks of Velox.

    Parameters
    ----------
    dataset
        Path or identifier of the image, or the name of its detector, in a file with several; the largest stack by
        default.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "emd_velox"
    description: ClassVar[str] = "stacks of frames in Velox EMD files (Thermo Fisher)"
    extensions: ClassVar[tuple[str, ...]] = (".emd",)

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the names that Velox puts at the root."""
        return ask_hdf5(url, first_bytes, lambda file: float({"Data", "Version"} <= set(file) and "Info" in file))

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the file: metadata of the first frame, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the file holds no stack of frames.
        UnknownFormatError
            The file is no HDF5 file or not of Velox.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "Velox")
        with open_hdf5(path) as file:
            arrays = _images(path, file)
            return self._open(path, file, arrays)

    def _open(self, path: Place, file: Any, arrays: list[Listed]) -> Hdf5Source:
        notes: list[str] = []
        detectors = {one.name: _detector_of(file, one.name) for one in arrays}
        chosen = choose_array(path, arrays, self._wanted(detectors), notes)
        if len(arrays) > 1:
            said = ", ".join(f"{name}: {detector or 'unknown'}" for name, detector in detectors.items())
            notes.append(f"detectors of the images are {said}")
        metadata = _frame_metadata(find(file, chosen.name.rpartition("/")[0]), notes)
        found = Findings(
            shape=chosen.shape,
            scan=_stated_scan(metadata, chosen.shape[0]),
            stated=_axes(metadata, _exposure(metadata)),
            optics=_optics(metadata),
            detector=_detector(metadata, detectors[chosen.name]),
            vendor=header(file, arrays) | {"metadata of the first frame": metadata},
            notes=notes,
        )
        part = Part.of(find(file, chosen.name), scan_axes=(2,), frame_axes=(0, 1))
        return hdf5_source(self.name, [part], found, self.scan_shape)

    def _wanted(self, detectors: dict[str, str | None]) -> str | None:
        """Path of the image that the user names by path, identifier or detector."""
        for name, detector in detectors.items():
            if self.dataset is not None and self.dataset in (detector, name.split("/")[-2]):
                return name
        return self.dataset


def _images(path: Place, file: Any) -> list[Listed]:
    """List the images as (frame, rows, columns), the largest first.

    Raises
    ------
    UnknownFormatError
        The file is not of Velox.
    InputError
        It holds spectra only.
    """
    import h5py

    if "Data" not in file or "Version" not in file:
        msg = f"file {str(path)!r} holds {sorted(file)}, expected Data and Version among them; it is not of Velox"
        raise UnknownFormatError(msg, url=str(path), found=sorted(file))
    found = []
    for place, item in walk(file[IMAGES]) if IMAGES in file else ():
        if isinstance(item, h5py.Dataset) and place.endswith("/Data") and item.shape and item.ndim == _STACK:
            rows, columns, frames = item.shape
            dtype = dtype_of(item)
            if dtype is not None:
                found.append(Listed(f"/{IMAGES}{place}", (frames, rows, columns), dtype))
    if not found:
        kinds = [f"{_SPECTRA[name]} ({name})" for name in file["Data"] if name in _SPECTRA]
        msg = f"Velox file {str(path)!r} holds {', '.join(kinds) or 'no images'} and no frames; open it with HyperSpy"
        raise InputError(msg, url=str(path), found=sorted(file["Data"]))
    return sorted(found, key=lambda one: -one.nbytes)


def parse_metadata(column: bytes) -> dict[str, Any]:
    """Read the JSON of one frame, padded with NUL.

    Raises
    ------
    ValueError
        It is no JSON object.
    """
    try:
        found = json.loads(column.split(b"\0", 1)[0].decode("utf-8", "replace"))
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error
    if not isinstance(found, dict):
        msg = f"is a {type(found).__name__}, expected an object"
        raise ValueError(msg)  # noqa: TRY004 (damage of a file, not of a program)
    return found


def _frame_metadata(group: Any, notes: list[str]) -> dict[str, Any]:
    item = group.get("Metadata")
    shape: tuple[int, ...] = getattr(item, "shape", None) or ()
    if len(shape) != 2 or item.dtype != np.uint8 or not 0 < shape[0] <= MAX_JSON or not shape[1]:  # noqa: PLR2004
        notes.append(f"{group.name} has no metadata; its axes count pixels")
        return {}
    try:
        return parse_metadata(item[:, 0].tobytes())
    except (ValueError, *DAMAGE) as error:
        notes.append(f"metadata of the first frame in {group.name} cannot be read: {error}; its axes count pixels")
        return {}


def look(metadata: Any, path: str) -> Any:
    """Follow dotted names through objects; None where the way ends, as in parts that are empty texts, or a list."""
    for name in path.split("."):
        metadata = metadata.get(name) if isinstance(metadata, dict) else None
    return None if isinstance(metadata, list) else metadata


def _detector_of(file: Any, image: str) -> str | None:
    """Name of the detector or operation that an image comes from."""
    import h5py

    place = file.get("Operations")
    for path, item in walk(place) if isinstance(place, h5py.Group) else ():
        said = value_of(place, path.strip("/")) if isinstance(item, h5py.Dataset) else None
        try:
            content = json.loads(text(said)) if said is not None else None
        except (ValueError, RecursionError):
            continue
        if text(look(content, "dataPath")).strip("/") == image.strip("/").rpartition("/")[0]:
            kind = path.strip("/").partition("/")[0].removesuffix("Operation")
            return words(look(content, "cameraName")) or words(look(content, "detector")) or kind
    return None


def _device(metadata: dict[str, Any]) -> Any:
    """Take the part on the detector that made the image."""
    index = words(look(metadata, "BinaryResult.DetectorIndex"))
    return look(metadata, f"Detectors.Detector-{index}")


def _exposure(metadata: dict[str, Any]) -> float | None:
    """Time from frame to frame, s: the exposure of a camera, the time of a scanned image."""
    camera = number(look(_device(metadata), "ExposureTime"))
    return camera if camera is not None else number(look(metadata, "Scan.FrameTime"))


def _axes(metadata: dict[str, Any], exposure: float | None) -> list[StatedAxis | None]:
    result = look(metadata, "BinaryResult")
    found: list[StatedAxis | None] = [StatedAxis("frame", exposure, 0.0, "s") if exposure else None]
    for axis, side in (("Y", "height"), ("X", "width")):
        step, unit = number(look(result, f"PixelSize.{side}")), words(look(result, f"PixelUnit{axis}"))
        origin = number(look(result, f"Offset.{axis.lower()}")) or 0.0
        found.append(None if step is None or unit is None else StatedAxis(axis.lower(), step, origin, unit))
    return found


def _optics(metadata: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: quantity(look(metadata, path), unit, per_unit)  # type: ignore[arg-type]  # the table holds listed units
        for name, (path, unit, per_unit) in _QUANTITIES.items()
    }
    magnification = look(look(metadata, "CustomProperties"), "StemMagnification.value")
    nominal = look(metadata, "Optics.NominalMagnification")
    return found | {
        "exposure_time": quantity(look(_device(metadata), "ExposureTime"), "s"),
        "magnification": positive(magnification) or positive(nominal),
        "start_time": unix_time(look(metadata, "Acquisition.AcquisitionStartDatetime.DateTime")),
        "instrument": words(look(metadata, "Instrument.InstrumentModel")),
    }


def _detector(metadata: dict[str, Any], name: str | None) -> dict[str, Any]:
    sides = [number(look(_device(metadata), f"Binning.{side}")) for side in ("height", "width")]
    whole = [int(side) for side in sides if side is not None and side >= 1 and side == int(side)]
    binning = (whole[0], whole[1]) if len(whole) == len(sides) else None
    return {"name": words(look(metadata, "BinaryResult.Detector")) or name, "binning": binning}


def _stated_scan(metadata: dict[str, Any], n_frames: int) -> tuple[int, ...] | None:
    """Scan that the header states, where it has as many positions as there are frames."""
    sides = [number(look(metadata, f"Scan.ScanSize.{side}")) or 0.0 for side in ("height", "width")]
    fits = n_frames > 1 and math.prod(sides) == n_frames and all(side == int(side) for side in sides)
    return (int(sides[0]), int(sides[1])) if fits else None
