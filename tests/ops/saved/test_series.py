"""Results of many scans are kept in their series, and never in a scan that they do not belong to."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError, NotFoundError, UnknownFormatError
from stemstore.scan.series.mapping import map_scans
from stemstore.scan.series.open import open_series
from stemstore.store.series.entry import index_series

N = 2


@pytest.fixture
def group(tmp_path):
    """A series of two small scans."""
    frames = np.random.default_rng(1).poisson(0.7, (N, 5, 4, 8, 7)).astype(np.uint16)
    for number in range(N):
        np.save(tmp_path / "raw.npy", frames[number])
        stemstore.convert(tmp_path / "raw.npy", tmp_path / "series.zarr" / f"s{number}")
    index_series(tmp_path / "series.zarr", order=[0, 10], unit="s")
    return tmp_path / "series.zarr"


def test_results_of_a_series(group):
    """They come back equal, with the names of their scans; the series shows the same scans as before."""
    ds = open_series(group)
    com = stemstore.center_of_mass(ds)
    saved = stemstore.save(com, ds, "com")
    xr.testing.assert_allclose(saved.load(), com.load())
    again = stemstore.open_result(open_series(group), "com")
    assert again.scan.values.tolist() == ["s0", "s1"]
    assert again.time.attrs["units"] == "s"
    patterns = map_scans(stemstore.mean_pattern, ds)
    stemstore.save(patterns, group, "patterns")
    assert list(stemstore.results(ds)) == ["com", "patterns"]
    assert stemstore.results(group / "s0") == {}
    assert len(index_series(group).scans) == N


@pytest.mark.slow
def test_disks_are_found_into_a_series(group):
    """A detection that goes into the store piece by piece, and can go on, does so in a series as well."""
    ds = open_series(group)
    options = {"radius": 1.5, "min_abs": 0, "min_rel": 0, "significance": 0}
    found = stemstore.find_disks(ds, store=ds, name="disks", **options)
    direct = stemstore.find_disks(ds, **options)
    assert found.sizes["peak"] == direct.sizes["peak"] > 0
    np.testing.assert_array_equal(found.qy, direct.qy)
    assert found.n_disks.dims == ("time", "y", "x")
    again = stemstore.find_disks(ds, store=ds, name="disks", resume=True, **options)
    np.testing.assert_array_equal(again.qx, direct.qx)


def test_history_names_the_series(group):
    """A saved result tells which state of the index it was made of."""
    from stemstore.ops.saved.results import describe_result

    ds = open_series(group)
    stemstore.save(stemstore.virtual_image(ds, stemstore.disk(2, unit="pixel")), ds, "bright")
    document = describe_result(group, "bright")
    (source,) = document.history[-1].inputs
    assert (source.uuid, source.path) == (ds.attrs["stemstore_uuid"], str(group))
    assert document.scan == ds.attrs["stemstore_uuid"]


def test_nothing_goes_to_the_wrong_place(group, tmp_path):
    """Results of a series do not go into a scan, those of a scan not into a series, and lists have no place."""
    ds, alone = open_series(group), stemstore.open(group / "s0")
    image = stemstore.virtual_image(ds, np.ones((8, 7)))
    with pytest.raises(InputError, match=r"comes from scan .*, '.*s0' holds scan"):
        stemstore.save(image.isel(time=0), group / "s0", "image")
    with pytest.raises(InputError, match="comes from scan"):
        stemstore.save(stemstore.virtual_image(alone, np.ones((8, 7))), group, "image")
    listed = open_series([group / "s0", group / "s1"])
    with pytest.raises(InputError, match="shows scans that lie apart, so it has no place for results"):
        stemstore.save(stemstore.virtual_image(listed, np.ones((8, 7))), listed, "image")
    with pytest.raises(InputError, match="comes from scan series-"):
        stemstore.save(stemstore.virtual_image(listed, np.ones((8, 7))), group, "image")
    with pytest.raises(UnknownFormatError, match="is a series of scans"):
        stemstore.save_calibration(ds)
    with pytest.raises(InputError, match="got DataTree"):
        stemstore.save(open_series(group, tree=True), group, "tree")
    with pytest.raises(NotFoundError, match="has no result 'image'"):
        stemstore.open_result(group, "image")
