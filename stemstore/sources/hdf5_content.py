"""What lies inside an HDF5 file: its objects, and their attributes and small values as plain Python.

Damaged files name objects that are none and types that crash the library. Only numbers and texts are read here, none
longer than metadata are, and every walk through a file ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_OBJECTS = 100_000
"""Objects of one file that are looked at; a circle of links ends here at the latest."""

MAX_DEPTH = 32
"""Groups inside groups that are followed."""

MAX_VALUES = 256
"""Numbers of an array that are quoted in metadata; longer ones are described by shape and type."""

MAX_TEXT = 2**20
"""Characters of a text that are quoted in metadata."""

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, EOFError, MemoryError)
"""What h5py raises over a damaged file."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One dataset of numbers in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of the pixels, unit byte."""
        return math.prod(self.shape) * self.dtype.itemsize


def walk(group: Any) -> Iterator[tuple[str, Any]]:
    """Visit every group and dataset below a group once, in the order of the file's names.

    Soft links are left out, because what they lead to is visited under its own name; so are links that lead nowhere.

    Raises
    ------
    CorruptDataError
        There are more than `MAX_OBJECTS`.
    """
    import h5py

    seen: set[tuple[int, Any]] = set()
    todo = [("", group, 0)]
    while todo:
        prefix, parent, depth = todo.pop()
        below = []
        for name in parent:
            try:
                if parent.get(name, getclass=True, getlink=True) is h5py.SoftLink:
                    continue
                child = parent[name]
                info = h5py.h5o.get_info(child.id)
            except DAMAGE:
                continue
            if (mark := (info.fileno, info.addr)) in seen:
                continue
            seen.add(mark)
            if len(seen) > MAX_OBJECTS:
                msg = f"HDF5 file {group.file.filename!r} has more than {MAX_OBJECTS} objects; it is no scan"
                raise CorruptDataError(msg, url=group.file.filename, expected=MAX_OBJECTS)
            place = f"{prefix}/{text(name)}"
            yield place, child
            if isinstance(child, h5py.Group) and depth < MAX_DEPTH:
                below.append((place, child, depth + 1))
        todo.extend(reversed(below))


def datasets(group: Any, min_ndim: int = 2) -> list[Listed]:
    """List the datasets of numbers below a group, the largest first."""
    import h5py

    found = []
    for name, item in walk(group):
        if isinstance(item, h5py.Dataset) and item.shape is not None and item.ndim >= min_ndim:
            dtype = dtype_of(item)
            if dtype is not None and dtype.kind in "uifcb":
                found.append(Listed(name, tuple(item.shape), dtype))
    return sorted(found, key=lambda one: -one.nbytes)


def dtype_of(dataset: Any) -> np.dtype[Any] | None:
    """Type of a dataset; None for one that NumPy does not know."""
    try:
        return np.dtype(dataset.dtype)
    except (TypeError, ValueError, RuntimeError):
        return None


def text(value: Any) -> str:
    """Read a text as files hold it: str, bytes of any encoding, an array of one text; padding removed."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")  # what h5py could not decode
    if not isinstance(value, bytes):
        return str(value)
    value = value.rstrip(b"\0")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def number(value: Any) -> float | None:
    """Read one number as files hold it: a scalar, an array of one, a text; None where it is none or not finite."""
    array = np.asarray(value)
    if array.size != 1:
        return None
    try:
        found = float(text(array.reshape(-1)[0])) if array.dtype.kind in "OSU" else float(array.reshape(-1)[0])
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def plain(value: Any) -> Any:
    """Turn a value of an attribute or dataset into what JSON knows; an array of one becomes its element."""
    if isinstance(value, (str, bytes, np.bytes_)):
        return text(value)[:MAX_TEXT]
    array = np.asarray(value)
    if array.dtype.kind not in "biufcSUO" or (array.dtype.kind == "O" and array.ndim == 0):
        return str(value)[:MAX_TEXT]
    if array.size > MAX_VALUES:
        return {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size == 1:
        array = array.reshape(())
    if array.dtype.kind in "SUO":
        texts = [text(one)[:MAX_TEXT] for one in array.reshape(-1)]
        return texts if array.ndim else texts[0]
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # noqa: PLR2004 (Python knows double precision)
        array = array.astype(np.float64)
    return [str(one) for one in array.reshape(-1)] if array.dtype.kind == "c" else array.tolist()


def attributes(item: Any) -> dict[str, Any]:
    """All attributes of an object as plain values; one that is no number or text says so."""
    found: dict[str, Any] = {}
    for name in item.attrs:
        try:
            found[text(name)] = plain(_attribute(item, name))
        except DAMAGE as error:
            found[text(name)] = f"left out: {error}"
    return found


def attribute(item: Any, name: str) -> Any:
    """One attribute as it is stored; None where it is absent or unreadable."""
    try:
        return _attribute(item, name) if name in item.attrs else None
    except DAMAGE:
        return None


def value_of(group: Any, name: str) -> Any:
    """Content of a small dataset as it is stored; None where it is absent, long, linked to nowhere or unreadable."""
    try:
        item = group.get(name)
        return None if item is None or item.shape is None or item.size > MAX_VALUES else _value(item)
    except (*DAMAGE, AttributeError):  # AttributeError: a group
        return None


def _attribute(item: Any, name: str | bytes) -> Any:
    import h5py

    stored = h5py.h5a.open(item.id, name if isinstance(name, bytes) else name.encode())  # bytes: not UTF-8
    _refuse(stored.get_type(), 0 if stored.shape is None else math.prod(stored.shape))
    return item.attrs[name]


def _value(dataset: Any) -> Any:
    _refuse(dataset.id.get_type(), dataset.size)
    return dataset[()]


def _refuse(kind: Any, count: int) -> None:
    """Refuse values that are no numbers or texts: a damaged type of variable length crashes HDF5."""
    import h5py

    classes = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.BITFIELD, h5py.h5t.ENUM)
    if kind.get_class() not in classes or count * kind.get_size() > MAX_TEXT:
        msg = f"{count} values of type {type(kind).__name__} of {kind.get_size()} bytes are not quoted"
        raise ValueError(msg)


def quote(group: Any) -> dict[str, Any]:
    """Everything below a group that fits metadata: attributes under ``@name``, small datasets as values.

    Raises
    ------
    CorruptDataError
        As for `walk`.
    """
    import h5py

    found: dict[str, Any] = {f"@{name}": value for name, value in attributes(group).items()}
    for name, item in walk(group):
        key = name.lstrip("/")
        found.update({f"{key}@{at}": value for at, value in attributes(item).items()})
        if isinstance(item, h5py.Dataset):
            found[key] = _content(item)
    return found


def _content(dataset: Any) -> Any:
    if dataset.shape is None:
        return None
    dtype = dtype_of(dataset)
    if dtype is None or dataset.size > MAX_VALUES:
        return {"shape": list(dataset.shape), "dtype": str(dtype)}
    try:
        return plain(_value(dataset))
    except DAMAGE as error:
        return f"left out: {error}"
