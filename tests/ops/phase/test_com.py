"""The centre of mass has the right value, order, sign and unit."""

import numpy as np
import pytest
import scipy.ndimage

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.testing.arrays import ArrayEvents, ArrayFrames


def spots(rows, columns):
    """3 x 3 scan of 3 x 3 frames with one bright pixel each."""
    frames = np.zeros((3, 3, 3, 3), np.uint16)
    y, x = np.indices((3, 3))
    frames[y, x, rows(y, x), columns(y, x)] = 5
    return frames


@pytest.mark.parametrize("source", [ArrayFrames, ArrayEvents])
@pytest.mark.parametrize(
    ("rows", "columns", "com_y", "com_x"),
    [
        (lambda y, x: y, lambda y, x: x, lambda y, x: y - 1, lambda y, x: x - 1),
        (lambda y, x: 2 - y, lambda y, x: 2 - x, lambda y, x: 1 - y, lambda y, x: 1 - x),
        (lambda y, x: x, lambda y, x: 2 - y, lambda y, x: x - 1, lambda y, x: 1 - y),
    ],
    ids=["along", "against", "turned"],
)
def test_exact_vectors(dataset_of, source, rows, columns, com_y, com_x):
    """One bright pixel: com_y is its row and com_x its column, relative to the middle."""
    com = stemstore.center_of_mass(dataset_of(source(spots(rows, columns))))
    y, x = np.indices((3, 3))
    np.testing.assert_array_equal(com.com_y, com_y(y, x))
    np.testing.assert_array_equal(com.com_x, com_x(y, x))


@pytest.mark.parametrize("detector", [None, stemstore.disk(4)], ids=["whole", "disk"])
def test_agrees_with_scipy(scan, counts, detector):
    """Every frame agrees with an independent implementation, masked or not."""
    com = stemstore.center_of_mass(scan, mask=detector, center=(0, 0)).compute()
    mask = np.ones((14, 10)) if detector is None else detector.weights(scan.intensity)
    expected = np.array([[scipy.ndimage.center_of_mass(f * mask) for f in row] for row in counts])
    np.testing.assert_allclose(np.stack([com.com_y, com.com_x], -1), expected, rtol=1e-12)
    np.testing.assert_array_equal(com.total, (counts * mask).sum((2, 3)))


def test_cropped_detectors_keep_the_coordinates(scan, counts):
    """On part of the detector, even a strided part, the result is in the same coordinates."""
    for part in (slice(3, 9), slice(1, None, 3), [2, 2, 7]):
        com = stemstore.center_of_mass(scan.isel(ky=part), center=(0, 0))
        cut = counts[:, :, part].astype(float)
        rows = np.arange(14.0)[part]
        np.testing.assert_allclose(com.com_y, np.einsum("yxij,i->yx", cut, rows) / cut.sum((2, 3)), rtol=1e-12)


def test_units_follow_the_calibration(dataset_of, counts):
    """In 1/angstrom the result is the pixel result times the step, relative to the optic axis."""
    ds = dataset_of(ArrayFrames(counts), detector_step=("2 mrad", "3 mrad"), beam_energy=300, detector_center=(5, 4))
    com = stemstore.center_of_mass(ds)
    pixel = stemstore.center_of_mass(ds, unit="pixel", center=(5, 4))
    assert com.com_y.attrs["units"] == "1/angstrom"
    np.testing.assert_allclose(com.com_y, pixel.com_y * 2e-3 / 0.0196875, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(com.com_x, pixel.com_x * 3e-3 / 0.0196875, rtol=1e-5, atol=1e-12)
    mrad = stemstore.center_of_mass(ds, unit="mrad")
    np.testing.assert_allclose(mrad.com_x, pixel.com_x * 3, rtol=1e-9, atol=1e-12)


def test_empty_and_missing_frames_are_nan_and_leave_neighbours_alone(frames_of, counts):
    """No electrons, or no frame at all, gives NaN."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[2, 3] = 0
    validity[4, 5] = 0
    com = stemstore.center_of_mass(frames_of(frames, validity)).compute()
    assert np.argwhere(np.isnan(com.com_y.values)).tolist() == [[2, 3], [4, 5]]
    assert com.valid.values[4, 5] == 0


def test_mask_must_be_boolean(scan):
    """Real weights are not a mask."""
    with pytest.raises(InputError, match="boolean"):
        stemstore.center_of_mass(scan, mask=np.ones((14, 10)))


def test_sums_stay_exact_beyond_32_bits(frames_of):
    """Moments of full-scale 16-bit frames do not overflow."""
    frames = np.full((1, 1, 300, 301), 65535, np.uint16)
    com = stemstore.center_of_mass(frames_of(frames), center=(0, 0))
    assert com.total.values.item() == 65535 * 300 * 301
    assert com.com_x.values.item() == 150.0


@pytest.mark.parametrize("shape", [(7, 12), (9, 5)])
def test_peers_centres_are_a_parameter(dataset_of, shape):
    """LiberTEM counts from n // 2 and pyxem from n / 2; ours is (n - 1) / 2, on odd and non-square detectors."""
    frames = np.zeros((1, 1, *shape), np.uint16)
    frames[..., 1, 3] = 4
    ds = dataset_of(ArrayFrames(frames))
    ours = stemstore.center_of_mass(ds).compute()
    assert (ours.com_y.item(), ours.com_x.item()) == (1 - (shape[0] - 1) / 2, 3 - (shape[1] - 1) / 2)
    libertem = stemstore.center_of_mass(ds, center=(shape[0] // 2, shape[1] // 2)).compute()
    assert (libertem.com_y.item(), libertem.com_x.item()) == (1 - shape[0] // 2, 3 - shape[1] // 2)
    pyxem = stemstore.center_of_mass(ds, center=(shape[0] / 2, shape[1] / 2)).compute()
    assert (-pyxem.com_x.item(), -pyxem.com_y.item()) == (shape[1] / 2 - 3, shape[0] / 2 - 1)


def test_single_rows_and_columns_have_a_centre_of_mass(dataset_of, counts):
    """A line scan is measured like any other."""
    whole = stemstore.center_of_mass(dataset_of(ArrayFrames(counts))).compute()
    for part in ({"y": slice(2, 3)}, {"x": slice(5, 6)}):
        line = stemstore.center_of_mass(dataset_of(ArrayFrames(counts)).isel(part))
        np.testing.assert_array_equal(line.com_x, whole.com_x.isel(part))


def test_a_dead_pixel_at_the_type_maximum_is_masked_before_the_sum(dataset_of):
    """A pixel marked with 2^16 - 1 takes no part when the mask leaves it out, not even in the total."""
    frames = np.zeros((2, 2, 8, 8), np.uint16)
    frames[..., 2, 5], frames[..., 7, 0] = 3, 65535
    mask = np.ones((8, 8), bool)
    mask[7, 0] = False
    com = stemstore.center_of_mass(dataset_of(ArrayFrames(frames)), mask=mask, center=(0, 0))
    np.testing.assert_array_equal(com.total, 3)
    np.testing.assert_array_equal(com.com_y, 2)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", ">u4", "<i4", "<f4", ">f4", "<f8"])
def test_every_pixel_type_gives_the_same(dataset_of, counts, dtype):
    """Width, sign and byte order of the pixels do not matter, nor does a detector cut into dask chunks."""
    expected = stemstore.center_of_mass(dataset_of(ArrayFrames(counts))).compute()
    ds = dataset_of(ArrayFrames(counts.astype(dtype)))
    chunked = ds.intensity.copy(data=ds.intensity.data.rechunk((4, 9, 5, 3)))
    for scan in (ds, chunked):
        com = stemstore.center_of_mass(scan)
        np.testing.assert_array_equal(com.total, expected.total)
        np.testing.assert_allclose(com.com_y, expected.com_y, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(com.com_x, expected.com_x, rtol=1e-12, atol=1e-12)


def test_the_centre_may_lie_outside_the_detector(dataset_of, counts):
    """A centre beyond the edge shifts the result and nothing else."""
    ds = dataset_of(ArrayFrames(counts))
    zero, outside = (stemstore.center_of_mass(ds, center=center) for center in ((0, 0), (-20.5, 31)))
    np.testing.assert_allclose(outside.com_y, zero.com_y + 20.5)
    np.testing.assert_allclose(outside.com_x, zero.com_x - 31)


def test_a_missing_beam_energy_is_named(dataset_of, counts):
    """Angles do not become reciprocal lengths without the wavelength."""
    ds = dataset_of(ArrayFrames(counts), detector_step="0.5 mrad")
    with pytest.raises(CalibrationMissingError, match="beam_energy"):
        stemstore.center_of_mass(ds, unit="1/angstrom")


def calibrated(dataset_of, frames):
    """A scan with rectangular detector pixels in mrad and an optic axis away from the middle."""
    return dataset_of(ArrayFrames(frames), detector_step=("0.02 mrad", "0.03 mrad"), detector_center=(6.25, 3.5))


def test_py4dstem_centred_and_calibrated_masks_have_their_centre_in_one_unit(dataset_of, counts):
    """A mask in mrad lies around the optic axis; py4DSTEM 0.14 adds the origin in pixels to a calibrated geometry."""
    ky, kx = np.indices((14, 10))
    mask = np.hypot((ky - 6.25) * 0.02, (kx - 3.5) * 0.03) < 0.08
    ds = calibrated(dataset_of, counts)
    com, expected = (stemstore.center_of_mass(ds, mask=m) for m in (stemstore.disk(0.08, unit="mrad"), mask))
    np.testing.assert_array_equal(com.total, expected.total)
    np.testing.assert_array_equal(com.com_y, expected.com_y)


def test_py4dstem_calibrated_axes_count_from_the_origin_in_their_own_unit(dataset_of):
    """A spot n pixels off axis is n steps off axis; py4DSTEM 0.14 subtracts the origin in pixels from them."""
    frames = np.zeros((1, 1, 14, 10), np.uint16)
    frames[..., 12, 1] = 9
    com = stemstore.center_of_mass(calibrated(dataset_of, frames)).compute()
    assert com.com_y.item() == pytest.approx((12 - 6.25) * 0.02)
    assert com.com_x.item() == pytest.approx((1 - 3.5) * 0.03)  # rectangular pixels: each axis has its own step


def test_py4dstem_empty_frames_stay_unknown_after_the_fit(dataset_of, counts):
    """A frame without electrons is NaN before and after descan removal; py4DSTEM 0.14 turns it into a zero."""
    frames = counts.copy()
    frames[2, 3] = 0
    com = stemstore.center_of_mass(dataset_of(ArrayFrames(frames)))
    left = stemstore.subtract_descan(com, stemstore.fit_descan(com, "plane")).compute()
    for name in ("com_y", "com_x"):
        assert np.argwhere(np.isnan(left[name].values)).tolist() == [[2, 3]]
        assert abs(np.nanmean(left[name].values)) < 1e-12  # the others do not feel it


@pytest.mark.parametrize("detector", [None, stemstore.disk(4)], ids=["whole", "disk"])
def test_standard_errors_are_those_of_a_mean_of_electrons(scan, counts, detector):
    """Each frame's errors are those of numpy over its electrons, and the rest is as without them."""
    com = stemstore.center_of_mass(scan, mask=detector, sigma=True).compute()
    mask = np.ones((14, 10), bool) if detector is None else detector.weights(scan.intensity)
    for y, x in ((0, 0), (4, 7), (10, 8)):
        electrons = np.repeat(np.argwhere(mask), counts[y, x][mask], axis=0)
        expected = np.cov(electrons.T, bias=True) / len(electrons)
        got = com.isel(y=y, x=x)
        assert got.com_y_sigma.item() == pytest.approx(np.sqrt(expected[0, 0]), rel=1e-10)
        assert got.com_x_sigma.item() == pytest.approx(np.sqrt(expected[1, 1]), rel=1e-10)
        assert got.com_covariance.item() == pytest.approx(expected[0, 1], rel=1e-9, abs=1e-12)
    plain = stemstore.center_of_mass(scan, mask=detector)
    np.testing.assert_allclose(com.com_y, plain.com_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(com.total, plain.total)
    assert com.total.dtype == plain.total.dtype


def test_standard_errors_predict_the_scatter(dataset_of):
    """Many frames of the same pattern scatter as their errors say, in the unit of the axes."""
    pattern = 10 * np.random.default_rng(5).random((9, 7))
    frames = np.random.default_rng(6).poisson(pattern, (40, 50, 9, 7)).astype(np.uint8)
    ds = dataset_of(ArrayEvents(frames), detector_step=("2 mrad", "3 mrad"), detector_center=(4, 3))
    com = stemstore.center_of_mass(ds, sigma=True).compute()
    for name in ("com_y", "com_x"):
        assert com[name].std().item() == pytest.approx(com[f"{name}_sigma"].mean().item(), rel=0.05)
        assert com[f"{name}_sigma"].attrs["units"] == "mrad"


def test_standard_errors_on_strided_detectors_and_empty_frames(frames_of, counts):
    """A strided detector has the spread of its coordinates, and nothing is known where nothing was counted."""
    frames = counts.copy()
    frames[2, 3] = 0
    com = stemstore.center_of_mass(frames_of(frames).isel(ky=[2, 2, 7, 13]), sigma=True).compute()
    assert np.argwhere(np.isnan(com.com_y_sigma.values)).tolist() == [[2, 3]]
    rows, weight = np.array([2.0, 2, 7, 13]), frames[0, 0][[2, 2, 7, 13]].sum(1).astype(float)
    mean = (rows * weight).sum() / weight.sum()
    expected = np.sqrt(((rows - mean) ** 2 * weight).sum()) / weight.sum()
    assert com.com_y_sigma.values[0, 0] == pytest.approx(expected, rel=1e-10)
