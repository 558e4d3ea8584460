"""A labelled result as the arrays of a group, and back: texts among the coordinates, attributes, lazy values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.store.attached_array import AttachedArray, chunk_extents
from stemstore_schemas.record import NONFINITE, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr

    from stemstore._types import Array
    from stemstore.store.attached_array import StoredArray, Target

LABELS = "labels"
"""Attribute of a coordinate of texts: the texts that its values number."""

RESERVED = {LABELS, "coordinates", "stemstore"}
"""Attributes with a meaning of their own in the stored group."""

_READERS = 8  # requests under way at once; a result rarely has more coordinates


def arrays_of(dataset: xr.Dataset) -> tuple[dict[str, AttachedArray], list[str]]:
    """Give the arrays of a dataset as they are stored.

    Returns
    -------
    arrays
        By name, coordinates first; lazy values stay lazy.
    texts
        Coordinates that are texts and are stored as numbers of their attribute `LABELS`.

    Raises
    ------
    InputError
        A length is unknown, or an attribute has a reserved name.
    """
    arrays: dict[str, AttachedArray] = {}
    texts = []
    for name, variable in {**dataset.coords, **dataset.data_vars}.items():
        attributes = stored_attributes(variable.attrs, str(name))
        values = variable.data
        values = values if hasattr(values, "dask") else np.asarray(values)
        if name in dataset.coords and _is_text(values):
            values, attributes[LABELS] = _numbered(np.asarray(values))
            texts.append(str(name))
        if any(math.isnan(n) for n in values.shape):
            msg = f"the shape {values.shape} of {name!r} is not known before it is computed; call .compute() first"
            raise InputError(msg, key=str(name), found=str(values.shape))
        blocks = tuple(max(sizes, default=1) for sizes in values.chunks) if hasattr(values, "dask") else None
        chunk = chunk_extents(values.shape, values.dtype.itemsize, blocks)
        dims = tuple(str(dim) for dim in variable.dims)
        arrays[str(name)] = AttachedArray(dims, values, attributes, chunk)
    return arrays, texts


def stored_attributes(attributes: Any, where: str) -> dict[str, Any]:
    """Turn attributes into JSON values, see `stored_value`.

    Raises
    ------
    InputError
        An attribute has a reserved name.
    """
    found: dict[str, Any] = stored_value(attributes)
    if taken := sorted(RESERVED & found.keys()):
        msg = f"attribute {taken[0]!r} of {where!r} has a meaning of its own in a store; rename it before saving"
        raise InputError(msg, key=taken[0])
    return found


def stored_value(value: Any) -> Any:
    """Turn NumPy values and tuples into JSON values, NaN and infinity into the texts that `restored` knows."""
    if isinstance(value, Mapping):
        return {str(plain(key)): stored_value(item) for key, item in value.items()}
    value = plain(value)
    if isinstance(value, list):
        return [stored_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def restored(value: Any) -> Any:
    """Turn the texts of NaN and infinity back into numbers."""
    if isinstance(value, dict):
        return {key: restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restored(item) for item in value]
    return float(value) if isinstance(value, str) and value in NONFINITE else value


def stream(arrays: dict[str, AttachedArray], targets: dict[str, Target]) -> None:
    """Write all arrays, lazy ones block by block and together, so that a scan is read once for all.

    Memory per thread: a few chunks of the widest array, and what its operation needs.
    """
    from stemstore.ops.shared import compute

    lazy = []
    for name, target in targets.items():
        values = arrays[name].values
        if not math.prod(values.shape):
            continue
        if hasattr(values, "dask"):
            lazy.append(_written(values.rechunk(target.info.chunk), target))
        else:
            target.write((0,) * values.ndim, values)
    compute(*lazy)


def lazy_array(stored: StoredArray, identity: str) -> Any:
    """Dask array over the chunks of a stored one; `identity` is that of the result."""
    import dask.array as da
    from dask.base import tokenize

    name = f"result-{tokenize(stored.url, stored.info.path, identity)}"
    meta = np.empty((0,) * stored.ndim, stored.dtype)
    return da.from_array(stored, chunks=stored.chunk, name=name, meta=meta, inline_array=True)


def read_coordinates(stored: Iterable[StoredArray]) -> list[Array]:
    """Read several small arrays at once; texts are put in place of their numbers."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda one: one.read(), stored))


def text_of(numbers: Array, labels: list[str]) -> Array:
    """Texts that the values of a coordinate number."""
    return np.array(labels, dtype=str)[numbers] if labels else np.empty(numbers.shape, "U1")


def _written(values: Any, target: Target) -> Any:
    """Lazy array of one zero per chunk that was written."""
    ones = tuple((1,) * len(sizes) for sizes in values.chunks)
    meta = np.empty((0,) * values.ndim, np.uint8)
    name = f"save-{values.name}-{target.info.path}"
    return values.map_blocks(_write_block, target=target, name=name, chunks=ones, dtype=np.uint8, meta=meta)


def _write_block(block: Array, target: Target, block_id: tuple[int, ...]) -> Array:
    """Task: write one chunk."""
    start = tuple(number * extent for number, extent in zip(block_id, target.info.chunk, strict=True))
    target.write(start, np.asarray(block))
    return np.zeros((1,) * block.ndim, np.uint8)


def _is_text(values: Any) -> bool:
    kind = values.dtype.kind
    return kind in "UT" or (kind == "O" and all(isinstance(value, str) for value in np.asarray(values).flat))


def _numbered(values: Array) -> tuple[Array, list[str]]:
    labels, numbers = np.unique(values.astype(str), return_inverse=True)
    return numbers.reshape(values.shape).astype(np.int32), labels.tolist()
