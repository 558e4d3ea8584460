"""Event lists by pixel agree with NumPy on the densified frames."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stemstore.sources.contract import Events
from stemstore.sources.electrons import BATCH_EVENTS, MOST_FRAMES, by_pixel, in_batches, multiplicity
from stemstore.testing.arrays import ArrayEvents

LISTS = st.lists(st.lists(st.integers(0, 5), max_size=8).map(sorted), min_size=1, max_size=6)


@given(lists=LISTS)
def test_every_pixel_once_with_its_electrons(lists):
    """Pixels ascend without repetition, and their electrons are those of a histogram of the frame."""
    lengths = np.cumsum([0] + [len(one) for one in lists])
    flat = np.array([pixel for one in lists for pixel in one], np.uint32)
    indptr, pixels, electrons = by_pixel(Events(lengths, flat, (2, 3)))
    for number, one in enumerate(lists):
        mine = slice(indptr[number], indptr[number + 1])
        expected, counts = np.unique(one, return_counts=True)
        assert pixels[mine].tolist() == expected.tolist()
        assert electrons[mine].tolist() == counts.tolist()


def test_fullest_pixel_of_every_frame():
    """The multiplicity is the maximum of each frame, zero for an empty one."""
    counts = np.random.default_rng(0).poisson(0.4, (5, 7, 4, 3))
    counts[2, 3] = 0
    assert multiplicity(ArrayEvents(counts)).tolist() == counts.max((2, 3)).reshape(-1).tolist()


def test_batches_follow_the_density():
    """Batches cover every frame once, grow while frames are sparse, and shrink to two where these fill a batch."""
    rate = np.repeat([10, BATCH_EVENTS // 2, 10], [2000, 600, 500])

    def read(start, stop):
        return [Events(np.zeros(1, np.int64), np.broadcast_to(np.uint32(0), int(rate[start:stop].sum())), (1, 1))]

    spans = [(start, stop) for start, stop, _ in in_batches(read, len(rate))]
    assert [start for start, _ in spans] == [0, *[stop for _, stop in spans[:-1]]]
    assert spans[-1][1] == len(rate)
    lengths = [stop - start for start, stop in spans]
    assert lengths[:7] == [16, 32, 64, 128, 256, 512, 512]
    assert max(lengths) == MOST_FRAMES
    assert {stop - start for start, stop in spans if start > 2000 + MOST_FRAMES and stop <= 2600} == {2}
    assert lengths[-1] > 100
