"""The state of the frames of a scan as a coordinate: missing, partial or valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array

FLAGS = {"long_name": "state of the frame", "flag_values": [0, 1, 2], "flag_meanings": "missing partial valid"}


class StatesOfStore:
    """States that are read from a server when they are looked at; shape and type as of an array."""

    dtype = np.dtype(np.uint8)

    def __init__(self, scan: Any) -> None:
        self.scan, self.shape, self.ndim = scan, scan.scan_shape, len(scan.scan_shape)

    def __getitem__(self, key: Any) -> Array:
        return np.asarray(self.scan.validity).reshape(self.shape)[key]


def frame_states(source: Any, dims: tuple[str, ...]) -> xr.Variable | None:
    """Describe the states of the frames of a source; None where all frames are valid.

    Parameters
    ----------
    source
        Of the lazy array. The states of a store on a server are lazy as well: they would cost a further request.
    dims
        Names of the scan axes.
    """
    import xarray as xr

    from stemstore.store.metadata import VALID
    from stemstore.store.urls import is_local

    head = getattr(source, "head", None)
    if head is None or head.journal is not None or is_local(head.url):
        valid = source.validity
        return None if valid is None else xr.Variable(dims, np.asarray(valid).reshape(source.shape[:-2]), FLAGS)
    if VALID not in head.arrays:
        return None
    import dask.array as da

    states = da.from_array(
        StatesOfStore(source), chunks=-1, name=f"states-{source.uuid}", meta=np.empty((0,) * len(dims), np.uint8)
    )
    return xr.Variable(dims, states, FLAGS)
