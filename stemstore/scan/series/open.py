"""Opening many scans of one experiment: as one lazy dataset with an axis in front, or as a tree of scans."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, NotFoundError, ScanWarning, StaleStoreError, StemStoreError
from stemstore.scan.calibration import SCAN_DIMS, Calibration
from stemstore.scan.open import find_scan
from stemstore.scan.series.agreement import difference
from stemstore.scan.series.dataset import Opened, one_dataset, one_tree
from stemstore.scan.series.members import meant
from stemstore.selection import DETECTOR_AXES
from stemstore.store.series.entry import in_parallel

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from stemstore.scan.open import Found
    from stemstore.scan.series.members import Meant, Named

    PathLike = str | os.PathLike[str]

TAKEN = ("y", "x", "ky", "kx", "frame", "scan", "scan_uuid")
"""Names that the axis in front cannot have."""


def open_series(  # noqa: PLR0913 (the public door: every correction by its name, as in `stemstore.open`)
    urls: PathLike | Sequence[Any] | Mapping[str, Any],
    *,
    dim: str | None = None,
    tree: bool | None = None,
    reader: str | None = None,
    flyback: bool = False,
    calibration: bool = True,
    dark: Any = None,
    gain: Any = None,
    bad_pixels: Any = None,
    mask: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    cache: PathLike | None = None,
    cache_size: str | int | None = None,
    **options: Any,
) -> xr.Dataset | xr.DataTree:
    """Open many scans together; only headers and metadata are read.

    Parameters
    ----------
    urls
        A series (see `stemstore.convert_series` and `stemstore.index_series`), a folder of stores, a pattern such as
        ``"day_3/*.zarr"``, a list of stores or raw scans, or a mapping from names to these; paths, or URLs that fsspec
        knows. What lies in a series but not in its index is not shown.
    dim
        Name of the axis in front; that of the index, or ``"time"``.
    tree
        False: one dataset, or an error where the scans do not fit together. True: a tree in any case. By default one
        dataset where they fit, else a tree.
    reader, flyback, calibration, dark, gain, bad_pixels, mask, storage_options, cache, cache_size
        As of `stemstore.open`, for every scan; ``"detector"`` means what each of them carries.
    **options
        As of `stemstore.open`: a calibration stated here holds for all scans, in place of what they say, and options of
        the reader.

    Returns
    -------
    scans
        A Dataset like that of one scan, ``intensity`` with the dims (time, y, x, ky, kx). The coordinate ``time`` holds
        the places of the index in their unit; where it has none, seconds since the first scan began (its attribute
        ``since``) if all scans tell when, else numbers. ``scan`` and ``scan_uuid`` tell which scan it is. What scans
        have of their own has the axis in front too: ``valid``, ``origin_ky``, ``origin_kx``, ``dark``, ``gain`` and
        ``mask``, the images only where all scans have them. ``ds.isel(time=3)`` is the array of the fourth scan. Or a
        DataTree with a node for each scan, whose attribute ``not_one_array`` says why.

    Warns
    -----
    ScanWarning
        The scans do not fit together and become a tree; or as for `stemstore.open`.

    Raises
    ------
    NotFoundError
        There is nothing, or a scan of the series is missing.
    StaleStoreError
        A store of the series was replaced by another scan.
    UnknownFormatError, FormatVersionError, CorruptDataError
        The index is none, was written by a newer release, or is damaged; or as for `stemstore.open`.
    InputError
        The scans do not fit together and `tree` is False; the message names scan and property. Or two scans have the
        same name.

    Notes
    -----
    Scans fit together where shape, kind of data (frames or events), flyback, calibration of all axes, beam energy,
    convergence, camera length, rotation and ellipse are the same: coordinates to a hundredth of a pixel, values to
    1e-6. Integers of several widths become the widest. Each task of an operation lies within one scan, and stores on
    servers are opened many at a time.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open_series("experiment.zarr")  # doctest: +SKIP
    >>> com = stemstore.center_of_mass(ds)  # dims (time, y, x)  # doctest: +SKIP
    """
    given, reader_options = Calibration.split(options)
    which = meant(urls, {"storage_options": storage_options, "cache": cache, "cache_size": cache_size})
    if not which.scans:
        where = "" if which.series is None else f"'{which.series.url}'"
        msg = f"the series {where} has no scans yet; add some with stemstore.convert_series or stemstore.index_series"
        raise NotFoundError(msg, url=where)
    name = _axis(dim, which)

    def look(scan: Named) -> Found:
        wanted = {"dark": dark, "gain": gain, "bad_pixels": bad_pixels, "mask": mask}
        return _found(scan, which, wanted, reader=reader, calibration=calibration, options=reader_options)

    found = in_parallel(look, which.scans)
    for one in found:
        for text in one.warnings:
            warnings.warn(f"{one.url}: {text}", ScanWarning, stacklevel=2)
    if any(name in SCAN_DIMS[len(one.source.shape) - DETECTOR_AXES] for one in found):
        msg = f"the scans have an axis {name!r} of their own; name the one in front otherwise, with dim="
        raise InputError(msg, key="dim", found=name)
    opened = Opened(which, found, name, given, flyback)
    if tree:
        return one_tree(opened, None)
    apart = difference(opened.names, found, given)
    if apart is None:
        return one_dataset(opened)
    if tree is False:
        advice = apart.hint or "leave such scans out"
        msg = f"the scans do not fit into one array: {apart}; {advice}, or open a tree with tree=True"
        raise InputError(msg, key=apart.key, scan=apart.scan, found=apart.found, expected=apart.expected)
    told = f"{apart}{f'; {apart.hint}' if apart.hint else ''}"
    warnings.warn(f"the scans do not fit into one array and become a tree: {told}", ScanWarning, stacklevel=2)
    return one_tree(opened, told)


def _axis(dim: str | None, which: Meant) -> str:
    known = "time" if which.series is None else which.series.document.dim
    name = known if dim is None else dim
    if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
        msg = f"dim={dim!r} cannot name the axis in front; choose a word other than {', '.join(TAKEN)}"
        raise InputError(msg, key="dim", found=dim)
    return name


def _found(scan: Named, which: Meant, wanted: Mapping[str, Any], **options: Any) -> Found:
    """Open one scan, and make sure that it is the one of the index."""
    try:
        found = find_scan(scan.url, wanted, **options)
    except NotFoundError as error:
        if which.series is None:
            raise
        msg = (
            f"scan {scan.name!r} of the series '{which.series.url}' is missing: {error}; put its store back, or take "
            "it out of the index with stemstore.index_series(…, renew=True)"
        )
        raise NotFoundError(msg, url=which.series.url, scan=scan.name) from error
    except StemStoreError as error:
        error.add_note(f"scan {scan.name!r} of the series")
        raise
    if scan.entry is not None and found.source.uuid != scan.entry.uuid:
        place = "" if which.series is None else which.series.url
        msg = (
            f"scan {scan.name!r} of the series '{place}' was replaced: its store holds {found.source.uuid}, the index "
            f"says {scan.entry.uuid}; put the old store back, or accept the new one with "
            "stemstore.index_series(…, renew=True)"
        )
        raise StaleStoreError(msg, url=place, scan=scan.name, found=found.source.uuid, expected=scan.entry.uuid)
    return found
