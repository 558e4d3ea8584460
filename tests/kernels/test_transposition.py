"""Rows that become columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import InputError
from stemstore.kernels.transposition import place_columns


@given(st.integers(0, 150), st.integers(1, 150), st.integers(0, 9))
def test_rows_become_columns(n, width, seed):
    """Every row comes to its column, over all borders of tiles; other columns stay."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 1000, (n, width)).astype(np.uint16)
    place = rng.permutation(n + 5)[:n]
    out = np.full((width, n + 5), 7, np.uint16)
    place_columns(rows, out, place)
    np.testing.assert_array_equal(out[:, place].T, rows)
    assert (np.delete(out, place, axis=1) == 7).all()


@pytest.mark.parametrize(
    ("rows", "place"), [(np.zeros((2, 3)), [0, 4]), (np.zeros((2, 3)), [0]), (np.zeros((2, 3), np.int8), [0, 1])]
)
def test_refusals(rows, place):
    """Columns outside, a wrong number of them, and another type are refused."""
    with pytest.raises(InputError, match="do not fit as columns"):
        place_columns(rows, np.zeros((3, 4)), np.array(place))
