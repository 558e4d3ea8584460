"""Writing stores to servers: whole or not open, one conversion at a time, resumed to the same bytes."""

import json
import logging

import numpy as np
import pytest

import stemstore
from stemstore.errors import (
    ConversionIncompleteError,
    DestinationExistsError,
    NotFoundError,
    StemStoreError,
    StorageError,
)
from stemstore.selection import Selection
from stemstore.store.address import StoreUrl, remote
from stemstore.store.commit import COMMIT
from stemstore.store.journal import PLAN
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage
from stemstore.store.verify import verify_store
from stemstore.store.writer import StoreWriter

SHAPE = (6, 5, 8, 7)
KINDS = ["drop", "lose", "cut", 500, 503]


@pytest.fixture
def data():
    """Electrons of a small scan."""
    return np.random.default_rng(4).poisson(0.6, SHAPE).astype(np.uint8)


@pytest.fixture
def raw(tmp_path, data):
    """Write the scan as raw data."""
    np.save(tmp_path / "scan.npy", data)
    return tmp_path / "scan.npy"


@pytest.fixture
def begin(make_document, small_layout, data):
    """Begin a conversion of a fixed identity to an address."""

    def make(url, identity="00000000-0000-4000-8000-000000000001", **options):
        return StoreWriter.init(url, make_document(SHAPE, identity=identity), small_layout(data), **options)

    return make


def write(writer, data):
    """Write what is not there yet, and finish."""
    done = writer.finished()
    for number, part in enumerate(writer.layout.partitions):
        if number not in done:
            writer.write_frames(number, data[part])
    writer.finalise()


def objects(place, url):
    """Everything below an address, without the time in the commit object."""
    prefix = url.removeprefix("s3://")
    held = {path.removeprefix(prefix): place.fs.cat_file(path, start=0) for path in place.fs.find(prefix)}
    commit = json.loads(held.pop(f"/{COMMIT}", b"{}"))
    return held, {name: value for name, value in commit.items() if name != "time"}


@pytest.mark.parametrize("count", [False, True])
def test_conversions_go_straight_to_a_bucket(raw, s3, tmp_path, data, count):
    """Shards in a bucket have the same bytes as local ones, nothing else is there, and the commit object is last."""
    options = {"background_threshold": 0.5, "xray_threshold": 9.0} if count else {}
    report = stemstore.convert(raw, s3.url, count=count, storage_options=s3.options, **options)
    written = [one.target for one in s3.requests() if one.method == "PUT"]
    assert written[-2].endswith("scan.zarr/zarr.json")
    assert written[-1].endswith(COMMIT)
    stemstore.convert(raw, tmp_path / "scan.zarr", count=count, **options)
    held, commit = objects(s3, s3.url)
    local = {
        f"/{path.relative_to(tmp_path / 'scan.zarr')}" for path in (tmp_path / "scan.zarr").rglob("*") if path.is_file()
    }
    assert {*held, f"/{COMMIT}"} == local
    for key, body in held.items():
        if "/c/" in key:
            assert body == (tmp_path / f"scan.zarr{key}").read_bytes(), key
    assert report.stored_bytes == commit["n_bytes"]
    scan = stemstore.open(s3.url, storage_options=s3.options)
    expected = stemstore.open(tmp_path / "scan.zarr")
    np.testing.assert_array_equal(scan.intensity.values, expected.intensity.values)
    assert verify_store(StoreUrl(s3.url, s3.options)) == []


def test_finishing_asks_together(begin, s3, data):
    """The end of a conversion lists the place instead of asking for every shard, and reads entries some at a time."""
    writer = begin(StoreUrl(s3.url, s3.options))
    for number, part in enumerate(writer.layout.partitions):
        writer.write_frames(number, data[part])
    s3.requests()
    assert writer.finished(check=False) == set(range(writer.layout.n_partitions))
    assert [one.method for one in s3.requests()] == ["GET"] * (1 + writer.layout.n_partitions)
    writer.finalise()
    assert not [one for one in s3.requests() if "/intensity/c/" in one.target]


def test_stores_go_from_bucket_to_bucket(raw, s3, data):
    """A store in a bucket is converted, keeps results and a calibration, and is overwritten on request."""
    stemstore.convert(raw, s3.url, storage_options=s3.options)
    there = remote(s3.url.replace("scan", "copy"), **s3.options)
    stemstore.convert(s3.url, there, profile="small", storage_options=s3.options)
    with pytest.raises(DestinationExistsError, match="exists; choose another name"):
        stemstore.convert(raw, there)
    stemstore.convert(raw, there, overwrite=True)
    scan = stemstore.open(there)
    np.testing.assert_array_equal(scan.intensity.values, data)
    stemstore.save(stemstore.mean_pattern(scan), there, "mean")
    np.testing.assert_allclose(stemstore.open_result(scan, "mean").values, data.mean(axis=(0, 1)))
    stemstore.save_calibration(stemstore.calibrate(scan, scan_step="0.5 nm"), there)
    assert stemstore.open(there).y.attrs["units"] == "nm"


def test_web_servers_are_not_written(raw, web):
    """A server that only serves says so."""
    with pytest.raises(StorageError, match="cannot write"):
        stemstore.convert(raw, web.url)


def test_two_conversions_to_one_place_are_refused(begin, s3, data):
    """Whoever comes second is refused, at the beginning, with overwriting, and at the end; the first one goes on."""
    url = StoreUrl(s3.url, s3.options)
    writer = begin(url)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(DestinationExistsError, match="under way or was interrupted"):
            begin(url, identity="00000000-0000-4000-8000-000000000002", **options)
    storage = open_storage(url)
    for key in (PLAN, COMMIT):
        body = b"{}"
        if key == COMMIT:
            storage.create(key, [body])
        with pytest.raises(DestinationExistsError, match="another conversion"):
            storage.create(key, [b"other"])
        if key == COMMIT:
            storage.create(key, [body])  # our own, whose answer was lost
            storage.delete(key)
    write(writer, data)
    np.testing.assert_array_equal(open_store(url).read(Selection.full(SHAPE)), data)
    assert verify_store(url) == []


def test_servers_without_conditions(begin, data, monkeypatch):
    """Where nothing can be written under a condition, it is looked first."""
    from fsspec.implementations.memory import MemoryFileSystem

    def pipe_file(fs, path, value, **options):
        if options:
            msg = "unexpected keyword argument 'mode'"
            raise TypeError(msg)
        return plain(fs, path, value)

    plain = MemoryFileSystem.pipe_file
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    url = "memory://no-conditions/scan.zarr"
    writer = begin(url)
    with pytest.raises(DestinationExistsError, match="another conversion"):
        open_storage(url).create(PLAN, [b"other"])
    write(writer, data)
    np.testing.assert_array_equal(open_store(url).read(Selection.full(SHAPE)), data)
    open_storage("memory://no-conditions").delete()


def test_a_conversion_that_lost_its_place_stops(begin, s3, data):
    """Aborted by one process, a conversion is over for all others, and what came after it is not touched."""
    url = StoreUrl(s3.url, s3.options)
    slow = begin(url)
    StoreWriter.attach(url).abort()
    with pytest.raises(ConversionIncompleteError, match="belongs to none"):
        slow.write_frames(0, data[slow.layout.partition(0)])
    other = begin(url, identity="00000000-0000-4000-8000-000000000002")
    for late in (lambda: slow.write_frames(0, data[slow.layout.partition(0)]), slow.finalise, slow.abort):
        with pytest.raises(ConversionIncompleteError, match="belongs to the conversion of scan"):
            late()
    write(other, data)
    slow.abort()
    assert open_store(url).uuid == other.uuid


def test_a_bucket_that_is_not_there(raw, s3):
    """What cannot be written for want of a bucket is told as that, and not as a lost store."""
    with pytest.raises(NotFoundError, match="no such bucket"):
        stemstore.convert(raw, "s3://no-such-bucket/scan.zarr", storage_options=s3.options)


@pytest.fixture
def straight(begin, s3, data):
    """Write the store without any failure; gives its objects and what was asked for."""
    url = StoreUrl(f"s3://{s3.url.split('/')[2]}/straight.zarr", s3.options)
    s3.requests()
    write(begin(url), data)
    return objects(s3, url), len(s3.requests())


def test_failures_that_pass_leave_no_trace(begin, s3, data, straight):
    """Lost answers, cut uploads and busy servers only cost time, and the bytes are the same."""
    expected, _ = straight
    for kind in KINDS:
        url = StoreUrl(s3.url.replace("scan", f"scan-{kind}"), s3.options)
        turns = iter(range(10_000))
        s3.proxy.fault = lambda _, kind=kind, turns=turns: kind if next(turns) % 4 == 2 else None
        write(begin(url), data)
        s3.proxy.fault = None
        assert objects(s3, url) == expected


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_failures_that_stay_leave_no_store(begin, s3, data, straight, monkeypatch, step):
    """Wherever the server fails, no store opens as whole that is not; taken up again it ends in the same bytes."""
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    expected, n_requests = straight
    outcomes = set()
    for turn, at in enumerate(range(0, n_requests + step, step)):
        url = StoreUrl(s3.url.replace("scan", f"scan-{at}"), s3.options)
        kind, turns = KINDS[turn % len(KINDS)], iter(range(10_000))
        s3.proxy.fault = lambda _, at=at, kind=kind, turns=turns: kind if next(turns) >= at else None
        try:
            write(begin(url), data)
        except StemStoreError as error:
            outcomes.add(type(error).__name__)
        s3.proxy.fault = None
        try:
            np.testing.assert_array_equal(open_store(url).read(Selection.full(SHAPE)), data)
            outcomes.add("whole")
            continue
        except (ConversionIncompleteError, NotFoundError) as error:
            outcomes.add(type(error).__name__)
        try:
            writer = StoreWriter.attach(url)
        except NotFoundError:
            writer = begin(url)
        write(writer, data)
        assert objects(s3, url) == expected, at
    assert {"StorageError", "ConversionIncompleteError", "NotFoundError", "whole"} <= outcomes


def test_conversions_that_lost_their_server_go_on(raw, s3, data, monkeypatch):
    """What a lost server keeps of a conversion is no store, is not overwritten by chance, and can be finished."""
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    gone = []
    s3.proxy.fault = lambda one: "drop" if gone or ("/intensity/c/" in one.target and not gone.append(one)) else None
    with pytest.raises(StorageError, match=r"cannot (read|write) 's3://"):
        stemstore.convert(raw, s3.url, storage_options=s3.options)
    s3.proxy.fault = None
    for options in ({}, {"overwrite": True}):
        with pytest.raises(DestinationExistsError, match=r"under way or was interrupted; go on with resume=True"):
            stemstore.convert(raw, s3.url, storage_options=s3.options, **options)
    stemstore.convert(raw, s3.url, storage_options=s3.options, resume=True)
    np.testing.assert_array_equal(stemstore.open(s3.url, storage_options=s3.options).intensity.values, data)


def test_no_secret_is_written_anywhere(raw, s3, caplog, monkeypatch):
    """Options are in no object, attribute, name of a task, message or line of the log."""
    caplog.set_level(logging.DEBUG, logger="stemstore")
    secret = "testing-secret-in-options"
    options = {**s3.options, "key": "testing-key-in-options", "secret": secret}
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    s3.proxy.fault = lambda one: 500 if one.method == "PUT" and COMMIT in one.target else None
    with pytest.raises(StorageError, match="cannot write"):
        stemstore.convert(raw, s3.url, storage_options=options)
    s3.proxy.fault = None
    journal = objects(s3, s3.url)[0]
    assert f"/{PLAN}" in journal
    stemstore.convert(raw, s3.url, storage_options=options, resume=True)
    scan = stemstore.open(s3.url, storage_options=options)
    image = stemstore.virtual_image(scan, stemstore.disk(3, center=(3, 3)))
    stemstore.save(image, scan, "image")
    texts = [repr(scan.attrs), repr(scan.intensity.attrs), repr(list(image.data.dask)), repr(scan), caplog.text]
    texts += [repr(image.data.dask.to_dict())]
    texts += [body.decode("latin1") for held in (journal, objects(s3, s3.url)[0]) for body in held.values()]
    s3.proxy.fault = lambda _: 500
    with pytest.raises(StorageError) as caught:
        stemstore.open(s3.url, storage_options=options)
    texts += [repr(caught.value), repr(caught.value.context), repr(caught.value.__cause__)]
    assert not any("in-options" in text for text in texts)
