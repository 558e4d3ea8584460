"""``xarray.open_dataset(path, engine="stemstore")``: the same dataset through xarray's own door.

xarray wraps what a backend returns. With ``chunks=None`` (its default) the variable keeps its lazy array and operations
still stream; with ``chunks=…`` it becomes an ordinary dask array and operations go block by block. `stemstore.open` is
the faster door.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xarray.backends import BackendEntrypoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr


class StemstoreBackend(BackendEntrypoint):
    """Stores and raw 4D-STEM data as xarray datasets."""

    description = "4D-STEM stores and raw detector data (stemstore)"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "reader", "flyback", "allow_incomplete", "options")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        reader: str | None = None,
        flyback: bool = False,
        allow_incomplete: bool = False,
        options: dict[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open like `stemstore.open`; options of readers and calibration go into the dict `options`."""
        from stemstore.scan.open import open_scan

        dataset = open_scan(
            filename_or_obj, reader=reader, flyback=flyback, allow_incomplete=allow_incomplete, **(options or {})
        )
        return dataset if drop_variables is None else dataset.drop_vars(drop_variables, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Claim finished stores only; raw formats want ``engine="stemstore"`` spelled out."""
        from stemstore.store.open import is_store

        return isinstance(filename_or_obj, (str, os.PathLike)) and is_store(os.fspath(filename_or_obj))
