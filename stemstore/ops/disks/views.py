"""Looking at the disks of one position, and keeping some of all disks."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.peak_lists import drop_behind, drop_crowded, drop_faint
from stemstore.ops.disks.plane import scan_of
from stemstore.ops.disks.shapes import weights_at
from stemstore.ops.disks.table import BOUND, PEAK, table_of
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.labels import parameters_text
from stemstore.ops.roi import map_of

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, Int64Array
    from stemstore.ops.disks.table import DiskTable

NEAR = 0.5  # steps of an axis between a coordinate and the position that it means
ROUNDING = 1e-6  # of a step


class DiskLimits(TypedDict, total=False):
    """Limits on the disks of a position, in the order in which they are applied, which is that of `find_disks`.

    Attributes
    ----------
    min_correlation
        Smallest correlation.
    min_intensity
        Smallest intensity.
    min_rel
        Smallest correlation relative to that of the disk of rank `relative_to` among those that are left; positions
        without a disk of that rank keep all.
    relative_to
        That rank, 0 the one with the largest correlation (default 1, as in `find_disks`).
    min_spacing : unit pixel
        Of two disks closer than this the one with the smaller correlation is dropped.
    max_peaks
        Most disks of a position.
    """

    min_correlation: float
    min_intensity: float
    min_rel: float
    relative_to: int
    min_spacing: float
    max_peaks: int


def disks_at(disks: Any, *, by: Literal["index", "coordinate"] = "index", **position: Any) -> xr.Dataset:
    """Give the disks of one position of the scan.

    Parameters
    ----------
    disks
        What `find_disks` returned.
    by
        ``"index"``: `position` counts rows and columns of the scan, from the end where negative. ``"coordinate"``: it
        is in the unit of the scan axes, and the nearest position is taken.
    **position
        A number for every scan axis, such as ``y=3, x=5``.

    Returns
    -------
    disks : dim (peak,)
        ``qy``, ``qx``, ``intensity`` and all others that the disks have, largest correlation first, with the
        coordinates of the position.

    Raises
    ------
    InputError
        No dataset of disks, an axis is missing or not one of the scan, or the position lies outside of it.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.disks_at(disks, y=3, x=5).qy  # doctest: +SKIP
    >>> stemstore.disks_at(disks, y=1.5, x=2.5, by="coordinate")  # doctest: +SKIP
    """
    dims, offset = _bounds(disks)
    if set(position) != set(dims):
        axes = ", ".join(f"{dim}=…" for dim in dims) or "none"
        msg = f"a position of this scan has the axes {dims}, got {tuple(position)}; give {axes}"
        raise InputError(msg, found=tuple(position), expected=dims)
    if by not in ("index", "coordinate"):
        msg = f"by={by!r} is not known; use 'index' or 'coordinate'"
        raise InputError(msg, key="by", found=by)
    find = _index if by == "index" else _nearest
    index = {dim: find(disks, dim, position[dim]) for dim in dims}
    flat = int(np.ravel_multi_index(tuple(index.values()), [disks.sizes[dim] for dim in dims])) if dims else 0
    along = [name for name, one in disks.variables.items() if one.dims == (PEAK,)]
    mine = slice(int(offset[flat]), int(offset[flat + 1]))
    found: xr.Dataset = disks.drop_dims(BOUND).drop_vars("n_disks").isel({**index, PEAK: mine})
    return found[along].compute()


def _bounds(disks: Any) -> tuple[tuple[str, ...], Int64Array]:
    """Dims of the scan and the bounds of its positions; the disks themselves are not loaded where they are lazy."""
    if not {"offset", "n_disks"} <= set(getattr(disks, "data_vars", {})):
        table_of(disks)  # says what is wrong with it
    dims = tuple(str(dim) for dim in disks["n_disks"].dims)
    offset = np.asarray(disks["offset"].values, np.int64)
    if len(offset) != disks["n_disks"].size + 1 or PEAK not in disks.sizes or offset[-1] != disks.sizes[PEAK]:
        table_of(disks)
    return dims, offset


def select_disks(
    disks: Any, *, inside: Any = None, origin: Any = None, roi: Any = None, **limits: Unpack[DiskLimits]
) -> xr.Dataset:
    """Keep the disks that meet all conditions.

    Parameters
    ----------
    disks
        What `find_disks` returned.
    inside
        Part of the detector whose disks are kept: ``disk(…)``, ``annulus(…)``, ``sector(…)``, ``rectangle(…)``, or a
        boolean array of shape (ky, kx). It moves with the origin.
    origin
        Where the optic axis is at each position, for `inside`: see `disk_image`.
    roi : shape of the scan, bool
        Positions to keep; the others have no disks and count as not processed.
    **limits
        See `DiskLimits`: ``min_correlation``, ``min_intensity``, ``min_rel``, ``relative_to``, ``min_spacing`` (pixel),
        ``max_peaks``. They apply to what is left inside.

    Returns
    -------
    disks
        The same dataset with fewer disks, in the same order.

    Raises
    ------
    InputError
        No dataset of disks; a limit is not known or out of range; `inside` or `roi` does not fit.

    Examples
    --------
    >>> import stemstore
    >>> strong = stemstore.select_disks(disks, min_intensity=200, inside=stemstore.annulus(20, 60))  # doctest: +SKIP
    """
    table = table_of(disks)
    image = scan_of(disks, table)
    keep = np.ones(len(table.qy), bool)
    told: dict[str, Any] = dict(limits)
    if inside is not None:
        shape = as_detector(inside)
        keep &= weights_at(shape, image, table, origin) != 0
        told["inside"] = shape.describe()
    processed = disks["processed"]
    if roi is not None:
        region = map_of(image, roi, "roi", bool)
        keep &= region.reshape(-1)[table.position]
        processed = processed.transpose(*table.scan_dims) & region
        told["roi"] = "given"
    _limit(table, keep, limits)
    line = parameters_text("select_disks", **told)
    kept = _kept(disks, table, keep).assign_coords(processed=processed.assign_attrs(disks["processed"].attrs))
    return kept.assign_attrs(history="\n".join([disks.attrs.get("history", ""), line]).strip())


def _kept(disks: xr.Dataset, table: DiskTable, keep: BoolArray) -> xr.Dataset:
    """Drop disks from every variable that has them, and count anew."""
    offset = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])[table.offset]
    kept: xr.Dataset = disks.isel({PEAK: np.flatnonzero(keep)})
    counts = np.diff(offset).reshape(table.scan_shape)
    return kept.assign(
        offset=(BOUND, offset, disks["offset"].attrs), n_disks=(table.scan_dims, counts, disks["n_disks"].attrs)
    )


def _limit(table: DiskTable, keep: BoolArray, limits: DiskLimits) -> None:
    """Clear the flags of disks that do not meet the limits."""
    unknown = sorted(set(limits) - DiskLimits.__annotations__.keys())
    if unknown:
        msg = f"{', '.join(unknown)} is no limit on disks; use some of {', '.join(DiskLimits.__annotations__)}"
        raise InputError(msg, found=unknown)
    for name in ("min_correlation", "min_intensity", "min_rel", "min_spacing"):
        value = limits.get(name, 0.0)
        if not (isinstance(value, (int, float, np.number)) and math.isfinite(value)):
            msg = f"{name} = {value!r} is not a finite number; leave it out for no limit"
            raise InputError(msg, key=name, found=value)
    if "min_correlation" in limits:
        keep &= table.correlation >= limits["min_correlation"]
    if "min_intensity" in limits:
        keep &= table.intensity >= limits["min_intensity"]
    if "min_rel" in limits:
        rank = _whole(limits.get("relative_to", 1), "relative_to")
        drop_faint(table.offset, table.correlation, rank, float(limits["min_rel"]), keep)
    elif "relative_to" in limits:
        msg = "relative_to names the disk that min_rel refers to; give min_rel with it"
        raise InputError(msg, key="relative_to")
    if "min_spacing" in limits:
        drop_crowded(table.offset, table.qy, table.qx, float(limits["min_spacing"]), keep)
    if "max_peaks" in limits:
        drop_behind(table.offset, _whole(limits["max_peaks"], "max_peaks"), keep)


def _whole(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        msg = f"{name} = {value!r} is not a whole number from 0; correct it"
        raise InputError(msg, key=name, found=value)
    return number


def _index(disks: xr.Dataset, dim: str, value: Any) -> int:
    """Take a position along an axis as it is numbered."""
    size = disks.sizes[dim]
    try:
        number = operator.index(value)
    except TypeError as error:
        msg = f"{dim} = {value!r} is no index; give a whole number, or pass by='coordinate'"
        raise InputError(msg, key=dim, found=value) from error
    if not -size <= number < size:
        msg = f"{dim} = {number} lies outside of the scan, which has {size} positions along {dim}"
        raise InputError(msg, key=dim, found=number, expected=size)
    return number % size


def _nearest(disks: xr.Dataset, dim: str, value: Any) -> int:
    """Find the position whose coordinate is nearest."""
    axis = np.asarray(disks[dim].values, np.float64)
    distance = np.abs(axis - float(value))
    number = int(np.argmin(distance)) if len(axis) else 0
    step = float(np.abs(np.diff(axis)).max()) if len(axis) > 1 else abs(float(disks[dim].attrs.get("step", 1.0)))
    if not len(axis) or not distance[number] <= (NEAR + ROUNDING) * step:
        unit = disks[dim].attrs.get("units", "pixel")
        span = f"{axis.min():g} … {axis.max():g} {unit}" if len(axis) else "nothing"
        msg = f"{dim} = {value!r} lies outside of the scan, which spans {span} along {dim}"
        raise InputError(msg, key=dim, found=value)
    return number
