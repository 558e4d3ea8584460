"""The same operations by other means: LiberTEM, NumPy over a memory map, dask and xarray over plain Zarr.

LiberTEM runs as a process of its own with the interpreter it is installed for; it is no dependency:

    python <this file> <job>          the job as JSON: path, scan, detector, masks (a .npy file), rounds, clock

prints the seconds of one annulus, of all masks and of the centre of mass, on one core. Many masks run as sparse
matrices there, which is the faster way where LiberTEM does not find PyTorch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

SLICE = 8
"""Frames that NumPy converts and multiplies at a time: 2 MB as float32, which stays in cache."""


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def best(call: Callable[[], Any], rounds: int = 3, clock: str = "wall") -> float:
    """Shortest time of some calls after one that is not counted."""
    now = CLOCKS[clock]
    call()
    times = []
    for _ in range(rounds):
        start = now()
        call()
        times.append(now() - start)
    return min(times)


def libertem(interpreter: str, job: dict[str, Any]) -> dict[str, float] | str:
    """Seconds of LiberTEM's operations on one core, or why there are none."""
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    single = {f"{library}_NUM_THREADS": "1" for library in libraries}
    command = [interpreter, "-W", "ignore", str(Path(__file__).resolve()), json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **single})
    except OSError as error:
        return f"{interpreter} does not start: {error}"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _run_libertem(job: dict[str, Any]) -> dict[str, float]:
    """Time LiberTEM in this process: its executor without workers, masks as float32, as its own analyses do."""
    from libertem.api import Context
    from libertem.executor.inline import InlineJobExecutor
    from libertem.udf.com import CoMUDF
    from libertem.udf.masks import ApplyMasksUDF

    masks = np.load(job["masks"]).astype(np.float32)
    context = Context(executor=InlineJobExecutor())
    shapes = {"nav_shape": tuple(job["scan"]), "sig_shape": tuple(job["detector"])}
    data = context.load("raw", path=job["path"], dtype="uint16", **shapes)
    one = ApplyMasksUDF(mask_factories=lambda: masks[:1], mask_count=1, mask_dtype=np.float32, use_sparse=False)
    many = ApplyMasksUDF(
        mask_factories=lambda: masks, mask_count=len(masks), mask_dtype=np.float32, use_sparse="scipy.sparse"
    )
    seconds = {}
    for name, udf, rounds in (("annulus", one, 3), ("16 masks", many, 1), ("centre of mass", CoMUDF.with_params(), 3)):
        run = partial(context.run_udf, dataset=data, udf=udf)
        seconds[name] = best(run, min(rounds, job["rounds"]), job["clock"])
    return seconds


def numpy_image(path: Path, detector: tuple[int, int], mask: np.ndarray) -> Callable[[], Any]:
    """Virtual image by a memory map and products in float32, which are not exact."""
    column = mask.reshape(-1).astype(np.float32)

    def run() -> list[np.ndarray]:
        frames = np.memmap(path, "<u2", "r").reshape(-1, detector[0] * detector[1])
        return [frames[i : i + SLICE].astype(np.float32) @ column for i in range(0, len(frames), SLICE)]

    return run


def numpy_centre(path: Path, detector: tuple[int, int]) -> Callable[[], Any]:
    """Centre of mass by a memory map and sums along both axes."""
    rows, columns = (np.arange(n, dtype=np.float64) for n in detector)

    def one(block: np.ndarray) -> np.ndarray:
        along, across = block.sum(axis=2, dtype=np.uint32), block.sum(axis=1, dtype=np.uint32)
        return np.stack([along @ rows, across @ columns]) / along.sum(axis=1)

    def run() -> list[np.ndarray]:
        frames = np.memmap(path, "<u2", "r").reshape(-1, *detector)
        return [one(frames[i : i + SLICE]) for i in range(0, len(frames), SLICE)]

    return run


def zarr_image(store: Path, chunks: dict[str, int], mask: xr.DataArray, rows: int | None = None) -> Callable[[], Any]:
    """Virtual image as one writes it with xarray and dask over Zarr, of the first rows of the scan."""
    import xarray as xr

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Object at stemstore.commit.json")  # the record that a store is complete
            with xr.open_zarr(store, chunks=chunks, consolidated=False) as plain:
                return (plain.intensity.isel(y=slice(rows)) * mask).sum(("ky", "kx")).compute()

    return run


if __name__ == "__main__":
    print(json.dumps(_run_libertem(json.loads(sys.argv[1]))))
