"""EMD 1.0 files of py4DSTEM, and its own layout of versions 0.5 to 0.13.

==============================  =====================================================================================
place                           content
==============================  =====================================================================================
``/``                           attributes ``emd_group_type`` = file, ``version_major`` = 1, ``version_minor``
``/<root>``                     attribute ``emd_group_type`` = root
``/<root>/…/<node>``            ``emd_group_type`` = array, ``python_class`` = DataCube, VirtualImage, Probe …
``<node>/data``                 the array; (Rx, Ry, Qx, Qy) of a datacube, Rx being the slow scan axis
``<node>/dim0`` … ``dim3``      coordinates, mostly the first two only; attributes ``name`` and ``units``
``/<root>/metadatabundle/…``    ``python_class`` = Calibration: a dataset per value, see `CALIBRATION`
``/4DSTEM_experiment``          versions 0.5 to 0.13: ``data/datacubes/datacube_0`` with ``data`` or ``datacube`` and
                                ``dim1`` … ``dim4``; values as attributes of ``metadata/metadata_0/calibration``
==============================  =====================================================================================

Sources: py4dstem/emdfile (the EMD 1.0 specification and its writer), py4dstem/py4DSTEM (calibration, legacy layouts),
B. H. Savitzky et al., Microsc. Microanal. 27, 712 (2021). The order of the axes is kept: Rx is ``y`` and Qx is ``ky``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import FormatVersionError, UnknownFormatError
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import (
    Listed,
    ask_hdf5,
    attribute,
    attributes,
    dtype_of,
    find,
    number,
    open_hdf5,
    value_of,
    walk,
)
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore_readers.emd_ncem import labelled_arrays, labelled_axis
from stemstore_readers.header_values import quantity, words
from stemstore_readers.stated_axes import StatedAxis
from stemstore_readers.stored_arrays import Findings, choose_array, hdf5_source, header, one_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.sources.remote import Place

LEGACY = "4DSTEM_experiment"
VECTORS = "BraggVectors"
VERSION = 1

CALIBRATION: dict[str, tuple[str, ...]] = {
    "scan_step": ("R_pixel_size", "R_pix_size"),
    "scan_unit": ("R_pixel_units", "R_units"),
    "detector_step": ("Q_pixel_size", "Q_pix_size", "K_pix_size"),
    "detector_unit": ("Q_pixel_units", "Q_units", "K_units"),
    "rotation_deg": ("QR_rotation_degrees",),
    "rotation_rad": ("QR_rotation",),
    "transpose": ("QR_flip",),
    "origin_ky": ("qx0_mean", "qx0"),
    "origin_kx": ("qy0_mean", "qy0"),
    "semiangle": ("convergence_semiangle_mrad",),
}
"""What the calibration may state, and the names it had over the versions."""

MAX_ORIGINS = 2**24
"""Positions of an origin map that are averaged."""

AGREED = 1e-4
"""Part by which two statements of one value may differ; single precision is far below."""


class EmdPy4dstem:
    """Reader of the datacubes of py4DSTEM.

    Parameters
    ----------
    dataset
        Path of the array, or of the group around it, in a file with several; the largest datacube by default.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "emd_py4dstem"
    description: ClassVar[str] = "datacubes of py4DSTEM (EMD 1.0, and its versions 0.5 to 0.13)"
    extensions: ClassVar[tuple[str, ...]] = (".h5", ".emd", ".hdf5")

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the attributes of EMD 1.0 at the root, or for the group of older versions."""
        return ask_hdf5(url, first_bytes, _sureness)

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the file: labels and calibration, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the file holds no datacube.
        UnknownFormatError
            The file is no HDF5 file or not of py4DSTEM.
        FormatVersionError
            It was written by a newer version.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "py4DSTEM")
        with open_hdf5(path) as file:
            return self._open_legacy(path, file) if LEGACY in file else self._open(path, file)

    def _open(self, path: Place, file: Any) -> Hdf5Source:
        _check_version(path, file)
        arrays, cubes = emd_arrays(file)
        if not arrays:
            classes = sorted({words(attribute(item, "python_class")) or "" for _, item in walk(file)} - {""})
            hint = "open the vectors with stemstore.open_disks" if VECTORS in classes else "read it with py4DSTEM"
            msg = f"file {str(path)!r} holds no array but {', '.join(classes) or 'nothing'}; {hint}"
            raise UnknownFormatError(msg, url=str(path), found=classes)
        notes: list[str] = []
        chosen = choose_array(path, arrays if self.dataset else cubes or arrays, self.dataset, notes)
        root = chosen.name.strip("/").partition("/")[0]
        values = _calibration(file[root], notes)
        return self._make(file, chosen, arrays, values, notes)

    def _open_legacy(self, path: Place, file: Any) -> Hdf5Source:
        notes: list[str] = []
        arrays = labelled_arrays(file[LEGACY])
        arrays = [Listed(f"/{LEGACY}{one.name}", one.shape, one.dtype) for one in arrays]
        chosen = choose_array(path, arrays, self.dataset, notes)
        place = f"{LEGACY}/metadata/metadata_0/calibration"
        return self._make(file, chosen, arrays, attributes(file[place]) if place in file else {}, notes)

    def _make(
        self, file: Any, chosen: Listed, arrays: list[Listed], values: Mapping[str, Any], notes: list[str]
    ) -> Hdf5Source:
        group = find(file, chosen.name.rpartition("/")[0])
        stated = [labelled_axis(group, index, chosen.shape, notes) for index in range(len(chosen.shape))]
        said = {name: next((values[key] for key in keys if key in values), None) for name, keys in CALIBRATION.items()}
        found = Findings(
            shape=chosen.shape,
            stated=_calibrated(stated, said, notes),
            optics={
                "scan_rotation": quantity(_rotation(said, notes), "deg", signed=True),
                "semi_convergence_angle": quantity(said["semiangle"], "mrad"),
            },
            detector={"transpose": said["transpose"] if isinstance(said["transpose"], bool) else None},
            vendor=header(file, arrays),
            notes=notes,
        )
        if any(name in values for name in ("a", "b", "theta")):
            notes.append("the ellipse of the calibration stays in the original header; nothing is corrected for it")
        return hdf5_source(self.name, [Part.of(find(file, chosen.name))], found, self.scan_shape)


def _sureness(file: Any) -> float:
    if LEGACY in file:
        return 1.0
    names = set(file.attrs)
    return 1.0 if {"emd_group_type", "version_major"} <= names else 0.0


def _check_version(path: Place, file: Any) -> None:
    kind, version = words(attribute(file, "emd_group_type")), number(attribute(file, "version_major"))
    if kind != "file" or version is None:
        msg = (
            f"file {str(path)!r} has emd_group_type {kind!r} and holds {sorted(file)}, expected 'file' or the group "
            f"{LEGACY}; it is not of py4DSTEM"
        )
        raise UnknownFormatError(msg, url=str(path), found=kind, expected="file")
    if version != VERSION:
        msg = f"file {str(path)!r} is EMD {version:g}, known is EMD {VERSION}; update stemstore"
        raise FormatVersionError(msg, url=str(path), found=version, expected=VERSION)


def emd_arrays(file: Any) -> tuple[list[Listed], list[Listed]]:
    """List the arrays of an EMD 1.0 file, the largest first.

    Returns
    -------
    arrays, cubes
        All of them, and those that are scans: datacubes, arrays of four axes or more, and arrays of three axes that are
        no stack of labelled images. Nodes of unknown classes are no arrays and do no harm.
    """
    import h5py

    arrays, cubes = [], []
    for place, group in walk(file):
        item = group.get("data") if isinstance(group, h5py.Group) else None
        if not isinstance(item, h5py.Dataset) or words(attribute(group, "emd_group_type")) != "array":
            continue
        dtype = dtype_of(item)
        if dtype is None or not item.shape:
            continue
        one = Listed(f"{place}/data", tuple(item.shape), dtype)
        arrays.append(one)
        labels = group.get(f"dim{len(one.shape) - 1}")
        kind = words(attribute(group, "python_class"))
        labelled = labels is not None and words(attribute(labels, "name")) == "_labels_"
        if len(one.shape) > 3 or kind == "DataCube" or (kind == "Array" and not labelled):  # noqa: PLR2004 (a stack)
            cubes.append(one)
    return sorted(arrays, key=lambda one: -one.nbytes), sorted(cubes, key=lambda one: -one.nbytes)


def _calibration(root: Any, notes: list[str]) -> dict[str, Any]:
    """Take the values of the calibration below a root; maps are averaged."""
    import h5py

    place = root.get("metadatabundle")
    for _, group in walk(place) if isinstance(place, h5py.Group) else ():
        if isinstance(group, h5py.Group) and words(attribute(group, "python_class")) == "Calibration":
            held = {name: item for name in group if isinstance(item := group.get(name), h5py.Dataset)}
            if any((held[name].size or 0) > 1 for name in ("qx0", "qy0") if name in held):
                notes.append("the origin of every position (qx0, qy0) stays in the file; its mean is the optic axis")
            return {name: _value(group, name) for name in held}
    return {}


def _value(group: Any, name: str) -> Any:
    item = group[name]
    dtype = dtype_of(item)
    if dtype is None or dtype.kind not in "uif":
        value = value_of(group, name)
        return bool(value) if isinstance(value, np.bool_) else words(value)
    if not item.size or item.size > MAX_ORIGINS:
        return None
    value = np.asarray(item[()], dtype=np.float64)
    finite = value[np.isfinite(value)]
    return float(finite.mean()) if finite.size else None


def _rotation(said: Mapping[str, Any], notes: list[str]) -> float | None:
    """Rotation in degrees; where the two statements of it differ, the one in degrees counts."""
    degrees, radians = number(said["rotation_deg"]), number(said["rotation_rad"])
    other = None if radians is None else math.degrees(radians)
    if degrees is None or other is None:
        return other if degrees is None else degrees
    if abs(degrees - other) > AGREED * 360:
        notes.append(f"QR_rotation_degrees is {degrees:g} and QR_rotation is {other:g} degrees; the first is used")
    return degrees


def _calibrated(stated: list[StatedAxis | None], said: Mapping[str, Any], notes: list[str]) -> list[StatedAxis | None]:
    """Put the calibration in the place of what the dims say, and report where the two differ.

    The dims of the detector mix pixels and units once an origin was set, so that the origin comes from the calibration.
    """
    found = list(stated)
    places = range(len(stated) - 4, len(stated)) if len(stated) > 3 else range(1, 3)  # noqa: PLR2004 (a stack)
    for index in places:
        detector = index >= len(stated) - 2
        what = "detector" if detector else "scan"
        step, unit = number(said[f"{what}_step"]), words(said[f"{what}_unit"])
        own = found[index]
        if step is None or unit is None or (step == 1.0 and unit == "pixels" and own is None):
            continue
        label = f"dim {index}" if own is None else own.label
        center = number(said["origin_kx" if index == len(stated) - 1 else "origin_ky"]) if detector else None
        if own is not None and (unit != own.unit or abs(own.step - step) > AGREED * abs(step)):
            notes.append(
                f"the calibration says {step:g} {unit} for {label}, its dim {own.step:g} {own.unit}; dims yield"
            )
        kept = own.origin if own is not None and own.unit == unit else 0.0
        found[index] = StatedAxis(label, step, kept if center is None else -center * step, unit)
    return found
