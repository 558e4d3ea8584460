"""Berkeley (NCEM) EMD 0.2 files and the EMD files of the simulation program Prismatic.

======================  =============================================================================================
place                   content
======================  =============================================================================================
any group               attribute ``emd_group_type`` = 1 (number or text): one labelled array
``data``                the array; ``datacube`` or ``realslice`` in Prismatic files
``dim1`` … ``dimN``     coordinates of the array's first … last axis: one per index, or only the first two; texts are
                        labels; attributes ``name`` and ``units``
``microscope``, …       attributes: ``high tension`` (V), ``convergence angle`` (rad), ``camera length`` (m) …
``4DSTEM_simulation``   Prismatic; ``data/datacubes/CBED_array_depth0000`` … hold one output depth each
======================  =============================================================================================

Sources: the EMD 0.2 specification (emdatasets.com), ercius/openNCEM (``ncempy/io/emd.py``) for what is written,
prism-em/prismatic for the simulation parameters. Arrays keep the order of the file; programs that reverse it (HyperSpy)
show the transpose.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, UnknownFormatError
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
    text,
    value_of,
    walk,
)
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore_readers.header_values import mapped_fields, quantity, unix_time, words
from stemstore_readers.stated_axes import StatedAxis, kind_of_unit
from stemstore_readers.stored_arrays import Findings, choose_array, hdf5_source, header, listed, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place

PRISMATIC = "4DSTEM_simulation"
ARRAYS = ("data", "datacube", "realslice", "diffractionslice")
"""Names that the array of a group may have."""

MAX_COORDINATES = 2**20
"""Coordinates of one axis that are looked at."""

_DEPTH = re.compile(r"^(/4DSTEM_simulation/data/\w+/\w+depth)(\d+)(/\w+)$")
_PARAMETERS = f"{PRISMATIC}/metadata/metadata_0/original/simulation_parameters"

_ABOUT = {
    "operator": ("user/User name", "user/name"),
    "sample": ("sample/sample name", "sample/name", "sample/material"),
    "instrument": ("microscope/name",),
}
"""Texts of the acquisition and the attributes that may hold them."""


class EmdNcem:
    """Reader of NCEM EMD 0.2 and Prismatic files.

    Parameters
    ----------
    dataset
        Path of the array, or of the group around it, in a file with several; the largest one by default.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "emd_ncem"
    description: ClassVar[str] = "Berkeley (NCEM) EMD 0.2 and Prismatic simulations in HDF5"
    extensions: ClassVar[tuple[str, ...]] = (".emd", ".h5", ".hdf5")

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the version attributes of the root, or the group of Prismatic."""
        return ask_hdf5(url, first_bytes, lambda file: _sureness(file, url))

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the file: labels and metadata, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the file holds no stack of frames.
        UnknownFormatError
            The file is no HDF5 file or holds no group of an EMD array.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "EMD")
        with open_hdf5(path) as file:
            arrays = labelled_arrays(file)
            if not arrays:
                msg = f"file {str(path)!r} holds {sorted(file)} and no group with emd_group_type = 1; it is no NCEM EMD"
                raise UnknownFormatError(msg, url=str(path), found=sorted(file))
            return self._open(path, file, arrays)

    def _open(self, path: Place, file: Any, arrays: list[Listed]) -> Hdf5Source:
        notes: list[str] = []
        depths = [] if self.dataset else _depths(arrays)
        frames = arrays if self.dataset else _without_spectra(path, file, arrays)
        chosen = depths[0] if depths else choose_array(path, frames, self.dataset, notes)
        group = find(file, chosen.name.rpartition("/")[0] or "/")
        stated = [labelled_axis(group, index, chosen.shape, notes) for index in range(len(chosen.shape))]
        order = _order(stated)
        if order != tuple(range(len(order))):
            notes.append(f"{chosen.name} has the detector axes first; it is read with the scan axes first")
        found = Findings(
            shape=tuple(chosen.shape[axis] for axis in order),
            stated=[stated[axis] for axis in order],
            optics=_optics(file, group),
            vendor=header(file, arrays),
            notes=notes,
        )
        names = [one.name for one in depths] or [chosen.name]
        frame = (order[-2], order[-1])
        parts = [Part.of(find(file, name), scan_axes=order[:-2], frame_axes=frame) for name in names]
        if PRISMATIC in file:
            _as_simulated(found, attributes(file[_PARAMETERS]) if _PARAMETERS in file else {}, len(depths))
        return hdf5_source(self.name, parts, found, self.scan_shape)


def _sureness(file: Any, url: str) -> float:
    if PRISMATIC in file:
        return 1.0
    names = set(file.attrs)
    if "emd_group_type" in names or any(name.startswith("fpd") for name in names):
        return 0.0  # EMD 1.0, or the files of the fpd library
    if {"version_major", "version_minor"} <= names:
        return 0.95
    return 0.5 if url.lower().endswith(".emd") and "Version" not in file else 0.0


def labelled_arrays(file: Any) -> list[Listed]:
    """List the arrays of the groups that say they are EMD arrays, the largest first."""
    import h5py

    found = []
    for place, group in walk(file):
        if not isinstance(group, h5py.Group) or text(attribute(group, "emd_group_type")) != "1":
            continue
        for name in ARRAYS:
            item = group.get(name)
            dtype = dtype_of(item) if isinstance(item, h5py.Dataset) and item.shape else None
            if dtype is not None:
                found.append(Listed(f"{place}/{name}", tuple(item.shape), dtype))
                break
    return sorted(found, key=lambda one: -one.nbytes)


def _depths(arrays: list[Listed]) -> list[Listed]:
    """List the output depths of a simulated scan, in order; none unless there are several alike."""
    found = {match[2]: one for one in arrays if (match := _DEPTH.match(one.name)) and len(one.shape) == 4}  # noqa: PLR2004
    depths = [found[number] for number in sorted(found, key=int)]
    alike = len({(one.shape, one.dtype, one.name.rpartition("depth")[0]) for one in depths}) == 1
    return depths if alike and len(depths) > 1 else []


def _without_spectra(path: Place, file: Any, arrays: list[Listed]) -> list[Listed]:
    """Leave out arrays one of whose last two axes is an energy.

    Raises
    ------
    InputError
        Nothing is left.
    """
    frames = [one for one in arrays if "energy" not in _kinds(file, one)[-2:]]
    if not frames:
        msg = f"file {str(path)!r} holds spectra and no frames; name one with dataset=… if they are: {listed(arrays)}"
        raise InputError(msg, url=str(path), found=[one.name for one in arrays])
    return frames


def _kinds(file: Any, array: Listed) -> list[str]:
    """Tell what the axes of an array measure."""
    group = find(file, array.name.rpartition("/")[0] or "/")
    dims = [group.get(_dim_name(group, index)) for index in range(len(array.shape))]
    return ["" if dim is None else kind_of_unit(words(attribute(dim, "units")) or "") for dim in dims]


def _dim_name(group: Any, index: int) -> str:
    """Name the labels of an axis: dims count from 1, or from 0 where there is a dim0."""
    return f"dim{index + (0 if 'dim0' in group else 1)}"


def labelled_axis(group: Any, index: int, shape: tuple[int, ...], notes: list[str]) -> StatedAxis | None:
    """Read what the file states of one axis."""
    name = _dim_name(group, index)
    item = group.get(name)
    if item is None or getattr(item, "shape", None) is None:
        notes.append(f"{group.name} has no {name}; axis {index} counts indices")
        return None
    dtype = dtype_of(item)
    numbers = dtype is not None and dtype.kind in "uif" and item.size <= MAX_COORDINATES
    values = np.asarray(item[()]) if numbers else np.empty(0)
    label = words(attribute(item, "name")) or name
    return StatedAxis.of_values(label, values, shape[index], words(attribute(item, "units")) or "", notes)


def _order(stated: list[StatedAxis | None]) -> tuple[int, ...]:
    """Order of the axes with the scan in front, which the units of four axes may contradict."""
    order = tuple(range(len(stated)))
    kinds = [[one.kind() for one in pair if one is not None] for pair in (stated[:2], stated[2:])]
    return (2, 3, 0, 1) if len(stated) == 4 and kinds == [["diffraction"] * 2, ["length"] * 2] else order  # noqa: PLR2004


def _optics(file: Any, group: Any) -> dict[str, Any]:
    """Fields of the acquisition that the attributes state."""

    def look(path: str) -> Any:
        where, _, name = path.rpartition("/")
        return attribute(file[where], name) if where in file else None

    found = mapped_fields("emd", look)
    for name, places in _ABOUT.items():
        found[name] = next((said for place in places if (said := words(look(place)))), None)
    return found | {"start_time": unix_time(value_of(group, "acquisition times"))}


def _as_simulated(found: Findings, parameters: dict[str, Any], n_depths: int) -> None:
    """Read a Prismatic file with what its program is known to do: all lengths are in angstrom, whatever they say."""
    said = [one for one in found.stated if one is not None and one.unit]
    found.stated = [None if one is None else one.in_unit(_ANGSTROMS.get(one.kind(), one.unit)) for one in found.stated]
    if any("A" not in one.unit for one in said):
        found.notes.append("axes of Prismatic say [n_m] and are in angstrom; they are read so, scan_step=… overrides")
    found.optics["beam_energy"] = quantity(parameters.get("E"), "keV")
    found.optics["semi_convergence_angle"] = quantity(parameters.get("sa"), "mrad")
    found.optics["sample"] = words(parameters.get("i"))
    if n_depths:
        slices, thickness = number(parameters.get("ns")), number(parameters.get("s"))
        step = slices * thickness if slices and thickness else None
        start = number(parameters.get("zs")) or 0.0
        depth = None if step is None else StatedAxis("depth", step, max(start, step), "angstrom")
        found.shape, found.stated = (n_depths, *found.shape), [depth, *found.stated]
        found.notes.append(f"the axis 'frame' counts {n_depths} depths in the specimen")


_ANGSTROMS = {"length": "angstrom", "diffraction": "1/angstrom"}
