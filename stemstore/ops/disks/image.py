"""Virtual images from Bragg disks: what the disks inside a detector add up to at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.disks.plane import labels_of, scan_of
from stemstore.ops.disks.shapes import weights_at
from stemstore.ops.disks.table import table_of
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.geometry.plane import ellipse_text
from stemstore.ops.labels import labelled, parameters_text

if TYPE_CHECKING:
    from stemstore._types import FloatArray
    from stemstore.ops.disks.table import DiskTable

COLUMNS = ("intensity", "correlation")


def disk_image(
    disks: Any,
    detector: Any,
    *,
    weights: Literal["intensity", "correlation"] | None = "intensity",
    origin: Any = None,
) -> Any:
    """Add up the disks of every position that lie inside a virtual detector.

    Parameters
    ----------
    disks
        What `find_disks` returned.
    detector
        ``disk(…)``, ``annulus(…)``, ``sector(…)``, ``rectangle(…)``, ``point(…)``, an array of real weights of shape
        (ky, kx), or a dict of names to such detectors. A disk counts where its centre is inside.
    weights
        What a disk counts: its ``"intensity"``, its ``"correlation"``, or None: one.
    origin
        Where the optic axis is at each position; detectors move with it, by fractions of a pixel. Any form that
        `calibrate` takes, such as ``fit_origin(disk_origin(disks))``. By default what the scan carries; False holds
        detectors at rest.

    Returns
    -------
    image : dims of the scan, float64
        A Dataset with a variable per name for a dict. NaN where no disks were looked for. The background of the
        patterns is not in it, unlike in a `virtual_image`.

    Raises
    ------
    InputError
        No dataset of disks; a detector is area-weighted, complex or does not fit; the origin is not finite at a
        position with disks.
    CalibrationMissingError
        A detector is given in a unit that the scan has no calibration for.

    Notes
    -----
    As for `virtual_image`, radii and directions are those of vectors that are corrected for the ellipse of the scan.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.disk_image(disks, stemstore.annulus(20, 60))  # doctest: +SKIP
    """
    import xarray as xr

    if weights is not None and weights not in COLUMNS:
        msg = f"weights {weights!r} are not known; use one of {COLUMNS}, or None"
        raise InputError(msg, key="weights", found=weights, expected=COLUMNS)
    named = detector if isinstance(detector, dict) else {"disk_image": detector}
    if not named:
        msg = "the dict of detectors is empty; give at least one, such as {'ring': annulus(20, 60)}"
        raise InputError(msg, key="detector")
    table = table_of(disks)
    image = scan_of(disks, table)
    counts = None if weights is None else np.asarray(getattr(table, weights), np.float64)
    images, labels = {}, labels_of(disks, image)
    for name, given in named.items():
        shape = as_detector(given)
        share = weights_at(shape, image, table, origin)
        text = {"detector": shape.describe(), "weights": weights, "ellipse": ellipse_text(image)}
        text["origin"] = None if origin is None else "none" if origin is False else "given"
        sums = _sums(table, share if counts is None else np.where(share, share * counts, 0.0))
        one = labelled(sums, labels, table.scan_dims, parameters_text("disk_image", **text)).rename(name)
        one.attrs |= {"units": "count" if weights is None else str(disks[weights].attrs.get("units", "count"))}
        images[name] = one.assign_attrs(long_name=f"disks in {shape.describe()}")
    return xr.Dataset(images) if isinstance(detector, dict) else images["disk_image"]


def _sums(table: DiskTable, values: Any) -> FloatArray:
    """Add up values of disks per position; NaN where none were looked for."""
    positions = len(table.offset) - 1
    sums = np.bincount(table.position, np.asarray(values, np.float64), positions).reshape(table.scan_shape)
    return np.where(table.processed, sums, np.nan)
