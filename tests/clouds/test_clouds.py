"""Stores on Google Cloud Storage and Azure: the same as anywhere else."""

import json
import logging
import threading

import numpy as np
import pytest

import stemstore
from stemstore.errors import DestinationExistsError, NotFoundError, StorageError
from stemstore.store.commit import COMMIT
from stemstore.store.journal import PLAN
from stemstore.store.urls import open_storage
from stemstore.store.verify import verify_store

pytestmark = pytest.mark.clouds

IDENTITY = "00000000-0000-4000-8000-00000000000"


@pytest.fixture
def there(cloud, raw):
    """Convert the scan to the cloud; gives its address."""
    url = stemstore.remote(f"{cloud.box}/scan.zarr", **cloud.options)
    stemstore.convert(raw, url)
    cloud.requests()
    return url


def without_times(objects):
    """Objects of a store without what differs between two conversions."""
    return {key: body for key, body in objects.items() if "/c/" in key}


def test_a_conversion_is_a_local_one(cloud, there, raw, tmp_path, data):
    """Shards in the cloud have the same bytes as those on disk, nothing else is there, and all checksums hold."""
    stemstore.convert(raw, tmp_path / "scan.zarr")
    held = cloud.objects(there)
    local = {
        path.relative_to(tmp_path / "scan.zarr").as_posix(): path.read_bytes()
        for path in (tmp_path / "scan.zarr").rglob("*")
        if path.is_file()
    }
    assert held.keys() == local.keys()
    assert without_times(held) == without_times(local)
    assert len([key for key in held if key.startswith("intensity/c/")]) == 9
    np.testing.assert_array_equal(stemstore.open(there).intensity.values, data)
    assert verify_store(there) == []
    assert stemstore.validate(there).valid


def test_few_requests(cloud, there, data):
    """Three to open; for a pattern the index of its shard, whose size Azure has to be asked for, and its chunk."""
    scan = stemstore.open(there)
    assert len(cloud.requests()) == 3
    np.testing.assert_array_equal(scan.intensity[5, 6].values, data[5, 6])
    assert len(cloud.requests()) == (3 if cloud.scheme == "az" else 2)
    np.testing.assert_array_equal(scan.intensity[4, 6].values, data[4, 6])
    assert len(cloud.requests()) <= 1
    image = stemstore.virtual_image(scan, np.ones(data.shape[2:])).values
    np.testing.assert_array_equal(image, data.sum(axis=(2, 3), dtype=np.int64))


def test_results_and_calibration_are_kept(there, data):
    """What is measured can be saved beside the scan, and a store be overwritten on request only."""
    scan = stemstore.open(there)
    stemstore.save(stemstore.mean_pattern(scan), there, "mean")
    np.testing.assert_allclose(stemstore.open_result(scan, "mean").values, data.mean(axis=(0, 1)))
    stemstore.save_calibration(stemstore.calibrate(scan, scan_step="0.5 nm"), there)
    assert stemstore.open(there).y.attrs["units"] == "nm"


def test_stores_are_replaced_on_request(cloud, there, raw, data):
    """A store is overwritten on request only, and wholly."""
    with pytest.raises(DestinationExistsError, match="exists; choose another name"):
        stemstore.convert(raw, there)
    np.save(raw, data + 1)
    stemstore.convert(raw, there, overwrite=True)
    np.testing.assert_array_equal(stemstore.open(there).intensity.values, data + 1)
    assert verify_store(there) == []
    assert not [key for key in cloud.objects(there) if "journal" in key]


@pytest.mark.parametrize("count", [False, True])
def test_interrupted_conversions_go_on(cloud, raw, tmp_path, monkeypatch, count):
    """A conversion that lost its server is no store, is not overwritten by chance, and ends in the same bytes."""
    options = {"count": True, "background_threshold": 0.5, "xray_threshold": 9.0} if count else {}
    url = stemstore.remote(f"{cloud.box}/scan.zarr", **cloud.options)
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    writes = iter(range(7))  # the plan, the root, the request, and the first shards with their entries
    cloud.proxy.fault = lambda one: "drop" if one.method in ("PUT", "POST") and next(writes, None) is None else None
    with pytest.raises(StorageError, match=rf"cannot (read|write|remove) '{cloud.box}"):
        stemstore.convert(raw, url, **options)
    cloud.proxy.fault = None
    with pytest.raises(DestinationExistsError, match="under way or was interrupted"):
        stemstore.convert(raw, url, **options)
    stemstore.convert(raw, url, resume=True, **options)
    stemstore.convert(raw, tmp_path / "scan.zarr", **options)
    found, expected = stemstore.open(url), stemstore.open(tmp_path / "scan.zarr")
    np.testing.assert_array_equal(found.intensity.values, expected.intensity.values)
    assert verify_store(url) == []


def test_of_several_writers_one_wins(cloud):
    """A place is claimed under a condition: of many who come at once exactly one gets it, and all others are told."""
    storages = [open_storage(stemstore.remote(f"{cloud.box}/scan.zarr", **cloud.options)) for _ in range(8)]
    won, lost, ready = [], [], threading.Barrier(len(storages))

    def claim(number):
        ready.wait()
        try:
            storages[number].create(PLAN, [f"claim {number}".encode()])
            won.append(number)
        except DestinationExistsError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(len(storages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == len(storages) - 1
    assert all("another conversion" in text for text in lost)
    assert storages[0].get(PLAN) == f"claim {won[0]}".encode()
    puts = [one for one in cloud.requests() if one.method in ("PUT", "POST")]
    assert len(puts) == len(storages)  # looking first would have been more and less


def test_a_claim_whose_answer_was_lost_holds(cloud):
    """A request that is sent again and told that the object is there finds its own bytes."""
    storage = open_storage(stemstore.remote(f"{cloud.box}/scan.zarr", **cloud.options))
    turns = iter(["lose"])
    cloud.proxy.fault = lambda one: next(turns, None) if one.method in ("PUT", "POST") else None
    storage.create(COMMIT, [b"mine"])
    with pytest.raises(DestinationExistsError, match="another conversion"):
        storage.create(COMMIT, [b"other"])
    assert storage.get(COMMIT) == b"mine"


@pytest.mark.parametrize("fault", ["drop", "truncate", "lose", 503, 500, 429])
def test_failures_that_pass_only_cost_time(cloud, there, raw, data, fault):
    """Busy servers, lost answers and cut bodies are not noticed, in reading and in writing."""
    left = iter(range(3))
    cloud.proxy.fault = lambda _: fault if next(left, None) is not None else None
    scan = stemstore.open(there)
    left = iter(range(3))
    np.testing.assert_array_equal(scan.intensity[4:9].values, data[4:9])
    turns = iter(range(10_000))
    cloud.proxy.fault = lambda _: fault if next(turns) % 5 == 2 else None
    again = stemstore.remote(f"{cloud.box}/again.zarr", **cloud.options)
    stemstore.convert(raw, again)
    cloud.proxy.fault = None
    np.testing.assert_array_equal(stemstore.open(again).intensity.values, data)


def test_failures_that_stay_are_told_soon(cloud, there, monkeypatch):
    """As many requests as were asked for and no more: the libraries do not try again on their own."""
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "2")
    cloud.proxy.fault = lambda _: 503
    with pytest.raises(StorageError, match=r"cannot read '.*tried up to 2 times"):
        open_storage(there).get("zarr.json")
    assert len(cloud.requests()) == 2


def test_nothing_there_is_not_found(cloud):
    """Missing stores, containers and objects are told as such, after a few looks."""
    for place in (f"{cloud.box}/none.zarr", f"{cloud.scheme}://no-such-box/none.zarr"):
        with pytest.raises(NotFoundError, match=r"none\.zarr' does not exist"):
            stemstore.open(place, storage_options=cloud.options)
        with pytest.raises(NotFoundError, match="does not exist"):
            open_storage(stemstore.remote(place, **cloud.options)).get("zarr.json")


@pytest.mark.parametrize("status", [401, 403])
def test_no_entry_is_told_at_once(cloud, there, status):
    """Who may not read is told how to get in, and the request is not repeated."""
    cloud.proxy.fault = lambda _: status
    with pytest.raises(StorageError, match=r"Give credentials by the environment"):
        stemstore.open(there)
    asked = [one.target for one in cloud.requests()]
    assert len(asked) == len(set(asked))
    with pytest.raises(StorageError, match=r"cannot (read|write) .*Give credentials by the environment"):
        open_storage(there).put("a", [b"b"])


def test_raw_files_are_read(cloud, raw, data):
    """Raw data in the cloud open as they do on disk, and convert."""
    cloud.fs.put_file(str(raw), f"{cloud.box}/scan.npy")
    url = stemstore.remote(f"{cloud.box}/scan.npy", **cloud.options)
    np.testing.assert_array_equal(stemstore.open(url).intensity.values, data)
    stemstore.convert(url, stemstore.remote(f"{cloud.box}/scan.zarr", **cloud.options))
    np.testing.assert_array_equal(
        stemstore.open(f"{cloud.box}/scan.zarr", storage_options=cloud.options).intensity.values, data
    )
    assert stemstore.inspect(f"{cloud.box}/scan.npy", storage_options=cloud.options).scan_shape == data.shape[:2]


def test_stores_go_from_cloud_to_cloud(cloud, there, s3, tmp_path):
    """A store is copied to another provider and back, byte by byte."""
    away = stemstore.remote(f"s3://{s3.bucket}/scan.zarr", **s3.options)
    back = stemstore.remote(f"{cloud.box}/back.zarr", **cloud.options)
    stemstore.copy_store(there, away)
    stemstore.copy_store(away, back)
    stemstore.copy_store(there, tmp_path / "scan.zarr")
    assert without_times(cloud.objects(back)) == without_times(cloud.objects(there))
    assert verify_store(back) == []
    assert verify_store(tmp_path / "scan.zarr") == []


def test_secrets_are_written_nowhere(cloud, raw, caplog, monkeypatch):
    """Keys are in no object, attribute, name of a task, message or line of our log."""
    caplog.set_level(logging.DEBUG, logger="stemstore")
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    url = f"{cloud.box}/scan.zarr"
    cloud.proxy.fault = lambda one: 500 if one.method in ("PUT", "POST") and COMMIT in one.target else None
    written = []
    if cloud.scheme == "az":
        with pytest.raises(StorageError, match="cannot write"):
            stemstore.convert(raw, url, storage_options=cloud.options)
        written = list(cloud.objects(url).values())
        assert any(key.endswith(PLAN) for key in cloud.objects(url))
    cloud.proxy.fault = None
    stemstore.convert(raw, url, storage_options=cloud.options, resume=True)
    scan = stemstore.open(url, storage_options=cloud.options)
    image = stemstore.virtual_image(scan, stemstore.disk(3, center=(7, 6)))
    stemstore.save(image, scan, "image")
    texts = [repr(scan.attrs), repr(scan), repr(scan.intensity.attrs), repr(list(image.data.dask)), caplog.text]
    texts += [repr(image.data.dask.to_dict())]
    texts += [body.decode("latin1") for body in (*written, *cloud.objects(url).values())]
    for fault in (500, 403, "drop"):
        cloud.proxy.fault = lambda _, fault=fault: fault
        with pytest.raises(StorageError) as caught:
            stemstore.open(url, storage_options=cloud.options)
        texts += [repr(caught.value), json.dumps(caught.value.context, default=repr), repr(caught.value.__cause__)]
    assert not any(cloud.secret in text for text in texts)
