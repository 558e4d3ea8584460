"""Memory stays within what was said, measured from outside on more events than it could hold at once."""

import subprocess
import sys

import numpy as np
import pytest

import stemstore

MEASURE = """
import resource, sys
import h5py, numba, stemstore
from stemstore.exchange.run import export
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
export(sys.argv[1], sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
@pytest.mark.parametrize("ending", ["a.h5", "a.toml"])
def test_export_of_many_events(tmp_path, ending):
    """40 million events, 160 MB of indices alone, are written within 200 MiB, libraries included."""
    frames, per_frame = 200 * 200, 1000
    pixels = np.sort(np.random.default_rng(0).integers(0, 576 * 576, (frames, per_frame), np.int32), axis=1)
    pixels.tofile(tmp_path / "p.dat")
    (np.arange(frames + 1) * per_frame).astype("<i8").tofile(tmp_path / "r.dat")
    np.ones(pixels.size, np.uint8).tofile(tmp_path / "v.dat")
    lines = ["[params]", 'filetype = "raw_csr"', "nav_shape = [200, 200]", "sig_shape = [576, 576]", "[raw_csr]"]
    for role, name, kind in (("indptr", "r", "<i8"), ("indices", "p", "<i4"), ("data", "v", "<u1")):
        lines += [f'{role}_file = "{name}.dat"', f'{role}_dtype = "{kind}"']
    (tmp_path / "in.toml").write_text("\n".join(lines), encoding="utf-8")
    stemstore.convert(tmp_path / "in.toml", tmp_path / "in.zarr")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "in.zarr"), str(tmp_path / ending)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 200
