"""``result.stem``: what labelled results can do besides being arrays. Registered with xarray by the import."""

from __future__ import annotations

import xarray as xr

from stemstore.scan.drawing.plot import Plots


@xr.register_dataset_accessor("stem")
@xr.register_dataarray_accessor("stem")
class Stem:
    """Door to the pictures of a result: ``result.stem.plot()``."""

    def __init__(self, result: xr.DataArray | xr.Dataset) -> None:
        self._result = result

    @property
    def plot(self) -> Plots:
        """Pictures of the result: ``plot.image``, ``plot.pattern``, ``plot.vectors``, or ``plot()`` to choose."""
        return Plots(self._result)
