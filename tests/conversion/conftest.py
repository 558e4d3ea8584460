"""Small raw scans in formats that need no detector."""

import numpy as np
import pytest


@pytest.fixture
def counts():
    """Electrons per pixel of a small scan."""
    return np.random.default_rng(4).poisson(0.2, (7, 6, 20, 18)).astype(np.uint16)


@pytest.fixture
def camera_frames(counts):
    """Frames as a detector writes them: pedestal, noise, and each electron as a peak of 60 units."""
    noise = np.random.default_rng(5).normal(20.5, 1.8, counts.shape)
    return np.clip(np.rint(noise + 60 * (counts > 0)), 0, None).astype(np.uint16)


@pytest.fixture
def raw(tmp_path, camera_frames):
    """The frames as a file."""
    path = tmp_path / "scan.npy"
    np.save(path, camera_frames)
    return path
