"""Clusters whose workers keep large buffers and know their budget."""

import os

import pytest

from stemstore.errors import InputError
from stemstore.scan.cluster import local_cluster, worker_environment


def test_environment_of_workers():
    """Limits of the allocator, threads, and a share of the memory."""
    found = worker_environment(threads=3, memory="10GB")
    assert found == {
        "MALLOC_TRIM_THRESHOLD_": "268435456",
        "MALLOC_MMAP_THRESHOLD_": "33554432",
        "STEMSTORE_WORKERS": "3",
        "STEMSTORE_MAX_MEMORY": "6000000000",
    }
    assert "STEMSTORE_MAX_MEMORY" not in worker_environment()
    with pytest.raises(InputError, match="'much' is not understood"):
        worker_environment(memory="much")


def test_numbers_below_one():
    """A cluster of nobody is refused before anything starts."""
    for name in ("workers", "threads"):
        for value in (0, True, 1.5):
            with pytest.raises(InputError, match=f"{name}="):
                local_cluster(**{name: value})


def test_workers_have_the_settings(monkeypatch):
    """Processes of a local cluster are started with them, whatever an earlier cluster left in the environment."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    before = dict(os.environ)
    with (
        local_cluster(1, memory="2GiB", dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "STEMSTORE_WORKERS", "STEMSTORE_MAX_MEMORY")
        (found,) = client.run(lambda: {name: os.environ[name] for name in names}).values()
        here = {name: os.environ.get(name) for name in names}
    assert found == worker_environment(memory="2GiB")
    assert here == {name: before.get(name) for name in names}


def test_no_dashboard_is_no_open_port():
    """Without a dashboard nothing listens but on the loopback, at a port that is free; two clusters get along."""
    distributed = pytest.importorskip("distributed")
    options = {"dashboard_address": None, "processes": False}
    with local_cluster(1, **options) as cluster, local_cluster(1, **options) as other:
        for one in (cluster, other):
            servers = one.scheduler.http_server._sockets.values()
            assert {socket.getsockname()[0] for socket in servers} == {"127.0.0.1"}
        with distributed.Client(cluster) as client:
            assert client.submit(sum, [1, 2]).result() == 3
