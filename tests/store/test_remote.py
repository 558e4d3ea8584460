"""Reading stores from servers: how often they are asked, what failures do, and that the numbers are the same."""

import pickle
import socket
import threading

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import stemstore
from stemstore.errors import CorruptDataError, NotFoundError, StaleStoreError, StorageError, TruncatedFileError
from stemstore.selection import Selection
from stemstore.store.address import StoreUrl
from stemstore.store.commit import write_commit
from stemstore.store.extents import LONGEST, Extent, merge
from stemstore.store.layout import dense_layout
from stemstore.store.metadata import ROOT, intensity_info, metadata_objects
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage
from stemstore.testing.servers import FileServer

SHAPE = (12, 10, 16, 14)
FAULTS = ["drop", "truncate", "lose", 503]


@pytest.fixture
def data():
    """Electrons of a small scan."""
    return np.random.default_rng(4).poisson(0.6, SHAPE).astype(np.uint8)


@pytest.fixture(params=["dense", "counted"])
def store(request, tmp_path, write_dense, write_counted, data):
    """Write the scan as frames and as events, in many shards."""
    if request.param == "dense":
        return write_dense(tmp_path / "scan.zarr", data)
    return write_counted(tmp_path / "scan.zarr", data, frames_per_block=10, blocks_per_shard=4)


@pytest.fixture
def frames(tmp_path, write_dense, data):
    """Write the scan as frames."""
    return write_dense(tmp_path / "scan.zarr", data)


def analysis(url, **options):
    """What stands in one cell of a notebook."""
    scan = stemstore.open(url, **options)
    image = stemstore.virtual_image(scan, stemstore.disk(3, center=(7, 6)))
    pattern, com = stemstore.mean_pattern(scan), stemstore.center_of_mass(scan, center=(7, 6))
    image, pattern, com = stemstore.compute(image, pattern, com)
    return [image.values, pattern.values, com.com_y.values, com.com_x.values, scan.intensity[3, 4].values]


def first(n, fault):
    """Fail the first requests after the opening."""
    left = iter(range(n))
    return lambda _: fault if next(left, None) is not None else None


def test_the_same_cell_gives_the_same_numbers(store, s3, web):
    """A path, a bucket, a web server and fsspec's memory differ in nothing but the address."""
    memory = fsspec.filesystem("memory")
    memory.put(str(store), "/remote-test/scan.zarr", recursive=True)
    expected = analysis(store)
    for url, options in [
        (s3.keep(store), {"storage_options": s3.options}),
        (web.keep(store), {}),
        ("memory://remote-test/scan.zarr", {}),
    ]:
        found = analysis(url, **options)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    memory.rm("/remote-test", recursive=True)


def test_opening_takes_three_requests_and_no_pixel(frames, place):
    """The root, the commit object and the saved calibration; values stay where they are."""
    url = place.keep(frames)
    scan = stemstore.open(url, storage_options=place.options or None)
    assert scan.intensity.shape == SHAPE
    asked = sorted(one.target.partition("scan.zarr/")[2] for one in place.requests())
    assert asked == ["calibration/saved/zarr.json", "stemstore.commit.json", "zarr.json"]


def test_one_pattern_takes_two_requests(frames, place, data):
    """The index of its shard and its chunk; the next one of the shard takes one."""
    scan = stemstore.open(place.keep(frames), storage_options=place.options or None)
    place.requests()
    np.testing.assert_array_equal(scan.intensity[5, 6].values, data[5, 6])
    assert [one.range.startswith("bytes=-") for one in place.requests()] == [True, False]
    np.testing.assert_array_equal(scan.intensity[7, 5].values, data[7, 5])
    assert len(place.requests()) == 1


def test_a_row_takes_one_range_per_shard(frames, place, data):
    """Chunks of a row that lie side by side in a shard are one request, and all shards are asked at once."""
    scan = stemstore.open(place.keep(frames), storage_options=place.options or None)
    place.requests()
    np.testing.assert_array_equal(scan.intensity[5].values, data[5])
    asked = place.requests()
    shards = {one.target for one in asked}
    assert len(shards) == 3
    assert len([one for one in asked if one.range.startswith("bytes=-")]) == 3
    assert len(asked) == 6


def test_events_take_one_range_per_shard(tmp_path, write_counted, place, data):
    """Blocks of a shard are one request; where they are wider than a chunk, one per column of chunks."""
    store = write_counted(tmp_path / "scan.zarr", data, frames_per_block=10, blocks_per_shard=4, slots_per_chunk=4096)
    scan = stemstore.open(place.keep(store), storage_options=place.options or None)
    place.requests()
    total = stemstore.virtual_image(scan.intensity[:4], np.ones(SHAPE[2:])).values
    np.testing.assert_array_equal(total, data[:4].sum(axis=(2, 3), dtype=np.int64))
    asked = [one.target.partition("scan.zarr/")[2] for one in place.requests()]
    assert asked == ["events/n_slots/c/0/0", "events/gap/c/0/0", "events/gap/c/0/0"]


def test_missing_frames_cost_no_request_at_opening(tmp_path, write_dense, place, data):
    """The state of the frames is read when it is looked at."""
    from stemstore.store.journal import PartitionRecords

    def records(part):
        n = int(np.prod([s.stop - s.start for s in part]))
        return PartitionRecords(valid=np.arange(n, dtype=np.uint8) % 3)

    store = write_dense(tmp_path / "scan.zarr", data, records=records)
    scan = stemstore.open(place.keep(store), storage_options=place.options or None)
    assert len(place.requests()) == 3
    np.testing.assert_array_equal(scan.valid.values, stemstore.open(store).valid.values)


def test_a_petabyte_opens_without_a_look_at_its_chunks(make_document):
    """Opening asks for the same three objects whatever the size, and a pattern has a graph of its own block only."""
    shape = (65536, 65536, 512, 512)
    layout = dense_layout(shape[:2], shape[2:], np.dtype(np.uint16))
    document = make_document(shape)
    storage = open_storage("memory://petabyte/scan.zarr")
    objects = metadata_objects(document, [intensity_info(layout, ("y", "x", "ky", "kx"))])
    storage.put(ROOT, [objects[ROOT]])
    write_commit(storage, document.uuid, objects[ROOT], sizes={}, checksums={})
    try:
        intensity = stemstore.open("memory://petabyte/scan.zarr").intensity
        assert intensity.nbytes > 10**15
        layers = intensity.data.dask.layers
        assert not any(isinstance(layer, dict) or len(getattr(layer, "mapping", ())) == 0 for layer in layers.values())
        one = intensity[40000, 50000]
        assert len(list(one.data.dask)) <= 3
    finally:
        storage.delete()


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_that_pass_are_not_noticed(frames, place, data, fault):
    """Dropped connections, busy servers and cut answers only cost time: the values are right."""
    url, options = place.keep(frames), place.options or None
    place.proxy.fault = first(2, fault)
    scan = stemstore.open(url, storage_options=options)
    place.proxy.fault = first(3, fault)
    np.testing.assert_array_equal(scan.intensity[4:9].values, data[4:9])
    assert len(place.requests()) >= 3 + 2 + 6


@pytest.mark.parametrize("fault", ["truncate", 500])
def test_failures_that_stay_are_told(frames, place, data, fault, monkeypatch):
    """A server that fails for good gives an error of ours with the address, not other values."""
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "2")
    url, options = place.keep(frames), place.options or None
    scan = open_store(StoreUrl(url, options))
    place.proxy.fault = lambda one: fault if "/c/" in one.target else None
    with pytest.raises(StorageError, match=r"cannot read '.*scan.zarr/intensity/c/0/0/0/0': .*tried up to 2 times"):
        scan.read(Selection.full(SHAPE))
    place.proxy.fault = None
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), data)


def test_no_entry_is_told_at_once(frames, place):
    """Who may not read is told how to get in, and the request is not repeated."""
    url, options = place.keep(frames), place.options or None
    place.proxy.fault = lambda _: 403
    with pytest.raises(StorageError, match=r"storage_options=\{'anon': True\}"):
        open_store(StoreUrl(url, options))
    assert len(place.requests()) <= 3


def test_places_that_may_not_be_listed(frames, place, data):
    """Where what is missing is forbidden, as in buckets without listing, a store opens; nothing else is guessed."""
    url, options = place.keep(frames), place.options or None
    place.proxy.fault = lambda one: 403 if "/calibration/" in one.target else None
    np.testing.assert_array_equal(stemstore.open(url, storage_options=options).intensity[3, 4].values, data[3, 4])
    place.proxy.fault = lambda one: 401 if "/calibration/" in one.target else None
    with pytest.raises(StorageError, match=r"cannot read '.*calibration/saved.*Give credentials"):
        stemstore.open(url, storage_options=options)


def test_nothing_there_is_not_found(place):
    """An address without a store is told as such, after one look."""
    with pytest.raises(NotFoundError, match="does not exist; check the path"):
        open_store(StoreUrl(place.url, place.options))


def test_silent_servers_do_not_hang(monkeypatch, quick):
    """A server that takes the request and says nothing is given up."""
    pytest.importorskip("aiohttp", reason="needs aiohttp (extras cloud and test)")
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "2")
    monkeypatch.setenv("STEMSTORE_TIMEOUT", "0.2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StorageError, match=r"no answer within 0\.2 s"):
            open_store(f"http://127.0.0.1:{port}/scan.zarr")


def test_web_servers_without_ranges_are_told(tmp_path, frames, quick):
    """A server that sends the whole shard for a chunk is refused; it would be read a thousand times."""
    pytest.importorskip("aiohttp", reason="needs aiohttp (extras cloud and test)")
    with FileServer(tmp_path, ranges=False) as server:
        scan = open_store(f"{server.url}/scan.zarr")
        with pytest.raises(StorageError, match="does not serve byte ranges"):
            scan.read(Selection.full(SHAPE))


def test_objects_that_were_cut_are_told(frames, place, tmp_path):
    """An object that ends early gives an error that says so, never other values."""
    shard = tmp_path / "scan.zarr/intensity/c/0/0/0/0"
    body = shard.read_bytes()
    shard.write_bytes(body[: len(body) // 2])
    url = StoreUrl(place.keep(frames), place.options)
    with pytest.raises(CorruptDataError, match="index of shard"):
        open_store(url).read(Selection.full(SHAPE))
    storage = open_storage(url)
    for start in (len(body) // 4, len(body)):
        with pytest.raises(TruncatedFileError, match="ends early"):
            list(storage.fetch([Extent("intensity/c/0/0/0/0", start, len(body))], np.empty(0)))


def test_scans_travel_with_what_they_need(frames, s3, data):
    """A pickled scan gets in where the options are not in the environment."""
    scan = open_store(StoreUrl(s3.keep(frames), s3.options))
    again = pickle.loads(pickle.dumps(scan))  # our own object, made on this line
    np.testing.assert_array_equal(again.read(Selection.full(SHAPE).compose((2, 3))), data[2, 3])


def test_signed_links_lead_to_every_object(frames, web, data):
    """The query of a link goes with every request, like a password, and is not part of the address."""
    url = web.keep(frames).replace("//", "//me:password@") + "?signature=abc&b=1"
    scan = stemstore.open(url)
    np.testing.assert_array_equal(scan.intensity[2, 3].values, data[2, 3])
    assert {one.target.partition("?")[2] for one in web.requests()} == {"signature=abc&b=1"}
    assert scan.attrs["source_url"] == web.keep(frames)


def test_a_replaced_store_is_noticed(frames, s3, data, tmp_path, write_dense, monkeypatch):
    """An open scan looks once in a while whether the store is still the one that was opened."""
    scan = open_store(StoreUrl(s3.keep(frames), s3.options))
    write_dense(tmp_path / "other/scan.zarr", data)
    s3.keep(tmp_path / "other/scan.zarr")
    monkeypatch.setattr("stemstore.store.head.LOOK_AFTER", 0.0)
    with pytest.raises(StaleStoreError, match="open it again"):
        scan.read(Selection.full(SHAPE))


def test_file_systems_that_do_one_thing_at_a_time(write_dense, data, monkeypatch, quick):
    """Failures pass for these as well."""
    scan = open_store(write_dense("memory://sync-test/scan.zarr", data))
    plain, left = MemoryFileSystem.cat_file, iter(range(3))

    def cat_file(fs, *arguments, **options):
        if next(left, None) is not None:
            raise ConnectionResetError(104, "reset")
        return plain(fs, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), data)
    open_storage("memory://sync-test").delete()


def test_the_number_of_requests_at_a_time_is_bounded(frames, web, monkeypatch):
    """Never more are under way than the setting says."""
    monkeypatch.setenv("STEMSTORE_CONCURRENCY", "2")
    monkeypatch.setattr("stemstore.store.extents.LONGEST", 1)
    now, most, lock = 0, 0, threading.Lock()
    storage = open_storage(web.keep(frames))
    plain = type(storage._link.fs)._cat_file

    async def cat_file(fs, *arguments, **options):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return await plain(fs, *arguments, **options)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(type(storage._link.fs), "_cat_file", cat_file)
    open_store(web.keep(frames)).read(Selection.full(SHAPE))
    assert most == 2


def test_long_runs_are_cut_and_close_ones_joined():
    """Requests are neither many small ones nor a single long one."""
    near = [Extent("a", 0, 10), Extent("a", 20, 10), Extent("b", 0, 5)]
    assert merge(near) == ([Extent("a", 0, 30), Extent("b", 0, 5)], [(0, 0), (0, 20), (1, 0)])
    long = [Extent("a", n * LONGEST // 2, LONGEST // 2) for n in range(4)]
    assert [one.length for one in merge(long)[0]] == [LONGEST, LONGEST]


def test_a_change_of_the_environment_is_noticed(s3, frames, data, monkeypatch):
    """Who corrects the endpoint in the environment of a running session need not start a new one."""
    url = s3.keep(frames)
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot read"):
        stemstore.open(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.proxy.url)
    np.testing.assert_array_equal(stemstore.open(url).intensity[3].values, data[3])
