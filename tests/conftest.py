"""Scans small enough to compare with NumPy."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

SHAPE = (11, 9, 14, 10)

# The first example of a property compiles kernels, and two test processes share two cores: time is no property here.
hypothesis.settings.register_profile("patient", hypothesis.settings(deadline=None))
if not os.environ.get("CI"):  # there hypothesis loads its own profile, which repeats the same examples every time
    hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def counts():
    """Electrons per pixel of a small scan of odd and unequal extents."""
    return np.random.default_rng(1).poisson(0.3, SHAPE).astype(np.uint8)


def as_dataset(source, **calibration):
    """Open an in-memory source as `stemstore.open` would open a file."""
    return build(scan_source(source), [], Acquisition(), Calibration(**calibration), "memory", flyback=False)


@pytest.fixture(params=["dense", "counted"])
def scan(request, counts):
    """The same small scan as frames and as events."""
    source = ArrayFrames(counts) if request.param == "dense" else ArrayEvents(counts)
    return as_dataset(source)


@pytest.fixture(scope="session")
def sample():
    """Find a file of the sample data; the test is skipped where it is absent."""
    root = Path(os.environ.get("STEMSTORE_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))

    def find(name):
        if not (root / name).exists():
            pytest.skip(f"needs test data: set STEMSTORE_TEST_DATA (tried {root / name})")
        return root / name

    return find


@pytest.fixture
def dataset_of():
    """Make a dataset of a source in memory."""
    return as_dataset


@pytest.fixture
def frames_of():
    """Make a dataset of an array of frames."""
    return lambda array, validity=None, **kw: as_dataset(ArrayFrames(array, validity), **kw)
