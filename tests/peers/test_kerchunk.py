"""zarr-python 2 opens references by fsspec, as kerchunk's users do; it knows neither shards nor format 3."""

from __future__ import annotations

import numpy as np
import pytest

import stemstore

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]  # the first one installs the program

REQUIREMENT = "kerchunk==0.2.7"  # the last one for zarr-python 2

CODE = """
import fsspec, zarr
assert zarr.__version__.startswith("2.")
mapper = fsspec.filesystem("reference", fo=path, remote_protocol="file").get_mapper("")
group = zarr.open_consolidated(mapper)
array = group["intensity"]
print(json.dumps(dict(
    pixels=array[:].tolist(),
    dtype=[str(array.dtype)],
    dims=array.attrs["_ARRAY_DIMENSIONS"],
    ky=group["ky"][:].tolist(),
    valid=group["valid"][:].tolist() if "valid" in group else [],
)))
"""
FRAMES = np.random.default_rng(0).integers(0, 900, (3, 5, 6, 7))


@pytest.mark.parametrize("dtype", ["u1", ">u2", ">f4"])
def test_raw_files(ask, tmp_path, dtype):
    """Pixels in the byte order of the file, labels, and the states of frames of which some are missing."""
    frames = (FRAMES % 250).astype(dtype)
    np.save(tmp_path / "a.npy", frames.reshape(15, 6, 7))
    stemstore.export(tmp_path / "a.npy", tmp_path / "a.json", scan_shape=(4, 5), detector_step="2 mrad")
    found = ask(REQUIREMENT, CODE, tmp_path / "a.json")
    np.testing.assert_array_equal(found["pixels"][:3], frames)
    assert found["dtype"] == str(np.dtype(dtype))
    assert found["dims"].tolist() == ["y", "x", "ky", "kx"]
    assert np.diff(found["ky"]).tolist() == [2] * 5
    assert found["valid"].tolist() == [[2] * 5] * 3 + [[0] * 5]
    if dtype == ">f4":
        assert np.isnan(found["pixels"][3]).all()


@pytest.mark.parametrize("profile", ["fast", "balanced", "small", "raw"])
def test_stores(ask, tmp_path, profile):
    """Chunks of shards, tiles of frames among them, are chunks of format 2."""
    np.save(tmp_path / "a.npy", FRAMES.astype("u2"))
    cut = {"chunks": (2, 2, 4, 7), "shards": (2, 4)}
    stemstore.convert(tmp_path / "a.npy", tmp_path / "a.zarr", profile=profile, **cut)
    stemstore.export(tmp_path / "a.zarr", tmp_path / "a.json")
    np.testing.assert_array_equal(ask(REQUIREMENT, CODE, tmp_path / "a.json")["pixels"], FRAMES)
