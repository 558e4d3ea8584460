"""Visible shares of disks, bins and kernels."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.kernels.disks.plan import DiskPlan, plan_disks

RADIUS = 6.0


def plan(bad: np.ndarray | None = None, **options: object) -> DiskPlan:
    """Plan disks on 61 x 70 pixels."""
    return plan_disks((61, 70), radius=RADIUS, bad_pixels=bad, **options)  # type: ignore[arg-type] # any option


def test_a_whole_detector_needs_no_gains() -> None:
    """Without bad pixels and with the border left out, everything at least a radius inside is visible."""
    seen = plan().visibility
    assert seen.gains is None
    assert seen.share[8:-8, 8:-8] == pytest.approx(1.0, abs=1e-6)
    assert seen.share[30, 0] == pytest.approx(0.5, abs=0.1)
    assert seen.share[0, 0] == pytest.approx(0.25, abs=0.1)


def test_windows_with_hidden_pixels_are_marked() -> None:
    """Around a bad pixel and at the border the likelihood looks at what is visible; elsewhere it need not."""
    bad = np.zeros((61, 70), np.bool_)
    bad[30, 40] = True
    seen = plan(bad).visibility
    margin = seen.margin
    expected = np.ones((61, 70), np.bool_)
    expected[margin : 61 - margin, margin : 70 - margin] = False
    expected[30 - margin : 31 + margin, 40 - margin : 41 + margin] = True
    np.testing.assert_array_equal(seen.partial, expected)
    assert seen.good.shape == (61 + 2 * margin, 70 + 2 * margin)
    assert seen.good.sum() == 61 * 70 - 1


def test_bins_know_their_visible_share() -> None:
    """A bin with one bad pixel of four has 3/4, those that end beyond the frame have a half."""
    bad = np.zeros((61, 70), np.bool_)
    bad[30, 41] = True
    bins = plan(bad, binning=2).visibility.bins
    assert bins.shape == (31, 35)
    assert bins[15, 20] == 0.75
    assert bins[30, 20] == 0.5
    assert bins[:30].sum() == 30 * 35 - 0.25


def test_gains_make_up_for_what_is_hidden() -> None:
    """A beam stop over half of the disk doubles what is left, times the root of a half; far away nothing changes."""
    bad = np.zeros((61, 70), np.bool_)
    bad[:, 50:] = True
    gains = plan(bad).visibility.gains
    assert gains is not None
    assert (gains[0, 30, 49] + gains[0, 30, 50]) / 2 == pytest.approx(np.sqrt(2.0), rel=0.05)
    assert gains[:, 30, 25] == pytest.approx([1.0, 1.0], abs=1e-4)
