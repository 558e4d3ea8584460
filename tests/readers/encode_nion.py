"""Encoders of data items of Nion Swift, written from their description with zipfile, NumPy and h5py."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

CALIBRATIONS = (
    {"offset": -1.0, "scale": 0.5, "units": "nm"},
    {"offset": -2.0, "scale": 0.25, "units": "nm"},
    {"offset": -10.0, "scale": 2.0, "units": "mrad"},
    {"offset": -12.0, "scale": 3.0, "units": "mrad"},
)


def properties(array: np.ndarray, *, series: bool = False, datum: int = 2, **changes: Any) -> dict[str, Any]:
    """Describe an array as Swift does."""
    said = {
        "data_shape": list(array.shape),
        "data_dtype": str(array.dtype),
        "is_sequence": series,
        "collection_dimension_count": array.ndim - datum - series,
        "datum_dimension_count": datum,
        "dimensional_calibrations": [{"offset": 0.0, "scale": 1.0, "units": ""}] * series
        + list(CALIBRATIONS[-(array.ndim - series) :]),
        "intensity_calibration": {"offset": 0.0, "scale": 1.0, "units": "counts"},
        "created": "2024-05-17T09:30:00.250000",
        "timezone": "Europe/Zurich",
        "metadata": {
            "instrument": {"high_tension": 60000.0, "defocus": 2e-9},
            "hardware_source": {"exposure": 0.002, "hardware_source_name": "Dectris ELA"},
        },
    }
    return said | changes


def write_ndata(
    path: Path, array: np.ndarray, said: Any = None, *, method: int = zipfile.ZIP_STORED, metadata_first: bool = False
) -> Path:
    """Write an archive; `said` may be bytes."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    text = said if isinstance(said, bytes) else json.dumps(properties(array) if said is None else said).encode()
    members = [("data.npy", content.getvalue()), ("metadata.json", text)]
    with zipfile.ZipFile(path, "w", method) as file:
        for name, part in reversed(members) if metadata_first else members:
            file.writestr(name, part)
    return path


def write_nion_h5(path: Path, array: np.ndarray, said: Any = None, **storage: Any) -> Path:
    """Write a dataset with its JSON attribute."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=array, **storage)
        data.attrs["properties"] = json.dumps(properties(array) if said is None else said)
    return path
