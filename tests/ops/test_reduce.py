"""Patterns and sums over the scan equal NumPy, and missing frames do not count."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError


def test_mean_and_max_patterns(scan, counts):
    """Reductions over the scan keep the detector axes."""
    np.testing.assert_allclose(stemstore.mean_pattern(scan), counts.mean((0, 1)), rtol=1e-14)
    highest = stemstore.max_pattern(scan)
    assert highest.dtype == counts.dtype
    np.testing.assert_array_equal(highest, counts.max((0, 1)))


def test_patterns_of_a_region_read_that_region(scan, counts):
    """Selecting positions and pixels first gives the pattern of the selection."""
    part = scan.isel(y=slice(7, 2, -2), x=[0, 3, 3], ky=slice(2, 9))
    expected = counts[7:2:-2][:, [0, 3, 3]][:, :, 2:9]
    np.testing.assert_allclose(stemstore.mean_pattern(part), expected.mean((0, 1)), rtol=1e-14)
    np.testing.assert_array_equal(stemstore.max_pattern(part.isel(y=0, x=1)), expected[0, 1])


def test_missing_frames_are_left_out_of_mean_and_max(frames_of, counts):
    """A missing frame holds no zeros that count."""
    frames, validity = counts.astype(np.int16) - 100, np.full(counts.shape[:2], 2)
    frames[4, 4] = 0
    validity[4, 4] = 0
    ds = frames_of(frames, validity)
    there = frames[validity > 0]
    mean = stemstore.mean_pattern(ds)
    np.testing.assert_allclose(mean, there.mean(0), rtol=1e-12)
    assert mean.attrs["n_frames"] == 98
    np.testing.assert_array_equal(stemstore.max_pattern(ds), there.max(0))


def test_missing_frames_of_floats_do_not_spread_nan(frames_of, counts):
    """NaN frames that are marked missing are not summed."""
    frames, validity = counts.astype(np.float32), np.full(counts.shape[:2], 2)
    frames[0, 0], validity[0, 0] = np.nan, 0
    assert np.isfinite(stemstore.mean_pattern(frames_of(frames, validity))).all()


@pytest.mark.parametrize("factor", [1, 2, (3, 4), (11, 9)], ids=str)
def test_bin_scan_sums_groups_of_positions(scan, counts, factor):
    """Groups that are not full are left out; the sums are exact integers."""
    fy, fx = (factor, factor) if isinstance(factor, int) else factor
    ny, nx = 11 // fy, 9 // fx
    expected = counts[: ny * fy, : nx * fx].reshape(ny, fy, nx, fx, 14, 10).sum((1, 3))
    for image in (scan.intensity, scan.intensity * 1):
        binned = stemstore.bin_scan(image, factor)
        assert binned.dtype == np.uint64
        np.testing.assert_array_equal(binned, expected)
        np.testing.assert_allclose(binned.y, (np.arange(ny) + 0.5) * fy - 0.5)


def test_bin_scan_counts_the_frames_in_each_sum(frames_of, counts):
    """Missing frames add nothing and are told."""
    validity = np.full(counts.shape[:2], 2)
    validity[0, 1] = 0
    binned = stemstore.bin_scan(frames_of(counts, validity), 2)
    assert binned.n_frames.values[0, 0] == 3
    np.testing.assert_array_equal(binned[0, 0], counts[:2, :2].sum((0, 1)) - counts[0, 1])


def test_bin_scan_of_a_selection_equals_bin_scan_of_its_values(scan):
    """A cropped and strided selection is binned as it is seen."""
    part = scan.intensity.isel(y=slice(1, None, 2), kx=slice(2, 8))
    np.testing.assert_array_equal(stemstore.bin_scan(part, 2), stemstore.bin_scan(part.load(), 2))


@pytest.mark.parametrize("factor", [0, 12, (2, -1)], ids=str)
def test_bin_scan_refuses_factors_that_do_not_fit(scan, factor):
    """The message names the scan's size."""
    with pytest.raises(InputError, match=r"\(11, 9\)"):
        stemstore.bin_scan(scan, factor)


def test_empty_selections_have_no_mean(scan):
    """An empty region is an error, not NaN."""
    with pytest.raises(InputError, match="no recorded frame"):
        stemstore.mean_pattern(scan.isel(y=slice(0, 0)))
    with pytest.raises(InputError, match="no recorded frame"):
        stemstore.max_pattern(scan.isel(y=slice(0, 0)))
