"""Binned detectors equal sums of NumPy, with exact types, coordinates of the boxes, dense and counted."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.scan import pieces
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition


def boxes(frames, factor, *, keep):
    """Sum boxes one by one, in Python integers or doubles."""
    (fy, fx), (ny, nx) = factor, frames.shape[-2:]
    starts = [range(0, n if keep else n - n % f, f) for n, f in ((ny, fy), (nx, fx))]
    wide = frames.astype(np.float64 if frames.dtype.kind == "f" else object)
    rows = [[wide[..., i : i + fy, j : j + fx].sum((-2, -1)) for j in starts[1]] for i in starts[0]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1)).reshape(*frames.shape[:-2], *map(len, starts))


def test_boxes_are_summed(scan, counts):
    """Rows and columns that do not fill a box are left out; the type is wide enough for any uint8."""
    binned = stemstore.bin_detector(scan, (4, 3))
    assert binned.dims == ("y", "x", "ky", "kx")
    assert binned.dtype == np.uint16
    expected = counts[..., :12, :9].reshape(11, 9, 3, 4, 3, 3).sum((3, 5))
    np.testing.assert_array_equal(binned, expected)
    assert stemstore.explain(scan).startswith("fused")


def test_the_last_boxes_can_be_kept(scan, counts):
    """With partial="keep" no electron is lost."""
    binned = stemstore.bin_detector(scan, (4, 3), partial="keep")
    assert binned.shape[2:] == (4, 4)
    np.testing.assert_array_equal(binned.sum(("ky", "kx")), counts.sum((2, 3)))


@pytest.mark.parametrize(
    ("dtype", "factor", "wide"),
    [
        ("u1", (1, 1), "u1"),
        ("u1", (1, 2), "u2"),
        ("u1", (16, 16), "u2"),
        ("u1", (16, 17), "u4"),
        ("u2", (2, 2), "u4"),
        ("u4", (2, 1), "u8"),
        ("u8", (2, 2), "u8"),
        ("i1", (1, 2), "i2"),
        ("i2", (2, 2), "i4"),
        ("i4", (1, 1), "i4"),
        ("i4", (1, 2), "i8"),
        ("?", (2, 2), "u2"),
        ("f4", (2, 2), "f8"),
    ],
)
def test_the_type_holds_the_largest_sum_and_is_the_smallest(frames_of, dtype, factor, wide):
    """Frames full of the largest and the smallest value sum without overflow."""
    kind = np.dtype(dtype)
    limits = (np.iinfo(kind) if kind.kind in "iu" else None) if kind.itemsize < 8 else None
    for value in (limits.min, limits.max) if limits else (1, 0):
        frames = np.full((2, 2, 16, 17), value, kind)
        binned = stemstore.bin_detector(frames_of(frames), factor)
        assert binned.dtype == binned.values.dtype == wide
        assert (binned.values == int(value) * factor[0] * factor[1]).all()


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_selection_type_and_block_equals_numpy(data):
    """Crops, strides, repeated and reversed pixels, dense or counted, fused or block by block."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4"]))
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))
    frames = np.random.default_rng(shape[2]).poisson(1.5, shape).astype(dtype)
    frames = frames - np.array(dtype[0] != "u", dtype)
    counted = dtype == "u1" and data.draw(st.booleans())
    source = scan_source((ArrayEvents if counted else ArrayFrames)(frames))
    image = build(source, [], Acquisition(), Calibration(), "memory", flyback=False).intensity
    if data.draw(st.booleans()):
        image = (image * np.array(1, dtype)).chunk({"x": 2, "kx": 3})
    key = {}
    for axis, dim in enumerate(("y", "x", "ky", "kx")):
        n = shape[axis]
        part = data.draw(
            st.one_of(
                st.just(slice(None)),
                st.builds(slice, st.integers(0, n - 1), st.none(), st.integers(1, 3)),
                st.just(slice(None, None, -1)),
                st.lists(st.integers(0, n - 1), min_size=1, max_size=5),
            )
        )
        key[dim] = part
        frames = frames[(slice(None),) * axis + (part,)]
    factor = tuple(data.draw(st.integers(1, n)) for n in frames.shape[2:])
    keep = data.draw(st.booleans())
    binned = stemstore.bin_detector(image.isel(key), factor, partial="keep" if keep else "drop")
    expected = boxes(frames, factor, keep=keep)
    np.testing.assert_array_equal(binned.values, expected.astype(binned.dtype))
    np.testing.assert_allclose(binned.values.astype(float), expected.astype(float), rtol=1e-12)


@pytest.mark.parametrize("partial", ["drop", "keep"])
@pytest.mark.parametrize("steps", [{}, {"detector_step": "0.5 mrad"}], ids=["pixels", "mrad"])
def test_coordinates_are_the_middles_of_the_boxes(dataset_of, counts, partial, steps):
    """Disks and centres of mass in physical units find the same beam in the binned scan."""
    ds = dataset_of(ArrayFrames(counts), **steps)
    binned = stemstore.bin_detector(ds, (2, 5), partial=partial)
    np.testing.assert_allclose(binned.ky, ds.ky.values.reshape(7, 2).mean(1))
    np.testing.assert_allclose(binned.kx, ds.kx.values.reshape(2, 5).mean(1))
    assert binned.ky.attrs["units"] == ds.ky.attrs["units"]
    assert binned.ky.attrs["step"] == 2 * ds.ky.attrs["step"]
    assert binned.kx_pixel.values.tolist() == [0, 1]
    np.testing.assert_allclose(
        stemstore.center_of_mass(binned, mask=np.ones((7, 2), bool)).com_y,
        stemstore.center_of_mass(scan_of_boxes(ds.intensity, (2, 5))).com_y,
    )
    middle = stemstore.center_of_mass(binned, unit="pixel", center=(0, 0)).com_y.values
    if steps:
        rows = np.arange(7)[:, None]
        sums = boxes(counts, (2, 5), keep=False).astype(float)
        np.testing.assert_allclose(middle, (sums * rows).sum((2, 3)) / sums.sum((2, 3)))


def scan_of_boxes(image, factor):
    """Give every pixel the place of its box, by coordinates alone."""
    places = {
        dim: (dim, np.repeat(image[dim].values.reshape(-1, f).mean(1), f), image[dim].attrs)
        for dim, f in zip(("ky", "kx"), factor, strict=True)
    }
    return image.assign_coords(places)


def test_binned_scans_go_on_being_scans(scan):
    """A virtual image of boxes equals the one of the pixels they hold; single boxes have a step as well."""
    binned = stemstore.bin_detector(scan, 2)
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    whole = stemstore.virtual_image(scan, np.repeat(np.repeat(mask, 2, 0), 2, 1))
    np.testing.assert_array_equal(stemstore.virtual_image(binned, mask), whole)
    np.testing.assert_array_equal(
        stemstore.bin_detector(stemstore.bin_detector(scan, (2, 1)), (3, 2)), stemstore.bin_detector(scan, (6, 2))
    )
    one = stemstore.bin_detector(scan, (14, 10))
    assert one.kx.attrs["step"] == 10
    np.testing.assert_array_equal(one[..., 0, 0], scan.intensity.sum(("ky", "kx")))


def test_missing_frames_stay_marked(frames_of, counts):
    """The coordinate valid goes along; a missing frame is zero."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[2, 3] = validity[2, 3] = 0
    binned = stemstore.bin_detector(frames_of(frames, validity), 2).compute()
    assert binned.valid[2, 3] == 0
    assert not binned[2, 3].any()


def test_large_results_come_in_small_pieces(scan, counts, monkeypatch):
    """One task holds no more boxes than it may, and the numbers are the same."""
    monkeypatch.setattr(pieces, "OUTPUT_BYTES", 35 * 2 * 9)  # the boxes of one scan row
    binned = stemstore.bin_detector(scan, 2)
    assert max(binned.chunks[0]) * max(binned.chunks[1]) <= 9
    expected = counts.reshape(11, 9, 7, 2, 5, 2).sum((3, 5))
    np.testing.assert_array_equal(binned, expected)
    np.testing.assert_array_equal(
        stemstore.compute(binned, stemstore.virtual_image(scan, stemstore.disk(3)))[0], binned
    )
    monkeypatch.setattr(pieces, "OUTPUT_BYTES", 1)
    part = stemstore.bin_detector(scan.isel(x=4, y=slice(8, 0, -3)), 2)
    assert part.chunks[0] == (1, 1, 1)
    np.testing.assert_array_equal(part, expected[8:0:-3, 4])


@pytest.mark.parametrize("factor", [0, -1, 15, (2,), (2, 11), 1.5, "2", True, (1, 2, 3)], ids=str)
def test_impossible_factors_are_refused(scan, factor):
    """Factors are whole numbers from 1 to the size of the detector."""
    with pytest.raises(InputError, match=r"does not fit a detector of \(14, 10\)"):
        stemstore.bin_detector(scan, factor)


def test_other_words_for_partial_are_refused(scan):
    """Only two things can become of the last boxes."""
    with pytest.raises(InputError, match="expected 'drop' or 'keep'"):
        stemstore.bin_detector(scan, 2, partial="pad")


def test_a_single_frame_and_an_array_in_memory_can_be_binned(scan, counts):
    """Scan axes may be absent, and so may coordinates and laziness."""
    frame = stemstore.bin_detector(scan.isel(y=2, x=3), (2, 3))
    assert frame.dims == ("ky", "kx")
    expected = boxes(counts, (2, 3), keep=False)
    np.testing.assert_array_equal(frame, expected[2, 3].astype(int))
    plain = xr.DataArray(counts[2], dims=("x", "ky", "kx")).transpose("kx", "x", "ky")
    binned = stemstore.bin_detector(plain, (2, 3))
    assert not binned.coords
    np.testing.assert_array_equal(binned, expected[2].astype(int))
