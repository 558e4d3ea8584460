"""Frames as rows of a sparse matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.errors import InputError
from stemstore.kernels import events
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.occupied import Rows, joined, occupied, occupied_frames, seen


def dense(rows, n_pixels):
    """Make rows dense, after checking that each pixel comes once, in order."""
    out = np.zeros((len(rows.indptr) - 1, n_pixels), int)
    for frame, a, b in zip(out, rows.indptr[:-1], rows.indptr[1:], strict=True):
        assert (np.diff(rows.indices[a:b]) > 0).all()
        frame[rows.indices[a:b]] = rows.values[a:b]
    return out


frames = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 3))


@given(counts=frames, local=st.lists(st.integers(0, 2), max_size=5))
def test_events_and_frames_occupy_the_same_pixels(counts, local):
    """Rows of events and of dense frames are the frames; no zero is kept."""
    flat = counts.reshape(3, -1)
    indices = np.tile(np.arange(20), 3).repeat(flat.reshape(-1))
    gap, n_slots = events.encode(np.concatenate([[0], np.cumsum(flat.sum(1, dtype=int))]), indices)
    rows = occupied(gap, events.slot_offsets(n_slots), np.array(local, int), 20, np.dtype(np.uint8))
    np.testing.assert_array_equal(dense(rows, 20), flat[local].reshape(-1, 20))
    assert (rows.values > 0).all()
    again = occupied_frames(counts[np.array(local, int)])
    for one, other in zip(rows, again, strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    counts=frames,
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    columns=st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
def test_visible_pixels(counts, rows, columns):
    """Any choice of rows and columns, in any order and number."""
    region = DetectorRegion((4, 5), np.array(rows), np.array(columns))
    found = seen(occupied_frames(counts), region)
    expected = counts[:, np.array(rows)[:, None], np.array(columns)].reshape(3, -1)
    np.testing.assert_array_equal(dense(found, expected.shape[1]), expected)


@given(counts=frames, order=st.permutations(range(3)), cut=st.integers(0, 3))
def test_parts_in_any_order(counts, order, cut):
    """Parts go where their frames belong; frames in no part are empty."""
    order = np.array(order)
    parts = [(some, occupied_frames(counts[some])) for some in (order[:cut], order[cut:])]
    found = joined(parts, 4, np.dtype(np.uint8))
    np.testing.assert_array_equal(dense(found, 20)[:3], counts.reshape(3, -1))
    assert found.indptr[4] == found.indptr[3]


def test_one_part_is_not_copied():
    """A single part in order comes back as it is."""
    rows = Rows(np.array([0, 1]), np.array([3], np.int32), np.array([7], np.uint8))
    assert joined([(np.array([0]), rows)], 1, np.dtype(np.uint8)) is rows


def test_more_electrons_than_fit():
    """A count that the type cannot hold is refused, and the largest one that it can is not."""
    gap = np.zeros(256, np.uint16)
    assert occupied(gap, np.array([0, 255]), [0], 4, np.dtype(np.uint8)).values.tolist() == [255]
    with pytest.raises(InputError, match="pixel 0 has more electrons in one frame than uint8"):
        occupied(gap, np.array([0, 256]), [0], 4, np.dtype(np.uint8))
