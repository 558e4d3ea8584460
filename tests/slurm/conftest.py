"""A Slurm to submit to, a scan to convert with it, and a stemstore that can be made to wait while it writes.

They are asked only where ``STEMSTORE_TEST_SLURM`` is set, as ``make test-slurm`` does once a Slurm of its own runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stemstore.testing import make_scan

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
PATIENCE = 240  # seconds; a job that was requeued waits first, and the first one compiles kernels

HELD = """#!{python}
# stemstore, with shards small enough for a test. It waits before it vouches for its second shard, which is written
# already, as long as the file `hold` names its array task, or nothing where it is no array task.
import os, time
from pathlib import Path
import stemstore.store.layout as layout
import stemstore.store.writer as room
from stemstore.cli.main import main

layout.MAX_RAW_BYTES = 2**23
here, real, written = Path(__file__).parent, room.write_entry, []

def held():
    hold = here / "hold"
    return written and hold.exists() and hold.read_text() == os.environ.get("SLURM_ARRAY_TASK_ID", "")

def write_entry(*args, **options):
    while held():
        (here / "reached").touch()
        time.sleep(0.02)
    real(*args, **options)
    written.append(args[1].partition)

room.write_entry = write_entry
main()
"""


@pytest.fixture(scope="session", autouse=True)
def _needs_slurm():
    """Skip, and say why, where no Slurm was asked for."""
    if not os.environ.get("STEMSTORE_TEST_SLURM"):
        pytest.skip("submits to Slurm: run make test-slurm where slurmctld, slurmd, slurm-client and munge are")


@pytest.fixture(scope="session")
def scan_42(tmp_path_factory):
    """Make the small scan that the documentation speaks of."""
    folder = tmp_path_factory.mktemp("raw") / "scan_42"
    make_scan(folder, scan_shape=(8, 8), dose=150, seed=42)
    return folder


@pytest.fixture
def bench(scan_42, tmp_path, monkeypatch):
    """Stand in an empty folder where ``scan_42`` is, with a stemstore that can be held first on the path."""
    (tmp_path / "scan_42").symlink_to(scan_42, target_is_directory=True)
    program = tmp_path / "bin" / "stemstore"
    program.parent.mkdir()
    program.write_text(HELD.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


class Bench:
    """Commands in a folder, and the jobs that were submitted from it."""

    def __init__(self, folder):
        self.folder = folder
        self.hold, self.reached = folder / "bin" / "hold", folder / "bin" / "reached"

    def ask(self, *command):
        """Run a command; gives what it says."""
        found = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout.strip()

    def submit(self, *options):
        """Submit a job as small as this machine; gives its number."""
        small = ("--cpus-per-task=1", "--mem=1G", "--output=%A_%a.log")
        return self.ask("sbatch", "--parsable", *small, *options)

    def jobs(self, number):
        """Tell the state and exit code of a job, or of every element of an array, by name."""
        found = {}
        for line in self.ask("scontrol", "--oneliner", "show", "job", number).splitlines():
            fields = dict(word.partition("=")[::2] for word in line.split())
            found[fields.get("ArrayTaskId", "")] = (fields["JobState"], fields["ExitCode"])
        return found

    def wait_for(self, condition, text):
        """Poll until something holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"{text}\n{self.ask('scontrol', 'show', 'job')}\n{self.messages()}"
            time.sleep(0.1)

    def finished(self, number):
        """Wait for a job, or all elements of an array; gives their states as `jobs` does."""
        self.wait_for(lambda: all(state in FINAL for state, _ in self.jobs(number).values()), f"job {number} runs on")
        return self.jobs(number)

    def until_held(self):
        """Wait until a job has written one shard whole, and one without its entry of the journal."""
        self.wait_for(self.reached.exists, "no job came to its second shard")

    def messages(self):
        """Read what all jobs have said."""
        return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def content():
    """Read everything in a store but what tells one conversion from another: identity, times and environment."""

    def read(store):
        found = {p.relative_to(store).as_posix(): p.read_bytes() for p in Path(store).rglob("*") if p.is_file()}
        commit, root = (json.loads(found.pop(name)) for name in ("stemstore.commit.json", "zarr.json"))
        document = root["attributes"]["stemstore"]
        document.pop("uuid")
        for entry in document["history"]:
            entry["time"] = entry["environment"] = None
        return found, root, {name: commit[name] for name in ("n_shards", "n_bytes", "shards_digest")}

    return read
