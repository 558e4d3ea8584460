"""Saving results into the store of their scan, or into the series of their scans.

A result lies in the group ``derived/<name>`` of a finished store or of a series: plain Zarr, with coordinates,
attributes and a document that says what was done. The scan and its commit object stay as they are.
"""

from __future__ import annotations

import time
import uuid as uuids
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError
from stemstore.ops.saved.history import history_entries, history_lines
from stemstore.ops.saved.result_arrays import arrays_of, stored_attributes, stored_value, stream
from stemstore.ops.saved.results import open_result, url_of
from stemstore.scan.provenance import PACKAGES, history_entry
from stemstore.store.attached import check_json, check_name, create_group
from stemstore.store.metadata import ATTRIBUTE, DERIVED
from stemstore.store.series.holder import open_holder
from stemstore_schemas import ResultDocument, dump_document

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import xarray as xr

    from stemstore.store.series.holder import Holder
    from stemstore_schemas import HistoryEntry

UUID = "stemstore_uuid"
"""Attribute of scans, of series and of their results: which it is."""

_SOFTWARE = (*PACKAGES, "scipy", "xarray", "dask")


def save(
    result: xr.DataArray | xr.Dataset | Mapping[str, xr.DataArray],
    store: str | os.PathLike[str] | xr.Dataset,
    name: str,
    *,
    overwrite: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> xr.DataArray | xr.Dataset:
    """Save a result into the store of its scan.

    Lazy results are computed block by block while they are written, all variables in one pass over the scan; nothing
    is loaded whole. The scan itself is not touched.

    Parameters
    ----------
    result
        What an operation gave: a DataArray, a Dataset, or several DataArrays by name, lazy or in memory. Values are
        bool, integers, floats or complex numbers; coordinates may be texts.
    store
        A finished store or a series (path or URL), or the dataset that was opened from it.
    name
        Letters, digits, ``_``, ``-`` and ``.``.
    overwrite
        Replace a result of this name; the old one stays until the new one is whole.
    parameters
        Anything to be noted with it; JSON values.

    Returns
    -------
    saved
        The result as `open_result` opens it: lazy, its values read from the store when they are asked for.

    Raises
    ------
    InputError
        The result comes from another scan, or holds what cannot be stored: texts as values, objects, dates,
        coordinates of several variables that differ, attributes that are not JSON.
    DestinationExistsError
        The name is taken and `overwrite` is off.
    NotFoundError, UnknownFormatError, ConversionIncompleteError
        There is no finished store.
    StorageError
        The store cannot be written to.

    Notes
    -----
    The group carries the attribute ``stemstore`` (kind ``stemstore.result``): identity of the scan, operations and
    their parameters as the attribute ``history`` tells them, versions, time, machine, and warnings that were raised.
    On a server the metadata of the result are written last; locally its folder gets its name last. A killed writer
    leaves a folder ``derived/.part-…`` that may be removed. Memory per thread: a few chunks of 4 to 64 MiB and what
    the operation needs.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> stemstore.save(stemstore.center_of_mass(ds), ds, "com")  # doctest: +SKIP
    >>> stemstore.open_result(ds, "com").com_y  # doctest: +SKIP
    """
    url = url_of(store)
    scan = open_holder(url)
    dataset, form = _as_dataset(result, check_name(name))
    check_scan(dataset, scan.uuid, url)
    attributes = stored_attributes(dataset.attrs, name)
    noted = stored_value(parameters or {})
    check_json(attributes, name)
    check_json(noted, "parameters")
    arrays, texts = arrays_of(dataset)
    document = ResultDocument(
        uuid=str(uuids.uuid4()),
        scan=scan.uuid,
        name=name,
        **form,
        variables=[str(variable) for variable in dataset.data_vars],
        coordinates=[str(coordinate) for coordinate in dataset.coords],
        texts=texts,
        parameters=noted,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    further = [str(coordinate) for coordinate in dataset.coords if coordinate not in dataset.dims]
    if further:
        attributes["coordinates"] = " ".join(further)  # how xarray tells coordinates from data
    begun = time.monotonic()
    writer = create_group(url, f"{DERIVED}/{name}", arrays, replace=overwrite)
    try:
        with warnings.catch_warnings(record=True) as caught:
            stream(arrays, writer.targets)
        saving = _saving(scan, document, time.monotonic() - begun, [str(warning.message) for warning in caught])
        document = document.model_copy(update={"history": [*_history(dataset, document.time), saving]})
        writer.finish({**attributes, ATTRIBUTE: dump_document(document)})
    except BaseException:
        writer.abort()
        raise
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return open_result(url, name)


def _as_dataset(result: Any, name: str) -> tuple[xr.Dataset, dict[str, Any]]:
    """Give a result as a dataset, and what the document says about its form."""
    import xarray as xr

    if isinstance(result, xr.DataArray):
        own = str(result.name) if isinstance(result.name, str) else None
        free = [label for label in (own, name, "values") if label and label not in result.coords and _storable(label)]
        return result.rename(None).to_dataset(name=free[0]), {"form": "array", "array_name": own}
    if isinstance(result, xr.Dataset):
        dataset = result
    elif hasattr(result, "items") and all(isinstance(one, xr.DataArray) for _, one in result.items()):
        try:
            apart = [one.to_dataset(name=label) for label, one in result.items()]
            dataset = xr.merge(apart, compat="identical", join="exact", combine_attrs="override")
        except (ValueError, xr.MergeError) as error:
            msg = f"the arrays {list(result)} do not share their coordinates; save them under names of their own"
            raise InputError(msg, found=list(result)) from error
    else:
        msg = f"expected a DataArray, a Dataset or DataArrays by name, got {type(result).__name__}; label it first"
        raise InputError(msg, found=type(result).__name__)
    if not dataset.data_vars:
        msg = f"the result {name!r} has no variables; save something that was computed"
        raise InputError(msg, key=name)
    return dataset, {"form": "dataset"}


def _storable(label: str) -> bool:
    try:
        return bool(check_name(label))
    except InputError:
        return False


def check_scan(dataset: xr.Dataset, uuid: str, url: str) -> None:
    """Refuse the result of another scan."""
    for what, attrs in [("the result", dataset.attrs), *((repr(k), v.attrs) for k, v in dataset.data_vars.items())]:
        found = attrs.get(UUID)
        if found is not None and found != uuid:
            msg = (
                f"{what} comes from scan {found}, '{url}' holds scan {uuid}; save it into the store of its scan, or "
                f"remove its attribute {UUID!r} if it belongs here all the same"
            )
            raise InputError(msg, key=UUID, found=found, expected=uuid)


def _history(dataset: xr.Dataset, began: str) -> list[HistoryEntry]:
    """Operations that the attributes tell; what is lazy runs while it is saved, so they have that time."""
    variables = dataset.data_vars.values()
    return history_entries(history_lines([dataset.attrs, *(variable.attrs for variable in variables)]), began)


def _saving(scan: Holder, document: ResultDocument, seconds: float, told: list[str]) -> HistoryEntry:
    return history_entry(
        "save",
        {"name": document.name},
        packages=_SOFTWARE,
        inputs=[scan.described()],
        time=document.time,
        wall_seconds=seconds,
        warnings=told,
    )
