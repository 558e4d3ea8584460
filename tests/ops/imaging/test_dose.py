"""Scans at a lower dose, and halves of scans."""

import pickle

import dask
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.imaging.dose import split_halves, thin
from stemstore.scan.lazy import ScanArray
from stemstore.testing.arrays import ArrayEvents, ArrayFrames


@pytest.fixture(scope="module")
def many():
    """Electrons of a scan, three per pixel."""
    return np.random.default_rng(3).poisson(3.0, (6, 7, 8, 9)).astype(np.uint8)


@pytest.fixture
def counted(many, dataset_of):
    """The scan as events."""
    return dataset_of(ArrayEvents(many), scan_step="0.2 nm")


def test_thinning_is_a_measurement_at_a_lower_dose(counted, many):
    """The share of electrons is that of the fraction, and counts of uniform light stay Poisson distributed."""
    low = thin(counted, 0.25).intensity
    n = many.sum(dtype=int)
    assert abs(int(low.sum()) - 0.25 * n) < 5 * np.sqrt(n * 0.25 * 0.75)
    pixels = low.values.ravel().astype(float)
    spread = 5 * np.sqrt(2 / pixels.size) * pixels.mean()
    assert abs(pixels.var() - pixels.mean()) < spread


def test_ends_of_the_range(counted, many):
    """Nothing is kept with probability 0, everything with 1."""
    assert int(thin(counted, 0).intensity.sum()) == 0
    np.testing.assert_array_equal(thin(counted, 1).intensity, many)
    assert thin(counted, 0.5).intensity.dtype == many.dtype


def test_selections_before_and_after(counted):
    """A part of a thinned scan is the thinned part: points, steps, reversed and repeated positions, crops, chunks."""
    whole = thin(counted, 0.4, seed=7)
    points = {dim: xr.DataArray(chosen, dims="p") for dim, chosen in (("y", [5, 0, 5]), ("x", [1, 6, 1]))}
    for key in (points, {"y": slice(None, None, -2), "kx": slice(2, 7)}, {"x": [3, 3, 0]}, {"y": 4, "ky": slice(1, 5)}):
        part = thin(counted.isel(key), 0.4, seed=7)
        np.testing.assert_array_equal(part.intensity, whole.intensity.isel(key))
        assert isinstance(part.intensity.data, ScanArray)
    chunked = thin(counted.chunk({"y": 1, "x": 2}), 0.4, seed=7)
    assert chunked.intensity.data.chunks[:2] == ((1,) * 6, (2, 2, 2, 1))
    np.testing.assert_array_equal(chunked.intensity, whole.intensity)


def test_any_source_and_pixels_of_a_counting_detector(many, dataset_of):
    """Raw events and dense frames of electrons lose the same ones."""
    ds = [dataset_of(kind(many)) for kind in (ArrayEvents, ArrayFrames)]
    np.testing.assert_array_equal(thin(ds[1], 0.3, counting=True).intensity, thin(ds[0], 0.3).intensity)
    halves = split_halves(ds[1], counting=True)
    np.testing.assert_array_equal(halves[0].intensity + halves[1].intensity, many)


def test_doses_are_contained_in_each_other(counted):
    """Of one seed the lower dose is a part of the higher one; another seed chooses anew."""
    doses = [thin(counted, f, seed=1).intensity.values for f in (0.1, 0.5, 0.6)]
    assert (doses[0] <= doses[1]).all()
    assert (doses[1] <= doses[2]).all()
    assert (thin(counted, 0.6, seed=2).intensity.values != doses[2]).any()


def test_thinning_twice_is_thinning_by_the_product(counted, many):
    """What is thinned again with the same seed is chosen independently, also halves of a thinned scan."""
    n = many.sum(dtype=int)
    for twice in (
        thin(thin(counted, 0.5), 0.5),
        split_halves(thin(counted, 0.5))[1],
        thin(split_halves(counted)[0], 0.5),
    ):
        assert abs(int(twice.intensity.sum()) - n / 4) < 5 * np.sqrt(n * 3 / 16)


def test_halves(counted, many):
    """Halves add up, are uncorrelated where the light is uniform, and the first is the scan at half the dose."""
    first, second = split_halves(counted, seed=5)
    a, b = (half.intensity.values.astype(float) for half in (first, second))
    np.testing.assert_array_equal(a + b, many)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)
    np.testing.assert_array_equal(first.intensity, thin(counted, 0.5, seed=5).intensity)
    assert "split_halves(half=1, seed=5)" in second.intensity.attrs["history"]


def test_doses(counted, many):
    """A dose per frame or per area is that share of what was detected."""
    mean = many.sum(dtype=int) / 42
    for low in (thin(counted, dose=mean / 4), thin(counted, dose=mean / 4 / 4, per="angstrom^2")):  # 2 x 2 angstrom
        np.testing.assert_array_equal(low.intensity, thin(counted, 0.25).intensity)
    assert "dose=" in low.intensity.attrs["history"]
    assert "per='angstrom^2'" in stemstore.virtual_image(low, stemstore.disk(3)).attrs["history"]


def test_missing_frames_have_no_dose(many, dataset_of):
    """The mean is over frames that were recorded, and repeated frames add up on the specimen."""
    valid = np.full((6, 7), 2)
    frames = many.copy()
    valid[2:] = 0
    frames[2:] = 0
    low = thin(dataset_of(ArrayEvents(frames, valid)), dose=many[:2].sum() / 14 / 2)
    assert "fraction=0.5," in low.intensity.attrs["history"]
    series = dataset_of(ArrayEvents(np.stack([many, many])), scan_step="0.2 nm")
    low = thin(series, dose=many.sum() / 42 / 4, per="angstrom^2")  # both frames together have twice that
    assert "fraction=0.5," in low.intensity.attrs["history"]


def test_a_dataset_stays_one(counted):
    """Datasets and DataArrays come back as what they are, with their other variables and coordinates."""
    ds = counted.assign(more=("y", np.arange(6)))
    low = thin(ds, 0.5)
    assert isinstance(low, xr.Dataset)
    assert low.more.identical(ds.more)
    assert isinstance(thin(counted.intensity, 0.5), xr.DataArray)
    xr.testing.assert_identical(low.intensity.coords.to_dataset(), counted.intensity.coords.to_dataset())


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_schedulers(counted, scheduler):
    """Threads and processes keep the same electrons, apart and in one pass."""
    low = thin(counted, 0.5)
    results = [stemstore.virtual_image(low, stemstore.disk(3)), low.intensity.sum(("y", "x")), low.intensity[2:4, 1]]
    expected = [result.compute(scheduler="sync") for result in results]
    with dask.config.set(scheduler=scheduler, num_workers=2):
        for found, one in zip(stemstore.compute(*results), expected, strict=True):
            np.testing.assert_array_equal(found, one)
    again = pickle.loads(pickle.dumps(low.intensity))
    np.testing.assert_array_equal(again, low.intensity)


def test_results_share_a_pass(counted):
    """Operations on a thinned scan stream, in one pass; those of the scan itself are another."""
    low = thin(counted, 0.5)
    images = [stemstore.virtual_image(one, stemstore.disk(3)) for one in (low, low.isel(), counted)]
    assert stemstore.explain(*images[:2]).startswith("fused: one pass")
    assert stemstore.explain(*images).startswith("fused: 2 passes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, "probability from 0 to 1"),
        ({"fraction": float("nan")}, "probability from 0 to 1"),
        ({"fraction": True}, "probability from 0 to 1"),
        ({}, "give one of them"),
        ({"fraction": 0.5, "dose": 3}, "give one of them"),
        ({"dose": -1}, "a number of electrons from 0"),
        ({"dose": 1e6}, "thinning can only take electrons away"),
        ({"dose": 1, "per": "nm"}, "expected one of frame, angstrom"),
        ({"fraction": 0.5, "seed": -1}, "whole number from 0"),
        ({"fraction": 0.5, "seed": 0.5}, "whole number from 0"),
    ],
)
def test_impossible_arguments(counted, options, message):
    """Probabilities, doses and seeds that make no sense are refused."""
    with pytest.raises(InputError, match=message):
        thin(counted, **options)


def test_scans_that_cannot_be_thinned(many, dataset_of):
    """Dense scans are refused unless their pixels are electrons; so is what was computed or changed."""
    dense = dataset_of(ArrayFrames(many))
    with pytest.raises(InputError, match=r"dense: its pixels \(uint8\) may be no numbers of electrons"):
        thin(dense, 0.5)
    with pytest.raises(InputError, match="split_halves takes electrons one by one"):
        split_halves(dense)
    real = dataset_of(ArrayFrames(many.astype(np.float32)))
    with pytest.raises(InputError, match="float32 holds no numbers of electrons"):
        thin(real, 0.5, counting=True)
    counted = dataset_of(ArrayEvents(many))
    for changed in (counted.intensity * 2, counted.intensity.compute()):
        with pytest.raises(InputError, match="no plain selection"):
            thin(changed, 0.5)
    with pytest.raises(CalibrationMissingError, match="scan_step"):
        thin(counted, dose=1, per="angstrom^2")
    negative = dataset_of(ArrayFrames(np.full((1, 1, 2, 2), -1)))
    with pytest.raises(InputError, match="pixel 0 of frame 0 holds -1"):
        thin(negative, 0.5, counting=True).compute()
