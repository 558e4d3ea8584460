"""Saying how an operation would reach the data of an array, and what computing a result would take."""

from __future__ import annotations

from typing import Any

import dask.array as da

from stemstore.config import format_size, memory_budget, n_workers
from stemstore.errors import MemoryBudgetError
from stemstore.ops.labels import intensity_of
from stemstore.ops.projection import Projection
from stemstore.scan.lazy import selection_of


def explain(*objects: Any) -> str:
    """Say whether operations on an array stream its source (``"fused"``) or go block by block, and why.

    Of results that were not computed yet it says how often the data will be gone through, and what memory that takes.

    Parameters
    ----------
    *objects
        A Dataset or DataArray of a scan, or the lazy array itself; or one or several lazy results, as for
        `stemstore.compute`.

    Returns
    -------
    text
        One line that begins with ``fused`` or ``generic``.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> print(stemstore.explain(stemstore.virtual_image(ds, stemstore.disk(5))))  # doctest: +SKIP
    fused: one pass over 65536 positions in 64 tasks; 8.3 MiB per thread, 16.5 MiB on 2 threads, …
    """
    projection = Projection.of(objects)
    if projection.passes:
        return _of_results(projection)
    array = objects[0]
    data = getattr(intensity_of(array), "data", array) if hasattr(array, "dims") else array
    found = selection_of(data)
    if found is not None:
        return f"fused: {found[1].n_positions} positions streamed from {type(found[0]).__name__}"
    if isinstance(data, da.Array):
        return "generic, because the array is not a plain selection of a scan (its values or axes were changed)"
    return "generic, because the array is in memory"


def _of_results(projection: Projection) -> str:
    """Describe how results will be computed."""
    road = "fused" if projection.streamed else "generic, block by block"
    passes = "one pass" if projection.passes == 1 else f"{projection.passes} passes"
    try:
        workers = projection.workers(n_workers(), memory_budget())
        fits = f"within the budget of {_size(memory_budget())}"
    except MemoryBudgetError:
        workers, fits = 1, f"which exceeds the budget of {_size(memory_budget())}"
    total = projection.per_worker * workers + projection.shared + projection.results
    return (
        f"{road}: {passes} over {projection.n_positions} positions in {projection.n_tasks} tasks; "
        f"{_size(projection.per_worker)} per thread, {_size(total)} with the results on {workers} threads, {fits}"
    )


def _size(n_bytes: int) -> str:
    return format_size(n_bytes).split(" (")[0]
