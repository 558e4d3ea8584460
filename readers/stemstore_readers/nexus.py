"""NeXus files: the default plot, any ``NXdata`` or ``NXdetector``, NXem; and any dataset of an HDF5 file by its path.

================================  ===================================================================================
object                            meaning
================================  ===================================================================================
``@default`` of root and groups   name of the group that leads to the data to show
group, ``@NX_class`` = NXdata     data with their axes
… ``@signal``                     name of the dataset; older: the dataset itself has ``@signal`` = 1
… ``@axes``                       one name per axis, ``.`` for none; older: on the dataset, separated by colons
… ``@<name>_indices``             axis that the coordinates ``<name>`` belong to
coordinates                       ``@units``, ``@scaling_factor``, ``@offset``
``@interpretation``               ``image``: the last two axes are the detector; ``spectrum``: no detector frames
================================  ===================================================================================

Sources: NeXus manual and FAIRmat-NFDI/nexus_definitions (NXdata, NXem, NXimage); hyperspy/rosettasciio
(``rsciio/nexus``) for files of Diamond Light Source and HyperSpy. Descending axes keep the sign of their step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, StemStoreError, UnknownFormatError
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import Listed, ask_hdf5, attribute, datasets, dtype_of, find, open_hdf5, text, walk
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore.sources.references import KnownImage
from stemstore_readers.header_values import words
from stemstore_readers.nexus_labels import axis_names, describe_entry, pixel_mask, split_axes, stated_axes
from stemstore_readers.stated_axes import kind_of_unit
from stemstore_readers.stored_arrays import Findings, choose_array, hdf5_source, header, listed, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place

DATA_CLASSES = ("NXdata", "NXdetector")
MIN_AXES = 3
MAX_STEPS = 16
"""Groups that a chain of defaults may lead through."""

ASKED = 16
"""Groups of the root whose class is asked for when a file is recognised."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A dataset that a group calls its data.

    Attributes
    ----------
    group
        Path of the group; empty for a dataset that the user named.
    array
        The dataset.
    """

    group: str
    array: Listed


class Nexus:
    """Reader of NeXus files, and of HDF5 files whose dataset is named.

    Parameters
    ----------
    dataset
        Path of the dataset, or of the group around it; any dataset of three to six axes will do. By default the data
        that the file says to show, else the largest.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "nexus"
    description: ClassVar[str] = "NeXus (NXdata, NXem), and any HDF5 dataset by its path"
    extensions: ClassVar[tuple[str, ...]] = (".nxs", ".nx5", ".h5", ".hdf5")

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        if dataset is not None and not isinstance(dataset, str):
            msg = f"option dataset={dataset!r} is no path inside a file; expected a text such as '/entry/data/data'"
            raise InputError(msg, key="dataset", found=dataset)
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the class of the root or of its groups; any other HDF5 file is a last resort."""
        return ask_hdf5(url, first_bytes, _sureness)

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the file: labels and metadata, no pixel.

        Raises
        ------
        InputError
            Several files were given, there is no such dataset, or the data are no stack of frames.
        UnknownFormatError
            The file is no HDF5 file, or holds no NeXus data and no dataset was named.
        NotFoundError
            A linked file is missing.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "NeXus")
        with open_hdf5(path) as file:
            notes: list[str] = []
            signals = self._signals(path, file)
            array = choose_array(path, [one.array for one in signals], None, notes)
            (chosen,) = (one for one in signals if one.array is array)
            return self._source(file, chosen, notes)

    def _source(self, file: Any, chosen: Signal, notes: list[str]) -> Hdf5Source:
        dataset, group = find(file, chosen.array.name), file[chosen.group] if chosen.group else None
        names = axis_names(group, dataset)
        stated = stated_axes(group, dataset.shape, names, notes)
        order = split_axes(names, stated, image=_interpretation(group, dataset) == "image", notes=notes)
        found = Findings(
            shape=tuple(dataset.shape[axis] for axis in order),
            stated=[stated[axis] for axis in order],
            vendor=header(file, [chosen.array]),
            notes=notes,
        )
        describe_entry(file, chosen.array.name, found)
        part = Part.of(dataset, scan_axes=order[:-2], frame_axes=(order[-2], order[-1]))
        files = tuple(dict.fromkeys((file.filename, *part.files)))  # the data may be in a linked file
        mask = pixel_mask(file, chosen.array.name, part.frame_shape, notes)
        source = hdf5_source(self.name, [replace(part, files=files)], found, self.scan_shape)
        return source if mask is None else replace(source, references={"mask": KnownImage(mask)})

    def _signals(self, path: Place, file: Any) -> list[Signal]:
        """List data that may be frames: those that are named, those that the file says to show, or all of them."""
        if self.dataset is not None:
            return [_named(path, file, self.dataset)]
        shown = _default(file)
        if shown is not None and len(shown.array.shape) >= MIN_AXES and not _is_spectrum(file, shown):
            return [shown]
        signals, failures = [], []
        for name, item in walk(file):
            if _is_data(item):
                try:
                    signals.append(_signal(item, name))
                except StemStoreError as error:
                    failures.append(error)
        signals = [signal for signal in signals if signal.array.shape]
        if not signals and failures:
            raise failures[0]
        arrays = [signal.array for signal in signals] or datasets(file, MIN_AXES)
        frames = [signal for signal in signals if not _is_spectrum(file, signal)]
        if not frames:
            what = "spectra and no frames" if signals else "no NeXus data"
            msg = f"file {str(path)!r} holds {what}; name one with reader='nexus', dataset=…: {listed(arrays)}"
            raise UnknownFormatError(msg, url=str(path), found=[array.name for array in arrays])
        return frames


def _sureness(file: Any) -> float:
    """Look for the attribute of a class; its text may lie far away in the file, and is not read."""
    import h5py

    if "NX_class" in file.attrs:
        return 0.8
    for name in itertools.islice(file, ASKED):
        is_link = file.get(name, getlink=True, getclass=True) is not h5py.HardLink
        if not is_link and "NX_class" in file[name].attrs:
            return 0.8
    return 0.0 if "electron_events" in file else 0.2


def _named(path: Place, file: Any, wanted: str) -> Signal:
    """Find the dataset that the user names, or the data of the group."""
    name = "/" + wanted.strip("/")
    if name not in file:
        msg = f"option dataset={wanted!r} names nothing in {str(path)!r}; there are {listed(datasets(file, MIN_AXES))}"
        raise InputError(msg, key="dataset", found=wanted)
    item = find(file, name)
    if not hasattr(item, "shape"):
        return _signal(item, name)
    around = name.rpartition("/")[0]
    return Signal(around if around and _is_data(file[around]) else "", _listed(name, item))


def _default(file: Any) -> Signal | None:
    """Follow the default groups from the root to the data that the file says to show."""
    group, name = file, ""
    for _ in range(MAX_STEPS):
        step = text(attribute(group, "default") or "").strip("/")
        if not step or step not in group:
            break
        group, name = find(group, step), f"{name}/{step}"
        if hasattr(group, "shape"):
            return None
    return _signal(group, name) if _is_data(group) else None


def _signal(group: Any, name: str) -> Signal:
    """Find the data of a group: named by it, marked by themselves, or called ``data``; no shape where it has none."""
    key = text(attribute(group, "signal") or "")
    if not key or key not in group:
        key = next((one for one in group if _is_marked(group.get(one))), "data")
    item = find(group, key) if key in group else None
    return Signal(name, _listed(f"{name}/{text(key)}", item))


def _listed(name: str, item: Any) -> Listed:
    shape = getattr(item, "shape", None) or ()
    return Listed(name, tuple(shape), (dtype_of(item) if shape else None) or np.dtype("V1"))


def _is_data(item: Any) -> bool:
    return not hasattr(item, "shape") and text(attribute(item, "NX_class")) in DATA_CLASSES


def _is_marked(item: Any) -> bool:
    return hasattr(item, "shape") and text(attribute(item, "signal")) == "1"


def _is_spectrum(file: Any, signal: Signal) -> bool:
    """Whether the file says so, or says nothing and one of the last two axes is an energy."""
    group, dataset = file[signal.group], find(file, signal.array.name)
    stated = _interpretation(group, dataset)
    if stated or not hasattr(dataset, "ndim"):
        return stated == "spectrum"
    axes = [group.get(name) for name in axis_names(group, dataset)[-2:] if name is not None]
    return any(kind_of_unit(words(attribute(axis, "units")) or "") == "energy" for axis in axes if axis is not None)


def _interpretation(group: Any, dataset: Any) -> str:
    """Tell what the last axes are: ``image``, ``spectrum``, something else, or nothing."""
    stated = None if group is None else attribute(group, "interpretation")
    return text(attribute(dataset, "interpretation") or "" if stated is None else stated)
