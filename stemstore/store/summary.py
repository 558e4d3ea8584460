"""The end of a conversion: records of all partitions become validity, slots per position and the summary images."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.store.codecs import object_checksum
from stemstore.store.journal import VALID_FRAME, EntryFile, ahead, positions
from stemstore.store.layout import dense_layout
from stemstore.store.maps import map_info
from stemstore.store.metadata import SUMMARY, ArrayInfo, intensity_info
from stemstore.store.scratch import BoundedCache
from stemstore.store.shards import encode_shard, gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, Int64Array
    from stemstore.store.journal import Entry
    from stemstore.store.layout import DenseLayout, Layout
    from stemstore.store.urls import Storage

UNITS = {"total": "count", "com_y": "pixel", "com_x": "pixel", "sum": "count", "mean": "count", "max": "count"}
"""Units of the summary images that every conversion writes; others come without."""

BINNED_SHARD = 32 * 10**6
"""Largest shard of binned frames: what the end of a conversion holds at once."""

_RECORD_CACHE = 128 * 2**20


@dataclass
class Assembled:
    """Records of all partitions put together.

    Attributes
    ----------
    entries
        What the journal says of every partition.
    valid, n_slots
        Per flat scan position.
    maps
        Images over the scan, flat, by name.
    patterns
        Images over the detector by name: sums, their mean over recorded frames, and maxima.
    binned
        Detector shape and type of the maps that are images per position, by name.
    """

    valid: Array
    n_slots: Array
    entries: list[Entry] = field(default_factory=list)
    maps: dict[str, Array] = field(default_factory=dict)
    patterns: dict[str, Array] = field(default_factory=dict)
    binned: dict[str, tuple[tuple[int, int], np.dtype[Any]]] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of valid, partial and missing frames."""
        missing, partial, valid = np.bincount(self.valid, minlength=VALID_FRAME + 1)[: VALID_FRAME + 1].tolist()
        return valid, partial, missing


def assemble(storage: Storage, layout: Layout) -> Assembled:
    """Read the journal of all partitions once, all but the images per position.

    Raises
    ------
    CorruptDataError
        A partition lacks a record that others have.
    """
    n_frames = math.prod(layout.scan_shape)
    whole = Assembled(np.full(n_frames, VALID_FRAME, np.uint8), np.zeros(n_frames, np.uint32))
    sums: dict[str, Array] = {}
    for partition in ahead(storage, range(layout.n_partitions)):
        where = positions(layout, partition)
        with EntryFile(storage, partition) as found:
            whole.entries.append(found.entry)
            for name, target in (("valid", whole.valid), ("n_slots", whole.n_slots)):
                values = found.get(name)
                if values is not None:
                    target[where] = values
            _place_maps(whole, found, where, first=partition == 0)
            _merge(sums, found, "sums", np.add)
            _merge(whole.patterns, found, "maxima", np.maximum)
    whole.patterns |= sums
    if "sum" in sums:
        recorded = max(int(np.count_nonzero(whole.valid)), 1)
        whole.patterns["mean"] = sums["sum"] / recorded
    return whole


def summary_maps(
    whole: Assembled, scan_shape: tuple[int, ...], dims: tuple[str, ...], attributes: dict[str, dict[str, Any]]
) -> list[tuple[ArrayInfo, Array]]:
    """Describe the images of the summary that are small, with their values."""
    images = [(name, values.reshape(scan_shape), dims[:-2]) for name, values in whole.maps.items()]
    images += [(name, values, dims[-2:]) for name, values in whole.patterns.items()]
    return [
        (map_info(f"{SUMMARY}/{name}", values, axes, _attributes(name, attributes)), values)
        for name, values, axes in images
    ]


def write_binned(
    storage: Storage, layout: Layout, name: str, whole: Assembled, dims: tuple[str, ...]
) -> tuple[ArrayInfo, dict[str, int], dict[str, int]]:
    """Write the images per position of one name, shard by shard.

    Returns
    -------
    info, sizes, checksums
        The array, and bytes and CRC-32 of its shards by key.
    """
    frame_shape, dtype = whole.binned[name]
    target = dense_layout(layout.scan_shape, frame_shape, dtype, max_shard_bytes=BINNED_SHARD)
    info = replace(
        intensity_info(target, (*dims[:-2], f"{name}_ky", f"{name}_kx")),
        path=f"{SUMMARY}/{name}",
        attributes={"units": "count", "long_name": f"frames, {name} for viewing"},
    )
    homes = _homes(layout)
    cache: BoundedCache[Array] = BoundedCache(_RECORD_CACHE)
    sizes, checksums = {}, {}
    for place, part in zip(np.ndindex(*target.shard_grid), target.partitions, strict=True):
        extents = tuple(s.stop - s.start for s in part)
        frames = _collect(storage, layout, homes, f"maps/{name}", (part, frame_shape, dtype), cache)
        parts = encode_shard(chunk_bytes(frames.reshape(extents + frame_shape), target))
        key = info.key(place)
        sizes[key] = storage.put(key, parts)
        checksums[key] = object_checksum(parts)
    return info, sizes, checksums


def chunk_bytes(frames: Array, layout: DenseLayout) -> Iterator[bytes | None]:
    """Encode all inner chunks of one shard, C order; None for those that lie outside the scan."""
    stored = np.dtype(layout.dtype).newbyteorder("<")
    for place in itertools.product(*(range(n) for n in layout.chunks_per_shard)):
        start = tuple(p * c for p, c in zip(place, layout.chunk, strict=True))
        piece = gather(frames, start, layout.chunk, stored)
        yield None if piece is None else layout.codec.encode(piece)


def _homes(layout: Layout) -> Array:
    """Partition of every flat scan position."""
    home = np.empty(math.prod(layout.scan_shape), np.int32)
    for partition in range(layout.n_partitions):
        home[positions(layout, partition)] = partition
    return home


def _collect(
    storage: Storage,
    layout: Layout,
    homes: Array,
    name: str,
    wanted: tuple[tuple[slice, ...], tuple[int, int], np.dtype[Any]],
    cache: BoundedCache[Array],
) -> Array:
    """Gather the images of the positions of one shard from the records of the partitions that hold them."""
    part, frame_shape, dtype = wanted
    grid = np.arange(homes.size).reshape(layout.scan_shape)[part].reshape(-1)
    out = np.empty((len(grid), *frame_shape), dtype)
    for partition in np.unique(homes[grid]).tolist():

        def load(partition: int = partition) -> tuple[Array, int]:
            with EntryFile(storage, partition) as found:
                values = found.array(name)
            return values, values.nbytes

        here = np.flatnonzero(homes[grid] == partition)
        order = positions(layout, partition)
        out[here] = cache.get_or_make(partition, load)[np.searchsorted(order, grid[here])]
    return out


def _place_maps(whole: Assembled, found: EntryFile, where: Int64Array, *, first: bool) -> None:
    names = found.names("maps")
    known = {*whole.maps, *whole.binned}
    if not first and known != set(names):
        raise _lacking(found.entry.partition, ", ".join(sorted(known ^ set(names))))
    for name in names:
        values = found.array(f"maps/{name}")
        if values.ndim > 1:  # every partition has the type that its largest value needs
            _, before = whole.binned.get(name, (None, values.dtype))
            whole.binned[name] = ((values.shape[1], values.shape[2]), np.result_type(before, values))
            continue
        whole.maps.setdefault(name, np.zeros(whole.valid.shape, values.dtype))[where] = values


def _merge(into: dict[str, Array], found: EntryFile, kind: str, combine: np.ufunc) -> None:
    for name in found.names(kind):
        values = found.array(f"{kind}/{name}")
        into[name] = combine(into[name], values) if name in into else values


def _attributes(name: str, given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    known = {"units": UNITS[name]} if name in UNITS else {}
    return {**known, **given.get(name, {})}


def _lacking(partition: int, name: str) -> CorruptDataError:
    msg = (
        f"partition {partition} and the others do not have the same records ({name}); "
        "all partitions of one conversion must be written with the same options. Convert again"
    )
    return CorruptDataError(msg, partition=partition, key=name)
