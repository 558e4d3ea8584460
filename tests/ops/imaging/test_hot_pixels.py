"""Planted hot and dead pixels are found, and nothing that belongs to a diffraction pattern is."""

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import maximum_filter

import stemstore
from stemstore.errors import InputError
from stemstore.ops.imaging.hot_pixels import find_hot_pixels
from stemstore.testing import Optics, SyntheticScan

DETECTOR = (96, 120)
POSITIONS = (6, 7)


def simulated(dose, radius, kind="counted"):
    """Frames of the standard specimen on a small detector, and their expectation averaged over the scan."""
    optics = Optics(detector_shape=DETECTOR, disk_radius=radius)
    scan = SyntheticScan(scan_shape=POSITIONS, dose=dose, seed=4, optics=optics)
    numbers = [scan.frame_number(i, j) for i in range(POSITIONS[0]) for j in range(POSITIONS[1])]
    frames = np.stack([getattr(scan, kind)(n) for n in numbers]).reshape(*POSITIONS, *DETECTOR)
    return frames, np.mean([scan.expected(n) for n in numbers], axis=0)


def bright():
    """Frames with some electrons in every pixel and a bright disk."""
    expected = 1.6e6 / 100 * simulated(100, 15.0)[1]
    return np.random.default_rng(2).poisson(expected, (*POSITIONS, *DETECTOR)).astype(np.uint16)


@pytest.fixture(scope="module")
def planted():
    """Places of bad pixels: strewn over the detector, in its corners, on its border, in clusters."""
    places = np.random.default_rng(7).integers(0, DETECTOR, (25, 2)).tolist()
    places += [[0, 0], [95, 119], [0, 60], [50, 0], [25, 80], [25, 81], [26, 80]]
    mask = np.zeros(DETECTOR, bool)
    mask[tuple(np.transpose(places))] = True
    return mask


@pytest.mark.parametrize("radius", [2.0, 6.0, 15.0])
@pytest.mark.parametrize("dose", [100, 3000])
def test_hot_pixels_are_found_and_nothing_else(frames_of, planted, dose, radius):
    """All pixels brighter than thrice their surroundings are found, with and without the variance; no disk, no edge."""
    frames, expected = simulated(dose, radius)
    found = find_hot_pixels(frames_of(frames), kind="both")
    assert found.attrs["n_found"] == 0
    extra = 3 * maximum_filter(expected, 5)[planted] + 1.0
    frames = frames.astype(np.uint32)
    frames[..., planted] += np.random.default_rng(1).poisson(extra, (*POSITIONS, planted.sum())).astype(np.uint32)
    for given in (frames_of(frames), stemstore.mean_pattern(frames_of(frames))):
        np.testing.assert_array_equal(find_hot_pixels(given), planted)


@pytest.mark.parametrize("radius", [2.0, 6.0, 15.0])
def test_noise_free_patterns_have_no_bad_pixels(radius):
    """However many electrons, no disk, disk edge, overlap or cut at the detector's border is taken for bad."""
    expected = simulated(1, radius)[1]
    for counts in (1e3, 1e9):
        assert not find_hot_pixels(xr.DataArray(expected * counts, dims=("ky", "kx")), kind="both").any()


@pytest.mark.parametrize("fwhm", [1.9, 2.5, 6.0])
def test_focused_spots_are_no_hot_pixels(fwhm):
    """Spots of at least 1.9 pixels belong to the pattern wherever their middle lies."""
    row, column = np.mgrid[:40, :40]
    for middle in ((20.0, 20.0), (20.5, 19.5), (20.5, 20.0), (20.17, 20.17)):
        square = (row - middle[0]) ** 2 + (column - middle[1]) ** 2
        spot = 1e6 * np.exp(-4 * np.log(2) * square / fwhm**2) + 3
        assert not find_hot_pixels(xr.DataArray(spot, dims=("ky", "kx"))).any()


def test_dead_pixels(frames_of, planted):
    """Pixels that stay dark are found where the light is enough to tell, and are no hot ones."""
    frames = bright()
    frames[..., planted] = 0
    scan = frames_of(frames)
    np.testing.assert_array_equal(find_hot_pixels(scan, kind="dead"), planted)
    assert not find_hot_pixels(scan, kind="hot").any()
    np.testing.assert_array_equal(find_hot_pixels(scan, kind="both"), planted)


def test_a_beam_stop_is_not_dead(frames_of):
    """Dark regions and lines two pixels wide and more are left alone."""
    frames = bright()
    frames[..., 40:60, 50:70] = 0
    frames[..., 20:22, :] = 0
    assert not find_hot_pixels(frames_of(frames), kind="dead").any()


def test_flickering_pixels_need_the_variance(frames_of):
    """A pixel that fires now and then is found by its variance, where its mean is inconspicuous."""
    frames = np.random.default_rng(3).poisson(20.0, (10, 10, 30, 30)).astype(np.uint16)
    frames[::3, ::2, 9, 17] += 25
    scan = frames_of(frames)
    assert not find_hot_pixels(stemstore.mean_pattern(scan), threshold=12).any()
    assert np.argwhere(find_hot_pixels(scan, threshold=12).values).tolist() == [[9, 17]]


def test_single_hits_are_not_hot(frames_of):
    """What an X-ray hits in one frame is no hot pixel."""
    frames, _ = simulated(100, 6.0)
    frames[2, 3, 70, 100] = 4000
    assert not find_hot_pixels(frames_of(frames)).any()


def test_raw_frames_with_a_pedestal(frames_of):
    """In raw detector values with pedestal, read-out noise and X-rays hot pixels are found with hardly any other."""
    frames, _ = simulated(300, 6.0, "frame")
    frames[..., 40, 90] += 300
    frames[..., 80, 20] += 40
    found = find_hot_pixels(frames_of(frames)).values
    assert found[40, 90]
    assert found[80, 20]
    assert found.sum() <= 4


def test_one_pass_gives_mean_and_variance(scan, monkeypatch):
    """Both patterns of a scan come from one pass over it."""
    from stemstore.sources.streaming import EventScan, FrameScan

    passes = []
    for source in (EventScan, FrameScan):
        run = source.run
        monkeypatch.setattr(source, "run", lambda self, *a, run=run: (passes.append(1), run(self, *a))[1])
    found = find_hot_pixels(scan)
    assert len(passes) == 1
    given = find_hot_pixels(stemstore.mean_pattern(scan), variance=stemstore.variance_pattern(scan))
    np.testing.assert_array_equal(found, given)


def test_the_mask_is_labelled_and_used(frames_of, planted):
    """The mask carries coordinates and history, and other operations leave its pixels out."""
    frames, _ = simulated(100, 6.0)
    clean = frames_of(frames)
    spoilt = frames.astype(np.uint16)
    spoilt[..., planted] += 500
    scan = frames_of(spoilt)
    found = find_hot_pixels(scan)
    assert found.dtype == bool
    assert found.dims == ("ky", "kx")
    np.testing.assert_array_equal(found.kx_pixel, scan.kx_pixel)
    assert "find_hot_pixels(n_frames=42, threshold=6, kind='hot')" in found.attrs["history"]
    com, expected = (stemstore.center_of_mass(s, mask=~found) for s in (scan, clean))
    np.testing.assert_array_equal(com.total, expected.total)


def test_missing_frames_and_pixels_without_a_number(frames_of):
    """Missing frames do not count; pixels that hold no number are bad, and nobody's neighbours."""
    frames, _ = simulated(100, 6.0)
    valid = np.full(POSITIONS, 2, np.uint8)
    valid[1, 2], frames[1, 2] = 0, 255
    found = find_hot_pixels(frames_of(frames, valid))
    assert not found.any()
    pattern = xr.DataArray(np.full((9, 9), 5.0), dims=("ky", "kx"))
    pattern[4, 4] = np.nan
    assert np.argwhere(find_hot_pixels(pattern).values).tolist() == [[4, 4]]


def test_small_and_transposed_patterns():
    """Detectors smaller than a box work, and dims may be in any order."""
    assert find_hot_pixels(xr.DataArray([[3.0]], dims=("ky", "kx"))).shape == (1, 1)
    values = np.ones((3, 7))
    values[1, 5] = 100
    found = find_hot_pixels(xr.DataArray(values.T, dims=("kx", "ky")))
    assert np.argwhere(found.values).tolist() == [[1, 5]]
    assert found.dims == ("ky", "kx")


def test_wrong_arguments_are_refused(scan):
    """Thresholds, kinds and variances that cannot be used are named."""
    pattern = stemstore.mean_pattern(scan)
    for options in ({"threshold": 0}, {"threshold": np.nan}, {"kind": "warm"}):
        with pytest.raises(InputError, match="expected a positive number, and 'hot', 'dead' or 'both'"):
            find_hot_pixels(pattern, **options)
    with pytest.raises(InputError, match=r"the variance has shape \(3, 3\), the pattern \(14, 10\)"):
        find_hot_pixels(pattern, variance=np.ones((3, 3)))
    with pytest.raises(InputError, match="a variance of its own"):
        find_hot_pixels(scan, variance=np.ones((14, 10)))
