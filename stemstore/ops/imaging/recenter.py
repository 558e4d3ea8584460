"""Patterns moved by whole pixels until the optic axis of each lies at the centre that all positions share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.geometry.origin import Movement
from stemstore.ops.geometry.plane import DIMS
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims
from stemstore.scan.altered import Altering
from stemstore.scan.blocks import map_kernel
from stemstore.scan.coordinates import pixel_axis
from stemstore.scan.lazy import selection_of
from stemstore.scan.origins import ORIGIN
from stemstore.scan.points import Frames
from stemstore.scan.recentred import Leaving, Shifts, recentred

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Int64Array


def recenter(scan: Any, origin: Any = None) -> xr.Dataset:
    """Move every pattern by whole pixels so that its optic axis comes to the common centre (descan).

    Operations that take ``origin=…`` follow the origin by themselves, beyond the border of the detector, too; this is
    for everything else, and for patterns that are to be looked at, averaged, binned or written.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    origin
        Where the optic axis is at each position, in every form that `virtual_image` takes; by default that of the scan
        itself, where `calibrate` gave it one. Patterns move by their distance from the optic axis of the scan, rounded
        half to even, as detectors do there.

    Returns
    -------
    dataset
        ``intensity``, lazy, of the same dims, dtype and coordinates, without ``origin_ky`` and ``origin_kx``, and what
        else the dataset held. Electrons that leave the detector are dropped; what enters is zero. ``lost`` (y, x),
        lazy: the counts that left at each position, exact for integers. Other variables on detector pixels, such as
        ``dark``, no longer fit the patterns and are left out: correct frames first.

    Raises
    ------
    InputError
        There is no origin, or it has another shape than the scan, is not finite where a frame was recorded, or lies far
        outside the detector; or an array that is no plain selection of a scan has gaps along a detector axis.

    Notes
    -----
    A scan is moved on its stored detector, whatever part of it is selected, before or after: pixels that were cropped
    away move into view. Any other array, such as corrected frames, is moved as it is seen. Memory per thread: that of
    the operation, and 4 MiB of moved frames or half a million events.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> descan = stemstore.fit_descan(stemstore.center_of_mass(ds), "plane")  # doctest: +SKIP
    >>> stemstore.mean_pattern(stemstore.recenter(ds, descan))  # doctest: +SKIP
    """
    import xarray as xr

    image = intensity_of(scan)
    movement = Movement.chosen(image, origin)
    if movement is None:
        msg = "the scan carries no origin of its positions; pass origin=…, such as a fit to center_of_mass"
        raise InputError(msg, key="origin")
    text = parameters_text("recenter", origin=movement.describe())
    known = recorded(image)
    keep = None if known is None or known.all() else known
    array, moves = _moved(image, -movement.shift)
    result = image.copy(data=array).drop_vars(ORIGIN, errors="ignore").rename("intensity")
    result.attrs["history"] = "\n".join(line for line in (image.attrs.get("history"), text) if line)
    lost = labelled(
        map_kernel(image.data, Leaving(moves[:0].reshape(-1, 2)), keep, moves), image, scan_dims(image), text
    )
    lost = lost.drop_vars(ORIGIN, errors="ignore")
    lost.attrs |= {"units": image.attrs.get("units", "count"), "long_name": "intensity that left the detector"}
    dataset = scan if isinstance(scan, xr.Dataset) else result.to_dataset()
    fixed = [name for name, one in dataset.data_vars.items() if name != "intensity" and {*DIMS} & {*one.dims}]
    return dataset.drop_vars([*fixed, *ORIGIN], errors="ignore").assign(intensity=result, lost=lost)


def _moved(image: xr.DataArray, moves: Int64Array) -> tuple[Any, Int64Array]:
    """Move frames by stored pixels; gives the moves in pixels of the array as well."""
    found = selection_of(image.data)
    if found is not None:
        return recentred(*found, moves), moves
    for number, name in enumerate(DIMS):
        steps = np.diff(pixel_axis(image, name))
        if len(steps) and not ((steps == 1).all() or (steps == -1).all()):
            msg = f"patterns cannot be moved on a detector with gaps along {name}; recentre before such a selection"
            raise InputError(msg, key=name)
        if len(steps) and steps[0] < 0:
            moves = moves * np.where(np.arange(len(DIMS)) == number, -1, 1)
    nowhere = np.zeros((0, len(DIMS)), np.int64)
    kernel = Altering(Frames(image.dtype), Shifts(nowhere), nowhere, (image.shape[-2], image.shape[-1]))
    return map_kernel(image.data, kernel, values=moves), moves
