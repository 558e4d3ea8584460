"""Blocks of remote stores on a local disk: read from the server once, and never trusted blindly."""

import os
import threading
import time

import numpy as np
import pytest

import stemstore
from stemstore.selection import Selection
from stemstore.store.address import StoreUrl
from stemstore.store.blocks import FOLDER, BlockCache, CacheSettings, cache_settings
from stemstore.store.open import open_store, reopen

SHAPE = (12, 10, 16, 14)


@pytest.fixture
def data():
    """Electrons of a small scan."""
    return np.random.default_rng(4).poisson(0.6, SHAPE).astype(np.uint8)


@pytest.fixture(params=["dense", "counted"])
def store(request, tmp_path, write_dense, write_counted, data):
    """Write the scan as frames and as events, in many shards."""
    return (write_dense if request.param == "dense" else write_counted)(tmp_path / "scan.zarr", data)


@pytest.fixture
def frames(tmp_path, write_dense, data):
    """Write the scan as frames."""
    return write_dense(tmp_path / "scan.zarr", data)


@pytest.fixture
def folder(tmp_path):
    """Name a folder for a cache."""
    return tmp_path / "cache"


def blocks(folder):
    """Files of a cache."""
    return sorted((folder / FOLDER).rglob("*.block"))


def test_blocks_are_read_once(store, web, folder, data):
    """The second reader asks for the metadata of the store only, even in another session."""
    url = web.keep(store)
    np.testing.assert_array_equal(stemstore.open(url, cache=folder).intensity.values, data)
    assert any("/c/" in one.target for one in web.requests())
    np.testing.assert_array_equal(stemstore.open(url, cache=folder, cache_size="1GiB").intensity.values, data)
    assert not any("/c/" in one.target for one in web.requests())
    assert len({path.parents[1].name for path in blocks(folder)}) == 1  # by the identity of the store


def test_tasks_use_the_cache(frames, web, folder, data):
    """What travels to other processes knows of the cache."""
    url = StoreUrl(web.keep(frames), cache=cache_settings(folder, 2**30))
    scan = open_store(url)
    function, *arguments = scan.opening()
    assert function is reopen
    assert function(*arguments) is scan
    scan.read(Selection.full(SHAPE))
    assert blocks(folder)


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "gone"])
def test_damaged_blocks_are_read_again(frames, web, folder, data, damage):
    """A block that is not what was written is no block."""
    url = web.keep(frames)
    stemstore.open(url, cache=folder).intensity.values  # noqa: B018 - fills the cache
    for path in blocks(folder):
        body = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes({"cut": body[:-7], "empty": b"", "changed": bytes([body[0] ^ 1]) + body[1:]}[damage])
    web.requests()
    np.testing.assert_array_equal(stemstore.open(url, cache=folder).intensity.values, data)
    assert any("/c/" in one.target for one in web.requests())


def test_blocks_that_go_between_the_look_and_the_read(frames, web, folder, data, monkeypatch):
    """Another process may remove blocks at any time."""
    url = web.keep(frames)
    stemstore.open(url, cache=folder).intensity.values  # noqa: B018 - fills the cache
    monkeypatch.setattr(BlockCache, "get", lambda *_: None)
    np.testing.assert_array_equal(stemstore.open(url, cache=folder).intensity.values, data)


def test_the_size_is_bounded(folder):
    """The blocks used last stay, nothing else in the folder is touched, and large ones are not kept."""
    cache = BlockCache(CacheSettings(str(folder), 10_000))
    (folder / "mine.block").write_bytes(bytes(50_000))
    paths = [cache.path("id", "key", n, 996) for n in range(12)]
    for number, path in enumerate(paths):
        cache.put(path, bytes(996))
        os.utime(path, (number, number))
    cache.get(paths[2])
    cache.put(cache.path("id", "large", 0, 0), bytes(20_000))
    cache.sweep()
    assert sum(path.stat().st_size for path in blocks(folder)) <= 10_000
    assert paths[2] in blocks(folder)
    assert paths[0] not in blocks(folder)
    assert (folder / "mine.block").exists()


def test_left_files_are_removed(folder):
    """What a killed process was writing goes some time later."""
    cache = BlockCache(CacheSettings(str(folder), 1000))
    old, new = (folder / FOLDER / f".x.block.tmp-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 10_000,) * 2)
    cache.sweep()
    assert (old.exists(), new.exists()) == (False, True)


def test_many_writers_and_sweepers(folder):
    """Caches of one folder that know nothing of each other never give a block that was not written."""
    wrong = []

    def work(seed):
        cache = BlockCache(CacheSettings(str(folder), 20_000))
        for number in np.random.default_rng(seed).integers(0, 60, 150).tolist():
            path, body = cache.path("id", "key", number, 1000), bytes([number]) * 1000
            found = cache.get(path, 1000)
            if found is None:
                cache.put(path, body)
            elif found != body:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    BlockCache(CacheSettings(str(folder), 20_000)).sweep()
    assert 0 < sum(path.stat().st_size for path in blocks(folder)) <= 20_000


def test_a_full_disk_ends_the_cache_only(frames, web, folder, data, monkeypatch, caplog):
    """Reading goes on without a cache, and the log says so."""
    url = web.keep(frames)
    address = StoreUrl(url, cache=cache_settings(folder, 2**30))
    scan = open_store(address)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stemstore.store.blocks.zlib.crc32", full)
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), data)
    assert "No space left" in caplog.text
    assert not blocks(folder)
