"""Opening a scan: a finished store or the raw files of a detector, as the same lazy labelled dataset."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, ScanWarning
from stemstore.scan.calibration import Calibration, complete_axes
from stemstore.scan.stated import ATTRIBUTES, apply_values

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import xarray as xr

    from stemstore.scan.lazy import ScanSource
    from stemstore.store.calibration import SavedCalibration
    from stemstore_schemas import Acquisition, Axis


def open_scan(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    reader: str | None = None,
    flyback: bool = False,
    allow_incomplete: bool = False,
    calibration: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Open a store or raw detector files as a lazy labelled dataset.

    Only headers and metadata are read; pixels are read when something is computed.

    Parameters
    ----------
    url
        A store (path or URL), a raw file, a folder, or a list of files of one scan.
    reader
        Name of the format of raw data; found by content when left out.
    flyback
        Show the columns recorded while the beam flew back; hidden by default.
    allow_incomplete
        Open a store whose conversion did not finish.
    calibration
        Put on the calibration that `save_calibration` left in a store; False ignores it.
    **options
        Calibration in place of what the data say (``beam_energy``, ``semi_convergence_angle``, ``camera_length``,
        ``scan_rotation``, ``scan_step``, ``detector_step``, ``detector_center``; numbers in keV, mrad, mm, deg, nm,
        mrad, pixel or texts with a unit such as ``"300 keV"``; see `calibrate`), and the options of the reader. They
        come before a saved calibration, which comes before what the data say.

    Returns
    -------
    dataset
        Variable ``intensity`` with dims (y, x, ky, kx), a leading ``frame`` for repeated frames; coordinates in
        physical units where calibrated, and the stored pixel numbers ``y_pixel`` … ``kx_pixel``. ``valid`` (y, x)
        is there when a frame is missing (0) or partial (1). A saved calibration adds the coordinates ``origin_ky`` and
        ``origin_kx`` (y, x), which operations follow, and the variables ``dark``, ``gain`` and ``mask`` (ky, kx), which
        are not applied: they are for the arguments of these names. All are lazy.

    Warns
    -----
    ScanWarning
        Raw files are odd (truncated, lost or double records) or something was guessed (the flyback column); the same
        lines stand in the attribute ``warnings``.

    Raises
    ------
    NotFoundError, UnknownFormatError, AmbiguousFormatError
        Nothing there, or not recognised.
    ConversionIncompleteError
        A store without its commit object.
    FormatVersionError
        A store or its saved calibration was written by a newer version.
    CorruptDataError
        The metadata of a store or its saved calibration are damaged, or contradict each other.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> ds.intensity.isel(y=3, x=4).plot()  # doctest: +SKIP
    """
    from stemstore.sources.files import path_texts
    from stemstore.sources.registry import open_source
    from stemstore.sources.streaming import scan_source
    from stemstore.store.calibration import read_calibration
    from stemstore.store.open import is_store, open_store
    from stemstore.store.urls import is_local

    given, reader_options = Calibration.split(options)
    paths = path_texts(url)
    if reader is None and len(paths) == 1 and (not is_local(paths[0]) or is_store(paths[0])):
        if reader_options:
            msg = f"{paths[0]!r} is a store and takes no options {sorted(reader_options)}; leave them out"
            raise InputError(msg, url=paths[0], found=sorted(reader_options))
        stored = open_store(paths[0], allow_incomplete=allow_incomplete)
        document = stored.document
        saved = read_calibration(stored) if calibration else None
        return build(stored, document.axes, document.acquisition, given, paths[0], flyback=flyback, saved=saved)
    source = open_source(paths[0] if len(paths) == 1 else paths, reader=reader, **reader_options)
    metadata = source.metadata
    for text in metadata.warnings:
        warnings.warn(f"{paths[0]}: {text}", ScanWarning, stacklevel=2)
    dataset = build(scan_source(source), metadata.axes, metadata.acquisition, given, paths[0], flyback=flyback)
    return dataset.assign_attrs(warnings=list(metadata.warnings)) if metadata.warnings else dataset


def build(
    source: Any,
    axes: list[Axis],
    acquisition: Acquisition,
    calibration: Calibration,
    url: str,
    *,
    flyback: bool,
    saved: SavedCalibration | None = None,
) -> xr.Dataset:
    """Dress a scan source as a dataset."""
    import numpy as np
    import xarray as xr

    import stemstore.scan.accessor  # noqa: F401  (registers ``result.stem``)
    from stemstore.scan.coordinates import scan_coordinates
    from stemstore.scan.lazy import ScanArray, require_classic_arrays
    from stemstore.scan.saved import with_saved_arrays
    from stemstore.selection import Selection

    require_classic_arrays()
    axes = complete_axes(axes, source.shape, acquisition)
    dims = tuple(axis.name for axis in axes)
    attrs = {"units": "count", "long_name": "intensity", **scan_attributes(acquisition, source)}
    array = ScanArray(source, Selection.full(source.shape))
    coords = scan_coordinates(axes)
    if source.validity is not None:
        flags = {"long_name": "state of the frame", "flag_values": [0, 1, 2], "flag_meanings": "missing partial valid"}
        valid = np.asarray(source.validity).reshape(source.shape[:-2])
        coords["valid"] = xr.Variable(dims[:-2], valid, flags)
    image = xr.DataArray(array, dims=dims, coords=coords, attrs=attrs, name="intensity")
    dataset = image.to_dataset().assign_attrs(source_url=url, **scan_attributes(acquisition, source))
    values = calibration.values()
    if saved is not None:
        dataset, values = with_saved_arrays(dataset, saved), saved.values.merged(values)
    if acquisition.flyback_columns and not flyback:
        dataset = dataset.isel(x=slice(None, dataset.sizes["x"] - acquisition.flyback_columns))
    return apply_values(dataset, values)


def scan_attributes(acquisition: Acquisition, source: ScanSource) -> dict[str, Any]:
    """Plain attributes that results inherit: identity and the acquisition's numbers in fixed units."""
    attrs: dict[str, Any] = {"stemstore_uuid": source.uuid}
    for name, attribute in ATTRIBUTES.items():
        quantity = getattr(acquisition, name)
        if quantity is not None:
            attrs[attribute] = quantity.value
    return attrs
