"""Many results at once, streamed and inherited, on every scheduler: each equals NumPy's."""

from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import NotFoundError, StaleStoreError


def selected(image, rng):
    """Select at random: rows in any order, columns by step, picked positions, a part of the detector."""
    cut = image.isel(ky=slice(int(rng.integers(0, 5)), None), kx=slice(None, None, int(rng.integers(1, 3))))
    match rng.integers(0, 4):
        case 0:
            return cut.isel(y=rng.integers(0, 11, 8), x=rng.permutation(9))
        case 1:
            return cut.isel(y=slice(None, None, -2), x=slice(1, 8))
        case 2:
            return cut.isel({dim: xr.DataArray(rng.integers(0, n, 20), dims="p") for dim, n in (("y", 11), ("x", 9))})
        case _:
            return cut


def batch(ds, counts, rounds, seed=0):
    """Lazy results of random selections in random chunks, each with what NumPy gives."""
    rng = np.random.default_rng(seed)
    for number in range(rounds):
        image = selected(ds.intensity, rng)
        scan = image.dims[:-2]
        if number % 2:
            image = image.chunk({dim: int(rng.integers(2, 6)) for dim in scan})
        y, x, ky, kx = (image[f"{name}_pixel"].values for name in ("y", "x", "ky", "kx"))
        frames = counts[np.ix_(y, x)] if len(scan) == 2 else counts[y, x]
        expected = frames[..., ky, :][..., kx].astype(int)
        mask = rng.random(expected.shape[-2:]) < 0.5
        axes = tuple(range(len(scan)))
        yield stemstore.virtual_image(image, mask), (expected * mask).sum((-1, -2))
        yield image.mean(("ky", "kx")), expected.mean((-1, -2))
        yield (image.astype("i4") * 3 - number).sum(scan), (expected * 3 - number).sum(axes)
        yield image.max(scan), expected.max(axes)
        yield stemstore.mean_pattern(image), expected.mean(axes)


def check(found, wanted):
    """Compare results with what NumPy gave."""
    for result, (_, expected) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster of two processes."""
    distributed = pytest.importorskip("distributed")
    local = distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0")
    with local, distributed.Client(local) as client:
        yield client


def test_eight_threads_of_one_compute(any_kind, counts):
    """Tasks of many results interleave on eight threads."""
    wanted = list(batch(any_kind, counts, 8))
    check(dask.compute(*(lazy for lazy, _ in wanted), scheduler="threads", num_workers=8), wanted)
    check(stemstore.compute(*(lazy for lazy, _ in wanted), scheduler="threads", num_workers=8), wanted)


def test_eight_threads_of_the_user(any_kind, counts):
    """Eight threads compute at the same time, each its own results."""
    wanted = list(batch(any_kind, counts, 8, seed=1))
    with ThreadPoolExecutor(8) as executor:
        check(executor.map(lambda pair: pair[0].compute(scheduler="sync"), wanted), wanted)


def test_processes(kinds, counts):
    """Graphs and sources are pickled to other processes."""
    wanted = [pair for seed, ds in enumerate(kinds.values()) for pair in batch(ds, counts, 2, seed=seed)]
    with dask.config.set(scheduler="processes", num_workers=2):
        check(dask.compute(*(lazy for lazy, _ in wanted)), wanted)


def test_a_cluster(cluster, kinds, counts):
    """Results of all kinds of source at once, apart and in shared passes."""
    wanted = [pair for seed, ds in enumerate(kinds.values()) for pair in batch(ds, counts, 2, seed=seed)]
    check(cluster.gather(cluster.compute([lazy for lazy, _ in wanted])), wanted)
    check(stemstore.compute(*(lazy for lazy, _ in wanted)), wanted)


@pytest.mark.parametrize("counted", [False, True])
def test_workers_notice_that_a_store_was_replaced(cluster, store_of, counts, tmp_path, counted):
    """Workers that have read a store refuse what lies in its place later, and read it once it is opened anew."""
    url = tmp_path / "scan.zarr"
    store_of(url, counts, counted=counted)
    ds = stemstore.open(url)
    pair = {dim: xr.DataArray([1, 0], dims="p") for dim in ("y", "x")}
    waiting = [ds.intensity.mean(("y", "x")), ds.isel(pair).intensity * 2, ds.isel(pair).intensity.max("p")]
    np.testing.assert_array_equal(waiting[0].compute(), counts.mean((0, 1)))
    np.testing.assert_array_equal(waiting[1].compute(), counts[[1, 0], [1, 0]] * 2)
    url.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises((StaleStoreError, NotFoundError), match=r"scan\.zarr"):
        waiting[2].compute()
    store_of(url, counts[::-1].copy(), counted=counted)
    for result in waiting:
        with pytest.raises(StaleStoreError, match="open it again"):
            result.compute()
    np.testing.assert_array_equal(stemstore.open(url).intensity.sum(("ky", "kx")), counts[::-1].sum((2, 3)))
