"""Encoders of HyperSpy's files in HDF5 and Zarr 2, written from their descriptions with h5py, numcodecs and zipfile."""

from __future__ import annotations

import json
import warnings
import zipfile
from itertools import product
from typing import TYPE_CHECKING, Any

import h5py
import numcodecs
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

AXES = (
    {"name": "y", "scale": 2.0, "offset": 200.0, "units": "nm", "navigate": True},
    {"name": "x", "scale": 1.5, "offset": 100.0, "units": "nm", "navigate": True},
    {"name": "ky", "scale": 0.01, "offset": -0.02, "units": "$A^{-1}$", "navigate": False},
    {"name": "kx", "scale": 0.02, "offset": -0.06, "units": "$A^{-1}$", "navigate": False},
)

METADATA = {
    "General": {
        "title": "",
        "date": "2018-04-15",
        "time": "15:47:20",
        "time_zone": "UTC",
        "authors": "somebody",
        "_tuple_empty_notes": "",
    },
    "Signal": {"signal_type": "electron_diffraction"},
    "Acquisition_instrument": {
        "TEM": {
            "beam_energy": 200.0,
            "camera_length": 510.0,
            "convergence_angle": 1.5,
            "magnification": 1300000.0,
            "microscope": "Titan",
            "Detector": {"Camera": {"exposure": 0.05, "name": "Merlin"}},
        }
    },
}

BLOSC = {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1, "blocksize": 0}


def axis_attributes(array: np.ndarray, axes: Any) -> list[dict[str, Any]]:
    """Complete the attributes of the axes of an array."""
    return [
        {"_type": "UniformDataAxis", "is_binned": False, "size": size, **axis}
        for size, axis in zip(array.shape, axes, strict=True)
    ]


def write_hspy(
    path: Path,
    array: np.ndarray,
    *,
    axes: Any = AXES,
    title: str = "__unnamed__",
    metadata: Any = METADATA,
    version: Any = "3.3",
    mode: str = "w",
    storage: dict[str, Any] | None = None,
) -> Path:
    """Write one signal."""
    with h5py.File(path, mode) as file:
        file.attrs["file_format"], file.attrs["file_format_version"] = "HyperSpy", version
        group = file.create_group(f"Experiments/{title}")
        group.attrs["package"], group.attrs["package_version"] = "hyperspy", "2.4"
        group.create_dataset("data", data=array, **(storage or {}))
        for index, axis in enumerate(axis_attributes(array, axes)):
            place = group.create_group(f"axis-{index}")
            for name, value in axis.items():
                if name == "axis":
                    place.create_dataset(name, data=value)
                else:
                    place.attrs[name] = value
        _write_tree(group.create_group("metadata"), metadata)
        for name in ("original_metadata", "learning_results", "attributes"):
            group.create_group(name)
    return path


def _write_tree(group: h5py.Group, tree: Any) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _write_tree(group.create_group(name), value)
        else:
            group.attrs[name] = value


def zarr_members(
    array: np.ndarray, chunks: tuple[int, ...], *, separator: str | None = "/", **options: Any
) -> dict[str, bytes]:
    """Cut an array into members of Zarr 2; options are keys of ``.zarray``. All-zero chunks are left out."""
    said: dict[str, Any] = {
        "zarr_format": 2,
        "shape": array.shape,
        "chunks": chunks,
        "dtype": array.dtype.str,
        "order": "C",
        "fill_value": 0,
        "filters": None,
        "compressor": BLOSC,
    } | options
    if separator is not None:
        said["dimension_separator"] = separator
    codec = None if said["compressor"] is None else numcodecs.get_codec(dict(said["compressor"]))
    members = {".zarray": json.dumps(said).encode()}
    for place in product(*(range(-(-size // chunk)) for size, chunk in zip(array.shape, chunks, strict=True))):
        block = np.full(chunks, said["fill_value"] or 0, array.dtype)
        part = array[tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(place, chunks, strict=True))]
        block[tuple(slice(0, size) for size in part.shape)] = part
        if part.any():
            content = block.tobytes(order=said["order"])
            members[(separator or ".").join(map(str, place))] = (
                content if codec is None else bytes(codec.encode(content))
            )
    return members


def zspy_members(
    array: np.ndarray,
    chunks: tuple[int, ...],
    *,
    axes: Any = AXES,
    title: str = "__unnamed__",
    metadata: Any = METADATA,
    version: Any = "3.3",
    **options: Any,
) -> dict[str, bytes]:
    """Make all members of a file with one signal."""
    top = f"Experiments/{title}"
    attributes: dict[str, Any] = {"": {"file_format": "ZSpy", "file_format_version": version}, "Experiments": {}}
    attributes[top] = {"package": "hyperspy", "package_version": "2.4"}
    for index, axis in enumerate(axis_attributes(array, axes)):
        attributes[f"{top}/axis-{index}"] = axis

    def add(place: str, tree: Any) -> None:
        attributes[place] = {name: value for name, value in tree.items() if not isinstance(value, dict)}
        for name, value in tree.items():
            if isinstance(value, dict):
                add(f"{place}/{name}", value)

    add(f"{top}/metadata", metadata)
    found = {}
    for place, said in attributes.items():
        prefix = f"{place}/" if place else ""
        found[f"{prefix}.zgroup"] = b'{"zarr_format": 2}'
        found[f"{prefix}.zattrs"] = json.dumps(said).encode()
    return found | {f"{top}/data/{name}": part for name, part in zarr_members(array, chunks, **options).items()}


def write_folder(path: Path, members: dict[str, bytes]) -> Path:
    """Write members as files of a folder."""
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED, stale: bool = False) -> Path:
    """Write members into a zip file; `stale` puts an older generation of every attribute in front of it."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
        for name, content in members.items():
            if stale and name.endswith(".zattrs"):
                file.writestr(name, b'{"name": "older", "units": "m", "scale": 9.0}')
            file.writestr(name, content)
    return path
