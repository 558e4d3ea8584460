"""Corrections as arguments give what correcting every frame first would give, on every road and for every operation."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

SHAPE = (3, 4, 6, 7)
DTYPES = ["u1", "u2", "u4", "i2", "i4", "f4"]


def by_hand(frames, dark=None, gain=None, bad_pixels=None, mask=None):
    """Correct frames one pixel after the other."""
    out = frames.astype(float)
    if dark is not None:
        out = out - dark
    if gain is not None:
        out = out * gain
    if bad_pixels is not None:
        whole = out.copy()
        rows, columns = bad_pixels.shape
        for r, c in np.argwhere(bad_pixels):
            near = [
                whole[..., i, j]
                for i in range(max(0, r - 1), min(rows, r + 2))
                for j in range(max(0, c - 1), min(columns, c + 2))
                if not bad_pixels[i, j]
            ]
            out[..., r, c] = np.mean(near, axis=0)
    return out if mask is None else out * mask


def made(rng, which, shape=SHAPE[2:]):
    """Some corrections of a detector."""
    bad = np.zeros(shape, bool)
    bad[1, 2] = bad[0, 0] = bad[4, 5] = bad[1, 3] = True
    every = {
        "dark": rng.normal(3, 1, shape),
        "gain": rng.uniform(0.5, 2, shape),
        "bad_pixels": bad,
        "mask": rng.random(shape) > 0.2,
    }
    return {name: every[name] for name in which}


choices = st.lists(st.sampled_from(["dark", "gain", "bad_pixels", "mask"]), unique=True, min_size=1)


def lazily(source):
    """Open a source in memory."""
    return build(scan_source(source), [], Acquisition(), Calibration(), "memory", flyback=False)


@settings(max_examples=40)
@given(choices, st.sampled_from(DTYPES), st.integers(0, 2**32 - 1), st.booleans())
def test_linear_operations_equal_those_of_corrected_frames(which, dtype, seed, lazy):
    """Images, moments and mean patterns of raw frames with corrections are those of frames corrected by hand."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 100, SHAPE).astype(dtype)
    options, weights = made(rng, which), rng.normal(size=SHAPE[2:])
    options.get("mask", np.ones((4, 4)))[2:4, 2:4] = True
    scan = lazily(ArrayFrames(frames)) if lazy else xr.DataArray(frames, dims=("y", "x", "ky", "kx"))
    expected = by_hand(frames, **options)
    detectors = {"disk": np.hypot(*(np.indices(SHAPE[2:]) - 3.0)) < 3, "real": weights, "complex": weights * 1j}
    images = stemstore.virtual_image(scan, detectors, **options)
    for name, detector in detectors.items():
        np.testing.assert_allclose(images[name], (expected * detector).sum((2, 3)), rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(stemstore.mean_pattern(scan, **options), expected.mean((0, 1)), rtol=1e-9, atol=1e-9)
    com = stemstore.center_of_mass(scan, center=(0, 0), **options)
    np.testing.assert_allclose(com.total, expected.sum((2, 3)), rtol=1e-9, atol=1e-8)
    positive = com.total.values > 1
    rows = (expected * np.arange(SHAPE[2])[:, None]).sum((2, 3))
    np.testing.assert_allclose(com.com_y.values[positive], (rows / expected.sum((2, 3)))[positive], rtol=1e-7)


@settings(max_examples=25)
@given(choices, st.integers(0, 2**32 - 1), st.booleans())
def test_other_operations_see_corrected_frames(which, seed, counted):
    """Maximum, variance and functions of the user are given frames that were corrected by hand."""
    rng = np.random.default_rng(seed)
    frames = rng.poisson(2, SHAPE).astype(np.uint8)
    options = made(rng, which)
    scan = lazily((ArrayEvents if counted else ArrayFrames)(frames))
    expected = by_hand(frames, **options)
    np.testing.assert_allclose(stemstore.max_pattern(scan, **options), expected.max((0, 1)), atol=1e-12)
    np.testing.assert_allclose(stemstore.variance_pattern(scan, **options), expected.var((0, 1)), atol=1e-8)
    peaks = stemstore.map_frames(scan, lambda frame: frame.max(), **options)
    np.testing.assert_allclose(peaks, expected.max((2, 3)), atol=1e-12)
    np.testing.assert_allclose(stemstore.correct(scan, **options).intensity, expected, atol=1e-12)
    if "mask" not in options:
        rings = stemstore.radial_profile(scan, edges=[0, 100], **options)
        np.testing.assert_allclose(rings[..., 0], expected.sum((2, 3)), atol=1e-9)
        spread = stemstore.radial_profile(scan, edges=[0, 100], statistic="variance", **options)
        np.testing.assert_allclose(spread[..., 0], expected.var((2, 3)), atol=1e-9)
        cells = stemstore.polar_profile(scan, 4, edges=[0, 100], **options)
        np.testing.assert_allclose(cells.sum(("k", "angle")), expected.sum((2, 3)), atol=1e-9)


@settings(max_examples=25)
@given(choices, st.integers(0, 3), st.booleans())
def test_corrections_belong_to_the_visible_detector(which, step, counted):
    """After a selection of detector pixels, labelled references are matched by pixel number, arrays by place."""
    rng = np.random.default_rng(step)
    frames = rng.poisson(3, SHAPE).astype(np.uint8)
    scan = lazily((ArrayEvents if counted else ArrayFrames)(frames))
    part = scan.isel(ky=slice(None, None, -1), kx=slice(step, None))
    options = made(rng, which)
    pixels = {"ky_pixel": ("ky", np.arange(6)), "kx_pixel": ("kx", np.arange(7))}
    labelled = {name: xr.DataArray(value, dims=("ky", "kx"), coords=pixels) for name, value in options.items()}
    plain = {name: value[::-1, step:] for name, value in options.items()}
    expected = by_hand(frames[:, :, ::-1, step:], **plain).sum((2, 3))
    everything = np.ones((6, 7 - step), bool)
    for given_options in (plain, labelled):
        image = stemstore.virtual_image(part, everything, **given_options)
        np.testing.assert_allclose(image, expected, rtol=1e-9, atol=1e-9)


def test_a_mask_alone_keeps_sums_exact(counts, dataset_of):
    """Leaving pixels out changes no type: integer sums stay integers."""
    mask = np.ones(counts.shape[2:], bool)
    mask[3, 4] = False
    image = stemstore.virtual_image(dataset_of(ArrayFrames(counts)), np.ones_like(mask), mask=mask)
    assert image.dtype == np.uint64
    np.testing.assert_array_equal(image, counts[:, :, mask].sum(2))


def test_scans_stay_plain_selections(scan, counts):
    """An argument does not break what changing the values would break."""
    dark = np.ones(counts.shape[2:])
    image = stemstore.virtual_image(scan, stemstore.disk(4), dark=dark)
    assert any(name.startswith("fused") for name in image.data.dask.layers)
    assert "dark=" in image.attrs["history"]


def test_moving_detectors_see_corrected_frames(scan, counts):
    """With an origin per position, frames are corrected where they were recorded, before the detector moves."""
    rng = np.random.default_rng(5)
    dark, gain = rng.random(counts.shape[2:]), rng.uniform(0.5, 1.5, counts.shape[2:])
    where = (np.full(counts.shape[:2], 7.5), np.full(counts.shape[:2], 3.5))  # the middle is (6.5, 4.5)
    image = stemstore.virtual_image(scan, stemstore.rectangle((5, 9), (3, 7)), origin=where, dark=dark, gain=gain)
    expected = ((counts - dark) * gain)[:, :, 6:10, 2:6].sum((2, 3))
    np.testing.assert_allclose(image, expected, rtol=1e-12)


def test_missing_frames_are_not_corrected_into_values(frames_of, counts):
    """A frame that is missing has no corrected sum: it is NaN, not minus the dark reference."""
    validity = np.full(counts.shape[:2], 2)
    validity[1, 2] = 0
    scan = frames_of(counts, validity)
    dark = np.ones(counts.shape[2:])
    assert np.isnan(stemstore.virtual_image(scan, stemstore.disk(3), dark=dark).values[1, 2])
    assert np.isnan(stemstore.correct(scan, dark=dark).intensity.values[1, 2]).all()
    assert np.isnan(stemstore.map_frames(scan, np.mean, dark=dark).values[1, 2])
    expected = np.delete(counts.reshape(99, 14, 10), 9 + 2, axis=0).mean(0) - 1
    np.testing.assert_allclose(stemstore.mean_pattern(scan, dark=dark), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dark": np.zeros((3, 3))}, r"dark is a frame .* \(14, 10\).*shape \(3, 3\)"),
        ({"gain": np.full((14, 10), np.nan)}, "with 140 values that are NaN"),
        ({"bad_pixels": np.zeros((14, 10))}, "bad_pixels is boolean"),
        ({"bad_pixels": np.ones((14, 10), bool)}, r"bad pixel \(0, 0\) .* no good neighbour"),
        ({"mask": np.zeros((14, 10), bool)}, "covers no pixel inside the mask"),
    ],
)
def test_corrections_that_do_not_fit_are_refused(scan, options, message):
    """The message says which correction, and what was expected."""
    with pytest.raises(InputError, match=message):
        stemstore.virtual_image(scan, stemstore.disk(3), **options)


def test_unknown_corrections_are_refused(scan):
    """A misspelt argument is no correction that is silently ignored."""
    with pytest.raises(TypeError, match="unexpected argument 'drak'; corrections are bad_pixels, dark, gain, mask"):
        stemstore.virtual_image(scan, stemstore.disk(3), drak=1)
    with pytest.raises(InputError, match="no correction is given"):
        stemstore.correct(scan)


def test_disks_are_found_on_corrected_frames(frames_of):
    """A bright fixed pattern that would look like a disk is taken away by the dark reference."""
    rows, columns = np.indices((64, 64))
    disk = 200.0 * (np.hypot(rows - 20, columns - 22) < 5)
    fixed = 300.0 * (np.hypot(rows - 45, columns - 40) < 5)
    scan = frames_of(np.round(disk + fixed)[None, None].astype(np.uint16))
    assert stemstore.find_disks(scan, radius=5).n_disks.item() == 2
    found = stemstore.find_disks(scan, radius=5, dark=fixed)
    assert found.n_disks.item() == 1
    np.testing.assert_allclose(found.qy.item(), 20, atol=0.1)


def test_a_region_of_interest_counts_the_rest_as_missing(scan, counts):
    """Positions outside the region are marked, give nothing, and are not looked at."""
    roi = np.zeros(counts.shape[:2], bool)
    roi[2:5, 3] = True
    image = stemstore.virtual_image(scan, np.ones(counts.shape[2:], bool), roi=roi)
    np.testing.assert_array_equal(image, counts.sum((2, 3)) * roi)
    np.testing.assert_array_equal(image.valid, roi * 2)
    com = stemstore.center_of_mass(scan, roi=xr.DataArray(roi, dims=("y", "x")).T)
    np.testing.assert_array_equal(np.isnan(com.com_y), ~roi | (counts.sum((2, 3)) == 0))
    seen = []
    stemstore.map_frames(scan, lambda frame: seen.append(1) or 0.0, roi=roi).compute(scheduler="sync")
    assert len(seen) == 3


def test_functions_get_the_arguments_of_their_position(scan, counts):
    """Further arguments go with their pattern through every selection, one by one and in stacks."""
    offset = np.arange(99.0).reshape(11, 9)
    pair = xr.DataArray(np.stack([offset, -offset]), dims=("two", "y", "x"))
    part, some = scan.isel(y=slice(None, None, -2)), pair.isel(y=slice(None, None, -2))
    single = stemstore.map_frames(part, lambda frame, a, b: frame.sum() + a + b[1], args=(some[0], some))
    stacked = stemstore.map_frames(
        part, lambda frames, a, b: frames.sum((1, 2)) + a + b[:, 1], args=(some[0], some), per_block=True
    )
    np.testing.assert_array_equal(single, counts[::-2].sum((2, 3)))
    np.testing.assert_array_equal(stacked, counts[::-2].sum((2, 3)))
    with pytest.raises(InputError, match=r"argument 0 of the function has shape \(2,\)"):
        stemstore.map_frames(scan, np.add, args=([1, 2],))
