"""Some patterns of a scan, for a look at them: by default at random, and always the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.labels import scan_dims

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray

PATTERN = "pattern"
"""Dim of the patterns."""


def some_positions(keep: BoolArray, most: int) -> list[tuple[int, ...]]:
    """Draw positions, in C order, from those of a map of the scan that are true."""
    flat = np.flatnonzero(keep)
    drawn = np.sort(np.random.default_rng(0).choice(flat, min(most, len(flat)), replace=False))
    return [tuple(int(i) for i in np.unravel_index(one, keep.shape)) for one in drawn] if keep.ndim else [()]


def checked_positions(image: xr.DataArray, positions: Any) -> list[tuple[int, ...]]:
    """Take positions of a scan as tuples of indices.

    Raises
    ------
    InputError
        There are none, or one lies outside the scan.
    """
    shape = image.shape[:-2]
    chosen = [tuple(int(i) for i in np.atleast_1d(np.asarray(position))) for position in positions]
    for position in chosen:
        if len(position) != len(shape) or not all(0 <= i < n for i, n in zip(position, shape, strict=True)):
            msg = f"position {position} is none of the scan of {shape}; give one index for each axis of the scan"
            raise InputError(msg, key="positions", found=position, expected=shape)
    if not chosen:
        msg = "no positions are given; give some, such as [(0, 0)], or leave them out for some at random"
        raise InputError(msg, key="positions")
    return chosen


def patterns_at(image: xr.DataArray, positions: list[tuple[int, ...]]) -> xr.DataArray:
    """Read the patterns at some positions, dims (pattern, ky, kx); their coordinates tell where they are."""
    import xarray as xr

    dims = scan_dims(image)
    if not dims:
        return image.expand_dims(PATTERN).compute()
    places = np.transpose(positions)
    index = {dim: xr.DataArray(along, dims=PATTERN) for dim, along in zip(dims, places, strict=True)}
    return image.isel(index).transpose(PATTERN, "ky", "kx").compute()
