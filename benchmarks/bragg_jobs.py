"""Whole disk detections of the sizes that have been published: wall time, peak memory, and what several workers bring.

    python -m benchmarks.bragg_jobs             both jobs, in a temporary folder (9 GB)
    python -m benchmarks.bragg_jobs --small     201 x 50 patterns of 420 x 422 pixels, float32: 7.1 GB
    python -m benchmarks.bragg_jobs --large     288 patterns of 1792 x 1920 pixels, uint16: 2 GB

The sizes are those of two scans for which detection times with py4DSTEM are published; the patterns are synthetic:
disks on a square lattice that moves a little from position to position, Poisson noise, and noise of the readout for the
float pixels. Every run is a process of its own, which finds disks on a few patterns first, so that compiling is not
part of the time; reading the store is. The large job is measured on some frames of 46 314 and extrapolated.
Another process on the machine makes every figure of wall time worse, ratios included. Processor time, of all processes
of a run together, leaves out waiting for a turn: what it promises holds where the cores are free. It counts the idle
turns of a cluster's processes as well, which are more the longer a run is kept waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.operations import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

BANK = 16  # patterns that are drawn; the others repeat them under noise of their own
READOUT = 0.3  # counts
GAIN = 1.7  # of the float camera
SECONDS, SPEEDUP, RATE = 30.0, 1.7, 15.0
ALL_LARGE = 83 * 558  # patterns of the published large scan


@dataclass(frozen=True)
class Job:
    """A scan to be searched.

    Attributes
    ----------
    name, scan, frame, dtype
        What is made.
    radius, spacing : unit pixel
        Of the disks, and of the lattice.
    """

    name: str
    scan: tuple[int, int]
    frame: tuple[int, int]
    dtype: str
    radius: float
    spacing: float

    @property
    def gigabytes(self) -> float:
        """Size of the pixels."""
        return math.prod(self.scan) * math.prod(self.frame) * np.dtype(self.dtype).itemsize / 1e9


SMALL = Job("small", (201, 50), (420, 422), "float32", 10.0, 55.0)
LARGE = Job("large", (12, 24), (1792, 1920), "uint16", 24.0, 150.0)


def bank(job: Job) -> np.ndarray:
    """Draw some patterns: expected counts and their Poisson noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(job.frame, np.float32)
    patterns = np.empty((BANK, *job.frame), np.float32)
    half = max(job.frame) / 2 / job.spacing
    orders = np.stack(np.meshgrid(*[np.arange(-int(half), int(half) + 1)] * 2), axis=-1).reshape(-1, 2)
    for number in range(BANK):
        shift = rng.uniform(-1, 1, 2)
        image = np.full(job.frame, 0.05, np.float32)
        for order in orders:
            row, column = np.array(job.frame) / 2 + shift + order * job.spacing
            weight = 40 * np.exp(-np.hypot(*order) / 1.5) * rng.uniform(0.3, 1.7)
            reach = int(job.radius) + 3
            part = tuple(slice(max(0, int(c) - reach), int(c) + reach + 1) for c in (row, column))
            away = np.hypot(rows[part] - row, columns[part] - column)
            image[part] += np.float32(weight) * np.clip((job.radius - away) / 2 + 0.5, 0, 1)
        patterns[number] = rng.poisson(image)
    return patterns


def blocks(job: Job, parts: Any) -> Iterator[np.ndarray]:
    """Make the frames of every partition of a store."""
    drawn, rng = bank(job), np.random.default_rng(1)
    for number, part in enumerate(parts):
        shape = tuple(s.stop - s.start for s in part[:2])
        which = np.arange(math.prod(shape)) + 7 * number
        frames = drawn[which % BANK].reshape(*shape, *job.frame)
        if job.dtype == "float32":
            frames = frames * np.float32(GAIN)
            frames += READOUT * rng.standard_normal(frames.shape, np.float32)
        yield frames.astype(job.dtype, copy=False)


def make_store(job: Job, folder: Path) -> Path:
    """Write the scan as a store, partition by partition."""
    from stemstore.store.layout import dense_layout
    from stemstore.store.writer import StoreWriter
    from stemstore_schemas import Axis, FrameCounts, ScanDocument

    layout = dense_layout(job.scan, job.frame, np.dtype(job.dtype))
    axes = [Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), (*job.scan, *job.frame), strict=True)]
    document = ScanDocument(
        uuid=str(uuid.uuid4()), profile="dense", axes=axes, frames=FrameCounts(valid=math.prod(job.scan))
    )
    url = folder / f"{job.name}.zarr"
    writer = StoreWriter.init(str(url), document, layout)
    for number, frames in enumerate(blocks(job, layout.partitions)):
        writer.write_frames(number, frames)
    writer.finalise()
    return url


def one_run(url: str, how: str, radius: float) -> dict[str, float]:
    """Search a store in this process and give wall and processor time, patterns, disks and peak memory."""
    import dask

    import stemstore

    kind, _, number = how.partition(":")
    ds = stemstore.open(url)
    with _workers(kind, int(number)) as client, dask.config.set({"num_workers": int(number)}):
        stemstore.find_disks(ds.isel(y=slice(1 if kind == "threads" else 8)), radius=radius)
        before, used = time.perf_counter(), _processor(client)
        disks = stemstore.find_disks(ds, radius=radius)
        seconds, processor = time.perf_counter() - before, _processor(client) - used
    status = Path("/proc/self/status")
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else math.nan
    patterns = disks.n_disks.size
    return {
        "seconds": seconds,
        "processor": processor,
        "patterns": patterns,
        "disks": disks.sizes["peak"] / patterns,
        "peak": peak,
    }


def _processor(client: Any) -> float:
    """Seconds that this process and the workers of a cluster have had a processor."""
    return time.process_time() + (0.0 if client is None else sum(client.run(time.process_time).values()))


@contextlib.contextmanager
def _workers(kind: str, number: int) -> Iterator[Any]:
    """Set threads, or start processes and give their client."""
    import dask

    import stemstore

    if kind == "threads":
        with dask.config.set(scheduler="threads" if number > 1 else "synchronous"):
            yield None
        return
    from distributed import Client, LocalCluster

    if kind == "local_cluster":
        started = stemstore.local_cluster(number, dashboard_address=None)
    else:
        started = LocalCluster(n_workers=number, threads_per_worker=1, dashboard_address=None)
    with started as cluster, Client(cluster) as client:
        yield client


def measured(url: Path, how: str, job: Job) -> dict[str, float]:
    """Search a store in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.bragg_jobs", "--one", str(url), how, str(job.radius)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_small(folder: Path, table: Table) -> None:
    """Measure the small job on one and two threads, and on a cluster of two processes; see docs/performance.md."""
    url = make_store(SMALL, folder)
    runs = {how: measured(url, how, SMALL) for how in ("threads:2", "threads:1", "local_cluster:2", "cluster:2")}
    two, one = runs["threads:2"], runs["threads:1"]
    note = f"{SMALL.gigabytes:.1f} GB, {two['disks']:.0f} disks per pattern"
    table.add("small job, two threads", two["seconds"], "s", goal=SECONDS, note=note)
    table.add("small job, two threads, peak memory", two["peak"], "MiB")
    table.add("small job, two threads, processor time", two["processor"], "s", note="half of it on two free cores")
    table.add("small job, one thread", one["patterns"] / one["seconds"], "frames/s")
    table.add("small job, one thread, by processor time", one["patterns"] / one["processor"], "frames/s")
    table.add("two threads over one", one["seconds"] / two["seconds"], "x")
    for how, goal, name in (("local_cluster:2", SPEEDUP, "local_cluster"), ("cluster:2", None, "as dask spawns them")):
        run = runs[how]
        table.add(f"two processes over one thread, {name}", one["seconds"] / run["seconds"], "x", goal=goal)
        share = 2 * one["processor"] / run["processor"]
        table.add(f"  at most, by processor time, {name}", share, "x")


def run_large(folder: Path, table: Table) -> None:
    """Measure some frames of the large job on one core."""
    url = make_store(LARGE, folder)
    one, two = (measured(url, how, LARGE) for how in ("threads:1", "threads:2"))
    rate = one["patterns"] / one["seconds"]
    table.add("large frames, one core", rate, "frames/s", goal=RATE, note=f"{one['disks']:.0f} disks per pattern")
    table.add("large frames, by processor time", one["patterns"] / one["processor"], "frames/s")
    table.add("large frames, one core, peak memory", one["peak"], "MiB")
    table.add("large frames, two threads, peak memory", two["peak"], "MiB")
    table.add("two threads over one", one["seconds"] / two["seconds"], "x")
    hours = ALL_LARGE / rate / 3600
    note = f"extrapolated from {one['patterns']:.0f} of {ALL_LARGE} patterns"
    table.add("all of the large job, one core", hours, "h", note=note)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the small job")
    parser.add_argument("--large", action="store_true", help="only the large frames")
    parser.add_argument("--folder", type=Path, help="where the data are made; a temporary folder otherwise")
    parser.add_argument("--one", nargs=3, metavar=("STORE", "HOW", "RADIUS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_run(given.one[0], given.one[1], float(given.one[2]))))
        return
    both = given.small == given.large
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    table = Table()
    try:
        if given.small or both:
            run_small(folder, table)
        if given.large or both:
            run_large(folder, table)
    finally:
        shutil.rmtree(folder)
    if table.missed:
        print("\nmissed:", *table.missed, sep="\n  ")


if __name__ == "__main__":
    main()
