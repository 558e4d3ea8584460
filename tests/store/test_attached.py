"""Groups beside a finished scan: whole or not there, plain Zarr, and no trace in the scan itself."""

import itertools
import json
import pickle
import uuid
from pathlib import Path

import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import (
    ChecksumError,
    ConversionIncompleteError,
    CorruptDataError,
    DestinationExistsError,
    InputError,
    NotFoundError,
    StaleStoreError,
    StorageError,
)
from stemstore.store.attached import create_group, list_groups, read_group, write_group
from stemstore.store.attached_array import AttachedArray, StoredArray, Target, array_info, chunk_extents
from stemstore.store.local import LocalStorage
from stemstore.store.remote import RemoteStorage
from stemstore.store.urls import open_storage
from stemstore.store.verify import verify_store

FRAMES = np.arange(3 * 4 * 5 * 2, dtype=np.uint16).reshape(3, 4, 5, 2)
PLAIN = np.arange(6.0).reshape(2, 3)
TYPES = ["bool", "int8", "uint16", "int64", "float16", "float32", ">f8", "complex64", "complex128"]


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path, write_dense):
    """Write a finished store into a folder or into fsspec's memory."""
    place = str(tmp_path / "scan.zarr") if request.param == "local" else f"memory://{uuid.uuid4()}/scan.zarr"
    write_dense(place, FRAMES)
    return place


def put(url, values=PLAIN, path="derived/image", *, replace=False, **attributes):
    """Attach one array `a` with the dims d0, d1 and so on."""
    dims = tuple(f"d{axis}" for axis in range(values.ndim))
    write_group(url, path, {"a": AttachedArray(dims, values, {"units": "nm"})}, attributes, replace=replace)


def values_of(url, path="derived/image"):
    return read_group(url, path)[1]["a"].read()


@pytest.mark.parametrize("dtype", TYPES)
def test_values_return(url, dtype):
    """Every core type of numbers is read as written, with dims and attributes; the group's own attributes too."""
    values = np.array([[0, 1, 2], [3, 1, 0]]).astype(dtype)
    put(url, values, made="today")
    attributes, arrays = read_group(url, "derived/image")
    assert attributes == {"made": "today"}
    stored = arrays["a"]
    assert (stored.dims, stored.attributes, stored.dtype) == (
        ("d0", "d1"),
        {"units": "nm"},
        values.dtype.newbyteorder("="),
    )
    np.testing.assert_array_equal(stored.read(), values)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 1, 3, 1, 2)])
def test_any_number_of_axes(url, shape):
    """Scalars, empty arrays and many axes are no special case."""
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    put(url, values)
    found = values_of(url)
    assert found.shape == shape
    np.testing.assert_array_equal(found, values)


def test_plain_zarr_reads_them(tmp_path, write_dense):
    """The group opens with zarr alone, by itself and from the root, NaN included."""
    url = write_dense(tmp_path / "scan.zarr", FRAMES)
    values = np.array([[np.nan, 1 + 2j]])
    put(url, values)
    np.testing.assert_array_equal(zarr.open_group(url, path="derived/image", mode="r")["a"][:], values)
    root = zarr.open_group(url, mode="r", use_consolidated=False)
    np.testing.assert_array_equal(root["derived/image/a"][:], values)
    assert root["derived/image/a"].metadata.dimension_names == ("d0", "d1")


def test_the_scan_is_left_alone(url):
    """Root metadata and commit keep their bytes, and the store verifies, before and after."""
    storage = open_storage(url)
    before = [storage.get(key) for key in ("zarr.json", "stemstore.commit.json")]
    put(url)
    put(url, PLAIN + 1, replace=True)
    put(url, path="calibration")
    assert [storage.get(key) for key in ("zarr.json", "stemstore.commit.json")] == before
    assert verify_store(url) == []


def test_groups_are_listed(url):
    """Finished groups are listed by name; others, files and places where nothing was attached are not."""
    assert list_groups(url, "derived") == []
    put(url, path="derived/b")
    put(url, path="derived/a.1")
    open_storage(url).put("derived/half/a/c/0", [b"x"])
    assert list_groups(url, "derived") == ["a.1", "b"]
    assert read_group(url, "derived/half") is None


def test_a_taken_name_is_refused_and_replaced_on_request(url):
    """Without `replace` the old values stay; with it nothing of the old ones is left."""
    put(url, np.zeros((3, 3)))
    with pytest.raises(DestinationExistsError, match="choose another name or pass overwrite=True"):
        put(url)
    assert not values_of(url).any()
    put(url, replace=True)
    np.testing.assert_array_equal(values_of(url), PLAIN)
    storage = open_storage(url)
    assert storage.children("derived") == ["image", "zarr.json"]


def test_the_old_one_stays_until_the_end(url):
    """While a replacement is written, and after it was given up, the old group is read; half of a new one is not."""
    put(url, np.zeros(3))
    for path in ("derived/image", "derived/new"):
        writer = create_group(url, path, {"a": AttachedArray(("x",), np.ones(3))}, replace=True)
        writer.targets["a"].write((0,), np.ones(3))
        assert list_groups(url, "derived") == ["image"]
        assert not values_of(url).any()
        writer.abort()
    assert open_storage(url).children("derived") == ["image", "zarr.json"]


@pytest.mark.parametrize("at", range(6))
def test_a_killed_writer_leaves_old_or_new(tmp_path, write_dense, monkeypatch, at):
    """Whichever object is the last one that reaches the disk, the group is the old one, or whole."""
    url = write_dense(tmp_path / "scan.zarr", FRAMES)
    put(url, np.zeros((2, 3)))
    count = itertools.count()
    honest = LocalStorage.put

    def failing(self, key, parts):
        if next(count) >= at:
            raise KeyboardInterrupt
        return honest(self, key, parts)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "put", failing)
        patch.setattr("stemstore.store.attached.GroupWriter.abort", lambda _: None)
        try:
            put(url, replace=True)
        except KeyboardInterrupt:
            assert not values_of(url).any()
        else:
            np.testing.assert_array_equal(values_of(url), PLAIN)
    put(url, replace=True)
    np.testing.assert_array_equal(values_of(url), PLAIN)


def test_a_failed_rename_brings_the_old_one_back(tmp_path, write_dense, monkeypatch):
    """Where the new folder cannot get its name, the old one has it again."""
    url = write_dense(tmp_path / "scan.zarr", FRAMES)
    put(url, np.zeros(3))
    rename = Path.rename

    def failing(self, target):
        if self.name.startswith(".part-"):
            raise PermissionError(13, "denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError, match="cannot rename"):
        put(url, replace=True)
    assert not values_of(url).any()


def test_a_server_that_fails_at_the_end_keeps_the_new_one(write_dense, monkeypatch):
    """When the last copies fail, the old group may be gone; the new one is whole beside its place."""
    url = write_dense(f"memory://{uuid.uuid4()}/scan.zarr", FRAMES)
    put(url, np.zeros(3))

    def failing(*_args, **_options):
        raise OSError(5, "gone")

    with monkeypatch.context() as patch:
        patch.setenv("STEMSTORE_ATTEMPTS", "1")
        patch.setattr(MemoryFileSystem, "cp_file", failing)
        with pytest.raises(StorageError, match="gone"):
            put(url, replace=True)
    assert list_groups(url, "derived") == []
    (aside,) = (name for name in open_storage(url).children("derived") if name.startswith(".part-"))
    assert zarr.open_group(f"{url}/derived/{aside}", mode="r")["a"][:].tolist() == PLAIN.tolist()
    put(url)
    np.testing.assert_array_equal(values_of(url), PLAIN)


def test_a_server_gets_the_metadata_last(write_dense, monkeypatch):
    """On a server the group's own metadata are the last object, also when a group is replaced."""
    url = write_dense(f"memory://{uuid.uuid4()}/scan.zarr", FRAMES)
    keys = []
    put_one, copy = RemoteStorage.put, MemoryFileSystem.cp_file

    def note_put(self, key, parts):
        keys.append(key)
        return put_one(self, key, parts)

    def note_copy(self, source, target, **options):
        keys.append(target.partition("scan.zarr/")[2])
        return copy(self, source, target, **options)

    monkeypatch.setattr(RemoteStorage, "put", note_put)
    monkeypatch.setattr(MemoryFileSystem, "cp_file", note_copy)
    for replace in (False, True):
        put(url, replace=replace)
        assert keys[-1] == "derived/image/zarr.json"


def test_opening_costs_one_request(url, monkeypatch):
    """All arrays are described by the group's own metadata; a value costs one more object."""
    arrays = {name: AttachedArray(("x",), np.arange(3)) for name in "abc"}
    write_group(url, "derived/three", arrays, {}, replace=False)
    asked = []
    for kind in (LocalStorage, RemoteStorage):
        get = kind.get
        monkeypatch.setattr(kind, "get", lambda self, key, get=get: (asked.append(key), get(self, key))[1])
    found = read_group(url, "derived/three")[1]
    assert asked == ["derived/three/zarr.json"]
    found["b"].read()
    assert asked[1:] == ["derived/three/b/c/0"]


def test_blocks_may_come_in_any_order(url):
    """Blocks of whole chunks fill an array; the handles travel as pickles."""
    values = np.arange(35).reshape(5, 7)
    array = AttachedArray(("y", "x"), values, chunk=(2, 3))
    writer = create_group(url, "derived/blocks", {"a": array}, replace=False)
    target = pickle.loads(pickle.dumps(writer.targets["a"]))  # our own object, made on this line
    for start in [(4, 0), (0, 3), (2, 0), (0, 0), (2, 3)]:
        rows, columns = (2 if start[0] < 4 else 1), (3 if start == (0, 0) else 7 - start[1])
        target.write(start, values[start[0] : start[0] + rows, start[1] : start[1] + columns])
    with pytest.raises(InputError, match="cuts chunks of"):
        target.write((1, 0), values[1:3])
    writer.finish({})
    stored = read_group(url, "derived/blocks")[1]["a"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stored)).read(), values)  # our own object as well


KEYS = st.one_of(
    st.integers(-4, 3),
    st.slices(4),
    st.lists(st.integers(0, 3), max_size=4).map(lambda some: np.array(some, dtype=int)),
)


@pytest.fixture(scope="module")
def cube():
    """Store a small cube in chunks of unequal sides, without a scan around it."""
    values = np.arange(64).reshape(4, 4, 4)
    url = f"memory://{uuid.uuid4()}"
    info = array_info("a", AttachedArray(("x", "y", "z"), values, chunk=(2, 3, 1)))
    Target(url, info).write((0, 0, 0), values)
    return values, StoredArray(url, info)


@given(st.lists(KEYS, max_size=3))
def test_indexing_is_that_of_numpy(cube, keys):
    """Integers, slices and lists, axis by axis, give what the whole array gives."""
    expected, stored = cube
    for axis in reversed(range(len(keys))):
        expected = expected[(slice(None),) * axis + (keys[axis],)]
    np.testing.assert_array_equal(stored[tuple(keys)], expected)


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=4),
    st.sampled_from([1, 2, 8, 16]),
)
def test_chunks_are_bounded(axes, itemsize):
    """Chunks stay below 64 MiB, and there are few of them."""
    shape, blocks = zip(*axes, strict=True)
    chunk = chunk_extents(shape, itemsize, blocks)
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    assert np.prod(chunk, dtype=float) * itemsize <= 64 * 2**20
    n_bytes = np.prod(shape, dtype=float) * itemsize
    if n_bytes <= 4 * 2**20:
        assert chunk == shape


@pytest.mark.parametrize("name", ["", ".", "..", ".part-1", "a/../b", "a b", "ä", "__x", "zarr.json", "x" * 129, "a\n"])
def test_odd_names_are_refused(url, name):
    """A name cannot lead out of its place, hide, or mean something else to Zarr."""
    with pytest.raises(InputError, match="cannot be stored"):
        put(url, path=f"derived/{name}")


def test_only_two_places(url):
    """The scan's own groups are not attached to."""
    with pytest.raises(InputError, match="nothing can be attached at 'summary/total'"):
        put(url, path="summary/total")


@pytest.mark.parametrize(
    ("values", "attributes", "text"),
    [
        (np.array(["a"]), {}, "is of type <U1; expected bool"),
        (np.array([None]), {}, "is of type object; expected bool"),
        (np.array(["2024-01-01"], "M8[s]"), {}, "expected bool"),
        (PLAIN, {"step": float("nan")}, "attribute 'step' of 'derived/image' cannot be JSON"),
        (PLAIN, {"step": object()}, "attribute 'step' of 'derived/image' cannot be JSON"),
    ],
)
def test_what_is_no_number_is_refused(url, values, attributes, text):
    """Texts, objects and dates are refused before anything is written."""
    with pytest.raises(InputError, match=text):
        put(url, values, **attributes)
    assert open_storage(url).children("derived") == []


def test_dims_name_every_axis(url):
    """Each axis has one name of its own."""
    with pytest.raises(InputError, match="expected one name for each axis"):
        write_group(url, "derived/a", {"a": AttachedArray(("x", "x"), PLAIN)}, {}, replace=False)


def test_only_finished_stores(tmp_path, url):
    """Nothing, and a store without its commit, are refused."""
    with pytest.raises(NotFoundError, match="does not exist; check the path"):
        put(tmp_path / "none.zarr")
    storage = open_storage(url)
    storage.delete("stemstore.commit.json") if "://" in url else Path(url, "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match=r"has no stemstore\.commit\.json"):
        put(url)


def test_a_refusing_device_is_told(tmp_path, write_dense):
    """Where nothing can be written the error says so, and nothing is left."""
    url = write_dense(tmp_path / "scan.zarr", FRAMES)
    Path(url, "derived").write_text("in the way")
    with pytest.raises(StorageError, match="Check space, quota and permissions"):
        put(url)


def test_a_replaced_group_is_stale(tmp_path, write_dense):
    """What was opened before a local group was replaced or removed does not read the new values as its own."""
    url = write_dense(tmp_path / "scan.zarr", FRAMES)
    put(url)
    stored = read_group(url, "derived/image")[1]["a"]
    put(url, PLAIN + 1, replace=True)
    with pytest.raises(StaleStoreError, match="since it was opened; open it again"):
        stored.read()
    stored = read_group(url, "derived/image")[1]["a"]
    open_storage(url).delete("derived/image")
    with pytest.raises(StaleStoreError, match="since it was opened; open it again"):
        stored.read()


def test_damage_is_told(tmp_path, write_dense):
    """A flipped byte of a chunk fails its checksum; broken metadata are called so; a lost chunk is not zero."""
    url = write_dense(tmp_path / "scan.zarr", FRAMES)
    put(url)
    chunk = Path(url, "derived/image/a/c/0/0")
    body = bytearray(chunk.read_bytes())
    body[5] ^= 1
    chunk.write_bytes(bytes(body))
    with pytest.raises(ChecksumError, match="is damaged"):
        values_of(url)
    chunk.unlink()
    with pytest.raises(NotFoundError, match="restore the store from a copy"):
        values_of(url)
    root = Path(url, "derived/image/zarr.json")
    root.write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    with pytest.raises(CorruptDataError, match="restore it from a copy or save the group again"):
        read_group(url, "derived/image")
