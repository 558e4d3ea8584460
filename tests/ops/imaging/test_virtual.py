"""Virtual images equal sums of masked frames, dense and counted, on any selection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.geometry.detectors import as_detector
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

MASK = np.random.default_rng(0).random((14, 10)) < 0.4


def test_image_is_the_sum_under_the_mask(scan, counts):
    """A boolean detector gives exact integer sums."""
    image = stemstore.virtual_image(scan, MASK)
    assert image.dtype == np.uint64
    np.testing.assert_array_equal(image, (counts * MASK).sum((2, 3)))
    assert image.dims == ("y", "x")


def test_dict_of_detectors_gives_all_images_in_one_pass(scan, counts):
    """Several detectors share one graph whose tasks read each piece once."""
    detectors = {"a": MASK, "b": ~MASK, "c": stemstore.disk(3)}
    images = stemstore.virtual_image(scan, detectors)
    names = {key[0] if isinstance(key, tuple) else key for key in dict(images["a"].data.dask)}
    assert len([name for name in names if str(name).startswith("fused")]) == 1
    np.testing.assert_array_equal(images.a + images.b, counts.sum((2, 3)))


@pytest.mark.parametrize("dtype", [float, complex, np.int32])
def test_weights_of_any_number_type_are_applied(scan, counts, dtype):
    """Integer, real and complex weights, negative ones included."""
    rng = np.random.default_rng(2)
    weights = (rng.normal(size=(14, 10)) * 5).astype(dtype)
    weights = weights + (1j * rng.normal(size=(14, 10)) if dtype is complex else 0)
    expected = np.einsum("yxij,ij->yx", counts.astype(float), weights)
    np.testing.assert_allclose(stemstore.virtual_image(scan, weights), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f4", "f8", ">u2"])
def test_every_pixel_type_sums_without_overflow(frames_of, dtype):
    """Sums of the largest values of a type are exact."""
    top = np.finfo(dtype).max / 1e30 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    frames = np.full((3, 5, 6, 7), top, dtype).astype(np.dtype(dtype).newbyteorder("="))
    image = stemstore.virtual_image(frames_of(frames), np.ones((6, 7), bool)).values
    assert (image == frames[0, 0].astype(image.dtype).sum()).all()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_selection_dense_and_counted_equals_numpy(data):
    """Selections of scan and detector, repeated pixels included, give the sums of the selected frames."""
    counts = np.random.default_rng(5).poisson(0.5, (5, 7, 6, 9)).astype(np.uint8)
    index = st.lists(st.integers(0, 4), min_size=1, max_size=6)
    chosen = {dim: data.draw(index) for dim in data.draw(st.sets(st.sampled_from(["y", "x", "ky", "kx"])))}
    source = data.draw(st.sampled_from([ArrayFrames, ArrayEvents]))(counts)
    scan = build(scan_source(source), [], Acquisition(), Calibration(), "memory", flyback=False)
    part = scan.intensity.isel(chosen)
    expected = counts
    for axis, dim in enumerate(["y", "x", "ky", "kx"]):
        expected = np.take(expected, chosen.get(dim, range(counts.shape[axis])), axis=axis)
    mask = np.ones(expected.shape[2:], bool)
    image = stemstore.virtual_image(part, mask)
    assert image.dtype == np.uint64
    np.testing.assert_array_equal(image, expected.sum((2, 3)))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_set_of_detectors_equals_numpy(data):
    """Segments, soft rings, rectangles and weights of any type together, for any pixel type, size and blocks."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4"]))
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(5, 13), st.integers(5, 13)))
    frames = np.random.default_rng(shape[0]).poisson(1.5, shape).astype(dtype)
    frames = frames - np.array(dtype[0] != "u", dtype)
    counted = dtype == "u1" and data.draw(st.booleans())
    source = scan_source((ArrayEvents if counted else ArrayFrames)(frames))
    image = build(source, [], Acquisition(), Calibration(), "memory", flyback=False).intensity
    if data.draw(st.booleans()):
        image = (image * np.array(1, dtype)).chunk({"y": 2, "ky": 3})
    radius = data.draw(st.floats(1.5, 9))
    n = data.draw(st.integers(1, 8))
    detectors = {
        **stemstore.segments(0, 20, n, rotation=data.draw(st.floats(-400, 400))),
        "soft": stemstore.disk(radius, antialias=True),
        "exact": stemstore.annulus(0.5, radius, antialias="exact"),
        "closed": stemstore.annulus(0.5, radius, edge="inclusive"),
        "weights": np.random.default_rng(n).normal(size=shape[2:]),
    }
    names = data.draw(st.permutations([name for name in detectors if covers(detectors[name], image)]))
    images = stemstore.virtual_image(image, {name: detectors[name] for name in names})
    assert list(images) == names
    for name in names:
        weights = as_detector(detectors[name]).weights(image)
        wide = {"u": np.uint64, "i": np.int64, "f": np.float64}[dtype[0]] if weights.dtype == bool else np.float64
        assert images[name].dtype == wide
        expected = (frames.astype(np.float64) * weights).sum((2, 3))
        np.testing.assert_allclose(images[name], expected, rtol=1e-12, atol=1e-9 if wide is np.float64 else 0)
    if {f"segment_{i}" for i in range(n)} <= set(names):
        whole = sum(images[f"segment_{i}"] for i in range(n))
        np.testing.assert_array_equal(whole, frames.sum((2, 3), dtype=np.float64))


def covers(detector, image):
    """Whether a detector has a pixel."""
    try:
        return as_detector(detector).weights(image).any()
    except InputError:
        return False


def test_single_positions_and_single_rows_work(scan, counts):
    """Dropped scan axes leave scalars and lines."""
    assert stemstore.virtual_image(scan.isel(y=2, x=3), MASK).values.item() == counts[2, 3][MASK].sum()
    np.testing.assert_array_equal(stemstore.virtual_image(scan.isel(y=2), MASK), counts[2][:, MASK].sum(1))


def test_physical_units_pick_the_same_pixels(dataset_of, counts):
    """The same ring in pixels, mrad and 1/angstrom gives the same image."""
    ds = dataset_of(ArrayFrames(counts), detector_step="2 mrad", beam_energy="300 keV")
    pixel = stemstore.virtual_image(ds, stemstore.annulus(1.2, 4.1, unit="pixel"))
    mrad = stemstore.virtual_image(ds, stemstore.annulus(2.4, 8.2, unit="mrad"))
    own = stemstore.virtual_image(ds, stemstore.annulus(2.4e-3 / 0.0196875, 8.2e-3 / 0.0196875))
    np.testing.assert_array_equal(pixel, mrad)
    np.testing.assert_array_equal(pixel, own)


def test_result_carries_coordinates_and_history(scan):
    """The image keeps the scan axes, drops the detector's, and says how it was made."""
    image = stemstore.virtual_image(scan.isel(y=slice(2, 5)), stemstore.annulus(1, 3))
    assert list(image.y.values) == [2, 3, 4]
    assert not {"ky", "kx", "ky_pixel"} & set(image.coords)
    assert "annulus(inner=1, outer=3)" in image.attrs["history"]


def test_missing_frames_are_marked(frames_of, counts):
    """The validity of the scan travels with the image."""
    validity = np.full(counts.shape[:2], 2)
    validity[1, 1] = 0
    image = stemstore.virtual_image(frames_of(counts, validity), MASK)
    assert image.valid.values[1, 1] == 0


@pytest.mark.parametrize(
    ("detector", "match"),
    [
        (np.ones((3, 3), bool), r"shape \(3, 3\).*\(14, 10\)"),
        (np.full((14, 10), np.nan), "NaN"),
        (stemstore.disk(0.2, center=(1.5, 1.5)), "covers no pixel"),
        (stemstore.point(40, 2), "outside the detector"),
        ({}, "empty"),
        ("bright", "disk"),
    ],
    ids=["shape", "nan", "empty-disk", "point", "empty-dict", "text"],
)
def test_detectors_that_cannot_work_are_refused(scan, detector, match):
    """The message says what is wrong before anything is read."""
    with pytest.raises(InputError, match=match):
        stemstore.virtual_image(scan, detector)


def test_unit_without_calibration_names_the_axis_and_the_way_out(scan):
    """A physical unit on an uncalibrated scan says which calibration is missing."""
    with pytest.raises(CalibrationMissingError, match=r"'ky'.*unit='pixel'"):
        stemstore.virtual_image(scan, stemstore.disk(5, unit="mrad"))
