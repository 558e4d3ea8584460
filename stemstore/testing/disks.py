"""Bragg disks of a perfect lattice, without any pattern: what their vectors should be is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from stemstore._types import FloatArray

WIDTH = 30.0  # px, over which intensities fall by e
NOISE_DISK = 0.05  # px, expected precision that is stated


def lattice_disks(
    scan_shape: tuple[int, int] = (4, 5),
    detector_shape: tuple[int, int] = (90, 110),
    *,
    lattice: Any = ((20.0, 3.0), (-2.0, 18.0)),
    origin: Any = None,
    distortion: Any = None,
    noise: float = 0.0,
    coords: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Make the disks that a lattice has on a detector, the same at every position.

    Parameters
    ----------
    scan_shape, detector_shape
        Extents (y, x) and (ky, kx).
    lattice : shape (2, 2), unit pixel
        The two lattice vectors (row, column), one in each row.
    origin : shape (2,) or (y, x, 2), unit pixel
        Row and column of the unscattered beam; the middle of the detector by default.
    distortion : shape (2, 2)
        Acts on the vectors (row, column) before the origin is added.
    noise : unit pixel
        Standard deviation of the positions, per axis.
    coords, attrs
        Coordinates and attributes to carry.

    Returns
    -------
    disks
        As from `find_disks`; the intensity is 1000 exp(-(r / 30 px)^2) for a lattice vector of length r, and the
        correlation a tenth of it.
    """
    from stemstore.ops.disks.table import DiskTable, dataset_of_table

    random = np.random.default_rng(0)
    g = np.asarray(lattice, np.float64)
    middle = (np.asarray(detector_shape) - 1) / 2
    places = np.broadcast_to(middle if origin is None else np.asarray(origin, np.float64), (*scan_shape, 2))
    reach = int(2 * np.hypot(*detector_shape) / np.linalg.svd(g, compute_uv=False)[-1]) + 1
    index = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    ideal: FloatArray = index @ g
    intensity = 1000 * np.exp(-((ideal**2).sum(1) / WIDTH**2))
    order = np.argsort(-intensity, kind="stable")
    bent = ideal[order] @ (np.eye(2) if distortion is None else np.asarray(distortion, np.float64)).T
    pieces = []
    for place in places.reshape(-1, 2):
        found = place + bent + noise * random.normal(size=bent.shape)
        there = ((found >= 0) & (found <= np.asarray(detector_shape) - 1)).all(1)
        pieces.append(np.column_stack([found, intensity[order]])[there])
    columns = np.concatenate(pieces).astype(np.float32)
    table = DiskTable(
        scan_shape=scan_shape,
        scan_dims=("y", "x"),
        offset=np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        qy=columns[:, 0].copy(),
        qx=columns[:, 1].copy(),
        intensity=columns[:, 2].copy(),
        correlation=columns[:, 2] / 10,
        sigma_q=np.full(len(columns), NOISE_DISK, np.float32),
        processed=np.ones(scan_shape, bool),
        detector_shape=detector_shape,
    )
    return dataset_of_table(table, coords or {}, attrs or {})
