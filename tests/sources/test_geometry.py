"""Scan shapes are checked, offered and never guessed silently."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError
from stemstore.sources import geometry
from stemstore.sources.contract import MISSING, VALID


@given(st.integers(1, 100_000))
def test_factor_pairs_multiply_to_the_number(n_frames):
    """Every shape offered fits, is no line, is offered once, and the squarest comes first."""
    pairs = geometry.factor_pairs(n_frames)
    assert all(math.prod(pair) == n_frames and min(pair) > 1 for pair in pairs)
    assert len(set(pairs)) == len(pairs) <= geometry.MAX_ALTERNATIVES
    assert [max(pair) for pair in pairs] == sorted(max(pair) for pair in pairs)


@pytest.mark.parametrize(
    ("n_frames", "pairs"), [(1, []), (7, []), (9, [(3, 3)]), (12, [(3, 4), (4, 3), (2, 6), (6, 2)])]
)
def test_factor_pairs_of_small_numbers(n_frames, pairs):
    """Primes have no scan shape, squares have theirs once."""
    assert geometry.factor_pairs(n_frames) == pairs


@pytest.mark.parametrize(
    ("option", "ny", "nx", "columns", "reported"),
    [
        (None, 128, 129, 1, True),
        (None, 128, 128, 0, False),
        (None, 128, 130, 0, False),
        (None, 129, 128, 0, False),
        (None, 1, 2, 0, False),
        (0, 128, 129, 0, False),
        (1, 128, 129, 1, False),
        (2, 128, 64, 2, False),
    ],
)
def test_flyback_rule(option, ny, nx, columns, reported):
    """Only a scan one column wider than high is guessed to have a flyback column, and the guess is reported."""
    found, warnings = geometry.decide_flyback(option, ny, nx)
    assert found == columns
    assert bool(warnings) == reported


@pytest.mark.parametrize("option", [-1, 4, 1.0, True])
def test_flyback_that_cannot_be(option):
    """A number of flyback columns that leaves no scan, or is none, is refused."""
    with pytest.raises(InputError, match=r"flyback_columns=.* does not fit a scan of 4 columns; expected 0 to 3"):
        geometry.decide_flyback(option, 4, 4)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 99))
def test_fit_of_a_scan(scan_shape, n_frames):
    """Whatever is lacking is missing at the end, whatever is left over is reported, and nothing else is said."""
    n_positions = math.prod(scan_shape)
    shape, validity, warnings = geometry.fit_scan(scan_shape, n_frames)
    assert shape == scan_shape
    assert bool(warnings) == (n_positions != n_frames)
    state = [VALID] * n_positions if validity is None else validity.tolist()
    assert state == [VALID] * min(n_positions, n_frames) + [MISSING] * max(n_positions - n_frames, 0)


def test_unknown_scan_is_a_flat_stack():
    """Without a scan shape the frames stay a stack."""
    assert geometry.fit_scan(None, 16) == ((16,), None, [])


@pytest.mark.parametrize("value", [(2, 3), [2, 3]])
def test_shape_option(value):
    """Lists, as in JSON, and tuples are shapes."""
    assert geometry.shape_option("scan_shape", value, (2, 3)) == (2, 3)


@pytest.mark.parametrize(("start", "stop"), [(-1, 0), (0, 5), (3, 2), (5, 5)])
def test_range_outside(start, stop):
    """A range that leaves four positions is refused."""
    with pytest.raises(IndexError, match="leave the scan of 4 positions"):
        geometry.check_range(start, stop, 4)


@pytest.mark.parametrize("scan_shape", [(100_000, 100_000), (2**40, 2**40)])
def test_senseless_scan_is_refused_before_memory_is_taken(scan_shape):
    """A scan of thousands of millions of positions with five frames is a broken header."""
    with pytest.raises(CorruptDataError, match="only 5 frames were found"):
        geometry.fit_scan(scan_shape, 5)
