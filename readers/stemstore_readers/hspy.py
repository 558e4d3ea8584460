"""HyperSpy files in HDF5 (``.hspy``); the tree is described in `stemstore_readers.hyperspy_signal`.

Metadata may hold texts that HyperSpy once evaluated or unpickled; here they are texts. Ragged arrays are declined.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from stemstore.errors import UnknownFormatError
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import (
    Listed,
    ask_hdf5,
    attribute,
    attributes,
    dtype_of,
    find,
    open_hdf5,
    text,
    value_of,
)
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore_readers.hyperspy_signal import Signal, check_version, choose_signal, describe_signal
from stemstore_readers.stored_arrays import hdf5_source, header, one_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EXPERIMENTS = "Experiments"
_OLD_AXES = re.compile(r"^_list_\d+_axes$")


class Hspy:
    """Reader of HyperSpy signals in HDF5.

    Parameters
    ----------
    dataset
        Path of the signal, or of its array, in a file with several; the largest one by default.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "hspy"
    description: ClassVar[str] = "HyperSpy signals in HDF5"
    extensions: ClassVar[tuple[str, ...]] = (".hspy", ".hdf5")

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the group of signals and the attribute that names the program."""
        return ask_hdf5(url, first_bytes, lambda file: float(EXPERIMENTS in file and "file_format" in file.attrs))

    def __call__(self, url: str | list[str]) -> Hdf5Source:
        """Open the file: axes and metadata, no pixel.

        Raises
        ------
        InputError
            Several files were given, or no signal has scan axes and two detector axes.
        UnknownFormatError, FormatVersionError
            The file is no HDF5 file, not of HyperSpy, or of a newer version.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, ".hspy")
        notes: list[str] = []
        with open_hdf5(path) as file:
            check_version(path, attributes(file), "HyperSpy")
            if EXPERIMENTS not in file:
                msg = f"file {str(path)!r} holds {sorted(file)}, expected {EXPERIMENTS}; save the signal again"
                raise UnknownFormatError(msg, url=str(path), found=sorted(file))
            signals = list(_signals(file))
            chosen = choose_signal(path, signals, self.dataset, notes)
            group = find(file, chosen.array.name.rpartition("/")[0])

            def look(names: str) -> Any:
                *parents, name = names.split(".")
                tree = "metadata" if "metadata" in group else "mapped_parameters"
                place = "/".join((tree, *parents))
                return attribute(group[place], name) if place in group else None

            vendor = header(file, [one.array for one in signals])
            found, order = describe_signal(chosen, look, vendor, notes)
            frame = (order[-2], order[-1])
            part = Part.of(find(file, chosen.array.name), scan_axes=order[:-2], frame_axes=frame)
            return hdf5_source(self.name, [part], found, self.scan_shape)


def _signals(file: Any) -> Iterator[Signal]:
    """Find the signals of a file."""
    import h5py

    top = file[EXPERIMENTS]
    for title in top if isinstance(top, h5py.Group) else ():
        group = top.get(title)
        data: Any = group.get("data") if isinstance(group, h5py.Group) else None
        dtype = dtype_of(data) if isinstance(data, h5py.Dataset) and data.shape else None
        if dtype is not None:
            array = Listed(f"/{EXPERIMENTS}/{title}/data", tuple(data.shape), dtype)
            yield Signal(array, tuple(_axis(group, index) for index in range(data.ndim)))


def _axis(group: Any, index: int) -> Mapping[str, Any]:
    """Attributes of one axis, with its uneven coordinates; nothing where the file has no such axis."""
    import h5py

    names = [f"axis-{index}", *(f"{name}/{index}" for name in group if _OLD_AXES.match(text(name)))]
    axis = next((found for name in names if isinstance(found := group.get(name), h5py.Group)), None)
    if axis is None:
        return {}
    uneven = value_of(axis, "axis")
    return {name: attribute(axis, name) for name in axis.attrs} | ({} if uneven is None else {"axis": uneven})
