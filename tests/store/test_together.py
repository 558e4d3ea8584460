"""Conversions of several processes to one place that begin together: one of them writes it, the others are refused."""

import json
import subprocess
import sys
import time
from itertools import product

import pytest
from sweeps import LIMIT, OPTIONS, content, convert, opens, write_scan

from stemstore.store.address import StoreUrl
from stemstore.store.urls import open_storage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are started as on Unix")

MANY = [pytest.mark.slow, pytest.mark.timeout(900)]

SCENES = [
    ("disk", False, 2),
    *(pytest.param(*scene, 20, marks=MANY) for scene in product(("disk", "bucket"), (False, True))),
]

SEVERAL = """
import json, sys, time, stemstore
import stemstore.store.layout as layout
layout.MAX_RAW_BYTES = int(sys.argv[1])
from stemstore.conversion.run import convert
from stemstore.errors import DestinationExistsError
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    while time.time() < job["at"]:
        pass
    try:
        convert(job["source"], job["place"], storage_options=job["storage"], **job["options"])
        print("wrote", flush=True)
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "), flush=True)
"""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.fixture(scope="module")
def writers():
    """Start two processes that convert when told."""
    command = [sys.executable, "-c", SEVERAL, str(LIMIT)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        both = [one, other]
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        yield both
        for process in both:
            process.stdin.close()


def together(writers, jobs):
    """Let both begin at the same moment; gives what became of each."""
    at = time.time() + 0.05
    for process, job in zip(writers, jobs, strict=True):
        process.stdin.write(json.dumps({**job, "at": at}) + "\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in writers]


@pytest.mark.parametrize(("where", "replaced", "turns"), SCENES)
def test_one_of_two_wins(request, raw, tmp_path, writers, turns, where, replaced):
    """A dense and a counted conversion that begin together leave the whole store of one, and the other is refused."""
    base, storage = str(tmp_path / "a.zarr"), {}
    if where == "bucket":
        s3 = request.getfixturevalue("s3")
        base, storage = s3.url, {**s3.options, "key": "testing", "secret": "testing-secret"}
    expected = {}
    for kind in OPTIONS:
        convert(raw, tmp_path / f"{kind}.zarr", kind)
        expected[kind] = content(open_storage(tmp_path / f"{kind}.zarr"))
    for turn in range(turns):
        place = f"{base}.{turn}"
        reached = StoreUrl(place, storage) if storage else place
        if replaced:
            convert(raw, reached, "counted")
        kinds = sorted(OPTIONS, reverse=turn % 2 == 1)
        common = {"source": str(raw), "place": place, "storage": storage or None}
        jobs = [{**common, "options": {**OPTIONS[kind], "overwrite": replaced}} for kind in kinds]
        outcomes = together(writers, jobs)
        assert sorted(text.split()[0] for text in outcomes) == ["DestinationExistsError", "wrote"], outcomes
        assert opens(reached)
        assert content(open_storage(reached)) == expected[kinds[outcomes.index("wrote")]]
