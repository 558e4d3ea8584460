"""Speed and memory of the main job on a synthetic scan, ratios against named baselines in the same run.

    python -m benchmarks.pipeline                    1 GB of raw sector files in a temporary folder
    python -m benchmarks.pipeline --gigabytes 10     the same for 10 GB: memory should not change
    python -m benchmarks.pipeline --folder /fast     work there, and keep the raw files for the next run

Reads come from the page cache (the files were just written). Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

FRAME = 576 * 576 * 2
STEMPY = 253  # frames/s per core of stempy 3.6.0 on frames of this kind, published figure; not run here
RECORD = np.dtype([("header", "u1", 16), ("data", "<u2", (144, 576))])
ONE_CONVERSION = """
import json, sys
from pathlib import Path
import stemstore
job = json.loads(sys.argv[1])
report = stemstore.convert(job["source"], job["destination"], overwrite=True, flyback_columns=1, **job["options"])
status = Path("/proc/self/status").read_text()  # getrusage would report the parent's peak as well
rss = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"seconds": report.seconds, "rss": rss, "raw": report.raw_bytes, "stored": report.stored_bytes,
                  "planned": report.memory / 2**20}))
"""


def best(call: Callable[[], Any], rounds: int = 5) -> float:
    """Shortest time of some calls after one that is not counted."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def make(folder: Path, gigabytes: float) -> Path:
    """Write the raw scan unless an earlier run left it."""
    from stemstore.testing import make_scan

    side = max(8, round(math.sqrt(gigabytes * 1e9 / FRAME)))
    raw = folder / f"raw_{side}"
    if not (raw / "truth.json").is_file():
        start = time.perf_counter()
        make_scan(raw, scan_shape=(side, side), dose=120)
        print(f"generated {side} x {side + 1} frames in {time.perf_counter() - start:.0f} s")
    return raw


def assembling(raw: Path) -> None:
    """Frames from four sector files, against a structured memory map copied record by record."""
    from stemstore.sources.registry import open_source

    source = open_source(str(raw), flyback_columns=1)
    n, batch = min(1024, math.prod(source.scan_shape)), 16
    out = np.empty((batch, 576, 576), np.uint16)

    def ours() -> None:
        for start in range(0, n - batch + 1, batch):
            source.read_frames(start, start + batch, out=out)

    files = [sorted(raw.glob(f"*module{m}_*.data")) for m in range(4)]

    def naive() -> None:
        maps = [[np.memmap(path, RECORD, "r") for path in paths] for paths in files]
        for i in range(n):
            for m in range(4):
                pieces = maps[m]
                out[i % batch, 144 * m : 144 * m + 144] = pieces[i % len(pieces)][i // len(pieces)]["data"]

    amount = (n // batch) * batch * FRAME / 1e9
    mine, theirs = amount / best(ours), n * FRAME / 1e9 / best(naive)
    row("assembling frames, 1 thread", f"{mine:.1f} GB/s", f"{mine / theirs:.2f} x a memory map ({theirs:.1f} GB/s)")


def counting(raw: Path) -> None:
    """Read and count frames from the sector files, thresholds given, on one and two threads."""
    from concurrent.futures import ThreadPoolExecutor

    from stemstore.conversion.counting.batches import read_runs
    from stemstore.conversion.counting.count import Counter
    from stemstore.conversion.counting.thresholds import Thresholds
    from stemstore.sources.registry import open_source

    source = open_source(str(raw), flyback_columns=1)
    counter = Counter(source, Thresholds(29.5, 397.0))
    n = min(4096, math.prod(source.scan_shape))
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as executor:
            seconds = best(lambda run=executor: list(read_runs(counter.read_events, [(0, n)], counter.batch, run)))
        rate = n / seconds
        against = f"{rate / threads / STEMPY:.0f} x stempy 3.6.0 per core (published)"
        row(f"read and count, {threads} thread(s)", f"{rate:.0f} frames/s, {rate * FRAME / 1e9:.1f} GB/s", against)


def converting(raw: Path, folder: Path) -> None:
    """Conversions in processes of their own: speed and peak memory."""
    for count, digests in ((True, "none"), (True, "crc32c"), (False, "crc32c")):
        for workers in (1, 2):
            options = {"count": count, "workers": workers, "digests": digests}
            name = "counted" if count else "dense"
            job = {"source": str(raw), "destination": str(folder / f"{name}.zarr"), "options": options}
            runs = [_convert(job) for _ in range(3)]
            seconds = statistics.median(run["seconds"] for run in runs)
            frames, rate = runs[0]["raw"] / FRAME / seconds, runs[0]["raw"] / 1e9 / seconds
            rss, planned = max(run["rss"] for run in runs), runs[0]["planned"]
            text = f"{frames:.0f} frames/s, {rate:.2f} GB/s, peak RSS {rss:.0f} MiB (planned work {planned:.0f})"
            against = f"{frames / STEMPY / workers:.0f} x stempy 3.6.0 per core (published)" if count else ""
            small = f"{runs[0]['raw'] / runs[0]['stored']:.1f} x smaller"
            label = f"convert, {name}{', no digests' if digests == 'none' else ''}, {workers} thread(s)"
            row(label, text, against or small)


def _convert(job: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-c", ONE_CONVERSION, json.dumps(job)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def opening(folder: Path) -> None:
    """Time until a store is an xarray dataset, libraries loaded."""
    import stemstore

    for name in ("dense", "counted"):
        seconds = best(lambda name=name: stemstore.open(folder / f"{name}.zarr"))
        row(f"open, {name}", f"{seconds * 1e3:.1f} ms", "goal < 100 ms")


def imaging(folder: Path) -> None:
    """One annular image: ours against dask and xarray on plain Zarr."""
    import dask
    import xarray as xr

    import stemstore

    dense, counted = (stemstore.open(folder / f"{name}.zarr", flyback=True) for name in ("dense", "counted"))
    ring = stemstore.annulus(60, 240)
    mask = xr.DataArray(ring.weights(dense.intensity), dims=("ky", "kx"))
    amount = dense.intensity.nbytes / 1e9
    for threads in (1, 2):
        with dask.config.set(scheduler="threads", num_workers=threads):
            mine = amount / best(lambda: stemstore.virtual_image(dense, ring).compute(), 3)
            with xr.open_zarr(folder / "dense.zarr", chunks={"y": 2, "x": 2}) as plain:
                theirs = amount / best(lambda plain=plain: (plain.intensity * mask).sum(("ky", "kx")).compute(), 1)
            events = best(lambda: stemstore.virtual_image(counted, ring).compute(), 3)
        row(f"annular image, dense, {threads} thread(s)", f"{mine:.2f} GB/s", f"{mine / theirs:.1f} x dask over zarr")
        row(
            f"annular image, counted, {threads} thread(s)",
            f"{events * 1e3:.1f} ms",
            f"{amount / events:.0f} GB/s dense",
        )


def row(name: str, measured: str, against: str) -> None:
    """Print one line of the table."""
    print(f"{name:40s} {measured:58s} {against}", flush=True)


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="stemstore-benchmark-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        raw = make(folder, arguments.gigabytes)
        assembling(raw)
        counting(raw)
        converting(raw, folder)
        opening(folder)
        imaging(folder)


if __name__ == "__main__":
    main()
