"""What digests of raw files cost a conversion: processor and wall time with CRC-32C and SHA-256, against none.

    python -m benchmarks.digests        a scan of 1 GB, counted and as frames, in a temporary folder (3 GB)

The file stays in memory, so that the processor is what conversion and digests compete for. Rounds take turns, the first
one compiles and is left out, and medians of the others are shown.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import stemstore

ROUNDS = 5
SHAPE = (24, 64, 576, 576)  # uint16: 1.02 GB
OCCUPANCY, PEDESTAL, NOISE, ELECTRON = 0.004, 20.5, 1.8, 60  # as of a counting camera


def write_frames(path: Path) -> None:
    """Write frames of one row after another, each the first one turned round."""
    rng = np.random.default_rng(0)
    electrons = rng.random(SHAPE[1:]) < OCCUPANCY
    row = np.clip(np.rint(rng.normal(PEDESTAL, NOISE, SHAPE[1:]) + ELECTRON * electrons), 0, None).astype(np.uint16)
    frames = np.lib.format.open_memmap(path, "w+", np.uint16, SHAPE)
    for number in range(SHAPE[0]):
        frames[number] = np.roll(row, 37 * number, axis=1)


def measure(raw: Path, store: Path, *, count: bool) -> dict[str, tuple[float, float]]:
    """Convert with each kind of digest in turn; medians of processor and wall time in seconds."""
    kinds = ("none", "crc32c", "sha256")
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS + 1):
        for kind in kinds:
            shutil.rmtree(store, ignore_errors=True)
            wall, processor = time.perf_counter(), time.process_time()
            stemstore.convert(raw, store, count=count, digests=kind)
            times[kind].append((time.process_time() - processor, time.perf_counter() - wall))
    return {
        kind: (statistics.median(one[0] for one in found[1:]), statistics.median(one[1] for one in found[1:]))
        for kind, found in times.items()
    }


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "scan.npy"
        write_frames(raw)
        print(f"{'store':<9}{'digests':<9}{'processor':>10}{'ratio':>7}{'wall':>8}{'ratio':>7}")
        for name, count in (("counted", True), ("dense", False)):
            found = measure(raw, Path(folder) / "scan.zarr", count=count)
            none = found["none"]
            for kind, (processor, wall) in found.items():
                ratios = (processor / none[0], wall / none[1])
                print(f"{name:<9}{kind:<9}{processor:8.2f} s{ratios[0]:7.2f}{wall:6.2f} s{ratios[1]:7.2f}")


if __name__ == "__main__":
    main()
