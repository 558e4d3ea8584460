"""Operations on events against NumPy on the dense frames, for awkward detectors, scans and selections."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.ops.imaging.bright_field import bright_field_stack
from stemstore.ops.imaging.dose import split_halves, thin
from stemstore.ops.imaging.recenter import recenter
from stemstore.ops.imaging.sparse_blocks import to_sparse
from stemstore.scan.altered import bottom
from stemstore.scan.calibration import Calibration
from stemstore.scan.lazy import selection_of
from stemstore.scan.open import build
from stemstore.sources import streaming
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents
from stemstore_schemas import Acquisition

SCANS = [(5, 4), (3, 7), (1, 6), (2, 3, 4)]  # the last: several frames per position
DETECTORS = [(7, 5), (6, 9), (9, 1), (1, 8), (1, 1)]


def electrons(seed, scan, detector):
    """Counts with empty frames, several electrons per pixel, and both end pixels lit."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.4, (*scan, *detector)).astype(np.uint8)
    counts[rng.random(scan) < 0.25] = 0
    counts[..., -1, -1] += rng.integers(0, 3, scan).astype(np.uint8)
    counts[(0,) * counts.ndim] = 200
    return counts


def opened(counts):
    """Open counts as events."""
    source = scan_source(ArrayEvents(counts))
    return build(source, [], Acquisition(), Calibration(), "memory", flyback=False)


@pytest.fixture(scope="module", autouse=True)
def _small_pieces():
    """Read a few frames at a time, so that every scan has several blocks and partitions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BLOCK_BYTES", 60)
        patch.setattr(streaming, "EVENT_BATCH", 1)
        yield


def one_axis(draw, size, *, scan):
    """A selection along one axis: everything, steps, backwards, flags, or numbers that may repeat."""
    kind = draw(st.sampled_from(["all", "all", "step", "back", "flags", *(["list"] if scan else [])]))
    if kind == "step":
        return slice(draw(st.integers(0, size - 1)), None, draw(st.integers(1, 3)))
    if kind == "back":
        return slice(None, None, -1)
    if kind == "flags":
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size))) | (np.arange(size) == 0)
    return draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5)) if kind == "list" else slice(None)


@st.composite
def selections(draw):
    """A part of a counted scan and the same part of its dense counts, int64."""
    scan, detector = draw(st.sampled_from(SCANS)), draw(st.sampled_from(DETECTORS))
    counts = electrons(draw(st.integers(0, 5)), scan, detector)
    image = opened(counts).intensity
    number = np.arange(np.prod(scan)).reshape(scan)
    image = image.assign_coords(number=(image.dims[:-2], number))
    for dim in image.dims:
        image = image.isel({dim: one_axis(draw, image.sizes[dim], scan=dim not in {"ky", "kx"})})
    if len(scan) == 2 and draw(st.integers(0, 3)) == 0:
        some = {dim: xr.DataArray([0, image.sizes[dim] - 1, 0], dims="point") for dim in ("y", "x")}
        image = image.isel(some).transpose(..., "ky", "kx")
    frames = counts.reshape(-1, *detector)[image.number.values]
    return image, frames[(..., *np.ix_(image.ky_pixel.values, image.kx_pixel.values))].astype(np.int64)


@settings(max_examples=25)
@given(selection=selections(), seed=st.integers(0, 9))
def test_detectors_and_patterns(selection, seed):
    """Pixels, total image, sum pattern, maximum and many detectors in one pass are those of the dense frames."""
    image, dense = selection
    axes = tuple(range(dense.ndim - 2))
    masks = np.random.default_rng(seed).random((16, *dense.shape[-2:])) < 0.5
    several = {f"m{i}": mask for i, mask in enumerate(masks)} | {"w": masks[0] * 0.25 - masks[1]}
    np.testing.assert_array_equal(image.values, dense)
    np.testing.assert_array_equal(image.sum(("ky", "kx")), dense.sum((-1, -2)))
    np.testing.assert_array_equal(image.sum(image.dims[:-2]), dense.sum(axes))
    np.testing.assert_array_equal(stemstore.max_pattern(image), dense.max(axes))
    np.testing.assert_allclose(stemstore.variance_pattern(image), dense.var(axes), rtol=1e-12, atol=1e-15)
    found = stemstore.virtual_image(image, several).compute()
    for name, mask in several.items():
        np.testing.assert_array_equal(found[name], (dense * mask).sum((-1, -2)), err_msg=name)


@settings(max_examples=20)
@given(selection=selections(), masked=st.booleans())
def test_moments(selection, masked):
    """Centre of mass and its second moments are those of the dense frames, under a mask too; empty frames have none."""
    image, dense = selection
    mask = np.indices(dense.shape[-2:]).sum(0) % 3 != 1 if masked else None
    dense = dense if mask is None else dense * mask
    found = stemstore.center_of_mass(image, mask=mask, center=(0, 0), unit="pixel", sigma=True).compute()
    total = dense.sum((-1, -2))
    np.testing.assert_array_equal(found.total, total)
    number = np.where(total, total, np.nan)
    ky, kx = image.ky_pixel.values[:, None].astype(float), image.kx_pixel.values.astype(float)
    y, x = ((dense * k).sum((-1, -2)) / number for k in (ky, kx))
    np.testing.assert_allclose(found.com_y, y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.com_x, x, rtol=1e-12, atol=1e-12)
    spread = (dense * (ky - y[..., None, None]) ** 2).sum((-1, -2)) / number**2
    np.testing.assert_allclose(found.com_y_sigma, np.sqrt(spread), rtol=1e-6, atol=1e-6)
    mixed = (dense * (ky - y[..., None, None]) * (kx - x[..., None, None])).sum((-1, -2)) / number**2
    np.testing.assert_allclose(found.com_covariance, mixed, rtol=1e-6, atol=1e-9)


@settings(max_examples=20)
@given(selection=selections(), bins=st.integers(1, 4))
def test_rings_and_boxes(selection, bins):
    """Radial sums, their variance, boxes of the detector and of the scan are those of the dense frames."""
    image, dense = selection
    ky, kx = (axis - axis.attrs["stored_size"] / 2 + 0.5 for axis in (image.ky, image.kx))
    distance = np.hypot(*np.meshgrid(ky.values, kx.values, indexing="ij"))
    edges = np.linspace(0, distance.max() + 1, bins + 1)
    profile = stemstore.radial_profile(image, edges=edges).values
    spread = stemstore.radial_profile(image, edges=edges, statistic="variance").values
    for ring, (inner, outer) in enumerate(pairwise(edges)):
        pixels = dense[..., (distance >= inner) & (distance < outer)]
        np.testing.assert_array_equal(profile[..., ring], pixels.sum(-1))
        if pixels.shape[-1]:
            np.testing.assert_allclose(spread[..., ring], pixels.var(-1), rtol=1e-12, atol=1e-15)
    factor = min(2, dense.shape[-2]), min(3, dense.shape[-1])
    boxes = stemstore.bin_detector(image, factor, partial="keep")
    padded = np.pad(dense, [(0, 0)] * (dense.ndim - 2) + [(0, -n % f) for n, f in zip(dense.shape[-2:], factor)])  # noqa: B905 (both are pairs)
    shape = padded.shape[-2] // factor[0], factor[0], padded.shape[-1] // factor[1], factor[1]
    np.testing.assert_array_equal(boxes, padded.reshape(*dense.shape[:-2], *shape).sum((-1, -3)))
    if image.dims == ("y", "x", "ky", "kx"):
        n = dense.shape[1] // 2 * 2
        if n:
            pairs = dense[:, :n].reshape(dense.shape[0], n // 2, 2, *dense.shape[2:]).sum(2)
            np.testing.assert_array_equal(stemstore.bin_scan(image, (1, 2)), pairs)


@settings(max_examples=20)
@given(selection=selections(), fraction=st.floats(0, 1), seed=st.integers(0, 2**64 - 1))
def test_thinned_scans(selection, fraction, seed):
    """Every operation on a thinned selection is the one on its pixels; halves add up; lower doses are contained."""
    image, dense = selection
    low = thin(image, fraction, seed=seed)
    kept = low.values.astype(np.int64)
    assert (kept <= dense).all()
    np.testing.assert_array_equal(thin(image, fraction / 2, seed=seed).values <= kept, np.True_)
    np.testing.assert_array_equal(low.sum(image.dims[:-2]), kept.sum(tuple(range(dense.ndim - 2))))
    mask = np.indices(dense.shape[-2:]).sum(0) % 2 == 0
    np.testing.assert_array_equal(stemstore.virtual_image(low, mask), kept[..., mask].sum(-1))
    first, second = split_halves(image, seed=seed)
    np.testing.assert_array_equal(first.values.astype(int) + second.values, dense)


@settings(max_examples=20)
@given(selection=selections(), seed=st.integers(0, 9))
def test_recentred_scans(selection, seed):
    """Patterns move on the stored detector, and what leaves it is counted."""
    image, _ = selection
    number = image.number.values
    rng = np.random.default_rng(seed)
    moves = rng.integers(-4, 5, (int(number.max()) + 1, 2))[number]
    rest = [(image[name].attrs["stored_size"] - 1) / 2 for name in ("ky", "kx")]
    moved = recenter(image, tuple(xr.DataArray(moves[..., i] + rest[i], dims=image.dims[:-2]) for i in (0, 1)))
    whole = stored_frames(image)
    expected, lost = np.zeros_like(whole), np.zeros(len(moves.reshape(-1, 2)), int)
    for i, (frame, (down, right)) in enumerate(zip(whole, moves.reshape(-1, 2), strict=True)):
        row, column = np.nonzero(frame)
        r, c = row - down, column - right
        stay = (r >= 0) & (r < frame.shape[0]) & (c >= 0) & (c < frame.shape[1])
        expected[i][r[stay], c[stay]] = frame[row[stay], column[stay]]
        lost[i] = frame.sum() - expected[i].sum()
    seen = expected[(..., *np.ix_(image.ky_pixel.values, image.kx_pixel.values))].reshape(image.shape)
    np.testing.assert_array_equal(moved.intensity.values, seen)
    np.testing.assert_array_equal(moved.lost.values.reshape(-1), lost)
    np.testing.assert_array_equal(moved.intensity.sum(("ky", "kx")), seen.sum((-1, -2)))


def stored_frames(image):
    """Whole stored frames of the selected positions, (positions, rows, columns)."""
    source, _ = selection_of(image.data)
    events = bottom(source).source
    return events.counts[image.number.values.reshape(-1)].reshape(-1, *events.frame_shape).astype(np.int64)


@settings(max_examples=20)
@given(selection=selections(), factor=st.integers(1, 3))
def test_bright_field_stacks(selection, factor):
    """Every image of a stack is the virtual image of its pixels, and together they are that of the detector."""
    image, dense = selection
    mask = np.random.default_rng(dense.size).random(dense.shape[-2:]) < 0.6
    mask[0, 0] = True
    size = tuple(min(factor, n) for n in mask.shape)
    stack = bright_field_stack(image, mask, bin=size).compute()
    np.testing.assert_array_equal(stack.sum("k"), dense[..., mask].sum(-1))
    box = np.indices(mask.shape)[0] // size[0] * mask.shape[1] + np.indices(mask.shape)[1] // size[1]
    for one, label in zip(stack, np.unique(box[mask]), strict=True):
        pixels = mask & (box == label)
        np.testing.assert_array_equal(one, dense[..., pixels].sum(-1))
        assert one.n_pixels == pixels.sum()
        assert float(one.ky_pixel) == pytest.approx(image.ky_pixel.values[np.nonzero(pixels)[0]].mean())


@settings(max_examples=20)
@given(selection=selections())
def test_sparse_arrays(selection):
    """Sparse arrays, whole or in blocks, hold the pixels, each once."""
    image, dense = selection
    found = to_sparse(image)
    np.testing.assert_array_equal(found.todense(), dense)
    assert found.dtype == image.dtype
    assert found.nnz == np.count_nonzero(dense)
    blocks = to_sparse(image, blocks=True)
    assert blocks.shape == dense.shape
    np.testing.assert_array_equal(blocks.compute().todense(), dense)


def test_far_pixels_of_a_large_detector():
    """First gaps above 65535, also those that only a move makes, and frames with nothing, on 576 x 576 pixels."""
    counts = np.zeros((2, 3, 576, 576), np.uint8)
    rng = np.random.default_rng(0)
    for frame in counts.reshape(-1, 576, 576)[1:]:
        frame[rng.integers(100, 576, 40), rng.integers(0, 576, 40)] += 2
    counts[0, 1, 575, 575] = 255
    ds = opened(counts)
    np.testing.assert_array_equal(ds.intensity.sum(("y", "x")), counts.sum((0, 1), dtype=int))
    down = np.full((2, 3), 287.5 + 113)
    moved = recenter(ds, (down, np.full((2, 3), 287.5 - 5)))
    expected = np.zeros_like(counts)
    expected[..., :-113, 5:] = counts[..., 113:, :-5]
    np.testing.assert_array_equal(moved.intensity, expected)
    back = recenter(moved, (np.full((2, 3), 287.5 - 113), np.full((2, 3), 287.5 + 5)))
    again = np.zeros_like(counts)
    again[..., 113:, :-5] = counts[..., 113:, :-5]
    np.testing.assert_array_equal(back.intensity, again)
    low = thin(ds, 0.4)
    np.testing.assert_array_equal(stemstore.center_of_mass(low).total, low.intensity.values.sum((2, 3), dtype=int))
    np.testing.assert_array_equal(to_sparse(moved.intensity[1, 2]).todense(), expected[1, 2])
