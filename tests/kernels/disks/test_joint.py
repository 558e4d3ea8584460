"""Disks that touch or overlap, and disks behind a stop: no pull, whatever the neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.kernels.disks.bank import Bank, make_bank, reach_of
from stemstore.kernels.disks.joint import joint_step, separate
from stemstore.kernels.disks.likelihood import refine
from stemstore.kernels.disks.probe import Template

TEMPLATE = Template(6.0, 2.0)
HALF = reach_of(TEMPLATE)
SIDE = 64


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Give the tables of the template."""
    return make_bank(TEMPLATE, None)


def overlapping(centres: object, heights: object, level: float = 0.4) -> np.ndarray:
    """Draw disks on an even background."""
    parts = zip(np.array(centres, float), np.array(heights, float), strict=True)
    return level + sum(h * TEMPLATE.draw((SIDE, SIDE), (c[0], c[1])) for c, h in parts)


def climb(frame: np.ndarray, starts: np.ndarray, heights: object, bank: Bank, level: float = 0.4) -> np.ndarray:
    """Refine starts on a wholly visible frame."""
    image = np.pad(frame, HALF).astype(np.float32)
    visible = np.ones(image.shape, np.bool_), np.zeros(frame.shape, np.bool_)
    n = len(starts)
    below = np.full(n, level), np.zeros((n, 2))
    return refine(image, visible, starts, np.array(heights, float), below, 0.0, bank)


@pytest.mark.parametrize("spacing", [9.5, 11.0, 12.6, 14.0])
@pytest.mark.parametrize("second", [20.0, 4.0])
def test_touching_disks_do_not_pull_each_other(bank: Bank, spacing: float, second: float) -> None:
    """From starts a pixel off, disks that overlap or touch are found to 0.05 px, weak ones beside strong ones, too."""
    centres = np.array([[30.3, 25.2], [30.3, 25.2 + spacing]])
    starts = centres + np.array([[0.8, 0.6], [-0.5, -0.9]])
    found = climb(overlapping(centres, [20.0, second]), starts, [17.0, second * 1.3], bank)
    np.testing.assert_allclose(found, centres, atol=0.05)


def test_a_crowd_is_told_apart(bank: Bank) -> None:
    """Seven disks that touch on all sides are placed, from counted electrons, almost as well as single ones."""
    around = np.array([[np.cos(a), np.sin(a)] for a in np.arange(6) * np.pi / 3])
    centres = np.concatenate(([[32.2, 31.7]], [32.2, 31.7] + 12.4 * around))
    heights, rng, errors = [30.0, *[8.0] * 6], np.random.default_rng(2), []
    for _ in range(40):
        frame = rng.poisson(overlapping(centres, heights))
        errors.append(climb(frame, centres + rng.uniform(-0.7, 0.7, centres.shape), heights, bank) - centres)
    assert np.sqrt(np.mean(np.square(errors))) < 0.12
    assert np.abs(np.mean(errors, axis=0)).max() < 0.06


def test_disks_that_do_not_touch_are_left_alone(bank: Bank) -> None:
    """Beyond the width of the tables nothing is refined again."""
    image = np.pad(overlapping([[20.0, 20.0], [20.0, 42.0]], [9.0, 9.0]), HALF).astype(np.float32)
    starts, places = np.array([[20.0, 20.0], [20.0, 42.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    good = np.ones(image.shape, np.bool_)
    separate(image, good, places, starts, np.full(2, 9.0), (np.full(2, 0.4), 0.0), bank)
    assert places.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_position_and_height_are_scored_together(bank: Bank) -> None:
    """One step from the truth changes nothing; from a wrong height it corrects the height."""
    image = np.pad(overlapping([[30.0, 30.0]], [9.0]), HALF).astype(np.float32)
    good, alone = np.ones(image.shape, np.bool_), np.zeros((2 * HALF + 1, 2 * HALF + 1))
    middle = bank.shape.shape[0] // 2
    tables = bank.psi[2, middle, middle], bank.shape[middle, middle]
    for height in (9.0, 6.0):
        step = joint_step(image, good, (30, 30), tables, (0.4, height, 10.0), alone)
        np.testing.assert_allclose(step, (0.0, 0.0, 9.0 - height), atol=0.01)


def test_nothing_visible_moves_nothing(bank: Bank) -> None:
    """A window without good pixels gives no step."""
    image, good = np.ones((40, 40), np.float32), np.zeros((40, 40), np.bool_)
    alone = np.zeros((2 * HALF + 1, 2 * HALF + 1))
    step = joint_step(image, good, (3, 3), (bank.psi[0, 0, 0], bank.shape[0, 0]), (0.0, 1.0, 1.0), alone)
    assert step == (0.0, 0.0, 0.0)
