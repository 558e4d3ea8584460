"""Functions for every scan of a series or a tree."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError, ScanWarning
from stemstore.scan.series.mapping import map_scans
from stemstore.scan.series.open import open_series

N = 3


@pytest.fixture(scope="module")
def stack():
    """Electrons per pixel of several scans."""
    return np.random.default_rng(8).poisson(0.5, (N, 5, 6, 9, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, stack, store_of):
    """The scans as stores."""
    folder = tmp_path_factory.mktemp("series")
    for number, counts in enumerate(stack):
        store_of(folder / f"s{number}.zarr", counts, counted=True)
    return folder


def test_patterns_of_every_scan(folder, stack):
    """What an operation gives for all positions of a scan comes along the series, streamed and with its names."""
    series = open_series(folder)
    patterns = map_scans(stemstore.mean_pattern, series)
    assert patterns.dims == ("time", "ky", "kx")
    assert patterns.scan.values.tolist() == ["s0", "s1", "s2"]
    assert stemstore.explain(patterns).startswith("fused: 3 passes over 90 positions")
    np.testing.assert_array_equal(patterns, stack.mean((1, 2)))


def test_results_over_a_tree(folder, stack):
    """A tree gives a tree, arrays under their own names, lazy until all are computed in one pass for each scan."""
    tree = open_series(folder, tree=True)
    images, patterns = map_scans(stemstore.virtual_image, tree, np.ones((9, 8))), map_scans(stemstore.max_pattern, tree)
    assert stemstore.explain(images["s1"].virtual_image, patterns["s1"].max_pattern).startswith("fused: one pass")
    images, patterns = stemstore.compute(images, patterns)
    assert isinstance(images["s1"].virtual_image.data, np.ndarray)
    for number, counts in enumerate(stack):
        np.testing.assert_array_equal(images[f"s{number}"].virtual_image, counts.sum((-1, -2)))
        np.testing.assert_array_equal(patterns[f"s{number}"].max_pattern, counts.max((0, 1)))
        assert images[f"s{number}"].time == number


def test_arguments_of_every_scan(folder, stack):
    """Trees and arrays along the series among the arguments give each scan its part."""
    series, tree = open_series(folder), open_series(folder, tree=True)
    factor = xr.DataArray([1.0, 2.0, 3.0], dims="time")

    def scaled(scan, by, offset):
        return (scan.intensity.sum(("ky", "kx")) * by + offset).rename("scaled")

    whole = map_scans(scaled, series, factor, offset=5)
    np.testing.assert_allclose(whole, stack.sum((-1, -2)) * np.array([1, 2, 3])[:, None, None] + 5)
    sums = map_scans(lambda scan: scan.intensity.sum(("ky", "kx")), tree)
    twice = map_scans(lambda scan, other: scan.intensity.sum(("ky", "kx")) + other["intensity"], tree, sums)
    np.testing.assert_array_equal(twice["s2"]["intensity"], 2 * stack[2].sum((-1, -2)))


def test_own_maps_stay_with_their_scans(tmp_path, stack, store_of):
    """Coordinates that differ from scan to scan are those of each scan in the results."""
    for number in range(2):
        store_of(tmp_path / f"s{number}.zarr", stack[number], counted=False)
        ds = stemstore.open(tmp_path / f"s{number}.zarr")
        maps = (np.full((5, 6), 4.0 + number), np.full((5, 6), 3.5))
        stemstore.save_calibration(stemstore.calibrate(ds, origin=maps))
    series = open_series(tmp_path)
    assert series.origin_ky.dims == ("time", "y", "x")
    np.testing.assert_array_equal(series.origin_ky, np.arange(4.0, 6.0)[:, None, None] * np.ones((5, 6)))
    images = map_scans(stemstore.virtual_image, series, np.ones((9, 8)))
    np.testing.assert_array_equal(images.origin_ky, series.origin_ky)
    counted = map_scans(lambda scan: images.sel(time=scan.time).assign_coords(n=("y", [int(scan.time)] * 5)), series)
    assert counted.n.dims == ("time", "y")
    com = stemstore.center_of_mass(series, unit="pixel")
    for number in range(2):
        alone = stemstore.center_of_mass(stemstore.open(tmp_path / f"s{number}.zarr"), unit="pixel")
        np.testing.assert_allclose(com.com_y[number], alone.com_y)


def test_maps_of_every_scan(folder):
    """Operations on maps (y, x) say how a series is worked on, and give what they give for each scan alone."""
    com = stemstore.center_of_mass(open_series(folder)).compute()
    with pytest.raises(InputError, match=r"for each scan of a series \(stemstore.map_scans\)"):
        stemstore.divergence(com)
    turned = map_scans(stemstore.divergence, com)
    np.testing.assert_allclose(turned[1], stemstore.divergence(com.isel(time=1)))


def test_a_tree_is_no_scan(folder):
    """An operation that is given a tree says how it is done."""
    with pytest.raises(InputError, match=r"tree of scans; call them for each: stemstore.map_scans"):
        stemstore.virtual_image(open_series(folder, tree=True), stemstore.disk(3))


def test_what_cannot_be_put_together(folder):
    """Wrong arguments and results of other kinds are named, with the scan."""
    series, tree = open_series(folder), open_series(folder, tree=True)
    with pytest.raises(InputError, match=r"got Dataset; open them with stemstore.open_series"):
        map_scans(stemstore.mean_pattern, series.isel(time=0))
    with pytest.raises(InputError, match="gave float for scan 's0'; expected a DataArray or a Dataset"):
        map_scans(lambda scan: 1.0, series)
    with pytest.raises(InputError, match="no scan 's0'"):
        map_scans(lambda scan, other: scan, tree, xr.DataTree())
    with pytest.raises(InputError, match=r"do not fit together.*tree=True"):
        map_scans(lambda scan: xr.DataArray(np.zeros(int(scan.time) + 1), {"n": range(int(scan.time) + 1)}), series)
    with pytest.raises(InputError, match="no scan is selected"):
        map_scans(stemstore.mean_pattern, series.isel(time=[]))


def test_failures_name_their_scan(folder):
    """An error of the function tells during which scan it came."""

    def broken(scan):
        if scan.scan == "s1":
            msg = "no"
            raise RuntimeError(msg)
        return scan

    with pytest.raises(RuntimeError, match="no") as caught:
        map_scans(broken, open_series(folder))
    assert caught.value.__notes__ == ["scan 's1' of the series"]


def test_scans_of_other_shapes_become_a_tree(tmp_path, stack, store_of):
    """Scans that do not fit say why, and can be worked on one by one."""
    store_of(tmp_path / "a.zarr", stack[0], counted=False)
    store_of(tmp_path / "b.zarr", stack[1][:4], counted=False)
    reason = r"shape of scan 'b' is \(4, 6, 9, 8\), of scan 'a' \(5, 6, 9, 8\)"
    with pytest.warns(ScanWarning, match=reason):
        tree = open_series(tmp_path)
    assert tree.attrs["not_one_array"].startswith("shape of scan 'b'")
    patterns = map_scans(stemstore.mean_pattern, tree)
    np.testing.assert_array_equal(patterns["b"].mean_pattern, stack[1][:4].mean((0, 1)))
    with pytest.raises(InputError, match=f"do not fit into one array: {reason}.*tree=True"):
        open_series(tmp_path, tree=False)
