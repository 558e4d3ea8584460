"""SIGKILL at random moments, on disk and in a bucket: nothing unfinished opens, and nothing finished is lost."""

import signal
import sys

import pytest
from processes import Processes
from sweeps import LIMIT, OPTIONS, content, convert, opens, write_scan

from stemstore.store.address import StoreUrl
from stemstore.store.urls import open_storage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")
KILLS = 15  # of each of the four kinds
CONVERT = """
stemstore.convert(job["source"], job["place"], resume=True, storage_options=job["storage"], **job["options"])
"""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["dense", "counted"])
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_kills_at_random_moments(request, tmp_path, raw, kind, where):
    """After every kill the place opens as nothing; in the end it is the store of an undisturbed run, to the byte."""
    convert(raw, tmp_path / "undisturbed.zarr", kind)
    expected = content(open_storage(tmp_path / "undisturbed.zarr"))
    base, storage = str(tmp_path / "a.zarr"), {}
    if where == "bucket":
        s3 = request.getfixturevalue("s3")
        base, storage = s3.url, {**s3.options, "key": "testing", "secret": "testing-secret"}
    job = {"source": str(raw), "options": OPTIONS[kind], "storage": storage or None}
    kills, number = 0, 0
    with Processes(raw, tmp_path, LIMIT, f"{kind} {where}") as processes:
        status, seconds = processes.run(CONVERT, place=f"{base}.0", **job)
        assert status == 0, processes.text
        while kills < KILLS:
            number += 1
            place = f"{base}.{number}"
            reached = StoreUrl(place, storage) if storage else place
            kills += killed(processes, reached, {**job, "place": place}, seconds, KILLS - kills)
            assert opens(reached)
            assert content(open_storage(reached)) == expected
    assert [path.name for path in tmp_path.glob("a.zarr.*-*")] == []


def killed(processes, reached, job, seconds, most):
    """Convert with interruptions, until it is done; gives the number of kills."""
    entered, shards, kills = [], [], 0
    while True:
        status, _ = processes.run(CONVERT, within=seconds if kills < most else None, **job)
        entered += processes.told("entry")
        shards += processes.told("shard")
        if status == 0:
            break
        assert status == -signal.SIGKILL, processes.text
        kills += 1
        opens(reached)  # as nothing, or whole
    assert len(entered) == len(set(entered)), "a finished partition was written again"
    assert len(shards) - len(set(shards)) <= kills, "more than the shard that was being written was repeated"
    return kills
