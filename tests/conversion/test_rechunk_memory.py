"""Laying out anew stays within the memory that was stated, whatever the chunks are."""

import gc
import tracemalloc

import numpy as np
import pytest

import stemstore
from stemstore.conversion import steps
from stemstore.conversion.rechunk import rechunk_store

FRAMES, CUBES = {"chunks": (4, 4, 64, 64), "shards": (32, 32)}, {"chunks": (16, 16, 16, 16), "shards": (16, 16)}
ODD = {"chunks": (5, 3, 64, 23), "shards": (5, 9)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Write 32 MB of frames that do not compress in chunks of frames and in cubes."""
    folder = tmp_path_factory.mktemp("large")
    np.save(folder / "raw.npy", np.random.default_rng(1).integers(0, 2**16, (64, 64, 64, 64), np.uint16))
    for name, pieces in (("frames", FRAMES), ("cubes", CUBES)):
        stemstore.convert(folder / "raw.npy", folder / f"{name}.zarr", count=False, profile="raw", **pieces)
    return folder


@pytest.mark.parametrize(
    ("source", "asked", "memory"),
    [
        ("frames", CUBES, "16MiB"),
        pytest.param("cubes", FRAMES, "48MiB", marks=pytest.mark.slow),
        pytest.param("cubes", ODD, "16MiB", marks=pytest.mark.slow),
        pytest.param("cubes", ODD, "64MiB", marks=pytest.mark.slow),
        pytest.param("frames", {"layout": "tiled"}, "32MiB", marks=pytest.mark.slow),
        pytest.param("cubes", {"chunks": (1, 1, 64, 64), "shards": (8, 4)}, "32MiB", marks=pytest.mark.slow),
    ],
)
def test_memory_is_what_was_stated(tmp_path, stores, monkeypatch, source, asked, memory):
    """While shards are made the peak of all allocations is below what the report projects, and that below the limit."""
    peaks, finish = [], steps.finish

    def finishing(*args):
        peaks.append(tracemalloc.get_traced_memory()[1])
        return finish(*args)

    monkeypatch.setattr(steps, "finish", finishing)
    gc.collect()
    tracemalloc.start()
    try:
        report = rechunk_store(stores / f"{source}.zarr", tmp_path / "b.zarr", max_memory=memory, workers=2, **asked)
    finally:
        tracemalloc.stop()
    assert peaks[0] < report.memory <= int(memory.removesuffix("MiB")) * 2**20
    part = slice(17, 50), slice(3, 64), slice(0, 64, 5)
    stored = stemstore.open(tmp_path / "b.zarr").intensity[part]
    np.testing.assert_array_equal(stored.values, np.load(stores / "raw.npy", mmap_mode="r")[part])
