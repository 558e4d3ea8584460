"""Memory stays within what was said, measured from outside on data larger than it."""

import subprocess
import sys

import numpy as np
import pytest

MEASURE = """
import resource
import stemstore
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""

COUNT = """
options = dict(reader="raw_binary", dtype="<u2", count=True, xray_threshold=200)
shape = (30, 40, 576, 576)
stemstore.convert(raw, raw + "-few.zarr", shape=shape, background_threshold=199, **options)  # loads and compiles
before = peak()
report = stemstore.convert(raw, raw + "-many.zarr", shape=shape, background_threshold=10, **options)
print(peak() - before, report.memory / 2**20)
"""

MEAN = """
ds = stemstore.open(raw, reader="raw_binary", detector_shape=(576, 576), dtype="<u2")
assert float(stemstore.mean_pattern(ds).sum()) == 0
print(peak(), 600)
"""


def measured(code, raw):
    """Run code in a process of its own; gives the memory it took and the memory it may take, in MiB."""
    text = f"{MEASURE}raw = {str(raw)!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_counting_every_ninth_pixel_stays_within_the_projection(tmp_path):
    """Thresholds far too low make 37 000 events a frame; memory stays below what the report projects."""
    frames = np.random.default_rng(0).integers(0, 100, (8, 576, 576)).astype("<u2")
    with (tmp_path / "scan.raw").open("wb") as file:
        for _ in range(150):
            file.write(frames.tobytes())
    took, projected = measured(COUNT, tmp_path / "scan.raw")
    assert took < projected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units elsewhere")
def test_mean_of_a_file_larger_than_memory(tmp_path):
    """The mean pattern of 5 GB of raw frames, a hole in the file system, takes less than 600 MiB in all."""
    with (tmp_path / "hole.raw").open("wb") as file:
        file.truncate(5 * 10**9 // (2 * 576 * 576) * 2 * 576 * 576)
    took, allowed = measured(MEAN, tmp_path / "hole.raw")
    assert took < allowed
