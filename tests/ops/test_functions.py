"""User functions take the same road as the built-in operations."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError


def test_function_of_one_pattern(scan, counts):
    """A function per pattern gives a value per position."""
    result = stemstore.map_frames(scan, lambda pattern: pattern.astype(int).std())
    np.testing.assert_allclose(result, counts.std((2, 3)), rtol=1e-12)


def test_function_of_blocks_with_its_own_axes(scan, counts):
    """A function per block returns rows; its axes are named."""
    result = stemstore.map_frames(
        scan, lambda block: block.sum(axis=1), shape=(10,), dtype=np.uint64, dims=("kx",), per_block=True
    )
    assert result.dims == ("y", "x", "kx")
    np.testing.assert_array_equal(result, counts.sum(2))
    np.testing.assert_array_equal(result.kx, scan.kx)


def test_function_sees_the_selected_detector(scan, counts):
    """Cropping the detector crops what the function is given."""
    part = scan.isel(ky=slice(2, 7), kx=[1, 1, 5])
    result = stemstore.map_frames(part, lambda pattern: pattern.shape[0] * 100 + pattern.shape[1])
    assert (result == 503).all()


def test_function_may_change_its_pattern(scan, counts):
    """Writing into the pattern changes nothing else."""

    def spoil(pattern):
        pattern[...] = 0
        return 1.0

    assert (stemstore.map_frames(scan, spoil) == 1).all()
    np.testing.assert_array_equal(scan.intensity, counts)


def test_wrong_shapes_are_reported_with_the_function(scan):
    """A result of another shape than declared names function and shapes."""

    def rows(pattern):
        return pattern.sum(1)

    with pytest.raises(InputError, match=r"'rows' returned shape \(14,\), expected \(\)"):
        stemstore.map_frames(scan, rows).compute(scheduler="sync")
    with pytest.raises(InputError, match="one name per axis"):
        stemstore.map_frames(scan, rows, shape=(14,), dims=("a", "b"))
