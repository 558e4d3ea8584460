"""Files at URLs: named, listed and read like those of this machine."""

import io
import json
import pickle
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import InputError, NotFoundError, ScanWarning, StaleStoreError, StorageError, TruncatedFileError
from stemstore.sources import fetch, files
from stemstore.sources.hdf5 import find, open_hdf5
from stemstore.sources.hdf5_frames import Part
from stemstore.sources.location import Location
from stemstore.sources.records import as_bytes, read_blocks
from stemstore.sources.remote import RemotePath, local_only, place
from stemstore.testing.elsewhere import CountedFiles, copied
from stemstore.testing.servers import FileServer

CONTENT = np.random.default_rng(5).integers(0, 256, 300_000, np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """A folder with a few files, at a URL."""
    for name in ("b10.raw", "b9.raw", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(CONTENT)
    with copied(tmp_path) as address:
        yield address


def test_names_are_those_of_paths(folder):
    """Parts of an address are named like parts of a path, and survive pickling."""
    path, same = place(f"{folder}/sub/c.txt"), Path("/x/sub/c.txt")
    assert isinstance(path, RemotePath)
    for name in ("name", "suffix", "stem"):
        assert getattr(path, name) == getattr(same, name)
    assert str(path.with_suffix(".json")) == f"{folder}/sub/c.json"
    assert str(path.parent / "d") == str(path.with_name("d")) == f"{folder}/sub/d"
    assert pickle.loads(pickle.dumps(path)) == path


def test_lists_and_patterns(folder):
    """Folders are listed in natural order, patterns are matched, and what is missing is said."""
    assert [one.name for one in files.list_folder(place(folder))] == ["b9.raw", "b10.raw", "sub"]
    assert [one.name for one in files.expand(f"{folder}/*.raw")] == ["b9.raw", "b10.raw"]
    assert place(f"{folder}/sub").is_dir()
    assert not place(f"{folder}/sub").is_file()
    with pytest.raises(NotFoundError, match=r"b11\.raw' does not exist"):
        files.expand(f"{folder}/b11.raw")
    with pytest.raises(InputError, match="copy the files first"):
        local_only(place(folder), "anything")


def test_a_replaced_file_is_noticed(folder, monkeypatch):
    """A file that changed after it was described is stale, whenever it is looked at again."""
    monkeypatch.setattr(files, "LOOK_AGAIN", 0.0)
    described = files.describe([place(f"{folder}/b9.raw")])
    assert described[0].size == len(CONTENT)
    assert described[0].mtime is not None
    files.check_unchanged(described)
    fsspec.filesystem("memory").pipe_file(f"{folder}/b9.raw", CONTENT[:-1])
    with pytest.raises(StaleStoreError, match="changed after it was opened"):
        files.check_unchanged(described)


@given(st.lists(st.tuples(st.integers(0, 299_999), st.integers(0, 60_000)), max_size=12))
@settings(max_examples=60)
def test_an_open_file_reads_like_any(moves):
    """Any sequence of jumps and reads gives the bytes that lie there, by blocks of the cache or past it."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("memory://any/file", CONTENT)
    with place("memory://any/file").open() as file, io.BytesIO(CONTENT) as same:
        for start, length in moves:
            assert file.seek(start) == same.seek(start)
            assert file.read(length) == same.read(length)
            assert file.tell() == same.tell()
        assert file.seek(-7, io.SEEK_END) == same.seek(-7, io.SEEK_END)
        assert file.read() == same.read()
        assert file.read(1) == b""


@given(
    st.lists(st.integers(0, 299_000), min_size=1, max_size=40),
    st.integers(1, 1000),
    st.sampled_from([1, 4096, 2**20]),
    st.sampled_from([300, 2**14, 2**22]),
)
@settings(max_examples=60)
def test_blocks_arrive_where_they_belong(offsets, length, gap, request_bytes):
    """Blocks in any order, overlapping ones too, are put in their places, however the requests are cut."""
    fsspec.filesystem("memory").pipe_file("memory://blocks/file", CONTENT)
    out = np.zeros(len(offsets) * length, np.uint8)
    places = np.arange(len(offsets)) * length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "MAX_GAP", gap)
        patch.setattr(fetch, "REQUEST", request_bytes)
        patch.setattr(fetch, "BATCH", 50_000)
        read_blocks("memory://blocks/file", np.array(offsets), length, as_bytes(out), places)
    expected = b"".join(CONTENT[offset : offset + length] for offset in offsets)
    assert out.tobytes() == expected


def test_few_requests_for_many_blocks(tmp_path):
    """Blocks that lie close together are one request, and headers that follow each other are read ahead."""
    (tmp_path / "a").write_bytes(CONTENT)
    path = place(f"counted://{tmp_path}/a")
    CountedFiles.requests = 0
    out = np.empty(100 * 1000, np.uint8)
    read_blocks(path, np.arange(100) * 2000, 1000, as_bytes(out), np.arange(100) * 1000)
    assert CountedFiles.requests == 1
    with path.open() as file:
        for _ in range(240):
            file.read(1000)
    assert CountedFiles.requests <= 7


def test_chunks_are_read_ahead(tmp_path):
    """Chunks that HDF5 asks for one by one take few requests, and none of them is read twice."""
    frames = np.random.default_rng(7).integers(0, 2**16, (64, 128, 128), np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, 128, 128), compression="gzip")
    with open_hdf5(f"counted://{tmp_path}/a.h5") as file:
        CountedFiles.requests = CountedFiles.bytes_read = 0
        np.testing.assert_array_equal(file["frames"][...], frames)
    assert CountedFiles.requests <= 16
    assert CountedFiles.bytes_read <= 1.1 * (tmp_path / "a.h5").stat().st_size


def test_short_files_and_failures(folder, monkeypatch):
    """A file that ends too early, a server that fails for good, and one that fails for a moment are told apart."""
    out = np.zeros(100, np.uint8)
    with pytest.raises(TruncatedFileError, match=r"b9\.raw' ends at byte 300000"):
        read_blocks(f"{folder}/b9.raw", np.array([299_950]), 100, as_bytes(out), np.array([0]))
    monkeypatch.setattr("stemstore.places.retry.FIRST_PAUSE", 0.0)
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "3")
    memory, failures = type(fsspec.filesystem("memory")), []

    def failing(_, path, *args, **kwargs):
        failures.append(path)
        if len(failures) < limit:
            msg = "busy, says user me:passw0rd"
            raise OSError(msg)
        return CONTENT[:100]

    monkeypatch.setattr(memory, "cat_file", failing)
    location = Location("memory://me:passw0rd@host/file")
    limit = 3
    assert fetch.fetch(location, [(0, 100)]) == [CONTENT[:100]]
    failures.clear()
    limit = 9
    with pytest.raises(StorageError, match="busy, says user …") as found:
        fetch.fetch(location, [(0, 100)])
    assert "passw0rd" not in str(found.value)


def test_servers_without_parts_are_refused(tmp_path):
    """A server that would send the whole file for every part is found out before it does."""
    (tmp_path / "a.raw").write_bytes(CONTENT)
    with FileServer(tmp_path, ranges=False) as server:
        with pytest.raises(InputError, match="does not send parts of files; copy the file first"):
            place(f"{server.url}/a.raw").open().read(1)
        assert all(request.range for request in server.requests if request.method == "GET")


def test_links_between_remote_files(tmp_path):
    """Links lead into the file that they name; a dataset made of other files is refused, for it would show zeros."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["entry/frames"] = np.arange(24).reshape(2, 3, 4)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["here/link"] = h5py.ExternalLink("data.h5", "/entry")
        file["lost"] = h5py.ExternalLink("gone.h5", "/entry")
        layout = h5py.VirtualLayout((2, 3, 4), "i8")
        layout[:] = h5py.VirtualSource("data.h5", "entry/frames", (2, 3, 4))
        file.create_virtual_dataset("virtual", layout)
    with copied(tmp_path) as address, open_hdf5(f"{address}/master.h5") as file:
        frames = find(file, "here/link/frames")
        assert place(frames.file.filename) == place(f"{address}/data.h5")
        np.testing.assert_array_equal(frames[...], np.arange(24).reshape(2, 3, 4))
        with pytest.raises(NotFoundError, match=r"'gone\.h5', which is missing"):
            find(file, "lost")
        with pytest.raises(InputError, match="made of other files, cannot be read; copy the files first"):
            Part.of(file["virtual"])


def test_series_without_a_listing(tmp_path):
    """A web server that shows no folder has no files beside; the one that is named is read."""
    (tmp_path / "a.raw").write_bytes(CONTENT)
    (tmp_path / "a.raw.json").write_text(json.dumps({"shape": [1], "dtype": "u1"}))
    with FileServer(tmp_path) as server:
        with pytest.warns(ScanWarning, match="name all files of a scan"):
            assert files.list_folder(place(server.url)) == []
        assert place(f"{server.url}/a.raw.json").read_bytes() == (tmp_path / "a.raw.json").read_bytes()
        assert not place(f"{server.url}/b.raw").exists()
