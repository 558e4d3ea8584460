"""Opening: finished stores only, each other case with an error that says what to do."""

import json
import time
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from stemstore.errors import (
    ConversionIncompleteError,
    CorruptDataError,
    FormatVersionError,
    NotFoundError,
    StaleStoreError,
    UnknownFormatError,
)
from stemstore.selection import Selection
from stemstore.store.commit import COMMIT
from stemstore.store.journal import PartitionRecords
from stemstore.store.layout import counted_layout
from stemstore.store.metadata import read_document
from stemstore.store.open import is_store, open_store, reopen
from stemstore.store.writer import StoreWriter

SHAPE = (5, 6, 4, 3)


@pytest.fixture
def data():
    """Frames of a small scan."""
    return np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


@pytest.fixture
def url(tmp_path, write_dense, data):
    """Write a finished store."""
    return write_dense(tmp_path / "scan.zarr", data)


def edit(url, name, change):
    """Change a JSON object of a store."""
    path = Path(url) / name
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_nothing_there(tmp_path):
    """A path that does not exist is not found."""
    with pytest.raises(NotFoundError, match="does not exist"):
        open_store(tmp_path / "none.zarr")
    assert not is_store(tmp_path / "none.zarr")


def test_other_things_are_not_stores(tmp_path):
    """Files, folders and Zarr groups of others are told apart from stores."""
    (tmp_path / "frames.dat").write_bytes(b"\0" * 100)
    (tmp_path / "folder").mkdir()
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    for name, reason in [
        ("frames.dat", "has no zarr.json"),
        ("folder", "has no zarr.json"),
        ("other.zarr", "use zarr"),
    ]:
        with pytest.raises(UnknownFormatError, match=reason):
            open_store(tmp_path / name)
        assert not is_store(tmp_path / name)


def test_a_store_is_recognised(url):
    """A store is one, finished or not."""
    assert is_store(url)
    (Path(url) / COMMIT).unlink()
    assert is_store(url)


@pytest.mark.parametrize("allow_incomplete", [False, True])
def test_no_commit_object(url, allow_incomplete):
    """Without commit object and journal nothing tells which frames exist, so no way in is offered."""
    (Path(url) / COMMIT).unlink()
    with pytest.raises(ConversionIncompleteError, match=r"no stemstore\.commit\.json.*nothing proves that it is whole"):
        open_store(url, allow_incomplete=allow_incomplete)


def test_mixture_of_two_stores(url):
    """A commit object of another store is corrupt data."""
    edit(url, COMMIT, lambda found: found.update(uuid="00000000-0000-4000-8000-000000000009"))
    with pytest.raises(CorruptDataError, match="is a mixture"):
        open_store(url)


@pytest.mark.parametrize("name", ["zarr.json", COMMIT])
def test_newer_versions_are_refused(url, name):
    """A store of a newer release is refused with the versions that are known."""

    def newer(found):
        document = found["attributes"]["stemstore"] if name == "zarr.json" else found
        document["version"] = 99

    edit(url, name, newer)
    with pytest.raises(FormatVersionError, match="version 99, this release reads version 1; install a newer"):
        open_store(url)


def test_damaged_metadata(url):
    """Documents that break their rules, and JSON that is none, are corrupt and named."""
    edit(url, "zarr.json", lambda found: found["attributes"]["stemstore"].update(uuid="none"))
    with pytest.raises(CorruptDataError, match=r"(?s)scan document of .* is damaged: .*uuid"):
        open_store(url)
    (Path(url) / "zarr.json").write_text("{")
    with pytest.raises(CorruptDataError, match="is not JSON"):
        open_store(url)


def test_another_kind_of_document(url):
    """A group that says it is something else of ours is not a scan."""
    edit(url, "zarr.json", lambda found: found["attributes"]["stemstore"].update(kind="stemstore.result"))
    with pytest.raises(UnknownFormatError, match=r"stemstore\.result"):
        open_store(url)


def test_array_that_contradicts_the_document(url):
    """An array of another shape than the document says, or none, is corrupt."""

    def shrink(found):
        found["consolidated_metadata"]["metadata"]["intensity"]["shape"][0] = 4

    edit(url, "zarr.json", shrink)
    with pytest.raises(CorruptDataError, match="no array 'intensity' of the scan"):
        open_store(url)


def test_document_is_read_alone(url):
    """The document of a store is available without opening it."""
    assert read_document(url).shape == SHAPE


def test_opening_reads_two_small_objects(url, monkeypatch):
    """Opening needs the root metadata and the commit object, nothing else, and no time."""
    from stemstore.store.local import LocalStorage

    asked = []
    plain = LocalStorage.get
    monkeypatch.setattr(LocalStorage, "get", lambda storage, key: (asked.append(key), plain(storage, key))[1])
    start = time.perf_counter()
    open_store(url)
    assert time.perf_counter() - start < 0.1
    assert asked == ["zarr.json", COMMIT]


def test_a_process_opens_a_store_once(url):
    """Tasks that arrive by url and uuid share one open scan."""
    uuid = read_document(url).uuid
    assert reopen(url, uuid) is reopen(url, uuid)


def test_unfinished_dense_store_opens_on_request(tmp_path, data, make_document, small_layout):
    """What exists is read, the rest is missing and zero; states of written frames are kept."""
    writer = StoreWriter.init(tmp_path / "scan.zarr", make_document(SHAPE), small_layout(data))
    part = writer.layout.partitions[1]
    state = np.full(data[part].shape[:2], 2, np.uint8)
    state[0, 0] = 1
    writer.write_frames(1, data[part], PartitionRecords(state.reshape(-1)))
    scan = open_store(tmp_path / "scan.zarr", allow_incomplete=True)
    expected, valid = np.zeros_like(data), np.zeros(SHAPE[:2], np.uint8)
    expected[part], valid[part] = data[part], state
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), expected)
    np.testing.assert_array_equal(scan.validity, valid.reshape(-1))


def test_unfinished_store_that_was_finished_meanwhile(tmp_path, data, make_document, small_layout):
    """A scan opened unfinished does not read zeros after its folder got the final name."""
    writer = StoreWriter.init(tmp_path / "scan.zarr", make_document(SHAPE), small_layout(data))
    scan = open_store(writer.working, allow_incomplete=True)
    for number, part in enumerate(writer.layout.partitions):
        writer.write_frames(number, data[part])
    writer.finalise()
    with pytest.raises(StaleStoreError, match="is gone; open it again"):
        scan.read(Selection.full(SHAPE))


def test_unfinished_counted_store_opens_on_request(tmp_path, make_document):
    """Events of written partitions are read, the other frames are missing and empty."""
    from dataclasses import replace

    layout = replace(counted_layout((4, 5), (3, 4), 1.0), frames_per_block=5, blocks_per_shard=2)
    writer = StoreWriter.init(tmp_path / "scan.zarr", make_document((4, 5, 3, 4), counted=True), layout)
    gap = np.array([7, 0, 2], np.uint16)
    slots = [np.array(n, np.uint32) for n in ([0, 2, 0, 0, 0], [0, 0, 0, 0, 1])]
    writer.write_events(1, [(gap[:2], slots[0]), (gap[2:], slots[1])])
    scan = open_store(writer.working, allow_incomplete=True)
    read = scan.read(Selection.full(scan.shape)).reshape(20, 12)
    assert np.argwhere(read).tolist() == [[11, 7], [19, 2]]
    assert read[11, 7] == 2
    assert scan.validity.tolist() == [0] * 10 + [2] * 10


@pytest.fixture
def bucket():
    """Give an empty place in fsspec's memory."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield "memory://bucket/scan.zarr"
    fs.store.clear()


def test_remote_stores_write_and_read(bucket, write_dense, data):
    """A store lies at any url that fsspec knows; zarr reads it there as well."""
    assert write_dense(bucket, data) == bucket
    scan = open_store(bucket)
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), data)
    files = {path: fsspec.filesystem("memory").cat_file(path) for path in fsspec.filesystem("memory").find("/bucket")}
    held = {path.removeprefix("/bucket/scan.zarr/"): body for path, body in files.items()}
    assert not any(name.startswith(".journal") for name in held)
    buffers = {name: zarr.core.buffer.cpu.Buffer.from_bytes(body) for name, body in held.items()}
    np.testing.assert_array_equal(zarr.open_group(zarr.storage.MemoryStore(buffers), mode="r")["intensity"][...], data)


def test_remote_events_write_and_read(bucket, write_counted):
    """Counted scans lie there as well."""
    frames = np.random.default_rng(0).poisson(0.5, SHAPE).astype(np.uint8)
    scan = open_store(write_counted(bucket, frames))
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), frames)


def test_remote_commit_is_written_last(bucket, data, make_document, small_layout, monkeypatch):
    """On an object store everything is there before the commit object is."""
    from stemstore.store.remote import RemoteStorage

    written = []
    for name in ("put", "create"):
        plain = getattr(RemoteStorage, name)
        noted = lambda s, key, parts, plain=plain: (written.append(key), plain(s, key, parts))[1]  # noqa: E731
        monkeypatch.setattr(RemoteStorage, name, noted)
    writer = StoreWriter.init(bucket, make_document(SHAPE), small_layout(data))
    for number, part in enumerate(writer.layout.partitions):
        with pytest.raises(ConversionIncompleteError, match="did not finish"):
            open_store(bucket)
        StoreWriter.attach(bucket).write_frames(number, data[part])
    writer.finalise()
    assert written[-2:] == ["zarr.json", COMMIT]


def test_remote_places_are_told_apart(bucket, write_dense, data):
    """Nothing there, something there, and overwriting behave as for local stores."""
    from stemstore.errors import DestinationExistsError

    with pytest.raises(NotFoundError, match="does not exist"):
        open_store(bucket)
    write_dense(bucket, data)
    with pytest.raises(DestinationExistsError, match="exists"):
        write_dense(bucket, data)
    write_dense(bucket, data + 1, overwrite=True)
    np.testing.assert_array_equal(open_store(bucket).read(Selection.full(SHAPE)), data + 1)


def test_remote_rows_need_two_rounds(bucket, write_dense, data, monkeypatch):
    """A scan row costs one round of requests for the shard indices and one for the chunks."""
    scan = open_store(write_dense(bucket, data))
    asked = []
    plain = MemoryFileSystem.cat_file

    def cat_file(fs, path, start=None, end=None, **options):
        asked.append("index" if start < 0 else "chunks")
        return plain(fs, path, start, end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE).compose((2,))), data[2])
    assert asked == ["index"] * 2 + ["chunks"] * 2


@pytest.mark.parametrize("content", ["[]", "3", '{"attributes": []}', "[" * 100_000])
def test_root_that_is_no_group(url, content):
    """Whatever JSON stands in the root, the error is ours."""
    (Path(url) / "zarr.json").write_text(content)
    with pytest.raises((UnknownFormatError, CorruptDataError), match="restore it from a copy"):
        open_store(url)


@pytest.mark.parametrize("dtype", ["7int16", "banana", "u", 3])
def test_damaged_data_type(url, dtype):
    """A data type that NumPy refuses, for whatever reason, is damage."""
    arrays = "consolidated_metadata"
    edit(url, "zarr.json", lambda root: root[arrays]["metadata"]["intensity"].update(data_type=dtype))
    with pytest.raises(CorruptDataError, match="metadata of array 'intensity'"):
        open_store(url)


def test_every_damaged_byte_is_noticed(url, data):
    """One byte changed anywhere below the arrays gives an error of ours or the same pixels, never others."""
    random = np.random.default_rng(5)
    files = [path for path in Path(url).rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(files) > 3
    for path in files:
        body = path.read_bytes()
        for place in random.choice(len(body), min(len(body), 12), replace=False).tolist():
            path.write_bytes(body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :])
            with suppress(CorruptDataError, FormatVersionError):
                np.testing.assert_array_equal(open_store(url).read(Selection.full(SHAPE)), data)
        path.write_bytes(body)
