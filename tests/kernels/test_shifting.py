"""Frames and events moved by whole pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels import events
from stemstore.kernels.shifting import leaving_frames, overlap, shift_events, shift_frames


def coded(frames):
    """Code frames as events."""
    flat = frames.reshape(len(frames), -1).astype(np.int64)
    indices = np.tile(np.arange(flat.shape[1]), len(flat)).repeat(flat.reshape(-1))
    gap, n_slots = events.encode(np.concatenate([[0], np.cumsum(flat.sum(1))]), indices)
    return gap, events.slot_offsets(n_slots)


def rolled(frame, move):
    """Move one frame the slow way."""
    out = np.zeros_like(frame)
    for row, column in np.argwhere(frame):
        r, c = row + move[0], column + move[1]
        if 0 <= r < frame.shape[0] and 0 <= c < frame.shape[1]:
            out[r, c] = frame[row, column]
    return out


@given(
    detector=st.sampled_from([(1, 1), (3, 5), (7, 2), (1, 13), (300, 500)]),
    moves=st.lists(st.tuples(st.integers(-400, 400) | st.integers(-3, 3), st.integers(-4, 4)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_events_move_as_frames_do(detector, moves, seed):
    """Moved events are the moved frames, in order, and what is missing was counted."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((len(moves), *detector), np.uint8)
    for frame in frames[rng.random(len(moves)) < 0.8]:
        np.add.at(frame, tuple(rng.integers(0, n, 20) for n in detector), 1)
    for frame in frames:
        frame[-1, -1] += rng.integers(0, 2)
    local, shift = np.arange(len(moves))[::-1].copy(), np.array(moves)
    expected = np.array([rolled(frames[i], move) for i, move in zip(local, moves, strict=True)])
    gap, offsets, lost = shift_events(*coded(frames), local, shift, detector)
    out = np.zeros((len(moves), frames[0].size), np.uint8)
    events.densify(gap, offsets, np.arange(len(moves)), out, np.arange(len(moves)))
    np.testing.assert_array_equal(out, expected.reshape(len(moves), -1))
    missing = frames[local].sum((1, 2), dtype=int) - expected.sum((1, 2), dtype=int)
    np.testing.assert_array_equal(lost, missing)
    np.testing.assert_array_equal(shift_frames(frames, local, shift), expected)
    np.testing.assert_array_equal(leaving_frames(frames, local, shift), missing)


def test_a_move_that_needs_escapes():
    """The first distance of a frame grows beyond 65535, twice beyond it, and shrinks again."""
    gap, offsets = events.encode(np.array([0, 2]), np.array([3, 4]))[0], np.array([0, 2])
    moved, ends, lost = shift_events(gap, offsets, np.array([0]), np.array([[270, 1]]), (300, 500))
    assert moved.tolist() == [65535, 65535, 135004 - 131070, 1]
    assert ends.tolist() == [0, 4]
    back, _, _ = shift_events(moved, ends, np.array([0]), np.array([[-270, -1]]), (300, 500))
    assert back.tolist() == gap.tolist()
    assert lost.tolist() == [0]


@given(
    detector=st.sampled_from([(1, 1), (3, 5), (300, 500)]),
    plane=st.sampled_from([(1, 1), (4, 3), (9, 11), (700, 900)]),
    move=st.tuples(st.integers(-3, 400), st.integers(-4, 400)),
    seed=st.integers(0, 99),
)
def test_events_come_onto_a_plane(detector, plane, move, seed):
    """Events that come to lie on a plane of another size are numbered as its pixels."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((1, *detector), np.uint8)
    np.add.at(frame[0], tuple(rng.integers(0, n, 20) for n in detector), 1)
    expected = np.zeros(plane, int)
    for row, column in np.argwhere(frame[0]):
        r, c = row + move[0], column + move[1]
        if 0 <= r < plane[0] and 0 <= c < plane[1]:
            expected[r, c] = frame[0, row, column]
    gap, offsets, lost = shift_events(*coded(frame), [0], np.array([move]), detector, plane=plane)
    found = events.decode(gap, offsets)[1]
    np.testing.assert_array_equal(np.bincount(found, minlength=expected.size), expected.reshape(-1))
    assert lost[0] == 20 - len(found)


@pytest.mark.parametrize(
    ("move", "here", "there"),
    [((0, 0), (0, 3), (0, 3)), ((2, 0), (0, 1), (2, 3)), ((-1, 0), (1, 3), (0, 2)), ((3, 0), (0, 0), (0, 0))],
)
def test_overlap(move, here, there):
    """What stays is what comes to lie inside."""
    found = overlap((3, 4), list(move))
    assert found[0][0] == slice(*here)
    assert found[1][0] == slice(*there)


def test_floats_move_bit_for_bit():
    """NaN and negative pixels move as they are."""
    frame = np.array([[[1.5, np.nan], [-2.0, 4.0]]])
    np.testing.assert_array_equal(shift_frames(frame, [0], np.array([[0, 1]])), [[[0, 1.5], [0, -2.0]]])
    assert leaving_frames(frame[:, 1:], [0], np.array([[0, -1]])).tolist() == [-2.0]


def test_refusals():
    """Frames that are not there and damaged events are refused."""
    with pytest.raises(InputError, match="frame 1 was asked of a block of 1"):
        shift_frames(np.zeros((1, 2, 2)), np.array([1]), np.zeros((1, 2), int))
    with pytest.raises(CorruptDataError, match="damaged"):
        shift_events(np.array([4], np.uint16), np.array([0, 1]), np.array([0]), np.zeros((1, 2), int), (2, 2))
