"""SIGKILL in the middle of everything else that writes: nothing half looks whole, and what follows puts it right."""

import json
import os
import random
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from processes import Processes
from sweeps import LIMIT, OPTIONS, content, convert, opens, write_scan

import stemstore
from stemstore.errors import DestinationExistsError, NotFoundError
from stemstore.store import journal
from stemstore.store.address import StoreUrl
from stemstore.store.urls import open_storage

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's"),
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]
KILLS = 10
KINDS = sorted(OPTIONS)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.fixture(scope="module")
def processes(raw, tmp_path_factory):
    """Give processes that can be killed."""
    with Processes(raw, tmp_path_factory.mktemp("processes"), LIMIT, "others") as found:
        yield found


@pytest.fixture(params=KINDS)
def store(request, raw, tmp_path):
    """Give a finished store with a saved calibration."""
    convert(raw, tmp_path / "whole.zarr", request.param)
    stemstore.save_calibration({"beam_energy": 200}, tmp_path / "whole.zarr")
    return tmp_path / "whole.zarr"


def objects(place):
    """Give everything in a place."""
    storage = open_storage(place)
    return {key: storage.get(key) for key in storage.keys("")}


def until_done(processes, code, seconds, look, **job):
    """Run code with kills until it ends by itself; gives the number of kills. After each kill there is a look."""
    kills = 0
    while True:
        status, _ = processes.run(code, within=seconds, **job)
        if status == 0:
            return kills
        assert status == -signal.SIGKILL, processes.text
        kills += 1
        if look():
            return kills  # killed after its end


def copied(place):
    """Tell whether a copy is whole and has forgotten that it was one."""
    return opens(place) and open_storage(place).size(journal.COPY) is None


COPY = "stemstore.copy_store(job['source'], job['place'], resume=True, storage_options=job['storage'])"


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_copies(request, store, tmp_path, processes, where):
    """A copy opens when it is whole, and is the store to the byte."""
    base, storage = str(tmp_path / "copy"), {}
    if where == "bucket":
        s3 = request.getfixturevalue("s3")
        base, storage = s3.url, {**s3.options, "key": "testing", "secret": "testing-secret"}
    expected, kills, number = objects(store), 0, 0
    job = {"source": str(store), "storage": storage or None}
    _, seconds = processes.run(COPY, place=f"{base}.0.zarr", **job)
    while kills < KILLS:
        number += 1
        place = f"{base}.{number}.zarr"
        reached = StoreUrl(place, storage) if storage else place
        kills += until_done(processes, COPY, seconds, lambda at=reached: copied(at), place=place, **job)
        assert objects(reached) == expected
    assert not list(tmp_path.glob("*.part-*"))


FINALISE = "stemstore.finalise_conversion(job['place'])"


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_a_planned_conversion(raw, tmp_path, processes, kind):
    """Finalising may be killed and repeated until it is done."""
    convert(raw, tmp_path / "undisturbed.zarr", kind)
    expected = content(open_storage(tmp_path / "undisturbed.zarr"))
    plan = stemstore.plan_conversion(raw, tmp_path / "a.zarr", tasks=1, **OPTIONS[kind])
    stemstore.convert_partition(tmp_path / "a.zarr", 0)
    shutil.copytree(plan.working, tmp_path / "written")
    place, kills = tmp_path / "a.zarr", 0
    _, seconds = processes.run(FINALISE, place=str(place))
    while kills < KILLS:
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "written", plan.working)

        def look():
            if opens(place) and not (place / ".journal").exists():
                shutil.copytree(tmp_path / "written", plan.working)  # it was done: once more
                shutil.rmtree(place)

        kills += until_done(processes, FINALISE, seconds, look, place=str(place))
        assert content(open_storage(place)) == expected
    assert not list(tmp_path.glob("a.zarr.*"))


EDIT = "stemstore.edit_store(job['place'], job['values'])"


def test_edits(store, processes):
    """At every moment the store opens with its old or its new values, and the next change finds it right."""
    _, seconds = processes.run(EDIT, place=str(store), values={"acquisition.sample": "first"})
    kills, known = 0, {"first"}
    while kills < KILLS:
        sample = f"sample {kills}"
        known.add(sample)
        values = {"acquisition.sample": sample, "scan_step": f"0.{kills + 1} nm"}
        status, _ = processes.run(EDIT, within=seconds, place=str(store), values=values)
        kills += status != 0
        assert (
            json.loads((store / "zarr.json").read_text())["attributes"]["stemstore"]["acquisition"]["sample"] in known
        )
        stemstore.open(store)
        stemstore.edit_store(store)
        assert not (store / ".journal").exists()
        assert not list(store.rglob("*.tmp-*"))
        assert stemstore.validate(store, deep=True).errors == []


PACK = "stemstore.pack_store(job['place'], overwrite=True)"


def test_packing(store, processes):
    """A packed store has its name when it is whole, and what killed ones left is removed by the next."""
    target = store.with_name("whole.zarr.zip")
    _, seconds = processes.run(PACK, place=str(store))
    expected, kills = target.read_bytes(), 0
    while kills < KILLS:
        target.unlink()

        def look():
            assert not target.exists() or target.read_bytes() == expected

        kills += until_done(processes, PACK, seconds, look, place=str(store))
        assert target.read_bytes() == expected
        assert [path.name for path in store.parent.glob(".*")] == []


DISKS = """
import dask
ds = stemstore.open(job["place"], storage_options=job["storage"])
with dask.config.set(scheduler="synchronous"):
    stemstore.find_disks(ds, radius=3.0, store=ds, name=job["name"], resume=True)
"""


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """Write a scan of disks of radius 3."""
    path = tmp_path_factory.mktemp("disks") / "scan.npy"
    ky, kx = np.mgrid[:48, :48]
    at = [(y + 0.3, x - 0.2) for y in (10, 24, 38) for x in (10, 24, 38)]
    mean = 0.2 + sum(30.0 / (1 + np.exp(4 * (np.hypot(ky - y, kx - x) - 3))) for y, x in at)
    np.save(path, np.random.default_rng(5).poisson(mean, (12, 12, 48, 48)).astype(np.uint16))
    return path


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_disks_in_a_store(request, tmp_path, disks, processes, where):
    """Disks are a result of the store when all are there, and the same as without a kill."""
    store = tmp_path / "scan.zarr"
    stemstore.convert(disks, store, count=False, max_memory="64KiB", workers=1)
    place, storage = str(store), {}
    if where == "bucket":
        s3 = request.getfixturevalue("s3")
        storage = {**s3.options, "key": "testing", "secret": "testing-secret"}
        place = s3.keep(store)
    reached = StoreUrl(place, storage) if storage else place
    job = {"place": place, "storage": storage or None}
    status, seconds = processes.run(DISKS, name="undisturbed", **job)
    assert status == 0, processes.text
    scan = stemstore.open(reached)
    expected = stemstore.open_result(scan, "undisturbed").load()
    assert expected.sizes["peak"] > 1000
    kills, number = 0, 0
    while kills < KILLS:
        number += 1
        name = f"disks-{number}"

        def look(name=name):
            if name in stemstore.results(reached):
                assert stemstore.open_result(scan, name).load().equals(expected)
            else:
                with pytest.raises(NotFoundError, match="no result"):
                    stemstore.open_result(scan, name)

        kills += until_done(processes, DISKS, seconds, look, name=name, **job)
        assert stemstore.open_result(scan, name).load().equals(expected)
    assert opens(reached)
    assert [one for one in open_storage(reached).children("derived") if one.startswith(".part-disks")] == []


def test_workers_of_a_cluster(raw, tmp_path):
    """Workers that are killed while they convert are replaced, and the store is the undisturbed one."""
    distributed = pytest.importorskip("distributed")
    convert(raw, tmp_path / "undisturbed.zarr", "dense")
    expected = content(open_storage(tmp_path / "undisturbed.zarr"))
    rng, kills, turn = random.Random(3), 0, 0  # noqa: S311, RUF100  # moments, no secrets
    with stemstore.local_cluster(2, dashboard_address=":0") as cluster, distributed.Client(cluster) as client:
        while kills < KILLS // 2:
            turn += 1
            place = tmp_path / f"{turn}.zarr"
            with ThreadPoolExecutor(1) as executor:
                running = executor.submit(stemstore.convert_on_cluster, client, raw, place, **OPTIONS["dense"])
                while not list(tmp_path.glob(f"{turn}.zarr*")):
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.3))
                pids = list(client.run(os.getpid).values())
                if not running.done():
                    kills += 1
                    os.kill(rng.choice(pids), signal.SIGKILL)
                error = running.exception()
            whole = opens(place)
            if not whole:
                assert error is not None
                stemstore.convert_on_cluster(client, raw, place, resume=True, **OPTIONS["dense"])
            assert content(open_storage(place)) == expected
            client.wait_for_workers(2)


def test_disks_on_a_server_are_those_of_a_local_store(s3, disks, tmp_path):
    """A run that is interrupted in a bucket goes on there, and ends in the result of a local one."""
    store = tmp_path / "scan.zarr"
    stemstore.convert(disks, store, count=False, max_memory="64KiB", workers=1)
    place = StoreUrl(s3.keep(store), s3.options)
    local, there = stemstore.open(store), stemstore.open(place)
    expected = stemstore.find_disks(local, radius=3.0, store=local).load()

    class Stopped:
        done = 0

        def start(self, what, total):
            """Begin."""

        def advance(self, steps=1):
            self.done += steps
            if self.done > 40:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        stemstore.find_disks(there, radius=3.0, store=there, progress=Stopped())
    assert "disks" not in stemstore.results(place)
    with pytest.raises(DestinationExistsError, match="resume=True"):
        stemstore.find_disks(there, radius=3.0, store=there)
    found = stemstore.find_disks(there, radius=3.0, store=place, resume=True)
    xr.testing.assert_equal(found.load(), expected)
    xr.testing.assert_equal(stemstore.open_result(there, "disks").load(), expected)
    assert [name for name in open_storage(place).children("derived") if name.startswith(".")] == []
