"""SIGKILL at random moments, on disk and in a bucket: nothing unfinished opens, and nothing finished is lost."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import stemstore
from stemstore.errors import ConversionIncompleteError, NotFoundError
from stemstore.store.address import StoreUrl
from stemstore.store.commit import COMMIT
from stemstore.store.urls import open_storage
from stemstore.store.verify import verify_store

KILLS = 10  # of each of the four kinds
OPTIONS = {
    "dense": {"count": False, "profile": "raw", "max_memory": "256KiB", "workers": 1},
    "counted": {"count": True, "background_threshold": 40.0, "xray_threshold": 500.0, "workers": 1},
}
ONE = """
import json, sys, time, stemstore
import stemstore.store.layout as layout, stemstore.store.writer as room
layout.MAX_RAW_BYTES = 2**18
job = json.loads(sys.argv[1])
real = room.write_entry
def write_entry(*args, **options):
    real(*args, **options)
    print(args[1].partition, flush=True)
room.write_entry = write_entry
stemstore.convert(job["source"], job["destination"], resume=True, storage_options=job["storage"], **job["options"])
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A scan that takes 36 shards of frames or of events."""
    path = tmp_path_factory.mktemp("sweep") / "scan.npy"
    frames = np.random.default_rng(3).normal(20.5, 1.8, (24, 24, 64, 64))
    frames[..., 20:44:6, 20:44:6] += 90 * (np.random.default_rng(4).random((24, 24, 4, 4)) < 0.4)
    np.save(path, np.rint(frames).astype(np.uint16))
    return path


def content(storage):
    """Give all objects of a store but what tells one conversion from another: identity and times."""
    found = {key: storage.get(key) for key in storage.keys("")}
    commit, root = json.loads(found.pop(COMMIT)), json.loads(found.pop("zarr.json"))
    document = root["attributes"]["stemstore"]
    document.pop("uuid")
    for entry in document["history"]:
        entry["time"] = entry["environment"] = None
    return found, root, {name: commit[name] for name in ("n_shards", "n_bytes", "shards_digest")}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")
@pytest.mark.parametrize("kind", ["dense", "counted"])
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_kills_at_random_moments(request, tmp_path, raw, kind, where, monkeypatch):
    """After every kill the place opens as nothing; in the end it is the store of an undisturbed run, to the byte."""
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", 2**18)
    stemstore.convert(raw, tmp_path / "undisturbed.zarr", **OPTIONS[kind])
    expected = content(open_storage(tmp_path / "undisturbed.zarr"))
    base, storage = str(tmp_path / "a.zarr"), {}
    if where == "bucket":
        s3 = request.getfixturevalue("s3")
        base, storage = s3.url, s3.options
    rng, kills, number = random.Random(f"{kind} {where}"), 0, 0
    while kills < KILLS:
        number += 1
        place = f"{base}.{number}"
        kills += interrupted(raw, place, kind, storage, rng)
        reached = StoreUrl(place, storage) if storage else place
        assert content(open_storage(reached)) == expected
        assert verify_store(reached) == []


def interrupted(raw, place, kind, storage, rng):
    """Convert with interruptions, until it is done; gives the number of kills."""
    job = {"source": str(raw), "destination": place, "options": OPTIONS[kind], "storage": storage or None}
    finished, kills = set(), 0
    while True:
        command = [sys.executable, "-c", ONE, json.dumps(job)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            wanted = rng.randrange(6)
            for _ in range(wanted):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05) if wanted else rng.uniform(0, 2))
            process.send_signal(signal.SIGKILL)
            told = {int(line) for line in process.stdout.read().split()}
        if process.returncode == 0:
            return kills
        kills += 1
        assert not told & finished, "a finished partition was written again"
        finished |= told
        try:
            stemstore.open(place, storage_options=storage or None)
        except (ConversionIncompleteError, NotFoundError):
            pass
        else:
            return kills  # killed at the very end: the store has its name, and must be whole
        if kills == KILLS:
            stemstore.convert(raw, place, resume=True, storage_options=storage or None, **OPTIONS[kind])
            return kills
