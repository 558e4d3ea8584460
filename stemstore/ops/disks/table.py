"""The ragged list of Bragg disks of a scan: as plain arrays, and as the labelled dataset that holds them.

The dataset has the dims of the scan, ``peak`` (all disks of all positions, one after another) and ``bound`` (one more
than there are positions). Disks of the flat position i, in C order of the scan dims, are
``offset[i] : offset[i + 1]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from stemstore._types import Array, BoolArray, Int64Array

PEAK, BOUND = "peak", "bound"
"""Dims of the disks, and of the bounds of their positions."""

DETECTOR = ("ky", "kx")

COLUMNS = {
    "qy": ("pixel", "detector row of the disk"),
    "qx": ("pixel", "detector column of the disk"),
    "intensity": ("count", "counts in the disk above the surrounding background"),
    "correlation": ("count", "value of the detection map, per pixel"),
    "sigma_q": ("pixel", "expected precision of the position, per axis"),
}
"""Variables along ``peak``: unit and meaning. The unit of intensities is that of the scan."""

OPTIONAL = {"sigma_q"}


@dataclass(frozen=True, slots=True, eq=False)
class DiskTable:
    """Disks of all positions of a scan in plain arrays; P disks, N positions.

    Attributes
    ----------
    scan_shape, scan_dims
        Extents and names of the scan axes; empty for a single pattern.
    offset : shape (N + 1,), int64
        Disks of the flat position i (C order) are ``offset[i] : offset[i + 1]``, largest correlation first.
    qy, qx : shape (P,), unit pixel
        Row and column on the visible detector; pixel centres are integers.
    intensity : shape (P,), unit `units`
        Counts above the surrounding background.
    correlation : shape (P,)
        Value of the detection map.
    sigma_q : shape (P,), unit pixel, or None
        Expected precision per axis, where it is known.
    processed : shape scan_shape, bool
        False where no disks were looked for: no disks means nothing there.
    detector_shape : unit pixel
        Rows and columns of the visible detector.
    units
        Unit of the intensities.
    """

    scan_shape: tuple[int, ...]
    scan_dims: tuple[str, ...]
    offset: Int64Array
    qy: Array
    qx: Array
    intensity: Array
    correlation: Array
    sigma_q: Array | None
    processed: BoolArray
    detector_shape: tuple[int, int]
    units: str = "count"

    @property
    def n_disks(self) -> Int64Array:
        """Number of disks of every position, shape scan_shape."""
        return np.diff(self.offset).reshape(self.scan_shape)

    @property
    def position(self) -> Int64Array:
        """Flat position of every disk, shape (P,)."""
        return np.repeat(np.arange(len(self.offset) - 1, dtype=np.int64), np.diff(self.offset))

    def disks_of(self, index: tuple[int, ...]) -> slice:
        """Give the place of the disks of one position, for example ``table.qy[table.disks_of((3, 5))]``."""
        flat = int(np.ravel_multi_index(index, self.scan_shape)) if self.scan_shape else 0
        return slice(int(self.offset[flat]), int(self.offset[flat + 1]))


def table_of(disks: Any) -> DiskTable:
    """Take the plain arrays out of a dataset of disks; lazy values are computed, all at once.

    Parameters
    ----------
    disks
        What `find_disks` returned, or `open_result` of it.

    Returns
    -------
    table

    Raises
    ------
    InputError
        The object is no dataset of disks, lacks a variable, has other dims than expected, positions that are not
        finite or not in pixels, or was cut along the scan or the disks, so that the offsets no longer hold.

    Notes
    -----
    Memory: the arrays as the dataset holds them; nothing is copied that is in memory already.
    """
    import xarray as xr

    if not isinstance(disks, xr.Dataset):
        msg = f"expected the dataset of disks that find_disks returns, got {type(disks).__name__}"
        raise InputError(msg, found=type(disks).__name__)
    _check_form(disks)
    present = [name for name in COLUMNS if name in disks]
    loaded = disks[["offset", "n_disks", *present]].compute()
    scan_dims = tuple(str(dim) for dim in disks["n_disks"].dims)
    scan_shape = tuple(int(disks.sizes[dim]) for dim in scan_dims)
    offset = np.asarray(loaded["offset"].values, np.int64)
    columns = {name: loaded[name].values for name in present}
    _check_offsets(offset, loaded["n_disks"].values, disks.sizes[PEAK])
    for name in ("qy", "qx"):
        if not np.isfinite(columns[name]).all():
            msg = f"variable {name!r} of the disks holds values that are not finite; remove these disks first"
            raise InputError(msg, key=name)
    return DiskTable(
        scan_shape,
        scan_dims,
        offset,
        columns["qy"],
        columns["qx"],
        columns["intensity"],
        columns["correlation"],
        columns.get("sigma_q"),
        np.asarray(disks["processed"].transpose(*scan_dims).values, np.bool_),
        (int(disks.sizes["ky"]), int(disks.sizes["kx"])),
        str(disks["intensity"].attrs.get("units", "count")),
    )


def dataset_of_table(table: DiskTable, coords: Mapping[Any, Any], attrs: Mapping[str, Any]) -> xr.Dataset:
    """Label the plain arrays.

    Parameters
    ----------
    table
        The disks.
    coords
        Coordinates to carry, as `xarray.Dataset` takes them: those of the scan, ``ky`` and ``kx``; whatever has other
        dims is left out. Detector axes that are missing are counted in pixels.
    attrs
        Attributes of the dataset.

    Returns
    -------
    disks
        The dataset that `table_of` takes apart.

    Raises
    ------
    InputError
        Arrays of the table, or coordinates, do not have the extents of the table.
    """
    import xarray as xr

    _check_offsets(table.offset, table.n_disks, len(table.qy))
    sizes = dict(zip((*table.scan_dims, *DETECTOR), (*table.scan_shape, *table.detector_shape), strict=True))
    axes: dict[Any, Any] = {
        d: (d, np.arange(sizes[d]), {"units": "pixel", "long_name": f"detector {d}"}) for d in DETECTOR
    }
    kept = {name: coord for name, coord in axes.items() if name not in coords}
    for name, coord in coords.items():
        variable = xr.as_variable(coord)
        if set(variable.dims) <= sizes.keys() and name != "processed":
            kept[name] = variable
    variables = {
        name: (PEAK, getattr(table, name), {"units": units, "long_name": about})
        for name, (units, about) in COLUMNS.items()
        if getattr(table, name) is not None
    }
    variables["intensity"][2]["units"] = table.units
    counts = {"units": "count", "long_name": "number of disks"}
    bounds = {"long_name": "first disk of each position, and the number of all disks"}
    looked = {"long_name": "whether disks were looked for"}
    try:
        return xr.Dataset(
            {
                **variables,
                "offset": (BOUND, table.offset, bounds),
                "n_disks": (table.scan_dims, table.n_disks, counts),
            },
            {**kept, "processed": (table.scan_dims, table.processed, looked)},
            dict(attrs),
        )
    except ValueError as error:
        msg = f"the disks of a scan of {sizes} do not fit their coordinates: {error}"
        raise InputError(msg, expected=sizes) from error


def _check_form(disks: xr.Dataset) -> None:
    """Refuse what lacks variables, or has them along other dims."""
    wanted = ["offset", "n_disks", *(name for name in COLUMNS if name not in OPTIONAL)]
    missing = [name for name in wanted if name not in disks.data_vars]
    missing += [name for name in ("processed",) if name not in disks.coords]
    missing += [name for name in DETECTOR if name not in disks.sizes]
    if missing:
        msg = (
            f"the dataset is no list of disks: it has {sorted(map(str, disks.variables))} and lacks {missing}; "
            "pass what find_disks returned"
        )
        raise InputError(msg, found=sorted(map(str, disks.variables)), expected=missing)
    dims = {name: (PEAK,) for name in COLUMNS if name in disks} | {"offset": (BOUND,)}
    for name, expected in dims.items():
        if disks[name].dims != expected:
            msg = f"variable {name!r} of the disks has dims {disks[name].dims}, expected {expected}"
            raise InputError(msg, key=name, found=disks[name].dims, expected=expected)
    for name in ("qy", "qx"):
        units = disks[name].attrs.get("units", "pixel")
        if units != "pixel":
            msg = f"variable {name!r} of the disks is in {units!r}, expected pixels of the detector as stored"
            raise InputError(msg, key=name, found=units, expected="pixel")


def _check_offsets(offset: Int64Array, n_disks: Array, n_peaks: int) -> None:
    """Refuse offsets that do not describe the disks."""
    positions = math.prod(n_disks.shape)
    fits = len(offset) == positions + 1 and offset[0] == 0 and offset[-1] == n_peaks
    if not (fits and np.array_equal(np.diff(offset), n_disks.reshape(-1))):
        msg = (
            f"the offsets of the disks do not fit {n_peaks} disks at {positions} positions; the dataset was cut or "
            "turned along the scan or the disks. Take those of one position with disks_at, or find those of the part"
        )
        raise InputError(msg, key="offset", found=len(offset), expected=positions + 1)
