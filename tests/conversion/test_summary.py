"""The disk of the summary images is found where it is."""

import numpy as np
import pytest

from stemstore.conversion.summary import BrightField, Summariser, bin_factor


@pytest.mark.parametrize("shape", [(576, 576), (256, 192), (40, 64)], ids=str)
def test_bright_field_disk_is_found(shape):
    """Centre and radius of a disk on a background come out within the coarse grid."""
    center, radius = (0.45 * shape[0], 0.55 * shape[1]), 0.12 * min(shape)
    rows, columns = np.indices(shape)
    pattern = 3.0 + 10 * (np.hypot(rows - center[0], columns - center[1]) < radius)
    found = BrightField.guess(np.random.default_rng(0).poisson(pattern).astype(float))
    cell = max(bin_factor(shape))
    assert np.hypot(found.center[0] - center[0], found.center[1] - center[1]) < cell
    assert found.radius == pytest.approx(radius, abs=cell)


def test_empty_patterns_give_a_disk_in_the_middle():
    """Without any intensity there is still a defined answer."""
    assert BrightField.guess(np.zeros((30, 50))).center == (14.5, 24.5)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_frames_of_every_type_are_summarised(dtype):
    """Sums, images and the coarse copy agree with NumPy."""
    frames = np.random.default_rng(0).integers(0, 100, (11, 70, 50)).astype(dtype)
    found = Summariser((70, 50), np.dtype(dtype), BrightField((30, 25), 10)).of_frames(frames)
    wide = frames.astype(np.int64)
    np.testing.assert_array_equal(found["maps"]["total"], wide.sum((1, 2)))
    np.testing.assert_array_equal(found["sums"]["sum_pattern"], wide.sum(0))
    np.testing.assert_array_equal(found["maxima"]["max_pattern"], wide.max(0))
    assert found["maps"]["binned"].shape == (11, 24, 25)
    np.testing.assert_array_equal(found["maps"]["binned"][:, 1, 2], wide[:, 3:6, 4:6].sum((1, 2)))
