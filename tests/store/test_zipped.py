"""A packed store on an object store is read by ranges, and never through its text is a secret told."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.errors import NotFoundError, StorageError
from stemstore.selection import Selection
from stemstore.store.address import StoreUrl
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage

SHAPE = (9, 10, 12, 8)


@pytest.fixture
def packed(tmp_path, write_dense):
    """Write a store, and pack it with the standard library alone."""
    data = np.random.default_rng(3).integers(0, 900, SHAPE, np.uint16)
    folder, path = Path(write_dense(tmp_path / "scan.zarr", data)), tmp_path / "scan.zarr.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for one in sorted(folder.rglob("*")):
            file.write(one, one.relative_to(folder).as_posix())  # folders too, as other programs do
    return path, data


@pytest.fixture
def there(s3, packed):
    """Put the file into a bucket."""
    path, _ = packed
    key = s3.url.removeprefix("s3://").replace("scan.zarr", path.name)
    s3.fs.put_file(str(path), key)
    s3.requests()
    return StoreUrl(f"s3://{key}", s3.options)


def test_a_zip_of_the_standard_library(packed):
    """Entries for folders are no objects; keys are listed as those of a folder are."""
    path, data = packed
    inside, beside = open_storage(path), open_storage(path.with_suffix(""))
    for prefix in ("", "intensity", "intensity/c/", "nothing"):
        assert inside.sizes(prefix) == (beside.sizes(prefix) if prefix != "nothing" else {})
        assert inside.keys(prefix) == sorted(inside.sizes(prefix))
    assert inside.children("") == beside.children("")
    assert inside.children("intensity/") == ["c", "zarr.json"]
    np.testing.assert_array_equal(open_store(path).read(Selection.full(SHAPE)), data)


def test_few_requests(s3, there, packed, monkeypatch):
    """Opening is a look and the end of the file; a shard costs its header, its index and its chunks."""
    scan = open_store(there)
    assert len(s3.requests()) <= 3
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), packed[1])
    small = len(s3.requests())
    assert small <= 12
    monkeypatch.setattr("stemstore.store.zipped.TAIL", 1024)
    monkeypatch.setattr("stemstore.store.zipped.LONGEST_END", 1024)
    scan = open_store(there)
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), packed[1])


def test_it_travels(there, packed):
    """Tasks of other processes open it by its address, with what is needed to reach it."""
    scan = pickle.loads(pickle.dumps(open_store(there)))
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), packed[1])
    image = stemstore.mean_pattern(stemstore.open(there)).values
    np.testing.assert_allclose(image, packed[1].mean((0, 1)))


def test_failures_are_typed(s3, there, monkeypatch):
    """A server that fails and a file that is not there say which file."""
    with pytest.raises(NotFoundError, match=r"none\.zarr\.zip"):
        open_store(StoreUrl(there.full.replace("scan.zarr", "none.zarr"), s3.options))
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "1")
    s3.proxy.fault = lambda _: 500
    with pytest.raises(StorageError, match=r"scan\.zarr\.zip"):
        open_store(StoreUrl(there.full, s3.options))
