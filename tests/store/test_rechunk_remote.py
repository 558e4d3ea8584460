"""Stores on servers laid out anew: read there, written there, and interrupted there."""

import json

import numpy as np
import pytest

import stemstore
from stemstore.conversion.rechunk import rechunk_store
from stemstore.errors import ConversionIncompleteError, InputError
from stemstore.store.address import StoreUrl
from stemstore.store.verify import verify_store

CHUNKS = {"chunks": (2, 3, 8, 8), "shards": (4, 6)}


@pytest.fixture
def store(tmp_path):
    """Make a local store with a saved result."""
    np.save(tmp_path / "raw.npy", np.random.default_rng(1).integers(0, 999, (9, 8, 16, 12), np.uint16))
    stemstore.convert(tmp_path / "raw.npy", tmp_path / "a.zarr", count=False, chunks=(4, 4, 16, 12), shards=(4, 4))
    stemstore.save(stemstore.mean_pattern(stemstore.open(tmp_path / "a.zarr")), tmp_path / "a.zarr", "mean")
    return tmp_path / "a.zarr"


def test_from_a_bucket_to_a_bucket(s3, store):
    """Source and destination are reached by the same options; results come along, and both stores open."""
    source, target = s3.keep(store), f"{s3.url}-b"
    rechunk_store(source, target, storage_options=s3.options, **CHUNKS)
    new = stemstore.open(target, storage_options=s3.options)
    np.testing.assert_array_equal(new.intensity.values, np.load(store.parent / "raw.npy"))
    reached = StoreUrl(target, s3.options)
    assert list(stemstore.results(reached)) == ["mean"]
    assert verify_store(reached) == []
    with pytest.raises(InputError, match="overlap"):
        rechunk_store(source, source, storage_options=s3.options, **CHUNKS)


@pytest.mark.slow
def test_an_interruption_on_a_server(s3, store, monkeypatch):
    """What is unfinished does not open; shards that arrived are not written again."""
    import stemstore.store.writer as room

    entry, written = room.write_entry, []

    def write_entry(*args, **options):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(args[1].partition)
        return entry(*args, **options)

    target = StoreUrl(s3.url, s3.options)
    with monkeypatch.context() as patch:
        patch.setattr(room, "write_entry", write_entry)
        with pytest.raises(KeyboardInterrupt):
            rechunk_store(store, target, workers=1, **CHUNKS)
    with pytest.raises(ConversionIncompleteError, match="did not finish"):
        stemstore.open(target)
    s3.requests()
    rechunk_store(store, target, resume=True, **CHUNKS)
    again = [request for request in s3.requests() if "PUT" in str(request) and "intensity/c/" in str(request)]
    assert len(again) == 6 - 3
    np.testing.assert_array_equal(stemstore.open(target).intensity.values, np.load(store.parent / "raw.npy"))


@pytest.mark.slow
def test_from_a_web_server(web, store, tmp_path):
    """A store behind a web server can be read; results cannot be looked for there, and that is told."""
    report = rechunk_store(web.keep(store), tmp_path / "b.zarr", layout="tiled")
    assert report.warnings == [
        f"'{web.keep(store)}' is on a web server, which lists nothing: saved results were not looked for"
    ]
    assert stemstore.results(tmp_path / "b.zarr") == {}
    history = json.loads((tmp_path / "b.zarr" / "zarr.json").read_text())["attributes"]["stemstore"]["history"]
    assert history[-1]["warnings"] == report.warnings
    np.testing.assert_array_equal(stemstore.open(tmp_path / "b.zarr").intensity.values, np.load(tmp_path / "raw.npy"))


@pytest.mark.slow
def test_from_a_packed_store_on_a_web_server(web, store, tmp_path):
    """A packed store lists what is in it wherever it lies: its results come along, and nothing is warned of."""
    stemstore.pack_store(store, tmp_path / "a.zip")
    report = rechunk_store(web.keep(tmp_path / "a.zip"), tmp_path / "b.zarr", layout="tiled")
    assert report.warnings == []
    assert list(stemstore.results(tmp_path / "b.zarr")) == ["mean"]
