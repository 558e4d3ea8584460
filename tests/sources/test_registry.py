"""The reader for some data is found, or the message says what to do."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path

import fsspec
import numpy as np
import pytest

from stemstore.errors import (
    AmbiguousFormatError,
    CorruptDataError,
    InputError,
    NotFoundError,
    ReaderError,
    StorageError,
    UnknownFormatError,
)
from stemstore.sources import registry
from stemstore.sources.contract import FrameSource


class Good:
    """A plug-in that claims files starting with GOOD."""

    name = "good"
    description = "good files"
    extensions = (".good",)
    confidence = 0.8
    opens: object = "source"

    def __init__(self, *, depth: int = 3) -> None:
        self.depth = depth

    @classmethod
    def matches(cls, url, first_bytes):
        return cls.confidence if first_bytes.startswith(b"GOOD") else 0.0

    def __call__(self, url):
        if isinstance(self.opens, Exception):
            raise self.opens
        return self.opens, url, self.depth


class Twin(Good):
    """A plug-in that claims the same files as surely."""

    name = "twin"


class Surer(Good):
    """A plug-in that is surer about the same files."""

    name = "surer"
    confidence = 0.9


class Nervous(Good):
    """A plug-in that breaks when it is asked."""

    name = "nervous"

    @classmethod
    def matches(cls, url, first_bytes):
        msg = "I have no idea"
        raise RuntimeError(msg)


class Demanding(Good):
    """A plug-in with an option that must be given."""

    name = "demanding"

    def __init__(self, *, key: str) -> None:
        self.depth = key


class Failing(Good):
    """A plug-in whose opening fails as a test wants it."""

    name = "failing"


@pytest.fixture
def install(monkeypatch):
    """Replace the installed readers by classes of this file, or by entry points that do not load."""

    def put(*plugins):
        entries = [
            EntryPoint(plugin, "no_such_package:Reader", registry.GROUP)
            if isinstance(plugin, str)
            else _Loaded(plugin.name, f"{plugin.__module__}:{plugin.__qualname__}", registry.GROUP, plugin)
            for plugin in plugins
        ]
        monkeypatch.setattr(registry.metadata, "entry_points", lambda group: entries if group == registry.GROUP else [])

    return put


class _Loaded:
    """An entry point whose class is at hand."""

    def __init__(self, name, value, group, cls):
        self.name, self.value, self.group, self.cls, self.dist = name, value, group, cls, None

    def load(self):
        return self.cls


@pytest.fixture
def good_file(tmp_path):
    path = tmp_path / "a.good"
    path.write_bytes(b"GOOD" + bytes(9000))
    return str(path)


def test_built_in_readers_are_installed():
    """The four readers of this project come through the entry points, with their options."""
    found = registry.readers()
    assert {"ncem_sectors", "ncem_counted", "raw_binary", "npy"} <= set(found)
    assert all(found[name].error is None and found[name].description for name in ("ncem_sectors", "npy"))
    assert found["ncem_sectors"].options["version"] == 5
    assert found["npy"].extensions == (".npy",)


def test_broken_plugin_is_listed_and_harmless(install, good_file, caplog):
    """A plug-in that does not load is listed with its error and logged; the others work on."""
    install(Good, "broken")
    found = registry.readers()
    assert found["broken"].cls is None
    assert "no_such_package" in found["broken"].error
    assert "'broken'" in caplog.text
    assert registry.find_reader(good_file) is Good
    with pytest.raises(ReaderError, match=r"reader 'broken' .* did not load: ModuleNotFoundError"):
        registry.find_reader(good_file, "broken")


def test_surest_reader_wins(install, good_file):
    """Of several claims the most confident one counts, and all are listed by confidence."""
    install(Good, Surer, Demanding)
    assert registry.find_reader(good_file) is Surer
    assert [(claim.reader, claim.confidence) for claim in registry.explain(good_file)] == [
        ("surer", 0.9),
        ("demanding", 0.8),
        ("good", 0.8),
    ]


def test_equal_claims_are_ambiguous(install, good_file):
    """Two equal claims name both readers and the remedy."""
    install(Good, Twin)
    with pytest.raises(AmbiguousFormatError, match=r"'good' and 'twin' claim .*a\.good.* with reader='good'"):
        registry.find_reader(good_file)
    assert registry.find_reader(good_file, "twin") is Twin


def test_reader_that_breaks_when_asked(install, good_file, tmp_path, caplog):
    """A reader that raises while it is asked claims nothing; its error is kept for the message."""
    install(Good, Nervous)
    assert registry.find_reader(good_file) is Good
    assert "nervous" in caplog.text
    (tmp_path / "b").write_bytes(b"BAD")
    with pytest.raises(UnknownFormatError, match=r"nervous \(failed: RuntimeError: I have no idea\)"):
        registry.find_reader(str(tmp_path / "b"))


def test_unknown_format_says_what_to_do(tmp_path):
    """Unknown data name the file, its first bytes, the readers asked and the way out."""
    path = tmp_path / "strange.xyz"
    path.write_bytes(b"hello world")
    with pytest.raises(UnknownFormatError) as caught:
        registry.find_reader(str(path))
    for part in ("strange.xyz", "b'hello world'", "ncem_sectors", "npy", "reader='raw_binary'", "shape=", "dtype="):
        assert part in str(caught.value)


@pytest.mark.parametrize(("entries", "text"), [([], "an empty folder"), (["a.txt"], "a folder of 1 entries: 'a.txt'")])
def test_unknown_folder_and_empty_file(tmp_path, entries, text):
    """Of a folder the message shows the first entries."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for entry in entries:
        (folder / entry).write_text("")
    with pytest.raises(UnknownFormatError, match=text):
        registry.find_reader(str(folder))


def test_empty_file(tmp_path):
    """An empty file is called empty."""
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UnknownFormatError, match="an empty file"):
        registry.find_reader(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["none", "none*", "a\0b"])
def test_missing_path(tmp_path, name):
    """A path or pattern that is not there is not found, whatever the readers; a name that cannot be is refused."""
    with pytest.raises((NotFoundError, StorageError), match=r"does not exist|cannot be read"):
        registry.find_reader(str(tmp_path / name))


def test_unreadable_folder(tmp_path, monkeypatch):
    """A folder that may not be listed is a storage error with the reason, not an unknown format."""

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StorageError, match="cannot be read: Permission denied; check its permissions"):
        registry.open_source(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable_folder_for_real(tmp_path):
    """A folder without permissions is a storage error."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    with pytest.raises(StorageError, match="cannot be read"):
        registry.open_source(str(folder))


def test_unreadable_file(good_file, monkeypatch):
    """A file that may not be opened is a storage error with the reason."""

    def refuse(self, *_args, **_keywords):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match=r"a\.good' cannot be read: Permission denied"):
        registry.find_reader(good_file)


def test_remote_address(install):
    """Raw data at a URL are found by their content, and missed by their address."""
    install(Good)
    fsspec.filesystem("memory").pipe_file("memory://registry/a.good", b"GOOD")
    assert registry.find_reader("memory://registry/a.good") is Good
    with pytest.raises(NotFoundError, match=r"memory://registry/b\.good' does not exist"):
        registry.find_reader("memory://registry/b.good")


def test_unknown_reader_name(good_file):
    """A reader that is not installed is refused with those that are."""
    with pytest.raises(InputError, match=r"no reader is called 'mib'; installed are .*ncem_sectors, .*npy"):
        registry.find_reader(good_file, "mib")


def test_readers_see_one_page(install, good_file, monkeypatch):
    """Every reader is shown the same first 4096 bytes, read once."""
    seen = []
    monkeypatch.setattr(Good, "matches", classmethod(lambda cls, url, head: seen.append(head) or 0.0))
    install(Good, Twin)
    with pytest.raises(UnknownFormatError, match="no reader"):
        registry.find_reader(good_file)
    assert [len(head) for head in seen] == [4096, 4096]
    assert seen[0] is seen[1]


def test_open_source_passes_options(install, good_file):
    """Options reach the constructor, the address reaches the call."""
    install(Good)
    assert registry.open_source(good_file, depth=7) == ("source", good_file, 7)
    assert registry.open_source([good_file, good_file]) == ("source", [good_file, good_file], 3)


def test_unknown_option_lists_the_accepted_ones(install, good_file):
    """An option that the reader does not have is refused with those it has."""
    install(Good)
    with pytest.raises(InputError, match="reader 'good' has no option 'width'; it accepts depth"):
        registry.open_source(good_file, width=7)


def test_option_that_must_be_given(install, good_file):
    """An option without default is asked for."""
    install(Demanding)
    with pytest.raises(InputError, match="reader 'demanding' needs the option 'key'"):
        registry.open_source(good_file)


def test_unforeseen_failure_names_the_reader(install, good_file, monkeypatch):
    """An error that a plug-in did not foresee becomes a ReaderError with the original chained."""
    original = ZeroDivisionError("division by zero")
    monkeypatch.setattr(Failing, "opens", original)
    install(Failing)
    with pytest.raises(ReaderError, match=r"reader 'failing' failed on .* ZeroDivisionError") as caught:
        registry.open_source(good_file)
    assert caught.value.__cause__ is original
    assert caught.value.context["reader"] == "failing"


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (CorruptDataError("bad byte"), CorruptDataError),
        (FileNotFoundError(2, "No such file or directory", "companion.hdr"), NotFoundError),
        (PermissionError(13, "Permission denied", "companion.hdr"), StorageError),
    ],
)
def test_typed_failures_keep_their_type(install, good_file, monkeypatch, original, expected):
    """Errors of stemstore pass unchanged, those of the operating system become ours and name the file."""
    monkeypatch.setattr(Failing, "opens", original)
    install(Failing)
    with pytest.raises(expected, match=r"bad byte|companion\.hdr"):
        registry.open_source(good_file)


def test_hidden_twin_of_one_name(install, good_file, caplog):
    """Of two plug-ins with one name the first counts, and the other one is logged."""
    other = type("Other", (Good,), {"name": "good"})
    install(Good, other)
    assert registry.find_reader(good_file) is Good
    assert "is hidden by" in caplog.text


def test_real_file_end_to_end(tmp_path):
    """A file of a known format opens without naming the reader."""
    array = np.arange(2 * 3 * 4 * 5, dtype="<u2").reshape(2, 3, 4, 5)
    np.save(tmp_path / "a.npy", array)
    source = registry.open_source(tmp_path / "a.npy")
    assert isinstance(source, FrameSource)
    np.testing.assert_array_equal(source.read_frames(0, 6), array.reshape(6, 4, 5))


def test_raw_binary_by_name(tmp_path):
    """The way out that the message names works."""
    (tmp_path / "a.raw").write_bytes(bytes(100))
    source = registry.open_source(str(tmp_path / "a.raw"), reader="raw_binary", shape=(5, 5, 2, 1), dtype="<u2")
    assert source.scan_shape == (5, 5)
