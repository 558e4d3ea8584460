"""Sums and spread over groups of pixels: exact against NumPy, and safe against arguments that do not fit."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels import events, groups
from stemstore.kernels.contract import DetectorRegion

WHOLE = DetectorRegion((4, 5), range(4), range(5))
LABELS = np.array([[0, 0, 1, 1, -1], [0, 2, 2, 1, -1], [0, 2, 2, 1, -1], [-1, -1, -1, -1, 0]])


def coded(frames):
    """Electrons of dense frames in the stored coding."""
    flat = frames.reshape(len(frames), -1)
    indices = np.concatenate([np.repeat(np.arange(flat.shape[1]), frame) for frame in flat]).astype(np.uint32)
    indptr = np.concatenate([[0], np.cumsum(flat.sum(1))]).astype(np.int64)
    gap, n_slots = events.encode(indptr, indices)
    return gap, events.slot_offsets(n_slots)


def both(frames, prepared, n_groups):
    """Sums and deviations from dense frames and from their electrons."""
    local = np.arange(len(frames))
    found = []
    for block, sums, deviations in (
        ((frames,), groups.frame_sums, groups.frame_deviations),
        (coded(frames), groups.event_sums, groups.event_deviations),
    ):
        total, spread = np.zeros((len(frames), n_groups), np.uint64), np.zeros((len(frames), 2, n_groups))
        sums(*block, local, total, local, prepared)
        deviations(*block, local, spread, local, prepared)
        found.append((total, spread))
    return found


def test_groups_of_a_small_frame():
    """Pixels in no group are left out; a group without a pixel stays zero."""
    prepared = groups.prepare_groups(LABELS, 4, WHOLE)
    frames = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    for total, spread in both(frames, prepared, 4):
        assert total.tolist() == [[0 + 1 + 5 + 10 + 19, 2 + 3 + 8 + 13, 6 + 7 + 11 + 12, 0]]
        assert spread[0, 0].tolist() == total[0].tolist()
        np.testing.assert_allclose(spread[0, 1], [242.0, 77.0, 26.0, 0], rtol=1e-14)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_visible_pixels_count_as_often_as_they_are_seen(data):
    """Repeated rows and columns, in one group or in several, for frames and for events."""
    rows, columns = (tuple(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=7))) for n in (4, 5))
    region = DetectorRegion((4, 5), np.array(rows), np.array(columns))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.integers(-1, 3, region.shape)
    frames = rng.poisson(1.0, (3, 4, 5)).astype(np.uint8)
    visible = frames[:, rows][:, :, columns].astype(float)
    prepared = pickle.loads(pickle.dumps(groups.prepare_groups(labels, 3, region)))
    for total, spread in both(frames, prepared, 3):
        for group in range(3):
            pixels = visible[:, labels == group]
            np.testing.assert_array_equal(total[:, group], pixels.sum(1))
            expected = pixels.var(1) * pixels.shape[1] if pixels.size else np.zeros(3)
            np.testing.assert_allclose(spread[:, 1, group], expected, rtol=1e-12, atol=1e-13)


def test_results_are_added_to_the_chosen_rows():
    """Frames go where `place` says, on top of what is there; others stay."""
    prepared = groups.prepare_groups(LABELS, 3, WHOLE)
    frames = np.ones((3, 4, 5), np.uint16)
    for block, sums in (((frames,), groups.frame_sums), (coded(frames), groups.event_sums)):
        out = np.full((4, 3), 10, np.int64)
        sums(*block, np.array([2, 0]), out, np.array([3, 1]), prepared)
        assert out.tolist() == [[10] * 3, [15, 14, 14], [10] * 3, [15, 14, 14]]


def test_very_bright_pixels_keep_their_spread():
    """Where squares leave 64 bits the formula goes on in doubles; equal pixels have no spread."""
    region = DetectorRegion((1, 2), range(1), range(2))
    prepared = groups.prepare_groups(np.zeros((1, 2), int), 1, region)
    gap = np.zeros(200_000, np.uint16)
    gap[100_000] = 1
    out = np.zeros((1, 2, 1))
    groups.event_deviations(gap, np.array([0, 200_000]), np.array([0]), out, np.array([0]), prepared)
    assert out.ravel().tolist() == [200_000, 0]
    frames = np.full((1, 1, 2), 2**63, np.uint64)
    out = np.zeros((1, 2, 1))
    groups.frame_deviations(frames, np.array([0]), out, np.array([0]), prepared)
    assert out.ravel().tolist() == [2.0**64, 0]


def test_a_count_that_does_not_fit_is_refused():
    """An 8-bit output says so instead of wrapping around."""
    prepared = groups.prepare_groups(np.zeros((4, 5), int), 1, WHOLE)
    gap, offsets = coded(np.full((1, 4, 5), 13, np.uint8))
    with pytest.raises(InputError, match="group 0 has more electrons in one frame than uint8"):
        groups.event_sums(gap, offsets, np.array([0]), np.zeros((1, 1), np.uint8), np.array([0]), prepared)


def test_labels_that_do_not_fit_are_refused():
    """A label image belongs to the visible detector, and names groups that exist."""
    for labels, n in ((LABELS[:3], 3), (LABELS, 2), (LABELS - 1, 3)):
        with pytest.raises(InputError, match="on the visible detector"):
            groups.prepare_groups(labels, n, WHOLE)


def test_outputs_and_blocks_that_do_not_fit_are_refused():
    """Compiled code sees only arguments that belong together."""
    prepared = groups.prepare_groups(LABELS, 3, WHOLE)
    one, frames = np.array([0]), np.ones((1, 4, 5), np.uint8)
    gap, offsets = coded(frames)
    with pytest.raises(InputError, match="prepared for 20"):
        groups.frame_sums(frames[:, :3], one, np.zeros((1, 3), np.uint64), one, prepared)
    with pytest.raises(InputError, match="allocate it anew"):
        groups.frame_sums(frames, one, np.zeros((1, 4), np.uint64), one, prepared)
    with pytest.raises(InputError, match="frame 1 was asked of a block of 1"):
        groups.event_sums(gap, offsets, one + 1, np.zeros((1, 3), np.uint64), one, prepared)
    for call in (
        lambda out: groups.frame_deviations(frames, one, out, one, prepared),
        lambda out: groups.event_deviations(gap, offsets, one, out, one, prepared),
    ):
        with pytest.raises(InputError, match="need a float64 output"):
            call(np.zeros((1, 2, 3), np.float32))
    for call in (groups.event_sums, groups.event_deviations):
        out = np.zeros((1, 3), np.uint64) if call is groups.event_sums else np.zeros((1, 2, 3))
        with pytest.raises(CorruptDataError, match="frame 0 of the event block is damaged"):
            call(np.array([20], np.uint16), np.array([0, 1]), one, out, one, prepared)
