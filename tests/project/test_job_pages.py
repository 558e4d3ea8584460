"""The pages on clusters and on interrupted conversions are true: what they show runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import stemstore
from stemstore.testing import make_scan

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page, language):
    """Take the fenced code blocks of a page."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def at_scan_42(tmp_path, monkeypatch):
    """Stand in a folder that holds the small scan which the pages speak of."""
    make_scan(tmp_path / "scan_42", scan_shape=(6, 6), dose=150, seed=42)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("at_scan_42")
def test_going_on_begins_where_nothing_was_begun():
    """The Python block on interrupted conversions runs, once and again."""
    (block,) = blocks("interrupted.md", "python")
    exec(block, {})  # the block is ours
    with pytest.raises(stemstore.errors.DestinationExistsError, match="exists"):
        exec(block, {})  # a script that is started again after the end is told so


@pytest.mark.slow
@pytest.mark.usefixtures("at_scan_42")
def test_the_page_on_clusters_runs():
    """Its first shell block makes a store as jobs, and its first Python block works on it with two processes."""
    pytest.importorskip("distributed", reason="needs dask.distributed (extras cluster and test)")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in blocks("clusters.md", "sh")[0].splitlines():
        command = shlex.split(line, comments=True)
        done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    names = {}
    exec(blocks("clusters.md", "python")[0], names)  # the block is ours
    assert names["image"].shape == (6, 6)
    assert stemstore.validate("scan_42.zarr", deep=True).valid
