"""Raw sources are read in file order, each frame once, and only where wanted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import InputError
from stemstore.selection import Selection
from stemstore.sources import streaming
from stemstore.sources.streaming import EventScan, FrameScan, scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames

COUNTS = np.random.default_rng(2).poisson(0.4, (6, 7, 5, 4)).astype(np.uint8)


class Recorder(ArrayFrames):
    """Remembers what was read."""

    def read_frames(self, start, stop, out=None):
        self.__dict__.setdefault("reads", []).append((start, stop))
        return super().read_frames(start, stop, out)


@pytest.mark.parametrize(
    ("key", "reads"),
    [
        (np.s_[:], [(0, 42)]),
        (np.s_[2:4], [(14, 28)]),
        (np.s_[:, 1:3], [(i, i + 2) for i in range(1, 42, 7)]),
        (np.s_[::-1], [(0, 42)]),
        (np.s_[1, [5, 0, 5]], None),
        (np.s_[2, 3], [(17, 18)]),
    ],
    ids=["all", "rows", "columns", "reversed", "fancy", "one"],
)
def test_only_the_selected_frames_are_read(key, reads):
    """Runs of frames are read at once and in ascending order."""
    source = Recorder(COUNTS)
    selection = Selection.full(COUNTS.shape)
    for number, part in enumerate(key if isinstance(key, tuple) else (key,)):
        selection = selection.compose((slice(None),) * (number - COUNTS.ndim + len(selection.shape)) + (part,))
    np.testing.assert_array_equal(FrameScan(source).read(selection), COUNTS[key])
    assert reads is None or source.reads == reads


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), max_size=7), st.lists(st.integers(0, 6), max_size=7), st.booleans())
def test_frames_and_events_read_the_same_selection(rows, columns, counted):
    """Any rows and columns, repeated and in any order, empty too."""
    source = scan_source((ArrayEvents if counted else ArrayFrames)(COUNTS))
    selection = Selection.full(COUNTS.shape).compose(np.array(rows, int))
    selection = selection.compose((slice(None), np.array(columns, int)))
    expected = COUNTS[np.array(rows, int)][:, np.array(columns, int)]
    np.testing.assert_array_equal(source.read(selection), expected)


def test_batches_respect_the_memory_bound(monkeypatch):
    """Long runs are cut into batches that fit the cache."""
    monkeypatch.setattr(streaming, "BATCH_BYTES", 5 * 20)
    source = Recorder(COUNTS)
    FrameScan(source).read(Selection.full(COUNTS.shape))
    assert source.reads == [(i, min(i + 5, 42)) for i in range(0, 42, 5)]


class Shown(Recorder):
    """Shows frames where they lie, but for those that lie beyond `hidden`."""

    hidden = 30

    def view_frames(self, start, stop):
        self.__dict__.setdefault("views", []).append((start, stop))
        return None if stop > self.hidden else COUNTS.reshape(-1, 5, 4)[start:stop]


def test_frames_are_viewed_where_they_can_be(monkeypatch):
    """Large runs are viewed, what cannot be viewed is read, short runs are read at once; the pixels are the same."""
    for name, frames in (("BATCH_BYTES", 5), ("VIEW_BYTES", 10), ("VIEW_LEAST", 3)):
        monkeypatch.setattr(streaming, name, frames * 20)
    source = Shown(COUNTS)
    whole = Selection.full(COUNTS.shape)
    np.testing.assert_array_equal(FrameScan(source).read(whole), COUNTS)
    assert source.views == [(i, min(i + 10, 42)) for i in range(0, 42, 10) if i < 40]
    assert source.reads == [(30, 35), (35, 40), (40, 42)]
    part = whole.compose((slice(None), slice(1, 3)))
    np.testing.assert_array_equal(FrameScan(source).read(part), COUNTS[:, 1:3])
    assert len(source.views) == 4


def test_events_beyond_255_in_a_pixel_are_refused_not_wrapped():
    """The array type of a raw counted scan is uint8; more electrons are an error, never a remainder."""
    counts = np.zeros((1, 1, 2, 2), np.uint16)
    counts[0, 0, 1, 1] = 300
    with pytest.raises(InputError, match="more electrons in one frame than uint8 can hold"):
        EventScan(ArrayEvents(counts)).read(Selection.full(counts.shape))


def test_partitions_and_chunks_are_whole_rows_where_rows_fit():
    """Blocks cover whole rows of the scan, or a piece of one row."""
    scan = FrameScan(ArrayFrames(np.zeros((40, 30, 64, 64), np.uint16)))
    assert scan.chunk == (34, 30)
    assert scan.partition == (40, 30)
    wide = FrameScan(ArrayFrames(np.zeros((2, 3, 2048, 2048), np.uint16)))
    assert wide.chunk == (1, 1)
