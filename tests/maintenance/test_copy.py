"""A copy is the store to the last byte, or it does not open."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

import stemstore
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
from stemstore.maintenance import copy, opened
from stemstore.maintenance.copy import copy_store
from stemstore.maintenance.edit import edit_store
from stemstore.store.commit import COMMIT, digest
from stemstore.store.journal import COPY
from stemstore.store.local import LocalStorage


def parts(folder):
    """Names of unfinished copies."""
    return [path for path in Path(folder).iterdir() if ".part-" in path.name]


def test_a_copy_is_the_same_to_the_byte(store, tmp_path, objects):
    """Scan, calibration and results arrive, and nothing is left beside them."""
    report = copy_store(store, tmp_path / "to" / "b.zarr")
    assert objects(tmp_path / "to" / "b.zarr") == objects(store)
    assert report.n_objects == len(objects(store))
    assert report.n_bytes == sum(map(len, objects(store).values()))
    assert (report.n_kept, report.warnings, report.url) == (0, [], str(tmp_path / "to" / "b.zarr"))
    assert list(stemstore.results(report.url)) == ["mean"]
    assert stemstore.validate(report.url, deep=True).valid
    assert parts(tmp_path / "to") == []


def test_what_is_no_part_of_the_store_stays(store, tmp_path, objects):
    """Files of other programs and what killed writers left are told of and not copied."""
    expected = objects(store)
    (store / "notes.txt").write_text("mine")
    (store / "derived" / ".part-1").mkdir()
    (store / "derived" / ".part-1" / "x").write_text("half")
    report = copy_store(store, tmp_path / "b.zarr")
    assert objects(tmp_path / "b.zarr") == expected
    assert "2 objects that are no part" in report.warnings[0]


def test_to_a_server_and_back(store, tmp_path, objects):
    """Any place that fsspec knows holds a store in place; the mark of the copy is gone."""
    there = f"memory://{tmp_path.name}-{store.name}/b.zarr"
    copy_store(store, there)
    assert set(fsspec.filesystem("memory").find(there)) == {
        f"/{tmp_path.name}-{store.name}/b.zarr/{key}" for key in objects(store)
    }
    copy_store(there, tmp_path / "c.zarr")
    assert objects(tmp_path / "c.zarr") == objects(store)


def test_from_a_web_server(store, tmp_path, web, objects):
    """Web servers list nothing: the scan and its calibration come, and the report says what was not looked for."""
    report = copy_store(f"{web.url}/a.zarr", tmp_path / "b.zarr")
    expected = {key: body for key, body in objects(store).items() if not key.startswith("derived/m")}
    assert objects(tmp_path / "b.zarr") == expected
    assert "saved results were not looked for" in report.warnings[0]


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_existing_places(store, tmp_path, objects, place):
    """A store is replaced only where that was asked for, anything else never."""
    target = str(tmp_path / "b.zarr") if place == "folder" else f"memory://{tmp_path.name}-x-{store.name}/b.zarr"
    copy_store(store, target)
    with pytest.raises(DestinationExistsError, match="exists"):
        copy_store(store, target)
    copy_store(store, target, overwrite=True)
    copy_store(target, tmp_path / "c.zarr")
    assert objects(tmp_path / "c.zarr") == objects(store)
    (tmp_path / "d.zarr").mkdir()
    (tmp_path / "d.zarr" / "thesis").write_text("mine")
    with pytest.raises(DestinationExistsError, match="not a stemstore store"):
        copy_store(store, tmp_path / "d.zarr", overwrite=True)


def flip(path, at=60):
    """Change one bit."""
    body = bytearray(path.read_bytes())
    body[at % len(body)] ^= 8
    path.write_bytes(bytes(body))


def test_a_damaged_shard_is_named_and_nothing_stays(store, tmp_path, shards):
    """A flipped bit anywhere in a shard, its index included, ends the copy."""
    victim = shards(store)[1]
    for at in (60, victim.stat().st_size - 3):
        flip(victim, at)
        with pytest.raises(ChecksumError, match=victim.relative_to(store).as_posix()):
            copy_store(store, tmp_path / "b.zarr")
        flip(victim, at)
    victim.write_bytes(victim.read_bytes()[:9])
    with pytest.raises(CorruptDataError, match=victim.relative_to(store).as_posix()):
        copy_store(store, tmp_path / "b.zarr")
    victim.unlink()
    with pytest.raises(NotFoundError, match=victim.relative_to(store).as_posix()):
        copy_store(store, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()
    assert parts(tmp_path) == []


@pytest.mark.parametrize("name", ["kx/c/0", "summary/total/c/0/0", "derived/mean/intensity/c/0/0"])
def test_damaged_small_arrays_are_named(store, tmp_path, name):
    """Coordinates, images and results are compared with their checksums too."""
    found = store / name
    if not found.exists():
        (found,) = (store / "derived" / "mean").rglob("c/0/0")
    flip(found, 6)
    with pytest.raises(ChecksumError, match=found.relative_to(store).as_posix()):
        copy_store(store, tmp_path / "b.zarr")


def test_exchanged_shards_and_edited_metadata(store, tmp_path, shards):
    """What is sound in itself but not what was written is refused by the commit object."""
    one, two = shards(store)[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(ChecksumError, match="some were exchanged"):
        copy_store(store, tmp_path / "b.zarr")
    one.write_bytes(first)
    two.write_bytes(second)
    root = store / "zarr.json"
    root.write_text(root.read_text().replace('"vendor"', ' "vendor"'))
    with pytest.raises(ChecksumError, match="has the digest"):
        copy_store(store, tmp_path / "b.zarr")
    assert parts(tmp_path) == []


class StopError(OSError):
    """Ends a copy in the middle."""


@pytest.fixture
def stop_after(monkeypatch):
    """Let the n-th object fail to be written; gives how many were written."""

    def arm(cls, number):
        write, seen = cls._write, []

        def count(self, key, body, **how):
            if len(seen) >= number:
                raise StopError(28, "full")
            seen.append(key)
            return write(self, key, body, **how)

        monkeypatch.setattr(cls, "_write", count)
        return seen

    return arm


@pytest.mark.parametrize("number", [0, 3, 20])
def test_interrupted_copies_do_not_open_and_go_on(store, tmp_path, objects, stop_after, monkeypatch, number):
    """Wherever it stops there is no store; resuming writes what lacks, and the copy is the same."""
    stop_after(LocalStorage, number + 1)  # and the mark
    with pytest.raises(StopError) as caught:
        copy_store(store, tmp_path / "b.zarr")
    assert "resume=True" in caught.value.__notes__[0]
    monkeypatch.undo()
    (part,) = parts(tmp_path)
    with pytest.raises(NotFoundError, match="does not exist"):
        stemstore.open(tmp_path / "b.zarr")
    with pytest.raises((ConversionIncompleteError, stemstore.errors.UnknownFormatError)):
        stemstore.open(part)
    with pytest.raises(DestinationExistsError, match="--resume"):
        copy_store(store, tmp_path / "b.zarr")
    report = copy_store(store, tmp_path / "b.zarr", resume=True)
    assert min(number, 1) <= report.n_kept <= number
    assert objects(tmp_path / "b.zarr") == objects(store)
    assert parts(tmp_path) == []


def test_what_was_kept_is_looked_at(store, tmp_path, objects, shards, stop_after, monkeypatch):
    """Shards that arrived are not read again from the source; one that was damaged since is."""
    stop_after(LocalStorage, 4)
    with pytest.raises(StopError):
        copy_store(store, tmp_path / "b.zarr")
    monkeypatch.undo()
    (part,) = parts(tmp_path)
    good, bad = shards(part)[:2]
    flip(bad)
    read, seen = opened.read_object, []
    monkeypatch.setattr(opened, "read_object", lambda storage, one: seen.append(one.key) or read(storage, one))
    report = copy_store(store, tmp_path / "b.zarr", resume=True)
    assert good.relative_to(part).as_posix() not in seen
    assert bad.relative_to(part).as_posix() in seen
    assert report.n_kept >= 1
    assert objects(tmp_path / "b.zarr") == objects(store)


def test_resuming_where_nothing_was_begun(store, tmp_path, objects):
    """A script may always say resume=True."""
    copy_store(store, tmp_path / "b.zarr", resume=True)
    assert objects(tmp_path / "b.zarr") == objects(store)


def test_a_copy_that_lacked_only_its_name(store, tmp_path, objects, monkeypatch):
    """Killed between commit and rename, the part folder is whole and gets its name."""
    monkeypatch.setattr(
        "stemstore.maintenance.claim.publish", lambda *_, **__: (_ for _ in ()).throw(StopError(5, "gone"))
    )
    with pytest.raises(StopError):
        copy_store(store, tmp_path / "b.zarr")
    monkeypatch.undo()
    copy_store(store, tmp_path / "b.zarr", resume=True)
    assert objects(tmp_path / "b.zarr") == objects(store)


def test_an_interrupted_copy_on_a_server(store, tmp_path, objects, monkeypatch):
    """There it grows in place, without a commit object it does not open, and only its own source may go on."""
    there = f"memory://{tmp_path.name}-part-{store.name}/b.zarr"
    monkeypatch.setattr(copy.Tally, "check", lambda _: (_ for _ in ()).throw(StopError(5, "gone")))
    with pytest.raises(StopError):
        copy_store(store, there)
    monkeypatch.undo()
    with pytest.raises(ConversionIncompleteError, match="--resume"):
        stemstore.open(there)
    other = tmp_path / "other.zarr"
    stemstore.convert(store, other)
    with pytest.raises(InputError, match="begun from another store"):
        copy_store(other, there, resume=True)
    assert copy_store(store, there, resume=True).n_kept > 1
    copy_store(there, tmp_path / "c.zarr")
    assert objects(tmp_path / "c.zarr") == objects(store)


def test_a_source_that_is_changed_meanwhile(store, tmp_path, monkeypatch):
    """The copy is not finished, so that it cannot be a mixture."""
    check = copy.Tally.check

    def change(self):
        check(self)
        root = store / "zarr.json"
        root.write_text(root.read_text() + " ")

    monkeypatch.setattr(copy.Tally, "check", change)
    with pytest.raises(StaleStoreError, match="was changed while it was read"):
        copy_store(store, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


def test_places_that_cannot_be(store, tmp_path):
    """Overlapping places, packed destinations, nothing and unfinished stores are typed errors."""
    with pytest.raises(InputError, match="overlap"):
        copy_store(store, store / "b.zarr")
    with pytest.raises(InputError, match="stemstore pack"):
        copy_store(store, tmp_path / "b.zarr.zip")
    with pytest.raises(NotFoundError, match="nowhere"):
        copy_store(tmp_path / "nowhere.zarr", tmp_path / "b.zarr")
    (store / "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match="nothing proves"):
        copy_store(store, tmp_path / "b.zarr")
    assert parts(tmp_path) == []


def test_metadata_that_lead_away(store, tmp_path):
    """Names of arrays that lead out of the store are refused before anything is written."""
    root, commit = json.loads((store / "zarr.json").read_text()), json.loads((store / COMMIT).read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    nodes["../../evil"] = nodes["kx"]
    (store / "zarr.json").write_text(json.dumps(root))
    commit["metadata_digest"] = digest((store / "zarr.json").read_bytes())
    (store / COMMIT).write_text(json.dumps(commit))
    with pytest.raises(CorruptDataError, match="no key of a store"):
        copy_store(store, tmp_path / "b.zarr")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_a_source_that_was_edited_between_two_tries(store, tmp_path, objects, monkeypatch, place):
    """Killed after the commit, resumed after an edit: metadata and commit object are those of the new state."""
    target = str(tmp_path / "b.zarr") if place == "folder" else f"memory://{tmp_path.name}-e-{store.name}/b.zarr"
    monkeypatch.setattr(
        "stemstore.maintenance.claim.publish", lambda *_, **__: (_ for _ in ()).throw(StopError(5, "gone"))
    )
    with pytest.raises(StopError):
        copy_store(store, target)
    monkeypatch.undo()
    edit_store(store, {"acquisition.sample": "gold"})
    copy_store(store, target, resume=True)
    copy_store(target, tmp_path / "c.zarr")
    assert objects(tmp_path / "c.zarr") == objects(store)


def test_a_full_disk_keeps_what_was_copied(store, tmp_path, stop_after, monkeypatch):
    """An error of the device is typed and tells how to go on."""
    real = os.write
    left = [20_000]

    def write(handle, body):
        left[0] -= len(body)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(handle, body)

    monkeypatch.setattr("stemstore.store.local.os.write", write)
    with pytest.raises(StorageError, match="No space left") as caught:
        copy_store(store, tmp_path / "b.zarr")
    assert "resume=True" in caught.value.__notes__[0]


SLOW = """
import sys, time
from stemstore.maintenance.copy import copy_store
from stemstore.maintenance.edit import edit_store
from stemstore.store.commit import COMMIT, digest
from stemstore.store.journal import COPY
from stemstore.store.local import LocalStorage
put = LocalStorage.put
def slow(self, key, parts):
    time.sleep(0.004)
    return put(self, key, parts)
LocalStorage.put = slow
print("begin", flush=True)
copy_store(sys.argv[1], sys.argv[2], resume=True)
"""


def test_killed_copies_never_open(kept, tmp_path, objects):
    """Killed without warning again and again, there is no store under the name until it is whole."""
    store, target, kills = kept / "dense.zarr", tmp_path / "b.zarr", 0
    for pause in (0.03, 0.1):
        with subprocess.Popen([sys.executable, "-c", SLOW, str(store), str(target)], stdout=subprocess.PIPE) as running:
            running.stdout.readline()
            time.sleep(pause)
            running.send_signal(signal.SIGKILL)
        if target.exists():
            assert objects(target) == objects(store)
            break
        kills += 1
        with pytest.raises(NotFoundError, match="does not exist"):
            stemstore.open(target)
    assert kills
    if not target.exists():
        copy_store(store, target, resume=True)
    assert objects(target) == objects(store)
    assert stemstore.validate(target, deep=True).valid


def test_progress_and_the_mark(store, tmp_path):
    """Every object is told of, and the mark lies only where a copy is unfinished."""

    class Steps:
        total, done = 0, 0

        def start(self, what, total):
            self.total = total

        def advance(self, steps=1):
            self.done += steps

    steps = Steps()
    copy_store(store, tmp_path / "b.zarr", progress=steps)
    assert steps.done == steps.total > 10
    assert not (tmp_path / "b.zarr" / COPY).parent.exists()
