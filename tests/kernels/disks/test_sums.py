"""Intensities and expected precision of disks on small images with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stemstore.kernels.disks.probe import disk, position_limit
from stemstore.kernels.disks.sums import Sums, disk_sums, precision


def sums_of(image: np.ndarray, centres: object, hidden: np.ndarray | None = None, edge_width: float = 0.1) -> Sums:
    """Sum disks of radius 5 on an image without margin."""
    good = np.ones(image.shape, np.bool_) if hidden is None else ~hidden
    return disk_sums(image.astype(np.float32), good, 0, np.array(centres), 5.0, edge_width)


def test_intensity_is_the_sum_above_the_ring() -> None:
    """A disk of known counts on a tilted background keeps its counts; no pixel dominates."""
    rows, _ = np.indices((50, 50))
    image = 2 + 0.05 * rows + 7 * disk((50, 50), (24.0, 25.0), 5.0, 0.1)
    inside = np.hypot(rows - 24, np.arange(50) - 25) < 5
    sums = sums_of(image, [[24.0, 25.0]])
    assert sums.counts[0] == pytest.approx(7 * inside.sum(), rel=1e-3)
    assert sums.top[0] == pytest.approx(1 / inside.sum(), rel=0.1)
    assert sums.background[0] == pytest.approx(2 + 0.05 * 24, rel=1e-3)
    assert sums.visible[0] == 1


def test_neighbours_do_not_count_as_background() -> None:
    """Two disks whose rings overlap keep their counts."""
    centres = [[25.0, 20.0], [25.0, 33.0]]
    image = sum(4 * disk((50, 55), (c[0], c[1]), 5.0, 0.1) for c in centres)
    alone = sums_of(4 * disk((50, 55), (25.0, 20.0), 5.0, 0.1), centres[:1]).counts[0]
    np.testing.assert_allclose(sums_of(image, centres).counts, [alone, alone])


def test_a_crowded_ring_falls_back_to_its_low_quantile() -> None:
    """A disk surrounded by others on all sides still gets the background between them."""
    around = [(25 + 12 * np.cos(a), 25 + 12 * np.sin(a)) for a in np.arange(6) * np.pi / 3]
    centres = [(25.0, 25.0), *around]
    image = 1 + sum(4 * disk((51, 51), (c[0], c[1]), 5.0, 0.1) for c in centres)
    inside = np.hypot(*(np.indices((51, 51)) - 25)) < 5
    assert sums_of(image, centres).counts[0] == pytest.approx(4 * inside.sum(), rel=0.02)


def test_one_hot_pixel_has_the_whole_share() -> None:
    """The share of the largest pixel tells a hot pixel from a disk."""
    image = np.zeros((40, 40))
    image[20, 20] = 500
    assert sums_of(image, [[20.0, 21.0]]).top[0] == pytest.approx(1.0)


def test_a_hidden_part_is_made_up_for() -> None:
    """Of a disk under a stop the visible part stands for the whole; what lies under the stop has no say."""
    image = 2.0 + 7 * disk((50, 50), (24.0, 25.0), 5.0, 0.1)
    hidden = np.zeros((50, 50), np.bool_)
    hidden[:, 27:] = True
    whole = sums_of(image, [[24.0, 25.0]])
    part = sums_of(np.where(hidden, 1e6, image), [[24.0, 25.0]], hidden)
    assert part.counts[0] == pytest.approx(whole.counts[0], rel=1e-3)
    assert part.background[0] == pytest.approx(2.0)
    assert 0.5 < part.visible[0] < 0.8


def test_disks_off_the_frame_have_no_counts() -> None:
    """A centre far outside gives zeros and no share, not an error."""
    sums = sums_of(np.ones((30, 30)), [[-90.0, 12.0]])
    assert sums.counts[0] == 0
    assert sums.top[0] == np.inf


@pytest.mark.parametrize(("counts", "level"), [(300.0, 0.05), (5000.0, 1.0)])
def test_precision_is_near_the_exact_bound(counts: float, level: float) -> None:
    """The closed form agrees with the bound summed over pixels to 10 %."""
    one = np.ones(1)
    sums = Sums(counts * one, 0 * one, level * one, 200 * one, one)
    found = precision(sums, 0.0, 1.0, 8.0, 2.0)[0]
    assert found == pytest.approx(position_limit(8.0, 2.0, counts, level), rel=0.1)


def test_precision_counts_electrons() -> None:
    """Counts in other units, with their quantum, give the same precision; half of the disk the root of two more."""
    one = np.ones(1)
    plain = precision(Sums(300 * one, 0 * one, 0.2 * one, 200 * one, one), 0.0, 1.0, 8.0, 2.0)[0]
    gained = precision(Sums(12000 * one, 0 * one, 3 * one, 200 * one, one), 5.0, 40.0, 8.0, 2.0)[0]
    half = precision(Sums(300 * one, 0 * one, 0.2 * one, 200 * one, 0.5 * one), 0.0, 1.0, 8.0, 2.0)[0]
    assert gained == pytest.approx(plain)
    assert half == pytest.approx(plain * math.sqrt(2))


def test_precision_stays_within_limits() -> None:
    """No disk is known better than 0.02 px or worse than its radius, without noise and without counts."""
    one = np.ones(1)
    assert precision(Sums(1e9 * one, 0 * one, 0 * one, one, one), 0.0, 1.0, 8.0, 2.0)[0] == 0.02
    assert precision(Sums(-3 * one, 0 * one, 0 * one, one, one), 0.0, 1.0, 8.0, 2.0)[0] == 8.0
    assert precision(Sums(10 * one, 0 * one, 0 * one, one, one), 0.0, 0.0, 8.0, 2.0)[0] == 0.02
