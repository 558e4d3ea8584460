"""Corrections of frames against the formula, and histograms against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.kernels.counting_corrections import correct, row_histogram, value_histogram

ROWS = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)


@settings(deadline=None, max_examples=100)
@given(
    shape=ROWS,
    dtype=st.sampled_from(["u1", "u2", "i2", "u4", "i8", "f4", "f8"]),
    spread=st.sampled_from([1, 6, 120]),
    level=st.sampled_from([0, 20, 250]),
    row_dark=st.sampled_from(["none", "mean", "median"]),
    pedestal=st.sampled_from([0.5, 20.5, 251.0]),
)
def test_values_are_those_of_the_formula(shape, dtype, spread, level, row_dark, pedestal):
    """(raw - dark) x pedestal / level of the half row x gain, for any type, value and width."""
    rng = np.random.default_rng(spread + level)
    info = np.iinfo(dtype) if dtype[0] != "f" else np.finfo(dtype)
    frames = rng.integers(max(level - spread, info.min), min(level + spread, info.max), shape, endpoint=True)
    frames = frames.astype(dtype)
    dark, gain = rng.normal(0, 3, shape[1:]), rng.uniform(0.5, 2, shape[1:])
    out = np.empty(shape)
    levelless = correct(frames, out, dark, gain, row_dark=row_dark, pedestal=pedestal)
    factor, flagged = np.ones(shape), np.zeros(shape[0], int)
    for part in (slice(0, shape[2] // 2), slice(shape[2] // 2, None)):
        half = frames[:, :, part].astype(float)
        if row_dark == "none" or half.shape[2] == 0:
            continue
        found = (np.mean if row_dark == "mean" else np.median)(half, axis=2)
        factor[:, :, part] = np.where(found > 0, pedestal / np.where(found > 0, found, 1), 1)[..., None]
        flagged += (found <= 0).sum(axis=1)
    np.testing.assert_allclose(out, (frames.astype(float) - dark) * factor * gain, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(levelless, flagged)


def test_absent_pixels_stay_absent():
    """NaN in a reference, or in a half row, ends as NaN where it is and changes nothing else."""
    frames = np.full((1, 2, 8), 10, np.float32)
    frames[0, 0, 1] = np.nan
    gain = np.ones((2, 8))
    gain[1, 6] = np.nan
    out = np.empty((1, 2, 8))
    levelless = correct(frames, out, np.zeros((2, 8)), gain, row_dark="mean", pedestal=20.0)
    assert levelless.tolist() == [1]
    assert np.isnan(out).sum() == 2
    np.testing.assert_array_equal(out[0, 0, [0, 2, 3, 4]], [10, 10, 10, 20])


@pytest.mark.parametrize("width", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
def test_value_histogram(dtype, width):
    """Every region has its own histogram; ends take what is beyond, NaN is left out."""
    frames = np.random.default_rng(0).integers(0, 40, (3, 6, 10)).astype(dtype)
    grid = np.array([0, 4, 10]), np.array([[0, 1]] * 3 + [[2, 2]] * 3)
    out = np.zeros((3, 15), np.int64)
    if dtype is np.float64:
        frames[0, 0, 0] = np.nan
    value_histogram(frames, grid, (10.0, width), out)
    plain = frames.astype(float)
    parts = [plain[:, :3, :4], plain[:, :3, 4:], plain[:, 3:]]
    for part, found in zip(parts, out, strict=True):
        places = np.floor((part[~np.isnan(part)] - 10) / width + 0.5).clip(0, 14).astype(int)
        np.testing.assert_array_equal(found, np.bincount(places, minlength=15))


def test_row_histogram():
    """Frame i shows row i modulo rows of every band; other frames, rows and values are left out."""
    frames = np.random.default_rng(1).integers(5, 30, (7, 6, 10)).astype(np.uint16)
    frames[4] = 9
    bands = np.array([[0, 2, 0, 10], [2, 6, 0, 4]])
    seen = np.array([True] * 6 + [False])
    out = np.zeros((2, 12), np.int64)
    constant = row_histogram(frames, (11, 8), seen, bands, out)
    expected = np.zeros((2, 12), int)
    for number in range(6):
        for band, (first, end, left, right) in enumerate(bands):
            values = frames[number, first + (11 + number) % (end - first), left:right].astype(int) - 8
            expected[band] += np.bincount(values[(values >= 0) & (values < 12)], minlength=12)
    np.testing.assert_array_equal(out, expected)
    assert constant.tolist() == [number == 4 for number in range(7)]
