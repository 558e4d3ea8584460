"""Bragg disks: frames per second, and errors against known positions, beside other programs in the same run.

    python -m benchmarks.bragg                                         stemstore alone
    python -m benchmarks.bragg --py4dstem /venv/bin/python             compare with py4DSTEM, installed for that Python
    python -m benchmarks.bragg --blobfinder /other/bin/python          compare with LiberTEM-blobfinder
    python -m benchmarks.bragg --clock processor                       processor time, for a busy machine

Frames are simulated: 256 x 256 pixels, 45 disks of radius 8 on a lattice, 10 % of the electrons evenly spread; uint16.
Recall counts true disks of 30 electrons and more, precision all found ones, both within half a radius. The threshold of
py4DSTEM, which has none of its own, and the width of its kernel are those that serve it best on the first frames.
Blobfinder refines positions that it is told, rounded to pixels. On a machine with other work to do only ratios mean
anything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported: one thread means one

import numpy as np

from benchmarks.bragg_pattern import Pattern, Score
from benchmarks.bragg_peers import CLOCKS, peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore.kernels.disks.plan import DiskPlan

SHAPE, RADIUS, SPACING = (256, 256), 8.0, 33.5
LARGE = ((1792, 1920), 40.0, 170.0, 2e6)  # frame, radius, spacing, electrons: a large camera
DOSES = (40_000, 4_000)
WINDOWS = (2.5, 4.0)  # radii; outer radius of the sigmoid kernel, ours by default and that of py4DSTEM's tutorials
MODES = ("none", "poly", "newton", "likelihood")
GOALS = {"frames/s": 1800.0, "large frames/s": 15.0, "of poly": 8.0, "of multicorr": 50.0}
HEAD = f"{'':34s}{'frames/s':>9s}{'recall':>8s}{'precision':>10s}{'RMS':>7s}{'strong':>8s}{'disks':>7s}"

missed: list[str] = []


def line(name: str, rate: float, score: Score | None = None) -> None:
    """Print one method."""
    text = "" if score is None else f"{score.recall:8.4f}{score.precision:10.4f}{score.rms:7.3f}{score.strong:8.3f}"
    print(f"{name:34s}{rate:9.1f}{text}{'' if score is None else f'{score.per_frame:7.1f}'}", flush=True)


def goal(name: str, value: float, least: float) -> None:
    """Say whether a goal was met."""
    met = value >= least
    print(f"    {name}: {value:.1f}, goal {least:g} {'met' if met else 'MISSED'}", flush=True)
    if not met:
        missed.append(name)


def timed(call: Callable[[], Any], clock: str, rounds: int = 3) -> tuple[float, Any]:
    """Shortest time of some rounds, and the last result."""
    times, result = [], None
    for _ in range(rounds):
        start = CLOCKS[clock]()
        result = call()
        times.append(CLOCKS[clock]() - start)
    return min(times), result


def search(frames: Any, plan: DiskPlan) -> list[np.ndarray]:
    """Find the disks of frames on this thread, one after the other."""
    from stemstore.kernels.disks.search import COLUMNS, frame_disks

    out = np.empty((plan.parameters.max_peaks, len(COLUMNS)), np.float32)
    return [out[: frame_disks(frame, plan, out)].copy() for frame in frames]


def accuracy(n: int, clock: str) -> dict[str, tuple[float, Score]]:
    """All modes at both doses, and with structured disks; the rates and scores of the first dose."""
    from stemstore.kernels.disks.plan import plan_disks

    kept = {}
    for dose, structure in ((DOSES[0], 0.0), (DOSES[1], 0.0), (DOSES[0], 0.5)):
        pattern = Pattern.lattice(SHAPE, RADIUS, SPACING, structure=structure)
        frames = pattern.frames(dose, n)
        what = " disks with inner structure" if structure else ""
        print(
            f"\n{dose} electrons a frame{what}; bounds {pattern.limit(dose, 30):.3f}, {pattern.limit(dose, 300):.3f} px"
        )
        print(HEAD)
        for mode in MODES:
            plan = plan_disks(SHAPE, radius=RADIUS, subpixel=mode)
            search(frames[:3], plan)
            seconds, lists = timed(lambda plan=plan, frames=frames: search(frames, plan), clock, 1)
            score = Score.of(lists, pattern, dose)
            line(f"stemstore {mode}", n / seconds, score)
            if dose == DOSES[0] and not structure:
                kept[mode] = (n / seconds, score)
        if not structure:
            best = Score.of(lists, pattern, dose)
            print(f"    share of the bound: {pattern.limit(dose, 30) / best.rms:.2f}", end="")
            print(f", {pattern.limit(dose, 300) / best.strong:.2f} of disks of 300 electrons and more")
    return kept


def speed(folder: Path, n: int, clock: str) -> None:
    """Time the bare kernel and `find_disks` on a store, on one and two threads; counted frames; a large camera."""
    from stemstore.kernels.disks.plan import plan_disks
    from stemstore.ops.disks.turns import short_turns

    frames = Pattern.lattice(SHAPE, RADIUS, SPACING).frames(DOSES[0], n)
    plan = plan_disks(SHAPE, radius=RADIUS)
    search(frames[:3], plan)
    print(f"\n{'speed':34s}{'frames/s':>9s}")
    seconds, _ = timed(lambda: search(frames, plan), clock)
    line("kernel, one thread", n / seconds)
    goal("frames/s", n / seconds, GOALS["frames/s"])
    with ThreadPoolExecutor(2) as pool, short_turns():
        seconds, _ = timed(lambda: list(pool.map(lambda part: search(part, plan), (frames[::2], frames[1::2]))), "wall")
    line("kernel, two threads (wall time)", n / seconds)
    block = coded(frames)
    search_counted(block, plan)
    line("kernel, counted frames", n / timed(lambda: search_counted(block, plan), clock)[0])
    stored(folder, frames, clock)
    shape, radius, spacing, dose = LARGE
    large = Pattern.lattice(shape, radius, spacing).frames(dose, 6)
    plan = plan_disks(shape, radius=radius)
    search(large[:1], plan)
    seconds, _ = timed(lambda: search(large, plan), clock)
    line(f"kernel, {shape[0]} x {shape[1]}, radius {radius:g}", len(large) / seconds)
    goal("large frames/s", len(large) / seconds, GOALS["large frames/s"])


def coded(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the electrons of frames as a block of events."""
    from stemstore.kernels import events

    flat = [np.repeat(np.arange(frame.size, dtype=np.uint32), frame.ravel()) for frame in frames]
    bounds = np.concatenate(([0], np.cumsum([len(electrons) for electrons in flat]))).astype(np.int64)
    gap, slots = events.encode(bounds, np.concatenate(flat))
    return gap, np.concatenate(([0], np.cumsum(slots))).astype(np.int64)


def search_counted(block: tuple[np.ndarray, np.ndarray], plan: DiskPlan) -> int:
    """Find the disks of counted frames on this thread."""
    from stemstore.kernels.disks.events import electron_frames
    from stemstore.kernels.disks.search import COLUMNS, frame_disks

    out, total = np.empty((plan.parameters.max_peaks, len(COLUMNS)), np.float32), 0
    for frame in electron_frames(*block, np.arange(len(block[1]) - 1), plan.frame_shape):
        total += frame_disks(frame, plan, out)
    return total


def stored(folder: Path, frames: np.ndarray, clock: str) -> None:
    """Run `find_disks` on a store of the frames, by one and by two threads of dask."""
    import dask

    import stemstore

    rows = len(frames) // 16
    raw = folder / "scan.raw"
    frames[: rows * 16].astype("<u2").tofile(raw)
    raw.with_name("scan.raw.json").write_text(json.dumps({"shape": [rows, 16, *SHAPE], "dtype": "<u2"}))
    stemstore.convert(raw, folder / "scan.zarr", overwrite=True)
    scan = stemstore.open(folder / "scan.zarr")
    for threads, name, by in ((1, "find_disks on a store, one thread", clock), (2, "find_disks, two threads", "wall")):
        how = {"scheduler": "synchronous"} if threads == 1 else {"scheduler": "threads", "num_workers": threads}
        with dask.config.set(**how):
            seconds, _ = timed(lambda: stemstore.find_disks(scan, radius=RADIUS), by)
        line(name, rows * 16 / seconds)


def peers(folder: Path, options: argparse.Namespace, own: dict[str, tuple[float, Score]]) -> None:
    """Let the other programs work on the same frames; compare with our rates and errors of this run."""
    for dose in DOSES:
        pattern = Pattern.lattice(SHAPE, RADIUS, SPACING)
        path = folder / f"frames_{dose}.npy"
        np.save(path, pattern.frames(dose, options.frames))
        print(f"\nother programs, {dose} electrons a frame\n{HEAD}")
        job = {"frames": str(path), "radius": RADIUS, "clock": options.clock}
        if options.py4dstem:
            rates = py4dstem(options.py4dstem, job, pattern, dose, options.frames)
            if dose == DOSES[0] and len(rates) == 2:
                rate, score = own["likelihood"]
                goal("times as fast as py4DSTEM poly", rate / rates["poly"][0], GOALS["of poly"])
                goal("times as fast as py4DSTEM multicorr", rate / rates["multicorr"][0], GOALS["of multicorr"])
                goal("error of py4DSTEM multicorr over ours", rates["multicorr"][1].rms / score.rms, 1.0)
        if options.blobfinder:
            job |= {"method": "blobfinder", "positions": pattern.positions.tolist(), "n": options.frames}
            found = peer(options.blobfinder, job)
            if isinstance(found, str):
                print(f"libertem-blobfinder: {found}")
            else:
                score = Score.of(found[1], pattern, dose)
                line("libertem-blobfinder (told where)", options.frames / found[0], score)


def py4dstem(
    interpreter: str, job: dict[str, Any], pattern: Pattern, dose: float, n: int
) -> dict[str, tuple[float, Score]]:
    """Choose threshold and window that serve it best, then run both of its methods."""
    best: tuple[float, dict[str, float]] = (np.inf, {})
    for window in WINDOWS:
        loose = peer(interpreter, {**job, "method": "multicorr", "window": window, "threshold": 0.0, "n": 6})
        if isinstance(loose, str):
            print(f"py4DSTEM: {loose}")
            return {}
        levels = np.quantile(np.concatenate(loose[1])[:, 2], np.linspace(0, 0.98, 99))
        scores = [Score.of([rows[rows[:, 2] >= level] for rows in loose[1]], pattern, dose) for level in levels]
        worse = np.array([min(score.recall, score.precision) for score in scores])
        chosen = int(np.median(np.flatnonzero(worse == worse.max())))
        if scores[chosen].rms < best[0]:
            best = scores[chosen].rms, {"threshold": float(levels[chosen]), "window": window}
    rates = {}
    for method, some in (("poly", n), ("multicorr", max(20, n // 4))):
        found = peer(interpreter, {**job, **best[1], "method": method, "n": some})
        if isinstance(found, str):
            print(f"py4DSTEM {method}: {found}")
            continue
        rates[method] = (some / found[0], Score.of(found[1], pattern, dose))
        line(f"py4DSTEM {method}", *rates[method])
    return rates


def main() -> int:
    """Run everything; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--py4dstem", metavar="PYTHON", help="interpreter of an environment with py4DSTEM 0.14.18")
    parser.add_argument("--blobfinder", metavar="PYTHON", help="interpreter of one with libertem-blobfinder")
    parser.add_argument("--frames", type=int, default=320, help="frames of a measurement (320)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="what one thread is timed by")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        own = accuracy(options.frames, options.clock)
        speed(Path(name), options.frames, options.clock)
        peers(Path(name), options, own)
    print("\n" + ("all goals met" if not missed else f"missed: {', '.join(missed)}"))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
