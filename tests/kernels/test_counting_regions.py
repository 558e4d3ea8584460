"""Thresholds per region, dark references folded into them, dead pixels; and stempy's rule on many frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.errors import InputError
from stemstore.kernels.counting import Limits, count_frames, fold_dark

RULES = ("stemstore", "stempy")
AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


def neighbours(frames):
    """Give the frames moved by one pixel in each of eight directions, earlier ones first; NaN where there is none."""
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    rows, columns = frames.shape[1:]
    return [padded[:, 1 + i : 1 + i + rows, 1 + j : 1 + j + columns] for i, j in AROUND]


def restated(frames, low, high, rule):
    """Apply the rules to whole stacks of real numbers; NaN is an absent pixel, limits are images."""
    low, high = np.broadcast_to(low, frames.shape), np.broadcast_to(high, frames.shape)
    inside = (low < frames) & (frames < high)
    if rule == "stempy":
        level = np.where(np.isnan(frames), np.nan, np.where(inside, frames, 0))
        return inside & ~np.any([frames <= other for other in neighbours(level)], axis=0)
    seen = neighbours(frames)
    beaten = np.any([frames <= other for other in seen[:4]] + [frames < other for other in seen[4:]], axis=0)
    xray = np.any([other == 1 for other in neighbours((frames >= high).astype(float))], axis=0)
    return inside & ~beaten & ~xray


def as_lists(mask):
    """Events of a stack as the kernel gives them."""
    flat = mask.reshape(len(mask), -1)
    return np.concatenate([[0], np.cumsum(flat.sum(1))]), np.nonzero(flat)[1]


def check(found, mask):
    """Compare pointers and indices."""
    for one, other in zip(found[:2], as_lists(mask), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(9, 13), (1, 17), (6, 6), (5, 70)])
def test_ten_thousand_random_frames(rule, shape):
    """Ties, borders, X-rays and values at the limits: the events are those of the definition, frame by frame."""
    rng = np.random.default_rng(shape)
    frames = rng.choice(np.array([0, 20, 28, 29, 30, 31, 60, 399, 400, 4095], np.uint16), (10_000, *shape))
    found = count_frames(frames, 28.6, 400.0, rule)
    assert found[0][-1] > 10_000
    check(found, restated(frames.astype(float), 28.6, 400.0, rule))


@settings(deadline=None, max_examples=80)
@given(
    frames=hnp.arrays(np.uint16, (2, 6, 9), elements=st.sampled_from([0, 3, 5, 19, 20, 21, 30, 90, 65534, 65535])),
    dark=hnp.arrays(np.float64, (6, 9), elements=st.sampled_from([-70.0, -3, 0, 2, 20, 21, 60, 70000])),
    dead=hnp.arrays(np.bool_, (6, 9), elements=st.sampled_from([False, False, False, True])),
    low=st.sampled_from([-30.0, -0.5, 0.0, 4.5, 80.0]),
    rule=st.sampled_from(RULES),
)
def test_dark_is_subtracted_with_its_sign(frames, dark, dead, low, rule):
    """Differences below zero do not wrap around, whatever the dark; dead pixels are neither events nor neighbours."""
    limits = Limits.make((6, 9), frames.dtype, low, 85.0, rule, offset=fold_dark(dark, dead, (6, 9)))
    values = np.where(dead, np.nan, frames - dark)
    if rule == "stemstore":  # a pixel at full scale is an X-ray, whatever is subtracted from it
        values[(frames == 65535) & ~dead] = 1e9
    check(limits.count(frames), restated(values, low, 85.0, rule))


@settings(deadline=None, max_examples=80)
@given(
    frames=hnp.arrays(np.int32, (2, 4, 140), elements=st.integers(-3, 9)),
    low=hnp.arrays(np.float64, (4, 3), elements=st.sampled_from([-9.0, 0.0, 2.0, 4.0, np.inf])),
    high=hnp.arrays(np.float64, (4, 3), elements=st.sampled_from([-np.inf, 6.0, 7.5, np.inf])),
    rule=st.sampled_from(RULES),
    dtype=st.sampled_from([np.int32, np.float32]),
)
def test_every_region_has_its_limits(frames, low, high, rule, dtype):
    """Cuts change along rows and columns; an X-ray is one by the limit of its own region."""
    bounds = [0, 5, 80, 140]
    limits = Limits.make((4, 140), np.dtype(dtype), low, high, rule, bounds=bounds)
    images = [np.repeat(values, np.diff(bounds), axis=1) for values in (low, high)]
    check(limits.count(frames.astype(dtype)), restated(frames.astype(float), *images, rule))


def test_tallies():
    """Every frame tells how many pixels lay between the limits and above them."""
    frames = np.zeros((2, 5, 5), np.uint16)
    frames[1, 1, 1:4] = 50, 60, 500
    _, _, tallies = Limits.make((5, 5), frames.dtype, 20, 400, "stemstore").count(frames)
    assert tallies.tolist() == [[0, 0], [2, 1]]


def test_limits_are_for_their_frames():
    """Frames of another type or shape are refused."""
    limits = Limits.make((5, 5), np.dtype(np.uint16), 20, 400, "stemstore")
    with pytest.raises(InputError, match=r"the limits are for \(5, 5\) of uint16"):
        limits.count(np.zeros((1, 5, 5), np.uint8))
    with pytest.raises(InputError, match="an X-ray threshold has shape"):
        Limits.make((5, 5), np.dtype(np.uint16), 20, np.zeros((5, 2)), "stemstore")
