"""Arrays in files are shown without a copy where that is possible, and not at all where it is not."""

import os

import numpy as np
import pytest

from stemstore.sources import mapped
from stemstore.sources.mapped import view_block

VALUES = np.random.default_rng(0).integers(0, 60000, (40, 30, 50), dtype=np.uint16)
HEADER = 4098

needs_views = pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot say what is in memory")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "frames"
    path.write_bytes(b"#" * HEADER + VALUES.tobytes())
    if view_block(path, 0, (1,), np.dtype(np.uint8)) is None:
        pytest.skip("this file system cannot say what is in memory")
    return path


@needs_views
@pytest.mark.parametrize(("first", "n"), [(0, 40), (1, 3), (39, 1)])
def test_view_equals_the_file(file, first, n):
    """Any part of the file, whatever its distance from a page border, is shown read-only."""
    view = view_block(file, HEADER + first * 3000, (n, 30, 50), VALUES.dtype)
    np.testing.assert_array_equal(view, VALUES[first : first + n])
    assert view.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1


@needs_views
def test_what_is_not_in_memory_is_read_first(file, monkeypatch):
    """Where the kernel would have to wait, an ordinary read brings the bytes in."""
    reads = []

    def preadv(handle, buffers, at, flags=0):
        reads.append((at, bool(flags)))
        if flags and at == HEADER:
            raise BlockingIOError
        return len(buffers[0])

    monkeypatch.setattr(mapped.os, "preadv", preadv)
    np.testing.assert_array_equal(view_block(file, HEADER, VALUES.shape, VALUES.dtype), VALUES)
    assert reads == [(HEADER, True), (HEADER, False), (HEADER + VALUES.nbytes - 1, True)]


@needs_views
def test_what_cannot_be_viewed(file, monkeypatch):
    """Short and missing files, values off their alignment or of the other byte order, and empty arrays are read."""
    swapped = VALUES.dtype.newbyteorder()
    assert view_block(file, HEADER + 2, VALUES.shape, VALUES.dtype) is None
    assert view_block(file.with_name("none"), 0, (1,), VALUES.dtype) is None
    assert view_block(file, 1, (1,), VALUES.dtype) is None
    assert view_block(file, 0, (1,), swapped) is None
    assert view_block(file, 0, (0, 3), VALUES.dtype) is None
    monkeypatch.setattr(mapped, "_NOWAIT", None)
    assert view_block(file, HEADER, VALUES.shape, VALUES.dtype) is None


@needs_views
def test_file_systems_that_cannot_tell_are_read(file, monkeypatch):
    """An error of the question is an answer: no view."""

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(mapped.os, "preadv", refuse)
    assert view_block(file, HEADER, VALUES.shape, VALUES.dtype) is None


@needs_views
def test_view_of_a_replaced_file_stays(file):
    """A file that is replaced under its name keeps showing what was mapped."""
    view = view_block(file, HEADER, VALUES.shape, VALUES.dtype)
    other = file.with_name("other")
    other.write_bytes(b"")
    other.replace(file)
    np.testing.assert_array_equal(view, VALUES)
