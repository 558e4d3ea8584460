"""A conversion on a cluster of dask whose workers are jobs of Slurm, as the documentation starts them."""

from __future__ import annotations

import os
import sys

import pytest

import stemstore

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]  # workers wait for processors

OPTIONS = {"count": False, "max_memory": "32MiB", "workers": 1}  # makes several shards of the small scan


@pytest.fixture
def client(bench):
    """Connect to two workers, each a job, whose settings are those that are given for it."""
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install dask-jobqueue")
    from distributed import Client

    settings = [f"export {name}={value}" for name, value in stemstore.worker_environment(memory="1GB").items()]
    with (
        jobqueue.SLURMCluster(
            cores=1,
            processes=1,
            memory="1GB",
            python=sys.executable,
            log_directory=bench.folder,
            job_script_prologue=settings,
            scheduler_options={"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},  # beside other clusters
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(jobs=2)
        client.wait_for_workers(2, timeout=240)
        yield client


def test_jobs_of_slurm_are_workers(bench, client, content):
    """Workers run as jobs within the budget they were given, and write what one process writes."""
    found = client.run(lambda: [os.environ.get(name) for name in ("SLURM_JOB_ID", "STEMSTORE_MAX_MEMORY")])
    assert {job for job, _ in found.values()} == set(bench.ask("squeue", "--noheader", "--format=%A").split())
    assert [budget for _, budget in found.values()] == ["600000000"] * 2
    stemstore.convert("scan_42", "whole.zarr", **OPTIONS)
    report = stemstore.convert_on_cluster(client, bench.folder / "scan_42", bench.folder / "a.zarr", **OPTIONS)
    assert report.shape == (8, 9, 576, 576)
    assert content("a.zarr") == content("whole.zarr")
