"""The maximum of the likelihood: on noise-free disks it is the truth, on counted ones nearly as good as can be."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.kernels.disks.bank import CONTRASTS, Bank, make_bank, reach_of
from stemstore.kernels.disks.likelihood import refine
from stemstore.kernels.disks.probe import Template, position_limit, template_of

TEMPLATE = Template(6.0, 2.0)
HALF = reach_of(TEMPLATE)
SIDE = 48


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Give the tables of the template."""
    return make_bank(TEMPLATE, None)


def climb(
    frame: np.ndarray, starts: object, bank: Bank, height: float, below: float, hidden: np.ndarray | None = None
) -> np.ndarray:
    """Refine starts on a frame."""
    good = np.pad(np.ones(frame.shape, np.bool_) if hidden is None else ~hidden, HALF)
    image = np.pad(frame, HALF).astype(np.float32)
    image[~good] = 0
    windows = np.lib.stride_tricks.sliding_window_view(good, (2 * HALF + 1, 2 * HALF + 1))
    partial = ~windows.all(axis=(2, 3))
    places = np.array(starts, dtype=np.float64)
    n = len(places)
    return refine(image, (good, partial), places, np.full(n, height), (np.full(n, below), np.zeros((n, 2))), 0.0, bank)


@pytest.mark.parametrize("contrast", [1.0, 4.0, 20.0, 500.0])
@pytest.mark.parametrize("centre", [(24.0, 24.0), (23.63, 24.41), (24.5, 23.125)])
def test_without_noise_the_maximum_is_the_truth(bank: Bank, centre: tuple[float, float], contrast: float) -> None:
    """From starts two pixels off, a disk on any background is found to 0.01 px, on and off the grid of the tables."""
    frame = contrast * TEMPLATE.draw((SIDE, SIDE), centre) + 1.0
    starts = [[centre[0] + dy, centre[1] + dx] for dy, dx in ((0, 0), (2, -1), (-1.4, 1.4))]
    found = [climb(frame, [start], bank, contrast, 1.0)[0] for start in starts]
    np.testing.assert_allclose(found, [centre] * 3, atol=0.01)


def test_counted_disks_come_close_to_the_bound(bank: Bank) -> None:
    """Over 400 frames of 800 electrons the error is within 10 % of the Cramér-Rao bound; without bias."""
    rng, height, level = np.random.default_rng(5), 7.0, 0.3
    errors = []
    for _ in range(400):
        centre = 24 + rng.uniform(-0.5, 0.5, 2)
        frame = rng.poisson(height * TEMPLATE.draw((SIDE, SIDE), (centre[0], centre[1])) + level)
        errors.append(climb(frame, [[24.0, 24.0]], bank, height, level)[0] - centre)
    limit = position_limit(6.0, 2.0, height * TEMPLATE.draw((SIDE, SIDE), (24.0, 24.0)).sum(), level)
    assert np.sqrt(np.mean(np.square(errors))) < 1.1 * limit
    assert np.abs(np.mean(errors, axis=0)).max() < 3 * limit / 20


@pytest.mark.parametrize("cut", [20, 24, 27])
def test_a_partly_hidden_disk_stays_where_it_is(bank: Bank, cut: int) -> None:
    """A beam stop over a part of the disk does not pull the position, whatever the pixels under it hold."""
    frame = 9 * TEMPLATE.draw((SIDE, SIDE), (23.7, 24.2)) + 0.5
    hidden = np.zeros((SIDE, SIDE), np.bool_)
    hidden[:, cut:] = True
    frame[hidden] = -50
    found = climb(frame, [[24.5, 23.6]], bank, 9.0, 0.5, hidden)
    np.testing.assert_allclose(found, [[23.7, 24.2]], atol=0.01)


def test_a_disk_over_the_border_stays_where_it_is(bank: Bank) -> None:
    """Half beyond the frame a disk keeps its position."""
    frame = 9 * TEMPLATE.draw((SIDE, SIDE), (1.3, 24.2)) + 0.5
    np.testing.assert_allclose(climb(frame, [[1.0, 24.0]], bank, 9.0, 0.5), [[1.3, 24.2]], atol=0.01)


def test_a_start_without_a_disk_does_not_wander_off(bank: Bank) -> None:
    """Where the climb leads away, to another disk or off the frame, the start is given back."""
    frame = 9 * TEMPLATE.draw((SIDE, SIDE), (24.0, 36.0))
    found = climb(frame, [[24.0, 22.6], [1.0, 1.0]], bank, 9.0, 0.1)
    assert np.abs(found - [[24.0, 22.6], [1.0, 1.0]]).max() <= HALF
    falling = np.linspace(90, 0, SIDE)[:, None] * np.ones((SIDE, SIDE))
    assert climb(falling, [[3.0, 24.0]], bank, 1.0, 0.1)[0, 0] >= 3.0 - HALF


def test_fixed_contrast_makes_one_table() -> None:
    """A contrast that is asked for is the only one; the tables of a large disk have fewer displacements."""
    assert make_bank(TEMPLATE, 7.0).contrast.tolist() == [7.0]
    assert make_bank(TEMPLATE, None).contrast.tolist() == list(CONTRASTS)
    assert make_bank(TEMPLATE, 7.0).shape.shape[0] == 4
    assert make_bank(Template(17.0, 2.0), 7.0).shape.shape[0] == 2


def test_information_is_that_of_the_closed_form(bank: Bank) -> None:
    """H / c^2 tends to pi r ln(1 + c) / (w c), that of a thin edge, half a pixel wider."""
    template = Template(15.0, 4.0)
    for c, information in zip(CONTRASTS, make_bank(template, None).information, strict=True):
        closed = np.pi * 15 / 4.5 * np.log1p(c) / c
        assert information == pytest.approx(closed, rel=0.2)


def test_a_measured_probe_has_the_tables_of_its_shape() -> None:
    """The tables of a probe cut out of an image refine disks like it."""
    template = template_of(200 * TEMPLATE.draw((60, 60), (30.3, 29.4)) + 3)
    frame = 5 * TEMPLATE.draw((SIDE, SIDE), (23.7, 24.2)) + 0.5
    half = reach_of(template)
    good = np.ones((SIDE + 2 * half, SIDE + 2 * half), np.bool_)
    whole = np.zeros((SIDE, SIDE), np.bool_)
    image = np.pad(frame, half).astype(np.float32)
    tables = make_bank(template, None)
    below = np.full(1, 0.5), np.zeros((1, 2))
    found = refine(image, (good, whole), np.array([[24.4, 23.5]]), np.full(1, 5.0), below, 0.0, tables)
    np.testing.assert_allclose(found, [[23.7, 24.2]], atol=0.02)


def test_a_known_slope_is_taken_out(bank: Bank) -> None:
    """A rising background pulls a disk uphill, by the formula that is stated, and not once its slope is known."""
    rows, columns = np.indices((SIDE, SIDE)) - 24.0
    frame = 20 * TEMPLATE.draw((SIDE, SIDE), (24.1, 23.8)) + 40 + 0.5 * rows - 0.8 * columns
    image = np.pad(frame, HALF).astype(np.float32)
    visible = np.ones(image.shape, np.bool_), np.zeros(frame.shape, np.bool_)
    start, height, level = np.array([[24.0, 24.0]]), np.full(1, 20.0), np.full(1, 40.0)
    found = [
        refine(image, visible, start, height, (level, np.array([slope])), 0.0, bank)[0] - (24.1, 23.8)
        for slope in ((0.0, 0.0), (0.5, -0.8))
    ]
    np.testing.assert_allclose(found[0], np.array([0.5, -0.8]) * 6 * 2.5 / 20, rtol=0.2)
    np.testing.assert_allclose(found[1], [0, 0], atol=0.02)
