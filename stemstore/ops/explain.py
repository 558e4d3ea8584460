"""Saying how an operation would reach the data of an array."""

from __future__ import annotations

from typing import Any

import dask.array as da

from stemstore.ops.labels import intensity_of
from stemstore.scan.lazy import selection_of


def explain(array: Any) -> str:
    """Say whether operations on an array stream its source (``"fused"``) or go block by block, and why.

    Parameters
    ----------
    array
        A Dataset or DataArray of a scan, or the lazy array itself.

    Returns
    -------
    text
        One line that begins with ``fused`` or ``generic``.
    """
    data = getattr(intensity_of(array), "data", array) if hasattr(array, "dims") else array
    found = selection_of(data)
    if found is not None:
        return f"fused: {found[1].n_positions} positions streamed from {type(found[0]).__name__}"
    if isinstance(data, da.Array):
        return "generic, because the array is not a plain selection of a scan (its values or axes were changed)"
    return "generic, because the array is in memory"
