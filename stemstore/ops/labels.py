"""From labelled arrays to plain ones and back: finding the intensity, naming results, writing their history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore._version import __version__
from stemstore.errors import InputError
from stemstore.scan.stated import ELLIPSE, ELLIPSE_AXES, TRANSPOSE

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray

DETECTOR_DIMS = ("ky", "kx")
GATHERED_BYTES = 32 * 2**20
"""Results of many tasks that are joined before arithmetic on them."""
INHERITED = (
    "beam_energy_keV",
    "semi_convergence_angle_mrad",
    "scan_rotation_deg",
    "stemstore_uuid",
    TRANSPOSE,
    ELLIPSE,
    *ELLIPSE_AXES.values(),
)
"""Attributes of a scan that its results carry on."""


def intensity_of(scan: Any) -> xr.DataArray:
    """Give the 4D intensity of a scan with the detector axes last.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray with the dims ``ky`` and ``kx``.

    Raises
    ------
    InputError
        The object has no intensity, or lacks a detector axis.
    """
    import xarray as xr

    image = scan
    if isinstance(scan, xr.DataTree):
        msg = (
            "operations take one scan, or scans that fit into one dataset, and this is a tree of scans; call them for "
            "each: stemstore.map_scans(function, tree, …)"
        )
        raise InputError(msg, found="DataTree")
    if isinstance(scan, xr.Dataset):
        if "intensity" not in scan:
            msg = (
                f"the dataset has no variable 'intensity', only {list(scan.data_vars)}; open scans with stemstore.open"
            )
            raise InputError(msg, key="intensity", found=list(scan.data_vars))
        image = scan["intensity"]
    if not isinstance(image, xr.DataArray):
        msg = f"expected a Dataset or DataArray of a scan, got {type(scan).__name__}; open scans with stemstore.open"
        raise InputError(msg, found=type(scan).__name__)
    missing = [dim for dim in DETECTOR_DIMS if dim not in image.dims]
    if missing:
        msg = f"the intensity has dims {image.dims} and lacks {missing}; operations need the whole detector axes"
        raise InputError(msg, expected=DETECTOR_DIMS, found=image.dims)
    if image.dims[-2:] != DETECTOR_DIMS:
        image = image.transpose(..., *DETECTOR_DIMS)
    return image


def scan_dims(image: xr.DataArray) -> tuple[str, ...]:
    """Names of the scan axes."""
    return tuple(str(dim) for dim in image.dims[:-2])


def recorded(image: xr.DataArray) -> BoolArray | None:
    """Which positions have a frame at all (valid or partial), or None when the scan says nothing about it."""
    if "valid" not in image.coords:
        return None
    valid = image.coords["valid"].transpose(*scan_dims(image)).values
    return np.asarray(valid != 0)


def gathered(result: Any) -> Any:
    """Give a small result per position in few large blocks, so that arithmetic on it costs few tasks."""
    return result.rechunk("auto", block_size_limit=GATHERED_BYTES)


def without_missing(data: Any, image: xr.DataArray) -> Any:
    """Put NaN where a frame is missing; `data` has the scan axes of the image first."""
    import dask.array as da

    known = recorded(image)
    if known is None or known.all():
        return data
    behind = (1,) * (data.ndim - known.ndim)
    flags = da.from_array(known.reshape(known.shape + behind), chunks=data.chunks[: known.ndim] + behind)
    return da.where(flags, data, np.nan)


def labelled(data: Any, image: xr.DataArray, dims: tuple[str, ...], history: str) -> xr.DataArray:
    """Name the axes of a result and carry over what still holds.

    Parameters
    ----------
    data
        The result.
    image
        What was computed from; its coordinates on the result's axes are kept.
    dims
        Names of the result's axes.
    history
        One line that says what was done, see `parameters_text`.
    """
    import xarray as xr

    sizes = dict(zip(dims, data.shape, strict=True))
    kept = {k: c for k, c in image.coords.items() if all(sizes.get(d) == n for d, n in c.sizes.items())}
    attrs = {key: image.attrs[key] for key in INHERITED if key in image.attrs}
    attrs["history"] = "\n".join(line for line in (image.attrs.get("history"), history) if line)
    return xr.DataArray(data, dims=dims, coords=kept, attrs=attrs)


def parameters_text(operation: str, **parameters: Any) -> str:
    """One line of history: the operation with its parameters after defaults, and the version that did it."""
    inside = ", ".join(f"{key}={_short(value)}" for key, value in parameters.items() if value is not None)
    return f"{operation}({inside}) [stemstore {__version__}]"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    if isinstance(value, np.generic):
        value = value.item()
    return f"{value:.10g}" if isinstance(value, float) else repr(value)


def values_of(data: Any) -> Array:
    """NumPy values of a small array that may be labelled or lazy."""
    return np.asarray(getattr(data, "values", data))
