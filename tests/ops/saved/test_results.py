"""Saved results come back as they were, lazily, and the scan beside them stays as it was."""

import json
import pickle
import shutil
import tracemalloc
import uuid
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import stemstore
from stemstore.errors import (
    ConversionIncompleteError,
    DestinationExistsError,
    InputError,
    NotFoundError,
    StorageError,
    UnknownFormatError,
)
from stemstore.ops.saved.results import open_result, results
from stemstore.ops.saved.save import save
from stemstore.store.arrays import StoredFrames
from stemstore.store.verify import verify_store

COUNTS = np.random.default_rng(3).poisson(0.4, (7, 6, 12, 10)).astype(np.uint16)
CALIBRATION = {"beam_energy": "300 keV", "scan_step": "0.5 nm", "detector_step": "1 mrad"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Write the counts as a raw file."""
    path = tmp_path_factory.mktemp("raw") / "scan.npy"
    np.save(path, COUNTS)
    return str(path)


@pytest.fixture(scope="module")
def converted(raw, tmp_path_factory):
    """Make a store of frames and a store of events, once."""
    folder = tmp_path_factory.mktemp("stores")
    limits = {"count": True, "background_threshold": 0.5, "xray_threshold": 100}
    for kind, options in {"dense": {}, "counted": limits}.items():
        stemstore.convert(raw, str(folder / f"{kind}.zarr"), **CALIBRATION, **options)
    return folder


@pytest.fixture
def url(converted, tmp_path):
    """Give a store of frames that a test may change."""
    return shutil.copytree(converted / "dense.zarr", tmp_path / "scan.zarr")


@pytest.fixture
def ds(url):
    """Open that store."""
    return stemstore.open(url)


def arrays(result):
    """Data of all variables of a result."""
    return [result.data] if isinstance(result, xr.DataArray) else [one.data for one in result.data_vars.values()]


def image(values, name="image", **attrs):
    """Label an array over the scan."""
    return xr.DataArray(values, dims=("y", "x")[: np.ndim(values)], name=name, attrs=attrs)


def document(url, name):
    """Read what the group says of itself."""
    return json.loads((Path(url) / "derived" / name / "zarr.json").read_text())["attributes"]["stemstore"]


OPERATIONS = {
    "image": lambda ds: stemstore.virtual_image(ds, stemstore.disk(4)),
    "com": stemstore.center_of_mass,
    "pattern": stemstore.mean_pattern,
    "radial": stemstore.radial_profile,
    "binned": lambda ds: stemstore.bin_detector(ds, 2),
    "descan": lambda ds: stemstore.fit_descan(stemstore.center_of_mass(ds)),
    "part": lambda ds: stemstore.center_of_mass(ds.isel(y=2, x=slice(1, 5, 2))),
    "scan": lambda ds: ds.isel(ky=slice(2, 5)),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["dense", "counted"])
def test_results_return_as_they_were(converted, tmp_path, kind, name):
    """Kind, names, values, coordinates, attributes and history are those that were saved; values are lazy."""
    url = shutil.copytree(converted / f"{kind}.zarr", tmp_path / "scan.zarr")
    result = OPERATIONS[name](stemstore.open(url))
    save(result, url, name)
    found = open_result(url, name)
    assert all(dask.is_dask_collection(data) for data in arrays(found))
    xr.testing.assert_identical(found.load(), result.compute())


@pytest.mark.parametrize(
    "values",
    [
        np.array([[True, False]]),
        np.array([[-3, 2]], np.int8),
        np.array([[np.nan, -np.inf]], np.float32),
        np.array([[1 + 2j, np.nan]]),
        np.array(2.5),
        np.empty((0, 3)),
        np.arange(4000.0).reshape(2, -1)[:, ::2],
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
@pytest.mark.parametrize("lazy", [False, True])
def test_values_of_any_kind(url, values, lazy):
    """Numbers of every kind and shape return, in memory or lazy; so do NaN among attributes, and a missing name."""
    attrs = {"limit": float("nan"), "range": [1, float("inf")], "who": "me", "n": np.float32(2)}
    data = da.from_array(values, chunks=1) if lazy and values.size < 10 else values
    result = image(data, None, **attrs)
    save(result, url, "values")
    found = open_result(url, "values").load()
    assert found.dtype == values.dtype
    assert repr(found.attrs) == repr({**attrs, "n": 2.0})
    assert found.name == result.name
    np.testing.assert_array_equal(found.values, values)


def test_coordinates_of_any_kind(url):
    """Scalars, further coordinates, texts and lazy coordinates return; a name of many words is kept."""
    coords = {
        "which": ("y", ["bright field", "µ", "bright field"]),
        "size": (("y", "x"), da.arange(6).reshape(3, 2)),
        "x": ("x", [0.5, np.nan], {"units": "nm"}),
        "tilt": 3.5,
        "letter": "a",
    }
    result = xr.DataArray(np.eye(3, 2), dims=("y", "x"), coords=coords, name="many words")
    save(result, url, "coordinates")
    xr.testing.assert_identical(open_result(url, "coordinates").load(), result.compute())


def test_names_of_data_and_coordinates_do_not_collide(url):
    """An index variable is an array too, whose name is that of its coordinate."""
    result = xr.DataArray([1.0, 2.0], dims="x", coords={"x": [1.0, 2.0]}, name="x")
    save(result, url, "x")
    xr.testing.assert_identical(open_result(url, "x").load(), result)


def test_several_variables_are_one_pass(ds, url, monkeypatch):
    """The variables of a dataset, and several arrays by name, read each position of the scan once."""
    streamed, run = [], StoredFrames.run

    def watch(self, selection, *args):
        streamed.append(selection.flat_positions())
        return run(self, selection, *args)

    monkeypatch.setattr(StoredFrames, "run", watch)
    com = stemstore.center_of_mass(ds)
    wanted = {
        "bf": stemstore.virtual_image(ds, stemstore.disk(4)),
        "com_y": com.com_y,
        "mean": stemstore.mean_pattern(ds),
    }
    save(wanted, ds, "several")
    np.testing.assert_array_equal(np.sort(np.concatenate(streamed)), np.arange(42))
    found = open_result(url, "several")
    for name, array in wanted.items():
        xr.testing.assert_identical(found[name].load(), array.rename(name).compute())


def test_large_results_are_streamed(url):
    """Of 128 MiB only a few chunks are held at a time."""
    large = da.zeros((32, 1024, 1024), chunks=(1, 512, 1024), dtype=np.float32) + np.float32(1)
    result = xr.DataArray(large, dims=("frame", "ky", "kx"))
    tracemalloc.start()
    try:
        with dask.config.set(scheduler="threads", num_workers=2):
            save(result, url, "large")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * 2**20
    found = open_result(url, "large")
    assert found.data.chunksize == (1, 1024, 1024)
    assert float(found.isel(frame=31).min()) == 1


def test_opened_results_travel(url):
    """A lazy result is read wherever it is unpickled."""
    values = np.arange(60.0).reshape(6, 10)
    save(image(da.from_array(values, chunks=(3, 10))), url, "far")
    found = pickle.loads(pickle.dumps(open_result(url, "far")))  # our own object, made on this line
    np.testing.assert_array_equal(found.values, values)


def test_any_place_that_fsspec_knows(raw):
    """A store in memory, which has no folders to rename, holds and replaces results as well."""
    url = f"memory://{uuid.uuid4()}/scan.zarr"
    stemstore.convert(raw, url)
    ds = stemstore.open(url)
    save(stemstore.center_of_mass(ds), ds, "com")
    for step in (1.0, 2.0):
        save(image(np.full((2, 2), step)), ds, "image", overwrite=step > 1)
    assert open_result(ds, "image").values.tolist() == [[2, 2], [2, 2]]
    xr.testing.assert_identical(open_result(ds, "com").load(), stemstore.center_of_mass(ds).compute())
    assert list(results(url)) == ["com", "image"]
    assert verify_store(url) == []


def test_plain_xarray_and_zarr_read_them(ds, url):
    """Values, coordinates, units and NaN are there for readers that do not know us."""
    com = stemstore.center_of_mass(ds).compute()
    com["com_y"][0, 0] = np.nan
    save(com, url, "com")
    plain = xr.open_zarr(url, group="derived/com", consolidated=False)
    assert set(plain.coords) == set(com.coords)
    xr.testing.assert_identical(plain.com_y.load(), com.com_y)
    group = zarr.open(url, path="derived/com", mode="r")
    np.testing.assert_array_equal(group["com_x"][:], com.com_x)
    assert group["com_x"].attrs["units"] == "1/angstrom"


def test_the_scan_is_left_alone(ds, url):
    """The scan opens and verifies as before, and its root metadata and commit are the same bytes."""
    files = [Path(url) / name for name in ("zarr.json", "stemstore.commit.json")]
    before = [file.read_bytes() for file in files]
    save(stemstore.mean_pattern(ds), ds, "mean")
    save(stemstore.max_pattern(ds), ds, "mean", overwrite=True)
    assert [file.read_bytes() for file in files] == before
    assert verify_store(url) == []
    np.testing.assert_array_equal(stemstore.open(url).intensity.values, COUNTS)
    np.testing.assert_array_equal(ds.intensity.values, COUNTS)


def test_the_document_tells_what_was_done(ds, url):
    """Scan, operations with their parameters, versions, notes and the saving itself are recorded."""
    save(stemstore.center_of_mass(ds, center=(0.01, 0)), ds, "com", parameters={"why": "test", "limit": float("nan")})
    found = document(url, "com")
    assert (found["kind"], found["scan"]) == ("stemstore.result", ds.attrs["stemstore_uuid"])
    assert found["parameters"] == {"why": "test", "limit": "NaN"}
    first, last = found["history"]
    assert (first["operation"], first["parameters"]["center"]) == ("center_of_mass", [0.01, 0])
    assert (last["operation"], last["inputs"][0]["uuid"]) == ("save", ds.attrs["stemstore_uuid"])
    assert {"stemstore", "numpy", "python"} <= last["software"].keys()
    assert last["wall_seconds"] >= 0


def test_warnings_are_kept_and_passed_on(url):
    """What a computation warned of stands in the document, and is still told."""

    def doubtful(block):
        warnings.warn("doubtful", UserWarning, stacklevel=1)
        return block

    lazy = da.ones((2, 2)).map_blocks(doubtful, dtype=float, meta=np.empty((0, 0)))
    with pytest.warns(UserWarning, match="doubtful"):
        save(image(lazy), url, "doubt")
    assert document(url, "doubt")["history"][-1]["warnings"] == ["doubtful"]


def test_a_result_of_another_scan_is_refused(ds, url, converted):
    """It is refused with a way out, and nothing is written; the way out works."""
    other = stemstore.virtual_image(stemstore.open(str(converted / "counted.zarr")), stemstore.disk(3))
    with pytest.raises(
        InputError, match=r"save it into the store of its scan, or remove its attribute 'stemstore_uuid'"
    ):
        save(other, ds, "other")
    with pytest.raises(InputError, match="'adf' comes from scan"):
        save(xr.Dataset({"adf": other}), ds, "other")
    assert not (Path(url) / "derived").exists()
    del other.attrs["stemstore_uuid"]
    save(other, ds, "other")


def test_a_taken_name_needs_overwrite(ds, url):
    """The old result stays without it; with it, a result may even replace what it was made from."""
    save(image(np.ones((2, 2))), ds, "a")
    with pytest.raises(DestinationExistsError, match="choose another name or pass overwrite=True"):
        save(image(np.zeros((2, 2))), ds, "a")
    save(open_result(ds, "a") + 1, ds, "a", overwrite=True)
    assert open_result(ds, "a").values.tolist() == [[2, 2], [2, 2]]
    save(image(np.zeros(3), "another"), ds, "a", overwrite=True)
    assert sorted(path.name for path in (Path(url) / "derived/a").iterdir()) == ["another", "zarr.json"]


def test_a_failed_computation_leaves_the_old_result(url):
    """When a block fails the error is told, the old result stays, and no half of a new one."""

    def fail(block):
        if block.size and block.max() > 7:
            msg = "block 8"
            raise RuntimeError(msg)
        return block

    save(image(np.ones(2)), url, "a")
    lazy = da.arange(10, chunks=1).map_blocks(fail, dtype=int, meta=np.empty(0, int))
    for name in ("a", "b"):
        with pytest.raises(RuntimeError, match="block 8"):
            save(image(lazy), url, name, overwrite=True)
    assert [path.name for path in (Path(url) / "derived").iterdir() if path.is_dir()] == ["a"]
    assert open_result(url, "a").values.tolist() == [1, 1]


NOT_STORABLE = {
    "object": (lambda: image(np.array([None, 1], object)), "is of type object; expected bool"),
    "text": (lambda: image(np.array(["a"])), "is of type <U1; expected bool"),
    "date": (lambda: image(np.array(["2024-01-01"], "M8[ns]")), "expected bool"),
    "attribute": (lambda: image(np.ones(2), function=len), "attribute 'function' of 'derived/a/image' cannot be JSON"),
    "reserved": (lambda: image(np.ones(2), coordinates="y"), "attribute 'coordinates' of 'image' has a meaning"),
    "unknown": (lambda: image(da.ones(4)[da.ones(4) > 0]), "is not known before it is computed"),
    "plain": (lambda: np.ones(3), "expected a DataArray, a Dataset or DataArrays by name, got ndarray"),
    "nothing": (xr.Dataset, "has no variables"),
    "name": (lambda: xr.Dataset({"a b": image(np.ones(2))}), "name 'a b' cannot be stored"),
    "apart": (
        lambda: {"a": image(np.ones(2)).assign_coords(y=[0, 1]), "b": image(np.ones(2)).assign_coords(y=[1, 2])},
        "do not share their coordinates",
    ),
}


@pytest.mark.parametrize("kind", NOT_STORABLE)
def test_what_cannot_be_stored_is_refused(url, kind):
    """The error names what it is, and nothing is left."""
    make, text = NOT_STORABLE[kind]
    with pytest.raises(InputError, match=text):
        save(make(), url, "a")
    assert not (Path(url) / "derived").exists()


@pytest.mark.parametrize("name", ["", "..", "../scan", "a/b", ".hidden", "a b", 3])
def test_names_stay_in_their_place(url, name):
    """No name leads out of the folder of results."""
    for use in (lambda: save(image(np.ones(2)), url, name), lambda: open_result(url, name)):
        with pytest.raises(InputError, match="cannot be stored"):
            use()


def test_only_finished_stores_take_results(url, raw, tmp_path):
    """Nothing, raw files, unfinished and unwritable stores, and things that are none are refused by name."""
    result = image(np.ones(2))
    with pytest.raises(NotFoundError, match="check the path"):
        save(result, tmp_path / "none.zarr", "a")
    with pytest.raises((NotFoundError, UnknownFormatError), match="not a stemstore store"):
        save(result, raw, "a")
    with pytest.raises(InputError, match="pass the path, or what"):
        save(result, result, "a")
    (Path(url) / "derived").write_text("in the way")
    with pytest.raises(StorageError, match="Check space, quota and permissions"):
        save(result, url, "a")
    (Path(url) / "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match=r"no stemstore\.commit\.json"):
        save(result, url, "a")


def test_results_are_listed(ds, url):
    """Name, time, operation, dims and units are told without reading values; what cannot be opened says why."""
    assert results(ds) == {}
    com = stemstore.center_of_mass(ds)
    save(com, ds, "com")
    for name in ("newer", "foreign", "broken"):
        shutil.copytree(Path(url) / "derived/com", Path(url) / "derived" / name)
    changes = {"newer": ('"version": 1', '"version": 7'), "foreign": ('"stemstore": {', '"other": {')}
    for name, change in changes.items():
        path = Path(url) / "derived" / name / "zarr.json"
        path.write_text(path.read_text().replace(*change, 1))
    (Path(url) / "derived/broken/zarr.json").write_text("{")
    found = results(ds)
    assert list(found) == ["broken", "com", "foreign", "newer"]
    known = found["com"]
    assert (known.operation, known.problem, known.time[:2]) == ("center_of_mass", None, "20")
    assert list(known.variables) == ["com_y", "com_x", "total"]
    variable = known.variables["com_y"]
    assert (variable.dims, variable.shape, variable.units) == (("y", "x"), (7, 6), "1/angstrom")
    assert "reads version 1; install a newer stemstore" in found["newer"].problem
    assert "no saved result" in found["foreign"].problem
    assert "is damaged" in found["broken"].problem


def test_a_missing_result_names_those_there_are(ds, tmp_path):
    """The error lists the names; where the store itself is missing, it says that."""
    save(image(np.ones(2)), ds, "first")
    with pytest.raises(NotFoundError, match="has no result 'second'; it has first"):
        open_result(ds, "second")
    for look in (lambda: open_result(tmp_path / "none.zarr", "second"), lambda: results(tmp_path / "none.zarr")):
        with pytest.raises(NotFoundError, match=r"none\.zarr' does not exist; check the path"):
            look()


def test_opening_is_the_same_array_again(url):
    """Equal results have equal graphs, so that dask shares them; an overwritten one has another."""
    save(image(np.ones((2, 2))), url, "a")
    one, two = (open_result(url, "a").data.name for _ in range(2))
    save(image(np.zeros((2, 2))), url, "a", overwrite=True)
    assert one == two != open_result(url, "a").data.name


def test_saving_gives_the_result_as_it_lies_there(ds):
    """What is returned is lazy, and reads what was written."""
    saved = save(stemstore.mean_pattern(ds), ds, "mean")
    assert saved.chunks is not None
    assert stemstore.explain(saved).startswith("generic")
    np.testing.assert_array_equal(saved, COUNTS.mean((0, 1)))
