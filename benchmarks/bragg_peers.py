"""Bragg disks by other programs, each with the interpreter it is installed for; they are no dependencies.

    python <this file> <job>          the job as JSON, see `run`

prints the seconds that the job took and writes what it found. Names of other packages are imported in the functions
that use them, so that this file runs where only one of them is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def peer(interpreter: str, job: dict[str, Any]) -> tuple[float, list[np.ndarray]] | str:
    """Run a job with another interpreter on one thread.

    Parameters
    ----------
    interpreter
        Of an environment with the peer.
    job
        ``method``: "poly" or "multicorr" of py4DSTEM, or "blobfinder"; ``frames``: path of a .npy file; ``n``: how many
        of them; ``radius``; ``threshold``; ``window``, the outer radius of py4DSTEM's kernel in radii; ``positions``
        where they must be known; ``clock``.

    Returns
    -------
    seconds, lists
        Of all frames; arrays of (row, column, intensity) per frame. Or why there are none.
    """
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    single = {f"{library}_NUM_THREADS": "1" for library in libraries}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        command = [interpreter, "-W", "ignore", str(Path(__file__).resolve()), json.dumps({**job, "out": str(out)})]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **single})
        except OSError as error:
            return f"{interpreter} does not start: {error}"
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
        seconds = json.loads(done.stdout.strip().splitlines()[-1])
        with np.load(out) as found:
            return seconds, np.split(found["rows"], found["bounds"][1:-1])


def run(job: dict[str, Any]) -> None:
    """Do a job in this process; the first frame is not timed."""
    frames = np.load(job["frames"], mmap_mode="r")[: job["n"]]
    method = _blobfinder(job) if job["method"] == "blobfinder" else _py4dstem(job, frames.shape[1:])
    blocks = [np.array(frame) for frame in frames]
    method(blocks[0])
    start = CLOCKS[job["clock"]]()
    lists = [method(frame) for frame in blocks]
    seconds = CLOCKS[job["clock"]]() - start
    bounds = np.concatenate(([0], np.cumsum([len(rows) for rows in lists])))
    np.savez(job["out"], rows=np.concatenate(lists), bounds=bounds)
    print(json.dumps(seconds))


def _py4dstem(job: dict[str, Any], shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Find disks with py4DSTEM's function for one pattern: the sigmoid kernel of its tutorials, transformed once."""
    warnings.simplefilter("ignore")
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        from py4DSTEM import Probe
        from py4DSTEM.braggvectors.diskdetection import _find_Bragg_disks_single

    radius = job["radius"]
    probe = Probe.generate_synthetic_probe(radius=radius, width=2, Qshape=shape)
    middle = (shape[0] / 2, shape[1] / 2)
    probe.get_kernel(mode="sigmoid", origin=middle, radii=(0, job["window"] * radius))
    kernel = np.conj(np.fft.fft2(probe.kernel))
    settings = {
        "subpixel": job["method"],
        "sigma_cc": radius / 4,
        "minAbsoluteIntensity": job["threshold"],
        "minRelativeIntensity": 0,
        "minPeakSpacing": 2 * radius,
        "edgeBoundary": round(radius),
        "maxNumPeaks": 300,
        "_template_space": "fourier",
    }

    def find(frame: np.ndarray) -> np.ndarray:
        found = _find_Bragg_disks_single(frame, kernel, **settings).data
        return np.stack([found[name] for name in ("qx", "qy", "intensity")], axis=1)

    return find


def _blobfinder(job: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Refine known positions with LiberTEM-blobfinder, by centre of mass of the correlation peak."""
    from libertem_blobfinder.common.correlation import process_frames_fast
    from libertem_blobfinder.common.patterns import RadialGradientBackgroundSubtraction

    pattern = RadialGradientBackgroundSubtraction(radius=job["radius"])
    known = np.round(np.array(job["positions"])).astype(np.int32)

    def find(frame: np.ndarray) -> np.ndarray:
        _, refined, height, _ = process_frames_fast(
            pattern, frame[None].astype(np.float32), known
        )  # it takes logarithms in place
        return np.column_stack((refined[0], height[0]))

    return find


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
