"""Gap coding, and the loops over events against the same loops over densified frames."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels import event_sums, events, frames

WIDE = (300, 500)  # 150 000 pixels: gaps beyond 65535 and 131070 occur


def coded(lists, n_pixels=None):
    """Code one list of pixels per frame; give gap and offsets."""
    indptr = np.concatenate([[0], np.cumsum([len(frame) for frame in lists])]).astype(np.int64)
    indices = np.array([index for frame in lists for index in frame], dtype=np.uint32)
    gap, n_slots = events.encode(indptr, indices, n_pixels)
    return gap, events.slot_offsets(n_slots)


def dense(lists, detector):
    """Count the events of each pixel."""
    out = np.zeros((len(lists), *detector), dtype=np.uint16)
    for frame, indices in zip(out, lists, strict=True):
        np.add.at(frame.reshape(-1), np.asarray(indices, dtype=int), 1)
    return out


@st.composite
def scans(draw):
    """Draw a detector, event lists with duplicates and empty frames, some frames of them, and output rows."""
    detector = draw(st.sampled_from([(1, 1), (3, 5), (7, 2), (1, 13), WIDE]))
    last = detector[0] * detector[1] - 1
    pixel = st.one_of(st.integers(0, last), st.sampled_from([0, last, min(65535, last), min(65536, last)]))
    lists = draw(st.lists(st.lists(pixel, max_size=12), max_size=5))
    repeats = draw(st.integers(1, 2))
    lists = [frame * repeats for frame in lists]
    chosen = st.integers(0, max(len(lists) - 1, 0))
    local = draw(st.lists(chosen, max_size=6)) if lists else []
    place = draw(st.lists(st.integers(0, 3), min_size=len(local), max_size=len(local)))
    return detector, lists, np.array(local, dtype=np.int64), np.array(place, dtype=np.int64)


@pytest.mark.parametrize(
    ("pixels", "slots"),
    [
        ([], []),
        ([0], [0]),
        ([0, 0], [0, 0]),
        ([3, 4, 4, 10], [3, 1, 0, 6]),
        ([65534], [65534]),
        ([65535], [65535, 0]),
        ([65536], [65535, 1]),
        ([131070, 131070], [65535, 65535, 0, 0]),
        ([5, 140000], [5, 65535, 65535, 8925]),
        ([9, 2, 9], [2, 7, 0]),
    ],
)
def test_coding_of_one_frame(pixels, slots):
    """Distances, duplicates, pixel 0 and escapes are coded as the format says."""
    gap, offsets = coded([pixels])
    assert gap.dtype == np.uint16
    assert gap.tolist() == slots
    assert offsets.tolist() == [0, len(slots)]


@settings(deadline=None, max_examples=150)
@given(scan=scans())
def test_decode_inverts_encode(scan):
    """Decoding gives the sorted lists back, and coding them again the same gaps."""
    detector, lists, _, _ = scan
    gap, offsets = coded(lists, detector[0] * detector[1])
    indptr, indices = events.decode(gap, offsets)
    assert indices.dtype == np.uint32
    assert [indices[a:b].tolist() for a, b in pairwise(indptr)] == [sorted(f) for f in lists]
    again, n_slots = events.encode(indptr, indices)
    np.testing.assert_array_equal(again, gap)
    np.testing.assert_array_equal(n_slots, np.diff(offsets))


def test_encode_leaves_its_input_alone():
    """Unsorted lists are sorted in a copy; a part of a longer list is coded as itself."""
    indices = np.array([7, 7, 9, 1, 4, 2], dtype=np.int64)
    before = indices.copy()
    gap, n_slots = events.encode(np.array([2, 4, 4, 6]), indices)
    assert gap.tolist() == [1, 8, 2, 2]
    assert n_slots.tolist() == [2, 0, 2]
    assert n_slots.dtype == np.uint32
    np.testing.assert_array_equal(indices, before)


@settings(deadline=None, max_examples=100)
@given(scan=scans(), data=st.data())
def test_detectors_equal_those_of_frames(scan, data):
    """Masked and weighted sums of events are those of the densified frames."""
    detector, lists, local, place = scan
    gap, offsets = coded(lists)
    block = dense(lists, detector)
    n_masks = data.draw(st.integers(0, 4))
    masks = data.draw(hnp.arrays(np.bool_, (n_masks, *detector)) if detector != WIDE else st.just(bands(n_masks)))
    out, expected = np.ones((2, 4, n_masks), dtype=np.uint64)
    events.masked_sums(gap, offsets, local, out, place, events.prepare_masks(masks))
    frames.masked_sums(block, local, expected, place, frames.prepare_masks(masks))
    np.testing.assert_array_equal(out, expected)
    weights = masks * 0.5 - 2  # exact in binary
    out, expected = np.zeros((2, 4, n_masks))
    events.weighted_sums(gap, offsets, local, out, place, events.prepare_weights(weights))
    frames.weighted_sums(block, local, expected, place, frames.prepare_weights(weights))
    np.testing.assert_array_equal(out, expected)


def bands(n_masks):
    """Overlapping masks of the wide detector."""
    row, column = np.indices(WIDE)
    return np.array([(row + column) % (q + 2) == 0 for q in range(n_masks)], dtype=bool).reshape(n_masks, *WIDE)


@settings(deadline=None, max_examples=100)
@given(scan=scans(), masked=st.booleans())
def test_moments_equal_those_of_frames(scan, masked):
    """Number, row sum and column sum of events are those of the densified frames."""
    detector, lists, local, place = scan
    mask = np.indices(detector).sum(axis=0) % 3 > 0 if masked else None
    out, expected = np.ones((2, 4, 3), dtype=np.uint64)
    events.moments(*coded(lists), local, out, place, events.prepare_region(detector, mask))
    frames.moments(dense(lists, detector), local, expected, place, frames.prepare_region(detector, mask))
    np.testing.assert_array_equal(out, expected)


@settings(deadline=None, max_examples=50)
@given(scan=scans(), masked=st.booleans(), first=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_second_moments_are_sums_of_squares(scan, masked, first):
    """Number, first and second moments are the weighted sums of the densified frames."""
    detector, lists, local, place = scan
    row, column = np.indices(detector)
    mask = (row + column) % 3 > 0 if masked else np.ones(detector, bool)
    r, c = row - first[0], column - first[1]
    weights = np.stack([np.ones(detector, int), r, c, r * r, c * c, r * c]) * mask
    expected = np.zeros((4, 6), np.int64)
    np.add.at(expected, place, np.einsum("nij,qij->nq", dense(lists, detector)[local].astype(np.int64), weights))
    for kind in (np.int64, np.float64):
        out = np.zeros((4, 6), kind)
        region = events.prepare_region(detector, mask if masked else None)
        events.second_moments(*coded(lists), local, out, place, (region, np.array(first)))
        np.testing.assert_array_equal(out, expected)


@settings(deadline=None, max_examples=100)
@given(scan=scans())
def test_patterns_equal_those_of_frames(scan):
    """Sum, maximum, dense frames and boxes of events are those of the densified frames."""
    detector, lists, local, place = scan
    gap, offsets = coded(lists)
    block = dense(lists, detector)
    total, expected = np.ones((2, *detector), dtype=np.uint64)
    events.add(gap, offsets, local, total)
    frames.add(block, local, expected)
    np.testing.assert_array_equal(total, expected)
    weights, (weighted, expected) = np.arange(len(local)) * 0.25 - 0.5, np.ones((2, *detector))  # exact in binary
    events.add_weighted(gap, offsets, local, weighted, weights)
    frames.add_weighted(block, local, expected, weights)
    np.testing.assert_array_equal(weighted, expected)
    squares, expected = np.ones((2, *detector), dtype=np.uint64)
    events.add_squares(gap, offsets, local, squares)
    frames.add_squares(block, local, expected)
    np.testing.assert_array_equal(squares, expected)
    highest, expected = np.zeros((2, *detector), dtype=np.uint16)
    events.maximum(gap, offsets, local, highest)
    frames.maximum(block, local, expected)
    np.testing.assert_array_equal(highest, expected)
    out = np.zeros((4, block[:1].size if lists else detector[0] * detector[1]), dtype=np.uint32)
    events.densify(gap, offsets, local, out, place)
    expected = np.zeros((4, *detector), dtype=np.uint32)
    np.add.at(expected, place, block[local])
    np.testing.assert_array_equal(out, expected.reshape(4, -1))
    boxes, expected = np.zeros((2, 4, *frames.binned_shape(detector, (2, 3))), dtype=np.uint64)
    events.bin_detector(gap, offsets, local, boxes, place, detector, (2, 3))
    frames.bin_detector(block, local, expected, place, (2, 3))
    np.testing.assert_array_equal(boxes, expected)


def test_real_outputs():
    """Counts arrive in float64 outputs too."""
    gap, offsets = coded([[1, 1, 5]])
    sums, moments, total = np.zeros((1, 1)), np.zeros((1, 3)), np.zeros((2, 3))
    events.masked_sums(gap, offsets, [0], sums, [0], events.prepare_masks(np.ones((1, 2, 3), bool)))
    events.moments(gap, offsets, [0], moments, [0], events.prepare_region((2, 3)))
    events.add(gap, offsets, [0], total)
    assert sums.tolist() == [[3.0]]
    assert moments.tolist() == [[3.0, 1.0, 4.0]]
    assert total.tolist() == [[0, 2, 0], [0, 0, 1]]


@settings(deadline=None, max_examples=50)
@given(scan=scans(), data=st.data())
def test_weights_that_all_differ(scan, data):
    """Weights are looked up tile by tile, whatever the tile: gaps and escapes reach over its borders."""
    detector, lists, local, place = scan
    n_masks, n_pixels = data.draw(st.integers(2, 5)), detector[0] * detector[1]
    weights = (np.arange(n_masks * n_pixels) * 7919 % 1000 - 300.0).reshape(n_masks, *detector)
    prepared = events.prepare_weights(weights)
    assert (prepared[0].size > 0) == (n_pixels <= 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_sums, "TILE_BYTES", data.draw(st.sampled_from([1, 1000, 2**16])))
        patch.setattr(event_sums, "EVENTS_PER_TILE", data.draw(st.integers(0, 1)) / 100)
        out, expected = np.zeros((2, 4, n_masks))
        events.weighted_sums(*coded(lists), local, out, place, prepared)
    frames.weighted_sums(dense(lists, detector), local, expected, place, frames.prepare_weights(weights))
    np.testing.assert_array_equal(out, expected)


def test_many_events_under_several_weights():
    """A frame of many events beside one of few."""
    lists = [[1, 2], list(range(3000)) * 2]
    weights = np.random.default_rng(0).integers(-5, 6, (3, 50, 60))
    out = np.zeros((2, 3))
    events.weighted_sums(*coded(lists), [0, 1], out, [0, 1], events.prepare_weights(weights))
    assert out.tolist() == [(weights.reshape(3, -1)[:, f]).sum(axis=1).tolist() for f in lists]


def test_second_moments_of_many_events():
    """A frame of many events after one of few, as integers."""
    lists = [[1, 2], list(range(3000)) * 2]
    out = np.zeros((2, 6), np.int64)
    events.second_moments(*coded(lists), [0, 1], out, [0, 1], (events.prepare_region((50, 60)), np.array([3, 4])))
    row, column = np.divmod(np.array(lists[1]), 60) - np.array([[3], [4]])
    expected = [6000, row.sum(), column.sum(), (row**2).sum(), (column**2).sum(), (row * column).sum()]
    assert out.tolist() == [[2, -6, -5, 18, 13, 15], expected]


def test_weights_that_are_not_finite():
    """Infinite and missing weights reach the frames that have an electron there, and no others."""
    weights = np.array([[[np.inf, 1.0, np.nan]], [[1.0, 2.0, 3.0]]])
    out = np.zeros((3, 2))
    events.weighted_sums(*coded([[1], [0], [2]]), [0, 1, 2], out, [0, 1, 2], events.prepare_weights(weights))
    np.testing.assert_array_equal(out, [[1, 2], [np.inf, 1], [np.nan, 3]])


@pytest.mark.parametrize("detector", [(1, 1), (37, 1), (1, 997), (331, 577), (2, 2**28), (2**15, 2**15)])
def test_rows_without_division(detector):
    """Multiplication and shift give the row of every pixel, also at both ends of each row."""
    region = events.prepare_region(detector)
    rows, columns, multiplier, shift = (int(value) for value in region[1])
    for row in {0, 1, rows // 2, rows - 1} & set(range(rows)):
        for index in (row * columns, row * columns + columns - 1):
            assert (index * multiplier) >> shift == row
            assert index * multiplier < 2**63


def test_centre_of_mass_beyond_32_bits():
    """Column sums of a wide detector with many events do not overflow."""
    detector = (2, 2**20)
    last = 2**21 - 1
    gap, offsets = coded([[last] * 5000])
    out = np.zeros((1, 3), dtype=np.uint64)
    events.moments(gap, offsets, [0], out, [0], events.prepare_region(detector))
    assert out.tolist() == [[5000, 5000, 5000 * (2**20 - 1)]]


def test_results_beyond_32_bits_are_added_exactly():
    """An output that already holds more than 2^53 grows by single electrons."""
    out = np.full((1, 1), 2**60 + 1, dtype=np.uint64)
    events.masked_sums(*coded([[0]]), [0], out, [0], events.prepare_masks(np.ones((1, 1, 1), bool)))
    assert int(out[0, 0]) == 2**60 + 2


def test_prepared_forms_travel():
    """Prepared tables survive pickling and work when they come back read-only."""
    mask = np.array([[[True, False], [True, True]]])
    forms = (events.prepare_masks(mask), events.prepare_weights(mask * 1.0), events.prepare_region((2, 2), mask[0]))
    for prepared, run, width in zip(
        forms, (events.masked_sums, events.weighted_sums, events.moments), (1, 1, 3), strict=True
    ):
        travelled = pickle.loads(pickle.dumps(prepared))
        for array in travelled:
            array.flags.writeable = False
        out = np.zeros((1, width))
        run(*coded([[0, 1, 2, 3]]), [0], out, [0], travelled)
        assert out[0, 0] == 3


def test_encode_refuses():
    """Indices outside the detector are named with their frame; pointers that do not fit are refused."""
    indptr = np.array([0, 1, 1, 3])
    with pytest.raises(InputError, match="frame 2 has an event at pixel 12 but the detector has pixels 0 to 11"):
        events.encode(indptr, np.array([3, 5, 12]), 12)
    with pytest.raises(InputError, match="frame 0 has an event at pixel -3"):
        events.encode(indptr, np.array([-3, 5, 1]))
    with pytest.raises(InputError, match="frame 2 has an event at pixel 4294967296"):
        events.encode(indptr, np.array([3, 2**32, 1]))
    with pytest.raises(InputError, match="indptr does not describe 2 events"):
        events.encode(indptr, np.array([3, 5]))
    with pytest.raises(InputError, match="indptr does not describe"):
        events.encode(np.array([0, 2, 1]), np.array([3, 5]))
    with pytest.raises(InputError, match="expected a list of integers"):
        events.encode(indptr, np.array([0.5, 1.0, 2.0]))


def test_damaged_blocks():
    """Events beyond the detector, a dangling escape and wrong offsets raise, naming the frame."""
    gap, offsets = coded([[1], [3, 8]])
    prepared, out = events.prepare_masks(np.ones((1, 2, 4), bool)), np.zeros((2, 1), np.uint64)
    with pytest.raises(CorruptDataError, match=r"frame 1 of the event block is damaged.*pixel 8 of 8"):
        events.masked_sums(gap, offsets, [0, 1], out, [0, 1], prepared)
    assert not out.any()
    events.masked_sums(gap, offsets, [0], out, [0], prepared)
    assert out.tolist() == [[1], [0]]
    with pytest.raises(CorruptDataError, match="last slot is an escape"):
        events.decode(np.array([65535], np.uint16), np.array([0, 1]))
    for wrong in ([0, 2, 1], [0, 1, 9], [-1, 1, 3]):
        with pytest.raises(CorruptDataError, match="its slots are"):
            events.add(gap, np.array(wrong), [0, 1], np.zeros((3, 4), np.uint64))


def test_refusals():
    """Outputs that cannot hold the result are refused, never wrapped around."""
    gap, offsets = coded([[2] * 300])
    with pytest.raises(InputError, match="pixel 2 has more electrons in one frame than uint8"):
        events.densify(gap, offsets, [0], np.zeros((1, 4), np.uint8), [0])
    with pytest.raises(InputError, match="than uint8 can hold"):
        events.maximum(gap, offsets, [0], np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="than uint8 can hold"):
        events.bin_detector(gap, offsets, [0], np.zeros((1, 1, 1), np.uint8), [0], (2, 2), (2, 2))
    with pytest.raises(InputError, match="positions, pixels"):
        events.densify(gap, offsets, [0], np.zeros((1, 2, 2), np.uint16), [0])
    with pytest.raises(InputError, match="float64 output"):
        events.weighted_sums(gap, offsets, [0], np.zeros((1, 1), int), [0], events.prepare_weights(np.ones((1, 2, 2))))
    with pytest.raises(InputError, match="frame 1 was asked of a block of 1"):
        events.add(gap, offsets, [1], np.zeros((2, 2), np.uint64))
    with pytest.raises(InputError, match="list of uint16"):
        events.decode(gap.astype(np.int32), offsets)
    with pytest.raises(InputError, match="rebuild it"):
        events.prepare_region((2, 2), np.ones((2, 3), bool))
    with pytest.raises(InputError, match="too large for event moments"):
        events.prepare_region((2**16, 2**16))
