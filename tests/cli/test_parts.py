"""Conversions by many jobs, and conversions that were interrupted, from the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemstore

OPTIONS = ["--profile", "raw", "--max-memory", "64KiB", "--no-count"]


@pytest.fixture
def scan(tmp_path):
    """A scan that takes several shards."""
    frames = np.random.default_rng(1).integers(0, 999, (12, 12, 32, 32)).astype(np.uint16)
    np.save(tmp_path / "scan.npy", frames)
    return frames, str(tmp_path / "scan.npy"), str(tmp_path / "a.zarr")


def test_plan_partition_finalise(document, call, scan):
    """Three steps give the store; the number of the job may come from Slurm."""
    frames, raw, store = scan
    plan = document("plan", raw, store, "--tasks", "3", *OPTIONS)
    assert plan["n_tasks"] == 3
    early = call("finalise", store)
    assert early.exit_code == 3
    assert "partitions of" in early.stderr
    assert document("partition", store, "1", "--progress", "none")["written"]
    for task in ("0", "2"):
        document("partition", store, "--progress", "none", env={"SLURM_ARRAY_TASK_ID": task})
    again = call("partition", store, "2", "--progress", "none")
    assert again.stdout == "job 2: wrote 0 shards\n"
    assert document("finalise", store)["shape"] == list(frames.shape)
    np.testing.assert_array_equal(stemstore.open(store).intensity, frames)


def test_plan_takes_the_options_of_convert(call):
    """What a conversion can be asked for, a plan can be asked for; what makes no sense there is not offered."""
    convert, plan = (call(verb, "--help").stdout for verb in ("convert", "plan"))
    missing = set(re.findall(r"^  (--[a-z-]+)", convert, re.MULTILINE)) - set(re.findall(r"--[a-z-]+", plan))
    assert missing == {"--resume", "--dry-run", "--progress"}


def interrupt_after(monkeypatch, n, error):
    """Stop a conversion after some shards."""
    import stemstore.store.writer as room

    real, written = room.write_entry, []

    def write_entry(*args, **options):
        if len(written) >= n:
            raise error
        written.append(args[1].partition)
        return real(*args, **options)

    monkeypatch.setattr(room, "write_entry", write_entry)


def test_interrupted_conversions_go_on(call, scan, monkeypatch):
    """Ctrl-C ends with 130 and says how to go on; so it does."""
    frames, raw, store = scan
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, KeyboardInterrupt())
        result = call("convert", raw, store, *OPTIONS, "--progress", "none")
    assert result.exit_code == 130
    assert "2 of 9 partitions are kept; go on with resume=True (--resume)" in result.stderr
    refused = call("convert", raw, store, *OPTIONS, "--progress", "none")
    assert refused.exit_code == 4
    assert call("convert", raw, store, *OPTIONS, "--progress", "none", "--resume").exit_code == 0
    np.testing.assert_array_equal(stemstore.open(store).intensity, frames)


def test_a_conversion_to_a_server_goes_on(call, scan, monkeypatch):
    """What was begun in a place that is no folder of this machine is taken up by --resume, and refused without."""
    import fsspec

    frames, raw, _ = scan
    store = "memory://test_parts/a.zarr"
    try:
        with monkeypatch.context() as patch:
            interrupt_after(patch, 2, KeyboardInterrupt())
            assert call("convert", raw, store, *OPTIONS, "--progress", "none").exit_code == 130
        refused = call("convert", raw, store, *OPTIONS, "--progress", "none")
        assert refused.exit_code == 4
        assert "go on with resume=True (--resume)" in refused.stderr
        result = call("convert", raw, store, *OPTIONS, "--progress", "none", "--resume")
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(stemstore.open(store).intensity, frames)
    finally:
        fsspec.filesystem("memory").rm("/test_parts", recursive=True)


def test_repair(call, document, scan, monkeypatch, tmp_path):
    """It tells how far a conversion came, finishes it without its options being repeated, or removes it."""
    frames, raw, store = scan

    def begin():
        with monkeypatch.context() as patch:
            interrupt_after(patch, 2, KeyboardInterrupt())
            assert call("convert", raw, store, *OPTIONS, "--progress", "none").exit_code == 130

    begin()
    told = document("repair", store)
    assert (told["state"], told["found"]["done"], told["found"]["n_partitions"]) == ("unfinished", 2, 9)
    assert told["found"]["source"] == [raw]
    assert "2 of 9 are there and whole" in call("repair", store).stdout
    assert document("repair", store, "--finish", "--progress", "none")["state"] == "finished"
    np.testing.assert_array_equal(stemstore.open(store).intensity, frames)
    assert call("repair", store).exit_code == 3
    Path(store).rename(tmp_path / "kept.zarr")
    begin()
    assert call("repair", store, "--finish", "--remove").exit_code == 2
    assert call("repair", store, "--remove", "--progress", "none").stdout.startswith("removed ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.zarr", "scan.npy"]


TERMINATED = """
import os, signal, sys, time
import stemstore.store.writer as room
from stemstore.cli.main import main
real, written = room.write_entry, []
def write_entry(*args, **options):
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    written.append(1)
    return real(*args, **options)
room.write_entry = write_entry
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is Unix's")
def test_a_batch_system_that_stops_the_job_can_start_it_again(call, scan):
    """SIGTERM ends with 75, which means: the same command with --resume goes on."""
    frames, raw, store = scan
    command = [
        sys.executable,
        "-c",
        TERMINATED,
        "convert",
        raw,
        store,
        *OPTIONS,
        "--progress",
        "none",
        "--workers",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 75
    assert re.fullmatch(
        r"terminated: [23] of 9 partitions are kept; go on with resume=True \(--resume\)\n", done.stderr
    )
    result = call("convert", raw, store, *OPTIONS, "--resume", "--json", "--progress", "none")
    assert json.loads(result.stdout)["shape"] == list(frames.shape)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is Unix's")
def test_one_of_many_jobs_that_is_stopped_is_to_be_repeated(call, scan):
    """SIGTERM ends a job with 75 as well, and repeating it writes the rest."""
    frames, raw, store = scan
    assert call("plan", raw, store, "--tasks", "1", *OPTIONS).exit_code == 0
    command = [sys.executable, "-c", TERMINATED, "partition", store, "0", "--progress", "none", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 75
    assert done.stderr.endswith("of 9 partitions are kept; repeat the job\n")
    assert call("partition", store, "0", "--progress", "none").exit_code == 0
    assert call("finalise", store).exit_code == 0
    np.testing.assert_array_equal(stemstore.open(store).intensity, frames)
