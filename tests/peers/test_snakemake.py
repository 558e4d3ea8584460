"""The workflow for Snakemake runs from raw scans to reports, here and again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.testing import make_scan

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]  # the first one installs the program

WORKFLOW = Path(__file__).resolve().parents[2] / "docs" / "workflows" / "snakemake"


@pytest.fixture
def snakemake(program, tmp_path):
    """Run the workflow in a folder of its own, its jobs with this interpreter."""
    command = shutil.which("snakemake") or program("snakemake==9.27.1", "snakemake")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(*more):
        arguments = ["--snakefile", WORKFLOW / "Snakefile", "--cores", "2", "--directory", tmp_path, *more]
        environment = os.environ | {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run([command, *arguments], capture_output=True, text=True, check=False, env=environment)

    return run


def test_the_snakemake_workflow_runs(snakemake, tmp_path):
    """Two scans become what a conversion in one piece gives; a second start finds nothing to do."""
    for seed in (1, 2):
        make_scan(tmp_path / "raw" / f"scan {seed}", scan_shape=(6, 6), dose=80, seed=seed)
    settings = tmp_path / "mine.yaml"
    settings.write_text(
        "scans: {one: 'raw/scan 1', two: 'raw/scan 2'}\nconvert: --no-count --profile raw --max-memory 4MiB\n",
        encoding="utf-8",
    )
    done = snakemake("--configfile", settings)
    assert done.returncode == 0, done.stderr
    for name, seed in (("one", 1), ("two", 2)):
        report = (tmp_path / "results" / f"{name}.report.md").read_text(encoding="utf-8")
        assert "- valid, every byte read: yes" in report
        assert (tmp_path / "results" / f"{name}.virtual.png").stat().st_size > 0
        store = tmp_path / "results" / f"{name}.zarr"
        assert set(stemstore.results(store)) == {"com"}
        assert len(list((tmp_path / "results" / f"{name}.jobs").iterdir())) == 4
        stemstore.convert(tmp_path / "raw" / f"scan {seed}", tmp_path / "whole.zarr", count=False, overwrite=True)
        found, expected = (stemstore.open(one).intensity for one in (store, tmp_path / "whole.zarr"))
        np.testing.assert_array_equal(found, expected)
    again = snakemake("--configfile", settings)
    assert "Nothing to be done" in again.stderr + again.stdout
