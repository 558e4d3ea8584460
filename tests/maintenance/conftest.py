"""A dense and a counted store with a saved result and a saved calibration, to be copied, packed and changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.testing.servers import FileServer


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Make both stores, in several shards each."""
    folder = tmp_path_factory.mktemp("kept")
    frames = np.random.default_rng(2).poisson(0.05, (10, 9, 32, 24)).astype(np.uint16) * 20
    np.save(folder / "raw.npy", frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stemstore.store.layout.MAX_RAW_BYTES", 2**15)
        patch.setattr("stemstore.store.layout.MAX_SHARD_BYTES", 2**15)
        for name, count in (("dense", False), ("counted", True)):
            limits = {"background_threshold": 10.0, "xray_threshold": 500.0} if count else {}
            store = folder / f"{name}.zarr"
            stemstore.convert(folder / "raw.npy", store, count=count, scan_step=0.5, **limits)
            scan = stemstore.open(store)
            stemstore.save(stemstore.mean_pattern(scan), store, "mean")
            stemstore.save_calibration({"beam_energy": 200}, store)
    return folder


@pytest.fixture(params=["dense", "counted"])
def store(request, kept, tmp_path):
    """Copy one of them for a test that may harm it."""
    return Path(shutil.copytree(kept / f"{request.param}.zarr", tmp_path / "a.zarr"))


@pytest.fixture
def objects():
    """Give everything below a folder by its key."""

    def read(folder):
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture
def shards():
    """Give the files of pixels or events of a store, sorted."""

    def find(folder):
        big = [path for path in Path(folder).rglob("c/**/*") if path.is_file()]
        return sorted(path for path in big if {"intensity", "gap"} & set(path.parts))

    return find


@pytest.fixture
def web(tmp_path):
    """Serve the folder of the test."""
    pytest.importorskip("aiohttp", reason="needs aiohttp (extras cloud and test)")
    with FileServer(tmp_path) as server:
        yield server
