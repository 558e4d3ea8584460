"""Positions picked one by one behave like any selection: streamed, right in any order, and only read where they are."""

import pickle

import cloudpickle
import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.ops.disks.table import table_of
from stemstore.scan.lazy import selection_of
from stemstore.testing.arrays import ArrayFrames

POINTS = np.random.default_rng(6).integers(0, [[11], [9]], (2, 40))


def picked(scan, y, x, dims="point"):
    """Select positions of a dataset or an array one by one."""
    return scan.isel(y=xr.DataArray(y, dims=dims), x=xr.DataArray(x, dims=dims))


def fused(scan):
    """Whether operations on a scan stream its source."""
    return stemstore.explain(scan).startswith("fused")


def test_points_in_any_order_stream_and_equal_numpy(any_kind, counts):
    """Repeated, unsorted positions: pixels, coordinates and every kind of operation."""
    y, x = POINTS
    ds, plain = picked(any_kind, y, x), counts[y, x].astype(float)
    assert fused(ds)
    assert ds.intensity.dims == ("point", "ky", "kx")
    np.testing.assert_array_equal(ds.intensity, plain)
    np.testing.assert_array_equal([ds.y_pixel, ds.x_pixel], POINTS)
    mask = np.random.default_rng(0).random((14, 10)) < 0.3
    np.testing.assert_array_equal(stemstore.virtual_image(ds, mask), (plain * mask).sum((1, 2)))
    np.testing.assert_allclose(stemstore.mean_pattern(ds), plain.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(stemstore.max_pattern(ds), plain.max(0))
    rows = (plain.sum(2) * np.arange(14)).sum(1) / plain.sum((1, 2)) - 6.5
    np.testing.assert_allclose(stemstore.center_of_mass(ds).com_y, rows, rtol=1e-9)
    largest = stemstore.map_frames(ds, lambda frame: float(frame.max()))
    np.testing.assert_array_equal(largest, plain.max((1, 2)))


def test_values_of_positions_follow_repeated_points(any_kind, counts):
    """Weights and optic axes belong to the picked position, not to the stored one."""
    y, x = np.array([7, 0, 7, 3, 7]), np.array([2, 8, 2, 3, 1])
    ds, plain = picked(any_kind, y, x), counts[y, x].astype(float)
    weight = np.array([1.0, 2.0, 5.0, 0.0, 3.0])
    expected = (weight[:, None, None] * plain).sum(0) / weight.sum()
    np.testing.assert_allclose(stemstore.mean_pattern(ds, weights=weight), expected, rtol=1e-12)
    rows = np.array([3.0, 6.5, 9.0, 6.5, 1.0])
    moved = stemstore.virtual_image(ds, stemstore.disk(2), origin=(rows, np.full(5, 4.5)))
    grid = np.indices((14, 10)).astype(float)
    shifts = np.rint(rows - 6.5)
    inside = np.hypot(grid[0] - (6.5 + shifts)[:, None, None], grid[1] - 4.5) < 2
    np.testing.assert_array_equal(moved, (plain * inside).sum((1, 2)))


def test_disks_of_points_are_those_of_their_frames(store_of, tmp_path):
    """Bragg disks found at picked positions are the ones of the whole scan."""
    frames = np.random.default_rng(4).poisson(0.2, (7, 5, 24, 22)).astype(np.uint8)
    frames[:, :, 10:15, 8:13] += 3
    for kind in (True, False):
        ds = stemstore.open(store_of(tmp_path / f"{kind}.zarr", frames, counted=kind))
        whole = table_of(stemstore.find_disks(ds, radius=2.5))
        positions = [(6, 4), (0, 0), (3, 2), (3, 2)]
        some = table_of(stemstore.find_disks(picked(ds, *np.array(positions).T), radius=2.5))
        assert some.scan_dims == ("point",)
        assert len(some.qy) > 0
        for point, position in enumerate(positions):
            here, there = some.disks_of((point,)), whole.disks_of(position)
            for name in ("qy", "qx", "intensity", "correlation"):
                np.testing.assert_array_equal(getattr(some, name)[here], getattr(whole, name)[there])


def test_regions_drawn_as_masks(any_kind, counts):
    """A boolean map picks its positions; the results go back into a map."""
    region = np.hypot(*(np.indices((11, 9)) - [[[5]], [[4]]])) < 3.5
    ds = picked(any_kind, *np.nonzero(region))
    np.testing.assert_allclose(ds.intensity.mean("point"), counts[region].mean(0), rtol=1e-12)
    image = np.zeros((11, 9), np.uint64)
    image[region] = stemstore.virtual_image(ds, np.ones((14, 10), bool))
    np.testing.assert_array_equal(image, np.where(region, counts.sum((2, 3)), 0))


def test_points_by_label(any_kind, counts):
    """The nearest positions to given places along a line."""
    line = {name: xr.DataArray(np.linspace(0.4, n, 5), dims="line") for name, n in (("y", 9.6), ("x", 7.7))}
    ds = any_kind.sel(line, method="nearest")
    assert fused(ds)
    np.testing.assert_array_equal(ds.intensity, counts[ds.y_pixel.values, ds.x_pixel.values])
    np.testing.assert_allclose(ds.y, np.rint(line["y"]))


def test_two_dimensional_points_and_points_of_points(any_kind, counts):
    """A resampled grid keeps its shape; it can be cut and picked from again."""
    y, x = np.indices((6, 5))
    y, x = (y + x) % 11, 8 - (x + y // 2) % 9
    ds = picked(any_kind, y, x, ("a", "b"))
    np.testing.assert_array_equal(ds.intensity.sum(("ky", "kx")), counts[y, x].sum((2, 3)))
    part = ds.isel(a=slice(1, 5, 2), b=[4, 0, 0], ky=slice(2, 9))
    np.testing.assert_array_equal(part.intensity, counts[y, x][1:5:2][:, [4, 0, 0], 2:9])
    again = ds.isel(a=xr.DataArray([5, 0, 5], dims="c"), b=xr.DataArray([1, 1, 1], dims="c"))
    assert fused(again)
    np.testing.assert_array_equal(again.intensity, counts[y, x][[5, 0, 5], [1, 1, 1]])
    np.testing.assert_array_equal(again.intensity.sum("c"), counts[y, x][[5, 0, 5], [1, 1, 1]].sum(0))


def test_arrays_by_themselves(kinds, counts):
    """``vindex`` of the array: slices, integers, negative numbers, and what dask does itself or refuses."""
    array = kinds["stored frames"].intensity.data
    assert selection_of(array.vindex[[0, -1], [2, 3]]) is not None
    np.testing.assert_array_equal(array.vindex[[0, -1], [2, 3], 1:5, 3], counts[[0, -1], [2, 3], 1:5, 3])
    np.testing.assert_array_equal(array.vindex[[3, 1], ..., 2:4], counts[[3, 1], ..., 2:4])
    np.testing.assert_array_equal(array.vindex[[3, 1], [1, 2], [0, 5]], counts[[3, 1], [1, 2], [0, 5]])
    np.testing.assert_array_equal(array.vindex[[[3], [1]], [1, 2, 8]], counts[[[3], [1]], [1, 2, 8]])
    assert array.vindex[np.zeros(0, int), np.zeros(0, int)].compute().shape == (0, 14, 10)
    with pytest.raises(IndexError, match="out of bounds"):
        array.vindex[[0, 11], [0, 0]]
    with pytest.raises(IndexError, match="broadcast"):
        array.vindex[[0, 1], [0, 0, 0]]


def test_repeated_frames_and_single_frames(dataset_of, counts):
    """Scans with more or fewer scan axes."""
    frames = counts.reshape(11, 3, 3, 14, 10)
    ds = dataset_of(ArrayFrames(frames))
    found = picked(ds, [2, 0, 2], [0, 1, 0])
    np.testing.assert_array_equal(
        found.intensity.transpose("point", ...), frames[:, [2, 0, 2], [0, 1, 0]].swapaxes(0, 1)
    )
    row = picked(ds.isel(frame=4), [2, 0, 2], [0, 1, 0])
    assert fused(row)
    np.testing.assert_array_equal(row.intensity, frames[4, [2, 0, 2], [0, 1, 0]])
    along = ds.isel(x=2).isel(frame=xr.DataArray([3, 9], dims="p"), y=xr.DataArray([1, 2], dims="p"))
    assert fused(along)
    np.testing.assert_array_equal(along.intensity, frames[[3, 9], [1, 2], 2])


def test_equal_numbers_of_points_are_not_mistaken_for_each_other(any_kind, counts):
    """Results of different points in one graph keep apart."""
    pairs = [np.array([[n, n + 1], [n, n]]) for n in range(6)]
    sums = [picked(any_kind, *pair).intensity.sum(("ky", "kx")) for pair in pairs]
    for compute in (dask.compute, stemstore.compute):
        for pair, found in zip(pairs, compute(*sums), strict=True):
            np.testing.assert_array_equal(found, counts[tuple(pair)].sum((1, 2)))


def test_missing_frames_stay_missing(memory_of, counts):
    """The state of a frame travels with its position."""
    validity = np.full((11, 9), 2)
    validity[4, 4] = 0
    frames = np.where(validity[..., None, None] > 0, counts, 0)
    ds = picked(memory_of(ArrayFrames(frames, validity)), [4, 4, 5], [4, 3, 4])
    np.testing.assert_array_equal(ds.valid, [0, 2, 2])
    np.testing.assert_allclose(stemstore.mean_pattern(ds), counts[[4, 5], [3, 4]].mean(0))


def test_points_travel(any_kind, counts):
    """Picked positions are pickled with a cluster's graphs, and shared passes know them."""
    ds = picked(any_kind, *POINTS)
    for carry in (pickle, cloudpickle):
        copy = carry.loads(carry.dumps(ds.intensity))
        assert fused(copy)
        np.testing.assert_array_equal(copy, counts[tuple(POINTS)])
    image, mean = stemstore.virtual_image(ds, np.ones((14, 10), bool)), ds.intensity.mean("point")
    together = stemstore.compute(image, mean)
    np.testing.assert_array_equal(together[0], counts[tuple(POINTS)].sum((1, 2)))
    np.testing.assert_allclose(together[1], counts[tuple(POINTS)].mean(0), rtol=1e-12)


def test_only_touched_chunks_are_read_and_each_once(kinds, counts, monkeypatch):
    """Positions in random order read the chunks they lie in, a chunk at the border of two tasks twice."""
    source = kinds["stored frames"].intensity.data._source
    asked, stream = [], type(source._array).stream
    monkeypatch.setattr(
        type(source._array),
        "stream",
        lambda self, wanted, visit: (asked.extend(wanted), stream(self, wanted, visit))[1],
    )
    lone = kinds["stored frames"].copy()
    ds = picked(lone, *POINTS)
    ds.intensity.sum(("ky", "kx")).compute(scheduler="sync")
    tasks = -(-len(np.unique(POINTS, axis=1).T) // ds.intensity.data._source.partition[0])
    assert len(set(asked)) == len({(y // 2, x // 2) for y, x in POINTS.T})
    assert len(asked) < len(set(asked)) + tasks
    for key in ({"y": [10, 0, 5, 1, 9]}, {"y": [10, 0, 5, 1, 9], "x": [8, 0, 7, 8]}):
        asked.clear()
        part = lone.isel(key)
        image, mean = part.intensity.sum(("ky", "kx")), part.intensity.mean(("y", "x"))
        np.testing.assert_array_equal(image.compute(scheduler="sync"), counts[np.ix_(*order(key))].sum((2, 3)))
        assert len(asked) == len(set(asked))
        np.testing.assert_allclose(mean, counts[np.ix_(*order(key))].mean((0, 1)), rtol=1e-12)


def order(key):
    """Rows and columns of a selection."""
    return key["y"], key.get("x", range(9))


@settings(max_examples=40)
@given(st.data())
def test_shuffled_axes_with_values_of_positions(kinds, counts, data):
    """Sorting for the pass never mixes up flags, weights and results."""
    y = data.draw(st.lists(st.integers(0, 10), min_size=1, max_size=12))
    x = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=9))
    ds = kinds[data.draw(st.sampled_from(sorted(kinds)))].isel(y=y, x=x)
    plain = counts[np.ix_(y, x)].astype(float)
    weight = np.random.default_rng(len(y)).random((len(y), len(x)))
    mean = stemstore.mean_pattern(ds, weights=weight)
    np.testing.assert_allclose(mean, np.tensordot(weight, plain, 2) / weight.sum(), rtol=1e-9)
    roi = np.indices(weight.shape).sum(0) % 2 == 0
    np.testing.assert_allclose(stemstore.mean_pattern(ds, roi=roi), plain[roi].mean(0), rtol=1e-12)
    np.testing.assert_array_equal(stemstore.map_frames(ds, np.sum), plain.sum((2, 3)))
