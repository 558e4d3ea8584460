"""Encoders of the EMD layouts, written from their descriptions with NumPy and h5py only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

SCAN_DIMS = (("y", "[n_m]", 0.0, 0.5), ("x", "[n_m]", 1.0, 0.25))
DETECTOR_DIMS = (("ky", "[n_m^-1]", -1.0, 0.5), ("kx", "[n_m^-1]", -1.5, 0.5))
"""Name, units, offset and step of the axes."""

MICROSCOPE = {"high tension": 200000.0, "convergence angle": 0.0215, "camera length": 0.085, "name": "TEAM 0.5"}


def some(shape, dtype="<u2"):
    """Distinct pixels, so that a misplaced one shows."""
    return (np.arange(np.prod(shape)) % 65521).astype(dtype).reshape(shape)


def write_dims(
    group: h5py.Group, shape: tuple[int, ...], dims: Any, *, first: int = 1, two: bool = False, as_bytes: bool = False
) -> None:
    """Write ``dim<first>`` … with all coordinates, or only the first two."""
    for index, (size, (name, units, offset, step)) in enumerate(zip(shape, dims, strict=True)):
        values = offset + step * np.arange(2 if two else size)
        dim = group.create_dataset(f"dim{index + first}", data=values)
        dim.attrs["name"] = np.bytes_(name) if as_bytes else name
        dim.attrs["units"] = np.bytes_(units.encode()) if as_bytes else units


def write_ncem(
    path: Path,
    array: np.ndarray,
    *,
    dims: Any = (*SCAN_DIMS, *DETECTOR_DIMS),
    group: str = "data/scan",
    version: Any = (0, 2),
    kind: Any = 1,
    storage: dict[str, Any] | None = None,
    microscope: dict[str, Any] | None = None,
    mode: str = "w",
    **options: bool | int,
) -> Path:
    """Write one array as NCEM EMD 0.2; `dims` None leaves the dims out."""
    with h5py.File(path, mode) as file:
        file.attrs["version_major"], file.attrs["version_minor"] = version
        for name in ("microscope", "sample", "user", "comments"):
            file.require_group(name)
        file["microscope"].attrs.update(MICROSCOPE if microscope is None else microscope)
        file["sample"].attrs["sample name"] = "gold on carbon"
        file["user"].attrs["User name"] = np.bytes_(b"somebody")
        target = file.create_group(group)
        target.attrs["emd_group_type"] = kind
        target.create_dataset("data", data=array, **(storage or {}))
        if dims is not None:
            write_dims(target, array.shape, dims, **options)
    return path


def write_prismatic(path: Path, depths: list[np.ndarray], **parameters: Any) -> Path:
    """Write output depths of a simulated scan: angstrom values labelled as nm."""
    said = {"E": 100.0, "sa": 30.0, "ns": 2, "s": 1.25, "zs": 0.0} | parameters
    with h5py.File(path, "w") as file:
        top = file.create_group("4DSTEM_simulation")
        top.attrs.update({"emd_group_type": 2, "version_major": 0, "version_minor": 5})
        original = top.create_group("metadata/metadata_0/original/simulation_parameters")
        original.attrs.update({name: np.float32(value) for name, value in said.items()})
        for number, cube in enumerate(depths):
            group = top.create_group(f"data/datacubes/CBED_array_depth{number:04d}")
            group.attrs["emd_group_type"] = 1
            group.create_dataset("datacube", data=cube, chunks=(1, 1, *cube.shape[2:]))
            write_dims(group, cube.shape, (*SCAN_DIMS, *DETECTOR_DIMS), as_bytes=True)
        image = top.create_group("data/realslices/annular_depth0000")
        image.attrs["emd_group_type"] = 1
        image.create_dataset("realslice", data=depths[0][..., 0, 0])
    return path


def write_py4dstem(
    path: Path,
    array: np.ndarray,
    *,
    calibration: dict[str, Any] | None = None,
    dims: Any = (("Rx", "nm", 0, 0.5), ("Ry", "nm", 0, 0.5), ("Qx", "A^-1", 0, 0.02), ("Qy", "A^-1", 0, 0.02)),
    storage: dict[str, Any] | None = None,
    version: int = 1,
    results: bool = False,
) -> Path:
    """Write a datacube as EMD 1.0; `results` adds what py4DSTEM computes."""
    with h5py.File(path, "w") as file:
        file.attrs["emd_group_type"] = "file"
        file.attrs["version_major"], file.attrs["version_minor"] = version, 0
        file.attrs["UUID"] = "a53c3513-62ca-4a58-acae-fad9baa56f02"
        file.attrs["authoring_program"], file.attrs["authoring_user"] = "emdfile", ""
        root = _emd_node(file, "datacube_root", "root", "Root")
        cube = _emd_node(root, "datacube", "array", "DataCube")
        cube.create_dataset("data", data=array, **(storage or {})).attrs["units"] = "pixel intensity"
        write_dims(cube, array.shape, dims, first=0, two=True)
        if calibration is not None:
            bundle = _emd_node(root, "metadatabundle", "metadatabundle")
            _emd_items(_emd_node(bundle, "calibration", "metadata", "Calibration"), calibration)
        if results:
            _py4dstem_results(cube, array)
    return path


def _emd_node(parent: h5py.Group, name: str, kind: str, cls: str | None = None) -> h5py.Group:
    node = parent.create_group(name)
    node.attrs["emd_group_type"] = kind
    if cls is not None:
        node.attrs["python_class"] = cls
    return node


def _emd_items(group: h5py.Group, items: dict[str, Any]) -> None:
    for name, value in items.items():
        kind = "number"
        if isinstance(value, str):
            kind = "string"
        elif isinstance(value, bool):
            kind = "bool"
        elif isinstance(value, np.ndarray):
            kind = "array"
        group.create_dataset(name, data=value).attrs["type"] = kind.encode()
    paths = group.create_group("_target_paths")
    paths.attrs.update({"type": b"list_of_strings", "length": 1})
    paths.create_dataset("0", data="/datacube")


def _py4dstem_results(cube: h5py.Group, array: np.ndarray) -> None:
    image = _emd_node(cube, "ADF", "array", "VirtualImage")
    image.create_dataset("data", data=array.sum((2, 3)).astype("f8")).attrs["units"] = "intensity"
    probe = _emd_node(cube, "probe", "array", "Probe")
    probe.create_dataset("data", data=np.zeros((2, *array.shape[2:]))).attrs["units"] = ""
    vectors = _emd_node(cube, "braggvectors", "custom", "BraggVectors")
    inner = _emd_node(vectors, "_v_uncal", "custom_pointlistarray", "PointListArray")
    point = h5py.vlen_dtype(np.dtype([("qx", "f8"), ("qy", "f8"), ("intensity", "f8")]))
    inner.create_dataset("data", array.shape[:2], dtype=point)
    _emd_node(cube, "odd", "custom_other", "ClassThatNobodyKnows")


def write_legacy(path: Path, array: np.ndarray, *, version: tuple[int, int] = (0, 12), name: str = "data") -> Path:
    """Write a datacube as py4DSTEM 0.5 to 0.13 did: dims counted from 1."""
    with h5py.File(path, "w") as file:
        top = file.create_group("4DSTEM_experiment")
        top.attrs.update({"emd_group_type": 2, "version_major": version[0], "version_minor": version[1]})
        group = top.create_group("data/datacubes/datacube_0")
        group.attrs["emd_group_type"] = 1
        group.create_dataset(name, data=array)
        dims = (("R_x", "[nm]", 0, 0.5), ("R_y", "[nm]", 0, 0.5), ("Q_x", "A^-1", 0, 0.02), ("Q_y", "A^-1", 0, 0.02))
        write_dims(group, array.shape, dims)
        for part in ("diffractionslices", "realslices", "pointlists", "pointlistarrays", "counted_datacubes"):
            top.create_group(f"data/{part}")
        said = top.create_group("metadata/metadata_0/microscope")
        said.attrs["beam_energy"] = 200.0
        top.create_group("metadata/metadata_0/calibration").attrs.update({"R_pixel_size": 0.5, "R_units": "nm"})
    return path


def write_velox(
    path: Path, frames: np.ndarray, *, metadata: dict[str, Any], uuid: str = "0" * 32, mode: str = "w", **storage: Any
) -> Path:
    """Write frames (frame, y, x) as a Velox image: (y, x, frame) with NUL-padded JSON per frame."""
    stored = np.moveaxis(frames, 0, -1)
    with h5py.File(path, mode) as file:
        if mode == "w":
            texts = {"Version": {"version": "8", "format": "Velox"}, "Info": {"applicationVersion": "2.10.0"}}
            for name, content in texts.items():
                file.create_dataset(name, data=[json.dumps(content)], dtype=h5py.string_dtype())
            file.create_group("Operations")
        group = file.create_group(f"Data/Image/{uuid}")
        group.create_dataset("Data", data=stored, **(storage or {"chunks": (*stored.shape[:2], 1)}))
        content = json.dumps(metadata).encode()
        column = np.frombuffer(content + b"\0" * (60000 - len(content)), dtype=np.uint8)
        group.create_dataset("Metadata", data=np.repeat(column[:, None], len(frames), 1), chunks=(60000, 1))
        group.create_dataset("FrameLookupTable", data=np.arange(len(frames), dtype=np.uint32))
        camera = {"dataPath": f"/Data/Image/{uuid}", "cameraName": "Ceta", "outputs": ""}
        place = file.require_group("Operations/CameraInputOperation")
        place.create_dataset(uuid[::-1] + "op", data=[json.dumps(camera)], dtype=h5py.string_dtype())
    return path
