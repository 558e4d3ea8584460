"""Energy and place of events: vectors by hand, the definition restated, and blobs whose centre is known."""

import math

import numpy as np
import pytest

from stemstore.kernels.counting import Limits, fold_dark
from stemstore.kernels.event_columns import measure_events, over_slots
from stemstore.kernels.gaps import encode

RULES = ("stemstore", "stempy")


def measured(frames, mean, level, *, background=30.0, xray=400.0, rule="stemstore", **limits):
    """Count frames and measure their events; gives indices, energies and offsets in pixels."""
    limits = Limits.make(frames.shape[1:], frames.dtype, background, xray, rule, **limits)
    indptr, indices, _ = limits.count(frames)
    shape = limits.low.shape
    levels = np.broadcast_to(np.float64(mean), shape), np.broadcast_to(np.float64(level), shape)
    energy, offsets = measure_events(frames, indptr, indices, limits, levels)
    return indices.tolist(), energy, offsets / 128


def restated(frames, indptr, indices, mean, level, xray):
    """Measure events from the definition, over frames with a border of absent pixels; `mean` and `level` are images."""
    border = ((1, 1), (1, 1))
    mean, level = (np.pad(image, border, constant_values=0) for image in (mean, level))
    found = []
    for f, frame in enumerate(frames):
        padded = np.pad(frame.astype(float), border, constant_values=np.nan)
        for index in indices[indptr[f] : indptr[f + 1]].tolist():
            r, c = divmod(index, frame.shape[1])
            box = np.s_[r : r + 3, c : c + 3]
            used = (padded[box] > level[box]) & (padded[box] < xray)
            weight = np.where(used, padded[box] - mean[box], 0)
            total = weight.sum()
            found.append(
                (total, (weight.sum(1) * [-1, 0, 1]).sum() / total, (weight.sum(0) * [-1, 0, 1]).sum() / total)
            )
    return np.array(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("rule", RULES)
def test_box_by_hand(dtype, rule):
    """The charge above the level is summed, the pedestal subtracted, and the centroid is that of the charge."""
    frame = np.full((1, 5, 6), 10, dtype)
    frame[0, 2, 2], frame[0, 2, 3], frame[0, 1, 2] = 110, 60, 35
    frame[0, 3, 3] = 12  # not above the level
    indices, energy, offsets = measured(frame, 10, 12, xray=200.0, rule=rule)
    assert indices == [2 * 6 + 2]
    assert energy.tolist() == [100 + 50 + 25]
    assert offsets.tolist() == [[-np.rint(25 / 175 * 128) / 128, np.rint(50 / 175 * 128) / 128]]


def test_single_pixels_at_corners_have_no_offset():
    """An event alone is in the middle of its pixel, also where its box leaves the detector."""
    frame = np.zeros((1, 4, 4), np.uint16)
    frame[0, [0, 0, 3, 3], [0, 3, 0, 3]] = 50
    indices, energy, offsets = measured(frame, 0, 0)
    assert (indices, energy.tolist()) == ([0, 3, 12, 15], [50] * 4)
    assert not offsets.any()


def test_xrays_take_no_part():
    """Beside an X-ray, where only the rule of stempy has an event, its charge is left out."""
    frame = np.zeros((1, 3, 3), np.uint16)
    frame[0, 1, 1], frame[0, 1, 2] = 60, 500
    assert measured(frame, 0, 0)[0] == []
    indices, energy, offsets = measured(frame, 0, 0, rule="stempy")
    assert (indices, energy.tolist(), offsets.tolist()) == ([4], [60], [[0, 0]])


def test_events_below_the_level_have_no_energy():
    """With a background threshold below the level an event may have no charge above it: 0, in the middle."""
    frame = np.full((1, 3, 3), 10, np.uint16)
    frame[0, 1, 1] = 12
    assert measured(frame, 10, 14, background=11.0)[1:] == (pytest.approx([0]), pytest.approx(np.zeros((1, 2))))


def test_dark_and_dead_pixels():
    """A folded dark is subtracted without wrapping around, and dead pixels have no charge."""
    frame = np.full((1, 3, 4), 20, np.uint16)
    frame[0, 1] = [20, 90, 70, 20]
    dark, dead = np.full((3, 4), 21.0), np.zeros((3, 4), bool)
    offset = fold_dark(dark, dead, (3, 4))
    assert measured(frame, -1, 3, offset=offset)[1].tolist() == [70 + 50]
    dead[1, 2] = True
    assert measured(frame, -1, 3, offset=fold_dark(dark, dead, (3, 4)))[1].tolist() == [70]


@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
@pytest.mark.parametrize("rule", RULES)
def test_random_frames_against_the_definition(dtype, rule):
    """Crowded frames in two regions with pedestals of their own, and lost pixels where the type has them."""
    rng = np.random.default_rng(2)
    electrons = rng.choice([0, 40, 90, 600], (30, 17, 20), p=[0.8, 0.1, 0.09, 0.01])
    frames = np.rint(rng.normal(20, 2, electrons.shape) + electrons)
    if dtype is np.float64:
        frames[rng.random(frames.shape) < 0.02] = np.nan
    frames = frames.astype(dtype)
    mean, level = np.full((17, 2), 20.25), np.full((17, 2), 24.5)
    mean[:, 1], level[:, 1] = 18.5, 23.0
    limits = Limits.make((17, 20), frames.dtype, 30.0, 400.0, rule, bounds=np.array([0, 9, 20]))
    indptr, indices, _ = limits.count(frames)
    energy, offsets = measure_events(frames, indptr, indices, limits, (mean, level))
    images = [np.repeat(image, [9, 11], axis=1) for image in (mean, level)]
    expected = restated(frames, indptr, indices, *images, 400.0)
    assert len(expected) > 500
    np.testing.assert_allclose(energy, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(offsets / 128, expected[:, 1:], atol=0.5 / 128 + 1e-9)


def blob(y, x, sigma, shape=(9, 9)):
    """Integrate a Gaussian over pixels."""

    def part(at, n):
        edges = (np.arange(n + 1) - 0.5 - at) / sigma / math.sqrt(2)
        return np.diff([math.erf(edge) for edge in edges]) / 2

    return np.outer(part(y, shape[0]), part(x, shape[1]))


def test_centroid_of_shifted_blobs():
    """The centroid follows the shift, odd about the middle and monotonic; it is short of it by its tails."""
    shifts = np.linspace(-0.48, 0.48, 25)
    frames = np.stack([5000 * blob(4 + shift, 4, 0.6) for shift in shifts])
    indices, energy, offsets = measured(frames, 0, 1e-9, xray=1e4)
    assert indices == [4 * 9 + 4] * 25
    found = offsets[:, 0]
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -found[::-1], atol=1 / 128)
    np.testing.assert_allclose(found, 0.87 * shifts, atol=0.02)  # the tails outside of the box are missing
    assert np.abs(offsets[:, 1]).max() == 0
    assert (energy > 4700).all()


def test_single_electrons_in_noise_are_unbiased():
    """Places of blobs anywhere in a pixel, in noise: no bias, and an error far below that of the pixel alone."""
    rng = np.random.default_rng(5)
    places = 4 + rng.uniform(-0.5, 0.5, (3000, 2))
    frames = np.stack([1200 * blob(y, x, 0.6) for y, x in places]) + rng.normal(20, 2, (3000, 9, 9))
    frames = np.rint(frames).astype(np.uint16)
    limits = Limits.make((9, 9), frames.dtype, 60.0, None, "stemstore")
    indptr, indices, _ = limits.count(frames)
    _, offsets = measure_events(frames, indptr, indices, limits, (np.full((9, 1), 20.0), np.full((9, 1), 24.0)))
    pixel = np.stack(np.divmod(indices.astype(float), 9), axis=1)
    truth = np.repeat(places, np.diff(indptr), axis=0)
    error, without = pixel + offsets / 128 - truth, pixel - truth
    assert len(indices) == 3000
    assert np.abs(error.mean(axis=0)).max() < 0.005
    assert error.std(axis=0).max() < 0.07
    assert without.std(axis=0).min() > 0.28


def test_values_over_slots():
    """Escapes hold 0; without any the values are the slots."""
    gap, _ = encode(np.array([0, 2, 3]), np.array([5, 70000, 140000], np.uint32))
    assert gap.tolist() == [5, 65535, 4460, 65535, 65535, 8930]
    assert over_slots(gap, np.array([1, 2, 3], np.int8)).tolist() == [1, 0, 2, 0, 0, 3]
    same = np.array([4.0], np.float32)
    assert over_slots(np.array([9], np.uint16), same) is same
