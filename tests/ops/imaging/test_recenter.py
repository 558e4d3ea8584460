"""Patterns moved to the common centre."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError
from stemstore.ops.imaging.recenter import recenter
from stemstore.scan.lazy import ScanArray
from stemstore.testing.arrays import ArrayEvents, ArrayFrames

REST = np.array([6.5, 4.5])  # the middle of the detector of the small scan


@pytest.fixture
def walk():
    """Whole pixels by which the optic axis wanders, (y, x, 2)."""
    return np.random.default_rng(5).integers(-3, 4, (11, 9, 2))


def moved(counts, walk):
    """Patterns moved back the slow way, and the electrons lost."""
    out = np.zeros_like(counts)
    for place in np.ndindex(counts.shape[:2]):
        rows, columns = np.nonzero(counts[place])
        r, c = rows - walk[place][0], columns - walk[place][1]
        stay = (r >= 0) & (r < counts.shape[2]) & (c >= 0) & (c < counts.shape[3])
        out[place][r[stay], c[stay]] = counts[place][rows[stay], columns[stay]]
    return out, counts.sum((2, 3), dtype=int) - out.sum((2, 3), dtype=int)


def maps(walk, shift=0.0):
    """The walk as places of the optic axis on pixel axes."""
    return tuple(xr.DataArray(walk[..., i] + REST[i] + shift, dims=("y", "x")) for i in (0, 1))


def test_patterns_come_to_the_centre(scan, counts, walk):
    """Frames and events move by whole pixels, half to even; what leaves is counted, and nothing else changes."""
    expected, lost = moved(counts, walk)
    result = recenter(scan, maps(walk))
    assert isinstance(result.intensity.data, ScanArray)
    np.testing.assert_array_equal(result.intensity, expected)
    np.testing.assert_array_equal(result.lost, lost)
    assert result.lost.dims == ("y", "x")
    assert result.lost.dtype == np.uint64
    assert lost.max() > 0
    xr.testing.assert_identical(result.intensity.coords.to_dataset(), scan.intensity.coords.to_dataset())
    np.testing.assert_array_equal(recenter(scan, maps(walk, 0.4)).intensity, expected)


def test_every_operation_streams(scan, counts, walk):
    """Operations on recentred scans are those on the moved frames, in one pass."""
    expected, _ = moved(counts, walk)
    result = recenter(scan, maps(walk))
    mask = np.indices(counts.shape[2:]).sum(0) % 3 == 0
    pair = stemstore.virtual_image(result, mask), stemstore.mean_pattern(result)
    assert stemstore.explain(*pair).startswith("fused: one pass")
    np.testing.assert_array_equal(pair[0], expected[..., mask].sum(-1))
    np.testing.assert_allclose(pair[1], expected.mean((0, 1)))
    np.testing.assert_array_equal(stemstore.max_pattern(result), expected.max((0, 1)))
    boxes = expected.reshape(11, 9, 7, 2, 5, 2).sum((3, 5))
    np.testing.assert_array_equal(stemstore.bin_detector(result, 2), boxes)


def test_moving_patterns_or_detectors(scan, walk):
    """A detector on recentred patterns sees what a detector that follows the origin sees."""
    disk = stemstore.disk(2.5)
    moving = stemstore.virtual_image(scan, disk, origin=maps(walk))
    resting = stemstore.virtual_image(recenter(scan, maps(walk)), disk)
    far = np.abs(walk).max(-1) > 1  # a disk that leaves the detector sees less
    np.testing.assert_array_equal(moving.values[~far], resting.values[~far])
    follows = stemstore.center_of_mass(scan, mask=disk, origin=maps(walk))
    rests = stemstore.center_of_mass(recenter(scan, maps(walk)), mask=disk)
    np.testing.assert_allclose(follows.com_y.values[~far], rests.com_y.values[~far], atol=1e-12)


def test_the_origin_of_the_scan_itself(scan, counts, walk):
    """An origin that the scan carries is followed, and does not stay: the result needs no second time."""
    carried = stemstore.calibrate(scan, origin=maps(walk), detector_step="0.5 mrad")
    result = recenter(carried)
    assert not {"origin_ky", "origin_kx"} & {*result.coords, *result.intensity.coords, *result.lost.coords}
    np.testing.assert_array_equal(result.intensity, moved(counts, walk)[0])
    np.testing.assert_array_equal(result.intensity.ky, carried.ky)
    assert "recenter(origin='moved by" in result.intensity.attrs["history"]
    with pytest.raises(InputError, match="carries no origin"):
        recenter(result)


def test_selections_before_and_after(scan, walk):
    """Parts of a recentred scan are the recentred parts, on the stored detector."""
    carried = stemstore.calibrate(scan, origin=maps(walk))
    whole = recenter(carried)
    points = {dim: xr.DataArray(chosen, dims="p") for dim, chosen in (("y", [5, 0, 5]), ("x", [1, 6, 1]))}
    for key in (points, {"y": slice(None, None, -2), "kx": slice(2, 7)}, {"x": [3, 3, 0], "ky": slice(None, None, -1)}):
        part = recenter(carried.isel(key))
        xr.testing.assert_equal(part.intensity, whole.intensity.isel(key))
        np.testing.assert_array_equal(part.lost, whole.lost.isel({k: v for k, v in key.items() if k in "yx"}))


def test_arrays_that_were_changed(scan, counts, walk):
    """Changed and computed scans are moved as they are seen, backwards too."""
    expected, lost = moved(counts, walk)
    for image in (scan.intensity * 2, scan.intensity.compute() * 2):
        result = recenter(image, maps(walk))
        np.testing.assert_array_equal(result.intensity, expected * 2)
        np.testing.assert_array_equal(result.lost, lost * 2)
    back = {"ky": slice(None, None, -1)}
    np.testing.assert_array_equal(
        recenter((scan.intensity * 2).isel(back), maps(walk)).intensity, expected[:, :, ::-1] * 2
    )
    with pytest.raises(InputError, match="gaps along kx"):
        recenter((scan.intensity * 2).isel(kx=slice(None, None, 2)), maps(walk))


def test_missing_frames(dataset_of, counts, walk):
    """The origin of a missing frame does not matter; nothing of it is lost."""
    valid = np.full((11, 9), 2)
    valid[3, 4] = 0
    frames = counts.copy()
    frames[3, 4] = 0
    axis = maps(walk)
    axis[0][3, 4] = np.nan
    for kind in (ArrayFrames, ArrayEvents):
        result = recenter(dataset_of(kind(frames, valid)), axis)
        np.testing.assert_array_equal(result.intensity, moved(frames, walk)[0])
        assert int(result.lost[3, 4]) == 0


def test_maps_on_detector_pixels_are_left_out(scan, walk):
    """A dark reference no longer fits moved patterns; maps of the scan stay."""
    dark = xr.DataArray(np.zeros((14, 10)), dims=("ky", "kx"))
    result = recenter(scan.assign(dark=dark, image=(("y", "x"), np.ones((11, 9)))), maps(walk))
    assert set(result.data_vars) == {"intensity", "lost", "image"}


def test_repeated_positions_with_different_origins(scan, counts):
    """A position that is selected twice may move by two distances."""
    twice = scan.isel(y=slice(None, None, -1), x=[2, 2, 0])
    axis = np.full((11, 3), REST[0]), np.full((11, 3), REST[1])
    axis[0][7, 1] += 2
    result = recenter(twice, axis)
    assert isinstance(result.intensity.data, ScanArray)
    expected = counts[::-1, [2, 2, 0]]
    expected[7, 1, :-2] = expected[7, 1, 2:]
    expected[7, 1, -2:] = 0
    np.testing.assert_array_equal(result.intensity, expected)
    np.testing.assert_array_equal(stemstore.mean_pattern(result), expected.mean((0, 1)))
    lost = int(result.lost[7, 1]), int(result.lost.sum())
    assert lost == (counts[3, 2, :2].sum(),) * 2


def test_a_descan_that_was_fitted(scan_with_descan):
    """Patterns of a scan whose beam wanders come to rest: the disk of the mean pattern gets its sharp edge back."""
    ds, disk = scan_with_descan
    axis = stemstore.fit_descan(stemstore.center_of_mass(ds), "plane")
    rest = stemstore.center_of_mass(recenter(ds, axis))
    assert float(np.hypot(rest.com_y, rest.com_x).max()) < 0.75  # half a pixel along each axis
    sharp = stemstore.mean_pattern(recenter(ds, axis)).values
    assert ((sharp > 0) & (sharp < 10)).sum() < disk.sum() / 2


@pytest.fixture
def scan_with_descan(frames_of):
    """A disk that wanders linearly over the detector."""
    y, x, ky, kx = np.ogrid[:8, :9, :40, :41]
    inside = (ky - 19.5 - 0.9 * (y - 3.5)) ** 2 + (kx - 20 + 0.7 * (x - 4)) ** 2 < 64
    return frames_of(inside.astype(np.uint8) * 10), inside[0, 0]
