"""Bragg disks of a whole scan: positions and intensities of all diffraction disks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from stemstore.errors import InputError
from stemstore.ops.disks.detection import NAMES, Detection, DetectionOptions, dims_of
from stemstore.ops.disks.run import find_in_memory, find_in_store
from stemstore.ops.disks.table import COLUMNS
from stemstore.ops.labels import labelled
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import os

    import xarray as xr

    from stemstore.kernels.disks.plan import DiskOptions
    from stemstore.progress import Progress


def find_disks(  # noqa: PLR0913  # the public door: every option by its name
    scan: Any,
    template: Any | None = None,
    *,
    radius: float | None = None,
    roi: Any | None = None,
    bad_pixels: Any | None = None,
    mask: Any | None = None,
    dark: Any | None = None,
    gain: Any | None = None,
    store: str | os.PathLike[str] | xr.Dataset | None = None,
    name: str = "disks",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Unpack[DiskOptions],
) -> xr.Dataset:
    """Find the Bragg disks of every diffraction pattern, now.

    Positions are those of the patterns as stored: nothing is centred, rotated or corrected for distortion.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    template : `stemstore.ops.disks.template.Template`, or shape (ky, kx)
        Of the probe, from `disk_template`; or an image of it: a vacuum pattern, or a mean pattern whose brightest disk
        is the unscattered one. Without it the disk is synthetic.
    radius : unit pixel
        Radius of the disks; required without a template.
    roi : shape of the scan, bool
        Positions to look at; all others get no disks and are marked by the coordinate ``processed``.
    bad_pixels : shape (ky, kx), bool
        Pixels that do not count.
    mask : shape (ky, kx), bool, or a virtual detector
        Pixels that count; False for those behind a beam stop.
    dark, gain : shape (ky, kx)
        Detector corrections, as in `virtual_image`.
    store
        Store of the scan (path, URL, or the dataset that was opened from it) that keeps the result; every finished
        piece is kept from the moment it is there.
    name
        Of the result in the store.
    resume
        Go on with an unfinished run of this name and the same parameters, or open its finished result. The end is the
        same to the last byte as without a stop.
    overwrite
        Replace a result, or an unfinished run, of this name.
    progress
        Receives the advance, in patterns.
    **options
        See `stemstore.kernels.disks.plan.DiskOptions`: ``min_spacing``, ``edge_boundary``, ``sigma_detect``,
        ``min_abs``, ``significance``, ``min_rel``, ``max_peaks`` …, lengths in pixels; all follow from the radius.

    Returns
    -------
    disks : dims of the scan, peak, bound
        ``qy``, ``qx`` (row and column on the visible detector, pixel), ``intensity`` (counts above the surrounding
        background), ``correlation`` (value of the detection map), ``sigma_q`` (expected precision of the position per
        axis, pixel), all along ``peak``. The disks of the flat position i
        (C order of the scan) are ``offset[i] : offset[i + 1]``, largest correlation first; ``n_disks`` is a map. The
        coordinate ``processed`` tells an empty pattern from one that was not looked at; patterns that lack sectors are
        searched, and ``valid`` is 1 there. ``ky`` and ``kx`` are the axes of the detector. Attributes hold all
        parameters after defaults, the history, and ``n_full``, the number of patterns whose list may be cut. In memory;
        with `store` lazy, as `open_result` gives it.

    Raises
    ------
    InputError
        Neither radius nor template is given, an option is unknown or out of range, a shape does not fit, the scan is
        not that of the store, or a run that is to be resumed had other parameters.
    DestinationExistsError
        The store has a result or an unfinished run of this name.
    MemoryBudgetError
        One worker does not fit the budget.
    DisksInterrupted
        The user interrupted the run (a `KeyboardInterrupt`). Without a store its attribute ``disks`` has what was
        found; with one the finished pieces lie there and ``resume=True`` goes on.

    Warns
    -----
    DiskWarning
        There are no disks at all, or lists were cut at ``max_peaks``.

    Notes
    -----
    Method: see `stemstore.kernels.correlation` and `stemstore.kernels.disks.search`. Tasks of about a second run on the
    scheduler that dask is set to. Memory per worker: one decoded piece of the scan, its lists (20 bytes for each of
    max_peaks), and about six frames in single precision; fewer threads are used where all of them would exceed
    ``STEMSTORE_MAX_MEMORY``. The result takes about 20 bytes per disk, twice that while it is put together; with
    `store` it is put together in chunks of 4 MiB.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> disks = stemstore.find_disks(ds, radius=8, store=ds)  # doctest: +SKIP
    >>> disks.n_disks.plot()  # doctest: +SKIP
    """
    pixels: DetectionOptions = {"roi": roi, "bad_pixels": bad_pixels, "mask": mask, "dark": dark, "gain": gain}
    detection = Detection.of(scan, template, radius, **pixels, **options)  # type: ignore[misc]  # two halves of one dict
    if store is not None:
        return find_in_store(detection, store, name, resume=resume, overwrite=overwrite, progress=progress)
    if resume or overwrite:
        msg = "resume= and overwrite= are about a result in a store; pass store=… as well"
        raise InputError(msg, key="store")
    return find_in_memory(detection, progress)


def disk_lists(
    scan: Any, template: Any | None = None, *, radius: float | None = None, **options: Unpack[DetectionOptions]
) -> xr.Dataset:
    """Find Bragg disks lazily, as lists of fixed length: to be computed in one pass with other results.

    Parameters
    ----------
    scan, template, radius, **options
        As for `find_disks`.

    Returns
    -------
    lists : dims (…scan, disk), lazy
        The variables of `find_disks` with ``max_peaks`` places for each position, NaN behind the last disk, and
        ``n_disks``.

    Raises
    ------
    InputError
        As for `find_disks`.

    Notes
    -----
    Memory: 20 bytes per place. A scan of 512 x 512 positions with 70 places takes 370 MB.

    Examples
    --------
    >>> lists = disk_lists(ds, radius=8)  # doctest: +SKIP
    >>> image, lists = stemstore.compute(stemstore.virtual_image(ds, detector), lists)  # doctest: +SKIP
    """
    import xarray as xr

    detection = Detection.of(scan, template, radius, **options)
    image, dims = detection.image, (*dims_of(detection), "disk")
    data = map_kernel(image.data, detection.kernel, detection.keep)
    columns = {name: labelled(data[..., n], image, dims, detection.history) for n, name in enumerate(NAMES)}
    count = columns["correlation"].notnull().sum("disk").assign_attrs(units="count", long_name="number of disks")
    units = {"intensity": image.attrs.get("units", "count")}
    described = {
        name: column.assign_attrs(units=units.get(name, COLUMNS[name][0]), long_name=COLUMNS[name][1])
        for name, column in columns.items()
    }
    lists = xr.Dataset({**described, "n_disks": count}, attrs=detection.attributes)
    keep = detection.keep
    return lists if keep is None else lists.assign_coords(processed=(dims_of(detection), keep))
