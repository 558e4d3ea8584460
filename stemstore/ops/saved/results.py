"""Opening the results that were saved into the store of their scan, and listing them.

`stemstore.ops.saved.save` tells how they lie there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError, FormatVersionError, InputError, NotFoundError, StemStoreError
from stemstore.ops.saved.result_arrays import LABELS, lazy_array, read_coordinates, restored, text_of
from stemstore.store.attached import check_name, list_groups, read_group
from stemstore.store.metadata import ATTRIBUTE, DERIVED
from stemstore.store.series.holder import open_holder
from stemstore_schemas import SchemaVersionError, load_result

if TYPE_CHECKING:
    import xarray as xr

    from stemstore.store.attached_array import StoredArray
    from stemstore_schemas import ResultDocument


@dataclass(frozen=True, slots=True)
class SavedVariable:
    """One array of a saved result.

    Attributes
    ----------
    dims, shape, dtype
        Of the array.
    units
        Unit of the values; None where it says nothing.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    units: str | None


@dataclass(frozen=True, slots=True)
class SavedResult:
    """What a store tells about a saved result.

    Attributes
    ----------
    name
        Under which `open_result` finds it.
    time
        When it was saved, ISO 8601, UTC.
    operation
        What was done last; None where the result carries no history.
    variables
        Its arrays by name, without coordinates.
    problem
        Why it cannot be opened; None where it can.
    """

    name: str
    time: str | None = None
    operation: str | None = None
    variables: dict[str, SavedVariable] = field(default_factory=dict)
    problem: str | None = None


def open_result(store: str | os.PathLike[str] | xr.Dataset, name: str) -> xr.Dataset | xr.DataArray:
    """Open a saved result lazily.

    Parameters
    ----------
    store
        The store (path or URL), or the dataset that was opened from it.
    name
        As it was saved; `results` lists the names.

    Returns
    -------
    result
        A DataArray where one was saved, else a Dataset; equal to what was saved. Coordinates are in memory, values are
        dask arrays over the stored chunks. In attributes tuples have become lists.

    Raises
    ------
    NotFoundError
        There is no such store or no such result.
    FormatVersionError
        The result was saved by a newer version.
    CorruptDataError
        The result is damaged.

    Notes
    -----
    Reading values of a local result that was overwritten since raises `StaleStoreError`; on a server nothing tells, so
    open it again after overwriting.
    """
    import xarray as xr

    import stemstore.scan.accessor  # noqa: F401  # results can be drawn

    url = url_of(store)
    found = _read(url, check_name(name))
    if found is None:
        raise _no_result(url, name)
    document, attributes, arrays = found
    values = read_coordinates(arrays[coordinate] for coordinate in document.coordinates)
    coords = {}
    for coordinate, numbers in zip(document.coordinates, values, strict=True):
        about = restored(arrays[coordinate].attributes)
        labels = about.pop(LABELS, None) if coordinate in document.texts else None
        shown = numbers if labels is None else text_of(numbers, labels)
        coords[coordinate] = xr.Variable(arrays[coordinate].dims, shown, about)
    variables = {
        variable: xr.Variable(stored.dims, lazy_array(stored, document.uuid), restored(stored.attributes))
        for variable in document.variables
        for stored in [arrays[variable]]
    }
    dataset = xr.Dataset(variables, coords=coords, attrs=restored(attributes))
    if document.form == "dataset":
        return dataset
    return dataset[document.variables[0]].rename(document.array_name)


def results(store: str | os.PathLike[str] | xr.Dataset) -> dict[str, SavedResult]:
    """List the saved results of a store.

    Parameters
    ----------
    store
        The store (path or URL), or the dataset that was opened from it.

    Returns
    -------
    results
        What is known of each result, by name; no value is read. A result that cannot be opened says why in
        ``problem``.

    Raises
    ------
    NotFoundError, UnknownFormatError
        There is no such store.
    """
    url = url_of(store)
    names = list_groups(url, DERIVED)
    if not names:
        open_holder(url, allow_incomplete=True)  # tells what is wrong where there is no store at all
    return {name: _listed(url, name) for name in names}


def describe_result(store: str | os.PathLike[str] | xr.Dataset, name: str) -> ResultDocument:
    """Read what a store says about a saved result: what it is and where it comes from; no value is read.

    Parameters and errors as for `open_result`.
    """
    url = url_of(store)
    found = _read(url, check_name(name))
    if found is None:
        raise _no_result(url, name)
    return found[0]


def _no_result(url: str, name: str) -> NotFoundError:
    """Make the error for a result that is not there; raises what is wrong with the store, if it is the store."""
    open_holder(url)
    msg = f"'{url}' has no result {name!r}; it has {', '.join(list_groups(url, DERIVED)) or 'none'}"
    return NotFoundError(msg, url=url, key=name)


def url_of(store: Any) -> str:
    """Path or URL of a store, or of what a dataset was opened from.

    Raises
    ------
    InputError
        It is neither.
    """
    attributes = getattr(store, "attrs", {})
    found = attributes.get("source_url", store)
    if "source_urls" in attributes and found is store:
        msg = (
            "the dataset shows scans that lie apart, so it has no place for results; name one, or make a series of "
            "the scans with stemstore.index_series and open that"
        )
        raise InputError(msg, found=attributes["source_urls"])
    if not isinstance(found, (str, os.PathLike)):
        msg = (
            f"expected the path of a store or a dataset opened from one, got {type(store).__name__}; "
            "pass the path, or what stemstore.open returned"
        )
        raise InputError(msg, found=type(store).__name__)
    return os.fspath(found)


def _read(url: str, name: str) -> tuple[ResultDocument, dict[str, Any], dict[str, StoredArray]] | None:
    """Read the document of a result, its attributes and its arrays; None where there is none."""
    found = read_group(url, f"{DERIVED}/{name}")
    if found is None:
        return None
    attributes, arrays = found
    try:
        document = load_result(attributes.pop(ATTRIBUTE))
        lost = {*document.variables, *document.coordinates} - arrays.keys()
        if lost:
            msg = f"the arrays {sorted(lost)} are missing"
            raise ValueError(msg)  # noqa: TRY301 - told like any other damage
    except SchemaVersionError as error:
        msg = f"cannot open the result {name!r} of '{url}': {error}"
        raise FormatVersionError(msg, url=url, found=error.found, expected=error.known) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        where = f"{url}/{DERIVED}/{name}"
        msg = f"'{where}' is no saved result of stemstore, or is damaged ({error}); look at it with zarr.open"
        raise CorruptDataError(msg, url=url, key=name) from error
    attributes.pop("coordinates", None)
    return document, attributes, arrays


def _listed(url: str, name: str) -> SavedResult:
    try:
        found = _read(url, name)
    except StemStoreError as error:
        return SavedResult(name, problem=str(error))
    if found is None:
        return SavedResult(name, problem="it was removed while the results were listed")
    document, _, arrays = found
    variables = {
        variable: SavedVariable(stored.dims, stored.shape, str(stored.dtype), stored.attributes.get("units"))
        for variable in document.variables
        for stored in [arrays[variable]]
    }
    done = [entry.operation for entry in document.history[:-1]]
    return SavedResult(name, document.time, done[-1] if done else None, variables)
