"""What users of xarray and dask do to any array: it works on a lazy scan, and equals the same on NumPy."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import NotFoundError, StaleStoreError

OPERATIONS = {
    "arithmetic": lambda x: (x * 2 - x.mean(("y", "x"))) / (1 + x.isel(y=0)),
    "comparison": lambda x: (x > 1) & (x != 3),
    "where": lambda x: x.where(x > 0),
    "where by label": lambda x: x.where((x.y > 2) & (x.kx < 5), drop=True),
    "clip": lambda x: x.clip(1, 2),
    "astype": lambda x: x.astype(np.float32),
    "transpose": lambda x: x.transpose("kx", "y", "ky", "x"),
    "expand": lambda x: x.expand_dims("t").isel(t=[0, 0]),
    "coarsen": lambda x: x.coarsen(y=2, ky=7, boundary="trim").sum(),
    "coarsen to axes": lambda x: x.coarsen(kx=5).construct(kx=("a", "b")),
    "rolling": lambda x: x.astype(float).rolling(x=3, center=True).mean(),
    "rolling frames": lambda x: x.rolling(y=2).construct("w"),
    "pad": lambda x: x.pad(y=(1, 2), mode="constant", constant_values=7),
    "pad reflected": lambda x: x.pad(kx=2, mode="reflect"),
    "interp": lambda x: x.interp(y=[0.5, 3.25], x=[1.5]),
    "stack": lambda x: x.stack(position=("y", "x")).mean(("ky", "kx")),
    "unstack": lambda x: x.stack(pixel=("ky", "kx")).isel(pixel=slice(3, None)).sum("pixel"),
    "concat": lambda x: xr.concat([x, x.isel(y=[3])], "y"),
    "merge": lambda x: xr.merge([x.rename("a"), (x + 1).rename("b")])["b"],
    "align": lambda x: sum(xr.align(x, x.isel(y=slice(3, None), kx=[1, 5]), join="inner")),
    "broadcast": lambda x: x + xr.DataArray(np.arange(3), dims="t"),
    "reindex": lambda x: x.reindex(y=[9, 2, 4, 20], fill_value=3),
    "reindex nearest": lambda x: x.reindex(x=[0.4, 6.7], method="nearest"),
    "sortby": lambda x: x.sortby("y", ascending=False),
    "groupby": lambda x: x.groupby(x.y % 3).sum(),
    "groupby bins": lambda x: x.groupby_bins("kx", [-9, 0, 9]).mean(),
    "groupby map": lambda x: x.groupby("y").map(lambda row: row.max("x") - row.min("x")),
    "weighted": lambda x: x.weighted(x.y**2).mean(("y", "x")),
    "dot": lambda x: x.dot(xr.DataArray(np.arange(140).reshape(14, 10), dims=("ky", "kx"))),
    "shift": lambda x: x.shift(y=1, fill_value=0),
    "roll": lambda x: x.roll(x=2),
    "diff": lambda x: x.astype(int).diff("y"),
    "cumulate": lambda x: x.cumsum("x"),
    "spread": lambda x: x.std(("y", "x")) + x.var(("ky", "kx")),
    "least": lambda x: x.min(("ky", "kx")),
    "position of the largest": lambda x: x.argmax("kx"),
    "label of the largest": lambda x: x.mean(("y", "x")).idxmax("kx"),
    "product": lambda x: (x + 1).prod("kx"),
    "counting": lambda x: x.count(("y", "x")) + x.any(("y", "x")) + x.all(("y", "x")),
    "float mean": lambda x: x.astype("f8").mean(("ky", "kx"), skipna=False),
    "median": lambda x: x.chunk(y=-1, x=-1).median(("y", "x")),
    "quantile": lambda x: x.chunk(y=-1).quantile(0.25, "y"),
    "integral": lambda x: x.integrate("kx"),
    "gradient": lambda x: x.chunk(ky=-1).differentiate("ky"),
    "is in": lambda x: x.isin([1, 3]),
    "pixelwise": lambda x: xr.apply_ufunc(np.square, x, dask="parallelized", output_dtypes=[x.dtype]),
    "own function": lambda x: xr.apply_ufunc(
        lambda f: np.linalg.norm(f, axis=(-2, -1)),
        x,
        input_core_dims=[["ky", "kx"]],
        dask="parallelized",
        output_dtypes=[float],
    ),
    "blocks": lambda x: x.chunk(y=3, x=4).map_blocks(lambda b: b.mean(("ky", "kx"))),
    "thin": lambda x: x.thin(y=3, kx=2).head(x=4).tail(ky=5),
    "drop": lambda x: x.drop_isel(y=[0, 3]).drop_sel(x=[2.0]),
    "swap": lambda x: x.swap_dims(y="y_pixel").sel(y_pixel=[3, 1]),
    "squeeze": lambda x: x.isel(y=[4]).squeeze("y").sum(("ky", "kx")),
    "histogram by blocks": lambda x: xr.DataArray(
        da.histogram(da.asarray(x.data), bins=5, range=(0, 5))[0], dims="bin"
    ),
    "scalar": lambda x: float(x.sum()) + x,
    "selection by array": lambda x: x.isel(kx=x.isel(y=0, x=0, drop=True).argmax("kx").compute()),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_xarray_on_a_lazy_scan_equals_xarray_on_numpy(kinds, name):
    """Values, types and coordinates are the same; nothing comes back as anything but NumPy."""
    lazy = kinds["stored frames"].intensity
    plain = lazy.copy(data=lazy.values)
    found, expected = OPERATIONS[name](lazy), OPERATIONS[name](plain)
    xr.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.dtype == expected.dtype
    assert type(found.load().data) is np.ndarray


def increased(ds):
    """Add in place."""
    ds["intensity"] += 1


def written(ds):
    """Write through the array itself."""
    ds.intensity.data[2:4, :, 3] = 9


def masked(ds):
    """Assign where a mask holds."""
    data = ds.intensity.data
    data[data > 1] = 0


def added_into(ds):
    """Let a function write into the array."""
    data = ds.intensity.data
    np.multiply(data, 3, out=data)


@pytest.mark.parametrize("change", [increased, written, masked, added_into])
def test_changes_in_place_are_in_every_result(any_kind, counts, change):
    """No operation and no reduction sees the stored pixels again, after a selection neither."""
    lazy = any_kind.copy(deep=True)
    plain = lazy.copy(data={"intensity": counts.copy()})
    change(lazy)
    change(plain)
    expected = plain.intensity.values.astype(int)
    assert stemstore.explain(lazy).startswith("generic")
    part = {"y": [3, 2, 8], "kx": slice(1, 9)}
    for ds, values in ((lazy, expected), (lazy.isel(part), expected[[3, 2, 8], ..., 1:9])):
        np.testing.assert_array_equal(ds.intensity.sum(("ky", "kx")), values.sum((2, 3)))
        np.testing.assert_allclose(ds.intensity.mean(("y", "x")), values.mean((0, 1)), rtol=1e-12)
        np.testing.assert_array_equal(stemstore.max_pattern(ds), values.max((0, 1)))
    picked = lazy.isel(y=xr.DataArray([2, 0], dims="p"), x=xr.DataArray([5, 5], dims="p"))
    np.testing.assert_array_equal(picked.intensity, expected[[2, 0], [5, 5]])


def test_labels_never_decide_what_is_read(kinds, counts):
    """Reversed data under old labels, replaced labels, and renamed axes."""
    ds = kinds["stored events"]
    turned = ds.assign(intensity=(ds.intensity.dims, ds.intensity.data[::-1]))
    np.testing.assert_array_equal(turned.intensity.sum(("ky", "kx")), counts[::-1].sum((2, 3)))
    relabelled = ds.assign_coords(y=ds.y.values[::-1] * 10)
    np.testing.assert_array_equal(relabelled.sel(y=0).intensity.sum(("ky", "kx")), counts[-1].sum((1, 2)))
    np.testing.assert_array_equal(ds.rename(y="row").intensity.mean(("row", "x")), counts.mean((0, 1)))


def test_the_engine_of_xarray_gives_the_same_numbers(kinds, counts):
    """With dask chunks of any kind, without, and dropped from memory again."""
    url = kinds["stored frames"].attrs["source_url"]
    for chunks in (None, {}, "auto", {"y": 3, "ky": 5}, -1):
        with xr.open_dataset(url, engine="stemstore", chunks=chunks) as ds:
            assert (ds.chunks == {}) == (chunks is None)
            part = ds.isel(y=[4, 2, 2], x=slice(None, None, -3))
            expected = counts[[4, 2, 2]][:, ::-3]
            np.testing.assert_array_equal(part.intensity.sum(("ky", "kx")), expected.sum((2, 3)))
            np.testing.assert_array_equal(stemstore.max_pattern(part), expected.max((0, 1)))
            picked = ds.isel(y=xr.DataArray([9, 1], dims="p"), x=xr.DataArray([0, 8], dims="p"))
            np.testing.assert_array_equal(picked.intensity, counts[[9, 1], [0, 8]])
            np.testing.assert_array_equal(ds.intensity.mean(("y", "x")), counts.mean((0, 1)))


def test_datasets_and_trees_reduce_and_select_as_wholes(kinds, counts):
    """Reductions of a dataset, and a tree of two scans cut at once, keep streaming."""
    ds = kinds["stored frames"].drop_vars("valid", errors="ignore")
    np.testing.assert_array_equal(ds.mean(("y", "x")).intensity, counts.mean((0, 1)))
    tree = xr.DataTree.from_dict({"first": ds, "second": kinds["stored events"]})
    part = tree.isel(y=slice(2, 9), kx=[1, 4])
    for name in ("first", "second"):
        assert stemstore.explain(part[name].to_dataset()).startswith("fused")
        np.testing.assert_array_equal(part[name].intensity.sum(("ky", "kx")), counts[2:9, ..., [1, 4]].sum((2, 3)))


def test_dask_itself_may_do_what_it_likes(kinds, counts, tmp_path):
    """Optimising, persisting, delayed blocks, stacking, storing, closing before computing."""
    with kinds["stored frames"] as ds:
        image = ds.intensity.sum(("ky", "kx"))
    total = counts.sum((2, 3))
    np.testing.assert_array_equal(image, total)
    np.testing.assert_array_equal(dask.optimize(image)[0], total)
    np.testing.assert_array_equal(image.persist(), total)
    data = ds.intensity.data
    np.testing.assert_array_equal(dask.optimize(data)[0].sum((2, 3)), total)
    np.testing.assert_array_equal(da.stack([data, data])[1].sum((2, 3)), total)
    blocks = dask.compute(*data.to_delayed().ravel())
    assert sum(int(block.sum()) for block in blocks) == counts.sum()
    np.testing.assert_array_equal(da.map_blocks(np.transpose, data.blocks[0, 1]), counts[:4, 4:8].T)
    assert dask.base.tokenize(data) == dask.base.tokenize(stemstore.open(ds.attrs["source_url"]).intensity.data)
    ds.intensity.isel(y=[3, 1]).to_dataset().chunk(y=1).drop_vars(list(ds.coords)).to_zarr(tmp_path / "part.zarr")
    with xr.open_zarr(tmp_path / "part.zarr") as part:
        np.testing.assert_array_equal(part.intensity, counts[[3, 1]])


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_store_that_changes_after_opening_is_never_mixed_up(store_of, counts, tmp_path, counted, scheduler):
    """Replaced, moved or removed before computing: an error says so; no result is of other data."""
    url, other = tmp_path / "scan.zarr", counts[::-1].copy()
    store_of(url, counts, counted=counted)
    ds = stemstore.open(url)
    picked = ds.isel(y=xr.DataArray([3, 1], dims="p"), x=xr.DataArray([0, 5], dims="p"))
    waiting = [ds.intensity.mean(("y", "x")), ds.intensity, picked.intensity, stemstore.center_of_mass(picked)]
    url.rename(tmp_path / "moved.zarr")
    for result in waiting:
        with pytest.raises((StaleStoreError, NotFoundError), match=r"scan\.zarr"):
            result.compute(scheduler=scheduler)
    store_of(url, other, counted=counted)
    for result in waiting:
        with pytest.raises(StaleStoreError, match="open it again"):
            result.compute(scheduler=scheduler)
    moved = stemstore.open(tmp_path / "moved.zarr")
    np.testing.assert_array_equal(moved.intensity.sum(("ky", "kx")), counts.sum((2, 3)))
    np.testing.assert_array_equal(stemstore.open(url).intensity.sum(("ky", "kx")), other.sum((2, 3)))
    (tmp_path / "moved.zarr").rename(tmp_path / "aside.zarr")
    url.rename(tmp_path / "other.zarr")
    (tmp_path / "aside.zarr").rename(url)  # back in its place: the first dataset is right again
    np.testing.assert_array_equal(waiting[2].compute(scheduler=scheduler), counts[[3, 1], [0, 5]])
