"""Doing the same to every scan of a series or of a tree, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.scan.series.dataset import SCAN

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr


def map_scans(function: Callable[..., Any], scans: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function for every scan by itself, and put the results together.

    Operations take a whole series at once where it is one dataset, and most give a result per scan already. This is
    for trees, and for results over all positions of each scan, such as a mean pattern.

    Parameters
    ----------
    function
        Takes a scan's Dataset as its first argument and gives a DataArray or a Dataset; lazy results stay lazy.
    scans
        What `stemstore.open_series` gives, or what this function gave.
    *args, **kwargs
        Handed on. A tree gives its node of the same name, and an array or dataset with the axis of the series its part
        for the scan; everything else is the same for all.

    Returns
    -------
    results
        Of a tree a tree, in which an array is a variable of its own name or of that of the function; of a dataset the
        results along the same axis in front.

    Raises
    ------
    InputError
        `scans` is neither, the function gave something else, or the results of a dataset do not fit together.

    Examples
    --------
    >>> import stemstore
    >>> series = stemstore.open_series("experiment.zarr")  # doctest: +SKIP
    >>> patterns = stemstore.map_scans(stemstore.mean_pattern, series)  # dims (time, ky, kx)  # doctest: +SKIP
    """
    import xarray as xr

    if isinstance(scans, xr.DataTree):
        return _over_tree(function, scans, args, kwargs)
    if isinstance(scans, (xr.Dataset, xr.DataArray)) and SCAN in scans.coords and scans[SCAN].ndim == 1:
        return _over_dataset(function, scans, args, kwargs)
    msg = (
        f"expected a tree of scans or a dataset with several, got {type(scans).__name__}; open them with "
        "stemstore.open_series, and call the function itself for one scan"
    )
    raise InputError(msg, found=type(scans).__name__)


def _over_tree(function: Callable[..., Any], tree: xr.DataTree, args: Any, kwargs: Any) -> xr.DataTree:
    import xarray as xr

    results = {}
    for node in tree.subtree:
        if not node.data_vars:
            continue
        path = node.relative_to(tree)
        own = [_of_node(value, path) for value in args]
        named = {key: _of_node(value, path) for key, value in kwargs.items()}
        results[path] = _as_dataset(_called(function, node.to_dataset(), own, named, path), function)
    made = xr.DataTree.from_dict(results)
    made.attrs = dict(tree.attrs)
    return made


def _of_node(value: Any, path: str) -> Any:
    import xarray as xr

    if not isinstance(value, xr.DataTree):
        return value
    try:
        node: Any = value[path]
        return node.to_dataset()
    except (KeyError, AttributeError) as error:
        msg = f"a tree among the arguments has no scan {path!r}; give one with the same scans"
        raise InputError(msg, scan=path) from error


def _over_dataset(function: Callable[..., Any], scans: Any, args: Any, kwargs: Any) -> Any:
    import xarray as xr

    dim = str(scans[SCAN].dims[0])
    along = {name: coordinate for name, coordinate in scans.coords.items() if coordinate.dims == (dim,)}

    def part(value: Any, number: int) -> Any:
        mine = isinstance(value, (xr.Dataset, xr.DataArray)) and dim in value.dims
        return value.isel({dim: number}) if mine else value

    parts = []
    for number, name in enumerate(scans[SCAN].values.tolist()):
        values = [part(value, number) for value in args]
        named = {key: part(value, number) for key, value in kwargs.items()}
        result = _called(function, scans.isel({dim: number}), values, named, name)
        parts.append(result.drop_vars(list(along), errors="ignore"))
    if not parts:
        msg = "no scan is selected; select some before the function is called for each"
        raise InputError(msg, key=dim)
    kinds = {type(one) for one in parts}
    try:
        stacked = [str(name) for name in parts[0].coords if name not in parts[0].dims and _differs(str(name), parts)]
        whole = xr.concat(parts, dim, coords=stacked, compat="override", join="exact", combine_attrs="override")
    except (ValueError, TypeError, xr.MergeError) as error:
        msg = (
            f"the results of the scans do not fit together ({', '.join(one.__name__ for one in kinds)}: {error}); open "
            "the series as a tree (tree=True), whose results may differ"
        )
        raise InputError(msg, key=dim) from error
    return whole.assign_coords(along)


def _differs(name: str, parts: list[Any]) -> bool:
    """Whether a coordinate is another one in the result of another scan; lazy ones are told apart by their tasks."""
    first = parts[0].coords[name].variable
    others = [one.coords[name].variable for one in parts[1:] if name in one.coords]
    if not all(isinstance(one.data, np.ndarray) for one in (first, *others)):
        return any(getattr(one.data, "name", None) != getattr(first.data, "name", None) for one in others)
    return any(not one.equals(first) for one in others)


def _called(function: Callable[..., Any], scan: Any, args: Any, kwargs: Any, name: str) -> Any:
    """Call the function for one scan."""
    import xarray as xr

    try:
        result = function(scan, *args, **kwargs)
    except Exception as error:
        error.add_note(f"scan {name!r} of the series")
        raise
    if not isinstance(result, (xr.DataArray, xr.Dataset)):
        msg = (
            f"the function gave {type(result).__name__} for scan {name!r}; expected a DataArray or a Dataset, so that "
            "results of scans can be put together"
        )
        raise InputError(msg, scan=name, found=type(result).__name__)
    return result


def _as_dataset(result: Any, function: Callable[..., Any]) -> xr.Dataset:
    import xarray as xr

    if isinstance(result, xr.Dataset):
        return result
    name = result.name if isinstance(result.name, str) else getattr(function, "__name__", "result")
    if name in result.coords:
        name = "result"
    dataset: xr.Dataset = result.to_dataset(name=name)
    return dataset
