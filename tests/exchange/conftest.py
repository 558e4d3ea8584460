"""A small counted store, with calibration and thresholds, whose scan and detector are not square."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import stemstore

sys.path.insert(0, str(Path(__file__).parents[1] / "readers"))  # its encoders write raw files


@pytest.fixture(scope="session")
def frames():
    """Pixels of 10 where an electron is and of 0 and 1 elsewhere; some frames have no electron."""
    counts = np.random.default_rng(7).poisson(0.1, (6, 8, 7, 9)).astype(np.uint16)
    counts[0, 0] = counts[3, 4] = counts[-1, -1] = 0
    return 10 * (counts > 0).astype(np.uint16) + np.arange(9, dtype=np.uint16) % 2


@pytest.fixture(scope="session")
def raw(tmp_path_factory, frames):
    """The frames as a file."""
    path = tmp_path_factory.mktemp("raw") / "scan.npy"
    np.save(path, frames)
    return path


@pytest.fixture(scope="session")
def store(raw):
    """Count the frames; of neighbours above the threshold the higher one, or else the first, is an event."""
    options = {"background_threshold": 5, "xray_threshold": 99, "beam_energy": 300, "scan_step": 0.5}
    stemstore.convert(raw, raw.with_name("counted.zarr"), count=True, **options)
    return raw.with_name("counted.zarr")


@pytest.fixture
def own_store(store, tmp_path_factory):
    """Copy the store for a test that adds something to it."""
    return shutil.copytree(store, tmp_path_factory.mktemp("own") / store.name)
