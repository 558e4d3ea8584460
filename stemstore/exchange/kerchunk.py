"""References in the two forms of kerchunk: one JSON document (version 1), or a folder of Parquet files.

Both hold the metadata of a Zarr group of format 2 (fsspec/kerchunk, "References specification"; the Parquet form as
``fsspec.implementations.reference.LazyReferenceMapper`` reads it):

=====================================  ================================================================================
JSON                                   content
=====================================  ================================================================================
``refs/.zgroup``, ``…/.zarray`` …      metadata, also together under ``.zmetadata``
``refs/intensity/0.3.0.0``             ``[url, offset, length]``
``refs/valid/0.0``                     ``base64:…``, the bytes themselves
=====================================  ================================================================================

In the other form ``.zmetadata`` has the metadata, and ``<array>/refs.<n>.parq`` the chunks in C order, so many a file:
columns ``path``, ``offset`` and ``size``, or ``raw`` for the bytes themselves. A null path is an absent chunk.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import OptionalDependencyError
from stemstore.exchange.reference_labels import MARK
from stemstore.sources.frame_extents import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr

    from stemstore._types import Array
    from stemstore.exchange.references import References

METADATA = ".zmetadata"

RECORD = 50_000
"""References in a Parquet file: every look at one of them reads the file."""

HEAD = 2**16
"""Bytes at the start of a JSON document that hold the attributes of its group."""


def write_json(path: Path, references: References, labels: xr.Dataset) -> None:
    """Write one JSON document.

    Parameters
    ----------
    path
        The file.
    references, labels
        Chunks in files that are named by their URLs, and what stands beside them.

    Notes
    -----
    Written piece by piece: memory does not grow with the number of chunks.
    """
    inline, documents = _inline(labels, references)
    named = [json.dumps(link) for link in references.files]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"version": 1, "refs": {\n')
        for key, document in documents.items():
            file.write(f"{json.dumps(key)}: {json.dumps(json.dumps(document))},\n")
        for key, body in inline.items():
            file.write(f"{json.dumps(key)}: {json.dumps('base64:' + base64.b64encode(body).decode())},\n")
        for place, number, offset, length in _pieces(references):
            key = ".".join(map(str, place))
            file.write(f'"{references.array.name}/{key}": [{named[number]}, {offset}, {length}],\n')
        file.write(f"{json.dumps(METADATA)}: {json.dumps(json.dumps(_consolidated(documents)))}\n}}}}\n")


def write_parquet(folder: Path, references: References, labels: xr.Dataset) -> None:
    """Write a folder of Parquet files; parameters as of `write_json`.

    Raises
    ------
    OptionalDependencyError
        The package fastparquet is not installed.
    """
    inline, documents = _inline(labels, references)
    folder.mkdir()
    head = _consolidated(documents) | {"record_size": RECORD}
    (folder / METADATA).write_text(json.dumps(head), encoding="utf-8")
    for key, body in inline.items():
        target = folder / key.rpartition("/")[0] / "refs.0.parq"
        target.parent.mkdir()
        _write_table(target, {"raw": np.array([body], object)}, text=None)
    links = np.array([*references.files, None], object)
    number = np.where(references.offset == NOWHERE, -1, references.number).reshape(-1)
    offset = np.where(number < 0, 0, references.offset.reshape(-1))
    length = np.where(number < 0, 0, references.length.reshape(-1) - references.array.suffix)
    target = folder / references.array.name
    target.mkdir()
    for at, start in enumerate(range(0, len(number), RECORD)):
        part = slice(start, start + RECORD)
        columns = {"path": links[number[part]], "offset": offset[part], "size": length[part]}
        # words of a dictionary are smaller, but fsspec takes an absent one for a number
        _write_table(target / f"refs.{at}.parq", columns, text="path", few=bool((number[part] >= 0).all()))


def require_parquet() -> None:
    """Make sure that Parquet can be written.

    Raises
    ------
    OptionalDependencyError
        The package fastparquet is not installed.
    """
    if importlib.util.find_spec("fastparquet") is None:
        msg = (
            'references in Parquet need the package fastparquet; pip install "stemstore[references]", or write a .json'
        )
        raise OptionalDependencyError(msg, package="fastparquet")


def owns_json(path: Path) -> bool:
    """Whether a file holds references that were exported from here."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(HEAD)


def owns_parquet(folder: Path) -> bool:
    """Whether a folder holds references that were exported from here, and nothing else."""
    if not (folder / METADATA).is_file() or MARK not in (folder / METADATA).read_text("utf-8", errors="replace"):
        return False
    others = [path for path in folder.iterdir() if path.name != METADATA]
    inside = itertools.chain.from_iterable(path.iterdir() if path.is_dir() else [path] for path in others)
    return all(path.name.startswith("refs.") and path.suffix == ".parq" for path in inside)


def _inline(labels: xr.Dataset, references: References) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """Let xarray write what stands beside the chunks; gives chunks by key, and metadata by key, the group's first."""
    held: dict[str, Any] = {}
    encoding = {name: {"chunks": variable.shape} for name, variable in labels.variables.items() if variable.ndim}
    labels.to_zarr(held, zarr_format=2, consolidated=False, encoding=encoding)
    written = {key: body.to_bytes() for key, body in held.items()}
    documents = {key: json.loads(body) for key, body in sorted(written.items()) if key.rpartition("/")[2][:2] == ".z"}
    array = references.array
    documents |= {f"{array.name}/{name}": document for name, document in array.to_v2().items()}
    return {key: body for key, body in written.items() if key not in documents}, documents


def _consolidated(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"zarr_consolidated_format": 1, "metadata": documents}


def _pieces(references: References) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Give place in the grid, file, offset and length of every chunk that is there."""
    suffix = references.array.suffix
    for row in np.ndindex(references.offset.shape[:-1]):
        numbers, offsets, lengths = (
            values[row].tolist() for values in (references.number, references.offset, references.length)
        )
        for last, (number, offset, length) in enumerate(zip(numbers, offsets, lengths, strict=True)):
            if offset != NOWHERE:
                yield (*row, last), number, offset, length - suffix


def _write_table(path: Path, columns: dict[str, Array], *, text: str | None, few: bool = False) -> None:
    import fastparquet
    import pandas as pd

    table = pd.DataFrame({name: pd.Series(column, dtype=column.dtype) for name, column in columns.items()})
    if few and text is not None:
        table[text] = table[text].astype("category")
    coded = {"raw": "bytes"} if text is None else {text: "utf8"}
    fastparquet.write(
        str(path),
        table,
        compression="ZSTD",
        object_encoding=coded,
        has_nulls=[*coded],
        stats=False,
        write_index=False,
    )
