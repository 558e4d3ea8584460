"""Small conversions that are disturbed everywhere: what they are made from, and what they must give all the same."""

import errno
import json
import os

import numpy as np

import stemstore
import stemstore.store.writer as room
from stemstore.errors import ConversionIncompleteError, NotFoundError, StorageError
from stemstore.store.commit import COMMIT
from stemstore.store.open import open_store
from stemstore.store.verify import verify_store

OPTIONS = {
    "dense": {"count": False, "profile": "raw", "max_memory": "16KiB", "workers": 1},
    "counted": {"count": True, "background_threshold": 40.0, "xray_threshold": 500.0, "workers": 1},
}
"""Arguments of `stemstore.convert` by kind of store."""

LIMIT = 2**14
"""Raw bytes behind a shard: the scan below takes 16 shards of frames, or 8 of events."""

KEYS = ("intensity/c/", "events/gap/c/")
"""Beginnings of the keys of shards that are written once."""


def write_scan(path):
    """Write a scan of read noise and electrons."""
    frames = np.random.default_rng(3).normal(20.5, 1.8, (8, 8, 32, 32))
    frames[..., 4:28:6, 4:28:6] += 90 * (np.random.default_rng(4).random((8, 8, 4, 4)) < 0.4)
    np.save(path, np.rint(frames).astype(np.uint16))
    return path


def content(storage):
    """Give all objects of a store but what tells one conversion from another: identity and times."""
    found = {key: storage.get(key) for key in storage.keys("")}
    commit, root = json.loads(found.pop(COMMIT)), json.loads(found.pop("zarr.json"))
    document = root["attributes"]["stemstore"]
    document.pop("uuid")
    for entry in document["history"]:
        entry["time"] = entry["environment"] = None
    return found, root, {name: commit[name] for name in ("n_shards", "n_bytes", "shards_digest")}


def opens(place):
    """Tell whether a place opens as a store; one that does is whole to the last byte."""
    try:
        open_store(place)
    except (ConversionIncompleteError, NotFoundError):
        return False
    assert verify_store(place) == []
    return True


def convert(raw, place, kind, **options):
    """Convert the scan to a store of a kind."""
    return stemstore.convert(raw, place, **{**OPTIONS[kind], **options})


def failure_of(call, *arguments, **options):
    """Give the error of a device or server that a call ends in, None where it succeeds; other errors go on."""
    try:
        call(*arguments, **options)
    except StorageError as error:
        return error
    return None


class Written:
    """What conversions of this process put down, call by call.

    Attributes
    ----------
    shards
        Keys of all shards that were written, in order, whatever became of them.
    entered
        Partitions that the journal vouches for.
    """

    def __init__(self, monkeypatch):
        self.shards, self.entered = [], []
        put, enter = room._put_shard, room.write_entry

        def put_shard(storage, key, parts):
            self.shards.append(key)
            return put(storage, key, parts)

        def write_entry(storage, entry, *arguments):
            enter(storage, entry, *arguments)
            self.entered.append(entry.partition)

        monkeypatch.setattr(room, "_put_shard", put_shard)
        monkeypatch.setattr(room, "write_entry", write_entry)

    def check(self, n_stops, writers=1):
        """Make sure that nothing finished was written again, and at most a shard per writer and stop twice."""
        assert len(self.entered) == len(set(self.entered)), "a finished partition was written again"
        assert len(self.shards) - len(set(self.shards)) <= n_stops * writers
        self.shards.clear()
        self.entered.clear()


GROWING = ("open", "write", "mkdir", "fsync")
"""Calls that a full device refuses."""

NAMING = ("replace", "rename", "link", "unlink", "rmdir")
"""Calls that change names."""


class Device:
    """A device that fails at a given call of the system, counted among those that change something below a folder.

    Attributes
    ----------
    calls
        Names of the calls so far.
    """

    def __init__(self, monkeypatch, folder):
        self.folder, self.calls = os.fspath(folder), []
        self._handles, self._at, self._number, self._lasting = set(), None, 0, False
        for name in (*GROWING, *NAMING, "close"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def fail(self, at, number=errno.ENOSPC, *, lasting=False):
        """Fail at call number `at` from now, with an errno; `lasting`: at every later growing one as well."""
        self.calls.clear()
        self._at, self._number, self._lasting = at, number, lasting

    def recover(self):
        """Work again."""
        self._at = None

    def _wrap(self, name, real):
        def call(*arguments, **options):
            if not self._concerns(name, arguments):
                return real(*arguments, **options)
            if name == "close":
                self._handles.discard(arguments[0])
                return real(*arguments, **options)
            self.calls.append(name)
            due = self._at is not None and len(self.calls) - 1 >= self._at
            if due and (len(self.calls) - 1 == self._at or (self._lasting and name in GROWING)):
                if name == "write" and len(arguments[1]) > 1:
                    real(arguments[0], bytes(arguments[1][: len(arguments[1]) // 2]))  # as much as there was room for
                raise OSError(self._number, os.strerror(self._number))
            found = real(*arguments, **options)
            if name == "open":
                self._handles.add(found)
            return found

        return call

    def _concerns(self, name, arguments):
        """Whether a call writes below the folder."""
        if name in ("write", "fsync", "close"):
            return arguments[0] in self._handles
        if not isinstance(arguments[0], (str, os.PathLike)) or not os.fspath(arguments[0]).startswith(self.folder):
            return name in ("unlink", "rmdir") and isinstance(arguments[0], str) and os.sep not in arguments[0]
        return name != "open" or bool(arguments[1] & (os.O_WRONLY | os.O_RDWR) or arguments[1] & os.O_DIRECTORY)
