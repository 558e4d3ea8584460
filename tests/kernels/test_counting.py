"""Counting rules against vectors worked out by hand and against a plain restatement of the rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.errors import InputError
from stemstore.kernels.counting import count_frames

RULES = ("stemstore", "stempy")
LOW, HIGH = 28.0, 400.0


def positions(frame, rule, background=LOW, xray=HIGH):
    """Count one frame and give (row, column) of its events."""
    indptr, indices = count_frames(frame[None], background, xray, rule)
    assert indptr.tolist() == [0, len(indices)]
    return [tuple(divmod(int(i), frame.shape[1])) for i in indices]


def drawn(shape, pixels):
    """Give a frame that is zero but for the given pixels."""
    frame = np.zeros(shape, dtype=np.uint16)
    for (row, column), value in pixels.items():
        frame[row, column] = value
    return frame


def restated(frame, low, high, rule):
    """Apply the rules pixel by pixel, from their definition."""
    f = frame.astype(object)  # Python numbers: thresholds are not rounded to the dtype of the frame
    n_rows, n_columns = frame.shape
    events = []
    for r, c in np.ndindex(frame.shape):
        if not low[r] < f[r, c] < high:
            continue
        ring = [
            (i, j)
            for i in range(r - 1, r + 2)
            for j in range(c - 1, c + 2)
            if (i, j) != (r, c) and 0 <= i < n_rows and 0 <= j < n_columns
        ]
        if rule == "stempy":
            event = all(f[r, c] > (f[q] if low[q[0]] < f[q] < high else 0) for q in ring)
        else:
            earlier = [f[q] for q in ring if q < (r, c)]
            later = [f[q] for q in ring if q > (r, c)]
            event = (
                not any(f[q] >= high for q in ring)
                and all(f[r, c] > v for v in earlier)
                and all(f[r, c] >= v for v in later)
            )
        if event:
            events.append(r * n_columns + c)
    return events


def test_vectors_of_a_full_frame():
    """Corners, borders, a tie, an X-ray with a neighbour and values at the thresholds: worked out by hand."""
    corners = {(0, 0): 100, (0, 575): 100, (575, 0): 100, (575, 575): 100}
    rest = {(0, 10): 100, (10, 0): 90, (100, 100): 50, (100, 101): 50, (200, 200): 500, (200, 201): 60}
    frame = drawn((576, 576), corners | rest | {(300, 300): 29, (310, 310): 28})
    head, tail = [(0, 0), (0, 10), (0, 575), (10, 0)], [(300, 300), (575, 0), (575, 575)]
    assert positions(frame, "stempy") == [*head, (200, 201), *tail]
    assert positions(frame, "stemstore") == [*head, (100, 100), *tail]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([(2, 2), (2, 3), (3, 2), (3, 3)], [(2, 2)]),
        ([(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)], [(2, 1)]),
        ([(1, 1), (2, 2), (1, 3)], [(1, 1), (1, 3)]),
        ([(2, 4), (3, 3)], [(2, 4)]),
    ],
)
def test_plateaus(pixels, expected):
    """The raster-first pixel of a plateau wins under one rule, and nothing under the other."""
    frame = drawn((7, 8), dict.fromkeys(pixels, 50))
    assert positions(frame, "stemstore") == expected
    assert positions(frame, "stempy") == []


@settings(deadline=None, max_examples=300)
@given(
    frames=hnp.arrays(
        np.uint16,
        st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 19, 28, 29, 30, 31, 399, 400, 401, 65535]),
    ),
    low=st.sampled_from([-1.0, 27.5, 28.0, 28.99, 30.0, 65535.0]),
    high=st.sampled_from([31.0, 399.5, 400.0, 65535.0]),
    rule=st.sampled_from(RULES),
)
def test_equals_the_definition(frames, low, high, rule):
    """Small frames full of ties, borders and X-rays give what the definition gives."""
    indptr, indices = count_frames(frames, low, high, rule)
    assert indptr.dtype == np.int64
    assert indices.dtype == np.uint32
    for f, frame in enumerate(frames):
        expected = restated(frame, [low] * len(frame), high, rule)
        assert indices[indptr[f] : indptr[f + 1]].tolist() == expected


@settings(deadline=None, max_examples=60)
@given(
    frame=hnp.arrays(np.int16, (3, 70), elements=st.integers(-4, 4)),
    low=st.floats(-5, 5),
    high=st.floats(-5, 6),
    rule=st.sampled_from(RULES),
    dtype=st.sampled_from([np.int16, np.float32]),
)
def test_signed_and_real_frames(frame, low, high, rule, dtype):
    """Negative values and real thresholds are compared as they are; rows cross the block border of 64 pixels."""
    frame = frame.astype(dtype)
    assert count_frames(frame[None], low, high, rule)[1].tolist() == restated(frame, [low] * 3, high, rule)


@pytest.mark.parametrize("rule", RULES)
def test_thresholds_per_row(rule):
    """Every detector row has its own cut, also as the neighbour of another row, and may be out of reach."""
    frame = np.random.default_rng(3).integers(20, 40, (9, 13)).astype(np.uint16)
    low = [25.0] * 3 + [33.3] * 3 + [70000.0] * 3
    assert count_frames(frame[None], low, 39.0, rule)[1].tolist() == restated(frame, low, 39.0, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (1, 1), (65, 129)])
def test_narrow_and_odd_frames(rule, shape):
    """Neighbours exist or not; nothing is read beyond the border."""
    frame = np.random.default_rng(0).integers(25, 45, shape).astype(np.uint16)
    expected = restated(frame, [LOW] * shape[0], 44.0, rule)
    assert len(expected) > 0
    assert count_frames(frame[None], LOW, 44.0, rule)[1].tolist() == expected


@pytest.mark.parametrize("shape", [(0, 5, 5), (3, 0, 5), (3, 5, 0)])
def test_empty_stacks(shape):
    """No pixels, no events, one pointer per frame."""
    indptr, indices = count_frames(np.zeros(shape, dtype=np.uint16), LOW, HIGH)
    assert indptr.tolist() == [0] * (shape[0] + 1)
    assert len(indices) == 0


def test_saturated_pixels_are_no_electrons():
    """A pixel at full scale is neither an event nor leaves one beside it, even without an upper threshold."""
    frame = drawn((5, 5), {(2, 2): 65535, (2, 3): 900, (0, 0): 60})
    assert positions(frame, "stemstore", xray=None) == [(0, 0)]
    assert positions(np.full((40, 40), 65535, dtype=np.uint16), "stemstore", xray=None) == []


def test_more_events_than_the_first_buffer():
    """The densest possible frame, often repeated, is counted in full and in order."""
    frame = np.zeros((151, 153), dtype=np.uint16)
    frame[::2, ::2] = 100
    indptr, indices = count_frames(np.broadcast_to(frame, (9, 151, 153)), LOW, HIGH)
    expected = np.flatnonzero(frame)
    assert indptr.tolist() == (np.arange(10) * expected.size).tolist()
    np.testing.assert_array_equal(indices.reshape(9, -1), np.broadcast_to(expected, (9, expected.size)))


@pytest.mark.parametrize("rule", RULES)
def test_nan_is_an_absent_pixel(rule):
    """A dead pixel is no event and does not hide its neighbours."""
    frame = np.zeros((4, 80), dtype=np.float32)
    frame[1, 3], frame[1, 4], frame[2, 70] = np.nan, 50, np.nan
    assert positions(frame, rule) == [(1, 4)]


def test_big_endian_and_strided_frames():
    """Byte order and memory layout make no difference."""
    stack = np.random.default_rng(1).integers(0, 60, (4, 12, 14)).astype(np.uint16)
    plain = count_frames(np.ascontiguousarray(stack[::2, :, ::2]), LOW, HIGH)
    swapped = count_frames(stack.astype(">u2")[::2, :, ::2], LOW, HIGH)
    np.testing.assert_array_equal(plain[0], swapped[0])
    np.testing.assert_array_equal(plain[1], swapped[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((1, 2, 2), np.uint16), LOW, HIGH, "libertem"), "unknown counting rule 'libertem'"),
        ((np.zeros((2, 2), np.uint16), LOW, HIGH), "shape \\(2, 2\\)"),
        ((np.zeros((1, 2, 2), complex), LOW, HIGH), "dtype complex128"),
        ((np.zeros((1, 2, 2), np.uint16), np.nan, HIGH), "a background threshold is not a number"),
        ((np.zeros((1, 2, 2), np.uint16), LOW, np.nan), "an X-ray threshold is not a number"),
        ((np.zeros((1, 2, 2), np.uint16), [1, 2, 3], HIGH), "one per detector row"),
    ],
)
def test_refusals(arguments, message):
    """What cannot be counted is refused by name."""
    with pytest.raises(InputError, match=message):
        count_frames(*arguments)
