"""Speed and memory of operations on one scan, against goals and against other programs in the same run.

    python -m benchmarks.operations                               2 GB of 256 x 256 frames in a temporary folder
    python -m benchmarks.operations --libertem /venv/bin/python   compare with LiberTEM, installed for that interpreter
    python -m benchmarks.operations --gigabytes 10                the same for 10 GB: memory should not change

    python -m benchmarks.operations --clock processor             one thread by processor time, for a busy machine

All reads come from the page cache. Times are the best of some rounds; what is compared ran right after one another.
Lines with a goal say whether it was met. On a machine with other work to do only the ratios mean anything, and those
of one thread; processor time leaves out waiting for a turn, but not the cache and the memory that others use.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported: the baselines run on one core, too

import numpy as np

from benchmarks.peers import best, libertem, numpy_centre, numpy_image, zarr_image

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 256
FRAME = SIDE * SIDE * 2
BATCH = 256
"""Memory that glibc keeps instead of giving it back after every buffer; see docs/performance.md."""

FRESH = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
import dask.array, xarray
libraries = time.perf_counter()
import dask, stemstore
scan = stemstore.open(sys.argv[1])
opened = time.perf_counter()
part = scan if sys.argv[2] == "all" else scan.isel(y=slice(64), x=slice(64))
with dask.config.set(scheduler="threads", num_workers=2):
    stemstore.virtual_image(part, stemstore.annulus(40, 100)).compute()
first = time.perf_counter()
with dask.config.set(scheduler="threads", num_workers=2):
    stemstore.virtual_image(part, stemstore.annulus(40, 90)).compute()
    second = time.perf_counter()
    if sys.argv[2] == "all":
        stemstore.compute(stemstore.center_of_mass(scan), stemstore.mean_pattern(scan))
status = Path("/proc/self/status")
peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else float("nan")
print(json.dumps({"libraries": libraries - start, "open": opened - libraries, "image": first - opened,
                  "all": first - start, "again": second - first, "peak": peak}))
"""


@dataclass
class Table:
    """Lines as they are measured, and the goals that were missed."""

    missed: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, *, goal: float | None = None, note: str = "") -> None:
        """Print a line; a goal in units of time or MiB is an upper limit, any other a lower one."""
        verdict = ""
        if goal is not None:
            upper = unit in {"s", "ms", "MiB", "x slowest"}
            met = value <= goal if upper else value >= goal
            verdict = f"{'<=' if upper else '>='} {goal:g} {'met' if met else 'MISSED'}"
            if not met:
                self.missed.append(f"{name}: {value:.2f} {unit}, goal {goal:g}")
        print(f"{name:52s}{value:>9.2f} {unit:12s}{verdict:16s}{note}", flush=True)


@dataclass
class Bench:
    """The data, the detectors and the ways to run an operation."""

    folder: Path
    scan: tuple[int, int]
    rounds: int
    clock: str
    table: Table = field(default_factory=Table)

    @property
    def raw(self) -> Path:
        """Uncompressed frames with a description beside them."""
        return self.folder / "scan.raw"

    @property
    def store(self) -> Path:
        """The same frames in a store of the default layout."""
        return self.folder / "scan.zarr"

    @property
    def gigabytes(self) -> float:
        """Size of the frames."""
        return math.prod(self.scan) * FRAME / 1e9

    def rate(self, operation: Callable[[], Any], threads: int, clock: str | None = None) -> float:
        """Speed of an operation in GB/s of frames, on some threads."""
        import dask

        if threads == 1:
            with dask.config.set(scheduler="synchronous"):
                return self.gigabytes / best(operation, self.rounds, clock or self.clock)
        with dask.config.set(scheduler="threads", num_workers=threads):
            return self.gigabytes / best(operation, self.rounds)

    def best(self, call: Callable[[], Any], rounds: int | None = None) -> float:
        """Shortest time of a call on one thread."""
        return best(call, rounds or self.rounds, self.clock)


def radius() -> np.ndarray:
    """Distance of every pixel from the middle of the detector."""
    row, column = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    return np.hypot(row, column)


def make(bench: Bench) -> None:
    """Write frames of Poisson noise on a bright disk and a diffuse background, and a store of them."""
    import stemstore

    random, r = np.random.default_rng(0), radius()
    frames = random.poisson(np.where(r < 40, 20, 0) + 60 * np.exp(-((r / 50) ** 2)) + 3, (BATCH, SIDE, SIDE))
    frames = frames.astype("<u2")
    n = math.prod(bench.scan)
    with bench.raw.open("wb") as file:
        for start in range(0, n, BATCH):
            file.write(np.ascontiguousarray(frames[random.permutation(BATCH)[: n - start]]))
    description = {"shape": [*bench.scan, SIDE, SIDE], "dtype": "<u2"}
    bench.raw.with_name("scan.raw.json").write_text(json.dumps(description))
    report = stemstore.convert(bench.raw, bench.store, overwrite=True)
    smaller = report.raw_bytes / report.stored_bytes
    print(
        f"{bench.gigabytes:.1f} GB in {n} frames, {smaller:.2f} x smaller as a store, written in {report.seconds:.1f} s"
    )


def ceilings(bench: Bench) -> None:
    """Measure what the machine gives: adding up the file as 64-bit words, copying it out of the page cache."""
    buffer = bytearray(8 * 2**20)

    def copy() -> None:
        with bench.raw.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    table, size = bench.table, bench.gigabytes
    table.add("sum of a memory map", size / bench.best(lambda: np.memmap(bench.raw, "<u8", "r").sum()), "GB/s")
    table.add("copy out of the page cache", size / bench.best(copy), "GB/s")


def operations(scan: Any) -> dict[str, Callable[[], Any]]:
    """Name the operations that are timed; each call builds and computes one."""
    import stemstore

    rings = {f"ring{k}": stemstore.annulus(8 * k, 8 * k + 8) for k in range(16)}
    wide = {f"wide{k}": stemstore.annulus(4 * k, 6 * k + 40) for k in range(16)}
    ring = stemstore.annulus(40, 100)
    return {
        "annulus": lambda: stemstore.virtual_image(scan, ring).compute(),
        "centre of mass": lambda: stemstore.center_of_mass(scan).compute(),
        "16 rings": lambda: stemstore.virtual_image(scan, rings).compute(),
        "16 overlapping masks": lambda: stemstore.virtual_image(scan, wide).compute(),
        "mean pattern": lambda: stemstore.mean_pattern(scan).compute(),
        "together": lambda: stemstore.compute(
            stemstore.virtual_image(scan, ring), stemstore.center_of_mass(scan), stemstore.mean_pattern(scan)
        ),
    }


def raw_file(bench: Bench, interpreter: str) -> None:
    """Operations on the uncompressed file, against LiberTEM and against NumPy."""
    import stemstore

    goals = {"annulus": 12, "centre of mass": 12, "16 rings": 4, "16 overlapping masks": 4}
    rates = {}
    for name, run in operations(stemstore.open(bench.raw)).items():
        rates[name] = bench.rate(run, 1)
        if name != "together":
            two = bench.rate(run, 2)
            note = f"two threads {two:.1f} GB/s"
            bench.table.add(f"raw file, {name}, 1 thread", rates[name], "GB/s", goal=goals.get(name), note=note)
    _together(bench, "raw file", rates, None)
    mask = (radius() >= 40) & (radius() < 100)
    for name, baseline in (
        ("annulus", numpy_image(bench.raw, (SIDE, SIDE), mask)),
        ("centre of mass", numpy_centre(bench.raw, (SIDE, SIDE))),
    ):
        ratio = rates[name] * bench.best(baseline, 1) / bench.gigabytes
        bench.table.add(f"raw file, {name}, against NumPy", ratio, "x", note="memory map, 8 frames at a time")
    masks = [mask] + [(radius() >= 8 * k) & (radius() < 8 * k + 8) for k in range(1, 16)]
    np.save(bench.folder / "masks.npy", np.stack(masks))
    job = {"path": str(bench.raw), "scan": bench.scan, "detector": (SIDE, SIDE)}
    job |= {"rounds": bench.rounds, "clock": bench.clock}
    theirs = libertem(interpreter, {**job, "masks": str(bench.folder / "masks.npy")})
    if isinstance(theirs, str):
        print(f"LiberTEM was not compared: {theirs}")
        return
    for name, own in (("annulus", "annulus"), ("16 masks", "16 rings"), ("centre of mass", "centre of mass")):
        speed = bench.gigabytes / theirs[name]
        note = f"LiberTEM {speed:.2f} GB/s, both on one core"
        bench.table.add(f"raw file, {own}, against LiberTEM", rates[own] / speed, "x", goal=3, note=note)


def _together(bench: Bench, where: str, rates: dict[str, float], goal: float | None) -> None:
    slowest = min(rates[name] for name in ("annulus", "centre of mass", "mean pattern"))
    note = "image, centre of mass and mean pattern by stemstore.compute, 1 thread"
    bench.table.add(f"{where}, three results at once", slowest / rates["together"], "x slowest", goal=goal, note=note)


def stored(bench: Bench) -> None:
    """Operations on the store, against dask and xarray over its Zarr arrays."""
    import stemstore

    scan = stemstore.open(bench.store)
    rates = {}
    for name, run in operations(scan).items():
        rates[name] = bench.rate(run, 1)
        if name == "annulus":
            two = bench.rate(run, 2)
            bench.table.add("store, annulus, 1 thread", rates[name], "GB/s", goal=4.8)
            bench.table.add("store, annulus, 2 threads", two, "GB/s", goal=9, note=f"{two / rates[name]:.2f} x one")
        elif name != "together":
            bench.table.add(f"store, {name}, 1 thread", rates[name], "GB/s")
    _together(bench, "store", rates, 1.4)
    mask = scan.intensity[0, 0].copy(data=(radius() >= 40) & (radius() < 100)).drop_vars(("y", "x"), errors="ignore")
    plain = bench.rate(zarr_image(bench.store, {"y": 8, "x": 8}, mask), 1)
    against = f"{plain:.2f} GB/s with chunks of 8 x 8 frames"
    bench.table.add("store, annulus, against dask over Zarr", rates["annulus"] / plain, "x", goal=2.2, note=against)
    single_frames(bench, scan, mask, rates["annulus"])


def single_frames(bench: Bench, scan: Any, mask: Any, ours: float) -> None:
    """Measure the usual mistake: Zarr chunks of one frame, on a few rows of the scan."""
    import dask

    rows, target = min(8, bench.scan[0]), bench.folder / "single.zarr"
    part = scan[["intensity"]].isel(y=slice(rows)).load().chunk({"y": 1, "x": 1})
    for variable in part.variables.values():
        variable.encoding.clear()
    part.to_zarr(target, zarr_format=3, consolidated=False)
    amount = rows * bench.scan[1] * FRAME / 1e9
    with dask.config.set(scheduler="synchronous"):
        rate = amount / bench.best(zarr_image(target, {}, mask, rows), 1)
    note = f"{rate:.3f} GB/s, {rows} rows of the scan"
    bench.table.add("store, annulus, against one-frame chunks", ours / rate, "x", goal=30, note=note)
    shutil.rmtree(target)


def cluster(bench: Bench) -> None:
    """Two processes of one thread each, as dask starts them and with the memory settings of the documentation."""
    import dask

    import stemstore

    try:
        from distributed import Client, LocalCluster
    except ImportError:
        print("no cluster was measured: dask.distributed is not installed")
        return
    scan = stemstore.open(bench.store)
    images = [stemstore.virtual_image(scan, stemstore.annulus(5 * k, 5 * k + 60)) for k in range(8)]
    one, two = bench.rate(images[0].compute, 1, "wall"), bench.rate(images[0].compute, 2)
    several = bench.rate(lambda: dask.compute(*images), 2) * len(images)
    plain = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    starts = {
        "as spawned": ((None, None), lambda: LocalCluster(**plain)),
        "memory settings": ((1.5, 0.8), lambda: stemstore.local_cluster(2, dashboard_address=None)),
    }
    for name, (goals, start) in starts.items():
        with start() as local, Client(local):
            single = bench.gigabytes / best(images[0].compute, bench.rounds)
            many = bench.gigabytes * len(images) / best(lambda: dask.compute(*images), bench.rounds)
        label = f"cluster, {name}"
        note = f"{single:.1f} GB/s, {single / two:.2f} x two threads"
        bench.table.add(f"{label}, one image", single / one, "x 1 thread", goal=goals[0], note=note)
        bench.table.add(
            f"{label}, 8 images", many / several, "x 2 threads", goal=goals[1], note=f"{many:.1f} GB/s in all"
        )


def fresh(bench: Bench) -> None:
    """Memory and first result in processes of their own, two threads, compiled loops from numba's cache."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once(path: Path, part: str) -> dict[str, float]:
        command = [sys.executable, "-c", FRESH, str(path), part]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return json.loads(done.stdout)

    for name, path in (("store", bench.store), ("raw file", bench.raw)):
        whole = once(path, "all")
        bench.table.add(f"{name}, peak memory, {bench.gigabytes:.0f} GB", whole["peak"], "MiB", goal=1024)
        runs = sorted((once(path, "64 x 64") for _ in range(bench.rounds)), key=lambda run: run["all"])
        first = runs[0]
        note = (
            f"importing xarray and dask {first['libraries']:.2f}, opening {first['open']:.2f}, image "
            f"{first['image']:.2f}; the next image {first['again']:.3f}"
        )
        bench.table.add(f"{name}, first image of 64 x 64 frames", first["all"], "s", goal=0.5, note=note)


def main() -> int:
    """Run all parts; give 1 when a goal was missed and that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.1)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--libertem", default=sys.executable, help="interpreter that LiberTEM is installed for")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    given = parser.parse_args()
    side = max(64, round(math.sqrt(given.gigabytes * 1e9 / FRAME) / 16) * 16)
    need = 2.2 * side * side * FRAME
    with tempfile.TemporaryDirectory(prefix="stemstore-operations-", dir=given.folder) as temporary:
        free = shutil.disk_usage(temporary).free
        if free < need:
            print(f"{temporary} has {free / 1e9:.1f} GB free, {need / 1e9:.1f} are needed", file=sys.stderr)
            return 2
        start = time.perf_counter()
        bench = Bench(Path(temporary), (side, side), given.rounds, given.clock)
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        make(bench)
        for part in (ceilings, partial(raw_file, interpreter=given.libertem), stored, cluster, fresh):
            part(bench)
        print(f"{time.perf_counter() - start:.0f} s, load {os.getloadavg()[0]:.1f}")
        for line in bench.table.missed:
            print(f"missed: {line}")
    return 1 if given.check and bench.table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
