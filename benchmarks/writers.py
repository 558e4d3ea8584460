"""One conversion written by one process and by two, each with one thread.

    python -m benchmarks.writers                     4 GB of raw sector files in a temporary folder
    python -m benchmarks.writers --folder /fast      work there, and keep the raw files for the next run

Processes have imported everything and written a small scan before the clock starts; it stops when the last of them has
written its last partition. Planning and finalising are the same for both and are told apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.pipeline import FRAME, make

GOAL = 1.7
WRITER = """
import json, sys
import stemstore
job = json.loads(sys.argv[1])
stemstore.convert(job["small"], job["warm"], count=job["count"], digests="none", flyback_columns=1, workers=1)
print("ready", flush=True)
sys.stdin.readline()
for task in job["tasks"]:
    stemstore.convert_partition(job["destination"], task, workers=1)
print("done", flush=True)
"""


def writing(raw: Path, small: Path, folder: Path, *, count: bool, writers: int) -> dict[str, float]:
    """Seconds of the three steps of a conversion by some processes that share its partitions."""
    import stemstore

    destination = folder / "scan.zarr"
    start = time.perf_counter()
    cut = {"chunks": 256, "shards": 512} if count else {}  # events of this scan would fit into one shard
    plan = stemstore.plan_conversion(
        raw, destination, tasks=4, overwrite=True, count=count, digests="none", flyback_columns=1, workers=1, **cut
    )
    planned = time.perf_counter() - start
    jobs: list[dict[str, Any]] = [
        {
            "small": str(small),
            "warm": str(folder / f"warm_{number}.zarr"),
            "destination": str(destination),
            "count": count,
            "tasks": list(range(number, plan.n_tasks, writers)),
        }
        for number in range(writers)
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WRITER, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for job in jobs
    ]
    _expect(processes, "ready")
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None  # it was asked for
        process.stdin.write("\n")
        process.stdin.flush()
    _expect(processes, "done")
    written = time.perf_counter() - start
    for process in processes:
        process.wait()
    start = time.perf_counter()
    stemstore.finalise_conversion(destination)
    for job in jobs:
        subprocess.run(["rm", "-r", job["warm"]], check=True)
    return {
        "plan": planned,
        "write": written,
        "finalise": time.perf_counter() - start,
        "tasks": plan.n_tasks,
    }


def _expect(processes: list[subprocess.Popen[str]], word: str) -> None:
    for process in processes:
        assert process.stdout is not None  # it was asked for
        if process.stdout.readline().strip() != word:
            msg = f"a writer ended before it was {word}"
            raise RuntimeError(msg)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        raw, small = make(options.folder or folder, options.gigabytes), make(folder, 0.01)
        n_bytes = sum(path.stat().st_size for path in raw.glob("*.data"))
        for count in (False, True):
            name = "counted" if count else "dense"
            found = {
                writers: min(
                    (writing(raw, small, folder, count=count, writers=writers) for _ in range(3)),
                    key=lambda times: times["write"],
                )
                for writers in (1, 2)
            }
            for writers, times in found.items():
                print(
                    f"{name}, {writers} process(es): {n_bytes / times['write'] / 1e9:.2f} GB/s, "
                    f"{n_bytes / FRAME / times['write']:.0f} frames/s, {times['tasks']:.0f} partitions; "
                    f"plan {times['plan']:.2f} s, write {times['write']:.2f} s, finalise {times['finalise']:.2f} s"
                )
            gain = found[1]["write"] / found[2]["write"]
            print(f"{name}, two against one: {gain:.2f} x (goal >= {GOAL}: {'met' if gain >= GOAL else 'missed'})")


if __name__ == "__main__":
    main()
