"""Maxima, vertices and filters on small maps with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.kernels import peaks
from stemstore.kernels.disks.surroundings import Rules

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
    assert peaks.local_maxima(score, score.shape, 1, 1.0).tolist() == np.argwhere(expected).tolist()


def test_a_plateau_yields_one_maximum() -> None:
    """A saturated flat top is one peak."""
    score = np.zeros((9, 9), np.float32)
    score[3:6, 2:7] = 5
    assert len(peaks.local_maxima(score, score.shape, 1, 0.0)) == 1


def test_many_maxima_and_the_border() -> None:
    """More maxima than the first buffer holds are found; the border is left out."""
    score = np.zeros((101, 101), np.float32)
    score[::2, ::2] = 1
    assert len(peaks.local_maxima(score, score.shape, 1, 0.5)) == 49**2
    assert len(peaks.local_maxima(score, score.shape, 50, 0.5)) == 1


@given(POINTS, st.floats(0.5, 12))
def test_spacing_keeps_the_first_of_every_crowd(points: np.ndarray, distance: float) -> None:
    """Kept points are apart; every dropped one has a kept earlier one nearby."""
    keep = peaks.space_out(points, distance)
    gaps = np.hypot(*(points[:, None] - points[None, :]).T)
    for i in range(len(points)):
        near = [j for j in range(i) if keep[j] and gaps[i, j] < distance]
        assert keep[i] == (not near)


def test_vertices_are_exact_on_a_quadratic() -> None:
    """The vertex of a quadratic surface and its height are found exactly; at the border the pixel itself is given."""
    rows, columns = np.indices((9, 9))
    score = 5 - (rows - 4.3) ** 2 - 0.5 * (columns - 3.8) ** 2
    places, values = peaks.vertices(score, np.array([[4, 4], [0, 4]]))
    np.testing.assert_allclose(places, [[4.3, 3.8], [0.0, 3.8]], atol=1e-12)
    np.testing.assert_allclose(values, [5.0, 5 - 4.3**2], atol=1e-12)


def test_vertices_move_at_most_one_pixel() -> None:
    """Where the pixel is no maximum the step is limited, and a valley moves nothing."""
    score = np.array([[0.0, 0, 0], [0, 10.0, 29], [0, 0, 0]])
    assert peaks.vertices(score, np.array([[1, 1]]))[0].tolist() == [[1.0, 1.0]]
    steep = np.array([[0.0, 0, 0], [0, 10.0, 19.9], [0, 0, 0]])
    assert peaks.vertices(steep, np.array([[1, 1]]))[0].tolist() == [[1.0, 2.0]]


def rules(**changes: Any) -> Rules:
    """Give rules that let every maximum of a 40 x 40 map pass but for the changes."""
    free = Rules(40, 40, 1, 3.0, 1, 0.0, 0.0, 0.0, 0, 99, 5.0, 0.0, False, False, 0.0, 0.0, 0.0, 1.0, 1.0)
    return free._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, [4, 4, 4, 4, 4, 4]),
        ({"least": 1.5}, [3, 3, 3, 3, 3, 3]),
        ({"border": 5}, [3, 3, 3, 3, 3, 3]),
        ({"min_visible": 0.5}, [4, 3, 3, 3, 3, 3]),
        ({"local": True, "quantum": 1.0, "level": 0.02}, [4, 4, 3, 3, 3, 3]),
        ({"min_rel": 0.3}, [4, 4, 4, 3, 3, 3]),
        ({"min_rel": 0.3, "relative_to": 3}, [4, 4, 4, 4, 4, 4]),
        ({"spacing": 6.0}, [4, 4, 4, 4, 3, 3]),
        ({"max_peaks": 2}, [4, 4, 4, 4, 4, 2]),
    ],
)
def test_filters_take_away_what_they_are_for(changes: dict[str, Any], left: list[int]) -> None:
    """Of four maxima every filter drops those it is about, and the tally says where they went."""
    score, binned = np.zeros((40, 40), np.float32), np.zeros((40, 40), np.float32)
    places, heights = ((20, 20), (20, 25), (30, 8), (3, 30)), (8.0, 5.0, 4.0, 1.3)
    for place, height in zip(places, heights, strict=True):
        score[place] = height
    share = np.ones((40, 40), np.float32)
    share[30, 8] = 0.4
    binned[24:38, 2:15] = 0.4  # background around the third one
    if changes.get("local"):
        changes |= {"variance": 0.02, "peak": 0.1}
    found = peaks.candidates(score, binned, np.ones_like(share), share, rules(**changes))
    assert found[3].tolist() == left
    assert len(found[0]) == left[-1]
    assert np.all(np.diff(found[1]) <= 0)
