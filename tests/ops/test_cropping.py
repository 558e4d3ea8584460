"""Crops of the detector and the scan keep streaming, keep their units, and keep the optic axis where it was."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.scan.lazy import selection_of
from stemstore.testing.arrays import ArrayEvents, ArrayFrames

SHAPE = (4, 5, 14, 11)
COUNTS = np.random.default_rng(21).poisson(0.7, SHAPE).astype(np.uint8)
KNOWN = {
    "pixel": {},
    "mrad": {"detector_step": ("0.5 mrad", "0.25 mrad"), "detector_center": (6.0, 4.5)},
    "1/angstrom": {"detector_step": "0.5 mrad", "beam_energy": "300 keV", "scan_step": "0.2 nm"},
}
DISKS = {"pixel": 3.6, "mrad": 1.3, "1/angstrom": 0.09}


@pytest.fixture(params=[ArrayFrames, ArrayEvents], ids=["dense", "counted"])
def source(request):
    """The same electrons as frames and as events."""
    return request.param(COUNTS)


@pytest.fixture(params=KNOWN)
def unit(request):
    """Unit of the detector axes."""
    return request.param


def crops(size):
    """Slices of at least two pixels."""
    return st.tuples(st.integers(0, size - 2), st.integers(2, size)).map(lambda p: slice(p[0], min(p[0] + p[1], size)))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture has no state
@given(ky=crops(14), kx=crops(11), y=crops(4))
def test_any_crop_is_the_crop_of_the_whole(dataset_of, ky, kx, y):
    """Coordinates, pixel numbers and detectors of a crop are those of the whole detector, cropped."""
    for unit, known in KNOWN.items():
        whole = dataset_of(ArrayFrames(COUNTS), **known)
        part = whole.isel(y=y, ky=ky, kx=kx)
        assert selection_of(part.intensity.data) is not None
        xr.testing.assert_identical(part.ky, whole.ky[ky])
        assert part.kx_pixel.values.tolist() == list(range(11))[kx]
        disk = stemstore.disk(DISKS[unit])
        weights = disk.weights(whole.intensity)[ky, kx]
        if weights.any():
            np.testing.assert_array_equal(disk.weights(part.intensity), weights)
            expected = (COUNTS[y, :, ky, kx] * weights).sum((2, 3))
            np.testing.assert_array_equal(stemstore.virtual_image(part, disk), expected)
        else:
            with pytest.raises(InputError, match="covers no pixel"):
                disk.weights(part.intensity)


def test_operations_on_crops_equal_numpy(dataset_of, source, unit):
    """Image, centre of mass, mean, variance and binned patterns of a crop have the right numbers and axes."""
    part = dataset_of(source, **KNOWN[unit]).isel(x=slice(1, 4), ky=slice(3, 12), kx=slice(2, 10))
    counts = COUNTS[:, 1:4, 3:12, 2:10].astype(np.int64)
    assert stemstore.explain(part).startswith("fused")
    disk = stemstore.disk(DISKS[unit])
    image, com, mean, variance, binned = stemstore.compute(
        stemstore.virtual_image(part, disk),
        stemstore.center_of_mass(part),
        stemstore.mean_pattern(part),
        stemstore.variance_pattern(part),
        stemstore.bin_detector(part, 2),
    )
    np.testing.assert_array_equal(image, (counts * disk.weights(part.intensity)).sum((2, 3)))
    zero = (6.5, 5.0) if unit == "pixel" else (0.0, 0.0)  # the optic axis of the whole detector
    expected = (counts * part.ky.values[:, None]).sum((2, 3)) / counts.sum((2, 3)) - zero[0]
    np.testing.assert_allclose(com.com_y, expected, rtol=1e-9, atol=1e-12)
    assert com.com_y.attrs["units"] == unit
    np.testing.assert_allclose(mean, counts.mean((0, 1)), rtol=1e-14)
    np.testing.assert_allclose(variance, counts.var((0, 1)), rtol=1e-12)
    np.testing.assert_array_equal(mean.kx, part.kx)
    np.testing.assert_array_equal(binned, counts[..., :8, :].reshape(4, 3, 4, 2, 4, 2).sum((3, 5)))
    np.testing.assert_allclose(binned.kx, part.kx.values.reshape(4, 2).mean(1))


@pytest.mark.parametrize("unit", ["mrad", "1/angstrom"])
def test_crops_by_coordinates(dataset_of, source, unit):
    """`sel` takes the detector in its own unit, borders included, and gives a crop that streams."""
    scan = dataset_of(source, **KNOWN[unit])
    low, high = float(scan.ky[4]), float(scan.ky[9])
    part = scan.sel(ky=slice(low, high), kx=slice(float(scan.kx[2]) - 1e-9, None))
    assert part.ky_pixel.values.tolist() == [4, 5, 6, 7, 8, 9]
    assert part.kx_pixel.values.tolist() == list(range(2, 11))
    assert part.ky.attrs["units"] == unit
    assert stemstore.explain(part).startswith("fused")
    np.testing.assert_array_equal(part.intensity, COUNTS[..., 4:10, 2:])
    np.testing.assert_array_equal(stemstore.mean_pattern(part), COUNTS[..., 4:10, 2:].mean((0, 1)))


def test_crops_of_the_scan_by_coordinates(dataset_of, source):
    """Scan axes are cropped in nm, and a position is found by the nearest coordinate."""
    scan = dataset_of(source, **KNOWN["1/angstrom"])
    part = scan.sel(y=slice(0.15, 0.45), x=slice(0.2, None))
    assert (part.y_pixel.values.tolist(), part.x_pixel.values.tolist()) == ([1, 2], [1, 2, 3, 4])
    assert stemstore.explain(part).startswith("fused")
    disk = stemstore.disk(1.0, unit="mrad")
    whole = stemstore.virtual_image(scan, disk)
    xr.testing.assert_identical(
        stemstore.virtual_image(part, disk).compute(), whole.isel(y=[1, 2], x=[1, 2, 3, 4]).compute()
    )
    one = scan.sel(y=0.41, x=0.79, method="nearest")
    np.testing.assert_array_equal(one.intensity, COUNTS[2, 4])


def test_a_crop_of_a_crop(dataset_of, source, unit):
    """Cropping twice is cropping once."""
    scan = dataset_of(source, **KNOWN[unit])
    twice = scan.isel(ky=slice(2, 12), kx=slice(1, None)).isel(ky=slice(3, 7), kx=slice(0, 6))
    once = scan.isel(ky=slice(5, 9), kx=slice(1, 7))
    xr.testing.assert_identical(twice, once)
    assert stemstore.explain(twice).startswith("fused")


def test_explicit_centres_are_stored_pixels(dataset_of, source, unit):
    """A centre in pixels counts from the first stored pixel, not from the first visible one."""
    scan = dataset_of(source, **KNOWN[unit])
    ring = stemstore.annulus(1, 3.2, center=(7, 5), unit="pixel")
    part = scan.isel(ky=slice(4, None), kx=slice(3, 9))
    np.testing.assert_array_equal(ring.weights(part.intensity), ring.weights(scan.intensity)[4:, 3:9])


def test_segments_and_rings_keep_their_centre(dataset_of, source, unit):
    """Segments and radial profiles of a crop are about the optic axis of the whole detector."""
    scan = dataset_of(source, **KNOWN[unit])
    part = scan.isel(ky=slice(0, 9), kx=slice(3, None))
    for segment in stemstore.segments(0.2 * DISKS[unit], DISKS[unit]).values():
        np.testing.assert_array_equal(segment.weights(part.intensity), segment.weights(scan.intensity)[:9, 3:])
    edges = np.array([0.0, 0.5, 1.0, 1.5]) * DISKS[unit]
    hidden = np.zeros((14, 11), bool)
    hidden[:9, 3:] = True
    whole = stemstore.radial_profile(scan, edges=edges, mask=hidden)
    np.testing.assert_array_equal(stemstore.radial_profile(part, edges=edges), whole)


def test_crops_of_stores(tmp_path):
    """A store, dense or counted, is cropped like the raw file that it was made of."""
    np.save(tmp_path / "raw.npy", COUNTS.astype(np.uint16) * 100)
    known = {"scan_step": "0.2 nm", "detector_step": "0.5 mrad", "beam_energy": "300 keV"}
    limits = {"background_threshold": 50, "xray_threshold": 10_000}
    stemstore.convert(tmp_path / "raw.npy", tmp_path / "dense.zarr", **known)
    stemstore.convert(tmp_path / "raw.npy", tmp_path / "counted.zarr", count=True, **limits, **known)
    raw = stemstore.open(tmp_path / "raw.npy", **known)
    for name in ("dense.zarr", "counted.zarr"):
        whole = stemstore.open(tmp_path / name)
        part = whole.sel(ky=slice(-0.1, 0.1), kx=slice(-0.06, None)).isel(y=slice(1, 3))
        assert stemstore.explain(part).startswith("fused")
        np.testing.assert_array_equal(part.ky, raw.sel(ky=slice(-0.1, 0.1)).ky)
        pattern = stemstore.mean_pattern(part)
        rows, columns = part.ky_pixel.values, part.kx_pixel.values
        expected = whole.intensity.values[1:3][..., rows[:, None], columns].mean((0, 1))
        np.testing.assert_allclose(pattern, expected, rtol=1e-14)
        assert pattern.sizes["ky"] < 14
