"""What stands beside the pixels in virtual references: coordinates, the state of frames, attributes and origin."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore._version import __version__

if TYPE_CHECKING:
    import xarray as xr

    from stemstore.exchange.references import References

MARK = "stemstore_references"
"""Attribute that says what references were made of."""

VERSION = 1


def labels_of(dataset: xr.Dataset, references: References) -> xr.Dataset:
    """Gather what is written out beside the references, in memory.

    Parameters
    ----------
    dataset
        An opened scan.

    Returns
    -------
    labels
        Its coordinates as variables, without its pixels; detector rows in the order of the files. The attribute
        `MARK` is JSON: files with their sizes and times, by which a replaced one is noticed.
    """
    labels = dataset.coords.to_dataset().load()
    if references.rows_reversed:
        labels = labels.isel(ky=slice(None, None, -1))
    origin = {
        "kind": "references",
        "version": VERSION,
        "program": f"stemstore {__version__}",
        "sources": [file.model_dump(mode="json", exclude_none=True) for file in references.sources],
        "rows_reversed": references.rows_reversed,
    }
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    history = f"{now} stemstore {__version__}: references to {references.n_chunks} pieces of files"
    attributes = plain(dataset.attrs) | {"history": history, MARK: json.dumps(origin)}
    return labels.reset_coords().assign_attrs(attributes)


def coordinate_names(dataset: xr.Dataset) -> str:
    """Name the coordinates that are no axes, as the attribute ``coordinates`` of CF lists them."""
    return " ".join(sorted(str(name) for name in dataset.coords if name not in dataset.dims))


def plain(values: Any) -> Any:
    """Make attributes JSON can hold."""
    if isinstance(values, dict):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain(value) for value in values]
    return values.tolist() if isinstance(values, (np.ndarray, np.generic)) else values
