"""Files are found, ordered and told apart from changed ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stemstore.errors import InputError, NotFoundError, StorageError
from stemstore.sources import files


def test_natural_order():
    """Numbers in names count as numbers."""
    names = ["part10.raw", "part9.raw", "part1.raw", "a2b10", "a2b9"]
    ordered = sorted(map(Path, names), key=files.natural_key)
    assert [str(path) for path in ordered] == ["a2b9", "a2b10", "part1.raw", "part9.raw", "part10.raw"]


def test_raised_digits_are_letters():
    """A superscript between numbers is text and no number."""
    assert sorted(map(Path, ["1\N{SUPERSCRIPT TWO}10", "1\N{SUPERSCRIPT TWO}9"]), key=files.natural_key) == [
        Path("1\N{SUPERSCRIPT TWO}9"),
        Path("1\N{SUPERSCRIPT TWO}10"),
    ]


def test_pattern_in_natural_order_and_list_in_its_own(tmp_path):
    """A pattern is sorted, a list is not."""
    paths = [tmp_path / name for name in ("p10", "p9", "p1")]
    for path in paths:
        path.write_text("")
    assert [path.name for path in files.expand(str(tmp_path / "p*"))] == ["p1", "p9", "p10"]
    assert files.expand([str(path) for path in paths]) == paths


def test_existing_name_is_no_pattern(tmp_path):
    """A file called a[1] is that file, although a1 would match the pattern."""
    for name in ("a[1]", "a1"):
        (tmp_path / name).write_text("")
    assert files.expand(str(tmp_path / "a[1]")) == [tmp_path / "a[1]"]


def test_file_address(tmp_path):
    """A file:// address is a path; kinds of addresses that nobody knows are refused."""
    (tmp_path / "a").write_text("")
    assert files.expand(f"file://{tmp_path}/a") == [tmp_path / "a"]
    with pytest.raises(InputError, match="cannot be reached: Protocol not known"):
        files.expand("nosuch://example.org/a")


def test_nothing_given_and_nothing_found(tmp_path):
    """An empty list is wrong input, a missing path is not found."""
    with pytest.raises(InputError, match="no file was given"):
        files.expand([])
    with pytest.raises(NotFoundError, match="does not exist"):
        files.expand([str(tmp_path / "none")])
    with pytest.raises(NotFoundError, match="does not exist"):
        files.file_size(tmp_path / "none")
    with pytest.raises(NotFoundError, match="does not exist"):
        files.describe([tmp_path / "none"])


def test_path_through_a_file_does_not_exist(tmp_path):
    """A path below a file is not found rather than unreadable."""
    (tmp_path / "a").write_text("")
    assert not files.exists(tmp_path / "a" / "b")


def test_folder_that_cannot_be_listed(tmp_path):
    """Listing a file as a folder is a storage error with the reason."""
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="cannot be read: Not a directory"):
        files.list_folder(tmp_path / "a")


def test_identity_follows_size_time_and_options(tmp_path):
    """The identity changes with time, size, options and reader, and with nothing else."""
    path = tmp_path / "a"
    path.write_bytes(b"123")
    described = files.describe([path])
    first = files.identity("npy", described)
    assert files.identity("npy", files.describe([path])) == first
    os.utime(path, (1, 1))
    touched = files.describe([path])
    assert touched[0].mtime == "1970-01-01T00:00:01+00:00"
    assert touched[0].size == 3
    names = {first, files.identity("npy", touched), files.identity("npy", described, 1), files.identity("x", described)}
    assert len(names) == 4


def test_relative_paths_hold_in_another_folder(tmp_path, monkeypatch):
    """A path is made absolute when it is opened, so that a later change of the working directory does not matter."""
    (tmp_path / "a1").write_text("")
    monkeypatch.chdir(tmp_path)
    assert files.expand("a1") == files.expand("a*") == files.expand(["./a1"]) == [tmp_path / "a1"]


def test_home_folder(tmp_path, monkeypatch):
    """A path that begins with ~/ lies in the home folder; a file called ~a is just that file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a", "~no-such-user"):
        (tmp_path / name).write_text("")
    assert files.expand("~/a") == [tmp_path / "a"]
    assert files.expand("~no-such-user") == [tmp_path / "~no-such-user"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused_and_not_waited_for(tmp_path):
    """Reading a pipe into which nobody writes would never end."""
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(InputError, match="is a pipe, socket or device"):
        files.expand(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("url", [None, 3, b"a", ["a", None]])
def test_what_is_no_path(url):
    """Anything but paths is refused by name."""
    with pytest.raises(InputError, match="is no path; give a path"):
        files.path_texts(url)
