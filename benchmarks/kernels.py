"""Speed of the kernels on one core, each against a named NumPy way of doing the same in the same run.

    python -m benchmarks.kernels            print the table
    python -m benchmarks.kernels --check    also fail when a kernel falls below its floor

Figures of one machine and one moment are worth little; the ratios are what should hold. Blocks are what a source hands
over at a time: 8 MiB of frames, a million events.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported: the baseline runs on one core, too

import numpy as np

from stemstore.kernels import counting, events, frames
from stemstore.kernels.shifting import shift_events
from stemstore.kernels.thinning import Chance, thin_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 15
SIDE = 256
DETECTOR = 576
CUT, XRAY = 29.0, 400.0


@dataclass(frozen=True)
class Case:
    """One kernel, its baseline, and the amount of work in one call."""

    name: str
    amount: float
    unit: str
    run: Callable[[], object]
    baseline: str
    reference: Callable[[], object]
    floor: float
    """Smallest acceptable ratio to the baseline; about half of what was seen when it was set."""


def annulus(side: int, inner: float, outer: float) -> np.ndarray:
    """One ring as a stack of one mask."""
    row, column = np.indices((side, side)) - (side - 1) / 2
    radius = np.hypot(row, column)
    return ((radius >= inner) & (radius < outer))[None]


def raw_frames(n: int, electrons: int) -> np.ndarray:
    """Noise on a pedestal, and electrons that share their charge with neighbours."""
    rng = np.random.default_rng(0)
    stack = np.rint(rng.normal(20.5, 1.8, (n, DETECTOR, DETECTOR)))
    f = np.repeat(np.arange(n), electrons)
    row, column = rng.integers(0, DETECTOR - 1, (2, f.size))
    charge = np.clip(60 + rng.gumbel(0, 20, f.size), 30, 300)
    for dr, dc, share in ((0, 0, 1.0), (0, 1, 0.35), (1, 0, 0.25)):
        np.add.at(stack, (f, row + dr, column + dc), share * charge)
    return stack.astype(np.uint16)


def count_with_numpy(stack: np.ndarray) -> list[np.ndarray]:
    """Raster tie-break by folded maximum and gathered neighbours (border pixels left out)."""
    result = []
    width = stack.shape[2]
    steps = [dr * width + dc for dr in (-1, 0, 1) for dc in (-1, 0, 1) if (dr, dc) != (0, 0)]
    for frame in stack:
        flat = frame.ravel()
        folded = flat.reshape(16, -1)
        column = np.flatnonzero(folded.max(axis=0) > CUT)
        row, hit = np.nonzero(folded[:, column] > CUT)
        found = np.sort(row * folded.shape[1] + column[hit])
        found = found[(found > width) & (found < flat.size - width - 1)]
        value = flat[found]
        keep = value < XRAY
        for step in steps:
            other = flat[found + step]
            keep &= (value > other) if step < 0 else (value >= other)
        result.append(found[keep])
    return result


def counting_cases() -> Iterator[Case]:
    """Count full camera frames."""
    stack = raw_frames(16, 120)
    for rule in ("stemstore", "stempy"):
        yield Case(
            f"count_frames, {rule}",
            len(stack),
            "frames/s",
            lambda rule=rule: counting.count_frames(stack, CUT, XRAY, rule),
            "folded maximum, gather",
            lambda: count_with_numpy(stack),
            1.0,
        )


def frame_cases() -> Iterator[Case]:
    """Loops over 64 frames of 256 x 256 uint16."""
    block = np.random.default_rng(0).integers(0, 200, (64, SIDE, SIDE)).astype(np.uint16)
    size, index = block.nbytes / 1e9, np.arange(len(block))
    ring = annulus(SIDE, 40, 100)
    rings = np.concatenate([annulus(SIDE, 8 * k, 8 * k + 8) for k in range(16)])
    out = {n: np.zeros((64, n), dtype=np.uint64) for n in (1, 3, 16)}
    real, pattern, boxes = np.zeros((64, 1)), np.zeros((SIDE, SIDE), np.uint64), np.zeros((64, 32, 32), np.uint32)
    one, many = frames.prepare_masks(ring), frames.prepare_masks(rings)
    weights, region = frames.prepare_weights(ring * 0.5), frames.prepare_region((SIDE, SIDE))
    highest, counts = np.zeros((SIDE, SIDE), np.uint16), np.zeros(65536, np.int64)

    def product(masks: np.ndarray) -> Callable[[], object]:
        matrix = masks.reshape(len(masks), -1).T.astype(np.float32)
        return lambda: [b.reshape(8, -1).astype(np.float32) @ matrix for b in np.split(block, 8)]

    blas = "float32 product by 8 frames"
    for name, run, baseline, reference, floor in (
        (
            "masked_sums, annulus",
            lambda: frames.masked_sums(block, index, out[1], index, one),
            blas,
            product(ring),
            1.0,
        ),
        (
            "masked_sums, 16 rings",
            lambda: frames.masked_sums(block, index, out[16], index, many),
            blas,
            product(rings),
            1.0,
        ),
        ("weighted_sums", lambda: frames.weighted_sums(block, index, real, index, weights), blas, product(ring), 1.5),
        (
            "moments",
            lambda: frames.moments(block, index, out[3], index, region),
            "sums along both axes",
            lambda: (block.sum(axis=2, dtype=np.uint32), block.sum(axis=1, dtype=np.uint32)),
            4.0,
        ),
        (
            "add",
            lambda: frames.add(block, index, pattern),
            "sum(axis=0)",
            lambda: block.sum(axis=0, dtype=np.uint64),
            1.0,
        ),
        ("maximum", lambda: frames.maximum(block, index, highest), "max(axis=0)", lambda: block.max(axis=0), 0.7),
        (
            "bin_detector to 32 x 32",
            lambda: frames.bin_detector(block, index, boxes, index, (8, 8)),
            "reshape and sum",
            lambda: block.reshape(64, 32, 8, 32, 8).sum(axis=(2, 4), dtype=np.uint32),
            4.0,
        ),
        ("histogram", lambda: frames.histogram(block, counts), "bincount", lambda: np.bincount(block.ravel()), 1.0),
    ):
        yield Case(name, size, "GB/s", run, baseline, reference, floor)


def event_cases() -> Iterator[Case]:
    """Loops over 512 frames of 1951 events on 576 x 576 pixels."""
    rng, shape = np.random.default_rng(0), (512, 1951)
    row, column = np.clip(rng.normal(DETECTOR / 2, 60, (2, *shape)), 0, DETECTOR - 1).astype(np.int64)
    listed = np.sort(row * DETECTOR + column, axis=1).astype(np.uint32).ravel()
    indptr, index = np.arange(shape[0] + 1, dtype=np.int64) * shape[1], np.arange(shape[0])
    gap, n_slots = events.encode(indptr, listed)
    block = (gap, events.slot_offsets(n_slots), index)
    ring = annulus(DETECTOR, 20, 60)
    table, flat = events.prepare_masks(ring), ring.ravel().astype(np.uint8)
    region, starts = events.prepare_region((DETECTOR, DETECTOR)), indptr[:-1]
    sums, moments = np.zeros((shape[0], 1), np.uint64), np.zeros((shape[0], 3), np.uint64)
    pattern = np.zeros((DETECTOR, DETECTOR), np.uint64)
    rings = np.concatenate([annulus(DETECTOR, 8 * k, 8 * k + 8) for k in range(16)])
    tables, weights = events.prepare_masks(rings), events.prepare_weights(rings * 0.5)
    flats, halves = rings.reshape(16, -1).astype(np.uint8), rings.reshape(16, -1) * 0.5
    many, real = np.zeros((shape[0], 16), np.uint64), np.zeros((shape[0], 16))
    squares, moves = np.zeros((shape[0], 6)), np.stack([index % 7 - 3, index % 5 - 2], axis=1)

    def moments_with_numpy() -> object:
        r, c = np.divmod(listed, np.uint32(DETECTOR))
        return np.add.reduceat(r, starts, dtype=np.int64), np.add.reduceat(c, starts, dtype=np.int64)

    def second_moments_with_numpy() -> object:
        r, c = (one.astype(np.int64) for one in np.divmod(listed, np.uint32(DETECTOR)))
        return [np.add.reduceat(one, starts) for one in (r, c, r * r, c * c, r * c)]

    def shift_with_numpy() -> object:
        r, c = (one.astype(np.int64) for one in np.divmod(listed, np.uint32(DETECTOR)))
        r, c = r + moves[:, 0].repeat(shape[1]), c + moves[:, 1].repeat(shape[1])
        stay = (r >= 0) & (r < DETECTOR) & (c >= 0) & (c < DETECTOR)
        return r[stay] * DETECTOR + c[stay], np.add.reduceat(stay, starts, dtype=np.int64)

    def decode_with_numpy() -> object:
        return np.concatenate([np.cumsum(part, dtype=np.uint32) for part in np.split(gap, block[1][1:-1])])

    for name, run, baseline, reference, floor in (
        (
            "events.masked_sums",
            lambda: events.masked_sums(*block, sums, index, table),
            "table and reduceat, decoded",
            lambda: np.add.reduceat(flat[listed], starts, dtype=np.int64),
            1.0,
        ),
        (
            "events.moments",
            lambda: events.moments(*block, moments, index, region),
            "divmod and reduceat, decoded",
            moments_with_numpy,
            1.5,
        ),
        (
            "events.add",
            lambda: events.add(*block, pattern),
            "bincount, decoded",
            lambda: np.bincount(listed, minlength=DETECTOR**2),
            1.0,
        ),
        (
            "events.masked_sums, 16",
            lambda: events.masked_sums(*block, many, index, tables),
            "16 tables and reduceat, decoded",
            lambda: [np.add.reduceat(one[listed], starts, dtype=np.int64) for one in flats],
            16.0,
        ),
        (
            "events.weighted_sums, 16",
            lambda: events.weighted_sums(*block, real, index, weights),
            "16 tables and reduceat, decoded",
            lambda: [np.add.reduceat(one[listed], starts, dtype=np.float64) for one in halves],
            20.0,
        ),
        (
            "events.second_moments",
            lambda: events.second_moments(*block, squares, index, (region, np.zeros(2, np.int64))),
            "divmod and reduceat, decoded",
            second_moments_with_numpy,
            5.0,
        ),
        (
            "thin_events to a half",
            lambda: thin_events(*block, index, DETECTOR**2, Chance.of(0, 0, 0.0, 0.5)),
            "random numbers, one mask, decoded",
            lambda: listed[rng.random(listed.size) < 0.5],
            1.5,
        ),
        (
            "shift_events",
            lambda: shift_events(*block, moves, (DETECTOR, DETECTOR)),
            "divmod and one mask, decoded",
            shift_with_numpy,
            1.5,
        ),
        ("events.decode", lambda: events.decode(*block[:2]), "cumsum per frame, no escapes", decode_with_numpy, 0.5),
    ):
        yield Case(name, listed.size / 1e6, "M events/s", run, baseline, reference, floor)


def fastest(run: Callable[[], object]) -> float:
    """Shortest of several runs, in seconds; the first, which may compile, does not count."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Print the table; give 1 when a floor was asked for and missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail when a kernel falls below its floor")
    check = parser.parse_args().check
    missed = []
    print(f"{'kernel':<26}{'rate':>10} {'unit':<12}{'ratio':>7}  NumPy baseline")
    for case in (*counting_cases(), *frame_cases(), *event_cases()):
        seconds = fastest(case.run)
        ratio = fastest(case.reference) / seconds
        print(f"{case.name:<26}{case.amount / seconds:>10.1f} {case.unit:<12}{ratio:>6.1f}x  {case.baseline}")
        if ratio < case.floor:
            missed.append(f"{case.name}: {ratio:.2f}x, floor {case.floor}x")
    if check and missed:
        print("below the floor: " + "; ".join(missed), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
