"""Groups of EMD 1.0 files: nodes with a class, and the values of their metadata.

Layout: py4dstem/emdfile, the EMD 1.0 specification. A node is a group with the attributes ``emd_group_type`` and
``python_class``; metadata of a node lie in its group ``metadatabundle``, one dataset or group for each value, with the
attribute ``type``.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore._version import __version__
from stemstore.sources.hdf5 import DAMAGE, attribute, dtype_of, text, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND, CLASS, TYPE, PROGRAM = "emd_group_type", "python_class", "type", "authoring_program"
BUNDLE = "metadatabundle"
MAX_VALUES = 2**24
"""Numbers of an array of metadata that are read: an origin for each position."""


def write_header(file: Any) -> None:
    """Mark an HDF5 file as EMD 1.0."""
    file.attrs[KIND] = "file"
    file.attrs["version_major"], file.attrs["version_minor"] = 1, 0
    file.attrs["UUID"] = str(uuid.uuid4())
    file.attrs[PROGRAM] = f"stemstore {__version__}"
    file.attrs["authoring_user"] = ""


def add_node(parent: Any, name: str, kind: str, cls: str | None = None) -> Any:
    """Make the group of a node."""
    group = parent.create_group(name)
    group.attrs[KIND] = kind
    if cls is not None:
        group.attrs[CLASS] = cls
    return group


def add_metadata(node: Any, name: str, values: Mapping[str, Any], cls: str = "Metadata") -> Any:
    """Write metadata of a node: texts, booleans, numbers, arrays, tuples of numbers and lists of texts."""
    bundle = node[BUNDLE] if BUNDLE in node else add_node(node, BUNDLE, BUNDLE)
    group = add_node(bundle, name, "metadata", cls)
    for key, value in values.items():
        _write(group, key, value)
    return group


def read_metadata(node: Any, name: str) -> dict[str, Any]:
    """Read metadata of a node: texts, booleans, numbers and arrays; all else is left out."""
    import h5py

    try:
        group = node[BUNDLE][name]
        names = [key for key in group if isinstance(group.get(key), h5py.Dataset)]
    except DAMAGE:
        return {}
    found = {key: _read(group, key) for key in names}
    return {key: value for key, value in found.items() if value is not None}


def is_class(group: Any, cls: str) -> bool:
    """Tell whether a group is a node of a class."""
    found = attribute(group, CLASS)
    return found is not None and text(found) == cls


def _write(group: Any, key: str, value: Any) -> None:
    import h5py

    kind, stored = "number", value
    if isinstance(value, str):
        kind, stored = "string", np.array(value, dtype=h5py.string_dtype())
    elif isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, np.ndarray):
        kind = "array"
    elif isinstance(value, tuple):
        kind, stored = "tuple", np.asarray(value)
    elif isinstance(value, list):
        texts = group.create_group(key)
        texts.attrs[TYPE], texts.attrs["length"] = b"list_of_strings", len(value)
        for number, one in enumerate(value):
            texts.create_dataset(str(number), data=one)
        return
    group.create_dataset(key, data=stored).attrs[TYPE] = kind.encode()


def _read(group: Any, key: str) -> Any:
    item = group[key]
    dtype = dtype_of(item)
    if dtype is None or dtype.kind not in "uifb":
        value = value_of(group, key)
        return None if value is None else text(value)
    if item.size > MAX_VALUES:
        return None
    value = np.asarray(item[()])
    return value if value.ndim else value.item()
