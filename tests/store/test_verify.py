"""Verifying a store finds every kind of damage and names it."""

from pathlib import Path

import numpy as np
import pytest

from stemstore.store.journal import PartitionRecords
from stemstore.store.verify import verify_store

SHAPE = (5, 6, 4, 3)


@pytest.fixture
def url(tmp_path, write_dense):
    """Write a finished store with binned frames."""
    data = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)

    def records(part):
        frames = data[part].reshape(-1, 4, 3)
        return PartitionRecords(maps={"binned": frames[:, ::2], "total": frames.sum((1, 2))})

    return write_dense(tmp_path / "scan.zarr", data, records=records)


def test_good_stores_have_no_problems(url, tmp_path, write_counted):
    """Dense and counted stores, with further columns of events, are as they were written."""
    assert verify_store(url) == []
    frames = np.zeros((5, 6, 4, 3), np.uint8)
    frames[4] = 9
    assert verify_store(write_counted(tmp_path / "events.zarr", frames, slots_per_chunk=32)) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("intensity/c/0/1/0/0", "intensity/c/0/1/0/0"),
        ("summary/binned/c/0/0/0/0", "summary/binned/c/0/0/0/0"),
        ("summary/total/c/0/0", "summary/total"),
        ("kx/c/0", "kx"),
    ],
)
@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_damage_is_found(url, name, key, harm):
    """A flipped byte or a missing object anywhere is reported with its key."""
    path = Path(url) / name
    body = bytearray(path.read_bytes())
    body[3] ^= 1
    path.unlink()
    if harm == "flip":
        path.write_bytes(bytes(body))
    assert key in {problem.key for problem in verify_store(url)}


def test_swapped_shards_are_found(url):
    """Two shards in each other's place have right checksums inside; the table of checksums tells."""
    one, two = (Path(url) / f"intensity/c/0/{n}/0/0" for n in (0, 1))
    body = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(body)
    found = verify_store(url)
    assert [problem.key for problem in found] == ["stemstore.commit.json"]
    assert "digest of the shard checksums" in found[0].message


def test_changed_metadata_are_reported(url):
    """Metadata that were changed after writing are told."""
    root = Path(url) / "zarr.json"
    root.write_text(root.read_text() + " ")
    assert ["digest of zarr.json" in problem.message for problem in verify_store(url)] == [True]


def test_progress_is_told(url):
    """Every shard advances the progress."""

    class Steps:
        total, done = 0, 0

        def start(self, what, total):
            self.total = total

        def advance(self, steps=1):
            self.done += steps

    steps = Steps()
    verify_store(url, progress=steps)
    assert steps.done == steps.total == 5


@pytest.mark.parametrize("profile", ["fast", "raw"])
def test_whole_shards_of_another_store_are_found(tmp_path, write_dense, small_layout, profile):
    """A shard whose every chunk is sound, but which belongs to another scan, is damage."""
    scans = [np.full(SHAPE, value, np.uint16) for value in (3, 4)]
    urls = [
        write_dense(tmp_path / f"{number}.zarr", scan, layout=small_layout(scan, profile=profile))
        for number, scan in enumerate(scans)
    ]
    shards = [Path(url) / "intensity/c/0/1/0/0" for url in urls]
    assert len({path.stat().st_size for path in shards}) == 1
    shards[0].write_bytes(shards[1].read_bytes())
    (problem,) = verify_store(urls[0])
    assert "digest of the shard checksums" in problem.message
