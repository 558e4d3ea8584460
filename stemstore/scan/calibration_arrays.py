"""Maps of the optic axis and frames of the detector that belong to a calibration, shown lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.scan.origins import ORIGIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dask.array as da
    import xarray as xr

    from stemstore._types import Array
    from stemstore.sources.contract import DetectorImage

ABOUT = {
    "dark": {"units": "count", "long_name": "dark reference"},
    "gain": {"long_name": "gain reference, multiplies what the dark reference leaves"},
    "mask": {"long_name": "usable pixels"},
}
"""Frames of the detector that belong to a calibration, and their attributes."""


class Kept:
    """A small array that is read once per process: every operation on a scan looks at its origin."""

    def __init__(self, stored: DetectorImage) -> None:
        self.stored, self.shape, self.ndim, self.dtype = stored, stored.shape, len(stored.shape), stored.dtype
        self._values: Array | None = None

    def __getitem__(self, key: Any) -> Array:
        """Index like a NumPy array."""
        if self._values is None:
            values = self.stored.read()
            values.setflags(write=False)
            self._values = values
        return np.asarray(self._values[key])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without values."""
        return (Kept, (self.stored,))


def with_arrays(dataset: xr.Dataset, arrays: Mapping[str, DetectorImage], mark: str = "") -> xr.Dataset:
    """Give a dataset of a whole scan maps of its optic axis as coordinates and frames as variables, all lazy.

    Parameters
    ----------
    dataset
        As it was opened.
    arrays
        By name.
    mark
        Text that tells arrays of the same scan apart that were saved at different times.
    """
    import xarray as xr

    image = dataset["intensity"]
    for name, array in arrays.items():
        data = lazy_map(array, dataset.attrs.get("source_url"), image.attrs.get("stemstore_uuid"), name, mark)
        dims = image.dims[:-2] if name in ORIGIN else image.dims[-2:]
        variable = xr.Variable(dims, data, map_attributes(array, name))
        dataset = dataset.assign_coords({name: variable}) if name in ORIGIN else dataset.assign({name: variable})
    return dataset


def lazy_map(array: DetectorImage, *identity: Any) -> da.Array:
    """Show a small array of a calibration lazily; equal identities mean equal values."""
    import dask.array as da
    from dask.base import tokenize

    meta = np.empty((0,) * len(array.shape), array.dtype)
    return da.from_array(Kept(array), chunks=-1, name=f"calibration-{tokenize(*identity)}", meta=meta)


def map_attributes(array: DetectorImage, name: str) -> dict[str, Any]:
    """Attributes of an array of a calibration."""
    return getattr(array, "attributes", None) or ABOUT.get(name, {})
