"""Writing: three steps in any process, nothing half-finished under the final name, nothing lost silently."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import zlib
from contextlib import suppress

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    ConversionIncompleteError,
    CorruptDataError,
    DestinationExistsError,
    InputError,
    NotFoundError,
    StorageError,
)
from stemstore.selection import Selection
from stemstore.store.commit import COMMIT, digest, shards_digest
from stemstore.store.destination import parts_of
from stemstore.store.journal import PartitionRecords
from stemstore.store.open import open_store
from stemstore.store.writer import StoreWriter

SHAPE = (7, 6, 8, 6)


@pytest.fixture
def data():
    """Frames of a small scan."""
    return np.random.default_rng(0).poisson(2, SHAPE).astype(np.uint16)


@pytest.fixture
def begin(tmp_path, data, make_document, small_layout):
    """Begin a store of the small scan."""

    def make(url=None, **options):
        return StoreWriter.init(url or tmp_path / "scan.zarr", make_document(SHAPE), small_layout(data), **options)

    return make


def write_all(writer, data, skip=()):
    """Write every partition but those of `skip`."""
    for number, part in enumerate(writer.layout.partitions):
        if number not in skip:
            writer.write_frames(number, data[part])


def test_nothing_under_the_name_before_the_end(tmp_path, begin, data):
    """The store grows beside its destination and appears whole."""
    writer = begin()
    write_all(writer, data)
    assert [path.name for path in tmp_path.iterdir()] == [f"scan.zarr.part-{writer.uuid}"]
    assert writer.finalise() == str(tmp_path / "scan.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.zarr"]
    names = {path.name for path in (tmp_path / "scan.zarr").iterdir()}
    assert names == {"zarr.json", COMMIT, "intensity", "y", "x", "ky", "kx"}


def test_missing_partitions_are_listed(begin, data):
    """The end of a conversion names what is missing and can be repeated."""
    writer = begin()
    write_all(writer, data, skip=(1, 3))
    with pytest.raises(ConversionIncompleteError, match=r"2 of 4 partitions of .* are missing \(1, 3\)") as caught:
        writer.finalise()
    assert caught.value.context["missing"] == [1, 3]
    for number in (1, 3):
        writer.write_frames(number, data[writer.layout.partitions[number]])
    np.testing.assert_array_equal(open_store(writer.finalise()).read(Selection.full(SHAPE)), data)


def test_other_processes_take_part(begin, data):
    """A writer travels by pickle, or is found again by the destination."""
    writer = begin()
    pickle.loads(pickle.dumps(writer)).write_frames(0, data[writer.layout.partitions[0]])
    again = StoreWriter.attach(writer.url)
    assert again == writer
    assert again.finished() == {0}
    write_all(again, data, skip=(0,))
    np.testing.assert_array_equal(open_store(again.finalise()).read(Selection.full(SHAPE)), data)


def test_attach_needs_exactly_one_conversion(tmp_path, begin):
    """No conversion, or several, are told apart; a working folder may be named."""
    with pytest.raises(NotFoundError, match="under way"):
        StoreWriter.attach(tmp_path / "scan.zarr")
    first, second = begin(), begin()
    with pytest.raises(InputError, match="name one of these folders"):
        StoreWriter.attach(tmp_path / "scan.zarr")
    assert StoreWriter.attach(first.working) == first
    assert parts_of(first.url) == sorted([first.working, second.working])


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "journal"])
def test_resume_repeats_what_does_not_hold(begin, data, harm):
    """A shard that changed after its journal entry, or a damaged entry, counts as not done."""
    from pathlib import Path

    writer = begin()
    write_all(writer, data)
    shard = Path(writer.working) / "intensity/c/0/1/0/0"
    body = bytearray(shard.read_bytes())
    if harm == "flip":
        body[7] ^= 4
        shard.write_bytes(bytes(body))
        assert writer.finished(check=False) == {0, 1, 2, 3}
    elif harm == "cut":
        shard.write_bytes(bytes(body[:-1]))
    elif harm == "remove":
        shard.unlink()
    else:
        (Path(writer.working) / ".journal/00000001.npz").write_bytes(b"PK rubbish")
    assert writer.finished() == {0, 2, 3}


def test_records_become_summary(begin, data, make_document, small_layout, tmp_path):
    """Images, sums, maxima and binned frames of all partitions are put together exactly."""
    writer = begin()
    for number, part in enumerate(writer.layout.partitions):
        frames = data[part]
        n = frames.shape[0] * frames.shape[1]
        binned = frames.reshape(n, 4, 2, 3, 2).sum((2, 4), dtype=np.uint32)
        total = frames.sum((2, 3), dtype=np.uint64).reshape(-1)
        sums = {"sum": frames.sum((0, 1), dtype=np.uint64)}
        maxima = {"max": frames.max((0, 1))}
        writer.write_frames(number, frames, PartitionRecords(None, {"total": total, "binned": binned}, sums, maxima))
    group = zarr.open(writer.finalise(attributes={"total": {"long_name": "electrons"}}))["summary"]
    np.testing.assert_array_equal(group["total"][...], data.sum((2, 3)))
    np.testing.assert_array_equal(group["sum"][...], data.sum((0, 1)))
    np.testing.assert_allclose(group["mean"][...], data.mean((0, 1)))
    np.testing.assert_array_equal(group["max"][...], data.max((0, 1)))
    np.testing.assert_array_equal(group["binned"][...], data.reshape(7, 6, 4, 2, 3, 2).sum((3, 5)))
    assert group["total"].attrs.asdict() == {"units": "count", "long_name": "electrons"}


def test_validity_is_kept_and_counted(begin, data):
    """States of frames reach the store, its counts and the mean pattern; without any there is no array."""
    writer = begin()
    state = np.full(SHAPE[:2], 2, np.uint8)
    state[1, 1], state[5, 2] = 0, 1
    data[1, 1] = 0
    for number, part in enumerate(writer.layout.partitions):
        sums = {"sum": data[part].sum((0, 1), dtype=np.uint64)}
        writer.write_frames(number, data[part], PartitionRecords(state[part].reshape(-1), sums=sums))
    scan = open_store(writer.finalise())
    np.testing.assert_array_equal(scan.validity, state.reshape(-1))
    assert scan.document.frames.model_dump() == {"valid": 40, "partial": 1, "missing": 1}
    np.testing.assert_allclose(zarr.open(scan.url)["summary/mean"][...], data.sum((0, 1)) / 41)


def test_partitions_with_other_records_are_refused(begin, data):
    """Partitions written with different options do not silently give half an image."""
    writer = begin()
    write_all(writer, data, skip=(2,))
    part = data[writer.layout.partitions[2]]
    writer.write_frames(2, part, PartitionRecords(maps={"total": part.sum((2, 3)).reshape(-1)}))
    with pytest.raises(CorruptDataError, match=r"partition 2 .* same records \(total\)"):
        writer.finalise()


@pytest.mark.parametrize(
    ("records", "name"),
    [
        (PartitionRecords(np.zeros(3, np.uint8)), "valid"),
        (PartitionRecords(maps={"total": np.zeros(5)}), "total"),
        (PartitionRecords(maps={"curve": np.zeros((16, 2))}), "curve"),
        (PartitionRecords(sums={"sum": np.zeros((3, 3))}), "sum"),
    ],
)
def test_records_that_do_not_fit_are_refused(begin, data, records, name):
    """A record of another shape is named before the shard is written."""
    writer = begin()
    with pytest.raises(InputError, match=f"record '{name}' has shape"):
        writer.write_frames(0, data[writer.layout.partitions[0]], records)
    assert writer.finished() == set()


def test_further_arrays_and_final_document(begin, data):
    """Calibration arrays and the history that only the end knows are stored."""
    writer = begin()
    write_all(writer, data)
    dark = np.random.default_rng(1).normal(size=SHAPE[2:])
    final = writer.document.model_copy(update={"vendor": {"note": "final"}})
    url = writer.finalise(final, arrays={"calibration/dark": (("ky", "kx"), dark)})
    np.testing.assert_array_equal(zarr.open(url)["calibration/dark"][...], dark)
    assert open_store(url).document.vendor == {"note": "final"}


def test_final_document_keeps_the_identity(begin, data, make_document):
    """A document of another uuid cannot end a conversion."""
    writer = begin()
    write_all(writer, data)
    with pytest.raises(InputError, match="change a copy of the first one"):
        writer.finalise(make_document(SHAPE))


def test_document_and_layout_must_agree(tmp_path, make_document, small_layout, data):
    """A document of another shape is refused before anything is written."""
    with pytest.raises(InputError, match="make both from the same source"):
        StoreWriter.init(tmp_path / "scan.zarr", make_document((7, 7, 8, 6)), small_layout(data))
    assert list(tmp_path.iterdir()) == []


def test_commit_digests(begin, data):
    """The commit object carries what can be computed again from the store."""
    from pathlib import Path

    writer = begin()
    write_all(writer, data)
    root = Path(writer.finalise())
    commit = json.loads((root / COMMIT).read_text())
    shards = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("intensity/c/*/*/*/*")}
    assert commit["n_shards"] == len(shards) == 4
    assert commit["n_bytes"] == sum(map(len, shards.values()))
    assert commit["metadata_digest"] == digest((root / "zarr.json").read_bytes())
    assert commit["shards_digest"] == shards_digest({key: zlib.crc32(body) for key, body in shards.items()})


def test_taken_destination_is_refused(tmp_path, begin, data):
    """An existing store is not touched unless overwriting is asked for, at the beginning and at the end."""
    first, second = begin(), begin()
    write_all(first, data)
    write_all(second, data)
    first.finalise()
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        begin()
    with pytest.raises(DestinationExistsError, match="rename it by hand"):
        second.finalise()
    assert open_store(tmp_path / "scan.zarr").uuid == first.uuid


def test_overwriting_keeps_the_old_store_until_the_end(tmp_path, begin, data):
    """The old store opens while the new one is written, and is gone without a trace afterwards."""
    old = begin()
    write_all(old, data)
    old.finalise()
    new = begin(overwrite=True)
    write_all(new, data + 1)
    np.testing.assert_array_equal(open_store(old.url).read(Selection.full(SHAPE)), data)
    new.finalise()
    np.testing.assert_array_equal(open_store(new.url).read(Selection.full(SHAPE)), data + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.zarr"]


def test_foreign_folders_are_never_overwritten(tmp_path, begin):
    """Overwriting replaces stores only, not whatever a mistyped path leads to."""
    (tmp_path / "scan.zarr").mkdir()
    (tmp_path / "scan.zarr" / "thesis.tex").write_text("years of work")
    with pytest.raises(DestinationExistsError, match="not a stemstore store"):
        begin(overwrite=True)
    assert (tmp_path / "scan.zarr" / "thesis.tex").read_text() == "years of work"


def test_abort_leaves_nothing(tmp_path, begin, data):
    """After an abort the folder is as before."""
    writer = begin()
    write_all(writer, data)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported(tmp_path, begin, data, monkeypatch):
    """A full disk names path and free space, leaves no half shard that counts, and can be aborted."""
    writer = begin()
    writer.write_frames(0, data[writer.layout.partitions[0]])
    plain = os.write

    def write(handle, body):
        if len(body) > 64:
            plain(handle, body[:64])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(handle, body)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(
            StorageError, match=r"cannot write '.*intensity/c/0/1/0/0': No space left.* free there"
        ) as got:
            writer.write_frames(1, data[writer.layout.partitions[1]])
    assert got.value.errno == errno.ENOSPC
    assert writer.finished() == {0}
    assert not list((tmp_path / f"scan.zarr.part-{writer.uuid}").rglob("*.tmp-*"))
    write_all(writer, data, skip=(0,))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_killed_between_commit_and_rename(tmp_path, begin, data, monkeypatch):
    """A conversion killed after its commit is finished by repeating the end."""
    from stemstore.store import writer as module

    writer = begin()
    write_all(writer, data)
    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.finalise()
    assert not (tmp_path / "scan.zarr").exists()
    np.testing.assert_array_equal(
        open_store(StoreWriter.attach(writer.url).finalise()).read(Selection.full(SHAPE)), data
    )


def tree(url):
    """Read all bytes of a store by key, the time of the commit left out."""
    from pathlib import Path

    files = {path.relative_to(url).as_posix(): path for path in Path(url).rglob("*") if path.is_file()}
    found = {name: path.read_bytes() for name, path in files.items()}
    found[COMMIT] = {key: value for key, value in json.loads(found[COMMIT]).items() if key != "time"}
    return found


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.permutations(range(4)), st.integers(0, 40)), max_size=3),
    st.permutations(range(4)),
)
def test_any_course_gives_the_same_bytes(tmp_path_factory, data, make_document, small_layout, runs, last):
    """Runs in any order, stopped at any write and resumed, end in the bytes of a straight run."""
    identity = "00000000-0000-4000-8000-000000000007"
    folder = tmp_path_factory.mktemp("course")
    straight = StoreWriter.init(folder / "one.zarr", make_document(SHAPE, identity=identity), small_layout(data))
    write_all(straight, data)
    StoreWriter.init(folder / "two.zarr", make_document(SHAPE, identity=identity), small_layout(data))
    plain = os.write
    for order, writes in runs:
        left = [writes]

        def write(handle, body, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return plain(handle, body)

        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "write", write)
            course(StoreWriter.attach(folder / "two.zarr"), data, order)
    resumed = StoreWriter.attach(folder / "two.zarr")
    course(resumed, data, last)
    assert tree(straight.finalise()) == tree(resumed.finalise())


def course(writer, data, order):
    """Write what is not there yet, in an order."""
    done = writer.finished()
    for number in order:
        if number not in done:
            writer.write_frames(number, data[writer.layout.partition(number)])


KILLED = """
import os, signal, sys
import numpy as np
from stemstore.store import local
from stemstore.store.writer import StoreWriter

writer = StoreWriter.attach(sys.argv[1])
plain, left = os.write, [int(sys.argv[2])]

def write(handle, body):
    left[0] -= 1
    if left[0] < 0:
        plain(handle, bytes(body)[: len(body) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(handle, body)

local.os.write = write
data = np.load(sys.argv[3])
for number in range(writer.layout.n_partitions):
    writer.write_frames(number, data[writer.layout.partition(number)])
writer.finalise()
"""


def count_writes(writer, data, monkeypatch):
    """Count the writes of a whole conversion."""
    plain, calls = os.write, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, body: (calls.append(1), plain(handle, body))[1])
        write_all(writer, data)
        writer.finalise()
    return len(calls)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 1.0])
def test_killed_writer_loses_nothing_unnoticed(tmp_path, begin, data, share, monkeypatch):
    """After SIGKILL in the middle of any write nothing opens as finished, and a resumed conversion is right."""
    np.save(tmp_path / "data.npy", data)
    after = int(share * (count_writes(begin(tmp_path / "other.zarr"), data, monkeypatch) - 1))
    writer = begin()
    command = [sys.executable, "-c", KILLED, writer.url, str(after), str(tmp_path / "data.npy")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "scan.zarr").exists()
    with pytest.raises(ConversionIncompleteError, match=r"go on with convert\(…, resume=True\) or .stemstore repair"):
        open_store(writer.url)
    there = writer.finished()
    scan = open_store(writer.url, allow_incomplete=True)
    state = scan.validity.reshape(SHAPE[:2])
    for number, part in enumerate(writer.layout.partitions):
        assert (state[part] == (2 if number in there else 0)).all()
    read = scan.read(Selection.full(SHAPE))
    np.testing.assert_array_equal(read[state == 2], data[state == 2])
    resumed = StoreWriter.attach(writer.url)
    write_all(resumed, data, skip=there)
    np.testing.assert_array_equal(open_store(resumed.finalise()).read(Selection.full(SHAPE)), data)
    assert not list((tmp_path / "scan.zarr").rglob("*.tmp-*"))


@pytest.mark.parametrize("name", ["a" * 300, "a" * 240, "a\0b"])
def test_names_that_no_file_can_have(tmp_path, begin, name):
    """The system's refusal of a name is an error of ours."""
    with pytest.raises(StorageError, match=r"cannot (read|write)"):
        begin(tmp_path / name)


def test_link_to_nothing_is_in_the_way(tmp_path, begin):
    """A dangling link takes the name, which is told before the work and not after it."""
    (tmp_path / "scan.zarr").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DestinationExistsError, match="exists"):
        begin()


def test_link_is_replaced_and_not_what_it_leads_to(tmp_path, begin, data):
    """Overwriting a link to a store puts the new store in its place and leaves the old one alone."""
    for name in ("old.zarr", "scan.zarr"):
        writer = begin(tmp_path / name, overwrite=True)
        for number, part in enumerate(writer.layout.partitions):
            writer.write_frames(number, data[part])
        if name == "old.zarr":
            writer.finalise()
            (tmp_path / "scan.zarr").symlink_to(tmp_path / "old.zarr")
    writer.finalise()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.zarr", "scan.zarr"]
    assert not (tmp_path / "scan.zarr").is_symlink()
    assert open_store(tmp_path / "old.zarr").uuid != open_store(tmp_path / "scan.zarr").uuid == writer.uuid


def test_beginning_that_fails_leaves_nothing(tmp_path, begin, monkeypatch):
    """A disk that is full before the first partition leaves no folder."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stemstore.store.local.os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        begin()
    assert list(tmp_path.iterdir()) == []
