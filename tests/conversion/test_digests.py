"""Digests of the files that a conversion reads, and the walk that leads to them from a saved result."""

import hashlib
import json
import threading

import fsspec
import google_crc32c
import numpy as np
import pytest

import stemstore
from stemstore.conversion import digests
from stemstore.errors import InputError, StaleStoreError
from stemstore.progress import NoProgress
from stemstore.sources.files import describe
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage
from stemstore.testing import make_scan
from stemstore_schemas import load_result

DENSE = {"count": False, "profile": "raw", "max_memory": "64KiB"}
CHECK = b"123456789"
CASTAGNOLI = "crc32c:e3069283"
"""Check value of CRC-32C, as published with its parameters."""


def sha256(path):
    """Digest of a file, taken at once."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def crc32c(path):
    """Digest of a file, taken at once."""
    return f"crc32c:{google_crc32c.value(path.read_bytes()):08x}"


def history(store):
    """Operations that a store tells of."""
    return open_store(store).document.history


@pytest.fixture
def parts(tmp_path):
    """A scan of several shards in three files."""
    frames = np.random.default_rng(2).integers(0, 999, (12, 12, 32, 32)).astype("<u2")
    paths = [tmp_path / f"part{number}.raw" for number in range(3)]
    for path, piece in zip(paths, np.split(frames, 3), strict=True):
        piece.tofile(path)
    return frames, paths, {"dtype": "uint16", "shape": (12, 12, 32, 32), "reader": "raw_binary"}


def test_the_history_holds_a_digest_of_every_source_file(tmp_path, parts):
    """They are those that other programs find, file by file."""
    _, paths, how = parts
    stemstore.convert(paths, tmp_path / "a.zarr", digests="sha256", **DENSE, **how)
    (entry,) = history(tmp_path / "a.zarr")
    assert {file.path: file.digest for file in entry.inputs} == {str(path): sha256(path) for path in paths}


def test_a_saved_result_leads_to_the_raw_sector_files(tmp_path):
    """Result, its input store, that store's conversion, and the files with digests: each step names the next."""
    make_scan(tmp_path / "scan_42", scan_shape=(6, 6), dose=60, seed=1)
    stemstore.convert(tmp_path / "scan_42", tmp_path / "a.zarr", count=True, digests="sha256")
    ds = stemstore.open(tmp_path / "a.zarr")
    stemstore.save(stemstore.center_of_mass(ds), ds, "com")
    group = json.loads((tmp_path / "a.zarr" / "derived" / "com" / "zarr.json").read_text(encoding="utf-8"))
    saving = load_result(group["attributes"]["stemstore"]).history[-1]
    (scan,) = saving.inputs
    store = open_store(scan.path)
    assert store.uuid == scan.uuid
    conversion = store.document.history[-1]
    assert conversion.operation == "convert"
    sectors = [file for file in conversion.inputs if file.path.endswith(".data")]
    assert len(sectors) >= 4
    assert all(file.digest == sha256(tmp_path / "scan_42" / file.path.rpartition("/")[2]) for file in sectors)


def test_a_store_made_from_a_store_names_its_digest(tmp_path, parts):
    """Both conversions are told, and the store between them by its own digest."""
    _, paths, how = parts
    stemstore.convert(paths, tmp_path / "a.zarr", **DENSE, **how)
    stemstore.convert(tmp_path / "a.zarr", tmp_path / "b.zarr", count=False)
    first, second = history(tmp_path / "b.zarr")
    commit = json.loads((tmp_path / "a.zarr" / "stemstore.commit.json").read_text(encoding="utf-8"))
    assert [file.digest for file in first.inputs] == [crc32c(path) for path in paths]
    assert [file.digest for file in second.inputs] == [commit["shards_digest"]]


def test_no_digests_on_request(tmp_path, parts, monkeypatch):
    """With digests="none" no file is read for them."""
    _, paths, how = parts
    monkeypatch.setattr(digests, "digest_file", None)
    stemstore.convert(paths, tmp_path / "a.zarr", digests="none", **DENSE, **how)
    assert [file.digest for file in history(tmp_path / "a.zarr")[-1].inputs] == [None] * 3


def test_files_on_servers_only_where_it_is_asked_for(tmp_path, raw):
    """A second transfer of the data is nobody's default."""
    fsspec.filesystem("memory").pipe_file("/digests/scan.npy", raw.read_bytes())
    for name, asked, expected in (("a", None, None), ("b", "crc32c", crc32c(raw))):
        stemstore.convert("memory://digests/scan.npy", tmp_path / name, count=False, digests=asked)
        assert [file.digest for file in history(tmp_path / name)[-1].inputs] == [expected]


def test_jobs_divide_the_files_among_themselves(tmp_path, parts, monkeypatch):
    """Each file is read for its digest once, whoever does it, and the last step has them all."""
    frames, paths, how = parts
    taken = []
    real = digests.digest_file
    monkeypatch.setattr(digests, "digest_file", lambda *a: taken.append(a[0].path) or real(*a))
    plan = stemstore.plan_conversion(paths, tmp_path / "a.zarr", tasks=2, **DENSE, **how)
    stemstore.convert_partition(tmp_path / "a.zarr", 1)
    assert taken == [str(paths[1])]
    for task in range(plan.n_tasks):
        stemstore.convert_partition(tmp_path / "a.zarr", task)
    stemstore.finalise_conversion(tmp_path / "a.zarr")
    assert sorted(taken) == [str(path) for path in paths]
    assert [file.digest for file in history(tmp_path / "a.zarr")[-1].inputs] == [crc32c(path) for path in paths]
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr").intensity, frames)


def test_an_interrupted_conversion_keeps_what_it_has(tmp_path, parts, monkeypatch):
    """After an error in the middle, resuming takes only the digests that are left."""
    _, paths, how = parts
    first, taken = threading.Event(), []
    real = digests.digest_file

    def one_only(file, algorithm, stopped):
        if file.path != str(paths[0]):
            stopped.wait(20)
            return None
        text = real(file, algorithm)
        first.set()
        return text

    def fail(*_, **__):
        first.wait(20)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digests, "digest_file", one_only)
        patch.setattr("stemstore.conversion.steps.finish", fail)
        patch.setattr("stemstore.conversion.digests._wait", fail)
        with pytest.raises(KeyboardInterrupt):
            stemstore.convert(paths, tmp_path / "a.zarr", **DENSE, **how)
    monkeypatch.setattr(digests, "digest_file", lambda *a: taken.append(a[0].path) or real(*a))
    stemstore.convert(paths, tmp_path / "a.zarr", resume=True, **DENSE, **how)
    assert sorted(taken) == [str(path) for path in paths[1:]]
    assert [file.digest for file in history(tmp_path / "a.zarr")[-1].inputs] == [crc32c(path) for path in paths]


def test_digests_are_the_published_ones(tmp_path, monkeypatch):
    """The check value of CRC-32C and the first example of FIPS 180 come out, block by block as in one piece."""
    monkeypatch.setattr(digests, "BLOCK", 2)
    (tmp_path / "check").write_bytes(CHECK)
    (tmp_path / "abc").write_bytes(b"abc")
    check, abc = describe([tmp_path / "check", tmp_path / "abc"])
    assert digests.digest_file(check, "crc32c") == CASTAGNOLI
    assert digests.digest_file(abc, "sha256").startswith("sha256:ba7816bf8f01cfea414140de5dae2223")


def test_an_unknown_algorithm_is_refused(tmp_path, raw):
    """Nothing is begun with an algorithm that nobody knows."""
    with pytest.raises(InputError, match="choose 'crc32c', 'sha256' or 'none'"):
        stemstore.convert(raw, tmp_path / "a.zarr", digests="md5")


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    """A digest belongs to the bytes that were converted, or there is none."""
    path = tmp_path / "a.raw"
    path.write_bytes(b"1234")
    (file,) = describe([path])
    path.write_bytes(b"12345")
    with pytest.raises(StaleStoreError, match="was changed after it was opened"):
        digests.digest_file(file, "crc32c")


def test_digests_stop_with_the_work(tmp_path):
    """Where the work beside them fails, the threads end at once and its error is the one that is told."""
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(3 * digests.BLOCK))
    stopped = threading.Event()
    stopped.set()
    (file,) = describe([path])
    assert digests.digest_file(file, "sha256", stopped) is None
    (tmp_path / "store").mkdir()
    storage = open_storage(str(tmp_path / "store"))
    msg = "the work failed"
    with pytest.raises(RuntimeError, match=msg), digests.Digests([file], "crc32c", storage).beside(NoProgress()):
        raise RuntimeError(msg)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digest")]
    assert list((tmp_path / "store").iterdir()) == []
