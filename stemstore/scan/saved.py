"""Calibrations saved from a dataset into a store, which opens with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError
from stemstore.scan.calibrate import calibrate
from stemstore.scan.calibration_arrays import ABOUT
from stemstore.scan.origins import ORIGIN
from stemstore.scan.provenance import history_entry
from stemstore.scan.stated import intensity, stated_values

if TYPE_CHECKING:
    import os

    import xarray as xr

    from stemstore._types import Array
    from stemstore.store.attached_array import AttachedArray
    from stemstore.store.open import StoredScan
    from stemstore_schemas import CalibrationDocument, CalibrationValues, HistoryEntry


def save_calibration(
    calibration: xr.Dataset | Mapping[str, Any], store: str | os.PathLike[str] | None = None
) -> CalibrationDocument:
    """Keep a calibration in a store, so that the store opens with it; the scan itself is not touched.

    Parameters
    ----------
    calibration
        A dataset: everything that was stated about it (at opening, by `calibrate`, or saved before), its coordinates
        ``origin_ky`` and ``origin_kx``, and its variables ``dark``, ``gain`` and ``mask`` (ky, kx), where there are
        such. They take the place of what was saved before. Or a mapping with the arguments of `calibrate` and with
        ``dark``, ``gain`` and ``mask`` (true at usable pixels), which are added to what was saved before.
    store
        Path or URL of the store. For a dataset that was opened from it, it need not be given; it must be for one of
        other data, such as the raw files that were converted, or a scan of vacuum.

    Returns
    -------
    document
        What the store holds now. Its history has the values of every time it was saved.

    Raises
    ------
    InputError
        The store is not named and `calibration` does not come from one; a map does not show all positions, or a frame
        not all pixels of the scan; or as for `calibrate`.
    NotFoundError, UnknownFormatError, ConversionIncompleteError
        There is no finished store.
    FormatVersionError
        A newer release saved a calibration there.

    Notes
    -----
    The store keeps it in ``calibration/saved``, plain Zarr of format 3. Arrays are in memory at once: two maps of 8
    bytes per position, and three frames.
    """
    import xarray as xr

    from stemstore.store.calibration import write_calibration
    from stemstore.store.open import open_store
    from stemstore_schemas import CalibrationDocument

    if isinstance(calibration, xr.Dataset):
        dataset, scan = calibration, open_store(_store_of(calibration, store))
        if store is None and dataset["intensity"].attrs.get("stemstore_uuid") != scan.uuid:
            msg = f"'{scan.url}' holds another scan than the dataset was opened from; open it again, or name a store"
            raise InputError(msg, url=scan.url, expected=scan.uuid)
    else:
        dataset = _calibrated(calibration, store)
        scan = open_store(_store_of(dataset, store))
    arrays = _arrays(dataset, scan)
    values = stated_values(dataset)
    history, warnings = _history_so_far(scan)
    document = CalibrationDocument(
        **{name: getattr(values, name) for name in type(values).model_fields},
        uuid=scan.uuid,
        arrays=sorted(arrays),
        history=[*history, _entry(values, arrays, intensity(dataset), warnings)],
    )
    write_calibration(scan.url, document, arrays)
    return document


def _store_of(dataset: xr.Dataset, store: Any) -> Any:
    if store is not None:
        return store
    url = dataset.attrs.get("source_url")
    if url is None:
        msg = "the dataset does not say which store it was opened from; name it with store=…"
        raise InputError(msg, key="store")
    return url


def _calibrated(values: Mapping[str, Any], store: Any) -> xr.Dataset:
    """Open the store, and state the values of a mapping about its scan."""
    from stemstore.scan.open import open_scan

    if not isinstance(values, Mapping) or store is None:
        msg = "a calibration is saved from a dataset, or from a mapping of values together with store=…"
        raise InputError(msg, found=type(values).__name__)
    dataset = open_scan(store)
    frames = {name: _frame(values[name], name, dataset) for name in ABOUT if values.get(name) is not None}
    stated: Any = {key: value for key, value in values.items() if key not in ABOUT}
    return calibrate(dataset, **stated).assign(frames)


def _frame(given: Any, name: str, dataset: xr.Dataset) -> tuple[tuple[str, str], Array]:
    values = np.asarray(getattr(given, "values", given))
    shape = dataset["intensity"].shape[-2:]
    if values.shape != shape:
        msg = f"{name} has shape {values.shape}, but the detector is {shape} (ky, kx)"
        raise InputError(msg, key=name, found=values.shape, expected=shape)
    return ("ky", "kx"), values


def _arrays(dataset: xr.Dataset, scan: StoredScan) -> dict[str, AttachedArray]:
    """Whole maps and frames of a dataset, in the order in which they are stored."""
    from stemstore.store.attached_array import AttachedArray

    names = tuple(axis.name for axis in scan.document.axes)
    arrays = {}
    for name in ORIGIN:
        if name in dataset.coords:
            about = {"units": "pixel", "long_name": f"optic axis along {name[-2:]} at each position"}
            values = _whole(dataset, name, names[:-2], scan)
            arrays[name] = AttachedArray(names[:-2], values, about)
    for name, about in ABOUT.items():
        if name in dataset.data_vars:
            values = _whole(dataset, name, names[-2:], scan)
            arrays[name] = AttachedArray(names[-2:], _checked(values, name), about)
    return arrays


def _whole(dataset: xr.Dataset, name: str, dims: tuple[str, ...], scan: StoredScan) -> Array:
    """Put the values that a dataset shows at their stored places; only columns of the flyback may lack (NaN)."""
    import xarray as xr

    array = dataset[name]
    shape = tuple(axis.size for axis in scan.document.axes if axis.name in dims)
    array = array.broadcast_like(xr.DataArray(np.empty([dataset.sizes.get(d, 0) for d in dims]), dims=dims))
    places, hidden = [], scan.document.acquisition.flyback_columns
    for dim, size in zip(dims, shape, strict=True):
        number = array.coords.get(f"{dim}_pixel")
        index = np.arange(array.sizes[dim]) if number is None else np.asarray(number.values).reshape(-1)
        shown = size - (hidden if dim == "x" else 0)
        if not set(range(shown)) <= set(index.tolist()) <= set(range(size)):
            msg = f"{name} shows {len(index)} of {size} places along {dim!r}; save the calibration of the whole scan"
            raise InputError(msg, key=name, found=len(index), expected=size)
        places.append(index.astype(np.int64))
    values = np.asarray(array.transpose(*dims).values)
    whole = np.full(shape, np.nan if values.dtype.kind == "f" else 0, values.dtype)
    whole[np.ix_(*places)] = values
    return whole


def _checked(values: Array, name: str) -> Array:
    """Refuse frames of the wrong kind."""
    fits = values.dtype == bool if name == "mask" else values.dtype.kind in "iuf" and bool(np.isfinite(values).all())
    if not fits:
        what = "boolean, true at usable pixels" if name == "mask" else "a frame of finite numbers"
        msg = f"{name} is {what}, got {values.dtype} of shape {values.shape}"
        raise InputError(msg, key=name, found=str(values.dtype))
    return values


def _history_so_far(scan: StoredScan) -> tuple[list[HistoryEntry], list[str]]:
    """History of what was saved before; what is damaged cannot be carried on, and the new entry says so."""
    from stemstore.store.calibration import read_calibration

    try:
        before = read_calibration(scan).document
    except CorruptDataError as error:
        return [], [f"replaces a calibration that could not be read: {error}"]
    return ([] if before is None else before.history), []


def _entry(
    values: CalibrationValues, arrays: dict[str, AttachedArray], image: xr.DataArray, warnings: list[str]
) -> HistoryEntry:
    from stemstore.store.commit import digest
    from stemstore_schemas import dump_document

    measured_on = image.attrs.get("stemstore_uuid")
    digests = {name: digest(np.ascontiguousarray(array.values).tobytes()) for name, array in arrays.items()}
    parameters = {**dump_document(values), "scan": measured_on}
    return history_entry("save_calibration", parameters, outputs=digests, warnings=warnings)
