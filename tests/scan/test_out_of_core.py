"""A user who knows xarray alone gets right results from a scan that would not fit: memory is measured from outside."""

import json
import subprocess
import sys

import numpy as np
import pytest

ALLOWED = 300  # MiB; the scan has twice as much

MEASURE = """
import json, dask, numpy as np, xarray as xr, stemstore
from pathlib import Path

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def values(y, x):
    return (7 * y + x) % 23

SIZES = {"y": 96, "x": 48, "ky": 256, "kx": 256}
y, x, ky, kx = np.meshgrid(*(np.arange(n) for n in SIZES.values()), indexing="ij", sparse=True)
scan, detector = values(y, x)[..., 0, 0], (ky % 5 + kx % 3)[0, 0]
mean = detector + scan.mean()
image = stemstore.open(url).intensity
pick = {dim: xr.DataArray(np.arange(500) % SIZES[dim], dims="p") for dim in ("y", "x")}
half = image.sel(y=slice(0, 63), kx=slice(64, 191))
jobs = {
    "mean of every pattern": (image.mean(("ky", "kx")), scan + detector.mean()),
    "mean pattern": (image.mean(("y", "x")), mean),
    "largest of every pixel": (image.max(("y", "x")), detector + scan.max()),
    "largest of every pattern": (image.max(("ky", "kx")), scan + detector.max()),
    "labels": (half.astype("f4").mean(("y", "x")), detector[:, 64:192] + scan[:64].mean()),
    "arithmetic": (((image - 3.0) * 2).sum(("ky", "kx")), ((scan - 3) * 65536 + detector.sum()) * 2),
    "where": (image.where(image > 2, 0).max(("y", "x")), detector + scan.max()),
    "coarsen": (image.coarsen(y=2, kx=2).mean().mean(("y", "x")), mean.reshape(256, 128, 2).mean(2)),
    "spread": (image.std(("y", "x")).mean(), scan.std()),
    "positions": (image.isel(pick).sum("p"), detector * 500 + scan[np.arange(500) % 96, np.arange(500) % 48].sum()),
}
image.isel(y=slice(0, 2)).where(image > 2).mean().compute()  # loads and compiles
before, peaks = status("VmRSS"), {}
with dask.config.set(scheduler="threads", num_workers=2):
    for name, (lazy, expected) in jobs.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        np.testing.assert_allclose(lazy, expected, rtol=1e-5, err_msg=name)
        peaks[name] = status("VmHWM") - before
print(json.dumps(peaks))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_plain_xarray_reduces_a_scan_larger_than_its_memory(store_of, tmp_path):
    """Reductions, labels, arithmetic, masks and coarsening of 604 MB take less than half of it."""
    y, x, ky, kx = np.meshgrid(*(np.arange(n, dtype=np.uint16) for n in (96, 48, 256, 256)), indexing="ij", sparse=True)
    frames = np.broadcast_to((7 * y + x) % 23, (96, 48, 256, 256)) + (ky % 5 + kx % 3)
    url = store_of(tmp_path / "scan.zarr", frames, counted=False, small=False)
    del frames
    text = f"url = {str(url)!r}\n{MEASURE}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    assert max(peaks.values()) < ALLOWED, peaks
