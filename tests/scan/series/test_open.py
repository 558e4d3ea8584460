"""Many scans as one array: the same numbers as a NumPy stack, streamed scan by scan."""

import pickle

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError, NotFoundError, UnknownFormatError
from stemstore.ops.projection import passes_of
from stemstore.scan.lazy import selection_of
from stemstore.scan.series.open import open_series
from stemstore.scan.series.source import SeriesSource
from stemstore.store.series.entry import index_series
from stemstore.testing.servers import FileServer

SHAPE = (6, 5, 9, 8)
N = 4


@pytest.fixture(scope="module")
def stack():
    """Electrons per pixel of several scans; the last holds a pixel of more than 255 electrons."""
    counts = np.random.default_rng(7).poisson(0.4, (N, *SHAPE)).astype(np.uint16)
    counts[-1, 2, 3, 4, 5] = 300
    return counts


@pytest.fixture(scope="module")
def stores(tmp_path_factory, stack, store_of):
    """The scans as dense and as counted stores; the counted ones show integers of two widths."""
    folder = tmp_path_factory.mktemp("series")
    for kind in ("dense", "counted"):
        for number, counts in enumerate(stack):
            store_of(folder / kind / f"s{number}.zarr", counts, counted=kind == "counted")
    return folder


@pytest.fixture(scope="module", params=["dense", "counted"])
def series(request, stores):
    """All scans of one kind as one dataset."""
    return open_series(stores / request.param)


def test_it_is_the_stack(series, stack):
    """Shape, type, names and every pixel are those of the stacked scans."""
    assert series.intensity.dims == ("time", "y", "x", "ky", "kx")
    assert series.intensity.dtype == np.uint16
    assert series.scan.values.tolist() == ["s0", "s1", "s2", "s3"]
    np.testing.assert_array_equal(series.intensity.values, stack)


def test_operations_stream_scan_by_scan(series, stack):
    """Results per position and of all positions are exact, and no task crosses scans."""
    image = stemstore.virtual_image(series, np.arange(72).reshape(9, 8) % 5)
    assert stemstore.explain(image).startswith("fused: one pass over 120 positions")
    np.testing.assert_array_equal(image, (stack.astype(int) * (np.arange(72).reshape(9, 8) % 5)).sum((-1, -2)))
    np.testing.assert_array_equal(stemstore.mean_pattern(series), stack.mean((0, 1, 2)))
    np.testing.assert_array_equal(stemstore.max_pattern(series), stack.max((0, 1, 2)))
    np.testing.assert_array_equal(series.intensity.sum(("ky", "kx")), stack.sum((-1, -2)))
    np.testing.assert_array_equal(series.intensity.max(("time", "y", "x")), stack.max((0, 1, 2)))
    (layers,) = passes_of([image.data.dask])
    assert {len(piece.data.axes[0]) for piece in layers[0].pieces} == {1}
    assert set(series.intensity.data.chunks[0]) == {1}


def test_each_scan_gives_what_it_gives_alone(series, stack):
    """The results of operations equal those of every scan by itself."""
    com = stemstore.center_of_mass(series)
    binned = stemstore.bin_detector(series, 2)
    for number in range(N):
        alone = series.isel(time=number)
        xr.testing.assert_allclose(com.isel(time=number), stemstore.center_of_mass(alone))
        np.testing.assert_array_equal(binned[number], stemstore.bin_detector(alone, 2))


def test_one_scan_is_the_scan_itself(stores):
    """A single scan of a series is the array that opening its store gives, as far as their types are the same."""
    series, alone = open_series(stores / "dense"), stemstore.open(stores / "dense" / "s2.zarr")
    assert series.isel(time=2).intensity.data.name == alone.intensity.data.name
    counted = open_series(stores / "counted")
    assert counted.isel(time=0).intensity.dtype == np.uint16  # the store alone would show uint8


KEYS = st.tuples(
    st.one_of(
        st.integers(-N, N - 1),
        st.slices(N),
        st.lists(st.integers(-N, N - 1), min_size=1, max_size=6),
        st.lists(st.booleans(), min_size=N, max_size=N),
    ),
    st.one_of(st.integers(-6, 5), st.slices(6)),
    st.slices(5),
    st.slices(9),
    st.slices(8),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS)
def test_any_selection_along_the_series(series, stack, key):
    """Integers, slices, lists and flags along the axis of scans select what NumPy selects, and stay streamed."""
    picked = series.intensity.isel(dict(zip(("time", "y", "x", "ky", "kx"), key, strict=True)))
    expected = stack
    for axis, part in reversed(list(enumerate(key))):
        expected = expected[(slice(None),) * axis + (part,)]
    mixed = isinstance(key[0], list) and isinstance(key[1], int)  # whose order of axes is left to NumPy
    assert mixed or selection_of(picked.data) is not None
    assert picked.shape == expected.shape
    np.testing.assert_array_equal(picked.values, expected)
    if picked.size:
        image = stemstore.virtual_image(picked, np.ones(picked.shape[-2:]))
        np.testing.assert_array_equal(image, expected.sum((-1, -2)))


def test_positions_of_several_scans(series, stack):
    """Single positions picked across scans come in the order asked for."""
    rng = np.random.default_rng(3)
    t, y, x = (rng.integers(0, n, 30) for n in (N, 6, 5))
    points = series.isel({d: xr.DataArray(i, dims="p") for d, i in zip(("time", "y", "x"), (t, y, x), strict=True)})
    np.testing.assert_array_equal(points.intensity.values, stack[t, y, x])
    np.testing.assert_array_equal(points.intensity.sum(("ky", "kx")), stack[t, y, x].sum((-1, -2)))


def test_blocks_across_scans(series, stack):
    """Users may cut blocks that hold several scans."""
    chunked = series.intensity.chunk({"time": 3, "y": 4})
    assert chunked.data.numblocks[:2] == (2, 2)
    np.testing.assert_array_equal(chunked.values, stack)


def test_changed_values_go_the_ordinary_way(series, stack):
    """Arithmetic gives a plain dask array and the same numbers."""
    doubled = series.intensity * 2
    assert selection_of(doubled.data) is None
    np.testing.assert_array_equal(doubled.sum(("ky", "kx")), 2 * stack.sum((-1, -2)))


def test_several_results_share_a_pass(series, stack):
    """`compute` reads every scan once for all results."""
    image, pattern = stemstore.virtual_image(series, np.ones((9, 8))), stemstore.mean_pattern(series)
    assert "one pass over 120 positions" in stemstore.explain(image, pattern)
    image, pattern = stemstore.compute(image, pattern)
    np.testing.assert_array_equal(image, stack.sum((-1, -2)))
    np.testing.assert_array_equal(pattern, stack.mean((0, 1, 2)))


def test_travelling_opens_nothing(series, monkeypatch):
    """A pickled series holds addresses; what arrives opens a scan when it is read, and only that one."""
    opened = []
    parcel = pickle.dumps(series.intensity.data)
    monkeypatch.setattr("stemstore.store.open.open_store", lambda *_, **__: opened.append(1))
    source = pickle.loads(parcel)._source
    assert isinstance(source, SeriesSource)
    assert not opened
    monkeypatch.undo()
    pattern = pickle.loads(parcel)[1, 2, 3].compute()
    np.testing.assert_array_equal(pattern, series.intensity[1, 2, 3].values)


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_schedulers(series, stack, scheduler):
    """Threads give the numbers of one thread."""
    with dask.config.set(scheduler=scheduler):
        np.testing.assert_array_equal(stemstore.virtual_image(series, np.ones((9, 8))), stack.sum((-1, -2)))


@pytest.mark.slow
def test_processes(stores, stack):
    """Graphs over many scans are pickled to other processes."""
    for kind in ("dense", "counted"):
        image = stemstore.virtual_image(open_series(stores / kind), np.ones((9, 8)))
        np.testing.assert_array_equal(image.compute(scheduler="processes", num_workers=2), stack.sum((-1, -2)))


@pytest.mark.slow
def test_a_cluster(stores, stack):
    """Workers of a cluster open the scans that they read."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        for kind in ("dense", "counted"):
            series = open_series(stores / kind)
            np.testing.assert_array_equal(stemstore.virtual_image(series, np.ones((9, 8))), stack.sum((-1, -2)))
            np.testing.assert_array_equal(stemstore.mean_pattern(series), stack.mean((0, 1, 2)))


def test_electrons_of_a_series(stores, stack):
    """Counted scans stay electrons: sparse arrays, halves of the dose, and lists of single electrons of one scan."""
    series = open_series(stores / "counted")
    sparse = stemstore.to_sparse(series)
    np.testing.assert_array_equal(sparse.todense(), stack)
    first, second = stemstore.split_halves(series)
    np.testing.assert_array_equal(first.intensity.values + second.intensity.values, stack)
    assert not np.array_equal(first.intensity[0], first.intensity[1])


def test_corrected_electrons_are_frames(stores, stack):
    """Counted scans whose pixels were corrected are no electrons any more; those that were masked still are."""
    with pytest.raises(InputError, match="this scan is dense"):
        stemstore.thin(open_series(stores / "counted", dark=np.ones((9, 8))), 0.5)
    mask = np.arange(72).reshape(9, 8) % 3 > 0
    masked = open_series(stores / "counted", mask=mask)
    np.testing.assert_array_equal(stemstore.to_sparse(masked).todense(), stack * mask)


def test_raw_scans(tmp_path, stack):
    """Raw files are a series as well."""
    for number, counts in enumerate(stack):
        np.save(tmp_path / f"raw_{number}.npy", counts)
    series = open_series([tmp_path / f"raw_{number}.npy" for number in range(N)])
    np.testing.assert_array_equal(series.intensity.values, stack)
    np.testing.assert_array_equal(open_series(tmp_path / "raw_*.npy").intensity.sum(), stack.sum())
    assert stemstore.explain(stemstore.virtual_image(series, np.ones((9, 8)))).startswith("fused")


def test_corrections_of_every_scan(stores, stack):
    """What is asked for is applied to every frame of every scan."""
    dark = np.full((9, 8), 0.25)
    series = open_series(stores / "dense", dark=dark)
    assert series.intensity.dtype == np.float32
    np.testing.assert_allclose(series.intensity.values, stack - 0.25)
    np.testing.assert_allclose(stemstore.mean_pattern(series), (stack - 0.25).mean((0, 1, 2)), rtol=1e-6)
    later = stemstore.correct(open_series(stores / "dense"), dark=dark)
    np.testing.assert_allclose(later.intensity.values, stack - 0.25)


def test_raw_scans_on_a_web_server(tmp_path, stack):
    """What an address writes as %20 is a space in the name of the scan; servers that cannot list say so."""
    for number in (1, 2):
        np.save(tmp_path / f"scan {number}.npy", stack[number])
    with FileServer(tmp_path) as server:
        ds = open_series([f"{server.url}/scan%20{number}.npy" for number in (1, 2)])
        assert ds.scan.values.tolist() == ["scan 1", "scan 2"]
        np.testing.assert_array_equal(ds.intensity.values, stack[1:3])
        with pytest.raises(NotFoundError, match="web servers do not list"):
            open_series(f"{server.url}/scan*")


def test_a_series_on_a_server_is_no_raw_scan(tmp_path, stack, store_of):
    """Opened as one scan it is refused by what it is, on a server as on a disk."""
    store_of(tmp_path / "s1.zarr", stack[1], counted=False)
    index_series(tmp_path)
    with FileServer(tmp_path) as server:
        for url in (tmp_path, server.url):
            with pytest.raises(UnknownFormatError, match=r"is a series of scans; open it with stemstore\.open_series"):
                stemstore.open(url)
