"""Patterns and sums over the scan equal NumPy, and missing frames do not count."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.ops.imaging.patterns import _variance
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

SHAPE = (5, 7, 6, 9)


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


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_regions_of_interest_equal_numpy(data):
    """Mean, maximum and variance over any region, dense and counted, of any pixel type, streamed or block by block."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4"]))
    counts = np.random.default_rng(7).poisson(1.5, SHAPE).astype(dtype)
    source = ArrayEvents if dtype == "u1" and data.draw(st.booleans()) else ArrayFrames
    frames = counts if dtype[0] == "u" else counts - np.array(2, dtype)
    scan = build(scan_source(source(frames)), [], Acquisition(), Calibration(), "memory", flyback=False)
    ky = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=7))
    part = scan.intensity.isel(ky=ky, x=slice(None, None, -1))
    if data.draw(st.booleans()):
        part = (part * np.array(1, dtype)).chunk({"y": 2})
    roi = np.array(data.draw(st.lists(st.booleans(), min_size=35, max_size=35))).reshape(5, 7)
    roi[2, 3] = True
    chosen = frames[:, ::-1][:, :, ky][roi]
    np.testing.assert_allclose(
        stemstore.mean_pattern(part, roi=roi), chosen.mean(0, dtype=float), rtol=1e-13, atol=1e-13
    )
    np.testing.assert_array_equal(stemstore.max_pattern(part, roi=roi), chosen.max(0))
    variance = stemstore.variance_pattern(part, roi=xr.DataArray(roi.T, dims=("x", "y")))
    assert variance.dtype == np.float64
    assert variance.dims == ("ky", "kx")
    assert variance.attrs["n_frames"] == roi.sum()
    np.testing.assert_allclose(variance, chosen.astype(float).var(0), rtol=1e-13, atol=1e-13)


def test_frames_outside_the_region_are_not_looked_at(frames_of, counts):
    """NaN elsewhere does not reach the result, and missing frames inside do not count."""
    frames, validity = counts.astype(np.float32), np.full(counts.shape[:2], 2)
    frames[0, 0], validity[1, 1] = np.nan, 0
    roi = np.zeros(validity.shape, bool)
    roi[1:3] = True
    ds = frames_of(frames, validity)
    mean = stemstore.mean_pattern(ds, roi=roi)
    assert mean.attrs["n_frames"] == 17
    there = frames[roi & (validity > 0)]
    np.testing.assert_allclose(mean, there.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(stemstore.max_pattern(ds, roi=roi), there.max(0))
    np.testing.assert_allclose(stemstore.variance_pattern(ds, roi=roi), there.var(0, dtype=float), rtol=1e-12)


def test_only_frames_of_the_region_are_read(dataset_of, counts):
    """A small region of a large scan costs what the region holds."""
    wide = np.tile(counts, (1, 40, 1, 1))

    class Watched(ArrayFrames):
        read = 0

        def read_frames(self, start, stop, out=None):
            Watched.read += stop - start
            return super().read_frames(start, stop, out)

    ds = dataset_of(Watched(wide))
    roi = np.zeros(wide.shape[:2], bool)
    roi[7, 100:110] = True
    Watched.read = 0
    np.testing.assert_allclose(stemstore.mean_pattern(ds, roi=roi).values, wide[7, 100:110].mean(0))
    assert Watched.read == 10


@pytest.mark.parametrize("value", [0, 65535])
def test_variance_of_large_numbers_is_exact(frames_of, value):
    """One count of difference on top of the largest value is seen exactly."""
    frames = np.full((40, 50, 3, 4), value, np.uint16)
    frames[:20] = 65534
    expected = (value - 65534) ** 2 / 4
    assert (stemstore.variance_pattern(frames_of(frames)).values == expected).all()


def test_variance_beyond_64_bits_is_exact():
    """Where products of sums overflow, Python's integers take over: half the frames at 65534, half at 65535."""
    n = 2**32 - 2
    total, squares = n // 2 * (65534 + 65535), n // 2 * (65534**2 + 65535**2)
    sums = np.array([[[total, 0]], [[squares, 0]]], np.uint64)
    assert _variance(sums, n).tolist() == [[0.25, 0.0]]


def test_variance_of_wide_integers_is_close_and_64_bits_are_refused(frames_of, counts):
    """Squares of 32 bits are summed in double precision; wider ones name the way out."""
    frames = counts.astype(np.uint32) * 1000003
    expected = frames.astype(float).var((0, 1))
    np.testing.assert_allclose(stemstore.variance_pattern(frames_of(frames)), expected, rtol=1e-12)
    image = frames_of(frames).intensity
    with pytest.raises(InputError, match="astype"):
        stemstore.variance_pattern(image.astype(np.uint64))
    np.testing.assert_allclose(stemstore.variance_pattern(image.astype(float)), expected, rtol=1e-12)


@pytest.mark.parametrize("roi", [np.ones((11, 9)), np.ones((9, 11), bool), True], ids=["float", "shape", "scalar"])
def test_regions_that_are_no_maps_are_refused(scan, roi):
    """The message tells what a region of interest is."""
    with pytest.raises(InputError, match=r"map of the scan's shape \(11, 9\), boolean"):
        stemstore.mean_pattern(scan, roi=roi)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_weighted_means_equal_numpy(data):
    """Any weights, any region, dense and counted, streamed or block by block, with frames missing."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4"]))
    frames = np.random.default_rng(9).poisson(1.5, SHAPE).astype(dtype)
    source = ArrayEvents if dtype == "u1" and data.draw(st.booleans()) else ArrayFrames
    validity = np.full(SHAPE[:2], 2)
    validity[0, 1] = validity[3, 3] = 0
    scan = build(scan_source(source(frames, validity)), [], Acquisition(), Calibration(), "memory", flyback=False)
    rows = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    part = scan.intensity.isel(y=rows, kx=slice(1, 8, 2))
    if data.draw(st.booleans()):
        part = (part * np.array(1, dtype)).chunk({"x": 3})
    rng = np.random.default_rng(len(rows))
    weights = rng.integers(-1, 5, (len(rows), 7)) * 0.5
    roi = None if data.draw(st.booleans()) else rng.random(weights.shape) < 0.7
    used = weights * (validity[rows] > 0) * (1 if roi is None else roi)
    assume(used.sum() != 0)
    weights[validity[rows] == 0] = np.nan
    mean = stemstore.mean_pattern(part, roi=roi, weights=xr.DataArray(weights.T, dims=("x", "y")))
    expected = np.einsum("yx,yxij->ij", used, frames[rows][..., 1:8:2].astype(float)) / used.sum()
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-11)
    assert mean.attrs["n_frames"] == np.count_nonzero(used)
    assert mean.attrs["weight"] == used.sum()


def test_an_image_weighs_its_own_patterns(scan, counts):
    """A virtual image, lazy as it is, gives the mean pattern of what is bright in it; one position is itself."""
    image = stemstore.virtual_image(scan, stemstore.disk(3))
    weights = image.values.astype(float)
    expected = np.einsum("yx,yxij->ij", weights, counts.astype(float)) / weights.sum()
    np.testing.assert_allclose(stemstore.mean_pattern(scan, weights=image), expected, rtol=1e-12)
    one = stemstore.mean_pattern(scan.isel(y=2, x=3), weights=0.3)
    np.testing.assert_allclose(one, counts[2, 3], rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.ones((3, 3)), r"shape \(11, 9\), of real numbers; got float64 of shape \(3, 3\)"),
        (np.ones((11, 9), complex), "of real numbers"),
        (np.full((11, 9), np.nan), "add up to nan"),
        (np.where(np.arange(9) % 2, 5.0, -4.0) * np.ones((11, 1)), "add up to 0"),
        (np.zeros((11, 9)), "no recorded frame"),
    ],
    ids=["shape", "complex", "nan", "balanced", "zero"],
)
def test_weights_that_cannot_work_are_refused(scan, weights, match):
    """The message says what is wrong before anything is read."""
    with pytest.raises(InputError, match=match):
        stemstore.mean_pattern(scan, weights=weights)


def test_empty_regions_have_no_pattern(scan):
    """A region without frames is an error, not NaN."""
    with pytest.raises(InputError, match="region of interest holds no recorded frame"):
        stemstore.variance_pattern(scan, roi=np.zeros((11, 9), bool))
