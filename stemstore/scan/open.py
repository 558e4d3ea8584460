"""Opening a scan: a finished store or the raw files of a detector, as the same lazy labelled dataset."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.errors import ScanWarning
from stemstore.scan.calibration import Calibration, complete_axes
from stemstore.scan.stated import ATTRIBUTES, apply_values
from stemstore.store.address import reach

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from stemstore.scan.corrected import Asked
    from stemstore.scan.lazy import ScanSource
    from stemstore.sources.contract import DetectorImage
    from stemstore_schemas import Acquisition, Axis, CalibrationValues


def open_scan(  # noqa: PLR0913 (the public door: every correction by its name)
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    reader: str | None = None,
    flyback: bool = False,
    allow_incomplete: bool = False,
    calibration: bool = True,
    dark: Any = None,
    gain: Any = None,
    bad_pixels: Any = None,
    mask: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_size: str | int | None = None,
    **options: Any,
) -> xr.Dataset:
    """Open a store or raw detector files as a lazy labelled dataset.

    Only headers and metadata are read; pixels are read when something is computed.

    Parameters
    ----------
    url
        A store, a raw file, a folder, or a list of files of one scan; paths, or URLs that fsspec knows.
    reader
        Name of the format of raw data; found by content when left out.
    flyback
        Show the columns recorded while the beam flew back; hidden by default.
    allow_incomplete
        Open a store whose conversion did not finish.
    calibration
        Put on the calibration that `save_calibration` left in a store; False ignores it.
    dark, gain : shape (ky, kx)
        Subtracted from every frame, and multiplied afterwards: an array; a ``.npy`` file, any file that a reader
        opens or a store, of which the mean frame (of a store its calibration of that name) is taken; or ``"detector"``,
        the image that the data carry. Nothing is applied unless it is asked for.
    bad_pixels : shape (ky, kx)
        True at pixels to be replaced by the mean of those of their eight neighbours that are good; given like `dark`,
        ``"detector"`` being the pixels outside the detector's mask.
    mask : shape (ky, kx)
        False at pixels that count as zero, last of all; given like `dark`.
    storage_options
        How a URL is reached, for fsspec's file system: ``{"anon": True}``, ``{"endpoint_url": "https://…"}``. What the
        environment or a profile says need not be repeated. Kept out of all messages, attributes and names of tasks.
    cache
        Folder on a local disk that keeps blocks of a finished remote store once they were read; any number of
        processes may share it. A store on this machine needs none.
    cache_size
        What the folder may take, such as ``"50GiB"``; 10 GiB by default (``STEMSTORE_CACHE_SIZE``). Blocks that were
        not used for longest go first.
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
        ``origin_kx`` (y, x), which operations follow. What a saved calibration or the files know of the detector is in
        the variables ``dark``, ``gain`` and ``mask`` (ky, kx; mask is true at usable pixels), which are not applied:
        they are for the arguments of these names. All are lazy. Frames that were corrected are float32 (float64 for
        wide pixels), those that are missing NaN; a mask alone keeps the type, and events stay events. The attribute
        ``history`` of ``intensity`` says what was applied, and a dark or gain that was is no variable.

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
    InputError
        A correction does not fit the detector, is not finite, or is not carried by the data.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> ds.intensity.isel(y=3, x=4).plot()  # doctest: +SKIP
    """
    given, reader_options = Calibration.split(options)
    found = find_scan(
        reach(url, storage_options, cache, cache_size),
        {"dark": dark, "gain": gain, "bad_pixels": bad_pixels, "mask": mask},
        reader=reader,
        allow_incomplete=allow_incomplete,
        calibration=calibration,
        options=reader_options,
    )
    for text in found.warnings:
        warnings.warn(f"{found.url}: {text}", ScanWarning, stacklevel=2)
    return dressed(found, given, flyback=flyback)


def dressed(found: Found, given: Calibration, *, flyback: bool) -> xr.Dataset:
    """Make the dataset of a scan that was found; parameters as of `open_scan`."""
    dataset = build(found.source, found.axes, found.acquisition, given, found.url, flyback=flyback, known=found.known)
    return dataset.assign_attrs(warnings=list(found.warnings)) if found.warnings else dataset


def find_scan(
    url: Any,
    wanted: Mapping[str, Any],
    *,
    reader: str | None = None,
    allow_incomplete: bool = False,
    calibration: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Found:
    """Open a store or raw files, without making a dataset of them.

    Parameters
    ----------
    url
        As of `open_scan`, with all that is needed to reach it.
    wanted
        Corrections by name.
    reader, allow_incomplete, calibration
        As of `open_scan`.
    options
        Of the reader.

    Raises
    ------
    StemStoreError
        As for `open_scan`.
    """
    from stemstore.scan.addresses import addresses
    from stemstore.scan.corrected import Asked
    from stemstore.scan.opening import store_at
    from stemstore.sources.references import references_of
    from stemstore.sources.registry import open_source
    from stemstore.sources.streaming import scan_source
    from stemstore.store.calibration import SavedCalibration, read_calibration

    paths, options = addresses(url), options or {}
    stored = None if reader is not None else store_at(paths, options, allow_incomplete=allow_incomplete)
    if stored is not None:
        document = stored.document
        saved = read_calibration(stored) if calibration else SavedCalibration()
        asked = Asked.of(wanted, (document.shape[-2], document.shape[-1]), saved.arrays)
        known = Known(saved.values, saved.arrays, saved.mark, asked)
        return Found(stored, document.axes, document.acquisition, known, paths[0])
    source = open_source(paths[0] if len(paths) == 1 else paths, reader=reader, **options)
    metadata, carried = source.metadata, references_of(source)
    known = Known(arrays=carried, asked=Asked.of(wanted, source.frame_shape, carried))
    return Found(scan_source(source), metadata.axes, metadata.acquisition, known, paths[0], tuple(metadata.warnings))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a scan besides its pixels and axes, and what is to be done about it.

    Attributes
    ----------
    values
        A saved calibration.
    arrays
        Saved maps of the optic axis, and the dark, gain and mask that the data carry.
    mark
        Changes when they are saved anew.
    asked
        Corrections to be applied; None for none.
    """

    values: CalibrationValues | None = None
    arrays: Mapping[str, DetectorImage] = field(default_factory=dict)
    mark: str = ""
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A scan that was opened, before a dataset is made of it.

    Attributes
    ----------
    source
        Its frames or events, not corrected.
    axes, acquisition
        What the data say.
    known
        What else is known, and is to be done.
    url
        Where it lies, without secrets; of several files the first.
    warnings
        What is odd about raw files.
    """

    source: Any
    axes: list[Axis]
    acquisition: Acquisition
    known: Known
    url: str
    warnings: tuple[str, ...] = ()


def build(
    source: Any,
    axes: list[Axis],
    acquisition: Acquisition,
    calibration: Calibration,
    url: str,
    *,
    flyback: bool,
    known: Known | None = None,
) -> xr.Dataset:
    """Dress a scan source as a dataset."""
    import xarray as xr

    import stemstore.scan.accessor  # noqa: F401  (registers ``result.stem``)
    from stemstore.scan.calibration_arrays import with_arrays
    from stemstore.scan.coordinates import scan_coordinates
    from stemstore.scan.corrected import corrected_source
    from stemstore.scan.lazy import ScanArray, require_classic_arrays
    from stemstore.scan.states import frame_states
    from stemstore.selection import Selection

    require_classic_arrays()
    known = known or Known()
    axes = complete_axes(axes, source.shape, acquisition)
    dims = tuple(axis.name for axis in axes)
    attrs = {"units": "count", "long_name": "intensity", **scan_attributes(acquisition, source)}
    shown = source
    if known.asked is not None:
        shown, attrs["history"] = corrected_source(source, known.asked), known.asked.history("open")
    array = ScanArray(shown, Selection.full(source.shape))
    coords = scan_coordinates(axes)
    states = frame_states(source, dims[:-2])
    if states is not None:
        coords["valid"] = states
    image = xr.DataArray(array, dims=dims, coords=coords, attrs=attrs, name="intensity")
    dataset = image.to_dataset().assign_attrs(source_url=url, **scan_attributes(acquisition, source))
    applied = {} if known.asked is None else known.asked.references
    left = {name: array for name, array in known.arrays.items() if name == "mask" or name not in applied}
    dataset, values = with_arrays(dataset, left, known.mark), calibration.values()
    if known.values is not None:
        values = known.values.merged(values)
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
