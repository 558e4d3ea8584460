"""Every operation equals NumPy: for all pixel types, odd sizes, selections and chunkings, streamed or by blocks."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

DTYPES = ["u1", "u2", "u4", "i2", "i4", "f4"]
EXACT = {"u": np.uint64, "i": np.int64, "f": np.float64}
ROADS = ["frames", "events", "blocks", "memory"]


@st.composite
def scans(draw):
    """A small scan of odd sizes, a selection of it, and the same pixels in memory."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.integers(1, n)) for n in (6, 5, 9, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    top = {"u1": 3, "i2": 2**15 - 1, "i4": 2**31 - 1, "u4": 2**32 - 1, "f4": 1000}.get(dtype.str[1:], 2**16 - 1)
    frames = rng.integers(-top if dtype.kind == "i" else 0, top, shape, endpoint=True).astype(dtype)
    road = draw(st.sampled_from(ROADS))
    if road == "events":
        frames = rng.poisson(0.5, shape).astype(np.uint8)
    source = scan_source((ArrayEvents if road == "events" else ArrayFrames)(frames))
    source.partition, source.chunk = draw(st.sampled_from([((2, 3), (2, 2)), ((4, 4), (1, 3)), ((1, 1), (1, 1))]))
    ds = build(source, [], Acquisition(), Calibration(), "memory", flyback=False)
    plain = xr.DataArray(frames, dims=("y", "x", "ky", "kx"))
    for dim, size in zip(plain.dims, shape, strict=True):
        key = slice(draw(st.integers(0, size - 1)), None, draw(st.sampled_from([1, 2])))
        if draw(st.booleans()):
            ds, plain = ds.isel({dim: key}), plain.isel({dim: key})
    if road == "blocks":
        ds = ds.assign(intensity=(ds.intensity + 0).chunk({"y": 2, "kx": 3}))
    return (ds.load() if road == "memory" else ds), plain.values


def check(found, expected, *, exact):
    """Compare values; exactly, with their type, where integers are summed."""
    values = np.asarray(found)
    if exact:
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)
    else:
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * max(1.0, float(np.abs(expected).max())))


@settings(max_examples=40)
@given(scans(), st.sampled_from(["synchronous", "threads"]), st.integers(0, 99))
def test_operations_equal_numpy(case, scheduler, seed):
    """Images, moments, patterns, bins and profiles are those of NumPy on the same pixels; integer sums exactly."""
    ds, frames = case
    exact, wide = frames.dtype.kind != "f", EXACT[frames.dtype.kind]
    rng = np.random.default_rng(seed)
    mask, weights = rng.random(frames.shape[2:]) < 0.6, rng.normal(size=frames.shape[2:])
    mask[0, 0] = True
    rows, columns = np.indices(frames.shape[2:])
    big = frames.astype(wide)
    results = {
        "mask": (stemstore.virtual_image(ds, mask), (big * mask.astype(wide)).sum((2, 3), dtype=wide), exact),
        "weights": (stemstore.virtual_image(ds, weights), (big * weights).sum((2, 3)), False),
        "total": (stemstore.center_of_mass(ds).total, big.sum((2, 3), dtype=wide), exact),
        "mean": (stemstore.mean_pattern(ds), big.astype(np.float64).mean((0, 1)), False),
        "max": (stemstore.max_pattern(ds), frames.max((0, 1)), True),
        "variance": (stemstore.variance_pattern(ds), frames.astype(np.float64).var((0, 1)), False),
        "boxes": (stemstore.bin_detector(ds, (frames.shape[2], 1))[:, :, 0], big.sum(2), False),
        "groups": (stemstore.bin_scan(ds, (1, frames.shape[1]))[:, 0], big.sum(1, dtype=wide), exact),
        "rings": (stemstore.radial_profile(ds, edges=[0, 1e3])[..., 0], big.sum((2, 3), dtype=wide), exact),
        "function": (stemstore.map_frames(ds, lambda f: float(f.max())), frames.max((2, 3)).astype(float), True),
    }
    lazy = stemstore.compute(*(found for found, _, _ in results.values()), scheduler=scheduler)
    for name, found, (_, expected, is_exact) in zip(results, lazy, results.values(), strict=True):
        try:
            check(found, expected, exact=is_exact)
        except AssertionError as error:
            error.add_note(f"operation {name} on {frames.dtype} {frames.shape}")
            raise
    total = big.astype(np.float64).sum((2, 3))
    com = stemstore.center_of_mass(ds, unit="pixel", center=(0, 0))
    first = ds.intensity.ky_pixel.values, ds.intensity.kx_pixel.values
    for axis, name in ((rows, "com_y"), (columns, "com_x")):
        along = first[0][rows] if name == "com_y" else first[1][axis]
        there = total > 1e-6 * np.abs(big.astype(np.float64)).sum((2, 3))
        expected = (big.astype(np.float64) * along).sum((2, 3))[there] / total[there]
        np.testing.assert_allclose(com[name].values[there], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_sums_of_the_largest_values_do_not_overflow(dtype, frames_of):
    """Frames full of the type's largest value are summed exactly."""
    top = np.iinfo(dtype).max
    frames = np.full((2, 3, 40, 40), top, dtype)
    ds = frames_of(frames)
    assert (stemstore.virtual_image(ds, np.ones((40, 40), bool)) == 1600 * top).all()
    assert (stemstore.mean_pattern(ds) == top).all()
    com = stemstore.center_of_mass(ds)
    np.testing.assert_allclose([com.com_y.values, com.com_x.values], 0, atol=1e-12)
