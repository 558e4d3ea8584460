"""Speed of readers: opening, sequential reads, packed pixels and events, against plain means in the same run.

    python -m benchmarks.readers                      a quarter of a GB per format in a temporary folder
    python -m benchmarks.readers --gigabytes 1
    python -m benchmarks.readers --clock processor    processor time, for a busy machine

All reads come from the page cache. Times are the best of some rounds; what is compared ran right after one another.
Rates are of decoded pixels, on one thread where nothing else is said. Files of 100 GB are holes with a few headers.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

import numpy as np

from benchmarks import reader_files
from benchmarks.operations import Table
from benchmarks.peers import best
from benchmarks.reader_files import FORMS, MEBI, SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 8 * MEBI
BIG = 100e9
HITS = 4_000_000
"""Enough to leave the caches, few enough for a second or two."""


@dataclass
class Bench:
    """Where to work, how much, and how to measure."""

    folder: Path
    gigabytes: float
    rounds: int
    clock: str
    table: Table = field(default_factory=Table)

    def rate(self, call: Callable[[], Any], amount: float, clock: str | None = None) -> float:
        """Amount per second, in thousand millions."""
        return amount / best(call, self.rounds, clock or self.clock) / 1e9

    def place(self, name: str) -> Path:
        """Make a folder of its own."""
        folder = self.folder / name
        folder.mkdir()
        return folder


def in_batches(source: Any) -> Callable[[], None]:
    """Read all frames of a source, some MiB at a time, into one buffer."""
    n = math.prod(source.scan_shape)
    step = max(1, BATCH // (math.prod(source.frame_shape) * source.dtype.itemsize))
    out = np.empty((min(step, n), *source.frame_shape), source.dtype)

    def read() -> None:
        for start in range(0, n, step):
            stop = min(start + step, n)
            source.read_frames(start, stop, out=out[: stop - start])

    return read


def on_threads(read: Callable[[int, int, Any], Any], like: np.ndarray, n: int, threads: int) -> Callable[[], None]:
    """Read n frames in pieces, each thread into a buffer of its own."""
    buffers = [np.empty_like(like) for _ in range(threads)]

    def run() -> None:
        pieces = [(start, min(start + len(like), n)) for start in range(0, n, len(like))]

        def some(which: int) -> None:
            for start, stop in pieces[which::threads]:
                read(start, stop, buffers[which][: stop - start])

        with ThreadPoolExecutor(threads) as executor:
            list(executor.map(some, range(threads)))

    return run


def read_bytes() -> int | None:
    """Bytes that this process has asked the system for; None where it does not count them."""
    path = Path("/proc/self/io")
    return int(path.read_text().split()[1]) if path.exists() else None


def opening(bench: Bench) -> None:
    """Time and bytes until a file of 100 GB is an xarray dataset, libraries loaded."""
    import stemstore

    for name, write, record, options in (
        *((form.reader, form.write, form.record.itemsize, form.stated) for form in FORMS),
        ("nexus", reader_files.contiguous, 2 * SIDE * SIDE, lambda _: {}),
    ):
        side = math.isqrt(int(BIG / record))
        path = write(bench.place(f"big_{name}"), (side, side), sparse=True)
        stated = options((side, side))

        def once(path: Path = path, name: str = name, stated: dict[str, Any] = stated) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of scan shapes that are not known
                stemstore.open(path, reader=name, **stated)

        seconds, before = best(once, bench.rounds, bench.clock), read_bytes()
        once()
        after = read_bytes()
        note = "" if before is None or after is None else f"{(after - before) / MEBI:.3f} MiB read, goal < 1"
        bench.table.add(f"open, {name}, {path.stat().st_size / 1e9:.0f} GB", 1e3 * seconds, "ms", goal=50, note=note)
        path.unlink()


def sequential(bench: Bench) -> None:
    """Read uncompressed frames one batch after the other, against a new memory map copied in the same batches."""
    from stemstore.sources.registry import open_source

    for form in FORMS:
        scan = (16, max(1, round(bench.gigabytes * 1e9 / form.size / 16)))
        path = form.write(bench.place(f"dense_{form.reader}"), scan)
        source = open_source(str(path), reader=form.reader, **form.stated(scan))
        n, amount, step = scan[0] * scan[1], scan[0] * scan[1] * form.size, max(1, BATCH // form.size)
        out = np.empty((step, *source.frame_shape), source.dtype)

        def plain(form: Any = form, path: Path = path, n: int = n, step: int = step, out: Any = out) -> None:
            mapped = form.mapped(path, n)
            for start in range(0, n, step):
                form.place(out[: min(step, n - start)], mapped[start : start + step])

        ours, theirs = bench.rate(in_batches(source), amount), bench.rate(plain, amount)
        note = f"{ours:.1f} against {theirs:.1f} GB/s, both copied"
        bench.table.add(f"read, {form.reader}, against a memory map", ours / theirs, "x", goal=0.8, note=note)
        path.unlink()


def packed(bench: Bench) -> None:
    """Pixels of less than a byte or two, unpacked while they are read."""
    from stemstore.sources.registry import open_source

    for depth in (1, 6, 12, 24):
        size = SIDE * SIDE * {1: 1, 6: 1, 12: 2, 24: 4}[depth]
        n = max(1, round(bench.gigabytes * 1e9 / size))
        path = reader_files.raw_merlin(bench.folder / f"raw_{depth}.mib", depth, n)
        rate = bench.rate(in_batches(open_source(str(path), reader="merlin_mib")), n * size)
        bench.table.add(f"read, Merlin RAW of {depth} bit", rate, "GB/s", goal=1)
        path.unlink()
    n = max(2, round(bench.gigabytes * 1e9 / (1860 * 2048 * 2)))
    path = reader_files.k2(bench.place("k2"), n)
    source = open_source(str(path), reader="k2is")
    rate = bench.rate(in_batches(source), math.prod(source.scan_shape) * 1860 * 2048 * 2)
    bench.table.add("read, K2 IS of 12 bit", rate, "GB/s", goal=1)


def bitshuffle(bench: Bench) -> None:
    """Frames of Dectris detectors, against HDF5 with its plug-in on the same chunks."""
    try:
        import h5py
        import hdf5plugin
    except ImportError:
        print("no Dectris files were read: hdf5plugin, which packs them, is not installed")
        return
    from stemstore.sources.registry import open_source

    del hdf5plugin
    for side, dtype in ((192, "u1"), (192, "u2"), (192, "u4"), (96, "u1")):
        n = max(64, round(bench.gigabytes * 1e9 / side**2 / np.dtype(dtype).itemsize))
        frames = np.concatenate([reader_files.counts((min(n, 500), side, side), dtype)] * -(-n // 500))[:n]
        path = reader_files.dectris(bench.place(f"dectris_{side}_{dtype}"), frames)
        source: Any = open_source(str(path), reader="dectris")
        like = np.empty((max(1, BATCH // frames[0].nbytes), side, side), dtype)

        def theirs(path: Path = path, like: Any = like, n: int = n) -> None:
            with h5py.File(path) as file:
                stored = file["entry/data/data"]
                for start in range(0, n, len(like)):
                    stop = min(start + len(like), n)
                    stored.read_direct(like[: stop - start], source_sel=np.s_[start:stop])

        plain, one = bench.rate(theirs, frames.nbytes), bench.rate(in_batches(source), frames.nbytes)
        name = f"Dectris, {side} x {side} {dtype}"
        note = f"{one:.2f} against {plain:.2f} GB/s of HDF5 and hdf5plugin"
        bench.table.add(f"read, {name}", one / plain, "x", goal=0.8, note=note)
        alone, two = (bench.rate(on_threads(source.read_frames, like, n, k), frames.nbytes, "wall") for k in (1, 2))
        bench.table.add(f"read, {name}, two threads", two / alone, "x one", note=f"{two:.2f} GB/s, wall time")
        path.unlink()


def plain_hits(words: np.ndarray) -> tuple[np.ndarray, ...]:
    """Decode the hits of a stream by NumPy: columns, rows, times over threshold, times."""
    words = words[words >> np.uint64(60) == 0xB].astype(np.int64)
    address = words >> 44 & 0xFFFF
    column, row = (address & 0xFE00) >> 8 | (address & 7) >> 2, (address & 0x01F8) >> 1 | address & 3
    clock = (words & 0xFFFF) << 14 | words >> 30 & 0x3FFF
    return column, row, words >> 20 & 0x3FF, (clock << 4) - (words >> 16 & 0xF)


def plain_events(words: np.ndarray, scan: tuple[int, int], dwell: int) -> np.ndarray:
    """Order the hits of a stream by position and pixel by NumPy: one number for each."""
    edges = words[words >> np.uint64(56) == 0x6F].astype(np.int64) >> 12 & 0xFFFFFFFF
    column, row, _, time = plain_hits(words)
    line = np.searchsorted(edges, time >> 4, side="right") - 1
    at = ((time >> 4) - edges[line]) // dwell
    inside = (line >= 0) & (at < scan[1])
    return np.sort((line[inside] * scan[1] + at[inside]) << 16 | row[inside] << 8 | column[inside])


def events(bench: Bench) -> None:
    """Hits of a Timepix3 stream: decoded, laid over a scan, joined to electrons."""
    from stemstore.kernels import tpx3
    from stemstore.sources.registry import open_source

    scan, dwell = (256, 256), 64
    path = reader_files.tpx3(bench.folder / "scan.tpx3", scan, HITS, dwell)
    words = np.fromfile(path, "<u8")
    chunks, hits = np.empty((len(words) + 1, 3), np.int64), np.empty((len(words), 5), np.int64)

    def decode() -> None:
        found, *_ = tpx3.find_chunks(words, 0, 0, 0, chunks)
        tpx3.decode(words, chunks[:found], hits)

    options: dict[str, Any] = {"scan_shape": scan, "trigger": "line", "edge": "tdc1_rising", "dwell_time": "1.6 us"}
    source: Any = open_source(str(path), reader="tpx3", **options)
    joined: Any = open_source(str(path), reader="tpx3", cluster=True, **options)
    n = math.prod(scan)

    def add(
        name: str, call: Callable[[], Any], plain: Callable[[], Any] | None = None, goal: float | None = None
    ) -> None:
        rate, note = bench.rate(call, HITS) * 1e3, ""
        if plain is not None:
            other = bench.rate(plain, HITS) * 1e3
            note = f"{rate / other:.1f} x NumPy on arrays in memory ({other:.0f} M hits/s)"
        bench.table.add(f"tpx3, {name}", rate, "M hits/s", goal=goal, note=note)

    add("decode", decode, lambda: plain_hits(words), 100)
    add("open: edges and index", lambda: open_source(str(path), reader="tpx3", **options))
    add("events of the whole scan", lambda: source.read_events(0, n), lambda: plain_events(words, scan, dwell))
    add("events, 4096 positions at a time", lambda: [source.read_events(i, i + 4096) for i in range(0, n, 4096)])
    add("events joined to electrons", lambda: [joined.read_events(i, i + 4096) for i in range(0, n, 4096)])


def main() -> int:
    """Run all parts; give 1 when a goal was missed and that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.25)
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="what times one thread")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal was missed")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} processors{load}")
    with tempfile.TemporaryDirectory(prefix="stemstore-benchmark-", dir=arguments.folder) as folder:
        bench = Bench(Path(folder), arguments.gigabytes, arguments.rounds, arguments.clock)
        for part in arguments.parts:
            PARTS[part](bench)
    for missed in bench.table.missed:
        print(f"missed: {missed}")
    return int(bool(bench.table.missed and arguments.check))


PARTS = {"opening": opening, "sequential": sequential, "packed": packed, "bitshuffle": bitshuffle, "events": events}

if __name__ == "__main__":
    raise SystemExit(main())
