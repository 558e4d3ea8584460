"""Reductions as users of NumPy, xarray and dask write them stream their source, and differ from NumPy in nothing."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.scan.lazy import ScanArray
from stemstore.scan.reductions import streamed
from stemstore.selection import Selection
from stemstore.sources.streaming import FrameScan
from stemstore.testing.arrays import ArrayFrames

NAMES = ("sum", "mean", "max")
DETECTOR, SCAN = ("ky", "kx"), ("y", "x")


def streams(result):
    """Whether a lazy result is made of streamed tasks alone."""
    layers = getattr(result, "data", result).dask.layers
    return any(name.startswith("fused-") for name in layers) and not any(name.startswith("scan-") for name in layers)


def lazy(frames):
    """A lazy array over frames in memory, in several blocks and partitions."""
    source = FrameScan(ArrayFrames(frames))
    source.chunk, source.partition = (2, 2), (3, 4)
    return ScanArray(source, Selection.full(frames.shape))


def same(result, expected):
    """Compare values and type."""
    computed = np.asarray(result)
    assert computed.dtype == result.dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(computed, expected)


@pytest.mark.parametrize("dims", [DETECTOR, SCAN, ("kx", "ky", "x"), ("x", "ky", "y"), None])
@pytest.mark.parametrize("name", NAMES)
def test_methods_of_xarray_stream_and_equal_numpy(any_kind, counts, name, dims):
    """Over the detector, over the scan, over more axes, over everything."""
    plain = xr.DataArray(counts, dims=SCAN + DETECTOR)
    result = getattr(any_kind.intensity, name)(dims)
    assert streams(result) == (name != "max" or dims is None or set(SCAN) <= set(dims))
    same(result, getattr(plain, name)(dims))


@pytest.mark.parametrize("name", NAMES)
def test_functions_and_methods_of_arrays_stream(kinds, counts, name):
    """NumPy's functions and the array's own methods, negative axes, axes that stay."""
    array, plain = kinds["stored frames"].intensity.data, getattr(counts, name)((0, 1))
    function = getattr(np, name)
    for result in (function(array, (0, 1)), function(array, axis=(-4, -3)), getattr(array, name)((1, 0))):
        assert streams(result)
        same(result, plain)
    same(function(array, axis=(0, 1), keepdims=True), plain[None, None])
    same(function(kinds["stored frames"].intensity.mean("kx")), function(counts.mean(3)))


@pytest.mark.parametrize(
    "key",
    [
        {"y": slice(None, None, -2), "x": [8, 0, 0, 3]},
        {"ky": slice(3, 12, 2), "kx": [9, 1]},
        {"y": 4},
        {"y": 4, "x": 2},
        {"y": [10, 0, 9, 1, 10]},
    ],
)
def test_selections_stream_too(any_kind, counts, key):
    """Whatever was selected before, the reduction is over that."""
    image, plain = any_kind.intensity.isel(key), xr.DataArray(counts, dims=SCAN + DETECTOR).isel(key)
    for name in NAMES:
        for dims in (DETECTOR, [dim for dim in SCAN if dim in image.dims]):
            result = getattr(image, name)(dims)
            assert streams(result) or not dims or (name == "max" and dims == DETECTOR)
            same(result, getattr(plain, name)(dims))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4"])
def test_sums_of_all_integers_are_exact(dtype):
    """The extreme values of every type are summed in the type that NumPy uses."""
    frames = np.random.default_rng(0).integers(
        np.iinfo(dtype).min, np.iinfo(dtype).max, (5, 7, 6, 5), dtype, endpoint=True
    )
    frames[0, :, :3] = np.iinfo(dtype).max
    for axes in ((0, 1), (2, 3)):
        for function in (np.sum, np.mean, np.max):
            same(function(lazy(frames), axes), function(frames, axes))


@pytest.mark.parametrize("dtype", ["u8", "i8", "f4", "f8", "?"])
def test_types_with_rules_of_their_own_go_the_inherited_way(dtype):
    """Sums that wrap, NaN and rounding are left to dask."""
    frames = np.random.default_rng(0).integers(0, 2, (5, 7, 6, 5)).astype(dtype)
    if dtype[0] == "f":
        frames[2, 2, 3, 3] = np.nan
    image, plain = xr.DataArray(lazy(frames)), xr.DataArray(frames)
    for name in NAMES:
        for dims in (image.dims[:2], image.dims[2:]):
            result = getattr(image, name)(dims)
            assert not streams(result)
            np.testing.assert_allclose(result, getattr(plain, name)(dims), rtol=1e-6)
            np.testing.assert_array_equal(np.isnan(result), np.isnan(getattr(plain, name)(dims)))
            np.testing.assert_allclose(getattr(np, name)(image.data, (2, 3)), getattr(np, name)(frames, (2, 3)), 1e-6)


def test_keywords_go_the_inherited_way(counts):
    """A type, a place for the result, one axis, repeated detector rows, an axis that is not there."""
    array = lazy(counts)
    same(np.sum(array, (2, 3), dtype="f4"), counts.sum((2, 3), dtype="f4"))
    same(array.mean((2, 3), dtype="f4"), counts.mean((2, 3), dtype="f4"))
    same(array.sum((2, 3), split_every=2), counts.sum((2, 3)))
    same(np.max(array, 3), counts.max(3))
    repeated = array[:, :, [1, 1, 0]].sum((2, 3))  # weights above one are summed in floats
    assert not streams(repeated)
    same(repeated, counts[:, :, [1, 1, 0]].sum((2, 3)))
    same(array[:, :, 3].mean(2), counts[:, :, 3].mean(2))
    place = da.zeros((11, 9), dtype=np.uint64)
    np.sum(array, axis=(2, 3), out=place)
    same(place, counts.sum((2, 3)))
    with pytest.raises(np.exceptions.AxisError, match="out of bounds"):
        np.mean(array, (3, 4))


def test_functions_of_numpy_take_labelled_arrays(kinds, counts):
    """``np.sum`` and its kind of a DataArray, by axis."""
    image = kinds["stored events"].intensity
    for function in (np.sum, np.mean, np.max):
        found = function(image, axis=(0, 1))
        assert streams(found)
        same(found, function(counts, axis=(0, 1)))
    same(np.sum(image), counts.sum())


def test_empty_selections_behave_as_in_numpy(counts):
    """Sums of nothing are zero."""
    same(lazy(counts)[:0].sum((0, 1)), counts[:0].sum((0, 1)))
    same(lazy(counts)[:, :, :0].sum((2, 3)), counts[:, :, :0].sum((2, 3)))


def test_changed_arrays_are_reduced_as_they_are(counts):
    """A value that was assigned is in the sum."""
    array = lazy(counts)
    array[0, 0] = 7
    assert streamed(array, "sum", ((2, 3),), {}) is None
    assert array.sum((2, 3))[0, 0].compute() == 7 * 140


def test_missing_frames_count_as_the_zeros_they_show(frames_of, counts):
    """The plain mean knows no validity; the mean pattern does."""
    frames = counts.copy()
    frames[0] = 0
    validity = np.full(counts.shape[:2], 2)
    validity[0] = 0
    ds = frames_of(frames, validity)
    same(ds.intensity.mean(SCAN), frames.mean((0, 1)))
    np.testing.assert_allclose(stemstore.mean_pattern(ds), frames[1:].mean((0, 1)))


def test_naive_reductions_share_a_pass_with_operations(any_kind, monkeypatch):
    """Computed together, everything is read once."""
    source, seen = any_kind.intensity.data._source, []
    run = type(source).run
    monkeypatch.setattr(
        type(source), "run", lambda self, s, *args: (seen.append(s.n_positions), run(self, s, *args))[1]
    )
    image = any_kind.intensity
    wanted = image.mean(DETECTOR), image.sum(SCAN), image.max(SCAN), stemstore.center_of_mass(image)
    found = stemstore.compute(*wanted, scheduler="sync")
    assert sum(seen) == 99
    for one, together in zip(wanted, found, strict=True):
        xr.testing.assert_equal(one.compute(), together)


def test_groups_of_positions_stream_each(any_kind, counts):
    """The mean pattern of every group of rows, as xarray's groupby gives it."""
    rows = xr.DataArray(np.arange(11) % 3, dims="y", name="part")
    found = any_kind.intensity.groupby(rows).mean(("y", "x"))
    for part in range(3):
        np.testing.assert_allclose(found.sel(part=part), counts[part::3].mean((0, 1)), rtol=1e-12)
