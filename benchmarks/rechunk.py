"""What it costs to lay a store out anew, against dask over plain zarr, and what tiles are worth to a small detector.

    python -m benchmarks.rechunk        a store of 500 MB, in a temporary folder (2 GB)

Both write whole shards with the same chunks and codec; dask reads pieces as large as a shard and rechunks them. It
writes no checksums, no journal and no summary, and calls no fsync. Rounds take turns; medians are shown. Files are in
the page cache.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import stemstore
from stemstore.conversion.rechunk import rechunk_store

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
SHAPE = (64, 60, 256, 256)  # uint16: 503 MB
CHUNKS = {
    "frames to tiles": ("frames", (8, 8, 64, 64), (16, 16)),
    "frames to cubes": ("frames", (16, 16, 16, 16), (16, 16)),
    "cubes to frames": ("cubes", (4, 4, 256, 256), (16, 16)),
    "cubes, not nesting": ("cubes", (5, 5, 64, 64), (10, 10)),
}


def write_frames(path: Path) -> None:
    """Write frames of a disk and noise of few counts, no two alike."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(SHAPE[2:]) - 127.5
    disk = np.where(np.hypot(rows, columns) < 40, 20.0, 1.0)
    frames = np.lib.format.open_memmap(path, "w+", np.uint16, SHAPE)
    first = rng.poisson(disk, (SHAPE[1], *SHAPE[2:])).astype(np.uint16)
    for number in range(SHAPE[0]):
        frames[number] = np.roll(first, 37 * number, axis=0) + rng.integers(0, 2, SHAPE[2:], np.uint16)


def with_dask(source: Path, target: Path, chunk: tuple[int, ...], scan: tuple[int, ...]) -> None:
    """Read pieces of whole shards, rechunk and write, by public means only."""
    import dask.array as da
    import zarr

    old: Any = zarr.open_array(source / "intensity", mode="r")
    new: Any = zarr.create_array(
        target,
        shape=old.shape,
        dtype=old.dtype,
        chunks=chunk,
        shards=(*scan, *SHAPE[2:]),
        compressors=old.compressors,
    )
    da.store(da.from_array(old, chunks=old.shards).rechunk(new.shards), new, lock=False)


def seconds(call: Callable[[], Any], target: Path) -> float:
    """Wall time of one call into an empty place."""
    shutil.rmtree(target, ignore_errors=True)
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    """Print both tables."""
    n_bytes = 2 * float(np.prod(SHAPE))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frames(folder / "scan.npy")
        stemstore.convert(folder / "scan.npy", folder / "frames.zarr", count=False, digests="none")
        rechunk_store(folder / "frames.zarr", folder / "cubes.zarr", chunks=(16, 16, 16, 16), shards=(16, 16))
        rechunk_store(folder / "frames.zarr", folder / "tiles.zarr", layout="tiled")
        print(f"{'':<20}{'stemstore':>14}{'dask + zarr':>14}{'ratio':>7}")
        target = folder / "new.zarr"
        for label, (source, chunk, scan) in CHUNKS.items():
            old = folder / f"{source}.zarr"
            calls = (
                lambda old=old, chunk=chunk, scan=scan: rechunk_store(old, target, chunks=chunk, shards=scan),
                lambda old=old, chunk=chunk, scan=scan: with_dask(old, target, chunk, scan),
            )
            rounds = [[seconds(call, target) for call in calls] for _ in range(ROUNDS)]
            ours, theirs = (statistics.median(one) for one in zip(*rounds, strict=True))
            rates = [f"{n_bytes / 1e6 / one:.0f} MB/s" for one in (ours, theirs)]
            print(f"{label:<20}{rates[0]:>14}{rates[1]:>14}{theirs / ours:7.2f}")
        small = np.zeros(SHAPE[2:], bool)
        small[70:86, 150:166] = True
        images = {
            one: stemstore.virtual_image(stemstore.open(folder / f"{one}.zarr"), small) for one in ("frames", "tiles")
        }
        rounds = [[seconds(image.compute, target) for image in images.values()] for _ in range(2 * ROUNDS)]
        frames, tiles = (statistics.median(one) for one in zip(*rounds, strict=True))
        print(f"virtual image of 16 x 16 pixels: tiles take {tiles / frames:.2f} of the time of whole frames")


if __name__ == "__main__":
    main()
