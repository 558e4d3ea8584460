"""Stores laid out anew with interruptions: nothing unfinished opens, nothing is lost, the end is always the same."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.conversion.rechunk import rechunk_store
from stemstore.conversion.repair import repair
from stemstore.errors import ConversionIncompleteError, DestinationExistsError, InputError
from stemstore.store.verify import verify_store

ASKED = {
    "dense": {"chunks": (3, 5, 16, 16), "shards": (3, 5), "profile": "raw", "max_memory": "32MiB"},
    "counted": {"chunks": 20, "shards": 40, "profile": "balanced"},
}


@pytest.fixture(scope="module", params=["dense", "counted"])
def kind(request):
    """Both kinds of store."""
    return request.param


@pytest.fixture(scope="module")
def store(tmp_path_factory, kind):
    """Make a store with a saved calibration and a saved result."""
    folder = tmp_path_factory.mktemp("kept")
    np.save(folder / "raw.npy", np.random.default_rng(2).poisson(0.1, (17, 19, 32, 24)).astype(np.uint16) * 20)
    limits = {"background_threshold": 10.0, "xray_threshold": 500.0} if kind == "counted" else {}
    pieces = {} if kind == "counted" else {"chunks": (4, 4, 32, 24), "shards": (8, 8)}
    stemstore.convert(folder / "raw.npy", folder / "a.zarr", count=kind == "counted", **limits, **pieces)
    stemstore.save(stemstore.center_of_mass(stemstore.open(folder / "a.zarr")), folder / "a.zarr", "com")
    stemstore.save_calibration({"beam_energy": 200}, folder / "a.zarr")
    return folder / "a.zarr"


@pytest.fixture(scope="module")
def expected(tmp_path_factory, store, kind):
    """What comes of it when nothing happens."""
    target = tmp_path_factory.mktemp("whole") / "b.zarr"
    rechunk_store(store, target, **ASKED[kind])
    return content(target)


def content(store):
    """All files of a store without what differs from call to call: identity and times."""
    store = Path(store)
    uuid = json.loads((store / "stemstore.commit.json").read_text())["uuid"].encode()
    found = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    found = {name: body.replace(uuid, b"-") if name.endswith(".json") else body for name, body in found.items()}
    commit, root = (json.loads(found.pop(name)) for name in ("stemstore.commit.json", "zarr.json"))
    last = root["attributes"]["stemstore"]["history"][-1]
    last["time"] = last["environment"] = None
    return found, root, {name: commit[name] for name in ("n_shards", "n_bytes", "shards_digest")}


def stop_at(patch, path, n):
    """Let the n-th call of a function of the package be the one that Ctrl-C hits; gives the calls."""
    module, _, name = path.rpartition(".")
    real, calls = getattr(sys.modules[module], name), []

    def stopping(*args, **options):
        calls.append(args)
        if len(calls) == n:
            raise KeyboardInterrupt
        return real(*args, **options)

    patch.setattr(f"{module}.{name}", stopping)
    return calls


@pytest.mark.parametrize(
    ("where", "n"),
    [
        pytest.param("stemstore.store.writer.write_entry", 1, marks=pytest.mark.slow),
        ("stemstore.store.writer.write_entry", 6),
        pytest.param("stemstore.conversion.kept.read_object", 1, marks=pytest.mark.slow),
        ("stemstore.conversion.kept.read_object", 4),
        pytest.param("stemstore.store.finalise.write_commit", 1, marks=pytest.mark.slow),
        ("stemstore.store.writer.publish", 1),
    ],
)
def test_an_interruption_anywhere(tmp_path, store, kind, expected, monkeypatch, where, n):
    """Whatever is interrupted, the place does not open, and the same call with resume=True brings it to its end."""
    with monkeypatch.context() as patch:
        stop_at(patch, where, n)
        with pytest.raises(KeyboardInterrupt):
            rechunk_store(store, tmp_path / "b.zarr", **ASKED[kind])
    assert not (tmp_path / "b.zarr").exists()
    rechunk_store(store, tmp_path / "b.zarr", resume=True, **ASKED[kind])
    assert content(tmp_path / "b.zarr") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["b.zarr"]


def test_finished_partitions_stay(tmp_path, store, kind, expected, monkeypatch):
    """What the journal vouches for is not written twice, though the readings are other ones then."""
    with monkeypatch.context() as patch:
        first = stop_at(patch, "stemstore.store.writer.write_entry", 6)
        with pytest.raises(KeyboardInterrupt) as caught:
            rechunk_store(store, tmp_path / "b.zarr", workers=1, **ASKED[kind])
    assert "go on with resume=True" in caught.value.__notes__[0]
    with pytest.raises(DestinationExistsError, match="go on with resume=True"):
        rechunk_store(store, tmp_path / "b.zarr", **ASKED[kind])
    with pytest.raises(InputError, match="begun with another"):
        rechunk_store(store, tmp_path / "b.zarr", resume=True, **{**ASKED[kind], "profile": "small"})
    with pytest.raises(InputError, match="begun with another"):
        stemstore.convert(store, tmp_path / "b.zarr", resume=True, **ASKED[kind])
    with monkeypatch.context() as patch:
        second = stop_at(patch, "stemstore.store.writer.write_entry", 10**6)
        rechunk_store(store, tmp_path / "b.zarr", resume=True, **ASKED[kind])
    done, more = ({call[1].partition for call in calls} for calls in (first[:5], second))
    assert len(done) == 5
    assert not done & more
    assert content(tmp_path / "b.zarr") == expected


@pytest.mark.slow
def test_repair_finishes_it(tmp_path, store, kind, expected, monkeypatch):
    """The journal knows what was asked for, results and calibration included."""
    with monkeypatch.context() as patch:
        stop_at(patch, "stemstore.store.writer.write_entry", 3)
        with pytest.raises(KeyboardInterrupt):
            rechunk_store(store, tmp_path / "b.zarr", **ASKED[kind])
    repair(tmp_path / "b.zarr")
    assert content(tmp_path / "b.zarr") == expected


def test_a_damaged_store_leaves_nothing(tmp_path, store, kind, monkeypatch):
    """A source that is wrong is told, and no part of a store stays."""
    real = stemstore.store.codecs.ChunkCodec.decode

    def decode(self, encoded, out, where):
        if "shard" in where:
            encoded = encoded.copy()
            encoded[3] ^= 1
        return real(self, encoded, out, where)

    monkeypatch.setattr("stemstore.store.codecs.ChunkCodec.decode", decode)
    with pytest.raises(stemstore.errors.ChecksumError, match="shard"):
        rechunk_store(store, tmp_path / "b.zarr", **ASKED[kind])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_result_costs_no_frames(tmp_path, store, kind, expected):
    """Frames that were written stay; once the result is whole again, the same call goes on."""
    victim = next(path for path in (store / "derived" / "com" / "com_y" / "c").rglob("*") if path.is_file())
    body = victim.read_bytes()
    victim.write_bytes(body[:-9] + bytes([body[-9] ^ 1]) + body[-8:])
    try:
        with pytest.raises(
            ConversionIncompleteError, match=r"all shards are written, but .*derived/com/com_y/c/.*resume=True"
        ):
            rechunk_store(store, tmp_path / "b.zarr", **ASKED[kind])
    finally:
        victim.write_bytes(body)
    assert len(list(tmp_path.glob("b.zarr.part-*/.journal/*.npz"))) > 3
    rechunk_store(store, tmp_path / "b.zarr", resume=True, **ASKED[kind])
    assert content(tmp_path / "b.zarr") == expected


ONE = """
import sys, json
from stemstore.conversion.rechunk import rechunk_store
print('go', flush=True)
rechunk_store(sys.argv[1], sys.argv[2], resume=True, workers=1, **json.loads(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")
def test_kills_at_random_moments(tmp_path, store, kind, expected):
    """SIGKILL again and again: until the end nothing opens, and in the end the store is the undisturbed one."""
    target, rng = tmp_path / "b.zarr", random.Random(kind)  # noqa: S311, RUF100  # moments, no secrets
    for _ in range(12):
        command = [sys.executable, "-c", ONE, str(store), str(target), json.dumps(ASKED[kind])]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
        if target.exists():
            break
        with pytest.raises((ConversionIncompleteError, stemstore.errors.NotFoundError)):
            stemstore.open(target)
    if not target.exists():
        rechunk_store(store, target, resume=True, **ASKED[kind])
    assert content(target) == expected
    assert verify_store(target) == []
