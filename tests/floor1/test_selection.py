"""Selections compose like NumPy's indexing, without data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.selection import Selection, flatten, groups, runs

SHAPE = (7, 5, 6, 4)
ARRAY = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def read(selection):
    """Look the selection up in an array of flat positions."""
    return ARRAY[np.ix_(*(np.asarray(a, np.int64) for a in selection.axes))].reshape(selection.shape)


def part(size):
    """One index along an axis of `size`."""
    bound = st.integers(-size - 2, size + 2) | st.none()
    slices = st.builds(slice, bound, bound, st.integers(-3, 3).filter(bool) | st.none())
    return slices | (st.integers(-size, size - 1) if size else slices)


def array_part(size):
    """One array index along an axis of `size`."""
    flags = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda v: np.array(v, bool))
    return (
        flags | st.lists(st.integers(-size, size - 1), max_size=9).map(lambda v: np.array(v, np.int64))
        if size
        else flags
    )


@st.composite
def keys(draw, shape):
    """A key of slices and integers, or of slices and one array."""
    key = [draw(part(n)) for n in shape[: draw(st.integers(0, len(shape)))]]
    if key and draw(st.booleans()):
        key = [k if isinstance(k, slice) else slice(None) for k in key]
        at = draw(st.integers(0, len(key) - 1))
        key[at] = draw(array_part(shape[at]))
    return tuple(key)


@given(st.data())
def test_chain_of_keys_selects_what_numpy_selects(data):
    """Composing any chain of grid keys equals applying them to the array one after the other."""
    selection, expected = Selection.full(SHAPE), ARRAY
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(keys(selection.shape))
        selection, expected = selection.compose(key), expected[key]
        assert selection is not None
    np.testing.assert_array_equal(read(selection), expected)


@pytest.mark.parametrize(
    "key",
    [
        (None,),
        (np.array([0, 1]), np.array([0, 1])),
        np.array([[0, 1]]),
        (0, np.array([1, 2])),
        np.ones(SHAPE[:2], bool),
        True,
        "y",
    ],
)
def test_keys_that_are_no_grid_are_declined(key):
    """New axes, pointwise and multi-dimensional keys give None, so that the caller falls back to NumPy's rules."""
    assert Selection.full(SHAPE).compose(key) is None


@pytest.mark.parametrize(
    ("key", "match"),
    [(7, "index 7 is out of bounds"), (np.array([-8]), "out of bounds"), ((0,) * 5, "too many indices"),
     (np.array([True]), "boolean index of length 1"), ((..., ...), "single ellipsis")],
)  # fmt: skip
def test_keys_that_numpy_refuses_are_refused(key, match):
    """Indices outside the scan raise IndexError with the numbers in it."""
    with pytest.raises(IndexError, match=match):
        Selection.full(SHAPE).compose(key)


def test_equal_selections_have_equal_tokens_and_others_differ():
    """The token identifies stored indices and dropped axes, not how they were reached."""
    full = Selection.full(SHAPE)
    assert full.compose(slice(1, 5)).compose(slice(1, 3)).token == full.compose(slice(2, 4)).token
    assert full.compose(2).token != full.compose(slice(2, 3)).token


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 8))
def test_groups_visit_every_block_once_and_cover_the_axis(indices, size):
    """Grouping by block loses nothing, repeats no block, and says where each index stands."""
    axis = np.array(indices, np.int64)
    seen, rebuilt = [], np.full(len(axis), -1)
    for block, local, place in groups(axis, size):
        assert ((local >= 0) & (local < size)).all()
        seen.append(block)
        rebuilt[place] = block * size + local
    assert len(seen) == len(set(seen))
    np.testing.assert_array_equal(rebuilt, axis)


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 8))
def test_runs_keep_the_order_and_stay_inside_one_block(indices, size):
    """Runs follow each other without gaps, and each lies in one stored block."""
    pieces = list(runs(np.array(indices, np.int64), size))
    assert [i for p in pieces for i in range(p.start, p.stop)] == list(range(len(indices)))
    assert all(len({i // size for i in indices[p]}) == 1 for p in pieces)


def test_flat_positions_count_in_c_order():
    """Flat positions equal NumPy's ravel_multi_index on the grid."""
    axes = (range(5, 0, -2), np.array([0, 3, 3]))
    grid = np.meshgrid(*(np.asarray(a) for a in axes), indexing="ij")
    expected = np.ravel_multi_index([g.reshape(-1) for g in grid], (7, 5))
    np.testing.assert_array_equal(flatten(axes, (7, 5)), expected)
