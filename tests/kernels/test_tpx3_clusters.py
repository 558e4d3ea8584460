"""Hits joined to electrons: the clusters that were simulated, and those that a plain search finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from stemstore.kernels.tpx3_clusters import SLICE, join

SHAPE = (40, 50)
WINDOW = 384  # 100 ns


def joined(
    hits: list[tuple[int, int, int, int]], window: int = WINDOW, distance: int = 1
) -> list[tuple[int, int, int]]:
    """Join hits (time, row, column, time over threshold); gives times, rows and columns."""
    times, rows, columns, over = (np.array(one, np.int64) for one in zip(*hits, strict=True))
    pixels = (rows * SHAPE[1] + columns).astype(np.uint32)
    found, where = join(times, pixels, over.astype(np.uint16), SHAPE, window, distance)
    return [(int(t), *divmod(int(pixel), SHAPE[1])) for t, pixel in zip(found, where, strict=True)]


def test_one_electron() -> None:
    """Time of the first hit; mean weighted by time over threshold, to the nearest pixel, halves up."""
    assert joined([(500, 3, 4, 30), (480, 3, 5, 10), (600, 4, 4, 10)]) == [(480, 3, 4)]
    assert joined([(500, 3, 4, 10), (480, 3, 5, 10)]) == [(480, 3, 5)]
    assert joined([(500, 3, 4, 11), (480, 3, 5, 10)]) == [(480, 3, 4)]
    assert joined([(500, 3, 4, 0), (480, 3, 5, 2)]) == [(480, 3, 5)]


def test_what_is_linked() -> None:
    """Up to the window in time and the distance in rows and columns, corners included; not beyond either."""
    first = (1000, 10, 10, 5)
    assert len(joined([first, (1000 + WINDOW, 11, 11, 5)])) == 1
    assert len(joined([first, (1001 + WINDOW, 10, 10, 5)])) == 2
    assert len(joined([first, (1000, 10, 12, 5)])) == 2
    assert len(joined([first, (1000, 8, 12, 5)], distance=2)) == 1
    assert len(joined([first, (1000, 10, 11, 5)], distance=0)) == 2
    assert len(joined([first, (1000, 9, SHAPE[1] - 1, 5), (1000, 11, 0, 5), (1000, 10, SHAPE[1] - 1, 5)])) == 3


def test_links_make_chains() -> None:
    """A track longer than the window and the distance is one electron as long as its hits are linked."""
    track = [(1000 + 300 * i, 5, 3 + i, 5) for i in range(20)]
    assert joined(track) == [(1000, 5, 13)]  # 12.5 goes up
    assert len(joined(track[:9] + track[10:])) == 2


def test_slices_of_time_are_apart() -> None:
    """Across the end of a slice nothing is linked, so that slices can be read by themselves."""
    assert joined([(SLICE - 1, 5, 5, 5), (SLICE, 5, 5, 5)]) == [(SLICE - 1, 5, 5), (SLICE, 5, 5)]
    assert len(joined([(-1, 5, 5, 5), (0, 5, 5, 5)])) == 2
    assert len(joined([(-9, 5, 5, 5), (-1, 5, 5, 5)])) == 1


def test_no_hits() -> None:
    """Nothing makes nothing."""
    empty = np.empty(0, np.int64)
    times, pixels = join(empty, empty.astype(np.uint32), empty.astype(np.uint16), SHAPE, WINDOW, 1)
    assert len(times) == len(pixels) == 0


def test_simulated_electrons() -> None:
    """Electrons of one to six pixels that lie apart in time or space are found, each where its energy was left."""
    random, hits, truth = np.random.default_rng(4), [], []
    for time in np.arange(300) * 1000 + random.integers(0, 200, 300):
        for row, column in ((6, 8), (20, 25), (33, 41)):  # three at a time, fourteen pixels apart
            row, column = row + random.integers(-2, 3), column + random.integers(-2, 3)  # noqa: PLW2901 (shaken)
            steps = random.permutation([(0, 0), (0, 1), (1, 0), (1, 1), (-1, 0), (0, -1)][: random.integers(1, 7)])
            over, late = random.integers(1, 60, len(steps)), random.integers(0, 190, len(steps))
            hits += [
                (int(time + t), int(row + r), int(column + c), int(w))
                for (r, c), w, t in zip(steps, over, late, strict=True)
            ]
            mean = (steps * over[:, None]).sum(axis=0) / over.sum() + (row, column)
            truth.append((int(time + late.min()), *np.floor(mean + 0.5).astype(int).tolist()))
    assert sorted(joined(hits)) == sorted(truth)


@given(seed=st.integers(0, 999), n=st.integers(1, 120), distance=st.integers(0, 3))
def test_any_hits_in_any_order(seed: int, n: int, distance: int) -> None:
    """Dense hits make the connected parts of the graph of all links, whatever their order."""
    random = np.random.default_rng(seed)
    hits = np.stack(
        [SLICE + random.integers(-3000, 3000, n), *random.integers(0, 12, (2, n)), random.integers(1, 9, n)], 1
    )
    near = (np.abs(hits[:, None, 1:3] - hits[None, :, 1:3]) <= distance).all(axis=2)
    soon = np.abs(hits[:, None, 0] - hits[None, :, 0]) <= WINDOW
    same = hits[:, None, 0] // SLICE == hits[None, :, 0] // SLICE
    count, label = connected_components(near & soon & same, directed=False)
    truth = []
    for one in (hits[label == k] for k in range(count)):
        mean = (one[:, 1:3] * one[:, 3:]).sum(axis=0) / one[:, 3].sum()
        truth.append((one[:, 0].min(), *np.floor(mean + 0.5).astype(int)))
    found = joined([tuple(hit) for hit in hits.tolist()], distance=distance)
    assert sorted(found) == sorted(tuple(map(int, one)) for one in truth)
    assert sorted(joined([tuple(hit) for hit in random.permutation(hits).tolist()], distance=distance)) == sorted(found)
