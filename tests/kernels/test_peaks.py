"""Maxima, spacing, climbing, parabola and intensities on small maps with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.kernels import peaks
from stemstore.kernels.correlation import disk

MAPS = hnp.arrays(np.float32, st.tuples(st.integers(3, 12), st.integers(3, 12)), elements=st.integers(0, 4))
POINTS = hnp.arrays(np.float64, st.tuples(st.integers(0, 15), st.just(2)), elements=st.integers(0, 20))


@given(MAPS)
def test_maxima_follow_the_raster_rule(score: np.ndarray) -> None:
    """A maximum is above its earlier and not below its later neighbours, column by column."""
    earlier = [(1, 0), (0, 1), (1, 1), (-1, 1)]  # np.roll shifts that bring the earlier neighbour here
    above = np.logical_and.reduce([score > np.roll(score, s, (0, 1)) for s in earlier])
    equal = np.logical_and.reduce([score >= np.roll(score, (-a, -b), (0, 1)) for a, b in earlier])
    expected = above & equal & (score > 1)
    expected[[0, -1]] = expected[:, [0, -1]] = False
    assert peaks.local_maxima(score, 1, 1.0).tolist() == np.argwhere(expected).tolist()


def test_a_plateau_yields_one_maximum() -> None:
    """A saturated flat top is one peak."""
    score = np.zeros((9, 9), np.float32)
    score[3:6, 2:7] = 5
    assert len(peaks.local_maxima(score, 1, 0.0)) == 1


def test_many_maxima_and_the_border() -> None:
    """More maxima than the first buffer holds are found; the border is left out."""
    score = np.zeros((101, 101), np.float32)
    score[::2, ::2] = 1
    assert len(peaks.local_maxima(score, 1, 0.5)) == 49**2
    assert len(peaks.local_maxima(score, 50, 0.5)) == 1


@given(POINTS, st.floats(0.5, 12))
def test_spacing_keeps_the_first_of_every_crowd(points: np.ndarray, distance: float) -> None:
    """Kept points are apart; every dropped one has a kept earlier one nearby."""
    keep = peaks.space_out(points, distance)
    gaps = np.hypot(*(points[:, None] - points[None, :]).T)
    for i in range(len(points)):
        near = [j for j in range(i) if keep[j] and gaps[i, j] < distance]
        assert keep[i] == (not near)


def test_climbing_reaches_the_top_of_a_slope() -> None:
    """A candidate several boxes away from the top arrives there; one on top stays."""
    rows, columns = np.indices((30, 30))
    score = -((rows - 20.0) ** 2) - (columns - 7.0) ** 2
    assert peaks.climb(score, np.array([[15, 11], [20, 7]]), 2).tolist() == [[20, 7], [20, 7]]


def test_parabola_is_exact_on_a_quadratic() -> None:
    """The vertex of a quadratic surface is found exactly; at the border the pixel itself is returned."""
    rows, columns = np.indices((9, 9))
    score = 5 - (rows - 4.3) ** 2 - 0.5 * (columns - 3.8) ** 2
    np.testing.assert_allclose(peaks.parabola(score, np.array([[4, 4], [0, 4]])), [[4.3, 3.8], [0.0, 3.8]], atol=1e-12)


def test_parabola_moves_at_most_one_pixel() -> None:
    """Where the pixel is no maximum the step is limited, and a valley moves nothing."""
    score = np.array([[0.0, 0, 0], [0, 10.0, 29], [0, 0, 0]])
    assert peaks.parabola(score, np.array([[1, 1]]))[0].tolist() == [1.0, 1.0]
    steep = np.array([[0.0, 0, 0], [0, 10.0, 19.9], [0, 0, 0]])
    assert peaks.parabola(steep, np.array([[1, 1]]))[0].tolist() == [1.0, 2.0]


def test_intensity_is_the_sum_above_the_ring() -> None:
    """A disk of known counts on a tilted background keeps its counts; no pixel dominates."""
    rows, _ = np.indices((50, 50))
    image = (2 + 0.05 * rows + 7 * disk((50, 50), (24.0, 25.0), 5.0, 0.1)).astype(np.float32)
    inside = np.hypot(rows - 24, np.arange(50) - 25) < 5
    total, share = peaks.disk_sums(image, np.array([[24.0, 25.0]]), 5.0, 0.1)
    assert total[0] == pytest.approx(7 * inside.sum(), rel=1e-3)
    assert share[0] == pytest.approx(1 / inside.sum(), rel=0.1)


def test_neighbours_do_not_count_as_background() -> None:
    """Two disks whose rings overlap keep their counts."""
    centres = np.array([[25.0, 20.0], [25.0, 33.0]])
    image = sum(4 * disk((50, 55), (c[0], c[1]), 5.0, 0.1) for c in centres).astype(np.float32)
    total, _ = peaks.disk_sums(image, centres, 5.0, 0.1)
    alone, _ = peaks.disk_sums((4 * disk((50, 55), (25.0, 20.0), 5.0, 0.1)).astype(np.float32), centres[:1], 5.0, 0.1)
    np.testing.assert_allclose(total, [alone[0], alone[0]])


def test_a_crowded_ring_falls_back_to_its_low_quantile() -> None:
    """A disk surrounded by others on all sides still gets the background between them."""
    around = [(25 + 12 * np.cos(a), 25 + 12 * np.sin(a)) for a in np.arange(6) * np.pi / 3]
    centres = np.array([(25.0, 25.0), *around])
    image = 1 + sum(4 * disk((51, 51), (c[0], c[1]), 5.0, 0.1) for c in centres)
    total, _ = peaks.disk_sums(image.astype(np.float32), centres, 5.0, 0.1)
    inside = np.hypot(*(np.indices((51, 51)) - 25)) < 5
    assert total[0] == pytest.approx(4 * inside.sum(), rel=0.02)


def test_one_hot_pixel_has_the_whole_share() -> None:
    """The share of the largest pixel tells a hot pixel from a disk."""
    image = np.zeros((40, 40), np.float32)
    image[20, 20] = 500
    _, share = peaks.disk_sums(image, np.array([[20.0, 21.0]]), 5.0, 1.0)
    assert share[0] == pytest.approx(1.0)


def test_ring_medians_ignore_the_disk_and_the_outside() -> None:
    """The median is that of the ring alone, also at the corner; off the image it is 0."""
    image = (3 + 50 * disk((40, 40), (20.0, 20.0), 6.0, 1.0)).astype(np.float32)
    found = peaks.ring_medians(image, np.array([[20, 20], [0, 0], [-40, -40]]), 6.0)
    assert found.tolist() == [3.0, 3.0, 0.0]
