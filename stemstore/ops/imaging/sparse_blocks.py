"""Counted scans as arrays of the package ``sparse``: in memory, or as a dask array with a sparse block per task."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.config import format_size, memory_budget
from stemstore.errors import InputError, MemoryBudgetError
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.occupied import OccupiedPixels, Rows, joined, occupied_frames
from stemstore.ops.labels import intensity_of
from stemstore.scan.altered import bottom, is_counted, stored_positions
from stemstore.scan.blocks import kept_lengths
from stemstore.scan.lazy import ScanSource, cut_axis, selection_of, source_node, token
from stemstore.selection import flatten
from stemstore.sources.streaming import EVENT_BATCH
from stemstore.store.events import run_extents

if TYPE_CHECKING:
    import dask.array as da
    import sparse
    import xarray as xr

    from stemstore._types import Array, Int64Array
    from stemstore.selection import Selection

DENSE_BYTES = 256 * 2**20
"""Pixels of a dense scan that are looked through for the few that hold something."""

DETECTOR = 2  # axes


def to_sparse(scan: Any, *, blocks: bool = False) -> Any:
    """Give a counted scan, or a part of one, as an array of the package ``sparse``.

    For functions that understand such arrays; the operations of this package work on the events themselves and are
    faster by far. ``.values`` of the intensity gives the same pixels as a dense array.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or that variable; any selection.
    blocks
        Give a dask array instead, with one sparse array per block of events (about a million of them); nothing is read
        until it is computed.

    Returns
    -------
    array : shape (y, x, ky, kx)
        ``sparse.GCXS`` of the dtype of the scan, compressed along the scan axes, a pixel that several electrons hit as
        one entry with their number. A single frame is compressed along ky. Or the dask array of such blocks.

    Raises
    ------
    InputError
        The scan is dense and holds more than 256 MiB of pixels, where a sparse copy helps nobody.
    MemoryBudgetError
        The entries of a counted scan exceed the budget (``STEMSTORE_MAX_MEMORY``); nothing is read.

    Notes
    -----
    Memory: 4 bytes and a count per occupied pixel, twice where several blocks are put together. Indices and pointers
    are those that were decoded; ``sparse`` copies nothing of them.
    """
    image = intensity_of(scan)
    found = selection_of(image.data)
    counted = found is not None and is_counted(found[0])
    if not counted and image.nbytes > DENSE_BYTES:
        msg = (
            f"this scan is dense and its pixels take {format_size(image.nbytes)}, more than the {DENSE_BYTES >> 20} "
            "MiB that are looked through; select a part, or count it (stemstore.convert(…, count=True))"
        )
        raise InputError(msg, key="scan", found=image.nbytes, expected=DENSE_BYTES)
    if found is None:
        return _of_pixels(image, blocks=blocks)
    source, selection = found
    if blocks:
        return _lazy(source, selection, counted=counted)
    _check_budget(source, selection, counted=counted)
    return as_gcxs(_whole(source, selection, counted=counted), image.shape)


def as_gcxs(rows: Rows, shape: tuple[int, ...]) -> sparse.GCXS:
    """Dress rows, one per position, as a sparse array of shape (…scan, ky, kx), without a copy."""
    import sparse

    if len(shape) == DETECTOR:
        line = rows.indices // shape[1]
        indptr = np.searchsorted(line, np.arange(shape[0] + 1)).astype(np.int64)
        return sparse.GCXS((rows.values, rows.indices - line * shape[1], indptr), shape=shape, compressed_axes=(0,))
    compressed = tuple(range(len(shape) - DETECTOR))
    return sparse.GCXS((rows.values, rows.indices, rows.indptr), shape=shape, compressed_axes=compressed)


def read_rows(source: ScanSource, selection: Selection) -> Rows:
    """Task: read the occupied pixels of some positions."""
    kernel = OccupiedPixels(np.dtype(source.dtype))
    found: Any = source.run(selection, kernel, DetectorRegion.of(selection))
    rows: Rows = found.rows()
    return rows


def read_sparse(source: ScanSource, selection: Selection) -> sparse.GCXS:
    """Task: read one sparse block."""
    return as_gcxs(read_rows(source, selection), (*kept_lengths(selection), *selection.lengths[-DETECTOR:]))


def _of_pixels(image: xr.DataArray, *, blocks: bool) -> Any:
    """Make a sparse array, or blocks, of pixels that are in memory or were changed."""
    import dask.array as da

    if not blocks:
        values = image.values
        return as_gcxs(occupied_frames(values.reshape(-1, *values.shape[-DETECTOR:])), values.shape)
    array = image.data if isinstance(image.data, da.Array) else da.from_array(image.data)
    array = array.rechunk({array.ndim - 2: -1, array.ndim - 1: -1})
    return array.map_blocks(_block_of_pixels, dtype=array.dtype, meta=_empty(array.ndim, array.dtype))


def _block_of_pixels(block: Array) -> sparse.GCXS:
    return as_gcxs(occupied_frames(block.reshape(-1, *block.shape[-DETECTOR:])), block.shape)


def _empty(ndim: int, dtype: Any) -> Any:
    """Make the empty array that tells dask what its blocks are."""
    import sparse

    return sparse.COO(np.zeros((ndim, 0), np.int64), np.zeros(0, dtype), shape=(0,) * ndim).asformat("gcxs")


def _cut(source: ScanSource, selection: Selection, *, counted: bool) -> list[list[slice]]:
    """Cut the scan axes of a selection at the borders of blocks of events."""
    extents = source.chunk
    if counted:
        frames = getattr(bottom(source), "frames_per_block", EVENT_BATCH)
        extents = run_extents(source.shape[:-DETECTOR], frames)
    return [cut_axis(axis, extent) for axis, extent in zip(selection.scan, extents, strict=True)]


def _lazy(source: ScanSource, selection: Selection, *, counted: bool) -> da.Array:
    """Make the dask array of sparse blocks."""
    import dask.array as da

    cut = _cut(source, selection, counted=counted)
    name = f"sparse-{token(source.uuid, selection.token)}"
    graph: dict[Any, Any] = {f"source-{name}": source_node(source)}
    kept = selection.kept[:-DETECTOR]
    for number in itertools.product(*(range(len(along)) for along in cut)):
        part = selection.cut_scan(tuple(along[i] for along, i in zip(cut, number, strict=True)))
        block = tuple(i for i, is_kept in zip(number, kept, strict=True) if is_kept)
        graph[name, *block, 0, 0] = (read_sparse, f"source-{name}", part)
    chunks = [tuple(s.stop - s.start for s in along) for along, is_kept in zip(cut, kept, strict=True) if is_kept]
    chunks += [(n,) for n in selection.lengths[-DETECTOR:]]
    return da.Array(graph, name, tuple(chunks), meta=_empty(len(chunks), source.dtype))


def _whole(source: ScanSource, selection: Selection, *, counted: bool) -> Rows:
    """Read all rows, block by block, and put them together."""
    from dask.base import compute
    from dask.delayed import Delayed

    lengths = selection.scan_lengths
    name = f"rows-{token(source.uuid, selection.token)}"
    graph: dict[Any, Any] = {f"source-{name}": source_node(source)}
    places: list[Int64Array] = []
    for part in itertools.product(*_cut(source, selection, counted=counted)):
        graph[f"{name}-{len(places)}"] = (read_rows, f"source-{name}", selection.cut_scan(part))
        places.append(flatten(tuple(range(s.start, s.stop) for s in part), lengths))
    found = compute(*(Delayed(f"{name}-{number}", graph) for number in range(len(places))))
    return joined(list(zip(places, found, strict=True)), selection.n_positions, np.dtype(source.dtype))


def _check_budget(source: ScanSource, selection: Selection, *, counted: bool) -> None:
    """Refuse what does not fit, where the number of events is known beforehand."""
    base = bottom(source)
    if not counted or not hasattr(base, "n_slots"):
        return
    slots = int(base.n_slots[stored_positions(source, selection)].sum(dtype=np.int64))
    needed, budget = slots * 2 * (np.dtype(np.int32).itemsize + source.dtype.itemsize), memory_budget()
    if needed > budget:
        msg = (
            f"the events selected take up to {format_size(needed)} as a sparse array, the budget is "
            f"{format_size(budget)}; select fewer positions, use blocks=True, or raise STEMSTORE_MAX_MEMORY"
        )
        raise MemoryBudgetError(msg, needed=needed, budget=budget)
