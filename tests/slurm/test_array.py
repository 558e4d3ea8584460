"""Conversions as jobs of Slurm, as the documentation submits them: killed, stopped, started again, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

import stemstore
from stemstore.errors import ConversionIncompleteError
from stemstore.store.verify import verify_store

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]  # jobs wait for one another, and for two processors

TEMPLATES = Path(__file__).resolve().parents[2] / "docs" / "workflows" / "slurm"
RAW, STORE = "scan_42", "scan_42.zarr"


@pytest.fixture
def undisturbed(bench, content):
    """Give the content of the store that one process makes here."""
    bench.ask("stemstore", "convert", RAW, "whole.zarr", "--count", "--progress", "none")
    return content("whole.zarr")


def test_an_array_job_that_was_killed_in_part(bench, content, undisturbed):
    """One of four jobs is killed while it writes and submitted again; the store is that of one undisturbed process."""
    bench.ask("stemstore", "plan", RAW, STORE, "--count", "--tasks", 4)
    bench.hold.write_text("2")
    first = bench.submit("--array=0-3", TEMPLATES / "array.sbatch")
    early = bench.submit(
        f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes", "--wrap", f"exec stemstore finalise {STORE}"
    )
    bench.until_held()
    bench.ask("scancel", "--batch", "--signal=KILL", f"{first}_2")
    states = bench.finished(first)
    assert states.pop("2") == ("FAILED", "0:9")
    assert states == dict.fromkeys(("0", "1", "3"), ("COMPLETED", "0:0"))
    assert bench.finished(early) == {"": ("CANCELLED", "0:0")}
    with pytest.raises(ConversionIncompleteError, match="did not finish"):
        stemstore.open(STORE)

    bench.hold.unlink()
    again = bench.submit("--array=2", TEMPLATES / "array.sbatch")
    last = bench.submit(f"--dependency=afterok:{again}", "--wrap", f"exec stemstore finalise {STORE}")
    assert bench.finished(last) == {"": ("COMPLETED", "0:0")}, bench.messages()
    assert Path(f"{again}_2.log").read_text() == "job 2: wrote 1 shards\n"  # the other of its two
    assert content(STORE) == undisturbed
    assert verify_store(STORE) == []


def test_a_job_that_slurm_stops_goes_on_when_it_is_requeued(bench, content, undisturbed):
    """What scancel sends ends a conversion with 75; requeued, the same script writes the rest and finishes."""
    bench.hold.touch()
    job = bench.submit("--output=%j.log", TEMPLATES / "convert.sbatch")
    bench.until_held()
    bench.ask("scancel", job)
    assert bench.finished(job) == {"": ("CANCELLED", "75:0")}
    assert "terminated: 1 of " in bench.messages()
    bench.hold.unlink()
    bench.ask("scontrol", "requeue", job)
    assert bench.finished(job) == {"": ("COMPLETED", "0:0")}, bench.messages()
    assert content(STORE) == undisturbed
