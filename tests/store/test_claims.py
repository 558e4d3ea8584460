"""Who may write to a place: one claimant of several, never into what others have begun, and who lost it stops."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import stemstore
from stemstore.conversion.steps import begin_writing
from stemstore.errors import ConversionIncompleteError, DestinationExistsError, StorageError
from stemstore.store.address import StoreUrl
from stemstore.store.commit import COMMIT
from stemstore.store.journal import COPY, PLAN
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage
from stemstore.store.writer import StoreWriter

SHAPE = (6, 5, 8, 7)


@pytest.fixture
def data():
    """Electrons of a small scan."""
    return np.random.default_rng(4).poisson(0.6, SHAPE).astype(np.uint8)


def test_one_of_many_creates_a_file(tmp_path):
    """Of eight threads that create one file together, one does; its bytes stay."""
    storage = open_storage(tmp_path)

    def create(number):
        try:
            storage.create("a/claim", [bytes([number]) * 1000])
        except DestinationExistsError:
            return None
        return number

    for _ in range(20):
        with ThreadPoolExecutor(8) as threads:
            won = [number for number in threads.map(create, range(8)) if number is not None]
        assert [bytes([number]) * 1000 for number in won] == [storage.get("a/claim")]
        storage.delete("a")
    assert storage.keys("") == []


@pytest.mark.parametrize(("number", "works"), [(errno.EPERM, True), (errno.EIO, False)])
def test_devices_without_links(tmp_path, monkeypatch, number, works):
    """Where the device knows no links a file is created as well, unless there is one; another refusal is told."""

    def link(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    storage = open_storage(tmp_path)
    if not works:
        with pytest.raises(StorageError, match="cannot write"):
            storage.create("claim", [b"one"])
        return
    storage.create("claim", [b"one"])
    with pytest.raises(DestinationExistsError, match="another conversion"):
        storage.create("claim", [b"two"])
    assert storage.get("claim") == b"one"


def test_a_place_that_a_copy_has_taken(tmp_path, write_dense, data, s3):
    """Even with overwrite=True a conversion does not write between the objects of a copy that is under way."""
    np.save(tmp_path / "scan.npy", data)
    place = StoreUrl(s3.keep(write_dense(tmp_path / "scan.zarr", data) and tmp_path / "scan.zarr"), s3.options)
    storage = open_storage(place)
    storage.put(COPY, [b"{}"])
    storage.delete(COMMIT)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(DestinationExistsError, match="stemstore copy --resume"):
            stemstore.convert(tmp_path / "scan.npy", place, **options)


def test_a_copy_that_lacked_only_the_end_gives_way(tmp_path, write_dense, data, s3):
    """What a copy left beside a whole store does not let a later copy go on in the place of a conversion."""
    np.save(tmp_path / "scan.npy", data)
    place = StoreUrl(s3.keep(write_dense(tmp_path / "scan.zarr", data) and tmp_path / "scan.zarr"), s3.options)
    open_storage(place).put(COPY, [b"{}"])
    stemstore.convert(tmp_path / "scan.npy", place, overwrite=True)
    assert open_storage(place).size(COPY) is None
    assert open_store(place).head.complete


def test_conflicts_without_a_winner_are_asked_again(tmp_path, data, s3):
    """An answer 409 to a conditional write says that two met, not that the other one was written."""
    np.save(tmp_path / "scan.npy", data)
    met = []

    def fault(request):
        if request.method != "PUT" or not request.target.endswith((PLAN, COMMIT)):
            return None
        met.append(request.target)
        return 409 if met.count(request.target) < 3 else None

    s3.proxy.fault = fault
    stemstore.convert(tmp_path / "scan.npy", s3.url, storage_options=s3.options)
    s3.proxy.fault = None
    assert len(met) == 6
    np.testing.assert_array_equal(stemstore.open(s3.url, storage_options=s3.options).intensity.values, data)


def test_who_lost_a_local_place_stops(tmp_path, make_document, small_layout, data):
    """A conversion that somebody else removed, or finished, writes no more."""
    slow = StoreWriter.init(tmp_path / "a.zarr", make_document(SHAPE), small_layout(data))
    part = slow.layout.partition(0)
    StoreWriter.attach(tmp_path / "a.zarr").abort()
    for late in (lambda: slow.write_frames(0, data[part]), slow.finalise):
        with pytest.raises(ConversionIncompleteError, match="belongs to none"):
            late()
    assert list(tmp_path.iterdir()) == []


def test_who_meets_another_steps_back(tmp_path, data, monkeypatch):
    """Where another conversion appears while one begins, this one leaves nothing, looks again, and is refused."""
    from stemstore.conversion import steps
    from stemstore.conversion.job import prepare

    np.save(tmp_path / "scan.npy", data)
    seen, real = [], steps.parts_of

    def parts_of(root):
        seen.append(root)
        return [*real(root), f"{root}.part-other"] if len(seen) > 1 else real(root)

    monkeypatch.setattr(steps, "parts_of", parts_of)
    with pytest.raises(DestinationExistsError, match="under way or was interrupted"):
        begin_writing(prepare(tmp_path / "scan.npy"), str(tmp_path / "a.zarr"), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.npy"]
    assert len(seen) == 3
