"""Scans that agree, dressed as one dataset with an axis in front; and scans that do not, as a tree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.scan.altered import is_counted
from stemstore.scan.calibration_arrays import lazy_map, map_attributes
from stemstore.scan.lazy import ScanArray
from stemstore.scan.open import dressed
from stemstore.scan.origins import ORIGIN
from stemstore.scan.series.source import SeriesSource
from stemstore.scan.stated import ATTRIBUTES, with_attributes
from stemstore.scan.states import frame_states
from stemstore.selection import Selection
from stemstore.sources.contract import VALID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from stemstore.scan.calibration import Calibration
    from stemstore.scan.open import Found
    from stemstore.scan.series.members import Meant

SCAN = "scan"
"""Coordinate along a series that names its scans."""

SCAN_UUID = "scan_uuid"
"""Coordinate along a series that identifies its scans."""

REASON = "not_one_array"
"""Attribute of a tree that says why its scans are not one array."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Scans that were opened, before anything is made of them.

    Attributes
    ----------
    meant
        Their names, and the group that they belong to.
    found
        The scans, in the same order.
    dim
        Name of the axis along which they follow.
    given
        What the user states about all of them.
    flyback
        Whether the columns recorded while the beam flew back are shown.
    """

    meant: Meant
    found: list[Found]
    dim: str
    given: Calibration
    flyback: bool

    @property
    def names(self) -> list[str]:
        """Names of the scans."""
        return [scan.name for scan in self.meant.scans]

    def attributes(self, uuid: str | None) -> dict[str, Any]:
        """Identity and place of the whole; of scans that are no group each has its own place."""
        series = self.meant.series
        if series is None:
            places = [str(one.url) for one in self.found]
            return {"stemstore_uuid": uuid, "source_url": None, "source_urls": places}
        about = {"stemstore_uuid": series.document.uuid, "source_url": series.url}
        return about | ({} if series.document.title is None else {"title": series.document.title})

    def coordinates(self) -> dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]]:
        """Places, names and identities of the scans along the series."""
        values, about = self._places()
        dims = (self.dim,)
        return {
            self.dim: (dims, values, about),
            SCAN: (dims, np.array(self.names), {"long_name": "name of the scan"}),
            SCAN_UUID: (dims, np.array([one.source.uuid for one in self.found]), {"long_name": "identity of the scan"}),
        }

    def _places(self) -> tuple[Any, dict[str, Any]]:
        """Where each scan stands: as the index says, by the clock, or by number."""
        entries = [scan.entry for scan in self.meant.scans]
        orders = [None if entry is None else entry.order for entry in entries]
        series = self.meant.series
        about: dict[str, Any] = {"long_name": self.dim}
        if series is not None and self.dim == series.document.dim and orders and orders[0] is not None:
            unit = series.document.unit
            return np.array(orders, np.float64), about | ({} if unit is None else {"units": unit})
        starts = instants([one.acquisition.start_time for one in self.found]) if self.dim == "time" else None
        if starts is None:
            return np.arange(len(self.found)), about | {"long_name": "number of the scan"}
        first = min(starts)
        seconds = np.array([(start - first).total_seconds() for start in starts])
        return seconds, about | {"units": "s", "long_name": "start of the scan", "since": first.isoformat()}


def instants(times: Sequence[str | None]) -> list[datetime] | None:
    """Read the times at which scans began; None where one is not known, two are the same, or zones are unclear."""
    known = [datetime.fromisoformat(time) for time in times if time is not None]
    zones = {time.tzinfo is None for time in known}
    if len(known) < len(times) or len(zones) > 1 or len(set(known)) < len(known):
        return None
    return known if True in zones else [time.astimezone(UTC) for time in known]


def one_dataset(opened: Opened) -> xr.Dataset:
    """Make one dataset of scans that agree; nothing of them is read."""
    import xarray as xr

    from stemstore.scan.corrected import corrected_source

    found = opened.found
    first = dressed(found[0], opened.given, flyback=opened.flyback)
    shown = [one.source if one.known.asked is None else corrected_source(one.source, one.known.asked) for one in found]
    source = SeriesSource.of(shown, counted=all(is_counted(one) for one in shown))
    image = first["intensity"]
    dims = (opened.dim, *map(str, image.dims))
    cut = tuple(slice(0, image.sizes[dim]) for dim in image.dims)
    array = ScanArray(source, Selection.full(source.shape))[(slice(None), *cut)]
    shared = {str(name): variable for name, variable in first.coords.items() if name not in ("valid", *ORIGIN)}
    coords: dict[str, Any] = {**opened.coordinates(), **shared}
    whole = xr.Dataset({"intensity": (dims, array, image.attrs)}, coords=coords, attrs=first.attrs)
    whole = _with_maps(whole, opened, dims, cut)
    whole = with_attributes(whole, opened.attributes(source.uuid))
    return with_attributes(whole, _unequal(found) | _warnings(found))


def one_tree(opened: Opened, reason: str | None) -> xr.DataTree:
    """Make a tree with a node for each scan, as `stemstore.open` gives them, with their places along the series."""
    import xarray as xr

    along = opened.coordinates()
    nodes: dict[str, xr.Dataset] = {}
    for number, (name, one) in enumerate(zip(opened.names, opened.found, strict=True)):
        dataset = dressed(one, opened.given, flyback=opened.flyback)
        places = {key: ((), values[number], about) for key, (_, values, about) in along.items() if key != SCAN_UUID}
        nodes[name] = dataset.assign_coords(places)
    tree = xr.DataTree.from_dict(nodes)
    about = {key: value for key, value in opened.attributes(None).items() if value is not None}
    tree.attrs = about | {"dim": opened.dim} | ({} if reason is None else {REASON: reason})
    return tree


def _with_maps(whole: xr.Dataset, opened: Opened, dims: tuple[str, ...], cut: tuple[slice, ...]) -> xr.Dataset:
    """Add what every scan has of its own: states of frames, maps of the optic axis, images of the detector."""
    import dask.array as da
    import xarray as xr

    states = _states(opened, dims[1:-2])
    if states is not None:
        variable = xr.Variable(dims[:-2], states[0], states[1])
        whole = whole.assign_coords(valid=variable[(slice(None), *cut[:-2])])
    names = set.intersection(*(set(_shown(one)) for one in opened.found))
    for name in sorted(names):
        own = dims[1:-2] if name in ORIGIN else dims[-2:]
        arrays = [one.known.arrays[name] for one in opened.found]
        stack = da.stack(
            [
                lazy_map(array, one.url, one.source.uuid, name, one.known.mark)
                for array, one in zip(arrays, opened.found, strict=True)
            ]
        )
        variable = xr.Variable((opened.dim, *own), stack, map_attributes(arrays[0], name))
        if name in ORIGIN:
            whole = whole.assign_coords({name: variable[(slice(None), *cut[:-2])]})
        else:
            whole = whole.assign({name: variable})
    return whole


def _shown(one: Found) -> list[str]:
    """Arrays of a calibration that a dataset shows: those that were not applied."""
    applied = {} if one.known.asked is None else one.known.asked.references
    return [name for name in one.known.arrays if name == "mask" or name not in applied]


def _states(opened: Opened, dims: tuple[str, ...]) -> tuple[Any, dict[str, Any]] | None:
    """Stack the states of the frames of all scans; None where all frames of all scans are valid."""
    import dask.array as da

    found = [frame_states(one.source, dims) for one in opened.found]
    known = [variable for variable in found if variable is not None]
    if not known:
        return None
    full = np.full(known[0].shape, VALID, np.uint8)
    arrays = [full if variable is None else variable.data for variable in found]
    lazy = any(isinstance(array, da.Array) for array in arrays)
    return (da if lazy else np).stack(arrays), known[0].attrs


def _unequal(found: list[Found]) -> dict[str, Any]:
    """Attributes of the first scan that are no part of a calibration and do not hold for all: they are taken away."""
    times = {None if (time := one.acquisition.dwell_time) is None else time.value for one in found}
    return {ATTRIBUTES["dwell_time"]: None} if len(times) > 1 else {}


def _warnings(found: list[Found]) -> dict[str, Any]:
    told = [f"{one.url}: {text}" for one in found for text in one.warnings]
    return {"warnings": told or None}
